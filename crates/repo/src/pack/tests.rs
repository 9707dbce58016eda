#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::chunk::ChunkHash;
use crate::codec::{Compression, Compressor};
use crate::format_error::Fault;
use crate::frame::{
    CompressedFrame, FrameKind, FrameLocation, HEAD_FRAME_BYTES, ObjectOpener, ObjectType, TAIL_FRAME_BYTES_ENCRYPTED,
    TailPart, tail_frame_bytes,
};
use crate::identity::{RepositoryId, RepositoryKey};
use crate::manifest::{PackEntry, PackIdentity};

const NAME: &str = "main/packs/20260822T101500Z/000001.pack";

fn repository() -> RepositoryId {
    RepositoryId::from_bytes([7; 16])
}

fn key() -> RepositoryKey {
    RepositoryKey::from_bytes([1; 32])
}

fn raw_of(frame: u32) -> Vec<u8> {
    (0..frame * 700 + 10).map(|index| (index / 9 + frame) as u8).collect()
}

/// A pack with this many frames, with two chunks in each.
fn pack(frames: u32, compression: &str, key: Option<&RepositoryKey>) -> (Vec<u8>, Vec<FrameLocation>) {
    let mut compressor = Compressor::new(compression.parse().unwrap()).unwrap();
    let (mut writer, head) = PackWriter::new(NAME, repository(), key).unwrap();
    let mut object = head.to_vec();
    let mut locations = Vec::new();
    for number in 0..frames {
        let raw = raw_of(number);
        let chunks = [(0, 10), (10, raw.len() as u32 - 10)].map(|(offset, length)| PackChunk {
            offset,
            length,
            hash: ChunkHash::of(&raw[offset as usize..(offset + length) as usize]),
            path: format!("base/5/{number}").into_bytes(),
            extent: u64::from(offset),
        });
        let (location, bytes) = writer.append(compressor.compress(FrameKind::Data, &raw).unwrap(), &chunks).unwrap();
        assert_eq!(location.range(), object.len() as u64..object.len() as u64 + bytes.len() as u64);
        object.extend_from_slice(&bytes);
        assert_eq!(writer.size_bytes(), object.len() as u64);
        locations.push(location);
    }
    assert_eq!(writer.frames(), frames);
    let (end, entry) = writer.finish().unwrap();
    object.extend_from_slice(&end);
    let salt: [u8; 32] = object[HEAD_FRAME_BYTES - 32..HEAD_FRAME_BYTES].try_into().unwrap();
    let identity = PackIdentity { salt, crc32c: crc32c::crc32c(&object) };
    let expected =
        PackEntry { name: NAME.to_owned(), size_bytes: object.len() as u64, live_bytes: 0, identity: Some(identity) };
    assert_eq!(entry, expected);
    (object, locations)
}

#[test]
fn packs_round_trip() {
    for key in [None, Some(key())] {
        for compression in ["zstd:3", "lz4", "gzip:6", "none"] {
            for frames in [0, 1, 20] {
                let (object, locations) = pack(frames, compression, key.as_ref());
                let index = PackIndex::parse(NAME, &object, repository(), key.as_ref()).unwrap();
                assert_eq!(index.frames().iter().map(|frame| frame.location).collect::<Vec<_>>(), locations);
                // As a restore reads: the head once, then frames by their place, in any order.
                let head = &object[..HEAD_FRAME_BYTES];
                let opener = ObjectOpener::new(ObjectType::Pack, NAME, head, repository(), key.as_ref()).unwrap();
                for (number, frame) in index.frames().iter().enumerate().rev() {
                    let range = frame.location.range();
                    let raw = opener.open_frame(&object[range.start as usize..range.end as usize]).unwrap().raw;
                    assert_eq!(raw, raw_of(number as u32));
                    for chunk in &frame.chunks {
                        let raw = &raw[chunk.offset as usize..(chunk.offset + chunk.length) as usize];
                        chunk.hash.verify(raw).unwrap();
                        assert_eq!(chunk.path, format!("base/5/{number}").as_bytes());
                    }
                }
            }
        }
    }
}

#[test]
fn an_unencrypted_pack_is_a_zstd_stream_of_its_data() {
    let (object, _) = pack(5, "zstd:3", None);
    let expected: Vec<u8> = (0..5).flat_map(raw_of).collect();
    assert_eq!(zstd::stream::decode_all(object.as_slice()).unwrap(), expected);
}

#[test]
fn an_encrypted_pack_holds_no_plaintext() {
    let (object, _) = pack(3, "none", Some(&key()));
    assert!(!object.windows(7).any(|window| window == b"base/5/" || window == &raw_of(2)[..7]));
}

