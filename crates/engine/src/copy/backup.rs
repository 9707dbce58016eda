//! One backup of a copy, from its start record to its `backup.json`.
//!
//! The order is that of a backup ([`crate::backup`]), and so is the protection against runs that think this one is
//! dead: the start record has the id of this run, and this run has a lease with that id. The start record is checked
//! before and after `backup.json` is created.
//!
//! If there is already a start record, it is of another run: a copy, or a backup that had lost this repository. If that
//! run is dead, this run writes its own id into the record, and continues with what is there.

use chrono::TimeDelta;
use futures::FutureExt as _;
use holdfast_pgtypes::SegmentName;
use holdfast_repo::name::{self, BackupId};
use holdfast_repo::record::{BackupRecord, ClaimRecord, RunIdentity, StartRecord};
use holdfast_store::StoreErrorKind;

use super::run::Run;
use crate::archive::{WalFolders, WalScope};
use crate::backup::{OwnRecords, Published, publish, remove_own};
use crate::carry::CarriedData;
use crate::error::{Cause, Error, ResultExt};
use crate::repository::leases::{EXPIRE_ENDS_WITHIN, Lease};
use crate::repository::machine::Machine;
use crate::repository::object_name;
use crate::restore::would_take;

/// A run without a lease counts as alive for this time, as in `expire`.
const LONGEST_BACKUP: TimeDelta = TimeDelta::days(7);

