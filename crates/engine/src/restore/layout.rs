//! Decides where the files of a backup go: into the data directory, or into the directory of a tablespace.
//!
//! A manifest is not trusted. Before anything is written, [`check`] refuses a manifest in which a path occurs twice or
//! leads through something that is not a directory. So a symbolic link of the backup can never lead a write out of the
//! directories of the restore.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use holdfast_contract::report::restore::TablespacePlace;
use holdfast_repo::manifest::{FileKind, Manifest};
use holdfast_repo::record::TablespaceEntry;

use crate::error::{Cause, Error};

/// The folder of the links to tablespaces, as `PG_TBLSPC_DIR`.
pub(super) const LINKS: &[u8] = b"pg_tblspc";

/// `--tablespace NAME=DIR`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceMapping {
    /// The tablespace's name or OID.
    pub tablespace: String,
    /// The new directory, as an absolute path.
    pub directory: PathBuf,
}

/// The given mappings, and mappings of all other tablespaces into folders of `root`.
pub(super) fn mappings(
    tablespaces: &[TablespaceEntry],
    given: &[TablespaceMapping],
    root: Option<&Path>,
) -> Vec<TablespaceMapping> {
    let mut mappings = given.to_vec();
    if let Some(root) = root {
        let outside = tablespaces.iter().filter(|tablespace| tablespace.path.starts_with('/'));
        let others = outside.filter(|tablespace| !given.iter().any(|given| is_named(tablespace, &given.tablespace)));
        mappings.extend(others.map(|tablespace| TablespaceMapping {
            tablespace: tablespace.oid.to_string(),
            directory: root.join(tablespace.oid.to_string()),
        }));
    }
    mappings
}

/// The directories of one restore.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pgdata: PathBuf,
    tablespaces: Vec<TablespacePlace>,
}

impl Layout {
    /// The places for the tablespaces of a backup. Refuses mappings of unknown tablespaces, relative directories,
    /// two tablespaces in one directory, and tablespaces inside the data directory.
    pub(super) fn new(
        pgdata: &Path,
        tablespaces: &[TablespaceEntry],
        mappings: &[TablespaceMapping],
    ) -> Result<Self, Error> {
        // A tablespace "in place" (developers' `allow_in_place_tablespaces`) is a directory in pg_tblspc.
        let outside: Vec<&TablespaceEntry> = tablespaces.iter().filter(|t| t.path.starts_with('/')).collect();
        for mapping in mappings {
            let known = outside.iter().any(|t| is_named(t, &mapping.tablespace));
            if !known {
                let names: Vec<&str> = outside.iter().map(|t| t.name.as_str()).collect();
                return Err(unknown_tablespace(&mapping.tablespace, &names));
            }
            if !mapping.directory.is_absolute() {
                return refused(format!("the directory {} is not absolute", mapping.directory.display()));
            }
        }
        let mut places: Vec<TablespacePlace> = Vec::with_capacity(outside.len());
        for tablespace in outside {
            let mut mapped = mappings.iter().filter(|m| is_named(tablespace, &m.tablespace));
            let location = mapped.next().map_or_else(|| PathBuf::from(&tablespace.path), |m| m.directory.clone());
            let location = normalised(&tablespace.name, &location)?;
            if mapped.next().is_some() {
                return refused(format!("two directories are given for tablespace {}", tablespace.name));
            }
            if location.starts_with(pgdata) || pgdata.starts_with(&location) {
                return refused(format!(
                    "tablespace {} would be in {}, which overlaps the data directory {}",
                    tablespace.name,
                    location.display(),
                    pgdata.display()
                ));
            }
            if let Some(other) =
                places.iter().find(|p| p.location.starts_with(&location) || location.starts_with(&p.location))
            {
                return refused(format!(
                    "tablespaces {} and {} would be in overlapping directories, {} and {}",
                    other.name,
                    tablespace.name,
                    other.location.display(),
                    location.display()
                ));
            }
            places.push(TablespacePlace {
                oid: tablespace.oid,
                name: tablespace.name.clone(),
                original: tablespace.path.clone(),
                location,
            });
        }
        Ok(Self { pgdata: pgdata.to_owned(), tablespaces: places })
    }

