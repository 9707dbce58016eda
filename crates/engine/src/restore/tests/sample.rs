//! A repository with one backup, made by hand from the format's own writers, and the directory that a restore of it
//! should give.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use holdfast_pgtypes::wal::reader::WalSegment;
use holdfast_pgtypes::wal::scan::SegmentFacts;
use holdfast_pgtypes::{BackupLabel, ControlFile, Lsn, PgVersion, SegmentName, TimelineId, WalFileName};
use holdfast_repo::chunk::is_all_zero;
use holdfast_repo::codec::{Codec, Compression, Compressor};
use holdfast_repo::frame::FrameKind;
use holdfast_repo::manifest::{
    Extent, Extents, FileEntry, FileKind, Manifest, ManifestHeader, ManifestWriter, PackEntry, Patch,
};
use holdfast_repo::name::{self, ClaimNumber};
use holdfast_repo::pack::PackWriter;
use holdfast_repo::record::{
    BackupRecord, BackupType, ChecksumFailures, EncryptionKind, ManifestEntry, TablespaceEntry, sha256_hex,
};
use holdfast_repo::recovery::RecoveryRequest;
use holdfast_repo::{ChunkHash, wal_object};
use holdfast_secret::Secret;
use holdfast_store::{MemoryStore, PutMode, Store};

use super::super::*;
use crate::progress::Silent;
use crate::repository::claim::{Claimant, Identity};
use crate::repository::{RepositoryTarget, Unlock, init, object_name};

pub(crate) const CONTROL: &[u8] = include_bytes!("../../../../pgtypes/tests/fixtures/pg_control.18");

/// The beginning of segment 0A of a PostgreSQL 18 server, with transactions 771 to 780 and two restore points.
pub(crate) const SEGMENT: &[u8] = include_bytes!("../../../../pgtypes/tests/fixtures/segment-0A.18");

/// Eight pages: small enough that small files have several extents.
const EXTENT: usize = 64 * 1024;

const BACKUP: &str = "20260822T101500Z";

/// A file, directory (no content) or link of the sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory,
    File(Vec<u8>),
    Link(&'static str),
}

pub(crate) struct Sample {
    pub directory: tempfile::TempDir,
    pub store: Arc<dyn Store>,
    pub target: RepositoryTarget,
    pub repository: Repository,
    pub entries: BTreeMap<String, Entry>,
    pub packs: Vec<PackEntry>,
    pub backup: BackupRecord,
}

/// Bytes that do not compress and do not repeat.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub(crate) fn now() -> DateTime<Utc> {
    "2026-11-22T11:00:00Z".parse().unwrap()
}

/// What the archiver stores about [`SEGMENT`].
pub(crate) fn facts() -> serde_json::Value {
    let name = "00000001000000000000000A".parse().unwrap();
    let size = ControlFile::parse(CONTROL).unwrap().wal_segment_size;
    let segment = WalSegment { bytes: SEGMENT, name, size, version: PgVersion::V18 };
    serde_json::to_value(SegmentFacts::scan(segment)).unwrap()
}

fn entries(original_tablespace: &str) -> BTreeMap<String, Entry> {
    let mut holes = noise(2, 6 * EXTENT);
    holes[EXTENT..3 * EXTENT].fill(0);
    holes[5 * EXTENT..].fill(0);
    let label = "START WAL LOCATION: 0/800028 (file 000000010000000000000008)\nCHECKPOINT LOCATION: 0/800060\n\
                 BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-08-22 10:15:00 UTC\nLABEL: x\n\
                 START TIMELINE: 1\n";
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for directory in [
        "",
        "base",
        "base/5",
        "global",
        "pg_wal",
        "pg_wal/archive_status",
        "pg_tblspc",
        "pg_tblspc/16400",
        "pg_tblspc/16400/PG_18_202506291",
        "pg_tblspc/16400/PG_18_202506291/5",
    ] {
        entries.insert(directory.to_owned(), Entry::Directory);
    }
    for (path, content) in [
        ("PG_VERSION", b"18\n".to_vec()),
        ("base/5/1259", noise(1, 20 * EXTENT + 8192)),
        ("base/5/1260", holes),
        ("base/5/1261", Vec::new()),
        ("base/5/1262", vec![0; 3 * EXTENT]),
        ("base/5/1263", vec![7; 2 * EXTENT]),
        ("pg_tblspc/16400/PG_18_202506291/5/16500", noise(3, 3 * EXTENT)),
        ("postgresql.conf", b"port = 5432\n".to_vec()),
        ("postgresql.auto.conf", b"work_mem = '8MB'\nrestore_command = 'old'\n".to_vec()),
        ("standby.signal", Vec::new()),
        ("backup_label", label.as_bytes().to_vec()),
        ("tablespace_map", format!("16400 {original_tablespace}\n").into_bytes()),
        ("global/pg_control", CONTROL.to_vec()),
    ] {
        entries.insert(path.to_owned(), Entry::File(content));
    }
    for number in 0..300_u64 {
        entries.insert(format!("base/5/s{number:03}"), Entry::File(noise(100 + number, 200 + number as usize)));
    }
    entries.insert("log".to_owned(), Entry::Link("/var/log/somewhere"));
    entries
}

