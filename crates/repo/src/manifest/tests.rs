#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;
use serde_json::json;

use super::entry::EntryBuffers;
use super::reach::Reach;
use super::*;
use crate::chunk::ChunkHash;
use crate::codec::{Compression, Compressor};
use crate::format_error::Fault;
use crate::frame::{FrameKind, FrameLocation, ObjectSealer, ObjectType, seal_tail};
use crate::identity::{RepositoryId, RepositoryKey};
use crate::varint::Reader;

const NAME: &str = "main/backups/20260822T101500Z/manifest";

pub(super) fn repository() -> RepositoryId {
    RepositoryId::from_bytes([7; 16])
}

pub(super) fn key() -> RepositoryKey {
    RepositoryKey::from_bytes([1; 32])
}

pub(super) fn header() -> ManifestHeader {
    let details = json!({"start_lsn": "0/2000028"}).as_object().unwrap().clone();
    ManifestHeader {
        backup: "20260822T101500Z".to_owned(),
        cluster: "main".to_owned(),
        extent_bytes: EXTENT_BYTES,
        details,
    }
}

pub(super) fn packs() -> Vec<PackEntry> {
    (1..=2).map(|number| PackEntry::new(format!("main/packs/20260822T101500Z/{number:06}.pack"), 5000)).collect()
}

pub(super) fn extent(length: u32) -> Extent {
    Extent { hash: ChunkHash::of(b"x"), pack: 1, frame_offset: 92, frame_length: 4908, offset: 3, length }
}

pub(super) fn file<'a>(path: &'a str, extents: &'a [Extent]) -> FileEntry<'a> {
    FileEntry {
        path: path.as_bytes(),
        kind: FileKind::file(0xdead_beef, extents),
        mode: 0o600,
        size_bytes: extents.iter().map(|extent| u64::from(extent.length)).sum(),
        mtime_seconds: 1_787_393_700,
    }
}

/// The estimate before a backup is near the real size of its manifest.
#[test]
fn the_usual_length_of_an_entry_is_about_its_length() {
    let place = |number: u32| FrameLocation { offset: 90_000_000 + number, length: 400_000 };
    let extents = |count: u32| -> Vec<Extent> {
        (0..count).map(|n| Extent::stored(ChunkHash::of(b"x"), 40_000, place(n), 0, EXTENT_BYTES)).collect()
    };
    for count in [0, 1, 7, 1024] {
        let path = "base/16384/16385.17";
        let mut written = Vec::new();
        file(path, &extents(count)).put(&mut written);
        let (written, usual) = (written.len() as u64, usual_entry_bytes(path.len() as u64, u64::from(count)));
        assert!(
            written <= usual && usual <= written + written / 10 + 8,
            "{count} extents: {written}, estimated {usual}"
        );
    }
}

pub(super) fn sample() -> Manifest {
    let mut manifest = Manifest::new(header());
    let directory = FileEntry { path: b"", kind: FileKind::Directory, mode: 0o700, size_bytes: 0, mtime_seconds: 0 };
    manifest.push(&directory).unwrap();
    manifest.push(&FileEntry { path: b"base/5", ..directory }).unwrap();
    manifest.push(&file("base/5/1259", &[extent(EXTENT_BYTES), Extent::hole(ChunkHash::of(&[0; 7]), 7)])).unwrap();
    manifest.push(&file("base/5/1260", &[])).unwrap();
    let link = FileKind::Symlink { target: b"/srv/\xff space" };
    manifest.push(&FileEntry { path: b"pg_tblspc/16384", kind: link, mode: 0o777, ..directory }).unwrap();
    manifest.push(&file("PG_VERSION", &[extent(3)])).unwrap();
    manifest.set_packs(packs()).unwrap();
    manifest
}

pub(super) fn assert_same(found: &Manifest, expected: &Manifest) {
    assert_eq!((found.header(), found.packs()), (expected.header(), expected.packs()));
    assert!(found.files().eq(expected.files()));
    assert_eq!(found.extent_count(), expected.extent_count());
    assert_eq!(found.total_bytes(), expected.total_bytes());
}

#[test]
fn manifests_round_trip_in_pieces_of_any_size() {
    let manifest = sample();
    assert_eq!((manifest.len(), manifest.extent_count(), manifest.total_bytes()), (6, 3, u64::from(EXTENT_BYTES) + 10));
    for key in [None, Some(key())] {
        let object = ManifestWriter::write(NAME, repository(), key.as_ref(), &manifest).unwrap();
        assert_same(&Manifest::parse(NAME, &object, repository(), key.as_ref()).unwrap(), &manifest);
        for piece_bytes in [1, 7, 31, 32, 33, 92, 100, object.len() - 1] {
            let mut reader = ManifestReader::new(NAME, repository(), key.as_ref());
            for piece in object.chunks(piece_bytes) {
                reader.feed(piece).unwrap();
            }
            assert_same(&reader.finish().unwrap(), &manifest);
        }
    }
    let empty = Manifest::new(header());
    let object = ManifestWriter::write(NAME, repository(), None, &empty).unwrap();
    assert!(Manifest::parse(NAME, &object, repository(), None).unwrap().is_empty());
}

