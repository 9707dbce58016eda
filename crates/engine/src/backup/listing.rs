//! The list of files, directories and links in a data directory that a backup copies.

use holdfast_repo::FileKind;
use holdfast_repo::manifest::FileEntry;

use crate::path_overlap::Identity;

/// The result of listing a data directory.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Directories, the data directory itself first, each before what is in it.
    pub directories: Vec<Directory>,
    /// Symbolic links.
    pub links: Vec<Link>,
    /// Warnings about links that PostgreSQL did not make.
    pub link_warnings: Vec<String>,
    /// Files to back up, in no particular order; without `global/pg_control`, which is read last.
    pub files: Vec<SourceFile>,
    /// The number of entries that disappeared during the listing.
    pub removed: u64,
    /// Those of them that a volume would take along, as [`super::present::is_missed_path`] chooses them.
    pub vanished: Vec<Box<[u8]>>,
    /// Sum of the files' sizes in bytes.
    pub total_bytes: u64,
}

/// A file to back up, as it was found when the data directory was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceFile {
    /// Relative to the data directory, with `/`; not necessarily UTF-8.
    pub path: Box<[u8]>,
    /// The size when it was listed. No more than this is read of a relation, since WAL replay restores what was added
    /// meanwhile, or of a file that has its own units.
    pub size_bytes: u64,
    /// Modification time in seconds since the epoch.
    pub mtime: i64,
    /// Permission bits.
    pub mode: u32,
    /// How its content is checked.
    pub check: PageCheck,
    /// The identity of the listed file; `None` for content from memory.
    pub identity: Option<Identity>,
}

impl SourceFile {
    /// The modification time as a manifest has it.
    pub(super) fn mtime_seconds(&self) -> u64 {
        u64::try_from(self.mtime).unwrap_or(0)
    }
}

/// Whether a file has the pages of a relation, and whether they carry checksums that are verified while reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageCheck {
    /// Not a relation file.
    None,
    /// A relation file whose pages are not checked: the cluster has no checksums, or the checks are switched off.
    Off,
    /// A relation file; its first page is this block of the relation.
    FromBlock(u32),
}

impl PageCheck {
    /// Whether this is the file of a relation.
    pub(super) fn is_relation(self) -> bool {
        self != Self::None
    }
}

/// A directory that a restore creates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory {
    /// Relative to the data directory; empty for the data directory itself.
    pub path: Box<[u8]>,
    /// Permission bits.
    pub mode: u32,
    /// Modification time in seconds since the epoch.
    pub mtime: i64,
}

impl Directory {
    /// Its entry in the manifest.
    pub(super) fn entry(&self) -> FileEntry<'_> {
        FileEntry {
            path: &self.path,
            kind: FileKind::Directory,
            mode: self.mode,
            size_bytes: 0,
            mtime_seconds: u64::try_from(self.mtime).unwrap_or(0),
        }
    }
}

/// A symbolic link that a restore creates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Relative to the data directory.
    pub path: Box<[u8]>,
    /// The target, as written in the link.
    pub target: Box<[u8]>,
    /// Modification time in seconds since the epoch.
    pub mtime: i64,
}

impl Link {
    /// Its entry in the manifest.
    pub(super) fn entry(&self) -> FileEntry<'_> {
        FileEntry {
            path: &self.path,
            kind: FileKind::Symlink { target: &self.target },
            mode: 0o777,
            size_bytes: 0,
            mtime_seconds: u64::try_from(self.mtime).unwrap_or(0),
        }
    }
}

/// The OID of the tablespace whose link or directory this is. Only these have a number as their name.
pub(super) fn tablespace_oid(path: &[u8]) -> Option<u32> {
    let name = std::str::from_utf8(path.strip_prefix(b"pg_tblspc/")?).ok()?;
    name.parse().ok().filter(|oid: &u32| oid.to_string() == name)
}