/// Puts frames into packs of about a megabyte.
struct Packer<'a> {
    repository: &'a Repository,
    compressor: Compressor,
    open: Option<(PackWriter, Vec<u8>)>,
    packs: Vec<PackEntry>,
    done: Vec<(String, Vec<u8>)>,
}

impl Packer<'_> {
    fn frame(&mut self, raw: &[u8]) -> (u32, holdfast_repo::FrameLocation) {
        let number = self.packs.len() as u32;
        let (writer, bytes) = self.open.get_or_insert_with(|| {
            let name = name::pack(&"main".parse().unwrap(), &BACKUP.parse().unwrap(), number);
            let (writer, head) = PackWriter::new(&name, self.repository.id(), self.repository.key()).unwrap();
            (writer, head.to_vec())
        });
        let frame = self.compressor.compress(FrameKind::Data, raw).unwrap();
        let (location, sealed) = writer.append(frame, &[]).unwrap();
        bytes.extend_from_slice(&sealed);
        if writer.is_full(1 << 20) {
            self.close();
        }
        (number, location)
    }

    fn close(&mut self) {
        let Some((writer, mut bytes)) = self.open.take() else { return };
        let name = writer.name().to_owned();
        let (end, entry) = writer.finish().unwrap();
        bytes.extend_from_slice(&end);
        self.packs.push(entry);
        self.done.push((name, bytes));
    }
}

impl Sample {
    /// A fresh repository in memory, encrypted or not, with the backup and its WAL.
    pub(crate) async fn new(encrypted: bool) -> Self {
        Self::with(encrypted, false).await
    }

    /// The same, if `patched` with a file, [`PATCHED`], whose extents are under patches.
    pub(crate) async fn with(encrypted: bool, patched: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let unlock = if encrypted { Unlock::KeyFile(Secret::new(noise(9, 32))) } else { Unlock::NotEncrypted };
        let target = RepositoryTarget { store: Arc::clone(&store), unlock };
        let repository = init::init(&target, now()).await.unwrap().repository;
        let control = ControlFile::parse(CONTROL).unwrap();
        let claimant = Claimant {
            identity: Identity::of_control_file(&control),
            here: "a test".to_owned(),
            owner: None,
            wal_codec: Codec::Zstd,
            host: "db1".to_owned(),
            now: now(),
        };
        repository.take_claim(&"main".parse().unwrap(), &claimant).await.unwrap();

        let original = directory.path().join("original").to_str().unwrap().to_owned();
        let mut entries = entries(&original);
        if patched {
            entries.insert(PATCHED.to_owned(), Entry::File(patched_content()));
        }
        let (manifest, packs) = Self::store_packs(&repository, &entries, &original).await;
        let object_id = name::manifest(&"main".parse().unwrap(), &BACKUP.parse().unwrap());
        let object = ManifestWriter::write(&object_id, repository.id(), repository.key(), &manifest).unwrap();
        let backup = Self::record(&control, &repository, &object_id, &object, &original);
        repository.store().put(&object_name(&object_id).unwrap(), object, PutMode::Create).await.unwrap();
        let summary = name::backup_summary(&backup.cluster, &backup.backup_id);
        repository.create_record(&summary, &backup).await.unwrap();
        let sample = Self { directory, store, target, repository, entries, packs, backup };
        for segment in [8, 9, 0xB] {
            sample.put_segment(segment, b"WAL", None).await;
        }
        sample.put_segment(0xA, SEGMENT, Some(facts())).await;
        sample
    }