#[test]
fn extents_are_taken_from_their_frame_only_when_whole() {
    let raw = b"...an extent...";
    let placed = Extent { hash: ChunkHash::of(b"an extent"), offset: 3, length: 9, ..extent(9) };
    assert_eq!(placed.verified_in(raw).unwrap(), b"an extent");
    let content = Extent { offset: 2, ..placed }.verified_in(raw).unwrap_err();
    assert!(matches!(content, Fault::ContentHash { .. }));
    for (offset, length) in [(7, 9), (16, 1), (u32::MAX, u32::MAX)] {
        let late = Extent { offset, length, ..placed }.verified_in(raw).unwrap_err();
        assert!(matches!(late, Fault::Truncated { .. }));
    }
}

/// A few stored bytes can announce very many raw ones; nothing above the limit is kept.
#[test]
fn the_raw_bytes_of_all_frames_have_a_bound() {
    let mut manifest = Manifest::new(header());
    for number in 0..30_000 {
        let directory = FileKind::Directory;
        let path = format!("base/5/{number:0100}");
        let entry = FileEntry { path: path.as_bytes(), kind: directory, mode: 0o700, size_bytes: 0, mtime_seconds: 0 };
        manifest.push(&entry).unwrap();
    }
    manifest.set_packs(packs()).unwrap();
    let object = ManifestWriter::write(NAME, repository(), None, &manifest).unwrap();
    assert!(object.len() < 300_000);
    let within = |limit| {
        let mut reader = ManifestReader::new(NAME, repository(), None).with_raw_bytes(limit);
        reader.feed(&object).and_then(|()| reader.finish())
    };
    assert_same(&within(4 << 20).unwrap(), &manifest);
    let error = within(2 << 20).unwrap_err();
    assert!(matches!(error.fault(), Fault::TooLong { what: "manifest", limit: 0x20_0000, .. }), "{error}");
    assert_same(&within(MANIFEST_RAW_BYTES).unwrap(), &manifest);
}

/// The length comes from the repository's record, which anyone who can write to the store can change.
#[test]
fn extents_have_a_length_that_a_repository_can_have() {
    for (extent_bytes, sound) in [
        (0, false),
        (8192, false),
        (40_000, false),
        (32 << 10, true),
        (1 << 20, true),
        (16 << 20, true),
        (u32::MAX, false),
    ] {
        let header = ManifestHeader { extent_bytes, ..header() };
        assert_eq!(ManifestWriter::new(NAME, repository(), None, &header).is_ok(), sound, "{extent_bytes}");
        let (sealer, mut object) = ObjectSealer::new(ObjectType::Manifest, NAME, repository(), None).unwrap();
        let section = [vec![SECTION_HEADER], serde_json::to_vec(&header).unwrap()].concat();
        let frame = Compressor::new(Compression::default()).unwrap().compress(FrameKind::Data, &section).unwrap();
        object.extend(sealer.seal(1, false, frame).unwrap());
        let fed = ManifestReader::new(NAME, repository(), None).feed(&object);
        assert_eq!(fed.is_ok(), sound, "{extent_bytes}");
    }
}

/// A read from a pack is never longer than the longest frame.
#[test]
fn a_frame_longer_than_any_is_refused() {
    let mut manifest = Manifest::new(header());
    let longest = crate::frame::HEADER_BYTES as u32 + crate::codec::MAX_FRAME_STORED;
    manifest.push(&file("a", &[Extent { frame_length: longest, ..extent(3) }])).unwrap();
    let error = manifest.push(&file("b", &[Extent { frame_length: longest + 1, ..extent(3) }])).unwrap_err();
    assert!(error.to_string().contains("a frame of 68157473 bytes"), "{error}");
}

#[test]
fn many_files_take_many_frames() {
    let mut manifest = Manifest::new(header());
    let extents = vec![extent(EXTENT_BYTES); 1024];
    for number in 0..100 {
        manifest.push(&file(&format!("base/5/{number}"), &extents)).unwrap();
    }
    manifest.set_packs(packs()).unwrap();
    let object = ManifestWriter::write(NAME, repository(), Some(&key()), &manifest).unwrap();
    assert!(crate::frame::split_frames(NAME, &object).unwrap().len() > 5);
    assert_same(&Manifest::parse(NAME, &object, repository(), Some(&key())).unwrap(), &manifest);
}

