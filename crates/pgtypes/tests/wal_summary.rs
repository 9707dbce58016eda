//! WAL summary files that PostgreSQL 17.10 and 18.6 wrote, compared with the output of `pg_walsummary` of 18.6; damage
//! of every kind; and decisions about files of a data directory.
//!
//! How the samples were made: `initdb -k`, then `summarize_wal = on`, `autovacuum = off`. With a checkpoint between
//! them:
//!
//! 1. tables of some thousand rows: `kept` (with an index), `cut`, `gone`, `full_of`, and an unlogged one;
//! 2. `018C4EC8` of 18 and `018ED720` of 17: VACUUM of `kept`, scattered deletes in it, delete and VACUUM that truncate
//!    `cut` to 30 blocks, then inserts that extend it again; DROP TABLE, TRUNCATE, a new unlogged table, a table in a
//!    new tablespace;
//! 3. `01A9C508`: CREATE DATABASE with STRATEGY file_copy, which has a checkpoint of its own at its beginning and end;
//! 4. `0B000028`: a table of 100 blocks is truncated to 3 by VACUUM, and COPY extends it to 38, of which only 25 are
//!    used;
//! 5. `0C0F5C20`: nothing;
//! 6. `0E5E0DB0`: updates of almost every block of a table of 6000 blocks (a bitmap), and of five blocks of another.
//!
//! All summaries of both servers, 44 files with 16,000 blocks, were also compared with `pg_wal_summary_contents`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use holdfast_pgtypes::PgVersion;
use holdfast_pgtypes::changes::{ChangedBlocks, DataFile, FileBlocks, FileChanges, WholeReason};
use holdfast_pgtypes::relation::Fork;
use holdfast_pgtypes::wal_summary::{RelationFork, WalSummaryError, WalSummaryName, WalSummaryReader};
use holdfast_testkit::random::Random;
use proptest::prelude::*;

const SEGMENT: u32 = 131_072;

/// For every sample its name, its bytes, and the output of `pg_walsummary`.
fn samples() -> Vec<(String, Vec<u8>, String)> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut samples = Vec::new();
    for directory in ["summaries.17", "summaries.18"] {
        for entry in std::fs::read_dir(fixtures.join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "summary") {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                let text = std::fs::read_to_string(path.with_extension("txt")).unwrap();
                samples.push((name, std::fs::read(&path).unwrap(), text));
            }
        }
    }
    assert_eq!(samples.len(), 6);
    samples
}

fn sample(start: &str) -> Vec<u8> {
    samples().into_iter().find(|(name, ..)| name.contains(start)).unwrap().1
}

/// Reads a file to its end and prints it as `pg_walsummary` does.
fn print(source: impl Read) -> Result<String, WalSummaryError> {
    let mut reader = WalSummaryReader::new(source)?;
    let mut lines = Vec::new();
    while let Some(summary) = reader.next_fork()? {
        let RelationFork { tablespace, database, number, fork } = summary.fork;
        let fork = match fork {
            Fork::Main => "main",
            Fork::FreeSpaceMap => "fsm",
            Fork::VisibilityMap => "vm",
            Fork::Init => "init",
        };
        let head = format!("TS {tablespace}, DB {database}, REL {number}, FORK {fork}:");
        if let Some(limit) = summary.limit_block {
            lines.push(format!("{head} limit {limit}\n"));
        }
        let mut ranges: Vec<Range<u32>> = Vec::new();
        while let Some((chunk, blocks)) = reader.next_chunk()? {
            for block in blocks.offsets().into_iter().map(|offset| u32::from(chunk) * 65_536 + u32::from(offset)) {
                match ranges.last_mut().filter(|last| last.end == block) {
                    Some(last) => last.end += 1,
                    None => ranges.push(block..block + 1),
                }
            }
        }
        for Range { start, end } in ranges {
            lines.push(if end - start == 1 {
                format!("{head} block {start}\n")
            } else {
                format!("{head} blocks {start}..{}\n", end - 1)
            });
        }
    }
    Ok(lines.concat())
}

#[test]
fn samples_say_what_pg_walsummary_says() {
    for (name, bytes, expected) in samples() {
        assert_eq!(print(bytes.as_slice()).unwrap(), expected, "{name}");
        assert!(name.parse::<WalSummaryName>().is_ok(), "{name}");
    }
}

/// A source that gives one byte at a time, after an interruption.
struct Slow<'a>(&'a [u8], bool);

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let length = into.len().min(1);
        self.0.read(into.get_mut(..length).unwrap())
    }
}

#[test]
fn short_reads_are_continued() {
    let bytes = sample("0E5E0DB0");
    assert_eq!(print(Slow(&bytes, false)).unwrap(), print(bytes.as_slice()).unwrap());
}

