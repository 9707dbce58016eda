//! From an archive or from volume snapshots, up to a target.
//!
//! Order: the cluster's own archive is checked, so that nothing is filled for a cluster that may not archive. `holdfast
//! restore --plan` plans the target, and refuses one that cannot be reached. Files are restored, or made ready for
//! recovery on volumes from snapshots. PostgreSQL replays WAL, for the manager only and without archiving. Roles and
//! passwords are set. The own archive is claimed. The source is only read.
//!
//! After a kill while files are restored, the restore continues where it was. After a kill during the replay,
//! PostgreSQL starts again. After a later kill, the remaining steps are done.

use super::Bootstrap;
use super::fields::in_fields;
use super::isolated::ended;
use super::roles::{self, Application};
use crate::error::{Error, Result};
use crate::plan::Method;
use crate::postgres::Sql;
use crate::settings::floor;
use crate::state::StartedServer;
use crate::verb::Verb;
use crate::volume::{self, Filling, Progress, empty, write_if_changed};
use holdfast_contract::progress as contract;
use holdfast_contract::report::snapshot::SnapshotListReport;
use holdfast_kube_api::backup::BackupPhase;
use holdfast_kube_api::cluster::{BarmanObjectStore, BootstrapProgress, Recovery, RecoveryTarget};
use holdfast_kube_api::{Backup, Cluster, names};
use holdfast_pgtypes::SegmentName;
use holdfast_pgtypes::recovery_target::moment::{self, MissingZone};
use holdfast_repo::record::SnapshotRecord;
use holdfast_repo::recovery::RecoveryPlan;
use serde::Deserialize;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The time between two checks of a server that replays WAL.
const POLL: Duration = Duration::from_millis(200);

/// The archive that the recovery reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    pub store: BarmanObjectStore,
    /// Name of the archive in the store, unless the store names another.
    pub name: String,
    /// The backup to begin with, or the record of its volume snapshots, if a `Backup` names it.
    pub backup_id: Option<String>,
}

/// The recovery in the Cluster.
///
/// # Errors
/// When the Cluster has none.
pub fn of(cluster: &Cluster) -> Result<Recovery> {
    let recovery = cluster.spec.bootstrap.as_ref().and_then(|bootstrap| bootstrap.recovery.clone());
    recovery.ok_or_else(|| Error::stuck("the Cluster has no bootstrap.recovery"))
}

/// The archive to read; `None` for snapshots that need none. `backup` is the `Backup` that the Cluster names: it gives
/// the backup to begin with, and its archive unless `source` names one.
///
/// # Errors
/// When the archive cannot be found, the `Backup` is not complete, or it contradicts the target.
pub fn source(cluster: &Cluster, backup: Option<&Backup>) -> Result<Option<Source>> {
    let recovery = of(cluster)?;
    let backup_id = match backup {
        Some(backup) => completed(backup, &recovery)?,
        None => None,
    };
    if let Some(name) = &recovery.source {
        let external = cluster.spec.external_clusters.iter().find(|external| external.name == *name);
        let store = external.and_then(|external| external.barman_object_store.clone()).ok_or_else(|| {
            Error::stuck(format!("externalClusters has no entry {name} with a barmanObjectStore"))
                .doing("looking for the archive to recover from")
                .hint("bootstrap.recovery.source must name an entry of externalClusters")
        })?;
        return Ok(Some(Source { store, name: name.clone(), backup_id }));
    }
    let Some(backup) = backup else { return Ok(None) };
    let name = backup.metadata.name.as_deref().unwrap_or_default();
    let Some(mut store) = backup.status.as_ref().and_then(|status| status.barman_object_store.clone()) else {
        // Snapshots of a cluster without an archive may be all that exists.
        return if backup.is_of_snapshots() {
            Ok(None)
        } else {
            Err(Error::stuck(format!("Backup {name} does not say where its archive is"))
                .doing("looking for the archive to recover from")
                .hint("name the archive in bootstrap.recovery.source"))
        };
    };
    if let Some(authority) = recovery.backup.and_then(|backup| backup.endpoint_ca) {
        store.endpoint_ca = Some(authority);
    }
    Ok(Some(Source { store, name: backup.spec.cluster.name.clone(), backup_id }))
}