#[test]
fn every_changed_byte_and_every_truncation_is_detected() {
    for key in [None, Some(key())] {
        let object = ManifestWriter::write(NAME, repository(), key.as_ref(), &sample()).unwrap();
        for position in 0..object.len() {
            let mut changed = object.to_vec();
            changed[position] ^= 2;
            assert!(Manifest::parse(NAME, &changed, repository(), key.as_ref()).is_err(), "byte {position}");
            assert!(
                Manifest::parse(NAME, &object[..position], repository(), key.as_ref()).is_err(),
                "{position} bytes"
            );
        }
        let longer = [&object[..], b"x"].concat();
        let error = Manifest::parse(NAME, &longer, repository(), key.as_ref()).unwrap_err();
        assert_eq!(error.fault(), &Fault::TrailingBytes { bytes: 1 });
    }
}

/// A writer refuses what a restore would refuse; manifests of early releases can still be read.
#[test]
fn a_writer_keeps_to_the_length_of_extents() {
    let (long, full) = (extent(EXTENT_BYTES + 1), extent(EXTENT_BYTES));
    for (what, extents, written) in [
        ("a single long one", vec![long], false),
        ("a long last one", vec![full, long], false),
        ("a short one in between", vec![full, extent(1), full], false),
        ("as the format says", vec![full, full, extent(1)], true),
    ] {
        let entry = file("log/a.log", &extents);
        Manifest::new(header()).push(&entry).unwrap();
        let mut writer = ManifestWriter::new(NAME, repository(), None, &header()).unwrap().0;
        assert_eq!(writer.push(&entry).is_ok(), written, "{what}");
    }
}

#[test]
fn a_kind_of_file_of_a_later_release_is_newer_and_not_damaged() {
    for unknown in [3, 4, 255] {
        // An empty path, then the kind.
        let error =
            FileEntry::read(&mut Reader::new("file entry", &[0, unknown, 0, 0, 0]), &mut EntryBuffers::default(), None)
                .unwrap_err();
        assert_eq!(error, Fault::UnknownFileKind(unknown));
        assert_eq!(error.class(), crate::FaultClass::Unsupported);
        assert_eq!(error.to_string(), format!("unknown kind of file {unknown}: written by a newer holdfast"));
    }
}

