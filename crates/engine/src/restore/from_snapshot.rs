//! Recovery from volume snapshots: somebody made volumes from the snapshots, so the directory is already filled. What
//! is missing is the recovery to the requested moment.
//!
//! Order:
//! 1. Preflight: the planner's path with the snapshot as its only beginning, so a target that cannot be reached is
//!    refused. The directory must hold the data of this snapshot, must not be in use, and must not lead to files that
//!    are not its own ([`copied`]).
//! 2. Take the directory: resume point and lock; then rename `global/pg_control`.
//! 3. [`Removal`]: remove what a base backup would not contain.
//! 4. `backup_label` and `tablespace_map`, always written from the record. Without them PostgreSQL would begin at the
//!    last checkpoint of the copy, and would not notice that older pages are missing. The copy of a stopped server has
//!    neither; there the links to tablespaces are changed instead.
//! 5. Write recovery settings and signal file; sync everything; put `pg_control` back; remove the resume point.
//!
//! Invariant: from step 2 until the end of step 5 there is no `global/pg_control`, so that PostgreSQL refuses to start.
//! After a crash the same command continues, and every step can be repeated.
//!
//! The control file shows whether the directory is the copy: the checkpoint of a copy is between the start and stop LSN
//! of the snapshot. If a server has run there since, its checkpoint is later. Then its WAL, which may not be archived,
//! is not touched.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_contract::report::restore::{SnapshotRestoreReport, TablespacePlace};
use holdfast_pgtypes::{BackupLabel, ControlFile, PgVersion, SystemIdentifier, TablespaceMap};
use holdfast_repo::record::{SnapshotRecord, TablespaceEntry};
use holdfast_repo::recovery::{Beginning, RecoveryPlan};
use tokio_util::sync::CancellationToken;

use super::copied::{self, Removal};
use super::durable::Roots;
use super::late::Patience;
use super::layout::Layout;
use super::preflight::{AUTO_CONF, Archive, Planning};
use super::prepare::refuse_linked_control;
use super::protect::{Reads, protect};
use super::resume::{ResumeLock, ResumePoint, VERSION, sync_parent};
use super::run_since;
use super::settings;
use super::{
    RestoreOptions, archiving_note, blocking, check_options, configured, durable, elsewhere_note, foreign, next_words,
    recovery,
};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::leases::Clock;
use crate::repository::machine::{Life, life_of};
use crate::server::running::RunningServer;
use crate::server::{PostmasterPid, refused_control_file, running};

/// The name of the control file while the directory must not start.
const CONTROL_ASIDE: &str = "global/pg_control.holdfast";

/// The result of the preflight.
struct Preflight {
    plan: RecoveryPlan,
    notes: Vec<String>,
    layout: Layout,
    /// The map in the record; empty if there are no tablespaces, and for a stopped server.
    map: TablespaceMap,
    point: ResumePoint,
    resumed: bool,
    /// `postgresql.auto.conf` of the copy.
    auto_conf: Vec<u8>,
    /// Whether a tablespace is a directory in `pg_tblspc` and not the link to one.
    in_place: bool,
}