    /// The data directory.
    pub(super) fn pgdata(&self) -> &Path {
        &self.pgdata
    }

    /// The tablespaces outside the data directory.
    pub(super) fn tablespaces(&self) -> &[TablespacePlace] {
        &self.tablespaces
    }

    /// The tablespace of this name or OID.
    pub(super) fn named(&self, wanted: &str) -> Result<&TablespacePlace, Error> {
        self.tablespaces.iter().find(|tablespace| tablespace.is_named(wanted)).ok_or_else(|| {
            let names: Vec<&str> = self.tablespaces.iter().map(|t| t.name.as_str()).collect();
            unknown_tablespace(wanted, &names)
        })
    }

    /// The data directory and the tablespaces: one `syncfs` of each covers everything that was written.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.pgdata.as_path()).chain(self.tablespaces.iter().map(|t| t.location.as_path()))
    }

    /// The place of a path of the manifest.
    pub(super) fn place(&self, path: &[u8]) -> PathBuf {
        match self.split(path) {
            Some((tablespace, rest)) => tablespace.location.join(OsStr::from_bytes(rest)),
            None => self.pgdata.join(OsStr::from_bytes(path)),
        }
    }

    /// Whether this path is the link to a tablespace: that link is made from the mapping, not from the manifest.
    pub(super) fn is_tablespace_link(&self, path: &[u8]) -> bool {
        matches!(self.split(path), Some((_, b"")))
    }

    fn split<'p>(&self, path: &'p [u8]) -> Option<(&TablespacePlace, &'p [u8])> {
        if self.tablespaces.is_empty() {
            return None;
        }
        let inside = path.strip_prefix(LINKS)?.strip_prefix(b"/")?;
        let end = inside.iter().position(|byte| *byte == b'/').unwrap_or(inside.len());
        let (name, rest) = inside.split_at(end);
        let oid: u32 = std::str::from_utf8(name).ok()?.parse().ok()?;
        let tablespace = self.tablespaces.iter().find(|t| t.oid == oid && t.oid.to_string().as_bytes() == name)?;
        Some((tablespace, rest.strip_prefix(b"/").unwrap_or(rest)))
    }
}

/// The positions of a manifest's entries by path, without the links to tablespaces.
#[derive(Debug)]
pub(crate) struct PathIndex {
    order: Vec<u32>,
}

impl PathIndex {
    /// The position of a path.
    pub(crate) fn find(&self, manifest: &Manifest, path: &[u8]) -> Option<usize> {
        let at = self.order.binary_search_by(|position| path_of(manifest, *position).cmp(path)).ok()?;
        self.order.get(at).map(|position| *position as usize)
    }

    /// All positions in the order of the paths: a directory comes before its content.
    pub(super) fn ordered(&self) -> impl Iterator<Item = usize> {
        self.order.iter().map(|position| *position as usize)
    }
}

fn path_of(manifest: &Manifest, position: u32) -> &[u8] {
    manifest.file(position as usize).map_or(b"".as_slice(), |entry| entry.path)
}

