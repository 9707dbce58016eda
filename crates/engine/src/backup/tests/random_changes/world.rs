//! Random changes of a synthetic data directory during a backup, for hundreds of seeds: every complete backup can be
//! restored, and WAL replay can repair the restored copy.
//!
//! A second thread makes changes as a server and its users do. Every page of a relation contains its file, block and
//! version. Every plain file has only one version. So each byte of the restored copy can be checked: untouched files
//! are the same to the last byte, pages have a version that was written, plain files are whole, and no file is missing
//! that was there all the time. The seed decides the steps; the machine decides how many of them happen before the
//! backup ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_pgtypes::checksum::{PAGE_SIZE, page_checksum};
use holdfast_pgtypes::page::verify_page;
use holdfast_testkit::random::{Random, number_in, seed_of_environment};

use super::{Bench, CONTROL, Complete, space_beside};
use crate::error::{Cause, Error};

/// The number of seeds, unless `HOLDFAST_TEST_SEEDS` is set.
const SEEDS: u64 = 300;

/// The directory of the version in each tablespace.
const VERSION: &str = "PG_18_202506291";

/// The number of blocks in a segment file, as in the control file.
const SEGMENT_PAGES: u32 = 131_072;

/// What is known of one relation file.
#[derive(Debug, Clone, Default)]
struct Relation {
    number: u16,
    first_block: u32,
    /// All versions that each page ever had. Pages after these were never written.
    pages: Vec<BTreeSet<u32>>,
    /// The number of pages now, and the smallest and the largest number since the backup began.
    now: usize,
    least: usize,
    most: usize,
}

/// What is known of one file that is not a relation.
#[derive(Debug, Clone)]
enum Plain {
    /// A file that only grows: its length at the beginning.
    Appended(usize),
    /// A file that is replaced by renaming others over it: the length and the fill byte of each version.
    Replaced(Vec<(usize, u8)>),
}

/// The data directory, and everything that ever was in it.
struct World {
    pgdata: PathBuf,
    outside: PathBuf,
    random: Random,
    relations: BTreeMap<String, Relation>,
    plain: BTreeMap<String, Plain>,
    /// Directories that were made, and links with their targets.
    directories: BTreeSet<String>,
    links: BTreeMap<String, BTreeSet<PathBuf>>,
    /// Paths that did not exist at some time since the backup began, and paths that were changed since then.
    gone: BTreeSet<String>,
    touched: BTreeSet<String>,
    version: u32,
    number: u16,
}

/// Eight bytes that contain their file, version and block, so that they cannot be confused with others.
fn word(relation: u16, version: u32, block: u32) -> u64 {
    u64::from(version & 0xff_ffff) << 40 | u64::from(relation) << 24 | u64::from(block & 0xff_ffff)
}

/// A page as PostgreSQL lays it out, with its checksum.
fn page(relation: u16, version: u32, block: u32) -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
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
fn restored(copy: &Path, path: &str) -> PathBuf {
    let space = path.strip_prefix("pg_tblspc/").and_then(|rest| rest.split_once('/'));
    match space.and_then(|(oid, rest)| Some((oid.parse().ok()?, rest))) {
        Some((oid, rest)) => space_beside(copy, oid).join(rest),
        None => copy.join(path),
    }
}

impl World {
    fn new(folder: &Path, seed: u64) -> Self {
        let mut world = Self {
            pgdata: folder.join("data"),
            outside: folder.join("outside"),
            random: Random::of_seed(seed),
            relations: BTreeMap::new(),
            plain: BTreeMap::new(),
            directories: BTreeSet::new(),
            links: BTreeMap::new(),
            gone: BTreeSet::new(),
            touched: BTreeSet::new(),
            version: 1,
            number: 0,
        };
        for path in ["", "base", "global", "pg_wal", "pg_tblspc", "log"] {
            world.make_directory(path);
        }
        fs::create_dir(&world.outside).unwrap();
        fs::write(world.pgdata.join("global/pg_control"), CONTROL).unwrap();
        for database in ["1", "5", "16384"] {
            world.make_database(&format!("base/{database}"));
        }
        world.make_tablespace(16400);
        world.make_tablespace(16401);
        for number in 0..4 {
            world.replace(&format!("log/replaced-{number}"));
            world.append(&format!("log/appended-{number}"));
        }
        world.replace("postgresql.conf");
        // The backup begins after this state.
        for relation in world.relations.values_mut() {
            (relation.least, relation.most) = (relation.now, relation.now);
            relation.pages.truncate(relation.now);
        }
        for (path, plain) in &mut world.plain {
            match plain {
                Plain::Appended(length) => *length = fs::metadata(world.pgdata.join(path)).unwrap().len() as usize,
                Plain::Replaced(versions) => drop(versions.drain(..versions.len() - 1)),
            }
        }
        world.gone.clear();
        world.touched.clear();
        world
    }