/// The id of a completed backup to begin with. Pure.
fn completed(backup: &Backup, recovery: &Recovery) -> Result<Option<String>> {
    let doing = "looking for the backup to recover from";
    let name = backup.metadata.name.as_deref().unwrap_or_default();
    let status = backup.status.as_ref();
    match status.and_then(|status| status.phase).unwrap_or_default() {
        BackupPhase::Completed => {}
        BackupPhase::Failed => {
            return Err(Error::stuck(format!("Backup {name} has failed"))
                .doing(doing)
                .hint("name a Backup that is completed"));
        }
        _ => {
            return Err(Error::retry(format!("Backup {name} is not completed yet"))
                .doing(doing)
                .hint("the recovery continues by itself when the Backup is completed"));
        }
    }
    let id = status.and_then(|status| status.backup_id.clone());
    let requested = recovery.recovery_target.as_ref().and_then(|target| target.backup_id.as_ref());
    if let (Some(id), Some(requested)) = (&id, requested)
        && id != requested
    {
        return Err(Error::stuck(format!(
            "Backup {name} has the id {id} in the archive, but recoveryTarget.backupID is {requested}"
        ))
        .doing(doing)
        .hint("leave out bootstrap.recovery.backup or recoveryTarget.backupID"));
    }
    Ok(id)
}

/// Recovers; `found` is the progress of an earlier try.
///
/// # Errors
/// When any step fails; the next try finds what exists.
pub async fn run(
    work: &Bootstrap<'_>,
    method: Method,
    found: Option<Progress>,
    source: Option<&Source>,
    backup: Option<&Backup>,
) -> Result<()> {
    let recovery = of(&work.cluster)?;
    let snapshot = snapshot_name(&recovery, backup);
    let (filling, name) = match method {
        Method::Snapshot => (Filling::Snapshot, "volume snapshot"),
        Method::Initdb | Method::Recovery => (Filling::Recovery, "recovery"),
    };
    if found.is_none_or(|found| found < Progress::Recovering) {
        work.step(name, "preflight");
        work.check_archive()
            .await
            .map_err(|error| error.doing("checking that the archive is empty, before the recovery"))?;
        match method {
            Method::Snapshot => prepare_snapshot(work, &recovery, source, &snapshot).await?,
            Method::Initdb | Method::Recovery => {
                let source =
                    source.ok_or_else(|| Error::stuck("bootstrap.recovery names neither a source nor a backup"))?;
                restore(work, &recovery, source, found).await?;
            }
        }
        move_wal(work)?;
        work.write_isolated_files()?;
        work.sync()?;
        work.record(filling, Progress::Recovering)?;
    }
    if found.is_none_or(|found| found < Progress::Claiming) {
        replay(work, name).await?;
        work.sync()?;
        work.record(filling, Progress::Claiming)?;
    }
    work.step(name, "claiming the archive");
    work.claim_archive().await.map_err(|error| error.doing("claiming the archive, before the first start"))?;
    archive_history(work)?;
    drop(fs::remove_file(work.paths.source_config()));
    // From here on the volume differs from the snapshot.
    drop(fs::remove_file(work.paths.data_mount.join(crate::snapshot::MARK)));
    work.record_complete(filling)
}

/// The name of the source of the data volume, for messages. Pure.
fn snapshot_name(recovery: &Recovery, backup: Option<&Backup>) -> String {
    let written = recovery.volume_snapshots.as_ref().map(|snapshots| snapshots.storage.name.clone());
    written.or_else(|| backup?.snapshot_of(names::PG_DATA).map(str::to_owned)).unwrap_or_default()
}

