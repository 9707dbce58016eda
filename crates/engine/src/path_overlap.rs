//! Finds out whether one place of the file system is inside another, whatever their names are.
//!
//! Two paths are compared by device and inode of their targets and of every directory above. So neither a symbolic link
//! nor a bind mount can hide an overlap. If a path does not exist yet, its existing part is examined, and the rest is
//! used as text.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Cause, Error};

/// The maximum depth of directories: no system call accepts the path of a deeper one.
const MOST_LEVELS: usize = 4096;

/// Identifies a file or directory of this host, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// The identity of a path's target; `None` if nothing is there or it may not be read.
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A place with its description: "the repository file:///srv/backups".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The description for messages, with the path.
    pub what: String,
    /// The path of the place.
    pub path: PathBuf,
}

impl Place {
    /// Makes a place; its description is `what` and the path.
    pub fn new(what: &str, path: &Path) -> Self {
        Self { what: format!("{what} {}", path.display()), path: path.to_owned() }
    }
}

/// A place as the kernel sees it.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// The place, or the lowest existing directory above it, with all links resolved.
    existing: PathBuf,
    /// The part of the path below `existing` that does not exist.
    missing: PathBuf,
    /// `existing` and every directory above it.
    chain: HashSet<Identity>,
    /// The identity of the place, if it exists.
    identity: Option<Identity>,
}

impl Resolved {
    /// Resolves a path.
    pub(crate) fn of(path: &Path) -> Self {
        let (existing, missing) = split_existing(path);
        let identity = Identity::of(&existing).filter(|_| missing.as_os_str().is_empty());
        Self { chain: chain(&existing), existing, missing, identity }
    }

    /// Resolves a path through `/proc`. Only the kernel knows where it leads, so its links are not read here. `None` if
    /// nothing is there.
    pub(crate) fn of_kernel_path(path: &Path) -> Option<Self> {
        let identity = Some(Identity::of(path)?);
        Some(Self { existing: path.to_owned(), missing: PathBuf::new(), chain: chain(path), identity })
    }

    /// Whether this is `outer` or is below it.
    pub(crate) fn is_in(&self, outer: &Self) -> bool {
        match outer.identity {
            Some(identity) => self.chain.contains(&identity),
            None => self.existing.join(&self.missing).starts_with(outer.existing.join(&outer.missing)),
        }
    }

    /// The place itself and every directory above it.
    pub(crate) fn chain(&self) -> &HashSet<Identity> {
        &self.chain
    }
}

/// Refuses two places if one is the other or is inside it.
///
/// # Errors
/// [`Cause::Overlap`], which says which one is inside the other.
pub fn refuse_overlap(one: &Place, other: &Place) -> Result<(), Error> {
    let (resolved, others) = (Resolved::of(&one.path), Resolved::of(&other.path));
    let (inner, outer) = if resolved.is_in(&others) {
        (one, other)
    } else if others.is_in(&resolved) {
        (other, one)
    } else {
        return Ok(());
    };
    Err(Cause::Overlap { inner: inner.what.clone(), outer: outer.what.clone() }.into())
}

/// The data directory, and the targets of the links in `pg_tblspc` and of `pg_wal`.
pub fn of_data_directory(pgdata: &Path) -> Vec<Place> {
    let mut places = vec![Place::new("the data directory", pgdata)];
    places.extend(linked(pgdata).into_iter().map(|path| Place::new("the tablespace in", &path)));
    let wal = pgdata.join("pg_wal");
    if let Ok(target) = std::fs::read_link(&wal) {
        places.push(Place::new("the WAL directory", &pgdata.join(target)));
    }
    places
}

/// The targets of the links in `pg_tblspc`; empty if it cannot be read.
fn linked(pgdata: &Path) -> Vec<PathBuf> {
    tablespaces(pgdata).into_iter().map(|(_, target)| target).collect()
}

/// The links in `pg_tblspc`, each with its name (the OID) and its target; empty if the folder cannot be read.
pub(crate) fn tablespaces(pgdata: &Path) -> Vec<(OsString, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(pgdata.join("pg_tblspc")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| Some((entry.file_name(), std::fs::read_link(entry.path()).ok()?))).collect()
}

/// The longest existing part of a path, with links resolved, and the missing rest.
fn split_existing(path: &Path) -> (PathBuf, PathBuf) {
    let mut missing: Vec<OsString> = Vec::new();
    let mut here = path;
    loop {
        if let Ok(existing) = std::fs::canonicalize(here) {
            return (existing, missing.iter().rev().collect());
        }
        let (Some(parent), Some(name)) = (here.parent(), here.file_name()) else {
            return (here.to_owned(), missing.iter().rev().collect());
        };
        missing.push(name.to_owned());
        here = parent;
    }
}

/// Goes up by `..`, which the kernel resolves, whatever path led here.
fn chain(path: &Path) -> HashSet<Identity> {
    let mut chain = HashSet::new();
    let Ok(metadata) = std::fs::metadata(path) else { return chain };
    chain.insert(Identity::from(&metadata));
    let mut here = match path.parent() {
        Some(parent) if !metadata.is_dir() => parent.to_owned(),
        _ => path.to_owned(),
    };
    for _ in 0..MOST_LEVELS {
        let Some(identity) = Identity::of(&here) else { break };
        chain.insert(identity);
        let above = here.join("..");
        // The root is its own parent.
        if Identity::of(&above) == Some(identity) {
            break;
        }
        here = above;
    }
    chain
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_place_in_another_is_found_through_links_and_before_it_exists() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir_all(root.join("data/base")).unwrap();
        std::fs::create_dir(root.join("data2")).unwrap();
        std::fs::write(root.join("data/key"), "k").unwrap();
        symlink(root.join("data"), root.join("link")).unwrap();
        for (one, other, expected) in [
            ("data", "data", true),
            ("data", "data/base", true),
            ("data/base", "data", true),
            ("data", "link/base", true),
            ("link", "data/base", true),
            ("data", "link/not/yet", true),
            ("data/key", "link", true),
            ("not/yet", "not", true),
            ("not", "not/yet", true),
            ("data", "data2", false),
            ("data/not", "data/not2", false),
            ("data/base", "data/key", false),
            ("nothing", "data", false),
        ] {
            let place = |name: &str| Place::new("the place", &root.join(name));
            assert_eq!(refuse_overlap(&place(one), &place(other)).is_err(), expected, "{one} and {other}");
        }
        let error = refuse_overlap(
            &Place::new("the repository", Path::new("/tmp/holdfast-none/a/b")),
            &Place::new("the data directory", Path::new("/tmp/holdfast-none/a")),
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "the repository /tmp/holdfast-none/a/b is inside the data directory /tmp/holdfast-none/a"
        );
    }
}
