//! A data directory as a server and its users change it, and everything that ever was in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_pgtypes::checksum::{PAGE_SIZE, page_checksum};
use holdfast_testkit::random::Random;

use super::super::{KnownServer, space_beside};
use crate::server::DatabasePlace;
use crate::server::sample_control::{CHECKSUMS_AT, control_with};

/// The directory of the version in each tablespace.
pub(super) const VERSION: &str = "PG_18_202506291";

/// The number of blocks in a segment file, as in the control file.
const SEGMENT_PAGES: u32 = 131_072;

/// The OID of the database in each of the first tablespaces is that of the tablespace and this number.
const OF_TABLESPACE: u32 = 100_000;

/// The last OID that exists before the changes begin.
const LAST_OF_START: u32 = 16_402;

/// The tablespace of `base`.
const DEFAULT_TABLESPACE: u32 = 1663;

/// What is known of one relation file.
#[derive(Debug, Clone, Default)]
pub(super) struct Relation {
    pub(super) number: u16,
    pub(super) first_block: u32,
    /// All versions that each page had since the backup began. Pages after these were never written.
    pub(super) pages: Vec<BTreeSet<u32>>,
    /// The LSN of each page now.
    lsns: Vec<u64>,
    /// The number of pages now, and the smallest and the largest number since the backup began.
    now: usize,
    pub(super) least: usize,
    pub(super) most: usize,
}

/// What is known of one file that is not a relation.
#[derive(Debug, Clone)]
pub(super) enum Plain {
    /// A file that only grows: its length at the beginning.
    Appended(usize),
    /// A file that is replaced by renaming others over it: the length and the fill byte of each version.
    Replaced(Vec<(usize, u8)>),
}

/// How the server and its machine behave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habits {
    /// Whether the cluster has page checksums. Without them, hint bits change pages that keep their LSN.
    pub(super) checksums: bool,
    /// Whether volumes go away for a while.
    pub(super) volumes_go_away: bool,
}

/// The data directory, and everything that ever was in it.
pub(super) struct World {
    pub(super) pgdata: PathBuf,
    outside: PathBuf,
    random: Random,
    habits: Habits,
    pub(super) server: Arc<KnownServer>,
    pub(super) relations: BTreeMap<String, Relation>,
    pub(super) plain: BTreeMap<String, Plain>,
    /// Directories that were made, and links with their targets.
    pub(super) directories: BTreeSet<String>,
    pub(super) links: BTreeMap<String, BTreeSet<PathBuf>>,
    /// Paths that the server or a user removed or made since the backup began, and paths that were changed since then.
    pub(super) gone: BTreeSet<String>,
    pub(super) touched: BTreeSet<String>,
    /// A directory whose volume is away, and where it is meanwhile.
    away: Option<(PathBuf, PathBuf)>,
    /// How often a volume was away since the backup began.
    pub(super) times_away: u32,
    /// The LSN of the next record, and of the pages of the template database.
    lsn: u64,
    template_lsn: u64,
    version: u32,
    number: u16,
    /// The last OID: the server gives none twice.
    oid: u32,
}

/// Eight bytes that contain their file, version and block, so that they cannot be confused with others.
pub(super) fn word(relation: u16, version: u32, block: u32) -> u64 {
    u64::from(version & 0xff_ffff) << 40 | u64::from(relation) << 24 | u64::from(block & 0xff_ffff)
}