async fn restore(work: &Bootstrap<'_>, recovery: &Recovery, source: &Source, found: Option<Progress>) -> Result<()> {
    let config = work.paths.source_config();
    let pgdata = work.paths.pgdata.display().to_string();
    let mut words = vec!["restore".to_owned(), "--pgdata".to_owned(), pgdata];
    let target = recovery.recovery_target.clone().unwrap_or_default();
    words.extend(target_words(&target, source.backup_id.as_deref()));
    if found.is_none() {
        empty(work.paths)?;
        plan(work, &config, &words).await?;
        work.record(Filling::Recovery, Progress::Begun)?;
    }
    work.step("recovery", "restoring files");
    words.extend(["--progress".to_owned(), "json".to_owned()]);
    let show = |now: contract::Progress| {
        work.state.set_bootstrap(Some(BootstrapProgress {
            method: "recovery".to_owned(),
            step: now.step,
            done_bytes: i64::try_from(now.done_bytes).ok(),
            total_bytes: now.total_bytes.and_then(|bytes| i64::try_from(bytes).ok()),
            backup_id: now.backup_id,
            error: None,
        }));
    };
    Verb::new(&work.paths.program, &config, words).run(work.stop, show).await.map_err(in_fields)?;
    Ok(())
}

/// The common part of the plans of a restore and of a recovery from snapshots.
#[derive(Debug, Deserialize)]
struct Planned {
    recovery: RecoveryPlan,
}

/// Plans what these arguments of `holdfast restore` would do; refuses a target that cannot be reached.
async fn plan(work: &Bootstrap<'_>, config: &Path, words: &[String]) -> Result<()> {
    let words = [words, &["--plan".to_owned()]].concat();
    let planned = Verb::new(&work.paths.program, config, words).run(work.stop, |_| {}).await;
    let plan: Planned =
        planned.and_then(|output| output.report()).map_err(|error| in_fields(error).doing("planning the recovery"))?;
    let RecoveryPlan { backup, timeline, segment_count, window, .. } = plan.recovery;
    tracing::info!(%backup, %timeline, segment_count, %window, "the recovery target can be reached");
    Ok(())
}

/// Makes a data directory from a volume snapshot ready for recovery.
async fn prepare_snapshot(
    work: &Bootstrap<'_>,
    recovery: &Recovery,
    source: Option<&Source>,
    name: &str,
) -> Result<()> {
    if volume::control(&work.paths.pgdata)?.is_none() && volume::read(work.paths)?.record.is_none() {
        return Err(Error::stuck(format!("the volume that was made from {name} contains no data directory"))
            .doing("preparing the data directory from the volume snapshot")
            .hint("bootstrap.recovery.volumeSnapshots.storage must name the snapshot of the data volume"));
    }
    let target = recovery.recovery_target.clone().unwrap_or_default();
    let Some(source) = source else {
        return without_archive(work, name, &target);
    };
    let config = work.paths.source_config();
    let id = match &source.backup_id {
        Some(id) => id.clone(),
        None => recorded(work, &config, name).await?,
    };
    if let Some(requested) = target.backup_id.as_ref().filter(|requested| **requested != id) {
        return Err(Error::stuck(format!(
            "the volumes were made from the snapshots {id}, but recoveryTarget.backupID is {requested}"
        ))
        .doing("preparing the data directory from the volume snapshot")
        .hint("remove recoveryTarget.backupID: the snapshots are the backup"));
    }
    let pgdata = work.paths.pgdata.display().to_string();
    // A standby's copy may have WAL that its primary never archived. It may be discarded here: this volume is a copy,
    // and the snapshot keeps it.
    let words = ["restore", "--snapshot", &id, "--pgdata", &pgdata, "--discard-wal"];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    words.extend(target_words(&RecoveryTarget { backup_id: None, ..target }, None));
    plan(work, &config, &words).await?;
    // From here on the volume is this cluster's: after a kill there may be no control file to recognise it by.
    work.record(Filling::Snapshot, Progress::Begun)?;
    Verb::new(&work.paths.program, &config, words).run(work.stop, |_| {}).await.map_err(in_fields)?;
    Ok(())
}

