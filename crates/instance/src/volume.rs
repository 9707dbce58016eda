//! The content of the data volume, and the record of how far it was filled.
//!
//! `holdfast-instance.json` beside the data directory says which cluster the volume belongs to and whether its data
//! directory is complete. It is written before the first byte of a data directory, and again after everything was
//! synced, each time aside and renamed. So a kill at any moment of `initdb`, a copy or a recovery leaves a record that
//! says "begun", and such a directory never counts as complete. A volume from a snapshot has the record of the cluster
//! that it was taken from, and is recognised by that uid.

use crate::error::{Error, Result};
use crate::identity::Paths;
use holdfast_pgtypes::{ControlFile, SegmentName};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// Name of the record.
const RECORD: &str = "holdfast-instance.json";
/// Version of its format.
const VERSION: u32 = 1;
/// A torn read of `pg_control` is repeated up to this many times; the server writes it in one call.
const READS: usize = 5;

/// What fills a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filling {
    Initdb,
    /// A restore from an archive.
    Recovery,
    /// A volume snapshot that recovery continues from.
    Snapshot,
    /// A copy of the primary.
    Join,
    /// `pg_rewind`; the directory was complete before, and is not while it runs.
    Rewind,
}

/// The progress of filling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// Files are being written: begin again, or let the restore continue.
    Begun,
    /// The files are complete and recovery runs: start it again.
    Recovering,
    /// Everything is done except the claim on the archive.
    Claiming,
    /// The directory is complete.
    Complete,
}

/// The content of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    pub cluster_uid: String,
    /// The name of the instance.
    pub instance: String,
    /// What filled the directory.
    pub filling: Filling,
    /// How far the filling came.
    pub progress: Progress,
}

impl Record {
    /// A record of this cluster's instance.
    pub fn new(cluster_uid: &str, instance: &str, filling: Filling, progress: Progress) -> Self {
        Self { version: VERSION, cluster_uid: cluster_uid.to_owned(), instance: instance.to_owned(), filling, progress }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeContent {
    /// The record, if there is one.
    pub record: Option<Record>,
    /// The control file, if there is one.
    pub control: Option<Box<ControlFile>>,
    /// Whether `standby.signal` exists.
    pub standby_signal: bool,
    /// Whether anything is in the data directory.
    pub has_files: bool,
    /// Whether `pg_wal` has a WAL segment, on whichever volume it is.
    pub has_wal: bool,
}

/// Reads what is on the volume.
///
/// # Errors
/// When something cannot be read, or the control file is damaged.
pub fn read(paths: &Paths) -> Result<VolumeContent> {
    let record = read_record(&paths.data_mount)?;
    let has_files = match fs::read_dir(&paths.pgdata) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(Error::file("list", &paths.pgdata, &error)),
    };
    Ok(VolumeContent {
        // During a restore there is no control file, and a damaged one is an error.
        control: control(&paths.pgdata)?.map(Box::new),
        record,
        standby_signal: paths.pgdata.join("standby.signal").exists(),
        has_files,
        has_wal: has_wal(&paths.pgdata.join("pg_wal"))?,
    })
}

/// Whether a folder has a WAL segment. A link that leads nowhere has none.
fn has_wal(folder: &Path) -> Result<bool> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(false),
        Err(error) => return Err(Error::file("list", folder, &error)),
    };
    let is_segment = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.parse::<SegmentName>().is_ok());
    Ok(entries.flatten().any(|entry| is_segment(&entry.file_name())))
}

/// Reads `pg_control`; `None` when there is none.
///
/// # Errors
/// When it cannot be read or is damaged.
pub fn control(pgdata: &Path) -> Result<Option<ControlFile>> {
    let path = pgdata.join(ControlFile::PATH);
    let mut last = None;
    for _ in 0..READS {
        match fs::read(&path) {
            Ok(bytes) => match ControlFile::parse(&bytes) {
                Ok(control) => return Ok(Some(control)),
                Err(error) => last = Some(error),
            },
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(Error::file("read", &path, &error)),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let why = last.map(|error| error.to_string()).unwrap_or_default();
    Err(Error::stuck(why).doing(format!("reading {}", path.display())).hint(
        "the data directory is damaged: delete the instance's pod and PersistentVolumeClaim, and it is copied again",
    ))
}

fn read_record(mount: &Path) -> Result<Option<Record>> {
    let path = mount.join(RECORD);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Error::stuck(format!("{} cannot be parsed: {error}", path.display()))
                .doing("reading what the data volume contains")
                .hint("another version of Holdfast wrote it, or it is damaged; the data directory was not changed")
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", &path, &error)),
    }
}

/// Writes the record durably.
///
/// # Errors
/// When the volume cannot be written.
pub fn write_record(mount: &Path, record: &Record) -> Result<()> {
    let text = serde_json::to_vec_pretty(record).map_err(|error| Error::retry(error.to_string()))?;
    write_durably(&mount.join(RECORD), &text, 0o600)
}

/// Writes a file aside, syncs it, renames it and syncs the directory.
///
/// # Errors
/// When any of that fails.
pub fn write_durably(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |error: std::io::Error| Error::file("write", path, &error);
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(mode).open(&aside).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&aside, path).map_err(failed)?;
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Writes a generated file if its content differs; returns whether it did.
///
/// # Errors
/// When it cannot be read or written.
pub fn write_if_changed(path: &Path, content: &[u8], mode: u32) -> Result<bool> {
    match fs::read(path) {
        Ok(found) if found == content => Ok(false),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file("read", path, &error)),
        _ => write_durably(path, content, mode).map(|()| true),
    }
}

