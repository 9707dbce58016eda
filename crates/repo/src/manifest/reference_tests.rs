//! Patches, flags, the end of a manifest, and frames of files by reference.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::entry::EntryBuffers;
use super::origin::{put_origins, put_references};
use super::tests::*;
use super::*;
use crate::FaultClass;
use crate::chunk::ChunkHash;
use crate::format_error::Fault;
use crate::frame::{FrameKind, FrameLocation, ObjectOpener, ObjectType, TailPart, split_frames};
use crate::identity::RepositoryKey;
use crate::varint::Reader;

const PARENT: &str = "main/backups/20260822T101500Z/manifest";
const CHILD: &str = "main/backups/20260823T101500Z/manifest";

fn patch(extent: u32, at: u32, length: u32) -> Patch {
    Patch { extent, at, place: super::tests::extent(length) }
}

fn patched<'a>(path: &'a str, extents: &'a [Extent], patches: &'a [Patch]) -> FileEntry<'a> {
    let entry = file(path, extents);
    FileEntry { kind: FileKind::File { crc32c: None, extents: Extents::of(extents), patches }, ..entry }
}

#[test]
fn patched_files_round_trip_and_have_no_checksum() {
    let (extents, patches) =
        ([extent(EXTENT_BYTES), extent(100)], [patch(0, 0, 8192), patch(0, 4096, 8192), patch(1, 99, 1)]);
    let mut manifest = Manifest::new(header());
    manifest.push(&file("a", &extents)).unwrap();
    manifest.push(&patched("b", &extents, &patches)).unwrap();
    manifest.push(&patched("c", &extents, &[])).unwrap();
    manifest.push(&patched("d", &extents, &patches[2..])).unwrap();
    manifest.set_packs(packs()).unwrap();
    let object = ManifestWriter::write(PARENT, repository(), Some(&key()), &manifest).unwrap();
    let found = Manifest::parse(PARENT, &object, repository(), Some(&key())).unwrap();
    assert_same(&found, &manifest);
    let entry = found.file(1).unwrap();
    assert_eq!(entry, patched("b", &extents, &patches));
    assert_eq!((found.file(0).unwrap().patches(), found.file(2).unwrap().patches()), (&[][..], &[][..]));
    assert_eq!((entry.patch_sources(0), entry.patch_sources(1), entry.source_count()), (2..4, 4..5, 5));
}

/// The visible ranges of all sources give each byte once, from the latest patch.
#[test]
fn a_later_patch_covers_an_earlier_one() {
    let extents = [extent(100), Extent::hole(ChunkHash::of(&[0; 50]), 50)];
    let patches =
        [patch(0, 10, 20), patch(0, 20, 40), patch(0, 15, 2), patch(0, 20, 40), patch(1, 0, 50), patch(1, 40, 10)];
    let entry = patched("a", &extents, &patches);
    let seen = |number| entry.source(number, 100).map(|source| (source.file_offset, source.seen, source.place.length));
    assert_eq!(seen(0), Some((0, Some(vec![0..10, 60..100]), 100)));
    assert_eq!(seen(1), Some((100, Some(vec![]), 50)));
    // 10..30 without 15..17 and 20..60.
    assert_eq!(seen(2), Some((10, Some(vec![0..5, 7..10]), 20)));
    assert_eq!(seen(3), Some((20, Some(vec![]), 40)));
    assert_eq!(seen(4), Some((15, None, 2)));
    assert_eq!(seen(5), Some((20, None, 40)));
    assert_eq!(seen(6), Some((100, Some(std::iter::once(0..40).collect()), 50)));
    assert_eq!(seen(7), Some((140, None, 10)));
    assert_eq!(seen(8), None);
    let total: u64 = (0..8).map(|number| entry.source(number, 100).unwrap().seen_bytes()).sum();
    assert_eq!(total, 150);
}