    fn next_version(&mut self) -> u32 {
        self.version += 1;
        self.version
    }

    fn make_directory(&mut self, path: &str) {
        fs::create_dir_all(self.pgdata.join(path)).unwrap();
        self.directories.insert(path.to_owned());
        self.gone.insert(path.to_owned());
    }

    fn make_database(&mut self, path: &str) {
        self.make_directory(path);
        for name in ["1259", "1259_fsm", "1259_vm", "1260", "1260.1", "1261_init"] {
            self.make_relation(&format!("{path}/{name}"));
        }
    }

    fn make_tablespace(&mut self, oid: u32) {
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
    }

    /// A new file of a relation with 1 to 40 pages: small enough for a group of small files, or several extents.
    fn make_relation(&mut self, path: &str) {
        File::create(self.pgdata.join(path)).unwrap();
        self.gone.insert(path.to_owned());
        self.touched.insert(path.to_owned());
        let first_block = if path.ends_with(".1") { SEGMENT_PAGES } else { 0 };
        let known = self.relations.entry(path.to_owned()).or_default();
        if known.number == 0 {
            self.number += 1;
            (known.number, known.first_block) = (self.number, first_block);
        }
        (known.now, known.least) = (0, 0);
        let pages = 1 + self.random.index(40);
        self.extend(path, pages);
    }

