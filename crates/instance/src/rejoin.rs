//! An old primary or a diverged standby becomes a standby again: `pg_rewind`.
//!
//! Before the first byte changes, the record on the volume says that the directory is not complete, so a kill leads to
//! a new copy. `pg_rewind` prints where the servers diverged before it changes anything. A failure before that leaves
//! the directory unchanged; if the reason was that the primary did not answer, it is tried again. After any other
//! failure the directory is copied again, while a healthy primary exists to copy from.

use crate::bootstrap::Bootstrap;
use crate::bootstrap::initdb::last_words;
use crate::error::{Error, Kind, Result};
use crate::postgres::end_leftover;
use crate::settings::postgresql::replication_connection;
use crate::volume::{Filling, Progress, write_durably};
use std::fs;

/// Synchronizes the stopped data directory with the primary.
///
/// # Errors
/// [`Kind::Stuck`] when `pg_rewind` failed.
pub async fn rewind(work: &Bootstrap<'_>) -> Result<()> {
    let pgdata = &work.paths.pgdata;
    end_leftover(pgdata).await?;
    work.record(Filling::Rewind, Progress::Begun)?;
    // If the directory was not shut down in order, a single-user server recovers it first, and that cannot be a
    // standby.
    let standby = pgdata.join("standby.signal");
    let was_standby = standby.exists();
    if was_standby {
        fs::remove_file(&standby).map_err(|error| Error::file("remove", &standby, &error))?;
    }
    let mut command = work.programs.command("pg_rewind");
    command.arg("--target-pgdata").arg(pgdata);
    command.arg("--source-server").arg(replication_connection(work.paths, &work.wire()?));
    // WAL back to the point of divergence may exist only in the archive.
    command.args(["--restore-target-wal", "--no-sync"]);
    let output = tokio::select! {
        output = command.output() => output.map_err(|error| Error::retry(format!("cannot run pg_rewind: {error}")))?,
        () = work.stop.cancelled() => return Err(Error::cancelled()),
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        for line in said.lines() {
            tracing::info!("{line}");
        }
        write_durably(&standby, b"", 0o600)?;
        return work.record_complete(Filling::Rewind);
    }
    let (unchanged, kind) = judge(&said);
    if unchanged {
        if was_standby {
            write_durably(&standby, b"", 0o600)?;
        }
        work.record_complete(Filling::Rewind)?;
    }
    let error = Error::retry(format!("pg_rewind ended with {}: {}", output.status, last_words(&said)));
    Err(Error { kind, ..error }.doing("synchronizing the data directory with the primary").hint(match kind {
        Kind::Stuck => "the instance now copies the data directory from the primary again",
        Kind::Retry | Kind::Cancelled => {
            "the instance tries again; the primary's log shows whether the connection arrived"
        }
    }))
}

/// Whether the directory is unchanged, and what to do. Pure.
fn judge(said: &str) -> (bool, Kind) {
    let unchanged = !said.contains("servers diverged at");
    let unreachable = said.contains("connection to server") || said.contains("could not connect");
    (unchanged, if unchanged && unreachable { Kind::Retry } else { Kind::Stuck })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pg_rewind_prints_decides_what_to_do() {
        for (said, expected) in [
            (
                "pg_rewind: error: connection to server at \"c-rw\", port 5432 failed: Connection refused",
                (true, Kind::Retry),
            ),
            (
                "pg_rewind: error: target server needs to use either data checksums or \"wal_log_hints = on\"",
                (true, Kind::Stuck),
            ),
            (
                "pg_rewind: servers diverged at WAL location 0/1 on timeline 1\npg_rewind: error: could not find previous WAL record",
                (false, Kind::Stuck),
            ),
        ] {
            assert_eq!(judge(said), expected, "{said}");
        }
    }
}