/// Reports what [`restore_snapshot`] would do, and refuses what it would refuse. Writes nothing.
///
/// # Errors
/// Those of [`restore_snapshot`] up to its first change.
pub async fn plan_snapshot(
    repository: &Repository,
    options: &RestoreOptions,
    record: &SnapshotRecord,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<SnapshotRestoreReport, Error> {
    let phrase = || format!("planning a recovery of {} from snapshot {}", options.cluster, record.snapshot_id);
    let found = preflight(repository, options, record, progress, cancel).await.doing(phrase)?;
    Ok(report(options, record, &found, 0))
}

/// Makes a directory that was filled from a snapshot ready to recover to the requested moment.
///
/// # Errors
/// [`Cause::Refused`] if the directory is not a copy of this snapshot, or the record is that of another cluster;
/// [`Cause::WrongCluster`], [`Cause::ControlFile`] or [`Cause::ServerRunning`] by what is in the directory.
/// [`Cause::InUse`], [`Cause::LinkInUse`], [`Cause::Overlap`], [`Cause::NotOurs`] or [`Cause::UnarchivedWal`] if
/// something that it leads to, or that would be removed, is not its own. [`Cause::Malformed`] if the record contradicts
/// itself. [`Cause::NoClaim`], [`Cause::Unreachable`] or [`Cause::UnreadableHistory`] if the archive does not lead to
/// the request; [`Cause::Store`], [`Cause::Format`] or [`Cause::Record`] if it cannot be read. [`Cause::Cancelled`]
/// only before the first change; [`Cause::AnotherRun`]; [`Cause::File`]. After an error in the middle no server starts
/// in the directory, and the same call continues.
pub async fn restore_snapshot(
    repository: &Repository,
    options: &RestoreOptions,
    record: &SnapshotRecord,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<SnapshotRestoreReport, Error> {
    let phrase = || format!("recovering {} from snapshot {}", options.cluster, record.snapshot_id);
    let clock = Clock::starting(options.now);
    let found = Arc::new(preflight(repository, options, record, progress, cancel).await.doing(phrase)?);
    progress.backup(&record.snapshot_id.to_string());
    let reads = Reads::of_snapshot(record, &found.plan);
    let mut protection = protect(repository, options, &reads, clock, progress.as_ref()).await.doing(phrase)?;
    progress.phase("making it durable", None);
    let (changing, given, taken) = (Arc::clone(&found), options.clone(), record.clone());
    // It is not cancelled half-way: it is short, and after its end it can be repeated.
    let changed = blocking(move || change(&changing, &given, &taken)).await;
    let mut notes = std::mem::take(&mut protection.notes);
    protection.end().await;
    let mut report = report(options, record, &found, changed.doing(phrase)?);
    notes.append(&mut report.notes);
    Ok(SnapshotRestoreReport { notes, ..report })
}

fn report(options: &RestoreOptions, record: &SnapshotRecord, found: &Preflight, removed: u64) -> SnapshotRestoreReport {
    let mut notes = found.notes.clone();
    notes.extend(settings::notes(&found.auto_conf, &recovery(options, &found.plan, found.in_place)));
    notes.extend(archiving_note(options));
    let elsewhere = configured::other_data_directory(&options.pgdata);
    notes.extend(elsewhere_note(options, elsewhere.as_deref()));
    SnapshotRestoreReport {
        cluster: options.cluster.clone(),
        snapshot: record.snapshot_id,
        pgdata: options.pgdata.clone(),
        resumed: found.resumed,
        recovery: found.plan.clone(),
        tablespaces: found.layout.tablespaces().to_vec(),
        removed_entries: removed,
        auto_conf_lines: settings::lines(&recovery(options, &found.plan, found.in_place), options.now),
        signal_file: settings::signal_file(options.standby).to_owned(),
        next: next_words(options, &found.plan, elsewhere.as_deref()),
        notes,
    }
}

async fn preflight(
    repository: &Repository,
    options: &RestoreOptions,
    record: &SnapshotRecord,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<Preflight, Error> {
    check_options(options)?;
    let looking = async {
        progress.phase("choosing the backup", None);
        let map = TablespaceMap::parse(record.tablespace_map.as_deref().unwrap_or_default().as_bytes())
            .map_err(|e| malformed(record, e.to_string()))?;
        let tablespaces = if record.online { entries(&map) } else { linked(&options.pgdata) };
        let layout = Layout::new(&options.pgdata, &tablespaces, &options.tablespaces)?;
        let point = ResumePoint {
            version: VERSION,
            repository: repository.id(),
            cluster: options.cluster.clone(),
            backup: record.snapshot_id,
            tablespaces: layout.tablespaces().to_vec(),
            archiving: options.archiving,
            host: options.host.clone(),
            pid: std::process::id(),
            started: options.now,
        };
        check_record(record, options)?;
        let here = || format!("looking at the directory {}", options.pgdata.display());
        let version = version_of(record)?;
        let (resumed, control) = inspect(&options.pgdata, record, &point).doing(here)?;
        let (foreign, given, of) = (layout.clone(), options.clone(), record.system_identifier);
        let looked = blocking(move || refuse_foreign(&foreign, version, &given, of));
        let local_notes = looked.await.doing(here)?;
        let claims = repository.claims(&options.cluster).await?;
        let claim = claims
            .chosen(|claim| claim.number == record.claim)?
            .ok_or_else(|| Cause::NoClaim { store: repository.describe(), cluster: options.cluster.to_string() })?;
        if claim.system_identifier != record.system_identifier {
            return Err(Cause::WrongCluster {
                store: repository.describe(),
                cluster: options.cluster.to_string(),
                claimed: claim.system_identifier,
                here: format!("snapshot {}", record.snapshot_id),
                found: record.system_identifier,
            }
            .into());
        }
        let crew = Crew::new(options.jobs);
        let mut patience = Patience::new(options.now);
        let (plan, mut notes, stored) = loop {
            let mut archive = Archive::of_claim(repository, claim.clone(), vec![Beginning::from(record)]).await?;
            archive.add_tails(repository, options, &crew).await?;
            let with = Planning { repository, options, crew: &crew, progress: progress.as_ref(), cancel };
            match archive.plan(with).await {
                Ok((plan, notes)) => break (plan, notes, archive.wal.clone()),
                Err(error) if !patience.lists_again(repository, &archive, &error, progress.as_ref()).await => {
                    return Err(error);
                }
                Err(_) => {}
            }
        };
        copied::refuse_lost_wal(&Removal::of(&options.pgdata, version)?, record, &stored, options.discard_wal)
            .doing(here)?;
        if !resumed {
            run_since::refuse_other_end(repository, &claim, record, (&options.pgdata, &control), &crew)
                .await
                .doing(here)?;
        }
        notes.extend(local_notes);
        let auto_conf = read_auto_conf(&options.pgdata)?;
        let in_place = has_tablespace_in_place(&options.pgdata);
        Ok(Preflight { plan, notes, layout, map, point, resumed, auto_conf, in_place })
    };
    tokio::select! {
        found = looking => found,
        () = cancel.cancelled() => Err(Cause::Cancelled.into()),
    }
}

/// Refuses anything that is not the copy's own, and returns notes about the servers of this host.
fn refuse_foreign(
    layout: &Layout,
    version: PgVersion,
    options: &RestoreOptions,
    of: SystemIdentifier,
) -> Result<Vec<String>, Error> {
    let removal = Removal::of(layout.pgdata(), version)?;
    let servers = RunningServer::all();
    let places: Vec<_> = options.places.iter().chain(&options.originals).cloned().collect();
    copied::refuse_foreign(layout, &removal, &places, &servers)?;
    refuse_empty_tablespaces(layout, version)?;
    let mut notes = removal.notes();
    let mut known = foreign::tablespaces(layout);
    known.extend(crate::path_overlap::tablespaces(layout.pgdata()).into_iter().map(|(oid, _)| oid));
    foreign::refuse_replay(&known, of, &options.request.target, &servers)?;
    notes.extend(foreign::replay_notes(&known, of, &servers));
    Ok(notes)
}

/// The tablespaces of the map, which has no names.
fn entries(map: &TablespaceMap) -> Vec<TablespaceEntry> {
    let entry = |entry: &holdfast_pgtypes::tablespace_map::TablespaceEntry| TablespaceEntry {
        oid: entry.oid,
        name: entry.oid.to_string(),
        path: String::from_utf8_lossy(&entry.path).into_owned(),
    };
    map.entries.iter().map(entry).collect()
}

/// The tablespaces of a stopped server's copy, which has no map: the targets of the copy's links. An interrupted run
/// may have changed the links; its resume point has the original targets.
fn linked(pgdata: &Path) -> Vec<TablespaceEntry> {
    // If it cannot be read, the check of the directory reports that.
    let before = ResumePoint::read(pgdata).ok().flatten().map(|point| point.tablespaces).unwrap_or_default();
    let entry = |(name, target): (OsString, PathBuf)| {
        let oid: u32 = name.to_str().filter(|name| !name.starts_with('+'))?.parse().ok()?;
        let original =
            before.iter().find(|tablespace| tablespace.oid == oid).map(|tablespace| tablespace.original.clone());
        // A link whose target is not UTF-8 is not changed.
        let path = original.or_else(|| target.into_os_string().into_string().ok())?;
        Some(TablespaceEntry { oid, name: oid.to_string(), path })
    };
    let mut entries: Vec<_> = crate::path_overlap::tablespaces(pgdata).into_iter().filter_map(entry).collect();
    entries.sort_unstable_by_key(|tablespace| tablespace.oid);
    entries
}

/// Whether a tablespace of the copy is a directory in `pg_tblspc`.
fn has_tablespace_in_place(pgdata: &Path) -> bool {
    let entries = fs::read_dir(pgdata.join("pg_tblspc"));
    entries.is_ok_and(|entries| entries.flatten().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())))
}

/// The tablespaces whose directory changes.
fn moved(layout: &Layout) -> impl Iterator<Item = &TablespacePlace> {
    layout.tablespaces().iter().filter(|tablespace| tablespace.location != Path::new(&tablespace.original))
}

/// Refuses a directory for a tablespace that was not filled from a copy of the tablespace: the server would start
/// without its tables.
fn refuse_empty_tablespaces(layout: &Layout, version: PgVersion) -> Result<(), Error> {
    let start = format!("PG_{}_", version.major());
    for tablespace in moved(layout) {
        let names = fs::read_dir(&tablespace.location);
        let mut names = names.map_err(|e| Error::file("list", &tablespace.location, e))?.flatten();
        if !names.any(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&start))) {
            return Err(Cause::Refused(format!(
                "{}, the directory for tablespace {}, has no {start}* in it: fill it from the copy of the tablespace that \
                 was taken together with the snapshot",
                tablespace.location.display(),
                tablespace.name
            ))
            .into());
        }
    }
    Ok(())
}