#[test]
fn the_index_is_found_from_the_end() {
    for key in [None, Some(key())] {
        let (object, _) = pack(20, "zstd:3", key.as_ref());
        let size = object.len() as u64;
        let opener = ObjectOpener::new(ObjectType::Pack, NAME, &object, repository(), key.as_ref()).unwrap();
        let whole = PackIndex::parse(NAME, &object, repository(), key.as_ref()).unwrap();

        let tail = &object[object.len() - TAIL_FRAME_BYTES_ENCRYPTED..];
        let TailPart::Fetch(range) = PackIndex::from_end(&opener, tail, size).unwrap() else {
            unreachable!("an index in 16 bytes")
        };
        assert_eq!(range.end, size);
        let end = &object[range.start as usize..];
        assert_eq!(PackIndex::from_end(&opener, end, size).unwrap(), TailPart::Complete(whole.clone()));
        assert_eq!(PackIndex::from_end(&opener, &end[1..], size).unwrap(), TailPart::Fetch(range));

        // A wrong object size, or too few bytes of the end, is an error and not a panic.
        for wrong in [0, 1, tail.len() as u64, size - 1, size + 1] {
            assert!(PackIndex::from_end(&opener, end, wrong).is_err() || wrong > size, "{wrong}");
        }
        assert!(PackIndex::from_end(&opener, &end[end.len() - tail_frame_bytes(key.is_some()) + 1..], size).is_err());
    }
}

#[test]
fn damage_to_an_encrypted_pack_is_detected() {
    let key = key();
    let (object, locations) = pack(2, "zstd:3", Some(&key));
    let readable = |object: &[u8]| {
        let index = PackIndex::parse(NAME, object, repository(), Some(&key))?;
        let opener = ObjectOpener::new(ObjectType::Pack, NAME, object, repository(), Some(&key))?;
        for location in locations.iter().chain(index.frames().iter().map(|frame| &frame.location)) {
            opener.open_frame(&object[location.offset as usize..(location.offset + location.length) as usize])?;
        }
        Ok::<_, crate::FormatError>(())
    };
    readable(&object).unwrap();
    for position in 0..object.len() {
        let mut changed = object.clone();
        changed[position] ^= 0x10;
        assert!(readable(&changed).is_err(), "byte {position}");
        assert!(PackIndex::parse(NAME, &object[..position], repository(), Some(&key)).is_err(), "{position} bytes");
    }
}

#[test]
fn a_writer_keeps_to_the_limits() {
    let (mut writer, _) = PackWriter::new(NAME, repository(), None).unwrap();
    assert!(!writer.is_full(1000));
    let tail = CompressedFrame::stored(FrameKind::Tail, b"").unwrap();
    assert!(matches!(writer.append(tail, &[]).unwrap_err().fault(), Fault::UnexpectedKind { .. }));

    // If a reader would refuse the index, appending fails, and the pack can still be finished.
    let chunk = PackChunk { offset: 0, length: 0, hash: ChunkHash::of(b""), path: vec![b'p'; 40 << 20], extent: 0 };
    let frame = || CompressedFrame::stored(FrameKind::Data, b"").unwrap();
    let (_, first) = writer.append(frame(), std::slice::from_ref(&chunk)).unwrap();
    assert!(writer.is_full(u64::MAX));
    let error = writer.append(frame(), &[chunk]).unwrap_err();
    assert!(matches!(error.fault(), Fault::TooLong { what: "pack index", .. }));
    let size = writer.size_bytes();
    assert_eq!(size, HEAD_FRAME_BYTES as u64 + first.len() as u64);
    let (end, _): (Bytes, PackEntry) = writer.finish().unwrap();
    assert!(!end.is_empty());
}

proptest! {
    #[test]
    fn a_hostile_index_never_panics(raw in proptest::collection::vec(any::<u8>(), 0..300), small in any::<bool>()) {
        // Small numbers get further into the parser.
        let raw: Vec<u8> = if small { raw.iter().map(|byte| byte % 4).collect() } else { raw };
        let (sealer, head) = crate::ObjectSealer::new(ObjectType::Pack, NAME, repository(), None).unwrap();
        let index = Compressor::new(Compression::default()).unwrap().compress(FrameKind::Index, &raw).unwrap();
        let mut object = head.clone();
        object.extend(sealer.seal(1, false, index).unwrap());
        object.extend(crate::frame::seal_tail(&sealer, 2, head.len() as u64).unwrap());
        prop_assert_eq!(PackIndex::parse(NAME, &object, repository(), None).is_ok(), raw.is_empty());
    }

    #[test]
    fn a_hostile_tail_never_panics(offset: u64, number in 0..4_u32) {
        let (mut object, _) = pack(2, "zstd:3", None);
        object.truncate(object.len() - tail_frame_bytes(false));
        let (sealer, _) = crate::ObjectSealer::new(ObjectType::Pack, NAME, repository(), None).unwrap();
        object.extend(crate::frame::seal_tail(&sealer, number, offset % (2 * object.len() as u64)).unwrap());
        let _ = PackIndex::parse(NAME, &object, repository(), None);
    }
}