/// The id of the record, found by the mark on the volume, or else by the name of its snapshot.
async fn recorded(work: &Bootstrap<'_>, config: &Path, name: &str) -> Result<String> {
    let listing = Verb::new(&work.paths.program, config, ["snapshot", "list"]);
    let listed: SnapshotListReport = listing.run(work.stop, |_| {}).await?.report()?;
    // The volume itself says which snapshot it was made from; the VolumeSnapshot may have another name by now.
    let mark = crate::snapshot::read_mark(&work.paths.data_mount);
    let marked = mark.and_then(|mark| snapshot_id(&listed, &mark.uid));
    marked.or_else(|| snapshot_id(&listed, name)).ok_or_else(|| {
        Error::stuck(format!("the archive has no record of the volume snapshot {name}"))
            .doing("looking for the place in the WAL where recovery begins")
            .hint(
                "only snapshots of a completed Backup have a record; bootstrap.recovery.source must name the \
                   archive of that cluster",
            )
    })
}

/// A server that was shut down in order needs only its own files.
fn without_archive(work: &Bootstrap<'_>, snapshot: &str, target: &RecoveryTarget) -> Result<()> {
    use holdfast_pgtypes::control::DbState;
    let needs_wal = target.target_time.is_some()
        || target.target_lsn.is_some()
        || target.target_xid.is_some()
        || target.target_name.is_some();
    let control = volume::control(&work.paths.pgdata)?;
    let clean = control.is_some_and(|control| matches!(control.state, DbState::ShutDown | DbState::ShutDownInRecovery));
    let why = match (clean, needs_wal) {
        (false, _) => Some(format!("the volume snapshot {snapshot} was taken while the server ran")),
        (true, true) => Some(format!("the recovery target is later than the volume snapshot {snapshot}")),
        (true, false) => None,
    };
    if let Some(why) = why {
        return Err(Error::stuck(why)
            .doing("recovering without an archive")
            .hint("in bootstrap.recovery.source name the archive that has the snapshot's WAL"));
    }
    for name in ["standby.signal", "recovery.signal", "postmaster.pid", "postmaster.opts"] {
        let path = work.paths.pgdata.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("remove", &path, &error));
            }
            _ => {}
        }
    }
    // Ends recovery, on a new timeline.
    write_if_changed(&work.paths.pgdata.join("recovery.signal"), b"", 0o600)?;
    let none = "restore_command = 'false'\nrecovery_target = 'immediate'\nrecovery_target_action = 'promote'\n";
    write_if_changed(&work.paths.pgdata.join("postgresql.auto.conf"), none.as_bytes(), 0o600).map(|_| ())
}

/// The record in the archive that names this snapshot, by its own name or in an annotation. Pure.
fn snapshot_id(listed: &SnapshotListReport, snapshot: &str) -> Option<String> {
    let names = |record: &&SnapshotRecord| {
        record.snapshots.iter().any(|volume| volume.name == snapshot)
            || record.annotations.values().any(|text| text == snapshot)
    };
    listed.records().find(names).map(|record| record.snapshot_id.to_string())
}

/// The recovery target as flags of `holdfast restore`. Pure.
fn target_words(target: &RecoveryTarget, backup: Option<&str>) -> Vec<String> {
    let mut words = Vec::new();
    let mut flag = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            words.extend([name.to_owned(), value]);
        }
    };
    flag("--target-time", target.target_time.as_deref().map(with_zone));
    flag("--target-lsn", target.target_lsn.clone());
    flag("--target-xid", target.target_xid.clone());
    flag("--target-name", target.target_name.clone());
    flag("--target-timeline", target.target_tli.clone());
    flag("--backup", target.backup_id.clone().or_else(|| backup.map(str::to_owned)));
    let moment = target.target_time.is_some() || target.target_lsn.is_some() || target.target_xid.is_some();
    if target.target_immediate == Some(true) {
        words.push("--target-immediate".to_owned());
    }
    if target.exclusive == Some(true) && moment {
        words.push("--target-exclusive".to_owned());
    }
    if moment || target.target_name.is_some() || target.target_immediate == Some(true) {
        words.extend(["--target-action".to_owned(), "promote".to_owned()]);
    }
    words
}

