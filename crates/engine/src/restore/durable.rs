//! The end of a restore: syncs everything to disk, then writes `global/pg_control`, then removes the resume point.
//!
//! No file is synced alone: one `syncfs` for each file system does it for all files, in the best order for the disk.
//! Since Linux 5.8 it reports write errors of any file. A crash before `pg_control` leaves a directory that cannot
//! start and is resumed; a crash after it leaves a complete directory with a resume point, which a resume removes.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use chrono::DateTime;
use holdfast_pgtypes::backup_manifest::{ManifestFile, ManifestWriter, WalRange, checksum_line};
use holdfast_pgtypes::{ControlFile, PgVersion};
use holdfast_repo::manifest::{FileKind, Manifest};
use holdfast_repo::record::BackupRecord;

use super::layout::{LINKS, Layout, PathIndex};
use super::resume::sync_parent;
use crate::error::{Cause, Error};

/// Makes the directories and links of a backup, parents first. Blocking.
pub(super) fn make_tree(layout: &Layout, manifest: &Manifest, index: &PathIndex) -> Result<u64, Error> {
    let mut links = 0;
    for entry in index.ordered().filter_map(|position| manifest.file(position)) {
        let place = layout.place(entry.path);
        match entry.kind {
            FileKind::Directory if entry.path.is_empty() => {}
            FileKind::Directory => make_directory(&place, entry.mode)?,
            FileKind::Symlink { target } => {
                use std::os::unix::ffi::OsStrExt;
                symlink(std::ffi::OsStr::from_bytes(target), &place).map_err(|e| Error::file("create", &place, e))?;
                links += 1;
            }
            FileKind::File { .. } => {
                // A parent directory that has no entry of its own.
                if let Some(end) = entry.path.iter().rposition(|byte| *byte == b'/')
                    && index.find(manifest, &entry.path[..end]).is_none()
                    && let Some(parent) = place.parent()
                {
                    std::fs::DirBuilder::new()
                        .recursive(true)
                        .mode(0o700)
                        .create(parent)
                        .map_err(|e| Error::file("create", parent, e))?;
                }
            }
        }
    }
    for tablespace in layout.tablespaces() {
        let link = layout.place(&[LINKS, b"/"].concat()).join(tablespace.oid.to_string());
        if let Some(parent) = link.parent() {
            make_directory(parent, 0o700)?;
        }
        symlink(&tablespace.location, &link).map_err(|e| Error::file("create", &link, e))?;
    }
    Ok(links)
}

/// The owner can always write in it: the restore needs that, and so does PostgreSQL.
fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    let mode = mode | 0o700;
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(Error::file("create", path, e)),
    }
    // The umask removes bits of a new directory, and an existing one may have others.
    set_mode(path, mode)
}

/// The permission bits of a file. They come from the backup, and a forged backup must not turn a file into a program
/// that runs as root. No server needs set-user-ID, set-group-ID or the sticky bit on a file.
pub(super) fn file_mode(mode: u32) -> u32 {
    mode & 0o777
}

/// Sets permission bits.
pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| Error::file("set the mode of", path, e))
}

/// Writes a file of ours; the later `syncfs` makes it durable. Replaces whatever has this name, and does not follow a
/// link. If root writes it, it gets the owner of its directory: PostgreSQL must read it and may remove it.
pub(super) fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    remove_if_there(path)?;
    let mode = file_mode(mode);
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        if rustix::process::geteuid().is_root()
            && let Some(folder) = path.parent()
        {
            let around = std::fs::metadata(folder)?;
            fchown(&file, Some(around.uid()), Some(around.gid()))?;
        }
        Ok(())
    };
    write().map_err(|e| Error::file("write", path, e))
}

/// Removes a file if it exists.
pub(super) fn remove_if_there(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::file("remove", path, e)),
    }
}

/// A file whose content the restore makes: `pg_verifybackup` finds it in place of the backed-up one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rewritten<'a> {
    /// Its path in the manifest.
    pub path: &'a [u8],
    /// What the restore writes.
    pub content: &'a [u8],
}