/// From a repository of every kind into one of every kind, and to the very bytes that were there where the salt is
/// known.
#[test]
fn a_pack_is_carried_frame_by_frame() {
    let (other, other_key) = (RepositoryId::from_bytes([8; 16]), RepositoryKey::from_bytes([2; 32]));
    let carry = |object: &[u8],
                 of: (RepositoryId, Option<&RepositoryKey>),
                 to: (RepositoryId, Option<&RepositoryKey>),
                 salt| {
        let opener = ObjectOpener::new(ObjectType::Pack, NAME, object, of.0, of.1).unwrap();
        let (mut carrier, head) = PackCarrier::new(opener, NAME, to.0, to.1, salt).unwrap();
        let mut moved_object = head.to_vec();
        for span in crate::frame::split_frames(NAME, object).unwrap().iter().skip(1) {
            moved_object.extend_from_slice(&carrier.carry(&object[span.range.clone()]).unwrap());
        }
        let (entry, shift) = carrier.finish().unwrap();
        assert_eq!((entry.size_bytes, entry.name.as_str()), (moved_object.len() as u64, NAME));
        assert_eq!(entry.identity.unwrap().crc32c, crc32c::crc32c(&moved_object));
        (moved_object, shift, entry)
    };
    for from in [None, Some(key())] {
        for to in [None, Some(other_key.clone())] {
            let (object, locations) = pack(7, "zstd:3", from.as_ref());
            let here = (repository(), from.as_ref());
            let there = (other, to.as_ref());
            let (carried, shift, _) = carry(&object, here, there, None);
            let index = PackIndex::parse(NAME, &object, repository(), from.as_ref()).unwrap();
            let moved = PackIndex::parse(NAME, &carried, other, to.as_ref()).unwrap();
            assert!(index.has_frames_of(from.is_some(), &moved, to.is_some()));
            assert_eq!(shift, FrameShift::of_index(&index, from.is_some(), to.is_some()));
            let opener = ObjectOpener::new(ObjectType::Pack, NAME, &carried, other, to.as_ref()).unwrap();
            for (number, location) in locations.iter().enumerate() {
                let place = shift.place(*location).unwrap();
                assert_eq!(place, moved.frames()[number].location);
                let frame = opener.open_frame(&carried[place.offset as usize..][..place.length as usize]).unwrap();
                assert_eq!(frame.raw, raw_of(number as u32));
                let chunk = &index.frames()[number].chunks[1];
                assert_eq!(moved.chunk(place, chunk.offset, chunk.length), Some(chunk));
            }
            assert_eq!(moved.chunk(FrameLocation { offset: 91, length: 1 }, 0, 10), None);
            // The first is lost: the second gives its bytes back.
            let salt: [u8; 32] = object[HEAD_FRAME_BYTES - 32..HEAD_FRAME_BYTES].try_into().unwrap();
            assert_eq!(carry(&carried, there, here, Some(salt)).0, object);
        }
    }
}

#[test]
fn what_is_no_whole_pack_is_not_carried() {
    let (object, _) = pack(3, "zstd:3", None);
    let spans = crate::frame::split_frames(NAME, &object).unwrap();
    let frame = |number: usize| &object[spans[number].range.clone()];
    let carrier = || {
        let opener = ObjectOpener::new(ObjectType::Pack, NAME, &object, repository(), None).unwrap();
        PackCarrier::new(opener, NAME, repository(), Some(&key()), None).unwrap().0
    };
    for order in [&[2][..], &[1, 1], &[1, 3], &[1, 2, 3, 5], &[1, 2, 3, 4, 5, 5]] {
        let (mut carrier, mut outcome) = (carrier(), Ok(()));
        for number in order {
            outcome = outcome.and_then(|()| carrier.carry(frame(*number)).map(|_| ()));
        }
        assert!(outcome.is_err(), "{order:?}");
    }
    let mut begun = carrier();
    begun.carry(frame(1)).unwrap();
    assert_eq!(begun.finish().unwrap_err().fault(), &Fault::MissingLastFrame);
}