#[test]
fn a_file_that_ends_early_is_truncated() {
    for (name, bytes, _) in samples() {
        for length in (0..bytes.len()).filter(|length| *length < 2000 || length % 97 == 0) {
            let error = print(bytes.get(..length).unwrap()).unwrap_err();
            assert!(matches!(error, WalSummaryError::Truncated { length: l } if l == length as u64), "{name}: {error}");
        }
    }
}

#[test]
fn every_changed_bit_is_an_error() {
    for (name, bytes, _) in samples() {
        for bit in (0..bytes.len() * 8).filter(|bit| *bit < 16_000 || bit % 101 == 0) {
            let mut damaged = bytes.clone();
            *damaged.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
            assert!(print(damaged.as_slice()).is_err(), "{name}: bit {bit}");
        }
    }
}

/// A file of these 32-bit numbers, with the magic number before them, the sentinel after them, and a right CRC.
fn file(entries: &[u32]) -> Vec<u8> {
    let numbers = [0x652B_137B].iter().chain(entries).chain(&[0; 6]);
    seal(numbers.flat_map(|number| number.to_le_bytes()).collect())
}

fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn error(bytes: &[u8]) -> String {
    print(bytes).unwrap_err().to_string()
}

const NONE: u32 = u32::MAX;

#[test]
fn each_kind_of_damage_has_its_error() {
    let relation = [1663, 5, 16_384, 0, NONE, 0];
    assert_eq!(print(file(&relation).as_slice()).unwrap(), "");
    assert_eq!(print(file(&[]).as_slice()).unwrap(), "");
    assert_eq!(error(b"PK\x03\x04"), "WAL summary has magic number 04034B50 instead of 652B137B");
    assert_eq!(error(b"{\x13"), "WAL summary ends early, after 2 bytes");
    assert_eq!(
        error(&file(&[1663, 5, 16_384, 4, NONE, 0])),
        "WAL summary names fork 4 of relation 1663/5/16384, which does not exist"
    );
    assert_eq!(
        error(&file(&[1663, 5, 16_384, NONE, NONE, 0])),
        "WAL summary names fork 4294967295 of relation 1663/5/16384, which does not exist"
    );
    for second in [relation, [1663, 5, 16_383, 0, NONE, 0], [1663, 4, 20_000, 0, NONE, 0], [1662, 9, 9, 1, NONE, 0]] {
        let error = error(&file(&[relation, second].concat()));
        assert!(error.starts_with("WAL summary has RelationFork {"), "{error}");
        assert!(error.ends_with(", out of order"), "{error}");
    }
    assert!(print(file(&[relation, [1663, 5, 16_384, 2, 7, 0]].concat()).as_slice()).is_ok());
    assert_eq!(
        error(&file(&[1663, 5, 16_384, 0, NONE, 65_537])),
        "WAL summary has 65537 chunks for RelationFork { tablespace: 1663, database: 5, number: 16384, fork: Main }: at \
         most 65536 are possible"
    );
    // A forged number of chunks needs no memory before the bytes are there.
    assert_eq!(error(&file(&[1663, 5, 16_384, 0, NONE, 65_536])), "WAL summary ends early, after 56 bytes");
    assert_eq!(
        error(&file(&[1663, 5, 16_384, 0, NONE, 2, 4097 << 16])),
        "WAL summary has a chunk of 4097 words for RelationFork { tablespace: 1663, database: 5, number: 16384, fork: \
         Main }: at most 4096 are possible"
    );
    // The last chunk that can exist, with `InvalidBlockNumber`.
    let mut last = vec![1663, 5, 16_384, 0, NONE, 65_536];
    last.extend(std::iter::repeat_n(0, 32_767));
    last.extend([1 << 16, 0xFFFF]);
    let mut bytes: Vec<u8> = std::iter::once(0x652B_137B_u32).chain(last).flat_map(u32::to_le_bytes).collect();
    assert!(error(&bytes).starts_with("WAL summary names block 4294967295 of RelationFork"));
    *bytes.iter_mut().nth_back(3).unwrap() = 0xFE;
    bytes.truncate(bytes.len() - 2);
    bytes.extend([0; 24]);
    assert_eq!(print(seal(bytes).as_slice()).unwrap(), "TS 1663, DB 5, REL 16384, FORK main: block 4294967294\n");

    let mut wrong = file(&relation);
    *wrong.last_mut().unwrap() ^= 0xFF;
    assert!(
        matches!(print(wrong.as_slice()), Err(WalSummaryError::Crc { found, computed }) if found ^ computed == 0xFF00_0000)
    );
    let mut longer = file(&relation);
    longer.push(0);
    assert_eq!(error(&longer), "WAL summary has bytes after its CRC, at byte 56");
}

