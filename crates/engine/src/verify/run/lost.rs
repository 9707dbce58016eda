//! Backups whose `backup.json` is gone, although nobody removed them ([`crate::repository::lost`]).

use std::collections::BTreeSet;

use holdfast_contract::report::verify::DamageKind;
use holdfast_repo::name::{self, BackupId};

use super::{Asked, Run};
use crate::error::Error;
use crate::repository::lost::lost_backups;

impl Run<'_> {
    /// Records as damaged the backups of the ledger that are not among the known ones.
    pub(super) async fn find_lost(&mut self, known: &BTreeSet<BackupId>) -> Result<(), Error> {
        let (cluster, verified) = (&self.options.cluster, &self.scrub.damage.verified);
        for backup in lost_backups(self.repository, cluster, verified, known).await? {
            let object = name::backup_summary(cluster, &backup);
            let problem = "the ledger shows that the backup was complete, and not that it was removed".to_owned();
            self.findings.damage(DamageKind::Missing, &object, 1, problem, &[backup]);
            self.asked.insert(backup, Asked::new(backup, None));
        }
        Ok(())
    }
}