#[test]
fn patches_that_could_do_harm_are_refused() {
    let extents = [extent(100)];
    let mut elsewhere = patch(0, 0, 1);
    elsewhere.place.pack = 9;
    let mut placed_hole = patch(0, 0, 1);
    placed_hole.place.frame_length = 0;
    let many = vec![patch(0, 0, 1); MOST_PATCHES + 1];
    for (what, patches) in [
        ("after the extent", &[patch(0, 99, 2)][..]),
        ("far after the extent", &[patch(0, u32::MAX, 2)]),
        ("empty", &[patch(0, 0, 0)]),
        ("no such extent", &[patch(1, 0, 1)]),
        ("out of order", &[patch(1, 0, 1), patch(0, 0, 1)]),
        ("no such pack", &[elsewhere]),
        ("a hole with a place", &[placed_hole]),
        ("too many", &many),
    ] {
        let entry = patched("a", &extents, patches);
        let mut manifest = Manifest::new(header());
        assert!(manifest.push(&entry).and_then(|()| manifest.set_packs(packs())).is_err(), "{what}");
        let mut writer = ManifestWriter::new(PARENT, repository(), None, &header()).unwrap().0;
        assert!(writer.push(&entry).and_then(|_| writer.finish(&packs())).is_err(), "{what}");
        if !["no such extent", "out of order"].contains(&what) {
            // Our writer refuses these, so they are written as a hostile writer would. Two of them have no written
            // form.
            let mut section = vec![SECTION_FILES];
            entry.put(&mut section);
            assert!(parse_sections(&[&header_section(), &section, &packs_section()]).is_err(), "{what}");
        }
    }
    let entry = patched("a", &extents, &many[1..]);
    Manifest::new(header()).push(&entry).unwrap();
}

#[test]
fn unknown_flags_are_newer_and_not_damaged() {
    for (kind, flags) in [(0, 4), (0, 7), (1, 1), (2, 2), (0, 64)] {
        let bytes = [0, kind, flags, 0, 0, 0];
        let error =
            FileEntry::read(&mut Reader::new("file entry", &bytes), &mut EntryBuffers::default(), None).unwrap_err();
        assert!(matches!(error, Fault::UnknownEntryFlags(_)), "{error}");
        assert_eq!(error.class(), FaultClass::Unsupported);
    }
    // One pack "a" of one byte with an unknown flag.
    let error = ManifestEnd::read(&[1, 0, 1, b'a', 1, 0, 2, 0]).unwrap_err();
    assert_eq!((error.class(), error), (FaultClass::Unsupported, Fault::UnknownPackFlags(2)));
}

/// Names that share longer and longer beginnings would need memory that grows with the square of their number.
#[test]
fn names_of_packs_are_bounded() {
    assert!(ManifestEnd::read(&[1, 1, 1, b'a', 1, 0, 0, 0]).is_err(), "shares more than there is");
    let mut growing = vec![200, 1];
    for shared in 0..200_u8 {
        growing.extend(if shared < 128 { vec![shared] } else { vec![shared, 1] });
        growing.extend([1, b'a', 1, 0, 0]);
    }
    growing.push(0);
    let error = ManifestEnd::read(&growing).unwrap_err();
    assert!(error.to_string().contains("a name that is too long"), "{error}");
}

#[test]
fn the_end_of_a_manifest_says_what_the_backup_needs() {
    for key in [None, Some(key())] {
        let object = ManifestWriter::write(PARENT, repository(), key.as_ref(), &sample()).unwrap();
        let size = object.len() as u64;
        let opener = ObjectOpener::new(ObjectType::Manifest, PARENT, &object, repository(), key.as_ref()).unwrap();
        let tail = &object[object.len() - 60..];
        let TailPart::Fetch(range) = ManifestEnd::from_end(&opener, tail, size).unwrap() else {
            unreachable!("a list of packs in 20 bytes")
        };
        let end = &object[range.start as usize..];
        let TailPart::Complete(found) = ManifestEnd::from_end(&opener, end, size).unwrap() else {
            unreachable!("all of it was given")
        };
        let manifest = Manifest::parse(PARENT, &object, repository(), key.as_ref()).unwrap();
        assert_eq!((&found.packs[..], found.origins.len()), (manifest.packs(), 0));
        // All extents of pack 1 are in one frame.
        assert_eq!(found.packs.iter().map(|pack| pack.live_bytes).collect::<Vec<_>>(), [0, 4908]);
    }
}

/// A parent, and a child that takes over all of its frames of files except the last.
struct Family {
    parent: Vec<u8>,
    child: Vec<u8>,
    key: Option<RepositoryKey>,
}

fn origin(parent: &[u8], salt: [u8; 32], packs: Vec<Option<u32>>) -> Origin {
    Origin { name: PARENT.to_owned(), size_bytes: parent.len() as u64, salt, packs }
}