/// Changes the links to tablespaces to their new directories. PostgreSQL does this itself if it finds `tablespace_map`,
/// but it looks for the map only if there is a `backup_label`.
fn link_moved(layout: &Layout) -> Result<(), Error> {
    let links = layout.pgdata().join("pg_tblspc");
    for tablespace in moved(layout) {
        let link = links.join(tablespace.oid.to_string());
        let aside = links.join(format!("{}.holdfast", tablespace.oid));
        durable::remove_if_there(&aside)?;
        symlink(&tablespace.location, &aside).map_err(|e| Error::file("create", &aside, e))?;
        if rustix::process::geteuid().is_root() {
            let around = fs::metadata(&links).map_err(|e| Error::file("look at", &links, e))?;
            let given = lchown(&aside, Some(around.uid()), Some(around.gid()));
            given.map_err(|e| Error::file("give away", &aside, e))?;
        }
        fs::rename(&aside, &link).map_err(|e| Error::file("rename", &aside, e))?;
    }
    Ok(())
}

fn malformed(record: &SnapshotRecord, reason: String) -> Error {
    Cause::Malformed { name: format!("the record of snapshot {}", record.snapshot_id), reason }.into()
}

/// Checks the record alone: it may come from a file, not from the repository.
fn check_record(record: &SnapshotRecord, options: &RestoreOptions) -> Result<(), Error> {
    if record.cluster != options.cluster {
        return Err(Cause::Refused(format!(
            "snapshot {} is of cluster {}, and `cluster.name` says {}",
            record.snapshot_id, record.cluster, options.cluster
        ))
        .into());
    }
    match (&record.backup_label, record.online) {
        (Some(label), true) => {
            let label = BackupLabel::parse(label.as_bytes()).map_err(|e| malformed(record, e.to_string()))?;
            if label.start_lsn != record.start_lsn {
                let reason = format!("backup_label starts at {}, the record at {}", label.start_lsn, record.start_lsn);
                return Err(malformed(record, reason));
            }
            Ok(())
        }
        (None, false) => Ok(()),
        (None, true) => Err(malformed(record, "the server was running, but there is no backup_label".to_owned())),
        (Some(_), false) => Err(malformed(record, "the server was stopped, but there is a backup_label".to_owned())),
    }
}