/// Checks rules that the format does not enforce: every path occurs once, has only directories above it, and has
/// extents of the manifest's length. A single extent may be longer: early releases wrote one for a small file that had
/// grown before it was read, and it is valid.
pub(super) fn check(manifest: &Manifest, layout: &Layout) -> Result<PathIndex, Error> {
    let malformed = |path: &[u8], reason: &str| -> Error {
        Cause::Malformed {
            name: format!("the manifest of backup {}", manifest.header().backup),
            reason: format!("{}: {reason}", String::from_utf8_lossy(path)),
        }
        .into()
    };
    let count =
        u32::try_from(manifest.len()).map_err(|_| malformed(b"", "more entries than this release can handle"))?;
    let extent_bytes = manifest.header().extent_bytes;
    if extent_bytes == 0 {
        return Err(malformed(b"", "extents of 0 bytes"));
    }
    let mut order: Vec<u32> =
        (0..count).filter(|position| !layout.is_tablespace_link(path_of(manifest, *position))).collect();
    order.sort_unstable_by(|a, b| path_of(manifest, *a).cmp(path_of(manifest, *b)));
    let twice = order.windows(2).find(|pair| path_of(manifest, pair[0]) == path_of(manifest, pair[1]));
    if let Some(pair) = twice {
        return Err(malformed(path_of(manifest, pair[0]), "the path occurs twice"));
    }
    let index = PathIndex { order };
    for entry in manifest.files() {
        if entry.extents().len() > 1 && !entry.is_cut_in(extent_bytes) {
            return Err(malformed(entry.path, "extents of uneven length"));
        }
        let mut below = entry.path;
        while let Some(end) = below.iter().rposition(|byte| *byte == b'/') {
            below = &below[..end];
            if layout.is_tablespace_link(below) {
                break;
            }
            match index.find(manifest, below).and_then(|position| manifest.file(position)) {
                Some(parent) if parent.kind == FileKind::Directory => break,
                Some(_) => {
                    return Err(malformed(entry.path, "the path leads through something that is not a directory"));
                }
                None => {}
            }
        }
    }
    Ok(index)
}

fn unknown_tablespace(wanted: &str, names: &[&str]) -> Error {
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Cause::Refused(format!("the backup has no tablespace {wanted} (tablespaces of the backup: {names})")).into()
}

/// The path without repeated slashes and `.`, so that a place has only one spelling. `..` is refused: its target
/// depends on links, and PostgreSQL never writes the location of a tablespace like that.
fn normalised(tablespace: &str, location: &Path) -> Result<PathBuf, Error> {
    if location.components().any(|part| part == Component::ParentDir) {
        return refused(format!(
            "tablespace {tablespace} would be in {}, and `..` in it may lead anywhere",
            location.display()
        ));
    }
    Ok(location.components().collect())
}

/// Refuses entries that would be written into a tablespace's location outside PostgreSQL's own directory there.
/// Otherwise a forged backup could put any file into any directory. PostgreSQL keeps everything in `PG_<major>_<catalog
/// version>` (`TABLESPACE_VERSION_DIRECTORY`).
pub(super) fn check_tablespaces(manifest: &Manifest, layout: &Layout, major: u16) -> Result<(), Error> {
    let own = format!("PG_{major}_");
    for entry in manifest.files() {
        let Some((tablespace, inside)) = layout.split(entry.path) else { continue };
        let first = inside.split(|byte| *byte == b'/').next().unwrap_or_default();
        let is_directory = inside.len() > first.len() || entry.kind == FileKind::Directory;
        let belongs = inside.is_empty() || (first.starts_with(own.as_bytes()) && is_directory);
        if !belongs {
            return Err(Cause::Malformed {
                name: format!("the manifest of backup {}", manifest.header().backup),
                reason: format!(
                    "{}: it would be written into {}, next to the directory {own}... that PostgreSQL uses there",
                    String::from_utf8_lossy(entry.path),
                    tablespace.location.display()
                ),
            }
            .into());
        }
    }
    Ok(())
}

fn is_named(tablespace: &TablespaceEntry, wanted: &str) -> bool {
    tablespace.name == wanted || tablespace.oid.to_string() == wanted
}