fn salt_of(object: &[u8]) -> [u8; 32] {
    object[60..92].try_into().unwrap()
}

fn file_frames(parent: &[u8], key: Option<&RepositoryKey>) -> Vec<(FrameLocation, Vec<u8>)> {
    let opener = ObjectOpener::new(ObjectType::Manifest, PARENT, parent, repository(), key).unwrap();
    let spans = split_frames(PARENT, parent).unwrap();
    let data = spans.iter().filter(|span| span.header.kind == FrameKind::Data);
    let frames = data.map(|span| {
        let location = FrameLocation { offset: span.range.start as u32, length: span.range.len() as u32 };
        (location, opener.open_frame(&parent[span.range.clone()]).unwrap().raw)
    });
    frames.filter(|(_, raw)| raw[0] == SECTION_FILES).collect()
}

fn child_header() -> ManifestHeader {
    ManifestHeader { backup: "20260823T101500Z".to_owned(), ..header() }
}

/// Packs in another order: a new one before the parent's second, and without the parent's first.
fn child_packs() -> Vec<PackEntry> {
    vec![PackEntry::new("main/packs/20260823T101500Z/000001.pack".to_owned(), 5000), packs().remove(1)]
}

fn family(key: Option<RepositoryKey>) -> Family {
    let mut manifest = Manifest::new(header());
    let mut extents = Vec::new();
    for number in 0..100_u32 {
        let hash = |extent: u32| ChunkHash::of(&[number.to_le_bytes(), extent.to_le_bytes()].concat());
        extents = (0..1024).map(|n| Extent { hash: hash(n), ..extent(EXTENT_BYTES) }).collect();
        manifest.push(&file(&format!("base/5/{number}"), &extents)).unwrap();
    }
    manifest.push(&patched("base/5/x", &extents[..1], &[patch(0, 5, 6)])).unwrap();
    manifest.set_packs(packs()).unwrap();
    let parent = ManifestWriter::write(PARENT, repository(), key.as_ref(), &manifest).unwrap().to_vec();
    let origins = vec![origin(&parent, salt_of(&parent), vec![None, Some(1)])];
    let (mut writer, start) = ManifestWriter::new(CHILD, repository(), key.as_ref(), &child_header()).unwrap();
    let mut child = start.to_vec();
    let frames = file_frames(&parent, key.as_ref());
    assert!(frames.len() > 3);
    let mut add = |bytes: Option<bytes::Bytes>| child.extend_from_slice(&bytes.unwrap_or_default());
    add(writer.push(&file("new", &[Extent { pack: 0, ..extent(7) }])).unwrap());
    add(Some(writer.list_origins(origins.clone()).unwrap()));
    for (location, raw) in &frames[..2] {
        add(refer(&mut writer, &origins, *location, raw).unwrap());
    }
    add(writer.push(&file("between", &[extent(8)])).unwrap());
    for (location, raw) in &frames[2..] {
        add(refer(&mut writer, &origins, *location, raw).unwrap());
    }
    child.extend_from_slice(&writer.finish(&child_packs()).unwrap());
    Family { parent, child, key }
}

/// Refers to a frame of the first origin, with these raw bytes.
fn refer(
    writer: &mut ManifestWriter,
    origins: &[Origin],
    location: FrameLocation,
    raw: &[u8],
) -> Result<Option<bytes::Bytes>, crate::FormatError> {
    let (mut reader, mut buffers) = (Reader::new("file entry", &raw[1..]), EntryBuffers::default());
    while !reader.is_empty() {
        let entry = FileEntry::read(&mut reader, &mut buffers, Some(&origins[0].packs)).map_err(|e| e.of(PARENT))?;
        writer.note_referred(&entry)?;
    }
    writer.refer(FrameReference { origin: 0, location, hash: ChunkHash::of(raw) }, raw.len() as u32)
}

impl Family {
    /// Reads the child in pieces, and supplies the wanted frames.
    fn read(&self, piece_bytes: usize) -> Result<Manifest, crate::FormatError> {
        let mut reader = ManifestReader::new(CHILD, repository(), self.key.as_ref());
        for piece in self.child.chunks(piece_bytes) {
            reader.feed(piece)?;
            loop {
                let wanted = reader.wanted();
                if wanted.is_empty() {
                    break;
                }
                for frame in wanted {
                    assert_eq!(frame.object, PARENT);
                    reader.supply(&self.parent[frame.range.start as usize..frame.range.end as usize])?;
                }
            }
        }
        reader.finish()
    }
}