/// Refuses a directory that is not a copy of this snapshot. Returns whether a run of ours was interrupted in it.
fn inspect(pgdata: &Path, record: &SnapshotRecord, point: &ResumePoint) -> Result<(bool, ControlFile), Error> {
    let refused = |why: String| -> Error { Cause::Refused(why).into() };
    let version_path = pgdata.join("PG_VERSION");
    let version = match fs::read_to_string(&version_path) {
        Ok(version) => version,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(refused(format!(
                "{} was not filled from snapshot {}: it has no PG_VERSION",
                pgdata.display(),
                record.snapshot_id
            )));
        }
        Err(e) => return Err(Error::file("read", &version_path, e)),
    };
    if version.trim() != record.pg_major.to_string() {
        return Err(refused(format!(
            "{} is of PostgreSQL {}, snapshot {} of PostgreSQL {}",
            pgdata.display(),
            version.trim(),
            record.snapshot_id,
            record.pg_major
        )));
    }
    if let Some(pid) = server_in(pgdata)? {
        return Err(Cause::ServerRunning { directory: pgdata.to_owned(), pid }.into());
    }
    let resumed = match ResumePoint::read(pgdata)? {
        Some(there) if there.is_same_restore(point) => true,
        Some(there) => {
            return Err(refused(format!(
                "{} holds an interrupted restore of {} of {}: finish that one, or fill the directory from the snapshot again",
                pgdata.display(),
                there.backup,
                there.cluster
            )));
        }
        None => false,
    };
    refuse_linked_control(pgdata)?;
    let control = pgdata.join(ControlFile::PATH);
    let aside = pgdata.join(CONTROL_ASIDE);
    let path = if resumed && !control.exists() { aside } else { control };
    let bytes = fs::read(&path).map_err(|e| Error::file("read", &path, e))?;
    let control = ControlFile::parse(&bytes).map_err(|source| refused_control_file(path, source))?;
    if control.system_identifier != record.system_identifier {
        return Err(Cause::WrongCluster {
            store: format!("snapshot {}", record.snapshot_id),
            cluster: record.cluster.to_string(),
            claimed: record.system_identifier,
            here: format!("the data directory {}", pgdata.display()),
            found: control.system_identifier,
        }
        .into());
    }
    let is_copy = if record.online {
        record.start_lsn <= control.redo && control.redo <= record.stop_lsn
    } else {
        control.redo == record.start_lsn
    };
    if !is_copy {
        return Err(refused(format!(
            "{} does not match snapshot {}: its last checkpoint is at {}, the snapshot goes from {} to {}; a server \
             has run here since, or the directory was filled from another snapshot",
            pgdata.display(),
            record.snapshot_id,
            control.redo,
            record.start_lsn,
            record.stop_lsn
        )));
    }
    if !run_since::is_state_of_copy(&control, record) {
        return Err(refused(format!(
            "{} does not match snapshot {}: its control file has the state \"{}\"; a server has run here since, so fill the \
             directory from the snapshot again",
            pgdata.display(),
            record.snapshot_id,
            control.state
        )));
    }
    Ok((resumed, control))
}

