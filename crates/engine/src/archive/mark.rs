//! Marks: "exactly this file is durable in exactly these repositories".
//!
//! A push that also stored neighbours leaves a mark for each, so that PostgreSQL's call for it is answered without the
//! network. A mark names the file by device, inode, size and both times. PostgreSQL recycles segments by renaming them,
//! which changes the time of the inode, so a mark is never valid for a later file of the same name. It is compared as a
//! whole, so a torn or foreign mark does not match. If a mark is lost, the repository is checked a second time.
//!
//! A mark names the repositories twice: by their places, from the configuration, and by their ids. A repository that
//! was wiped and made again at the same place has another id, and does not contain what the first one contained. Only a
//! process that opens the repository knows its id. So a mark alone is believed for [`BELIEVED_FOR`], within which
//! PostgreSQL asks for nearly all neighbours. Later the repositories are opened and their ids compared.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use holdfast_contract::agent::FileIdentity;
use holdfast_pgtypes::WalFileName;
use holdfast_repo::RepositoryId;
use holdfast_repo::name::ClaimNumber;

use super::spool::{self, RepositorySetId, Spool};

/// PostgreSQL asks for a neighbour as soon as the push that stored it has ended, and that push waits for its neighbours
/// for 20 seconds at most.
const BELIEVED_FOR: Duration = Duration::from_mins(1);

/// Distinguishes the open repositories of a mark, and their claims, from others at the same places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeldBy(String);

impl HeldBy {
    /// Combines the ids of repositories, each with the number of the claim, in any order.
    pub(super) fn new(ids: impl IntoIterator<Item = (RepositoryId, ClaimNumber)>) -> Self {
        let mut ids: Vec<String> = ids.into_iter().map(|(id, claim)| format!("{id}/{claim}")).collect();
        ids.sort_unstable();
        ids.dedup();
        Self(ids.join(" "))
    }
}

/// The mark without its last two lines.
fn mark_head(identity: &FileIdentity, set: &RepositorySetId) -> String {
    let FileIdentity { device, inode, size_bytes, modified, changed } = identity;
    format!(
        "holdfast mark 2\nrepositories {set}\nfile {device} {inode}\nsize {size_bytes}\nmodified {}.{:09}\n\
         changed {}.{:09}\nheld by ",
        modified.0, modified.1, changed.0, changed.1
    )
}

/// The repositories that contain this file according to a mark; `None` if the mark belongs to another file.
fn holders(identity: &FileIdentity, set: &RepositorySetId, mark: &[u8]) -> Option<HeldBy> {
    let rest = mark.strip_prefix(mark_head(identity, set).as_bytes())?.strip_suffix(b"\nend\n")?;
    Some(HeldBy(std::str::from_utf8(rest).ok()?.to_owned()))
}

/// What a mark proves about a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marked {
    /// There is no valid mark.
    No,
    /// It is durable.
    Durable,
    /// It is durable if these are the repositories at the configured places.
    IfHeldBy(HeldBy),
}

/// Whether a recent mark says that `path` is durable in these repositories. The answer `true` removes the mark.
///
/// It is synchronous and takes a few system calls, so that the command line can ask before it starts a runtime. Any
/// doubt (no spool, unreadable mark, a file that changed, an old mark) is `false`.
pub fn marked_durable(spool: &Spool, set: &RepositorySetId, path: &Path) -> bool {
    let Some(name) = wal_file_name(path) else { return false };
    let mark = mark_path(spool, &name);
    let marked = read(&mark, set, path);
    // An old mark is left for a process that opens the repositories. A mark that does not match now will not match
    // later.
    if !matches!(marked, Marked::IfHeldBy(_)) {
        spool::remove_quietly(&mark);
    }
    marked == Marked::Durable
}

/// As [`marked_durable`], for a caller that can compare ids. It removes the mark.
pub(super) fn read_and_remove(spool: &Spool, set: &RepositorySetId, path: &Path) -> Marked {
    let Some(name) = wal_file_name(path) else { return Marked::No };
    let mark = mark_path(spool, &name);
    let marked = read(&mark, set, path);
    spool::remove_quietly(&mark);
    marked
}

fn read(mark: &Path, set: &RepositorySetId, path: &Path) -> Marked {
    let (Ok(text), Ok(metadata)) = (std::fs::read(mark), std::fs::metadata(path)) else { return Marked::No };
    let Some(holders) = holders(&FileIdentity::of(&metadata), set, &text) else { return Marked::No };
    let written = std::fs::metadata(mark).and_then(|metadata| metadata.modified());
    // A mark from the future counts as old: the clock was set.
    match written.ok().and_then(|written| SystemTime::now().duration_since(written).ok()) {
        Some(age) if age <= BELIEVED_FOR => Marked::Durable,
        _ => Marked::IfHeldBy(holders),
    }
}

/// Whether there is a mark for exactly this file in these open repositories. The mark stays.
pub(super) fn is_marked(
    spool: &Spool,
    set: &RepositorySetId,
    held_by: &HeldBy,
    name: &WalFileName,
    identity: &FileIdentity,
) -> bool {
    std::fs::read(mark_path(spool, name)).is_ok_and(|text| holders(identity, set, &text).as_ref() == Some(held_by))
}

/// Marks a file as durable.
pub(super) fn write(
    spool: &Spool,
    set: &RepositorySetId,
    held_by: &HeldBy,
    name: &WalFileName,
    identity: &FileIdentity,
) -> std::io::Result<()> {
    let text = format!("{}{}\nend\n", mark_head(identity, set), held_by.0);
    spool::write_aside(&spool.push_folder(), &mark_name(name), text.as_bytes())
}

/// Removes the mark of a file.
pub(super) fn remove(spool: &Spool, name: &WalFileName) {
    spool::remove_quietly(&mark_path(spool, name));
}

/// Records that a push of this file failed, so that the next push does not warn if the file is already stored.
pub(super) fn write_tried(spool: &Spool, name: &WalFileName) {
    let folder = spool.push_folder();
    if let Err(error) = spool::write_aside(&folder, &tried_name(name), b"") {
        tracing::debug!(folder = %folder.display(), %error, "the spool cannot be written");
    }
}

/// Whether an earlier push of this file failed. The answer removes the note.
pub(super) fn take_tried(spool: &Spool, name: &WalFileName) -> bool {
    std::fs::remove_file(spool.push_folder().join(tried_name(name))).is_ok()
}

/// Removes the marks and notes of files that no longer wait, by `still_waiting`.
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

/// The WAL file that the last part of a path names.
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