#[test]
fn frames_of_an_earlier_manifest_are_taken_over() {
    for key in [None, Some(key())] {
        let family = family(key);
        let parent = Manifest::parse(PARENT, &family.parent, repository(), family.key.as_ref()).unwrap();
        assert!(family.child.len() * 50 < family.parent.len(), "{} of {}", family.child.len(), family.parent.len());
        for piece_bytes in [100, 4097, family.child.len()] {
            let manifest = family.read(piece_bytes).unwrap();
            assert_eq!(manifest.len(), parent.len() + 2);
            assert_eq!(manifest.file(0).unwrap().path, b"new");
            let taken = manifest.files().filter(|entry| entry.path.starts_with(b"base"));
            assert!(taken.eq(parent.files()), "the second pack has the same number in both");
            assert_eq!(manifest.origins().len(), 1);
            let live: Vec<u64> = manifest.packs().iter().map(|pack| pack.live_bytes).collect();
            assert_eq!(live, [4908, 4908]);
        }
        let unfinished = {
            let mut reader = ManifestReader::new(CHILD, repository(), family.key.as_ref());
            reader.feed(&family.child).unwrap();
            reader.finish()
        };
        assert!(unfinished.is_err());
        let size = family.child.len() as u64;
        let opener = ObjectOpener::new(ObjectType::Manifest, CHILD, &family.child, repository(), family.key.as_ref());
        let TailPart::Complete(end) = ManifestEnd::from_end(&opener.unwrap(), &family.child, size).unwrap() else {
            unreachable!("all of it was given")
        };
        assert_eq!(end.origins, [PARENT]);
    }
}

/// The numbers of packs are those in the referring manifest.
#[test]
fn packs_of_taken_over_files_get_their_numbers_here() {
    let extents = [Extent { pack: 0, ..extent(5) }];
    let mut manifest = Manifest::new(header());
    manifest.push(&file("a", &extents)).unwrap();
    manifest.set_packs(packs()).unwrap();
    let parent = ManifestWriter::write(PARENT, repository(), None, &manifest).unwrap().to_vec();
    let (location, raw) = file_frames(&parent, None).remove(0);
    for (numbers, sound) in [(vec![Some(1)], true), (vec![None], false), (vec![], false), (vec![Some(9)], false)] {
        let origins = vec![origin(&parent, [0; 32], numbers.clone())];
        let mut writer = ManifestWriter::new(CHILD, repository(), None, &child_header()).unwrap().0;
        writer.list_origins(origins.clone()).unwrap();
        let referred = refer(&mut writer, &origins, location, &raw).map(|_| ());
        assert_eq!(referred.and_then(|()| writer.finish(&child_packs()).map(|_| ())).is_ok(), sound, "{numbers:?}");
        // A hostile writer does not check its output.
        let mut listed = vec![SECTION_ORIGINS];
        put_origins(&mut listed, &origins);
        let mut references = vec![SECTION_REFERENCES];
        put_references(&mut references, &[FrameReference { origin: 0, location, hash: ChunkHash::of(&raw) }]);
        let family = Family { parent: parent.clone(), child: child_of(&[&listed, &references]), key: None };
        assert_eq!(family.read(1 << 20).is_ok(), sound, "{numbers:?}");
        if sound {
            assert_eq!(family.read(1 << 20).unwrap().file(0).unwrap().extents().get(0).unwrap().pack, 1);
        }
    }
}

/// A child of these sections, unchecked.
fn child_of(sections: &[&[u8]]) -> Vec<u8> {
    let header = [&[SECTION_HEADER][..], &serde_json::to_vec(&child_header()).unwrap()].concat();
    let mut packs = Vec::new();
    ManifestEnd::put(&mut packs, &child_packs(), &[PARENT], &super::reach::Reach::default());
    let mut all: Vec<&[u8]> = vec![&header];
    all.extend_from_slice(sections);
    all.push(&packs);
    object_named(CHILD, &all)
}