/// The server that runs in the directory. Every snapshot of a running server contains `postmaster.pid`, and here its
/// number may belong to any process. So the process counts only if it works in this directory, or if it is a PostgreSQL
/// of another user, whose working directory we may not read.
fn server_in(pgdata: &Path) -> Result<Option<i32>, Error> {
    if let Some(pid) = running::server_in(pgdata) {
        return Ok(Some(pid));
    }
    let Some(postmaster) = PostmasterPid::read(pgdata)? else { return Ok(None) };
    let works_in = fs::read_link(format!("/proc/{}/cwd", postmaster.pid)).map_err(|e| e.kind());
    // A `/proc` that hides the processes of others does not show that it is gone.
    let is_hidden = works_in.as_ref().is_err_and(|kind| *kind == ErrorKind::NotFound);
    if is_hidden && life_of(postmaster.pid.unsigned_abs()) == Life::OfAnotherUser {
        return Ok(Some(postmaster.pid));
    }
    let program = fs::read_to_string(format!("/proc/{}/comm", postmaster.pid)).ok();
    let here = fs::canonicalize(pgdata).map_err(|e| Error::file("look at", pgdata, e))?;
    Ok(may_be_server(&works_in, program.as_deref(), &here).then_some(postmaster.pid))
}

/// Whether a process with this directory and this name may be the server of `here`.
fn may_be_server(works_in: &Result<PathBuf, ErrorKind>, program: Option<&str>, here: &Path) -> bool {
    match works_in {
        Ok(there) => there == here,
        Err(ErrorKind::PermissionDenied) => {
            program.is_some_and(|name| matches!(name.trim(), "postgres" | "postmaster"))
        }
        // There is no such process.
        Err(_) => false,
    }
}

