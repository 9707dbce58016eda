#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::codec::{Compression, Compressor};
use crate::format_error::Fault;
use crate::frame::{
    CompressedFrame, FrameKind, HEAD_FRAME_BYTES, ObjectOpener, ObjectSealer, ObjectType, TailPart, seal_tail,
};
use crate::identity::{RepositoryId, RepositoryKey};

const FILE: &str = "000000010000000A000000FF";

fn repository() -> RepositoryId {
    RepositoryId::from_bytes([7; 16])
}

fn key() -> RepositoryKey {
    RepositoryKey::from_bytes([1; 32])
}

fn name_of(file: &str, extension: &str) -> String {
    format!("main/wal/1/00000001/000000010000000A/{file}.{extension}")
}

fn encoded(file: &str, raw: &[u8], compression: &str, key: Option<&RepositoryKey>) -> (String, Vec<u8>) {
    let compression: Compression = compression.parse().unwrap();
    let name = name_of(file, compression.codec().extension()) + if key.is_some() { ".enc" } else { "" };
    let facts = json!({"first_lsn": "A/FF000028"});
    let object = encode(&name, file, raw, compression, repository(), key, facts).unwrap();
    (name, object.to_vec())
}

fn segment(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index / 13 % 251) as u8).collect()
}

#[test]
fn plans_cover_the_file() {
    for (length, pieces) in [(0, 0), (1, 1), (PIECE_BYTES, 1), (PIECE_BYTES + 1, 2), (16 << 20, 4)] {
        let plan: Vec<_> = WalObjectPlan::new(length).pieces().collect();
        assert_eq!(plan.len(), pieces);
        assert_eq!(plan.iter().map(std::ops::Range::len).sum::<usize>(), length);
        assert!(plan.windows(2).all(|pair| pair[0].end == pair[1].start));
    }
}

/// A small object can announce a gigabyte, even in an archive with small segments.
#[test]
fn no_more_is_taken_than_a_file_of_the_archive_can_have() {
    let small = Bounds::of_archive(holdfast_pgtypes::WalSegmentSize::new(1 << 20).unwrap());
    let raw = vec![0; (16 << 20) + 1];
    let (name, object) = encoded(FILE, &raw, "zstd:1", None);
    assert!(object.len() < 100_000);
    for bounds in [small, Bounds::TEXT] {
        let error = decode_within(bounds, &name, &object, repository(), None).unwrap_err();
        assert!(matches!(error.fault(), Fault::TooLong { what: "WAL file", limit: 0x100_0000, .. }), "{error}");
    }
    let large = Bounds::of_archive(holdfast_pgtypes::WalSegmentSize::new(32 << 20).unwrap());
    assert_eq!(decode_within(large, &name, &object, repository(), None).unwrap().0.len(), raw.len());
    assert!(small.object_bytes() < 90 << 20);
}

/// A segment can be full of restore points, and must be archived all the same.
#[test]
fn facts_that_are_too_long_are_left_out() {
    let points: Vec<Value> =
        (0..20_000).map(|n| json!({"lsn": "A/FF000028", "time": 1, "name": format!("{n:064}")})).collect();
    let (name, raw) = (name_of(FILE, "zst"), segment(5000));
    let compression = "zstd:1".parse().unwrap();
    let facts = json!({ "restore_points": points });
    let object = encode(&name, FILE, &raw, compression, repository(), None, facts).unwrap();
    let (found, facts) = decode(&name, &object, repository(), None).unwrap();
    assert!(found == raw);
    let note = "the segment has more restore points and checkpoints than are listed here";
    assert_eq!(facts, WalObjectFacts::of(FILE, &raw, json!({ "note": note })));
}