#[test]
fn an_error_of_the_source_is_kept() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("disk"))
        }
    }
    let error = print(sample("0C0F5C20").get(..8).unwrap().chain(Broken)).unwrap_err();
    assert_eq!(error.to_string(), "read the WAL summary");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "disk");
}

/// Some bytes of a sample are replaced, removed or repeated, and the CRC is corrected, so that only the checks of the
/// structure can find it. Nothing panics, and the result stays within its limits.
#[test]
fn sealed_mutations_never_panic() {
    let samples = samples();
    let mut accepted = 0;
    for seed in 0..6000 {
        let mut random = Random::of_seed(seed);
        let (_, bytes, _) = samples.get(random.index(samples.len())).unwrap();
        let mut bytes = bytes.get(..bytes.len() - 4).unwrap().to_vec();
        for _ in 0..=random.below(4) {
            let at = 4 + random.index(bytes.len() - 4);
            let byte = [0, 1, 3, 0x10, 0xFF, 0x80, random.word() as u8];
            match random.below(4) {
                0 | 1 => *bytes.get_mut(at).unwrap() = *byte.get(random.index(byte.len())).unwrap(),
                2 => {
                    bytes.remove(at);
                }
                _ => bytes.insert(at, *byte.get(random.index(byte.len())).unwrap()),
            }
        }
        let bytes = seal(bytes);
        if let Ok(changes) = ChangedBlocks::new().with_summary(bytes.as_slice()) {
            accepted += 1;
            assert!(changes.bytes() < 1 << 20, "seed {seed}");
            for (fork, of) in changes.forks() {
                assert!(of.limit_block().is_none_or(|limit| !of.blocks().contains(limit)), "seed {seed}: {fork:?}");
            }
        }
    }
    assert!(accepted > 100, "{accepted}: the mutations should reach the end of the file too");
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes: Vec<u8>, entries in proptest::collection::vec(any::<u32>(), 0..40)) {
        let _ = print(bytes.as_slice());
        let _ = print(file(&entries).as_slice());
    }
}

fn main_fork(database: u32, number: u32) -> RelationFork {
    RelationFork { tablespace: 1663, database, number, fork: Fork::Main }
}

#[test]
fn samples_merge_in_any_order() {
    let merge = |order: &[&str]| {
        let mut changes = ChangedBlocks::new();
        for start in order {
            changes = changes.with_summary(sample(start).as_slice()).unwrap();
        }
        changes
    };
    let changes = merge(&["018C4EC8", "01A9C508", "0B000028", "0C0F5C20", "0E5E0DB0"]);
    assert_eq!(changes, merge(&["0E5E0DB0", "0B000028", "018C4EC8", "0C0F5C20", "01A9C508"]));
    assert_eq!(changes, merge(&["0E5E0DB0", "0B000028", "018C4EC8", "018C4EC8", "01A9C508"]));
    assert!(changes.database_recreated(1663, 16_425));
    assert!(!changes.database_recreated(1663, 5));
    assert!(changes.bytes() < 20_000, "{}", changes.bytes());
}

#[test]
fn samples_decide_about_files() {
    let mut changes = ChangedBlocks::new();
    for start in ["018C4EC8", "01A9C508", "0B000028", "0E5E0DB0"] {
        changes = changes.with_summary(sample(start).as_slice()).unwrap();
    }
    let decide = |path: &str, blocks: u64, parent_blocks: u64| {
        let file = DataFile { path: path.as_bytes(), size: blocks * 8192, parent_size: Some(parent_blocks * 8192) };
        changes.of_file(file, PgVersion::V18, SEGMENT)
    };
    // Truncated to 3 blocks by VACUUM, then extended to 38 by COPY: the WAL names 0 to 24, and the rest is zero.
    assert_eq!(changes.get(main_fork(5, 16_451)).unwrap().limit_block(), Some(3));
    let all = FileBlocks { length: 38, read: std::iter::once(0..38).collect() };
    assert_eq!(decide("base/5/16451", 38, 100), FileChanges::Blocks(all));
    // A database that was copied file by file.
    assert_eq!(decide("base/16425/1259", 14, 14), FileChanges::Whole(WholeReason::DatabaseRecreated));
    // Updated almost everywhere, and grown before: the parent has all its blocks.
    let FileChanges::Blocks(wide) = decide("base/5/16456", 6600, 6600) else {
        unreachable!("blocks of a table that was updated");
    };
    assert!(wide.blocks_to_read() >= 5999 && wide.blocks_to_read() < 6600, "{}", wide.blocks_to_read());
    assert_eq!(decide("base/4/1259", 14, 14), FileChanges::Unchanged);
    assert_eq!(decide("base/5/16456_vm", 1, 1), FileChanges::Whole(WholeReason::VisibilityMap));
}