#[test]
fn references_that_could_do_harm_are_refused() {
    let family = family(None);
    let (parent, frames) = (&family.parent, file_frames(&family.parent, None));
    let (location, raw) = &frames[0];
    let good = FrameReference { origin: 0, location: *location, hash: ChunkHash::of(raw) };
    let origins = vec![origin(parent, [0; 32], vec![None, Some(1)])];
    let child = |origins: &[Origin], references: &[FrameReference]| {
        let (mut listed, mut section) = (vec![SECTION_ORIGINS], vec![SECTION_REFERENCES]);
        put_origins(&mut listed, origins);
        put_references(&mut section, references);
        Family { parent: parent.clone(), child: child_of(&[&listed, &section]), key: None }
    };
    child(&origins, &[good]).read(1 << 20).unwrap();
    let header_frame = split_frames(PARENT, parent).unwrap()[1].range.clone();
    let header_frame = FrameLocation { offset: header_frame.start as u32, length: header_frame.len() as u32 };
    for (what, references) in [
        ("another hash", vec![FrameReference { hash: ChunkHash::of(b"x"), ..good }]),
        ("no such manifest", vec![FrameReference { origin: 1, ..good }]),
        ("after the end", vec![FrameReference { location: FrameLocation { offset: u32::MAX, length: 100 }, ..good }]),
        ("too short", vec![FrameReference { location: FrameLocation { offset: 92, length: 32 }, ..good }]),
        (
            "a cut frame",
            vec![FrameReference { location: FrameLocation { length: location.length - 1, ..*location }, ..good }],
        ),
        ("not of files", vec![FrameReference { location: header_frame, ..good }]),
    ] {
        assert!(child(&origins, &references).read(1 << 20).is_err(), "{what}");
    }
    for (what, name) in [("a pack", "main/packs/20260822T101500Z/000001.pack"), ("a way out", "../x"), ("nothing", "")]
    {
        let renamed = vec![Origin { name: name.to_owned(), ..origins[0].clone() }];
        assert!(child(&renamed, &[]).read(1 << 20).is_err(), "{what}");
        let mut writer = ManifestWriter::new(CHILD, repository(), None, &child_header()).unwrap().0;
        assert!(writer.list_origins(renamed).is_err(), "{what}");
    }
    // A frame of references cannot be referred to: here the child is the parent of another manifest.
    let own = family.child.clone();
    let spans = split_frames(CHILD, &own).unwrap();
    let opener = ObjectOpener::new(ObjectType::Manifest, CHILD, &own, repository(), None).unwrap();
    let found =
        spans.iter().skip(1).map(|span| (span.range.clone(), opener.open_frame(&own[span.range.clone()]).unwrap().raw));
    let (range, raw) = found.into_iter().find(|(_, raw)| raw[0] == SECTION_REFERENCES).unwrap();
    let location = FrameLocation { offset: range.start as u32, length: range.len() as u32 };
    let step = vec![Origin { size_bytes: own.len() as u64, ..origins[0].clone() }];
    let mut twice = child(&step, &[FrameReference { origin: 0, location, hash: ChunkHash::of(&raw) }]);
    twice.parent = own;
    let error = twice.read(1 << 20).unwrap_err();
    assert!(error.to_string().contains("a reference to a frame that is not of files"), "{error}");
    // A list of the wrong manifests at the end, which is the part that `expire` reads.
    let mut listed = vec![SECTION_ORIGINS];
    put_origins(&mut listed, &origins);
    let header = [&[SECTION_HEADER][..], &serde_json::to_vec(&child_header()).unwrap()].concat();
    let hidden = Family { child: object_named(CHILD, &[&header, &listed, &packs_section()]), ..family };
    assert!(hidden.read(1 << 20).unwrap_err().to_string().contains("names other manifests"));
}

#[test]
fn a_list_of_manifests_has_a_bound() {
    let origins = vec![origin(b"", [0; 32], Vec::new()); super::names::MOST_ORIGINS + 1];
    let mut writer = ManifestWriter::new(CHILD, repository(), None, &child_header()).unwrap().0;
    assert!(writer.list_origins(origins).is_err());
}