/// Syncs the file system of this directory.
///
/// # Errors
/// When it cannot be synced.
pub fn sync_file_system(directory: &Path) -> Result<()> {
    let file = File::open(directory).map_err(|error| Error::file("open", directory, &error))?;
    rustix::fs::syncfs(&file).map_err(|errno| Error::system(&format!("sync {}", directory.display()), errno))
}

/// Sets the mode of the data directory that PostgreSQL requires. A kubelet that applies `fsGroup` to a volume opens it
/// to the group at each mount.
///
/// # Errors
/// When it cannot be set.
pub fn protect(pgdata: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    match fs::set_permissions(pgdata, fs::Permissions::from_mode(0o700)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file("restrict access to", pgdata, &error)),
        _ => Ok(()),
    }
}

/// Removes what an unfinished filling left: the data directory and the content of `pg_wal`'s own volume.
///
/// # Errors
/// When something cannot be removed.
pub fn empty(paths: &Paths) -> Result<()> {
    remove_tree(&paths.pgdata)?;
    if let Some(wal) = &paths.wal_directory {
        remove_tree(wal)?;
    }
    remove_tree(&paths.spool())
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file("remove", path, &error)),
        _ => Ok(()),
    }
}

/// Held while the manager runs, so that two managers never use one volume.
#[derive(Debug)]
pub struct VolumeLock {
    _file: File,
}

impl VolumeLock {
    /// Takes the lock; `None` when another process has it.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn take(mount: &Path) -> Result<Option<Self>> {
        let path = mount.join("holdfast-instance.lock");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| Error::file("open", &path, &error))?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(Error::system(&format!("lock {}", path.display()), errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;

    #[test]
    fn the_record_survives_and_an_unknown_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::below(folder.path(), Path::new("/x"), 1);
        fs::create_dir_all(&paths.pgdata).unwrap();
        assert_eq!(
            read(&paths).unwrap(),
            VolumeContent { record: None, control: None, standby_signal: false, has_files: false, has_wal: false }
        );
        let record = Record::new("uid", "c-1", Filling::Initdb, Progress::Begun);
        write_record(&paths.data_mount, &record).unwrap();
        fs::write(paths.pgdata.join("PG_VERSION"), "18").unwrap();
        let found = read(&paths).unwrap();
        assert_eq!(found.record, Some(record));
        assert!(found.has_files && !found.has_wal);
        // On a volume of its own, before and after that is lost.
        let wal = folder.path().join("wal/pg_wal");
        fs::create_dir_all(&wal).unwrap();
        std::os::unix::fs::symlink(&wal, paths.pgdata.join("pg_wal")).unwrap();
        fs::write(wal.join("000000010000000000000001"), "").unwrap();
        assert!(read(&paths).unwrap().has_wal);
        fs::remove_dir_all(folder.path().join("wal")).unwrap();
        assert!(!read(&paths).unwrap().has_wal);
        fs::write(paths.data_mount.join(RECORD), "{").unwrap();
        assert!(read(&paths).unwrap_err().to_string().contains("cannot be parsed"));
    }

    #[test]
    fn a_volume_has_one_manager() {
        let folder = tempfile::tempdir().unwrap();
        let first = VolumeLock::take(folder.path()).unwrap();
        assert!(first.is_some());
        assert!(VolumeLock::take(folder.path()).unwrap().is_none());
        drop(first);
        assert!(VolumeLock::take(folder.path()).unwrap().is_some());
    }

    #[test]
    fn generated_files_are_written_only_when_they_differ() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        assert!(write_if_changed(&path, b"1", 0o600).unwrap());
        assert!(!write_if_changed(&path, b"1", 0o600).unwrap());
        assert!(write_if_changed(&path, b"2", 0o600).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"2");
    }
}