/// A few kilobytes can state 64 MiB of JSON, which would take many times as much once it is parsed.
#[test]
fn facts_that_no_writer_makes_are_not_opened() {
    for (spaces, sound) in [(FACTS_BYTES as usize - 500, true), (FACTS_BYTES as usize, false), (60 << 20, false)] {
        let name = name_of(FILE, "zst");
        let mut json = serde_json::to_vec(&WalObjectFacts::of(FILE, b"", Value::Null)).unwrap();
        json.resize(json.len() + spaces, b' ');
        let mut compressor = Compressor::new("zstd:1".parse().unwrap()).unwrap();
        let facts = compressor.compress(FrameKind::Facts, &json).unwrap();
        let (sealer, mut object) = ObjectSealer::new(ObjectType::Wal, &name, repository(), None).unwrap();
        let offset = object.len() as u64;
        object.extend_from_slice(&sealer.seal(1, false, facts).unwrap());
        object.extend_from_slice(&seal_tail(&sealer, 2, offset).unwrap());
        match decode(&name, &object, repository(), None) {
            Ok((raw, _)) => assert!(sound && raw.is_empty(), "{spaces} spaces are taken"),
            Err(error) => {
                let limit = u64::from(FACTS_BYTES);
                let fault = error.fault();
                assert!(
                    !sound && matches!(fault, Fault::TooLong { what: "last part", limit: l, .. } if *l == limit),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn wal_objects_round_trip() {
    for key in [None, Some(key())] {
        for compression in ["zstd:1", "lz4", "gzip:1", "none"] {
            for length in [0, 40, PIECE_BYTES, 2 * PIECE_BYTES + 5] {
                let raw = segment(length);
                let (name, object) = encoded(FILE, &raw, compression, key.as_ref());
                let (found, facts) = decode(&name, &object, repository(), key.as_ref()).unwrap();
                assert!(found == raw);
                assert_eq!(facts, WalObjectFacts::of(FILE, &raw, json!({"first_lsn": "A/FF000028"})));
            }
        }
    }
    for file in ["0000000A.history", "000000010000000A000000FF.00000028.backup", "000000010000000A000000FF.partial"] {
        let (name, object) = encoded(file, b"text", "zstd", None);
        assert_eq!(decode(&name, &object, repository(), None).unwrap().1.file_name, file);
    }
}

#[test]
fn an_unencrypted_wal_object_is_a_zst_file() {
    let raw = segment(PIECE_BYTES + 77);
    let (_, object) = encoded(FILE, &raw, "zstd:3", None);
    assert!(zstd::stream::decode_all(object.as_slice()).unwrap() == raw);
}

#[test]
fn facts_are_read_from_the_end() {
    for key in [None, Some(key())] {
        let (name, object) = encoded(FILE, &segment(100_000), "lz4", key.as_ref());
        let size = object.len() as u64;
        let opener =
            ObjectOpener::new(ObjectType::Wal, &name, &object[..HEAD_FRAME_BYTES], repository(), key.as_ref()).unwrap();
        let TailPart::Fetch(range) = facts_from_end(&opener, &object[object.len() - 60..], size).unwrap() else {
            unreachable!("facts in 20 bytes")
        };
        for start in [range.start, range.start - 1, 0] {
            let found = facts_from_end(&opener, &object[start as usize..], size).unwrap();
            let TailPart::Complete(facts) = found else { unreachable!("all of it was given") };
            assert_eq!((facts.file_name.as_str(), facts.raw_len), (FILE, 100_000));
        }
        assert!(facts_from_end(&opener, &[], size).is_err());
    }
}

#[test]
fn every_changed_byte_and_every_truncation_is_detected() {
    for key in [None, Some(key())] {
        let (name, object) = encoded(FILE, &segment(300), "zstd:3", key.as_ref());
        for position in 0..object.len() {
            let mut changed = object.clone();
            changed[position] ^= 4;
            assert!(decode(&name, &changed, repository(), key.as_ref()).is_err(), "byte {position}");
            assert!(decode(&name, &object[..position], repository(), key.as_ref()).is_err(), "{position} bytes");
        }
        let longer = [object.as_slice(), b"x"].concat();
        assert!(decode(&name, &longer, repository(), key.as_ref()).is_err());
    }
}

#[test]
fn objects_that_changed_places_are_detected() {
    let other_file = "000000010000000A00000100";
    for (key, expected) in [
        (None, Fault::WrongFileName { found: other_file.to_owned() }),
        (Some(key()), Fault::Authentication { number: 3 }),
    ] {
        let (name, _) = encoded(FILE, b"one", "zstd", key.as_ref());
        let (_, other) = encoded(other_file, b"other", "zstd", key.as_ref());
        assert_eq!(decode(&name, &other, repository(), key.as_ref()).unwrap_err().fault(), &expected);
    }
}

#[test]
fn an_object_its_reader_would_refuse_is_not_made() {
    let facts = WalObjectFacts::of(FILE, b"four", Value::Null);
    let piece = || CompressedFrame::stored(FrameKind::Data, b"four").unwrap();
    let assembled = |name: &str, pieces| assemble(name, repository(), None, pieces, &facts).map(|_| ());
    assembled(&name_of(FILE, "raw"), vec![piece()]).unwrap();
    for (name, pieces, expected) in [
        (name_of("000000010000000A00000100", "raw"), vec![piece()], Fault::WrongFileName { found: FILE.to_owned() }),
        (name_of(FILE, "txt"), vec![piece()], Fault::WrongFileName { found: FILE.to_owned() }),
        (name_of(FILE, "raw"), vec![], Fault::RawLength { expected: 4, found: 0 }),
        (name_of(FILE, "raw"), vec![piece(), piece()], Fault::RawLength { expected: 4, found: 8 }),
    ] {
        assert_eq!(assembled(&name, pieces).unwrap_err().fault(), &expected);
    }
    // Right length, wrong content: the hash shows it.
    let name = name_of(FILE, "raw");
    let object =
        assemble(&name, repository(), None, vec![CompressedFrame::stored(FrameKind::Data, b"five").unwrap()], &facts)
            .unwrap();
    let error = decode(&name, &object, repository(), None).unwrap_err();
    assert!(matches!(error.fault(), Fault::ContentHash { .. }));
}

proptest! {
    #[test]
    fn hostile_facts_never_panic(text in "\\PC{0,200}") {
        let _ = WalObjectFacts::decode(text.as_bytes(), &name_of(FILE, "zst"));
    }

    #[test]
    fn hostile_objects_never_panic(cuts in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6)) {
        let (name, mut object) = encoded(FILE, &segment(500), "zstd", None);
        for (position, value) in cuts {
            let position = usize::from(position) % object.len();
            if value < 64 { object.remove(position); } else { object[position] = value; }
        }
        let _ = decode(&name, &object, repository(), None);
    }
}