    /// Archives a segment with these facts, or with facts of a segment without transactions.
    pub(crate) async fn put_segment(&self, number: u64, raw: &[u8], facts: Option<serde_json::Value>) {
        let segment = SegmentName::from_number(number, TimelineId::FIRST, self.backup.wal_segment_size).unwrap();
        let start = segment.start_lsn(self.backup.wal_segment_size);
        let facts = facts.unwrap_or_else(|| serde_json::json!({ "first_record_lsn": start }));
        let (id, key) = (self.repository.id(), self.repository.key());
        let file = segment.to_string();
        let name = self.wal_object(segment);
        let bytes = wal_object::encode(&name, &file, raw, Compression::of(Codec::Zstd), id, key, facts).unwrap();
        self.repository.store().put(&object_name(&name).unwrap(), bytes, PutMode::Overwrite).await.unwrap();
    }

    pub(crate) fn wal_object(&self, segment: SegmentName) -> String {
        let file = WalFileName::Segment(segment);
        name::wal_file(&self.backup.cluster, ClaimNumber::FIRST, &file, Codec::Zstd, self.repository.is_encrypted())
    }

    async fn store_packs(
        repository: &Repository,
        entries: &BTreeMap<String, Entry>,
        original: &str,
    ) -> (Manifest, Vec<PackEntry>) {
        let header = ManifestHeader {
            backup: BACKUP.to_owned(),
            cluster: "main".to_owned(),
            extent_bytes: EXTENT as u32,
            details: serde_json::Map::new(),
        };
        let mut manifest = Manifest::new(header);
        let compressor = Compressor::new(Compression::of(Codec::Zstd)).unwrap();
        let mut packer = Packer { repository, compressor, open: None, packs: Vec::new(), done: Vec::new() };
        // Twenty small files share a frame.
        let small: Vec<(&String, &Vec<u8>)> = entries
            .iter()
            .filter_map(|(path, entry)| match entry {
                Entry::File(content) if path.starts_with("base/5/s") => Some((path, content)),
                _ => None,
            })
            .collect();
        let mut grouped: BTreeMap<&str, Extent> = BTreeMap::new();
        for group in small.chunks(20) {
            let raw: Vec<u8> = group.iter().flat_map(|(_, content)| content.iter().copied()).collect();
            let (pack, location) = packer.frame(&raw);
            let mut offset = 0;
            for (path, content) in group {
                let hash = ChunkHash::of(content);
                grouped.insert(path, Extent::stored(hash, pack, location, offset, content.len() as u32));
                offset += content.len() as u32;
            }
        }
        for (path, content) in entries {
            match content {
                Entry::Directory => {
                    manifest.push(&entry(path, FileKind::Directory, 0)).unwrap();
                    // In the order of a backup: the link to a tablespace comes after its directory.
                    if path == "pg_tblspc/16400" {
                        let link = FileKind::Symlink { target: original.as_bytes() };
                        manifest.push(&entry(path, link, 0)).unwrap();
                    }
                }
                Entry::Link(target) => {
                    manifest.push(&entry(path, FileKind::Symlink { target: target.as_bytes() }, 0)).unwrap();
                }
                Entry::File(content) if path == PATCHED => {
                    let (extents, patches) = store_patched(&mut packer);
                    let kind = FileKind::File { crc32c: None, extents: Extents::of(&extents), patches: &patches };
                    manifest.push(&entry(path, kind, content.len() as u64)).unwrap();
                }
                Entry::File(content) => {
                    let extents: Vec<Extent> = match grouped.get(path.as_str()) {
                        Some(extent) => vec![*extent],
                        None => content.chunks(EXTENT).map(|raw| extent(&mut packer, raw)).collect(),
                    };
                    let kind = FileKind::file(crc32c::crc32c(content), &extents);
                    manifest.push(&entry(path, kind, content.len() as u64)).unwrap();
                }
            }
        }
        packer.close();
        manifest.set_packs(packer.packs.clone()).unwrap();
        for (name, bytes) in packer.done {
            repository.store().put(&object_name(&name).unwrap(), Bytes::from(bytes), PutMode::Create).await.unwrap();
        }
        (manifest, packer.packs)
    }

