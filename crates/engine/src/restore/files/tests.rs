#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use std::os::unix::fs::MetadataExt;

use holdfast_repo::ChunkHash;
use holdfast_repo::frame::FrameLocation;
use holdfast_repo::manifest::{Extent, FileKind, ManifestHeader, PackEntry};

use super::*;

const EXTENT: u32 = 32 << 10;

/// Files of two extents each in an empty directory.
fn files(directory: &Path, count: u32) -> Files {
    let header = ManifestHeader {
        backup: "20260822T101500Z".to_owned(),
        cluster: "main".to_owned(),
        extent_bytes: EXTENT,
        details: serde_json::Map::new(),
    };
    let mut manifest = Manifest::new(header);
    let location = FrameLocation { offset: 100, length: 100 };
    let extent = |length| Extent::stored(ChunkHash::of(b""), 0, location, 0, length);
    for number in 0..count {
        let path = format!("f{number}");
        let extents = [extent(EXTENT), extent(10)];
        let entry = FileEntry {
            path: path.as_bytes(),
            kind: FileKind::file(0, &extents),
            // A forged set-user-ID or set-group-ID bit is not restored.
            mode: 0o6640,
            size_bytes: u64::from(EXTENT) + 10,
            mtime_seconds: 1_700_000_000,
        };
        manifest.push(&entry).unwrap();
    }
    manifest.set_packs(vec![PackEntry::new("p".to_owned(), 1 << 20)]).unwrap();
    let layout = Layout::new(directory, &[], &[]).unwrap();
    Files::new(Arc::new(manifest), Arc::new(layout))
}

fn piece(file: u32, extent: u64) -> Piece {
    Piece {
        file,
        file_offset: extent * u64::from(EXTENT),
        offset: 0,
        length: if extent == 0 { EXTENT } else { 10 },
        hash: ChunkHash::of(b""),
        seen: None,
    }
}

#[test]
fn more_files_than_handles_are_written_and_finished() {
    let directory = tempfile::tempdir().unwrap();
    let count = 3 * MAX_OPEN as u32;
    let files = files(directory.path(), count);
    let raw = vec![7; EXTENT as usize];
    for number in 0..count {
        files.expect(number, 2);
        files.write(&[piece(number, 1)], &raw).unwrap();
    }
    assert!(files.open.lock().files.len() <= MAX_OPEN);
    for number in 0..count {
        files.write(&[piece(number, 0)], &raw).unwrap();
    }
    assert!(files.open.lock().files.is_empty());
    for number in 0..count {
        let path = directory.path().join(format!("f{number}"));
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o640, 1_700_000_000));
        assert_eq!(std::fs::read(&path).unwrap(), vec![7; EXTENT as usize + 10]);
    }
}

#[test]
fn a_file_without_anything_to_fetch_is_a_hole_of_its_size() {
    let directory = tempfile::tempdir().unwrap();
    files(directory.path(), 1).settle(0).unwrap();
    let metadata = std::fs::metadata(directory.path().join("f0")).unwrap();
    assert_eq!((metadata.len(), metadata.blocks()), (u64::from(EXTENT) + 10, 0));
}

#[test]
fn a_link_in_place_of_a_file_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().join("outside");
    let inside = directory.path().join("pgdata");
    std::fs::create_dir(&inside).unwrap();
    std::os::unix::fs::symlink(&outside, inside.join("f0")).unwrap();
    let error = files(&inside, 1).settle(0).unwrap_err();
    assert!(matches!(*error.what, Cause::File { operation: "create", .. }));
    assert!(!outside.exists());
}

#[test]
fn a_hole_reads_as_zeros_and_keeps_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    std::fs::write(&path, vec![9; 200_000]).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    make_hole(&file, 8192, 150_000).unwrap();
    let content = std::fs::read(&path).unwrap();
    assert_eq!(content.len(), 200_000);
    assert!(content[..8192].iter().chain(&content[158_192..]).all(|byte| *byte == 9));
    assert!(content[8192..158_192].iter().all(|byte| *byte == 0));
}
