//! A manifest of 1 million files and 10 TB is written, read and held in memory within 512 MiB.
//!
//! It is alone in its binary, because the peak of resident memory belongs to the process.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use holdfast_repo::manifest::{EXTENT_BYTES, Extents};
use holdfast_repo::{
    ChunkHash, Extent, FileEntry, FileKind, ManifestHeader, ManifestReader, ManifestWriter, PackEntry, RepositoryId,
    RepositoryKey,
};
use holdfast_testkit::random::Random;

const FILES: u32 = 1_000_000;
const EXTENTS_PER_FILE: u32 = 10;
const MIB: u64 = 1 << 20;

/// `VmRSS` and `VmHWM` of this process in bytes.
fn resident_bytes() -> BTreeMap<String, u64> {
    std::fs::read_to_string("/proc/self/status")
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter_map(|(field, value)| {
            Some((field.to_owned(), value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024))
        })
        .collect()
}

/// A value that compresses as badly as a hash and is cheap to make.
fn hash_of(number: u64) -> ChunkHash {
    let mut bytes = [0; 32];
    let mut random = Random::of_seed(number);
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&random.word().to_le_bytes());
    }
    ChunkHash::from_bytes(bytes)
}

fn fill_extents(file: u32, extents: &mut Vec<Extent>) {
    extents.clear();
    for index in 0..EXTENTS_PER_FILE {
        let number = u64::from(file) * u64::from(EXTENTS_PER_FILE) + u64::from(index);
        extents.push(Extent {
            hash: hash_of(number),
            pack: (number / 2000) as u32,
            frame_offset: (number % 2000) as u32 * 400_000 + 92,
            frame_length: 400_000,
            offset: 0,
            length: EXTENT_BYTES,
        });
    }
}

#[test]
fn a_million_files_and_ten_terabytes() {
    let before = resident_bytes()["VmRSS"];
    let (repository, key) = (RepositoryId::from_bytes([1; 16]), RepositoryKey::from_bytes([2; 32]));
    let name = "main/backups/20260822T101500Z/manifest";
    let header = ManifestHeader {
        backup: "20260822T101500Z".to_owned(),
        cluster: "main".to_owned(),
        extent_bytes: EXTENT_BYTES,
        details: serde_json::Map::new(),
    };
    let packs: Vec<PackEntry> = (0..FILES * EXTENTS_PER_FILE / 2000)
        .map(|number| PackEntry::new(format!("main/packs/20260822T101500Z/{number:06}.pack"), 900_000_000))
        .collect();

    let (mut writer, start) = ManifestWriter::new(name, repository, Some(&key), &header).unwrap();
    let mut reader = ManifestReader::new(name, repository, Some(&key));
    reader.feed(&start).unwrap();
    let mut object_bytes = start.len();
    let mut extents = Vec::new();
    for number in 0..FILES {
        fill_extents(number, &mut extents);
        let path = format!("pg_tblspc/16384/PG_18_202506291/{}/{number}_vm", number / 1000);
        let entry = FileEntry {
            path: path.as_bytes(),
            kind: FileKind::file(number, &extents),
            mode: 0o600,
            size_bytes: u64::from(EXTENTS_PER_FILE) * u64::from(EXTENT_BYTES),
            mtime_seconds: 1_787_393_700,
        };
        if let Some(frame) = writer.push(&entry).unwrap() {
            object_bytes += frame.len();
            reader.feed(&frame).unwrap();
        }
    }
    let last = writer.finish(&packs).unwrap();
    object_bytes += last.len();
    reader.feed(&last).unwrap();
    let manifest = reader.finish().unwrap();

    assert_eq!(manifest.len(), FILES as usize);
    assert_eq!(manifest.extent_count(), 10_000_000);
    assert_eq!(manifest.total_bytes(), 10_000_000 << 20);
    for number in (0..FILES).step_by(99_991) {
        fill_extents(number, &mut extents);
        let file = manifest.file(number as usize).unwrap();
        assert_eq!(file.extents(), Extents::of(&extents));
        assert!(file.path.ends_with(format!("/{number}_vm").as_bytes()));
    }

    let growth = resident_bytes()["VmHWM"] - before;
    eprintln!("{} MiB resident for a manifest of {} MiB", growth >> 20, object_bytes >> 20);
    assert!(growth < 512 * MIB, "{} MiB resident", growth >> 20);
}