    fn write_pages(&mut self, path: &str, from: usize, count: usize) {
        let version = self.next_version();
        let Some(relation) = self.relations.get_mut(path) else { return };
        let mut bytes = Vec::with_capacity(count * PAGE_SIZE);
        for index in from..from + count {
            bytes.extend_from_slice(&page(relation.number, version, relation.first_block + index as u32));
            if relation.pages.len() <= index {
                relation.pages.resize_with(index + 1, BTreeSet::new);
            }
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
        self.write_pages(path, now, pages);
    }

    /// Writes another version of a whole file beside it and renames it: empty, small, or several extents.
    fn replace(&mut self, path: &str) {
        let (filling, length) = (self.next_version() as u8, [0, 100, 70_000, 400_000][self.random.index(4)]);
        let length = length + self.random.index(1000);
        let versions = self.plain.entry(path.to_owned()).or_insert_with(|| Plain::Replaced(Vec::new()));
        if let Plain::Replaced(versions) = versions {
            versions.push((length, filling));
        }
        let aside = self.outside.join("aside");
        fs::write(&aside, vec![filling; length]).unwrap();
        fs::rename(aside, self.pgdata.join(path)).unwrap();
        self.touched.insert(path.to_owned());
    }

    fn append(&mut self, path: &str) {
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
        let inside: Vec<String> = self.relations.keys().filter(|name| name.starts_with(path)).cloned().collect();
        for relation in inside {
            if self.pgdata.join(&relation).exists() {
                self.remove_relation(&relation);
            }
        }
        fs::remove_dir_all(self.pgdata.join(path)).unwrap();
        let below = self.directories.iter().filter(|name| name.starts_with(path)).cloned();
        self.gone.extend(below.collect::<Vec<_>>());
    }

    fn step(&mut self) {
        let log = format!("log/replaced-{}", self.random.index(4));
        match self.random.below(20) {
            0..=4 => {
                let pages = 1 + self.random.index(20);
                if let Some(path) = self.any_relation().filter(|path| self.relations[path].now < 200) {
                    self.extend(&path, pages);
                }
            }
            5..=8 => {
                let Some(path) = self.any_relation() else { return };
                let pages = self.relations[&path].now;
                let from = self.random.index(pages);
                let count = (1 + self.random.index(8)).min(pages - from);
                if count > 0 {
                    self.write_pages(&path, from, count);
                }
            }
            9 => {
                let Some(path) = self.any_relation() else { return };
                let left = self.random.index(self.relations[&path].now);
                let Some(relation) = self.relations.get_mut(&path) else { return };
                (relation.now, relation.least) = (left, relation.least.min(left));
                self.touched.insert(path.clone());
                let file = OpenOptions::new().write(true).open(self.pgdata.join(path)).unwrap();
                file.set_len((left * PAGE_SIZE) as u64).unwrap();
            }
            10 => {
                if let Some(path) = self.any_relation() {
                    self.remove_relation(&path);
                }
            }
            11 => {
                let path = format!("base/5/{}", 20_000 + self.random.below(5));
                self.make_relation(&path);
            }
            12..=14 => self.replace(&log),
            15 => self.append(&format!("log/appended-{}", self.version % 4)),
            // A log is rotated: it gets another name, and for a time nothing has the old name.
            16 => {
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
                if let Some(Plain::Replaced(versions)) = self.plain.get_mut("log/replaced-0") {
                    versions.extend(moved);
                }
                fs::rename(from, to).unwrap();
            }
            17 => {
                let path = self.pgdata.join(&log);
                let place = PathBuf::from("/nowhere/at/all");
                self.gone.insert(log.clone());
                self.links.entry(log).or_default().insert(place.clone());
                if path.symlink_metadata().is_ok() {
                    fs::remove_file(&path).unwrap();
                }
                symlink(place, path).unwrap();
            }
            18 => {
                let path = format!("base/{}", 20_000 + self.random.below(2));
                if self.pgdata.join(&path).exists() { self.remove_directory(&path) } else { self.make_database(&path) }
            }
            _ => {
                let oid = 16_401 + self.random.below(2) as u32;
                let link = format!("pg_tblspc/{oid}");
                if self.pgdata.join(&link).exists() {
                    self.remove_directory(&format!("{link}/{VERSION}"));
                    fs::remove_file(self.pgdata.join(&link)).unwrap();
                    self.gone.insert(link);
                } else {
                    self.make_tablespace(oid);
                }
            }
        }
    }

    /// Checks the restored copy.
    fn judge(&self, copy: &Path, complete: &Complete, checks: bool) -> Result<(), String> {
        for path in self.directories.iter().filter(|path| !self.gone.contains(*path)) {
            if !restored(copy, path).is_dir() {
                return Err(format!("the directory {path} is missing"));
            }
        }
        let sound = checks && complete.record.checksum_failures.count == 0;
        for (path, relation) in &self.relations {
            self.judge_relation(copy, path, relation, sound).map_err(|e| format!("{path}: {e}"))?;
        }
        for (path, plain) in &self.plain {
            self.judge_plain(copy, path, plain).map_err(|e| format!("{path}: {e}"))?;
        }
        Ok(())
    }

    fn judge_relation(&self, copy: &Path, path: &str, relation: &Relation, sound: bool) -> Result<(), String> {
        let place = restored(copy, path);
        let Ok(found) = fs::read(&place) else {
            return if self.gone.contains(path) { Ok(()) } else { Err("it is missing".to_owned()) };
        };
        if !self.touched.contains(path) {
            let same = fs::read(self.pgdata.join(path)).is_ok_and(|is| is == found);
            return if same || self.gone.contains(path) { Ok(()) } else { Err("it changed by itself".to_owned()) };
        }
        let (least, most) = (relation.least * PAGE_SIZE, relation.most * PAGE_SIZE);
        if found.len() < least || found.len() > most {
            return Err(format!("{} bytes, there were {least} to {most}", found.len()));
        }
        for (index, bytes) in found.chunks(PAGE_SIZE).enumerate() {
            let block = relation.first_block + index as u32;
            let versions = &relation.pages[index];
            let words = bytes.as_chunks::<8>().0.iter().skip(3).map(|bytes| u64::from_le_bytes(*bytes));
            // A page is zero before it is written, and after its file was shortened and extended.
            let strange = words.filter(|found| *found != 0).find(|found| {
                let version = (found >> 40) as u32;
                *found != word(relation.number, version, block) || !versions.contains(&version)
            });
            if let Some(strange) = strange {
                return Err(format!("block {block} has {strange:016x} and should be of {versions:?}"));
            }
            if let (true, Ok(page)) = (sound, bytes.try_into())
                && !verify_page(page, block).is_good()
            {
                return Err(format!("block {block} has a wrong checksum that nobody noticed"));
            }
        }
        Ok(())
    }

    fn judge_plain(&self, copy: &Path, path: &str, plain: &Plain) -> Result<(), String> {
        let place = copy.join(path);
        if let Ok(target) = fs::read_link(&place) {
            let known = self.links.get(path).is_some_and(|targets| targets.contains(&target));
            return if known { Ok(()) } else { Err(format!("a link to {}", target.display())) };
        }
        let Ok(found) = fs::read(&place) else {
            return if self.gone.contains(path) { Ok(()) } else { Err("it is missing".to_owned()) };
        };
        match plain {
            Plain::Appended(length) => {
                let is = fs::read(self.pgdata.join(path)).map_err(|e| e.to_string())?;
                let prefix = found.len() >= *length && is.starts_with(&found);
                let changed = self.touched.contains(path) || found == is;
                if prefix && changed { Ok(()) } else { Err(format!("it never had these {} bytes", found.len())) }
            }
            Plain::Replaced(versions) => {
                let known = |(length, filling): &(usize, u8)| {
                    found.len() == *length && found.iter().all(|byte| byte == filling)
                };
                let fillings: BTreeSet<u8> = found.iter().copied().collect();
                if versions.iter().any(known) {
                    return Ok(());
                }
                Err(format!("{} bytes filled with {fillings:?} are none of {versions:?}", found.len()))
            }
        }
    }
}

/// The only error that is allowed: files are replaced faster than they can be opened.
fn is_allowed(error: &Error) -> bool {
    matches!(&*error.what, Cause::Refused(reason) if reason.contains("is replaced by another file again and again"))
}

/// A folder in memory if possible: hundreds of restores would wait for the disk.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Runs one seed. Returns whether the backup was complete.
async fn changes(seed: u64) -> bool {
    let folder = folder();
    let mut world = World::new(folder.path(), seed);
    let checks = seed.is_multiple_of(2);
    let (bench, pgdata) = (Bench::new().await, world.pgdata.clone());
    let ended = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&ended);
    let changing = std::thread::spawn(move || {
        while !until.load(Ordering::Acquire) {
            world.step();
            // A server also does other things.
            let pause = world.random.below(300);
            std::thread::sleep(Duration::from_micros(pause));
        }
        world
    });
    let backup = bench.backup(&pgdata, checks).await;
    ended.store(true, Ordering::Release);
    let world = changing.join().unwrap();
    let complete = match backup {
        Ok(complete) => complete,
        Err(error) if is_allowed(&error) => return false,
        Err(error) => panic!("seed {seed}: {error} ({:?})", error.doing),
    };
    let copy = folder.path().join("restored");
    if let Err(error) = bench.restore(&complete, &copy).await {
        panic!("seed {seed}: a complete backup cannot be restored: {error} ({:?})", error.doing);
    }
    world.judge(&copy, &complete, checks).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    true
}

/// The seeds from 1 to `HOLDFAST_TEST_SEEDS`, or the one that `HOLDFAST_TEST_SEED` names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_seeds() {
    let seeds = match seed_of_environment() {
        Some(seed) => seed..=seed,
        None => 1..=number_in("HOLDFAST_TEST_SEEDS").unwrap_or(SEEDS),
    };
    let (mut complete, mut refused) = (0, 0);
    for seed in seeds {
        if changes(seed).await { complete += 1 } else { refused += 1 }
    }
    eprintln!("{complete} complete, {refused} refused");
    assert!(complete > 9 * refused);
}