/// Writes `backup_manifest`, for `pg_verifybackup`.
pub(super) fn write_backup_manifest(
    path: &Path,
    manifest: &Manifest,
    backup: &BackupRecord,
    version: PgVersion,
    rewritten: &[Rewritten<'_>],
) -> Result<(), Error> {
    remove_if_there(path)?;
    let failed = |e| Error::file("write", path, e);
    let file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    let mut digest = digest::Context::new(&digest::SHA256);
    let mut written = Ok(());
    {
        let mut sink = |piece: &[u8]| {
            digest.update(piece);
            if written.is_ok() {
                written = out.write_all(piece);
            }
        };
        let mut writer = ManifestWriter::begin(version, backup.system_identifier, &mut sink);
        for entry in manifest.files() {
            // A file that the backup did not read in full has no checksum there, as with --manifest-checksums=none.
            let FileKind::File { crc32c, .. } = entry.kind else { continue };
            let ours = rewritten.iter().find(|file| file.path == entry.path);
            let (size_bytes, crc32c) = ours.map_or((entry.size_bytes, crc32c), |ours| {
                (ours.content.len() as u64, Some(crc32c::crc32c(ours.content)))
            });
            writer.file(&ManifestFile {
                path: entry.path,
                size_bytes,
                modified: DateTime::from_timestamp(entry.mtime_seconds.cast_signed(), 0).unwrap_or_default(),
                crc32c,
            });
        }
        writer.finish(&[WalRange { timeline: backup.timeline, start: backup.start_lsn, end: backup.stop_lsn }]);
    }
    written.map_err(failed)?;
    let sha256: [u8; 32] =
        digest.finish().as_ref().try_into().map_err(|_| Cause::Internal("a SHA-256 of another length".to_owned()))?;
    out.write_all(checksum_line(&sha256).as_bytes()).map_err(failed)?;
    out.flush().map_err(failed)
}

/// The directories of a restore, opened before anything is written in them: `syncfs` reports every write error of the
/// file system since the descriptor was opened, even if another program has already received it.
#[derive(Debug)]
pub(super) struct Roots {
    opened: Vec<(PathBuf, File)>,
}

impl Roots {
    /// Opens the data directory and the tablespaces, which must be there.
    pub(super) fn open(layout: &Layout) -> Result<Self, Error> {
        let mut roots = Self { opened: Vec::new() };
        for root in layout.roots() {
            roots.add(root)?;
        }
        Ok(roots)
    }

    /// Opens one more directory into which the restore writes.
    pub(super) fn add(&mut self, root: &Path) -> Result<(), Error> {
        let directory = File::open(root).map_err(|e| Error::file("open", root, e))?;
        self.opened.push((root.to_owned(), directory));
        Ok(())
    }

    /// Syncs everything below the directories to disk.
    pub(super) fn sync(&self) -> Result<(), Error> {
        for (root, directory) in &self.opened {
            rustix::fs::syncfs(directory).map_err(|e| Error::file("sync the file system of", root, e.into()))?;
        }
        Ok(())
    }
}

/// Writes `global/pg_control` durably: after this the server can start.
pub(super) fn write_control_file(pgdata: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let path = pgdata.join(ControlFile::PATH);
    let aside = pgdata.join("global/pg_control.holdfast");
    write_file(&aside, content, mode)?;
    File::open(&aside).and_then(|file| file.sync_all()).map_err(|e| Error::file("sync", &aside, e))?;
    std::fs::rename(&aside, &path).map_err(|e| Error::file("rename", &aside, e))?;
    sync_parent(&path)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use holdfast_testkit::disk::LosingDisk;

    use super::*;

    /// Another program on the same disk may call `syncfs` first and receive the error.
    #[test]
    fn what_the_device_lost_is_noticed_no_matter_who_asks_first() {
        let Some(disk) = LosingDisk::or_skip(64 << 20, 8 << 20) else { return };
        let mut roots = Roots { opened: Vec::new() };
        roots.add(disk.path()).unwrap();
        roots.sync().unwrap();
        std::fs::write(disk.path().join("file"), vec![1; 24 << 20]).unwrap();
        let other = File::open(disk.path()).unwrap();
        rustix::fs::syncfs(&other).unwrap_err();
        rustix::fs::syncfs(&other).unwrap();
        // From now on every write succeeds, and a directory that is opened now sees no error.
        disk.keep(128 << 20).unwrap();
        let mut late = Roots { opened: Vec::new() };
        late.add(disk.path()).unwrap();
        late.sync().unwrap();
        let error = roots.sync().unwrap_err();
        let expected = format!("cannot sync the file system of {}", disk.path().display());
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}