fn refused<T>(why: String) -> Result<T, Error> {
    Err(Cause::Refused(why).into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use holdfast_repo::ChunkHash;
    use holdfast_repo::manifest::{Extent, FileEntry, ManifestHeader};

    use super::*;

    fn tablespaces() -> Vec<TablespaceEntry> {
        vec![
            TablespaceEntry { oid: 16400, name: "fast".to_owned(), path: "/ssd/pg".to_owned() },
            TablespaceEntry { oid: 16401, name: "slow".to_owned(), path: "/hdd/pg".to_owned() },
        ]
    }

    fn mapping(tablespace: &str, directory: &str) -> TablespaceMapping {
        TablespaceMapping { tablespace: tablespace.to_owned(), directory: directory.into() }
    }

    fn layout(mappings: &[TablespaceMapping]) -> Result<Layout, String> {
        Layout::new(Path::new("/srv/pg"), &tablespaces(), mappings).map_err(|e| e.to_string())
    }

    #[test]
    fn a_root_takes_every_tablespace_that_has_no_place_of_its_own() {
        let given = [TablespaceMapping { tablespace: "slow".to_owned(), directory: "/new/slow".into() }];
        let mut all = tablespaces();
        // A tablespace in place stays in the data directory.
        all.push(TablespaceEntry { oid: 16402, name: "inside".to_owned(), path: "pg_tblspc/16402".to_owned() });
        let places = |root| {
            let layout = Layout::new(Path::new("/data"), &all, &mappings(&all, &given, root)).unwrap();
            layout.tablespaces().iter().map(|place| place.location.clone()).collect::<Vec<_>>()
        };
        assert_eq!(places(Some(Path::new("/drill"))), [Path::new("/drill/16400"), Path::new("/new/slow")]);
        assert_eq!(places(None), [Path::new("/ssd/pg"), Path::new("/new/slow")]);
    }

    #[test]
    fn paths_go_to_the_data_directory_or_the_tablespace() {
        let layout = layout(&[mapping("fast", "/new/fast"), mapping("16401", "/new/slow")]).unwrap();
        for (path, place) in [
            ("base/5/1259", "/srv/pg/base/5/1259"),
            ("pg_tblspc/16400/PG_18_202506291/5/16402", "/new/fast/PG_18_202506291/5/16402"),
            ("pg_tblspc/16401/PG_18_202506291", "/new/slow/PG_18_202506291"),
            ("pg_tblspc/16402/PG_18_202506291", "/srv/pg/pg_tblspc/16402/PG_18_202506291"),
            ("pg_tblspc/016400/x", "/srv/pg/pg_tblspc/016400/x"),
            ("pg_tblspc", "/srv/pg/pg_tblspc"),
        ] {
            assert_eq!(layout.place(path.as_bytes()), Path::new(place), "{path}");
        }
        assert!(layout.is_tablespace_link(b"pg_tblspc/16400"));
        assert!(!layout.is_tablespace_link(b"pg_tblspc/16402"));
        assert!(!layout.is_tablespace_link(b"pg_tblspc/16400/PG_18_202506291"));
    }

    #[test]
    fn mappings_that_cannot_be_meant_are_refused() {
        for (mappings, message) in [
            (
                vec![mapping("quick", "/x")],
                "the backup has no tablespace quick (tablespaces of the backup: fast, slow)",
            ),
            (vec![mapping("fast", "x")], "the directory x is not absolute"),
            (vec![mapping("fast", "/x"), mapping("16400", "/y")], "two directories are given for tablespace fast"),
            (
                vec![mapping("fast", "/x"), mapping("slow", "/x/y")],
                "tablespaces fast and slow would be in overlapping directories, /x and /x/y",
            ),
            (
                vec![mapping("fast", "/srv/pg/fast")],
                "tablespace fast would be in /srv/pg/fast, which overlaps the data directory /srv/pg",
            ),
            (
                vec![mapping("fast", "/x/../srv/pg/fast")],
                "tablespace fast would be in /x/../srv/pg/fast, and `..` in it may lead anywhere",
            ),
            (
                vec![mapping("fast", "//srv//./pg/fast")],
                "tablespace fast would be in /srv/pg/fast, which overlaps the data directory /srv/pg",
            ),
        ] {
            assert_eq!(layout(&mappings).unwrap_err(), message);
        }
    }

    fn manifest(entries: &[(&str, FileKind<'_>)]) -> Manifest {
        let header = ManifestHeader {
            backup: "20260822T101500Z".to_owned(),
            cluster: "main".to_owned(),
            extent_bytes: 1 << 20,
            details: serde_json::Map::new(),
        };
        let mut manifest = Manifest::new(header);
        for (path, kind) in entries {
            let size_bytes = match kind {
                FileKind::File { extents, .. } => extents.iter().map(|e| u64::from(e.length)).sum(),
                _ => 0,
            };
            let entry = FileEntry { path: path.as_bytes(), kind: *kind, mode: 0o600, size_bytes, mtime_seconds: 0 };
            manifest.push(&entry).unwrap();
        }
        manifest
    }

    #[test]
    fn hostile_manifests_are_refused() {
        let layout = layout(&[]).unwrap();
        let file = FileKind::file(0, &[]);
        let link = FileKind::Symlink { target: b"/etc" };
        let short = [Extent::hole(ChunkHash::of(b""), 7), Extent::hole(ChunkHash::of(b""), 1 << 20)];
        let uneven = FileKind::file(0, &short);
        let long = [Extent::hole(ChunkHash::of(b""), 1 << 20), Extent::hole(ChunkHash::of(b""), (1 << 20) + 1)];
        let long = FileKind::file(0, &long);
        for (entries, message) in [
            (
                vec![("a", link), ("a/passwd", file)],
                "a/passwd: the path leads through something that is not a directory",
            ),
            (
                vec![("a", link), ("a/b/passwd", file)],
                "a/b/passwd: the path leads through something that is not a directory",
            ),
            (vec![("a", file), ("a", FileKind::Directory)], "a: the path occurs twice"),
            (vec![("a", uneven)], "a: extents of uneven length"),
            (vec![("a", long)], "a: extents of uneven length"),
        ] {
            let error = check(&manifest(&entries), &layout).unwrap_err().to_string();
            assert!(error.ends_with(message), "{error}");
        }
    }

    /// Backups of early releases have such extents.
    #[test]
    fn a_single_extent_may_be_longer() {
        let grown = [Extent::hole(ChunkHash::of(b""), 5 << 20)];
        let file = FileKind::file(0, &grown);
        check(&manifest(&[("log", FileKind::Directory), ("log/a.log", file)]), &layout(&[]).unwrap()).unwrap();
    }

    #[test]
    fn nothing_goes_into_a_tablespace_beside_its_version_directory() {
        let layout = layout(&[]).unwrap();
        let file = FileKind::file(0, &[]);
        let link = FileKind::Symlink { target: b"/etc" };
        for (path, kind, refused) in [
            ("pg_tblspc/16400", FileKind::Directory, false),
            ("pg_tblspc/16400", link, false),
            ("pg_tblspc/16400/PG_18_202506291", FileKind::Directory, false),
            ("pg_tblspc/16400/PG_18_202506291/5/16402", file, false),
            ("pg_tblspc/16402/anything", file, false),
            ("base/5/1259", file, false),
            ("pg_tblspc/16400/authorized_keys", file, true),
            ("pg_tblspc/16400/PG_18_202506291", file, true),
            ("pg_tblspc/16400/PG_18_202506291", link, true),
            ("pg_tblspc/16401/PG_17_202406281/5/1", file, true),
            ("pg_tblspc/16401/cron.d/job", file, true),
        ] {
            let manifest = manifest(&[(path, kind)]);
            assert_eq!(check_tablespaces(&manifest, &layout, 18).is_err(), refused, "{path}");
        }
    }

    #[test]
    fn the_index_finds_every_path_but_tablespace_links() {
        let layout = layout(&[]).unwrap();
        let file = FileKind::file(0, &[]);
        let entries = [
            ("pg_tblspc/16400", FileKind::Symlink { target: b"/ssd/pg" }),
            ("pg_tblspc/16400", FileKind::Directory),
            ("pg_tblspc/16400/PG_18", FileKind::Directory),
            ("pg_tblspc/16400/PG_18/1", file),
            ("base", FileKind::Directory),
            ("base.x", file),
            ("base/1", file),
        ];
        let manifest = manifest(&entries);
        let index = check(&manifest, &layout).unwrap();
        assert_eq!(index.find(&manifest, b"pg_tblspc/16400"), None);
        assert_eq!(index.find(&manifest, b"base/1"), Some(6));
        assert_eq!(index.ordered().count(), 5);
    }
}
