//! The blocking half of the directory store: paths, temporary files, publishing, walking, deleting.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, fchown, lchown};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::local_error::LocalError;
use super::watch::{PIECE_BYTES, Watch};
use crate::random::Random;
use crate::{Buffer, Failure, FolderPage, ObjectName, Operation, PutMode, StoreError, StoreErrorKind};

/// The folder of files that are being written and do not have their name yet.
pub(super) const TEMPORARY: &str = ".holdfast-tmp";
/// No write takes this long; a running one must never lose its file.
const TEMPORARY_AGE: Duration = Duration::from_hours(24);
/// A folder may vanish under us whenever the last object in it is deleted. This many deletions in a row, each between
/// two of our system calls, do not happen in practice; after them the absence is reported.
const FOLDER_TRIES: u32 = 100;

#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    /// Device and inode of the root when it was first seen.
    seen: OnceLock<(u64, u64)>,
    random: Mutex<Random>,
    /// Folders whose chain up to the root this process has synced.
    synced: Mutex<BTreeSet<PathBuf>>,
}

/// A file without a name yet; removed when dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Writes bytes at their place, in pieces. In a hurry each piece is synced, so that the caller sees it move.
    pub(super) fn write(&self, body: &[u8], offset: u64, watch: &Watch) -> Result<(), LocalError> {
        let mut at = offset;
        for piece in body.chunks(PIECE_BYTES) {
            self.file.write_all_at(piece, at)?;
            at += piece.len() as u64;
            watch.check()?;
            if watch.in_hurry() {
                self.file.sync_data()?;
                watch.check()?;
            }
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // If the file was published by renaming, it is gone already. Any other failure leaves it for the cleaning by
        // age.
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, path = %self.path.display(), "a temporary file could not be removed");
            }
            _ => {}
        }
    }
}

fn not_a_directory() -> LocalError {
    LocalError::new(StoreErrorKind::InvalidConfig, "it is not a directory")
}