impl Run<'_> {
    /// Copies a backup; `None` if the target already has it.
    pub(super) async fn copy_backup(&mut self, record: &BackupRecord) -> Result<Option<CarriedData>, Error> {
        if self.is_there(record).await? {
            return Ok(None);
        }
        let Some((_, claim)) = self.pairs.of_first(record.claim) else {
            return Err(Cause::Internal("the claim of a backup was not taken".to_owned()).into());
        };
        let claim = claim.clone();
        self.start(record, &claim).await?;
        // First the WAL: a copy that diverges has brought no packs.
        let needed = self.copy_wal_of(record).await?;
        let data = self.carrier.carry_data(record, self.check_before_manifest(record).boxed()).await?;
        let new = BackupRecord { claim: claim.number, ..data.record(record, &self.carrier) };
        self.progress.phase("looking at the copy", None);
        self.publish(&new, &claim, &needed).await?;
        Ok(Some(data))
    }

    async fn is_there(&self, record: &BackupRecord) -> Result<bool, Error> {
        let id = record.backup_id;
        let there = match self.to.backup(&self.options.cluster, id).await {
            Ok(there) => there,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error).doing(|| "looking whether the backup is there already".to_owned()),
        };
        if (there.system_identifier, there.start_lsn) == (record.system_identifier, record.start_lsn) {
            return Ok(true);
        }
        let store = self.to.describe();
        Err(Cause::Refused(format!("{store} has another backup with the id {id}, which began at {}", there.start_lsn))
            .into())
    }

    fn run_id(&self) -> &str {
        self.leases[0].run().as_str()
    }

    /// Writes the start record, or takes over the record of a dead run.
    async fn start(&self, record: &BackupRecord, claim: &ClaimRecord) -> Result<(), Error> {
        let (cluster, id) = (&self.options.cluster, record.backup_id);
        let name = name::backup_start(cluster, &id);
        // Without the id of a machine, no backup of this machine takes the record for its own.
        let run = RunIdentity {
            id: self.run_id().to_owned(),
            machine: None,
            boot: None,
            pid_namespace: None,
            removes: Vec::new(),
            leased: true,
        };
        let start = StartRecord {
            backup_id: id,
            cluster: cluster.clone(),
            claim: claim.number,
            system_identifier: record.system_identifier,
            host: self.options.host.clone(),
            pid: std::process::id(),
            pgdata: format!("a copy from {}", self.from.describe()),
            started: self.clock.now(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            parent: record.parent,
            run: Some(run),
        };
        match self.to.create_record(&name, &start).await {
            Err(error) if error.is_already_exists() => {}
            outcome => return outcome,
        }
        let before: StartRecord = self.to.read_record(&name).await?;
        if self.is_alive(&before).await? {
            return Err(Cause::AnotherRun { verb: "run", subject: format!("backup {id}"), pid: None }.into());
        }
        self.progress.note(&format!("continuing the copy of backup {id}, which a run on {} began here", before.host));
        self.to.replace_record(&name, &start).await?;
        // Of two runs that take the same copy over at once, the one whose record stays continues.
        self.check_mine(id).await?;
        // That run is dead, so it no longer removes anything.
        let ended = object_name(&name::backup_end(cluster, &id))?;
        self.to.store().delete(&[ended]).await?;
        Ok(())
    }

    async fn is_alive(&self, start: &StartRecord) -> Result<bool, Error> {
        let now = self.clock.now();
        let own = start.run.as_ref().filter(|run| run.leased);
        let Some(run) = own else {
            return Ok(start.started.checked_add_signed(LONGEST_BACKUP).is_none_or(|end| now < end));
        };
        if run.id == self.run_id() {
            return Ok(false);
        }
        let here = Machine::here();
        let leases = self.to.leases(&self.options.cluster).await?;
        Ok(leases.iter().any(|lease| {
            lease.named.run.as_str() == run.id
                && !lease.named.is_over(now)
                && !lease.is_known_dead(&here, &self.options.host, now)
        }))
    }

    /// Checks everything that the backup needs, then writes `backup.json`. From then on, the backup exists.
    async fn publish(&self, record: &BackupRecord, claim: &ClaimRecord, needed: &[SegmentName]) -> Result<(), Error> {
        let (cluster, id) = (&self.options.cluster, record.backup_id);
        let mine = self.mine(id);
        loop {
            self.check(record, claim, needed).await?;
            if self.leases.iter().all(Lease::is_unbroken) {
                break;
            }
            // This host has slept. Meanwhile an `expire` may have removed objects that nothing names yet.
            for lease in &self.leases {
                lease.take_again().await?;
            }
            if let Some(written) = self.leases.last().map(Lease::name) {
                let host = &self.options.host;
                self.to.wait_for_expire(cluster, host, self.clock, &written, EXPIRE_ENDS_WITHIN).await?;
            }
        }
        self.check_mine(id).await?;
        if self.cancel.is_cancelled() {
            return Err(Cause::Cancelled.into());
        }
        let lost = match publish(self.to, record, &mine).await {
            Published::Complete => self.leases.iter().find_map(|lease| lease.check().err()),
            Published::TakenForDead { .. } => return Err(self.taken_for_dead(id)),
            // The backup of another run, also if it is the same: nothing of it may be deleted.
            Published::Failed { error, .. } if error.is_already_exists() => return Err(already_copied(id)),
            Published::Failed { error, may_exist: false } => return Err(error),
            // The next copy stores it again. Until then nothing may list what nobody has checked to the end.
            Published::Failed { error, may_exist: true } => Some(error),
        };
        match lost {
            None => Ok(()),
            Some(error) => {
                let summary = object_name(&name::backup_summary(cluster, &id))?;
                if let Err(left) = self.to.store().delete(&[summary]).await {
                    let store = self.to.describe();
                    self.progress.note(&format!("{store} may list backup {id}, although its copy failed: {left}"));
                }
                Err(error)
            }
        }
    }

    /// Fails if the target lacks something that the backup needs.
    async fn check(&self, record: &BackupRecord, claim: &ClaimRecord, needed: &[SegmentName]) -> Result<(), Error> {
        would_take(self.to, record, self.carrier.crew()).await?;
        let listed = WalFolders::read_and_list(self.to, claim, WalScope::From(record.start_lsn)).await?;
        match needed.iter().find(|segment| !listed.inventory().contains(**segment)) {
            None => Ok(()),
            Some(missing) => Err(Cause::Absent { file: missing.to_string() })
                .doing(|| format!("looking at what was copied to {}", self.to.describe())),
        }
    }

    /// Asked for just before a manifest takes its name: a run that slept, or that lost its start record, must not
    /// replace the manifest of a run that completed the copy meanwhile.
    async fn check_before_manifest(&self, record: &BackupRecord) -> Result<(), Error> {
        for lease in &self.leases {
            lease.check()?;
        }
        self.check_mine(record.backup_id).await?;
        if self.is_there(record).await? {
            return Err(already_copied(record.backup_id));
        }
        Ok(())
    }

    fn mine(&self, backup: BackupId) -> OwnRecords<'_> {
        OwnRecords { run: self.run_id(), backups: vec![backup] }
    }

    async fn check_mine(&self, backup: BackupId) -> Result<(), Error> {
        if self.mine(backup).all_are(self.to, &self.options.cluster).await? {
            return Ok(());
        }
        Err(self.taken_for_dead(backup))
    }

    fn taken_for_dead(&self, backup: BackupId) -> Error {
        let name = name::backup_start(&self.options.cluster, &backup);
        let reason = "another run took this copy for dead, and the backup over".to_owned();
        Cause::NotReadable { store: self.to.describe(), name, reason }.into()
    }

    /// Removes what was stored for a backup that cannot be copied. What it shares with other backups stays.
    pub(super) async fn remove_remains(&self, backup: BackupId) {
        let cluster = &self.options.cluster;
        let begun = async {
            match self.to.store().head(&object_name(&name::backup_start(cluster, &backup))?).await {
                Ok(_) => remove_own(self.to, cluster, backup, self.run_id()).await,
                Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        if let Err(error) = begun.await {
            tracing::warn!(%backup, %error, "what was copied of a backup is left in the repository");
        }
    }
}

/// Another run has completed the copy of this backup meanwhile.
fn already_copied(backup: BackupId) -> Error {
    Cause::AnotherRun { verb: "repo copy", subject: format!("backup {backup}"), pid: None }.into()
}