#[test]
fn entries_that_could_do_harm_are_refused() {
    let good = [extent(100)];
    let base = file("base/1", &good);
    let changed = |change: fn(&mut Extent)| {
        let mut extent = extent(100);
        change(&mut extent);
        [extent]
    };
    let (no_pack, late, empty, placed_hole, overlong) = (
        changed(|extent| extent.pack = 2),
        changed(|extent| extent.frame_length = 4909),
        changed(|extent| extent.length = 0),
        changed(|extent| extent.frame_length = 0),
        changed(|extent| extent.offset = u32::MAX),
    );
    let cases: [(&str, FileEntry<'_>); 17] = [
        ("absolute", FileEntry { path: b"/etc/passwd", ..base }),
        ("parent", FileEntry { path: b"base/../../x", ..base }),
        ("parent first", FileEntry { path: b"..", ..base }),
        ("dot", FileEntry { path: b"./x", ..base }),
        ("double slash", FileEntry { path: b"a//b", ..base }),
        ("slash at the end", FileEntry { path: b"a/", ..base }),
        ("zero byte", FileEntry { path: b"a\0b", ..base }),
        ("empty", FileEntry { path: b"", ..base }),
        ("size", FileEntry { size_bytes: 101, ..base }),
        ("mode", FileEntry { mode: 0o10_0600, ..base }),
        ("directory with a size", FileEntry { kind: FileKind::Directory, ..base }),
        ("link to nothing", FileEntry { kind: FileKind::Symlink { target: b"" }, size_bytes: 0, ..base }),
        ("no such pack", file("base/1", &no_pack)),
        ("after the end of the pack", file("base/1", &late)),
        ("empty extent", file("base/1", &empty)),
        ("hole in a pack", file("base/1", &placed_hole)),
        ("after the end of the frame", file("base/1", &overlong)),
    ];
    for (what, entry) in cases {
        let mut manifest = Manifest::new(header());
        manifest.push(&base).unwrap();
        assert!(manifest.push(&entry).and_then(|()| manifest.set_packs(packs())).is_err(), "{what}");
        let mut writer = ManifestWriter::new(NAME, repository(), None, &header()).unwrap().0;
        assert!(writer.push(&entry).and_then(|_| writer.finish(&packs())).is_err(), "{what}");
        // A hostile writer does not check its output.
        let mut section = vec![SECTION_FILES];
        entry.put(&mut section);
        assert!(parse_sections(&[&header_section(), &section, &packs_section()]).is_err(), "{what}");
    }
}

pub(super) fn header_section() -> Vec<u8> {
    [&[SECTION_HEADER][..], &serde_json::to_vec(&header()).unwrap()].concat()
}

pub(super) fn packs_section() -> Vec<u8> {
    let mut section = Vec::new();
    ManifestEnd::put(&mut section, &packs(), &[], &Reach::default());
    section
}

/// Reads a manifest that consists of these raw frames.
pub(super) fn parse_sections(sections: &[&[u8]]) -> Result<Manifest, Fault> {
    Manifest::parse(NAME, &object_of(sections), repository(), None).map_err(|error| error.fault().clone())
}

fn object_of(sections: &[&[u8]]) -> Vec<u8> {
    object_named(NAME, sections)
}

pub(super) fn object_named(name: &str, sections: &[&[u8]]) -> Vec<u8> {
    let (sealer, mut object) = ObjectSealer::new(ObjectType::Manifest, name, repository(), None).unwrap();
    let mut compressor = Compressor::new(Compression::default()).unwrap();
    let mut last_at = 0;
    for (number, section) in (1..).zip(sections) {
        let frame = compressor.compress(FrameKind::Data, section).unwrap();
        last_at = object.len() as u64;
        object.extend(sealer.seal(number, false, frame).unwrap());
    }
    object.extend(seal_tail(&sealer, sections.len() as u32 + 1, last_at).unwrap());
    object
}

#[test]
fn sections_come_in_order() {
    let (header, packs, files) = (header_section(), packs_section(), vec![SECTION_FILES]);
    parse_sections(&[&header, &packs]).unwrap();
    parse_sections(&[&header, &files, &files, &packs]).unwrap();
    for wrong in [
        &[&header[..]][..],
        &[&packs],
        &[&files],
        &[&header, &files],
        &[&packs, &header],
        &[&header, &header, &packs],
        &[&header, &packs, &packs],
        &[&header, &packs, &header],
        &[&header, &packs, &files],
        &[&header, &[], &packs],
    ] {
        assert!(parse_sections(wrong).is_err());
    }
    assert_eq!(parse_sections(&[&header, &[11], &packs]).unwrap_err(), Fault::UnknownSection(11));
    // A section that only newer readers need is ignored, wherever it is.
    for even in [0, 2, 4, 254] {
        parse_sections(&[&header, &[even, 7], &files, &[even], &packs]).unwrap();
    }
}

prop_compose! {
    fn any_extent()(hash: [u8; 32], pack in 0..2_u32, frame_offset in 0..2500_u32, frame_length in 1..2500_u32,
                    offset in 0..1000_u32, length in 1..=EXTENT_BYTES, hole: bool) -> Extent {
        let hash = ChunkHash::from_bytes(hash);
        if hole { Extent::hole(hash, length) } else { Extent { hash, pack, frame_offset, frame_length, offset, length } }
    }
}

proptest! {
    #[test]
    fn any_files_round_trip(mut files in proptest::collection::vec(
        ("[a-z0-9_]{1,9}(/[a-z0-9._]{1,9}x){0,3}", proptest::collection::vec(any_extent(), 0..20), 0..0o7777_u32, any::<u32>()),
        0..30,
    )) {
        let mut manifest = Manifest::new(header());
        for (path, extents, mode, time) in &mut files {
            let cut = extents.len().saturating_sub(1);
            extents.iter_mut().take(cut).for_each(|extent| extent.length = EXTENT_BYTES);
            manifest.push(&FileEntry { mode: *mode, mtime_seconds: u64::from(*time), ..file(path, extents) }).unwrap();
        }
        manifest.set_packs(packs()).unwrap();
        let object = ManifestWriter::write(NAME, repository(), Some(&key()), &manifest).unwrap();
        let found = Manifest::parse(NAME, &object, repository(), Some(&key())).unwrap();
        prop_assert!(found.files().eq(manifest.files()));
        prop_assert_eq!(found.len(), files.len());
    }

    #[test]
    fn hostile_sections_never_panic(mut section in proptest::collection::vec(any::<u8>(), 0..400), small: bool) {
        if small {
            section = section.iter().map(|byte| byte % 4).collect();
        }
        let _ = parse_sections(&[&section]);
        let _ = parse_sections(&[&header_section(), &[&[SECTION_PACKS], &section[..]].concat()]);
        let _ = parse_sections(&[&header_section(), &[&[SECTION_FILES], &section[..]].concat(), &packs_section()]);
    }

    #[test]
    fn hostile_pieces_never_panic(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..10)) {
        let mut reader = ManifestReader::new(NAME, repository(), None);
        let fed = pieces.iter().try_for_each(|piece| reader.feed(piece));
        prop_assert!(fed.is_err() || reader.finish().is_err());
    }
}