/// A time, parsed as the manifest's validation does, and written with its zone. A time that cannot be parsed is passed
/// on, and the verb refuses it.
fn with_zone(text: &str) -> String {
    moment::parse(text, MissingZone::MeansUtc).map_or_else(|_| text.to_owned(), |read| moment::text(read.time))
}

/// Moves `pg_wal` to its own volume, if there is one.
fn move_wal(work: &Bootstrap<'_>) -> Result<()> {
    let Some(wal) = &work.paths.wal_directory else { return Ok(()) };
    let link = work.paths.pgdata.join("pg_wal");
    if fs::symlink_metadata(&link).is_ok_and(|data| data.is_symlink()) {
        return Ok(());
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| Error::file("move", &path, &error)
    };
    fs::create_dir_all(wal).map_err(failed(wal))?;
    copy_tree(&link, wal)?;
    fs::remove_dir_all(&link).map_err(failed(&link))?;
    std::os::unix::fs::symlink(wal, &link).map_err(failed(&link))
}

/// Copies files and folders, since the two are on different file systems.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let failed = |error: std::io::Error| Error::file("copy", from, &error);
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            fs::create_dir_all(&target).map_err(failed)?;
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).map_err(failed)?;
        }
    }
    Ok(())
}

/// Runs PostgreSQL until recovery has ended, and creates what every cluster has.
async fn replay(work: &Bootstrap<'_>, method: &str) -> Result<()> {
    work.step(method, "replaying WAL");
    let mut settings = Vec::new();
    if let Some(control) = volume::control(&work.paths.pgdata)? {
        settings = floor::settings(&work.cluster.spec, &control);
    }
    let served = work.start_isolated(&settings).await?;
    let replayed = match work.isolated_ready(&served).await {
        Ok(()) => finish(work, method, &served).await,
        Err(error) => Err(error),
    };
    work.stop_isolated(&served).await;
    replayed
}

async fn finish(work: &Bootstrap<'_>, method: &str, served: &StartedServer) -> Result<()> {
    let sql = Sql::new(work.paths);
    loop {
        if let Some(exit) = served.postmaster.exited() {
            tokio::time::sleep(POLL).await;
            return Err(ended(served, exit.0).doing("replaying WAL"));
        }
        if work.stop.is_cancelled() {
            return Err(Error::cancelled());
        }
        // A server that ends recovery may not answer for a moment.
        let rows =
            sql.query("SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text", &[]).await.unwrap_or_default();
        match rows.first().map(|row| (row.get::<_, bool>(0), row.get::<_, Option<String>>(1))) {
            Some((false, _)) => break,
            Some((true, Some(lsn))) => work.state.set_bootstrap(Some(BootstrapProgress {
                method: method.to_owned(),
                step: format!("replaying WAL, at {lsn}"),
                ..BootstrapProgress::default()
            })),
            _ => {}
        }
        tokio::time::sleep(POLL).await;
    }
    work.step(method, "creating roles");
    let client = Sql::connect(work.paths, "postgres").await?;
    roles::replication_user(&client).await?;
    if let Some(application) = Application::of(&work.cluster) {
        let password = work.password(&application.secret).await?;
        roles::application(&client, &application, &password).await?;
    }
    Ok(())
}

/// The new timeline began without archiving, so its history file is handed to the archiver now. Segments of earlier
/// timelines belong to the source and stay there.
fn archive_history(work: &Bootstrap<'_>) -> Result<()> {
    if !work.has_archive() {
        return Ok(());
    }
    let Some(control) = volume::control(&work.paths.pgdata)? else { return Ok(()) };
    let folder = work.paths.pg_wal();
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(()) };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let history = Path::new(&name).extension().is_some_and(|extension| extension == "history");
        let status = folder.join("archive_status");
        if history && !status.join(format!("{name}.done")).exists() {
            write_if_changed(&status.join(format!("{name}.ready")), b"", 0o600)?;
        }
        if name.parse::<SegmentName>().is_ok_and(|segment| segment.timeline() < control.timeline) {
            drop(fs::remove_file(status.join(format!("{name}.ready"))));
            write_if_changed(&status.join(format!("{name}.done")), b"", 0o600)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