impl Files {
    pub(super) fn new(root: &Path) -> Result<Self, StoreError> {
        if !root.is_absolute() || root.to_str().is_none() {
            return Err(StoreError::new(
                StoreErrorKind::InvalidConfig,
                Failure {
                    store: format!("file://{}", root.display()),
                    name: String::new(),
                    operation: Operation::Open,
                    detail: "the path must be absolute and UTF-8".to_owned(),
                    source: None,
                },
            ));
        }
        Ok(Self {
            root: root.to_owned(),
            seen: OnceLock::new(),
            random: Mutex::new(Random::from_system()),
            synced: Mutex::default(),
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Checks that the root is there, and is still the directory that it was. When a disk is unmounted, the empty
    /// directory below it could be written to, and would be hidden when the disk is back.
    pub(super) fn check_root(&self) -> Result<(), LocalError> {
        // With the dot, a file system that is mounted on first use is mounted now.
        match std::fs::metadata(self.root.join(".")) {
            Ok(metadata) if metadata.is_dir() => {
                let found = (metadata.dev(), metadata.ino());
                if *self.seen.get_or_init(|| found) == found {
                    return Ok(());
                }
                let detail = "another directory or disk is in its place since it was opened";
                Err(LocalError::new(StoreErrorKind::NoSuchBucket, detail))
            }
            Ok(_) => Err(not_a_directory()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(not_a_directory()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(LocalError::new(StoreErrorKind::NoSuchBucket, ""))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The user and group that get what root makes: those of the store's directory, who could otherwise not read or add
    /// to it. `None` if this process does not run as root.
    fn owner(&self) -> io::Result<Option<(u32, u32)>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let root = std::fs::metadata(&self.root)?;
        Ok((root.uid() != 0).then(|| (root.uid(), root.gid())))
    }

    /// Changes the owner of a folder that root made; also of a folder left by a run that was killed before it did so.
    fn give_folder(&self, folder: &Path) -> io::Result<()> {
        match self.owner()? {
            Some((user, group)) if std::fs::symlink_metadata(folder)?.uid() == 0 => {
                lchown(folder, Some(user), Some(group))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn make_root(&self) -> io::Result<()> {
        make_folder(&self.root)
    }

    /// Removes what killed processes left. A failure does no harm.
    pub(super) fn clean(&self, watch: &Watch) {
        let Ok(entries) = std::fs::read_dir(self.root.join(TEMPORARY)) else { return };
        for entry in entries.flatten() {
            watch.moved();
            let age = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
                .and_then(|modified| SystemTime::now().duration_since(modified).ok());
            if age.is_some_and(|age| age > TEMPORARY_AGE) {
                let path = entry.path();
                let removed = std::fs::remove_file(&path);
                tracing::debug!(path = %path.display(), ?removed, "removing an old temporary file");
            }
        }
    }

    /// The path of an object. [`ObjectName`] keeps it below the root; the folder of temporary files is refused.
    pub(super) fn path(&self, name: &ObjectName) -> Result<PathBuf, LocalError> {
        if name.as_str().split('/').next() == Some(TEMPORARY) {
            let detail = format!("names below {TEMPORARY} are reserved");
            return Err(LocalError::new(StoreErrorKind::InvalidConfig, detail));
        }
        Ok(self.root.join(name.as_str()))
    }

    pub(super) fn open(&self, name: &ObjectName) -> Result<(File, u64), LocalError> {
        self.check_root()?;
        let file = File::open(self.path(name)?)?;
        let metadata = file.metadata()?;
        if metadata.is_file() { Ok((file, metadata.len())) } else { Err(LocalError::new(StoreErrorKind::NotFound, "")) }
    }

    /// `AlreadyExists` if the name is taken, before anything is written. Syncs the folder then, because the caller
    /// may treat the object as stored while its writer has not synced it yet.
    pub(super) fn must_be_absent(&self, name: &ObjectName) -> Result<(), LocalError> {
        let path = self.path(name)?;
        match std::fs::symlink_metadata(&path) {
            Ok(_) => Err(taken(&path)),
            Err(error) if is_absence(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A new empty file without a final name.
    pub(super) fn temporary(&self) -> Result<Temporary, LocalError> {
        let folder = self.root.join(TEMPORARY);
        let unique = self.random.lock().next();
        let path = folder.join(format!("{}-{unique:016x}", std::process::id()));
        let create = || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_folder(&folder)?;
                self.give_folder(&folder)?;
                create()?
            }
            result => result?,
        };
        let temporary = Temporary { path, file };
        if let Some((user, group)) = self.owner()? {
            fchown(&temporary.file, Some(user), Some(group))?;
        }
        Ok(temporary)
    }

    /// Steps 2 to 4 of a write.
    pub(super) fn publish(
        &self,
        temporary: &Temporary,
        name: &ObjectName,
        mode: PutMode,
        watch: &Watch,
    ) -> Result<(), LocalError> {
        let path = self.path(name)?;
        let folder = path.parent().unwrap_or(&self.root);
        watch.syncs(temporary.file.metadata()?.len());
        temporary.file.sync_all()?;
        let mut tries = 0;
        loop {
            tries += 1;
            watch.check()?;
            match self.make_chain(folder, watch) {
                Ok(()) => {}
                // A parent folder was deleted between two system calls.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < FOLDER_TRIES => {
                    self.check_root()?;
                    self.forget(folder);
                    continue;
                }
                Err(error) => return Err(in_the_way(error)),
            }
            watch.check()?;
            let named = match mode {
                PutMode::Create => create_name(&temporary.path, &path),
                PutMode::Overwrite => rustix::fs::rename(&temporary.path, &path),
            };
            match named {
                Ok(()) => break,
                Err(Errno::NOENT) if tries < FOLDER_TRIES => self.forget(folder),
                Err(Errno::EXIST) if mode == PutMode::Create => return Err(taken(&path)),
                Err(error) => return Err(in_the_way(error.into())),
            }
        }
        watch.moved();
        sync_folder(folder)?;
        watch.moved();
        // It was perhaps exchanged meanwhile.
        self.check_root()
    }

    /// Makes the folders down to `folder`. Syncs their chain up to the root once per process.
    fn make_chain(&self, folder: &Path, watch: &Watch) -> io::Result<()> {
        let mut synced = self.synced.lock();
        if synced.contains(folder) {
            return Ok(());
        }
        let mut chain: Vec<&Path> = folder.ancestors().take_while(|ancestor| *ancestor != self.root).collect();
        chain.reverse();
        for link in chain {
            if synced.contains(link) {
                continue;
            }
            match DirBuilder::new().mode(0o700).create(link) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => self.give_folder(link)?,
            }
            if let Some(parent) = link.parent() {
                sync_folder(parent)?;
            }
            watch.moved();
            synced.insert(link.to_owned());
        }
        Ok(())
    }

    fn forget(&self, folder: &Path) {
        let mut synced = self.synced.lock();
        for ancestor in folder.ancestors() {
            synced.remove(ancestor);
        }
    }

    /// A page of at most `most` folders, in the order of their names.
    pub(super) fn list_folders(
        &self,
        prefix: &str,
        after: Option<&str>,
        most: usize,
        watch: &Watch,
    ) -> Result<FolderPage, LocalError> {
        let parent = prefix.trim_end_matches('/');
        let mut page = FolderPage::default();
        if !may_be_listed(parent) {
            return Ok(page);
        }
        let entries = match std::fs::read_dir(self.root.join(parent)) {
            Err(error) if is_absence(&error) => return Ok(page),
            entries => entries?,
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let entry = entry?;
            watch.moved();
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !entry.file_type()?.is_dir() || (parent.is_empty() && name == TEMPORARY) {
                continue;
            }
            if after.is_none_or(|after| name.as_str() > after) {
                names.insert(name);
            }
            if names.len() > most {
                names.pop_last();
                page.next = names.last().cloned();
            }
        }
        for name in names {
            let below = if parent.is_empty() { name.clone() } else { format!("{parent}/{name}") };
            let mut inhabited = false;
            self.walk(&below, watch, &mut |_, _| {
                inhabited = true;
                false
            })?;
            if inhabited {
                page.folders.push(name);
            }
        }
        Ok(page)
    }

    /// Visits every object below a folder, in no particular order, until `visit` returns false. Returns false then.
    fn walk(
        &self,
        folder: &str,
        watch: &Watch,
        visit: &mut impl FnMut(ObjectName, &std::fs::Metadata) -> bool,
    ) -> io::Result<bool> {
        let entries = match std::fs::read_dir(self.root.join(folder)) {
            Err(error) if is_absence(&error) => return Ok(true),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            watch.moved();
            let Ok(name) = entry.file_name().into_string() else { continue };
            if folder.is_empty() && name == TEMPORARY {
                continue;
            }
            let below = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let metadata = match entry.metadata() {
                // It was deleted during the walk.
                Err(error) if is_absence(&error) => continue,
                metadata => metadata?,
            };
            if metadata.is_dir() {
                if !self.walk(&below, watch, visit)? {
                    return Ok(false);
                }
            } else if metadata.is_file() {
                let name = match ObjectName::new(below) {
                    Ok(name) => name,
                    Err(error) => {
                        tracing::debug!(%error, "skipping a foreign file");
                        continue;
                    }
                };
                if !visit(name, &metadata) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Removes files, then the folders they leave empty, then syncs the folders that remain.
    pub(super) fn delete(&self, names: &[ObjectName], watch: &Watch) -> Result<(), LocalError> {
        let mut touched = BTreeSet::new();
        for name in names {
            watch.check()?;
            let path = self.path(name)?;
            match std::fs::remove_file(&path) {
                Err(error) if is_absence(&error) => continue,
                // It is a folder, so there is no object of this name.
                Err(_) if path.is_dir() => continue,
                result => result?,
            }
            let mut folder = path.parent().unwrap_or(&self.root);
            while folder != self.root && std::fs::remove_dir(folder).is_ok() {
                self.forget(folder);
                folder = folder.parent().unwrap_or(&self.root);
            }
            touched.insert(folder.to_owned());
        }
        for folder in touched {
            match sync_folder(&folder) {
                Err(error) if !is_absence(&error) => return Err(error.into()),
                _ => watch.moved(),
            }
        }
        Ok(())
    }
}

/// The name is taken; its folder is synced before the caller relies on that.
fn taken(path: &Path) -> LocalError {
    match path.parent().map_or(Ok(()), sync_folder) {
        Ok(()) => LocalError::new(StoreErrorKind::AlreadyExists, ""),
        Err(error) => error.into(),
    }
}

/// Gives a file a name that must be free.
fn create_name(from: &Path, to: &Path) -> Result<(), Errno> {
    let named = match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system (NFS, some FUSE) has the flag; all of them have links, and a link never replaces a
        // file. The temporary name is removed when the Temporary is dropped.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rustix::fs::link(from, to),
        result => result,
    };
    match named {
        // The server of a network file system made the link and its answer was lost, so the kernel asked again.
        Err(Errno::EXIST) if is_same_file(from, to) => Ok(()),
        named => named,
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (std::fs::symlink_metadata(one), std::fs::symlink_metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Whether objects can be in this folder: the root, or what a name could begin with.
pub(super) fn may_be_listed(folder: &str) -> bool {
    folder.is_empty() || (ObjectName::new(folder).is_ok() && folder.split('/').next() != Some(TEMPORARY))
}

/// A file where a folder should be, or the reverse, while writing: this is not an absence.
fn in_the_way(error: io::Error) -> LocalError {
    match error.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::AlreadyExists => {
            LocalError::new(StoreErrorKind::InvalidConfig, "an object and a folder would have the same name")
        }
        _ => error.into(),
    }
}

pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Makes a folder and its parents, each synced into its parent.
fn make_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => folder.parent().map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match folder.parent() {
            Some(parent) => {
                make_folder(parent)?;
                make_folder(folder)
            }
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some network file systems cannot sync a folder; they write its changes through.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

/// Reads exactly `range`, which the caller has checked against the size.
pub(super) fn read_at(file: &File, range: Range<u64>, watch: &Watch) -> io::Result<Bytes> {
    let length = usize::try_from(range.end - range.start).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let mut buffer = Buffer::zeroed(length)?;
    let mut at = range.start;
    for piece in buffer.chunks_mut(PIECE_BYTES) {
        file.read_exact_at(piece, at)?;
        at += piece.len() as u64;
        watch.moved();
    }
    Ok(buffer.freeze(length))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_link_whose_answer_was_lost_is_ours_and_another_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, "x").unwrap();
        std::fs::hard_link(&from, &to).unwrap();
        assert_eq!(create_name(&from, &to), Ok(()));
        std::fs::remove_file(&to).unwrap();
        std::fs::write(&to, "x").unwrap();
        assert_eq!(create_name(&from, &to), Err(Errno::EXIST));
    }
}