/// A grandchild refers to the objects that hold the frames, and its tables lead from their packs to its own.
#[test]
fn a_manifest_that_was_read_says_how_to_refer_to_its_frames() {
    for key in [None, Some(key())] {
        let family = family(key);
        let child = family.read(4097).unwrap();
        let own = child.frames().iter().filter(|frame| frame.origin.is_none());
        let taken: Vec<&FileFrame> = child.frames().iter().filter(|frame| frame.origin == Some(0)).collect();
        let frames = file_frames(&family.parent, family.key.as_ref());
        let places: Vec<FrameLocation> = taken.iter().map(|frame| frame.location).collect();
        assert_eq!(places, frames.iter().map(|(location, _)| *location).collect::<Vec<_>>());
        for (frame, (_, raw)) in taken.iter().zip(&frames) {
            assert_eq!((frame.hash, frame.raw_bytes as usize), (ChunkHash::of(raw), raw.len()));
        }
        let files: Vec<usize> = child.frames().iter().flat_map(|frame| frame.files.clone()).collect();
        assert_eq!(files, (0..child.len()).collect::<Vec<_>>());
        assert_eq!(own.count(), 2, "one for `new`, and one for `between`");
        // Pack 1 of the parent is pack 1 of the child, and gets number 7; pack 0 of the child gets none.
        let numbers = [None, Some(7)];
        let parent = child.origin_of(Some(0), &numbers).unwrap();
        let expected = origin(&family.parent, child.origins()[0].salt, vec![None, Some(7)]);
        assert_eq!(parent, expected);
        let itself = child.origin_of(None, &numbers).unwrap();
        assert_eq!((itself.name.as_str(), itself.size_bytes), (CHILD, family.child.len() as u64));
        assert_eq!(itself.packs, numbers);
        assert_eq!(itself.salt == [0; 32], family.key.is_none());
        assert_eq!(child.origin_of(Some(1), &numbers), None);
    }
}

/// Groups of a large manifest do not share a frame; those of a small one do.
#[test]
fn a_large_group_of_files_has_frames_of_its_own() {
    for (files, expected) in [(10_u32, vec![20]), (700, vec![700, 700])] {
        let (mut writer, start) = ManifestWriter::new(PARENT, repository(), None, &header()).unwrap();
        let mut object = start.to_vec();
        for group in 0..2 {
            for number in 0..files {
                let path = format!("base/{group}/{number}");
                object.extend_from_slice(&writer.push(&file(&path, &[extent(5)])).unwrap().unwrap_or_default());
            }
            object.extend_from_slice(&writer.end_group().unwrap().unwrap_or_default());
        }
        object.extend_from_slice(&writer.finish(&packs()).unwrap());
        let manifest = Manifest::parse(PARENT, &object, repository(), None).unwrap();
        let found: Vec<usize> = manifest.frames().iter().map(|frame| frame.files.len()).collect();
        assert_eq!(found, expected);
    }
}

/// A writer knows only at its end to which manifests it refers.
#[test]
fn the_list_of_manifests_comes_once_and_before_the_references() {
    let family = family(None);
    let (location, raw) = file_frames(&family.parent, None).remove(0);
    let origins = vec![origin(&family.parent, [0; 32], vec![None, Some(1)])];
    let (mut listed, mut references, mut files) =
        (vec![SECTION_ORIGINS], vec![SECTION_REFERENCES], vec![SECTION_FILES]);
    put_origins(&mut listed, &origins);
    put_references(&mut references, &[FrameReference { origin: 0, location, hash: ChunkHash::of(&raw) }]);
    file("new", &[extent(5)]).put(&mut files);
    let read = |sections: &[&[u8]]| {
        Family { parent: family.parent.clone(), child: child_of(sections), key: None }.read(1 << 20)
    };
    read(&[&files, &listed, &references]).unwrap();
    read(&[&listed, &files, &references]).unwrap();
    for wrong in [&[&listed[..], &references, &listed][..], &[&listed, &listed, &references]] {
        let error = read(wrong).unwrap_err();
        assert!(error.to_string().contains("list of referenced manifests out of order"), "{error}");
    }
    let error = read(&[&references, &listed]).unwrap_err();
    assert!(error.to_string().contains("a manifest that is not listed"), "{error}");
    let mut writer = ManifestWriter::new(CHILD, repository(), None, &child_header()).unwrap().0;
    writer.list_origins(origins.clone()).unwrap();
    assert!(writer.list_origins(origins).unwrap_err().to_string().contains("a second list"));
}
