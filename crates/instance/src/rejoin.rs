//! An old primary, or a standby that went another way, comes back in line: `pg_rewind`.
//!
//! The record on the volume says before the first byte that the directory is not whole, so a kill in the middle leads to a
//! new copy. A failure before anything was changed does too, but only while a healthy primary is there to copy from.

use crate::bootstrap::Work;
use crate::bootstrap::initdb::last_words;
use crate::error::{Error, Result};
use crate::postgres::end_leftover;
use crate::settings::postgresql::replication_connection;
use crate::volume::{Filling, Progress, write_durably};
use std::fs;

/// Brings the stopped data directory in line with the primary.
///
/// # Errors
/// [`crate::error::Kind::Stuck`] when `pg_rewind` cannot help.
pub async fn rewind(work: &Work<'_>) -> Result<()> {
    let pgdata = &work.places.pgdata;
    end_leftover(pgdata).await?;
    work.record(Filling::Rewind, Progress::Begun)?;
    // A directory that was not shut down in order is recovered by a single-user server first, which is no standby.
    let standby = pgdata.join("standby.signal");
    let recovered_as_standby = standby.exists();
    if recovered_as_standby {
        fs::remove_file(&standby).map_err(|error| Error::file("remove", &standby, &error))?;
    }
    let mut command = work.programs.command("pg_rewind");
    command.arg("--target-pgdata").arg(pgdata);
    command.arg("--source-server").arg(replication_connection(work.places, &work.wire()?));
    // WAL back to the point where the ways parted may be in the archive only.
    command.args(["--restore-target-wal", "--no-sync"]);
    let output = tokio::select! {
        output = command.output() => output.map_err(|error| Error::retry(format!("cannot run pg_rewind: {error}")))?,
        () = work.stop.cancelled() => return Err(Error::cancelled()),
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(Error::stuck(format!("pg_rewind ended with {}: {}", output.status, last_words(&said)))
            .doing("bringing the data directory in line with the primary")
            .hint("the data directory is copied anew from the primary"));
    }
    for line in said.lines() {
        tracing::info!("{line}");
    }
    write_durably(&standby, b"", 0o600)?;
    work.record_complete(Filling::Rewind)
}