/// A page as PostgreSQL lays it out, with its checksum.
fn page(relation: u16, version: u32, block: u32, lsn: u64) -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
    // `pd_lsn` has its upper half first.
    page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
    page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
    // `pd_lower`, `pd_upper`, `pd_special`, and size with layout version, as `PageHeaderData`.
    for (at, value) in [(12, 24_u16), (14, 8192), (16, 8192), (18, 8192 | 4)] {
        page[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    page[24..].as_chunks_mut::<8>().0.fill(word(relation, version, block).to_le_bytes());
    let checksum = page_checksum(&page, block);
    page[8..10].copy_from_slice(&checksum.to_le_bytes());
    page
}

/// The place of this path in the restored copy, including tablespaces.
pub(super) fn restored(copy: &Path, path: &str) -> PathBuf {
    let space = path.strip_prefix("pg_tblspc/").and_then(|rest| rest.split_once('/'));
    match space.and_then(|(oid, rest)| Some((oid.parse().ok()?, rest))) {
        Some((oid, rest)) => space_beside(copy, oid).join(rest),
        None => copy.join(path),
    }
}

impl World {
    /// A data directory in which no backup has begun.
    pub(super) fn new(folder: &Path, seed: u64, habits: Habits, server: Arc<KnownServer>) -> Self {
        let mut world = Self {
            pgdata: folder.join("data"),
            outside: folder.join("outside"),
            random: Random::of_seed(seed),
            habits,
            server,
            relations: BTreeMap::new(),
            plain: BTreeMap::new(),
            directories: BTreeSet::new(),
            links: BTreeMap::new(),
            gone: BTreeSet::new(),
            touched: BTreeSet::new(),
            away: None,
            times_away: 0,
            lsn: 0x1000,
            template_lsn: 0x800,
            version: 1,
            number: 0,
            oid: LAST_OF_START - 2,
        };
        for path in ["", "base", "global", "pg_wal", "pg_tblspc", "log"] {
            world.make_directory(path);
        }
        fs::create_dir(&world.outside).unwrap();
        let control = control_with(&[(CHECKSUMS_AT, &u32::from(habits.checksums).to_le_bytes())]);
        fs::write(world.pgdata.join("global/pg_control"), control).unwrap();
        for folder in ["pg_xact", "pg_multixact", "pg_multixact/offsets", "pg_multixact/members"] {
            world.make_directory(folder);
        }
        for file in ["PG_VERSION", "global/pg_filenode.map", "pg_xact/0000", "pg_multixact/offsets/0000"] {
            world.replace(file);
        }
        world.replace("pg_multixact/members/0000");
        for oid in [1, 5, 16384] {
            world.make_database(oid, DEFAULT_TABLESPACE);
        }
        for _ in 0..2 {
            let oid = world.make_tablespace();
            world.make_database(oid + OF_TABLESPACE, oid);
        }
        for number in 0..4 {
            world.replace(&format!("log/replaced-{number}"));
            world.append(&format!("log/appended-{number}"));
        }
        world.replace("postgresql.conf");
        world
    }

    /// A backup begins at this LSN: what was before does not matter any more. All pages are on the disk, as after a
    /// checkpoint.
    pub(super) fn begin(&mut self, start_lsn: u64) {
        self.lsn = self.lsn.max(start_lsn);
        let Self { pgdata, relations, plain, directories, .. } = self;
        relations.retain(|path, _| pgdata.join(path).exists());
        plain.retain(|path, _| pgdata.join(path).is_file());
        directories.retain(|path| pgdata.join(path).is_dir());
        for relation in relations.values_mut() {
            (relation.least, relation.most) = (relation.now, relation.now);
            relation.pages.truncate(relation.now);
            for versions in &mut relation.pages {
                *versions = versions.pop_last().into_iter().collect();
            }
        }
        for (path, plain) in plain {
            match plain {
                Plain::Appended(length) => *length = fs::metadata(pgdata.join(path)).unwrap().len() as usize,
                Plain::Replaced(versions) => drop(versions.drain(..versions.len() - 1)),
            }
        }
        self.gone.clear();
        self.touched.clear();
        self.times_away = 0;
    }

    fn next_version(&mut self) -> u32 {
        self.version += 1;
        self.version
    }

    fn next_oid(&mut self) -> u32 {
        self.oid += 1;
        self.oid
    }

    fn make_directory(&mut self, path: &str) {
        fs::create_dir_all(self.pgdata.join(path)).unwrap();
        self.directories.insert(path.to_owned());
        self.gone.insert(path.to_owned());
    }

    /// Copies the files of a template, whose pages keep their LSNs. The server shows the database when all are there.
    fn make_database(&mut self, oid: u32, tablespace: u32) {
        let place = DatabasePlace { oid, name: format!("db-{oid}"), tablespace };
        let path = match tablespace {
            DEFAULT_TABLESPACE => format!("base/{oid}"),
            _ => format!("pg_tblspc/{tablespace}/{VERSION}/{oid}"),
        };
        self.make_directory(&path);
        for file in ["PG_VERSION", "pg_filenode.map"] {
            self.gone.insert(format!("{path}/{file}"));
            self.replace(&format!("{path}/{file}"));
        }
        let lsn = std::mem::replace(&mut self.lsn, self.template_lsn);
        for name in ["1259", "1259_fsm", "1259_vm", "1260", "1260.1", "1261_init"] {
            self.make_relation(&format!("{path}/{name}"));
        }
        self.lsn = lsn;
        self.server.databases.lock().push(place);
    }

    /// Makes a tablespace with relations of database 5.
    fn make_tablespace(&mut self) -> u32 {
        let oid = self.next_oid();
        let (place, link) = (self.outside.join(oid.to_string()), format!("pg_tblspc/{oid}"));
        // First the directory, then the link, as `create_tablespace_directories`.
        fs::create_dir_all(place.join(VERSION).join("5")).unwrap();
        symlink(&place, self.pgdata.join(&link)).unwrap();
        for path in [format!("{link}/{VERSION}"), format!("{link}/{VERSION}/5")] {
            self.make_directory(&path);
        }
        self.gone.insert(link.clone());
        self.links.entry(link.clone()).or_default().insert(place);
        self.make_relation(&format!("{link}/{VERSION}/5/16500"));
        self.make_relation(&format!("{link}/{VERSION}/5/16501"));
        self.server.tablespaces.lock().insert(oid, format!("space-{oid}"));
        oid
    }

    /// A new file of a relation with 1 to 40 pages: small enough for a group of small files, or several extents.
    fn make_relation(&mut self, path: &str) {
        File::create_new(self.pgdata.join(path)).unwrap();
        self.gone.insert(path.to_owned());
        self.touched.insert(path.to_owned());
        self.number += 1;
        let first_block = if path.ends_with(".1") { SEGMENT_PAGES } else { 0 };
        let known = Relation { number: self.number, first_block, ..Relation::default() };
        self.relations.insert(path.to_owned(), known);
        let pages = 1 + self.random.index(40);
        self.extend(path, pages);
    }

    /// Writes pages with a new version. A page that exists keeps its LSN if only hint bits change.
    fn write_pages(&mut self, path: &str, from: usize, count: usize, only_hints: bool) {
        let version = self.next_version();
        if self.lsn != self.template_lsn {
            self.lsn += 8;
        }
        let Some(relation) = self.relations.get_mut(path) else { return };
        let mut bytes = Vec::with_capacity(count * PAGE_SIZE);
        for index in from..from + count {
            if relation.pages.len() <= index {
                relation.pages.resize_with(index + 1, BTreeSet::new);
            }
            relation.lsns.resize(relation.lsns.len().max(index + 1), self.lsn);
            if !only_hints {
                relation.lsns[index] = self.lsn;
            }
            let block = relation.first_block + index as u32;
            bytes.extend_from_slice(&page(relation.number, version, block, relation.lsns[index]));
            relation.pages[index].insert(version);
        }
        relation.now = relation.now.max(from + count);
        relation.most = relation.most.max(relation.now);
        self.touched.insert(path.to_owned());
        let file = OpenOptions::new().write(true).open(self.pgdata.join(path)).unwrap();
        file.write_all_at(&bytes, (from * PAGE_SIZE) as u64).unwrap();
    }

    fn extend(&mut self, path: &str, pages: usize) {
        let now = self.relations.get(path).map_or(0, |relation| relation.now);
        self.write_pages(path, now, pages, false);
    }

    /// Writes another version of a whole file beside it and renames it: empty, small, or several extents.
    fn replace(&mut self, path: &str) {
        let (filling, length) = (self.next_version() as u8, [0, 100, 70_000, 400_000][self.random.index(4)]);
        let length = length + self.random.index(1000);
        let versions = self.plain.entry(path.to_owned()).or_insert_with(|| Plain::Replaced(Vec::new()));
        if let Plain::Replaced(versions) = versions {
            versions.push((length, filling));
        }
        self.note_new(path);
        let aside = self.outside.join("aside");
        fs::write(&aside, vec![filling; length]).unwrap();
        fs::rename(aside, self.pgdata.join(path)).unwrap();
        self.touched.insert(path.to_owned());
    }

    /// A file that is made now was not there before.
    fn note_new(&mut self, path: &str) {
        if self.pgdata.join(path).symlink_metadata().is_err() {
            self.gone.insert(path.to_owned());
        }
    }

    fn append(&mut self, path: &str) {
        self.note_new(path);
        self.plain.entry(path.to_owned()).or_insert(Plain::Appended(0));
        let bytes = vec![b'a'; 1 + self.random.index(100_000)];
        let mut file = OpenOptions::new().append(true).create(true).open(self.pgdata.join(path)).unwrap();
        file.write_all(&bytes).unwrap();
        self.touched.insert(path.to_owned());
    }

    /// A random relation file that exists.
    fn any_relation(&mut self) -> Option<String> {
        let there: Vec<&str> =
            self.relations.keys().filter(|path| self.pgdata.join(path).exists()).map(String::as_str).collect();
        self.random.one_of(&there).map(str::to_owned)
    }

    fn remove_relation(&mut self, path: &str) {
        fs::remove_file(self.pgdata.join(path)).unwrap();
        self.gone.insert(path.to_owned());
        if let Some(relation) = self.relations.get_mut(path) {
            (relation.now, relation.least) = (0, 0);
        }
    }

    /// Removes a directory as PostgreSQL does: its files first.
    fn remove_directory(&mut self, path: &str) {
        let below = format!("{path}/");
        let inside: Vec<String> = self.relations.keys().filter(|name| name.starts_with(&below)).cloned().collect();
        for relation in inside {
            if self.pgdata.join(&relation).exists() {
                self.remove_relation(&relation);
            }
        }
        fs::remove_dir_all(self.pgdata.join(path)).unwrap();
        let names = self.directories.iter().chain(self.plain.keys());
        let inside = names.filter(|name| *name == path || name.starts_with(&below)).cloned();
        self.gone.extend(inside.collect::<Vec<_>>());
    }

    fn drop_database(&mut self) {
        let made: Vec<u32> =
            self.server.databases.lock().iter().map(|place| place.oid).filter(|oid| is_made(*oid)).collect();
        let Some(oid) = made.get(self.random.index(made.len())).copied() else { return };
        self.remove_directory(&format!("base/{oid}"));
        self.server.databases.lock().retain(|place| place.oid != oid);
    }

    fn drop_tablespace(&mut self) {
        let made: Vec<u32> = self.server.tablespaces.lock().keys().copied().filter(|oid| is_made(*oid)).collect();
        let Some(oid) = made.get(self.random.index(made.len())).copied() else { return };
        let link = format!("pg_tblspc/{oid}");
        self.remove_directory(&format!("{link}/{VERSION}"));
        fs::remove_file(self.pgdata.join(&link)).unwrap();
        self.gone.insert(link);
        self.server.tablespaces.lock().remove(&oid);
    }

    /// One change. While a volume is away, the server does nothing.
    pub(super) fn step(&mut self) {
        if self.away.is_some() {
            if self.random.below(4) == 0 {
                self.bring_back();
            }
            return;
        }
        if self.habits.volumes_go_away && self.random.below(50) == 0 {
            return self.take_away();
        }
        match self.random.below(22) {
            0..=12 => self.change_relation(),
            13..=18 => self.change_log(),
            19 => {
                let oid = self.next_oid();
                self.make_database(oid, DEFAULT_TABLESPACE);
            }
            20 if self.random.below(2) == 0 => self.drop_database(),
            20 => self.drop_tablespace(),
            _ => drop(self.make_tablespace()),
        }
    }

    fn change_relation(&mut self) {
        let Some(path) = self.any_relation() else { return };
        let pages = self.relations[&path].now;
        match self.random.below(13) {
            0..=4 => {
                let more = 1 + self.random.index(20);
                if pages < 200 {
                    self.extend(&path, more);
                }
            }
            5..=9 => {
                let from = self.random.index(pages);
                let count = (1 + self.random.index(8)).min(pages - from);
                let only_hints = !self.habits.checksums && self.random.below(3) == 0;
                if count > 0 {
                    self.write_pages(&path, from, count, only_hints);
                }
            }
            10 => {
                let left = self.random.index(pages);
                let Some(relation) = self.relations.get_mut(&path) else { return };
                (relation.now, relation.least) = (left, relation.least.min(left));
                self.touched.insert(path.clone());
                let file = OpenOptions::new().write(true).open(self.pgdata.join(path)).unwrap();
                file.set_len((left * PAGE_SIZE) as u64).unwrap();
            }
            11 => self.remove_relation(&path),
            _ => {
                let path = format!("base/5/{}", self.next_oid());
                self.make_relation(&path);
            }
        }
    }

    fn change_log(&mut self) {
        let log = format!("log/replaced-{}", self.random.index(4));
        match self.random.below(6) {
            0..=2 => self.replace(&log),
            3 => self.append(&format!("log/appended-{}", self.version % 4)),
            // A log is rotated: it gets another name, and for a time nothing has the old name.
            4 => {
                let (from, to) = (self.pgdata.join(&log), self.pgdata.join("log/replaced-0"));
                if log == "log/replaced-0" || !from.is_file() {
                    return;
                }
                self.gone.insert(log.clone());
                self.touched.insert("log/replaced-0".to_owned());
                let moved = match self.plain.get(&log) {
                    Some(Plain::Replaced(versions)) => versions.clone(),
                    _ => return,
                };
                let known = self.plain.entry("log/replaced-0".to_owned()).or_insert(Plain::Replaced(Vec::new()));
                if let Plain::Replaced(versions) = known {
                    versions.extend(moved);
                }
                fs::rename(from, to).unwrap();
            }
            _ => {
                let path = self.pgdata.join(&log);
                let place = PathBuf::from("/nowhere/at/all");
                self.gone.insert(log.clone());
                self.links.entry(log).or_default().insert(place.clone());
                if path.symlink_metadata().is_ok() {
                    fs::remove_file(&path).unwrap();
                }
                symlink(place, path).unwrap();
            }
        }
    }

    /// Takes a directory or a link away. A volume that is unmounted leaves an empty directory, where somebody would
    /// mount one: nobody knows whether a directory of a database in a tablespace should be empty.
    fn take_away(&mut self) {
        let databases = self.directories.iter().filter(|path| path.starts_with("base/"));
        let in_tablespaces = self.directories.iter().filter(|path| path.starts_with("pg_tblspc/"));
        let links = self.links.keys().filter(|path| path.starts_with("pg_tblspc/"));
        let volumes = ["base", "global", "pg_xact", "pg_multixact/members"].map(str::to_owned);
        let volumes = volumes.iter().chain(databases).map(|path| self.pgdata.join(path));
        let locations = links.clone().filter_map(|path| fs::read_link(self.pgdata.join(path)).ok());
        let others = in_tablespaces.chain(links).map(|path| self.pgdata.join(path));
        let all = volumes.chain(locations).map(|path| (path, true)).chain(others.map(|path| (path, false)));
        let all: Vec<(PathBuf, bool)> = all.filter(|(path, _)| path.is_dir()).collect();
        let (chosen, is_volume) = all[self.random.index(all.len())].clone();
        let aside = self.outside.join("away");
        fs::rename(&chosen, &aside).unwrap();
        if is_volume && self.random.below(2) == 0 {
            fs::create_dir(&chosen).unwrap();
        }
        self.away = Some((chosen, aside));
        self.times_away += 1;
    }

    /// Brings the volume back that is away.
    pub(super) fn bring_back(&mut self) {
        if let Some((place, aside)) = self.away.take() {
            // A rename replaces an empty directory.
            fs::rename(aside, place).unwrap();
        }
    }
}

/// Whether this OID is of a database or tablespace that may be dropped: the first ones stay.
fn is_made(oid: u32) -> bool {
    oid > LAST_OF_START && oid < OF_TABLESPACE
}