    fn record(
        control: &ControlFile,
        repository: &Repository,
        object_id: &str,
        object: &[u8],
        original: &str,
    ) -> BackupRecord {
        let size = control.wal_segment_size;
        let segment = |number| SegmentName::from_number(number, TimelineId::FIRST, size).unwrap();
        let start = Lsn::new(0x80_0028);
        BackupRecord {
            backup_id: BACKUP.parse().unwrap(),
            label: "x".to_owned(),
            cluster: "main".parse().unwrap(),
            claim: ClaimNumber::FIRST,
            backup_type: BackupType::Full,
            parent: None,
            system_identifier: control.system_identifier,
            pg_version: "18.1".to_owned(),
            pg_major: 18,
            catalog_version: 202_506_291,
            wal_segment_size: size,
            timeline: TimelineId::FIRST,
            start_lsn: start,
            stop_lsn: segment(9).start_lsn(size).saturating_add(0x100),
            start_segment: SegmentName::containing(start, TimelineId::FIRST, size),
            stop_segment: segment(9),
            start_time: "2026-08-22T10:15:00Z".parse().unwrap(),
            stop_time: "2026-08-22T10:16:00Z".parse().unwrap(),
            duration_milliseconds: 60_000,
            from_standby: false,
            data_checksums: true,
            checksum_failures: ChecksumFailures::default(),
            file_count: 0,
            removed_file_count: 0,
            size_bytes: 0,
            stored_bytes: 0,
            pack_count: 0,
            tablespaces: vec![TablespaceEntry { oid: 16400, name: "fast".to_owned(), path: original.to_owned() }],
            databases: Vec::new(),
            compression: "zstd:3".to_owned(),
            encryption: if repository.is_encrypted() { EncryptionKind::Aes256Gcm } else { EncryptionKind::None },
            manifest: ManifestEntry {
                name: object_id.to_owned(),
                size_bytes: object.len() as u64,
                sha256: sha256_hex(object),
            },
            next_xid: 800,
            host: "db1".to_owned(),
            software_version: "0.1.0".to_owned(),
            warnings: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }

    pub(crate) fn pgdata(&self) -> PathBuf {
        self.directory.path().join("pgdata")
    }

    pub(crate) fn fast(&self) -> PathBuf {
        self.directory.path().join("fast")
    }

    pub(crate) fn options(&self) -> RestoreOptions {
        RestoreOptions {
            cluster: "main".parse().unwrap(),
            pgdata: self.pgdata(),
            request: RecoveryRequest::default(),
            target_action: None,
            delta: false,
            tablespaces: vec![TablespaceMapping { tablespace: "fast".to_owned(), directory: self.fast() }],
            tablespace_root: None,
            reuse_tablespaces: Vec::new(),
            discard_wal: false,
            places: Vec::new(),
            originals: Vec::new(),
            archiving: Archiving::AsBackedUp,
            standby: false,
            jobs: 2,
            memory_bytes: 64 << 20,
            restore_command: "holdfast wal get %f %p".to_owned(),
            tail_command: None,
            retention: Some(holdfast_retention::Policy::default()),
            host: "db2".to_owned(),
            now: now(),
        }
    }

    pub(crate) async fn restore(&self) -> Result<RestoreReport, Error> {
        self.restore_with(&self.repository, &self.options()).await
    }

    pub(crate) async fn restore_with(
        &self,
        repository: &Repository,
        options: &RestoreOptions,
    ) -> Result<RestoreReport, Error> {
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        restore(repository, options, &progress, &CancellationToken::new()).await
    }

    /// Replaces an object with other bytes.
    pub(crate) async fn replace(&self, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let name = object_name(name).unwrap();
        let bytes = self.store.get(&name).await.unwrap();
        self.store.put(&name, change(bytes.to_vec()).into(), PutMode::Overwrite).await.unwrap();
    }

    /// Compares the directories with the expected result, to the last file.
    pub(crate) fn check(&self) {
        let mut found = BTreeMap::new();
        read_tree(&self.pgdata(), "", &mut found);
        let link = found.remove("pg_tblspc/16400");
        let expected_link = self.fast().to_str().unwrap().to_owned();
        assert!(matches!(link, Some((Found::Link(to), _)) if to == expected_link));
        read_tree(&self.fast(), "pg_tblspc/16400", &mut found);

        let auto_conf = String::from_utf8(take_file(&mut found, "postgresql.auto.conf")).unwrap();
        assert!(auto_conf.starts_with("work_mem = '8MB'\n# Holdfast: "), "{auto_conf}");
        assert!(auto_conf.contains("restore_command = 'holdfast wal get %f %p'\n"), "{auto_conf}");
        assert_eq!(take_file(&mut found, "recovery.signal"), b"");
        let map = String::from_utf8(take_file(&mut found, "tablespace_map")).unwrap();
        assert_eq!(map, format!("16400 {expected_link}\n"));
        self.check_backup_manifest(&take_file(&mut found, "backup_manifest"), &map);

        for (path, entry) in &self.entries {
            if ["", "postgresql.auto.conf", "standby.signal", "tablespace_map", "pg_tblspc/16400"]
                .contains(&path.as_str())
            {
                continue;
            }
            let (here, mode) = found.remove(path).unwrap_or_else(|| panic!("{path} is missing"));
            match (entry, here) {
                (Entry::Directory, Found::Directory) => assert_eq!(mode, 0o700, "{path}"),
                (Entry::File(content), Found::File(here)) => {
                    assert!(*content == here, "{path} differs");
                    assert_eq!(mode, 0o600, "{path}");
                }
                (Entry::Link(to), Found::Link(here)) => assert_eq!(*to, here),
                (entry, _) => panic!("{path} should be {entry:?}"),
            }
        }
        assert!(found.is_empty(), "too much: {:?}", found.keys());
    }

    /// The paths, sizes and checksums that `pg_verifybackup` would compare.
    fn check_backup_manifest(&self, text: &[u8], map: &str) {
        let value: serde_json::Value = serde_json::from_slice(text).unwrap();
        let files = value.pointer("/Files").and_then(|files| files.as_array()).unwrap();
        let of_backup = self.entries.values().filter(|entry| matches!(entry, Entry::File(_)));
        assert_eq!(files.len(), of_backup.count());
        for file in files {
            let path = file.get("Path").and_then(|path| path.as_str()).unwrap();
            if path == "postgresql.auto.conf" {
                continue;
            }
            let Some(Entry::File(content)) = self.entries.get(path) else { panic!("{path} is not a file") };
            let content = if path == "tablespace_map" { map.as_bytes() } else { content };
            let checksum = hex::encode(crc32c::crc32c(content).to_le_bytes());
            let expected = (path != PATCHED).then_some(checksum.as_str());
            assert_eq!(file.get("Size").and_then(serde_json::Value::as_u64), Some(content.len() as u64));
            assert_eq!(file.get("Checksum").and_then(|c| c.as_str()), expected);
        }
        let end = text.windows(20).rposition(|window| window == b"\"Manifest-Checksum\":").unwrap();
        let digest = value.get("Manifest-Checksum").and_then(|digest| digest.as_str()).unwrap();
        assert_eq!(digest, sha256_hex(&text[..end]));
    }

    /// Checks the state of an interrupted restore: PostgreSQL would not start, and there is a resume point.
    pub(crate) fn check_interrupted(&self) {
        assert!(!self.pgdata().join("global/pg_control").exists());
        if self.pgdata().exists() {
            assert!(
                self.pgdata().join(RESUME_POINT).exists() || std::fs::read_dir(self.pgdata()).unwrap().next().is_none()
            );
        }
    }
}

fn entry<'a>(path: &'a str, kind: FileKind<'a>, size_bytes: u64) -> FileEntry<'a> {
    let mode = if matches!(kind, FileKind::File { .. }) { 0o600 } else { 0o700 };
    FileEntry { path: path.as_bytes(), kind, mode, size_bytes, mtime_seconds: 1_787_393_700 }
}

/// The path of the file that has patches.
pub(crate) const PATCHED: &str = "base/5/1264";

/// Its patches: the extent, the place in it, the length, and the seed of the bytes; `None` for zeros. The second covers
/// a part of the first, the third is inside the second, and the last extent has none.
const PATCHES: [(usize, usize, usize, Option<u64>); 7] = [
    (0, 0, 8192, Some(50)),
    (0, 4096, 8192, Some(51)),
    (0, 6000, 10, Some(52)),
    (0, 40_960, 8192, None),
    (0, 57_344, 8192, Some(53)),
    (1, 0, 50_000, Some(54)),
    (1, 60_000, 100, Some(55)),
];

fn patch_bytes(length: usize, seed: Option<u64>) -> Vec<u8> {
    seed.map_or_else(|| vec![0; length], |seed| noise(seed, length))
}

/// The bytes below the patches: an extent, a hole, and a page.
fn patched_bases() -> [Vec<u8>; 3] {
    [noise(60, EXTENT), vec![0; EXTENT], noise(61, 8192)]
}

pub(crate) fn patched_content() -> Vec<u8> {
    let mut content = patched_bases().concat();
    for (extent, at, length, seed) in PATCHES {
        let start = extent * EXTENT + at;
        content[start..start + length].copy_from_slice(&patch_bytes(length, seed));
    }
    content
}

/// All patches that are not holes are in one frame, in another order.
fn store_patched(packer: &mut Packer<'_>) -> (Vec<Extent>, Vec<Patch>) {
    let extents = patched_bases().iter().map(|raw| extent(packer, raw)).collect();
    let stored = PATCHES.iter().rev().filter(|(.., seed)| seed.is_some());
    let raw: Vec<u8> = stored.flat_map(|(.., length, seed)| patch_bytes(*length, *seed)).collect();
    let (pack, location) = packer.frame(&raw);
    let mut end = raw.len();
    let patches = PATCHES.iter().map(|(extent, at, length, seed)| {
        let bytes = patch_bytes(*length, *seed);
        let (hash, length) = (ChunkHash::of(&bytes), *length as u32);
        let place = if seed.is_none() {
            Extent::hole(hash, length)
        } else {
            end -= bytes.len();
            Extent::stored(hash, pack, location, end as u32, length)
        };
        Patch { extent: *extent as u32, at: *at as u32, place }
    });
    (extents, patches.collect())
}

fn extent(packer: &mut Packer<'_>, raw: &[u8]) -> Extent {
    let hash = ChunkHash::of(raw);
    if is_all_zero(raw) {
        return Extent::hole(hash, raw.len() as u32);
    }
    let (pack, location) = packer.frame(raw);
    Extent::stored(hash, pack, location, 0, raw.len() as u32)
}

pub(crate) enum Found {
    Directory,
    File(Vec<u8>),
    Link(String),
}

fn take_file(found: &mut BTreeMap<String, (Found, u32)>, path: &str) -> Vec<u8> {
    match found.remove(path) {
        Some((Found::File(content), _)) => content,
        _ => panic!("{path} is not a file"),
    }
}

fn read_tree(root: &Path, below: &str, found: &mut BTreeMap<String, (Found, u32)>) {
    for entry in std::fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let metadata = entry.metadata().unwrap();
        let mode = metadata.mode() & 0o7777;
        if metadata.is_dir() {
            found.insert(path.clone(), (Found::Directory, mode));
            read_tree(&entry.path(), &path, found);
        } else if metadata.is_symlink() {
            let target = std::fs::read_link(entry.path()).unwrap();
            found.insert(path, (Found::Link(target.to_str().unwrap().to_owned()), mode));
        } else {
            found.insert(path, (Found::File(std::fs::read(entry.path()).unwrap()), mode));
        }
    }
}

/// The start LSN in the label of the sample, which is also in the summary.
pub(crate) fn label_start() -> Lsn {
    let Some(Entry::File(label)) = entries("/x").remove("backup_label") else { panic!("no label") };
    BackupLabel::parse(&label).unwrap().start_lsn
}
