//! A copy of the primary, by `pg_basebackup` with WAL streamed through the instance's own slot.

use super::Bootstrap;
use super::initdb::last_words;
use crate::error::{Error, Result};
use crate::settings::postgresql::primary_conninfo;
use crate::volume::{Filling, Progress, empty, write_durably};
use holdfast_kube_api::names;
use std::time::Duration;

/// The primary creates the slot when it sees this instance in the Cluster.
const SLOT_WITHIN: Duration = Duration::from_mins(1);

/// Copies the primary into an empty directory.
///
/// # Errors
/// When the primary cannot be copied; the next try begins again.
pub async fn run(work: &Bootstrap<'_>) -> Result<()> {
    work.step("join", "copying the primary");
    work.record(Filling::Join, Progress::Begun)?;
    let started = tokio::time::Instant::now();
    loop {
        empty(work.paths)?;
        match copy(work).await {
            Ok(()) => break,
            Err(error) if error.what.contains("replication slot") && started.elapsed() < SLOT_WITHIN => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error),
        }
    }
    write_durably(&work.paths.pgdata.join("standby.signal"), b"", 0o600)?;
    work.record_complete(Filling::Join)?;
    work.state.set_bootstrap(None);
    Ok(())
}

async fn copy(work: &Bootstrap<'_>) -> Result<()> {
    let instance = &work.identity.instance;
    let mut command = work.programs.command("pg_basebackup");
    command.arg("-d").arg(primary_conninfo(instance, work.paths, &work.wire()?)).arg("-D").arg(&work.paths.pgdata);
    command.args(["--wal-method=stream", "--checkpoint=fast", "--no-sync", "--no-password", "--no-manifest"]);
    command.arg("--slot").arg(names::replication_slot(instance));
    if let Some(wal) = &work.paths.wal_directory {
        command.arg("--waldir").arg(wal);
    }
    let output = tokio::select! {
        output = command.output() => output.map_err(|error| Error::retry(format!("cannot run pg_basebackup: {error}")))?,
        () = work.stop.cancelled() => return Err(Error::cancelled()),
    };
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Error::retry(format!("pg_basebackup ended with {}: {}", output.status, last_words(&text)))
        .doing(format!("copying the primary through {}", work.paths.primary_host))
        .hint("the instance tries again; the primary's log shows whether the connection arrived"))
}