fn version_of(record: &SnapshotRecord) -> Result<PgVersion, Error> {
    let name = || format!("snapshot {}", record.snapshot_id);
    Ok(PgVersion::new(record.pg_major).map_err(|source| Cause::StoredVersion { name: name(), source })?)
}

/// Steps 2 to 5. Blocks.
fn change(found: &Preflight, options: &RestoreOptions, record: &SnapshotRecord) -> Result<u64, Error> {
    let pgdata = &options.pgdata;
    let mut lock = ResumeLock::acquire(pgdata)?;
    // Checked again under the lock.
    inspect(pgdata, record, &found.point)?;
    let version = version_of(record)?;
    refuse_foreign(&found.layout, version, options, record.system_identifier)?;
    lock.record(&found.point)?;
    let mut roots = Roots::open(&found.layout)?;
    // `pg_wal` may be on another volume.
    roots.add(&pgdata.join("pg_wal"))?;
    let (control, aside) = (pgdata.join(ControlFile::PATH), pgdata.join(CONTROL_ASIDE));
    if control.exists() {
        fs::rename(&control, &aside).map_err(|e| Error::file("rename", &control, e))?;
        sync_parent(&control)?;
    }
    let mode = fs::metadata(&aside).map_err(|e| Error::file("look at", &aside, e))?.mode() & 0o777;
    let removed = Removal::of(pgdata, version)?.run()?;

    if let Some(label) = &record.backup_label {
        durable::write_file(&pgdata.join(BackupLabel::FILE_NAME), label.as_bytes(), mode)?;
    }
    if !found.map.entries.is_empty() {
        let map = settings::tablespace_map(&found.map, &found.layout).to_bytes();
        durable::write_file(&pgdata.join(TablespaceMap::FILE_NAME), &map, mode)?;
    }
    if !record.online {
        link_moved(&found.layout)?;
    }
    let auto_conf = pgdata.join(AUTO_CONF);
    let recovery = recovery(options, &found.plan, found.in_place);
    let lines = settings::lines(&recovery, options.now);
    durable::write_file(&auto_conf, &settings::auto_conf(&read_auto_conf(pgdata)?, &lines, &recovery), mode)?;
    for signal in settings::SIGNAL_FILES {
        durable::remove_if_there(&pgdata.join(signal))?;
    }
    durable::write_file(&pgdata.join(settings::signal_file(options.standby)), b"", mode)?;

    roots.sync()?;
    fs::rename(&aside, &control).map_err(|e| Error::file("rename", &aside, e))?;
    sync_parent(&control)?;
    lock.remove()?;
    Ok(removed)
}

fn read_auto_conf(pgdata: &Path) -> Result<Vec<u8>, Error> {
    let path = pgdata.join(AUTO_CONF);
    match fs::read(&path) {
        Ok(bytes) => Ok(bytes),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::file("read", &path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_whose_directory_is_not_readable_may_be_this_one() {
        let here = Path::new("/var/lib/postgresql/data");
        let denied = || Err(ErrorKind::PermissionDenied);
        for (name, works_in, program, expected) in [
            ("it works here", Ok(here.to_owned()), Some("postgres\n"), true),
            ("it works here under another name", Ok(here.to_owned()), Some("postmaster-18\n"), true),
            ("a server of another directory", Ok(PathBuf::from("/srv/data")), Some("postgres\n"), false),
            ("no such process", Err(ErrorKind::NotFound), None, false),
            ("a server of another user", denied(), Some("postgres\n"), true),
            ("an old name of the program", denied(), Some("postmaster\n"), true),
            ("another program of another user", denied(), Some("sshd\n"), false),
            ("another user's processes are hidden", denied(), None, false),
        ] {
            assert_eq!(may_be_server(&works_in, program, here), expected, "{name}");
        }
    }
}
