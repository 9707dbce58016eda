//! Standbys of a running primary.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::cluster::{Cluster, run_as};
use crate::error::{KitError, Result};

impl Cluster {
    /// A standby that streams from a running primary, made by `pg_basebackup` and not yet started.
    ///
    /// The servers of 13, 14, 16 and 17 have no `pg_basebackup`; the one of a newer major copies older servers too.
    pub async fn standby_of(primary: &Self) -> Result<Self> {
        let standby = Self::empty(primary.installation())?;
        let mut copy = Command::new(primary.installation().client("pg_basebackup")?);
        copy.arg("-d").arg(primary.connection_string("postgres")).arg("-D").arg(standby.data());
        copy.args(["--checkpoint=fast", "--wal-method=stream", "--no-sync"]);
        run_as(standby.scratch(), copy).await?;
        standby.set("primary_conninfo", &primary.connection_string("postgres"))?;
        standby.signal("standby.signal")?;
        Ok(standby)
    }

    /// Puts an empty signal file (`standby.signal`, `recovery.signal`, `promote`) into the data directory.
    pub fn signal(&self, name: &str) -> Result<()> {
        let path = self.data().join(name);
        write_empty(&path)?;
        self.scratch().user().own(&path)
    }
}

fn write_empty(path: &Path) -> Result<()> {
    fs::write(path, b"").map_err(KitError::io(format!("write {}", path.display())))
}
