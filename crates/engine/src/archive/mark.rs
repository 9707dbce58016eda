//! Marks: "exactly this file is durable in exactly these repositories".
//!
//! A push that took neighbours along leaves a mark for each, so that PostgreSQL's call for it is answered without a look
//! at the network. A mark names the file by device, inode, size and both times: PostgreSQL recycles segments by renaming
//! them, which changes the time of the inode, so a mark never speaks for a later file of the same name. It is compared
//! as a whole, so a torn or foreign one does not match; a lost one costs a second look at the repository.
//!
//! A mark names the repositories twice: by their places, which the configuration says, and by their ids. A repository that
//! was wiped and made anew at the same place has another id, and does not hold what the first one held. Its id is known
//! to who opens it only, so a mark alone is believed for [`BELIEVED_FOR`], in which PostgreSQL asks for nearly all of
//! them; later the repositories are opened and their ids compared.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use holdfast_pgtypes::WalFileName;
use holdfast_repo::RepositoryId;

use super::spool::{self, RepositorySetId, Spool};

/// PostgreSQL asks for a neighbour as soon as the push that took it along has ended, and that one waits for its neighbours
/// for 20 seconds at most.
const BELIEVED_FOR: Duration = Duration::from_mins(1);

/// What tells the open repositories of a mark from others at the same places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeldBy(String);

impl HeldBy {
    /// The repositories of these ids, in any order.
    pub(super) fn new(ids: impl IntoIterator<Item = RepositoryId>) -> Self {
        let mut ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
        ids.sort_unstable();
        ids.dedup();
        Self(ids.join(" "))
    }
}

/// What tells one file from another, and a file from itself after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    /// Length in bytes.
    pub(super) size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileIdentity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The mark but for its last two lines.
    fn mark_head(&self, set: &RepositorySetId) -> String {
        format!(
            "holdfast mark 2\nrepositories {set}\nfile {} {}\nsize {}\nmodified {}.{:09}\nchanged {}.{:09}\nheld by ",
            self.device, self.inode, self.size_bytes, self.modified.0, self.modified.1, self.changed.0, self.changed.1
        )
    }

    /// The repositories that a mark says hold this file; `None` when it is about something else.
    fn holders(&self, set: &RepositorySetId, mark: &[u8]) -> Option<HeldBy> {
        let rest = mark.strip_prefix(self.mark_head(set).as_bytes())?.strip_suffix(b"\nend\n")?;
        Some(HeldBy(std::str::from_utf8(rest).ok()?.to_owned()))
    }
}

/// What a mark says of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marked {
    /// Nothing.
    No,
    /// It is durable.
    Durable,
    /// It is durable if these are the repositories at the configured places.
    IfHeldBy(HeldBy),
}

/// Whether `path` is marked as durable in these repositories, lately; the mark is used up by the answer `true`.
///
/// Synchronous and a few system calls long, for a command line that starts no runtime before it has asked. Any doubt
/// (no spool, unreadable mark, a file that changed, an old mark) is `false`.
pub fn marked_durable(spool: &Spool, set: &RepositorySetId, path: &Path) -> bool {
    let Some(name) = wal_file_name(path) else { return false };
    let mark = mark_path(spool, &name);
    let marked = look(&mark, set, path);
    // An old one is for who opens the repositories; one that does not match will not match later either.
    if !matches!(marked, Marked::IfHeldBy(_)) {
        spool::remove_quietly(&mark);
    }
    marked == Marked::Durable
}

/// As [`marked_durable`], for who can compare ids; the mark is used up.
pub(super) fn take(spool: &Spool, set: &RepositorySetId, path: &Path) -> Marked {
    let Some(name) = wal_file_name(path) else { return Marked::No };
    let mark = mark_path(spool, &name);
    let marked = look(&mark, set, path);
    spool::remove_quietly(&mark);
    marked
}

fn look(mark: &Path, set: &RepositorySetId, path: &Path) -> Marked {
    let (Ok(text), Ok(metadata)) = (std::fs::read(mark), std::fs::metadata(path)) else { return Marked::No };
    let Some(holders) = FileIdentity::of(&metadata).holders(set, &text) else { return Marked::No };
    let written = std::fs::metadata(mark).and_then(|metadata| metadata.modified());
    // One from the future is no younger than one of long ago: the clock was set.
    match written.ok().and_then(|written| SystemTime::now().duration_since(written).ok()) {
        Some(age) if age <= BELIEVED_FOR => Marked::Durable,
        _ => Marked::IfHeldBy(holders),
    }
}

/// Whether a mark for exactly this file in these open repositories stands; it stays.
pub(super) fn is_marked(
    spool: &Spool,
    set: &RepositorySetId,
    held_by: &HeldBy,
    name: &WalFileName,
    identity: &FileIdentity,
) -> bool {
    std::fs::read(mark_path(spool, name)).is_ok_and(|text| identity.holders(set, &text).as_ref() == Some(held_by))
}

/// Marks a file as durable.
pub(super) fn write(
    spool: &Spool,
    set: &RepositorySetId,
    held_by: &HeldBy,
    name: &WalFileName,
    identity: &FileIdentity,
) -> std::io::Result<()> {
    let text = format!("{}{}\nend\n", identity.mark_head(set), held_by.0);
    spool::write_aside(&spool.push_folder(), &mark_name(name), text.as_bytes())
}

/// Notes that a push of this file failed, so that the next one does not wonder at finding it stored.
pub(super) fn write_tried(spool: &Spool, name: &WalFileName) {
    let folder = spool.push_folder();
    if let Err(error) = spool::write_aside(&folder, &tried_name(name), b"") {
        tracing::debug!(folder = %folder.display(), %error, "the spool cannot be written");
    }
}

/// Whether an earlier push of this file failed; the note is used up.
pub(super) fn take_tried(spool: &Spool, name: &WalFileName) -> bool {
    std::fs::remove_file(spool.push_folder().join(tried_name(name))).is_ok()
}

/// Removes the marks and notes of files for which `still_waiting` is false.
pub(super) fn sweep(spool: &Spool, still_waiting: impl Fn(&WalFileName) -> bool) {
    let Ok(entries) = std::fs::read_dir(spool.push_folder()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let file = name.strip_suffix(".durable").or_else(|| name.strip_suffix(".tried"));
        if let Some(file) = file.and_then(|file| file.parse().ok())
            && !still_waiting(&file)
        {
            spool::remove_quietly(&entry.path());
        }
    }
}

/// The WAL file that a path names by its last part.
pub(super) fn wal_file_name(path: &Path) -> Option<WalFileName> {
    path.file_name()?.to_str()?.parse().ok()
}

fn mark_path(spool: &Spool, name: &WalFileName) -> PathBuf {
    spool.push_folder().join(mark_name(name))
}

fn mark_name(name: &WalFileName) -> String {
    format!("{name}.durable")
}

fn tried_name(name: &WalFileName) -> String {
    format!("{name}.tried")
}
