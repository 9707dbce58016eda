//! Every kind of damage in a repository in a directory, and the words for it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod cases;
mod remembering;
mod repairing;
mod scrub;
mod whole;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_contract::report::verify::{BackupResult, Compared, DamageKind, ObjectClass};
use holdfast_pgtypes::{PgVersion, SegmentName, TimelineId, WalFileName};
use holdfast_repo::codec::{Codec, Compression};
use holdfast_repo::manifest::{Manifest, ManifestHeader, ManifestWriter};
use holdfast_repo::name::{self, BackupId, ClaimNumber};
use holdfast_repo::record::{BackupRecord, ManifestEntry, StartRecord, encode_plain, sha256_hex};
use holdfast_repo::wal_object;
use holdfast_store::{DirectoryStore, PutMode, Store};

use self::cases::CASES;
use super::*;
use crate::progress::Silent;
use crate::repository::RepositoryTarget;
use crate::restore::tests::patched::{CHILD, store_child};
use crate::restore::tests::sample::{Sample, now};

/// A repository in a directory: one backup with its WAL, segments 8 to B of timeline 1.
pub(super) struct Bench {
    pub(super) sample: Sample,
    pub(super) repository: Repository,
    pub(super) target: RepositoryTarget,
    pub(super) root: PathBuf,
}

/// A segment with a sound first page.
pub(crate) fn segment(sample: &Sample, name: SegmentName, system_identifier: u64) -> Vec<u8> {
    let size = sample.backup.wal_segment_size;
    let mut bytes = Vec::new();
    bytes.extend(PgVersion::V18.wal_page_magic().to_le_bytes());
    bytes.extend(2_u16.to_le_bytes());
    bytes.extend(name.timeline().get().to_le_bytes());
    bytes.extend(name.start_lsn(size).as_u64().to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(system_identifier.to_le_bytes());
    bytes.extend(size.bytes().to_le_bytes());
    bytes.extend(8192_u32.to_le_bytes());
    bytes.resize(size.bytes() as usize, 7);
    bytes
}

pub(crate) fn named(sample: &Sample, timeline: u32, number: u64) -> SegmentName {
    SegmentName::from_number(number, TimelineId::new(timeline).unwrap(), sample.backup.wal_segment_size).unwrap()
}

/// The object of a WAL file and its bytes.
pub(crate) fn wal(sample: &Sample, repository: &Repository, file: WalFileName, raw: &[u8]) -> (String, bytes::Bytes) {
    let object =
        name::wal_file(&sample.backup.cluster, ClaimNumber::FIRST, &file, Codec::Zstd, repository.is_encrypted());
    let facts = match file {
        WalFileName::Segment(segment) => {
            serde_json::json!({ "first_record_lsn": segment.start_lsn(sample.backup.wal_segment_size) })
        }
        _ => serde_json::Value::Null,
    };
    let (id, key) = (repository.id(), repository.key());
    let compression = Compression::of(Codec::Zstd);
    let bytes = wal_object::encode(&object, &file.to_string(), raw, compression, id, key, facts).unwrap();
    (object, bytes)
}

impl Bench {
    pub(super) async fn new(encrypted: bool) -> Self {
        Self::of(Sample::new(encrypted).await).await
    }

    pub(super) async fn of(sample: Sample) -> Self {
        let system = sample.backup.system_identifier.as_u64();
        for number in 8..=0xB {
            let segment_name = named(&sample, 1, number);
            let raw = segment(&sample, segment_name, system);
            sample.put_segment(number, &raw, None).await;
        }
        let start = StartRecord {
            backup_id: sample.backup.backup_id,
            cluster: sample.backup.cluster.clone(),
            claim: sample.backup.claim,
            system_identifier: sample.backup.system_identifier,
            host: "db1".to_owned(),
            pid: 1,
            pgdata: "/srv/pg".to_owned(),
            started: now(),
            software_version: "0.1.0".to_owned(),
            parent: None,
            run: None,
        };
        let object = name::backup_start(&start.cluster, &start.backup_id);
        sample.repository.create_record(&object, &start).await.unwrap();
        let root = sample.directory.path().join("repository");
        let store = DirectoryStore::create(&root).await.unwrap();
        for object in sample.store.list("", None).await.unwrap() {
            let bytes = sample.store.get(&object.name).await.unwrap();
            store.put(&object.name, bytes, PutMode::Create).await.unwrap();
        }
        let target = RepositoryTarget { store: Arc::new(store), unlock: sample.target.unlock.clone() };
        let repository = Repository::open(&target).await.unwrap();
        Self { sample, repository, target, root }
    }

    pub(super) fn options(&self, level: Level) -> VerifyOptions {
        VerifyOptions {
            cluster: self.sample.backup.cluster.clone(),
            which: BackupChoice::All,
            level,
            sample: None,
            max_age: None,
            remember_every: Duration::from_mins(5),
            remember: true,
            jobs: 2,
            memory_bytes: 64 << 20,
            host: "db1".to_owned(),
            now: now(),
        }
    }

    pub(super) async fn verify_with(&self, options: &VerifyOptions) -> Result<Verification, Error> {
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        verify(&self.repository, options, &progress, &CancellationToken::new()).await
    }

    pub(super) async fn verify(&self, level: Level) -> Verification {
        self.verify_with(&self.options(level)).await.unwrap()
    }

    pub(super) fn file(&self, object: &str) -> PathBuf {
        self.root.join(object)
    }

    pub(super) fn change(&self, object: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(self.file(object)).unwrap();
        change(&mut bytes);
        self.write(object, &bytes);
    }

    pub(super) fn write(&self, object: &str, bytes: &[u8]) {
        let path = self.file(object);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        // Objects in a directory are read-only files.
        std::fs::remove_file(&path).ok();
        std::fs::write(path, bytes).unwrap();
    }

    pub(super) fn remove(&self, object: &str) {
        std::fs::remove_file(self.file(object)).unwrap();
    }

    fn pack(&self, number: usize) -> String {
        self.sample.packs[number].name.clone()
    }

    fn manifest(&self) -> String {
        self.sample.backup.manifest.name.clone()
    }

    fn summary(&self) -> String {
        name::backup_summary(&self.sample.backup.cluster, &self.sample.backup.backup_id)
    }

    pub(super) fn wal_object(&self, timeline: u32, number: u64) -> String {
        let file = WalFileName::Segment(named(&self.sample, timeline, number));
        let cluster = &self.sample.backup.cluster;
        name::wal_file(cluster, ClaimNumber::FIRST, &file, Codec::Zstd, self.repository.is_encrypted())
    }

    fn history(&self) -> String {
        let file = WalFileName::History(TimelineId::new(2).unwrap());
        let cluster = &self.sample.backup.cluster;
        name::wal_file(cluster, ClaimNumber::FIRST, &file, Codec::Zstd, self.repository.is_encrypted())
    }

    /// A second timeline, which begins in segment A.
    fn promote(&self) {
        let file = WalFileName::History(TimelineId::new(2).unwrap());
        let text = "1\t0/A00100\tno recovery target specified\n";
        let (object, bytes) = wal(&self.sample, &self.repository, file, text.as_bytes());
        self.write(&object, &bytes);
        let (name, system) = (named(&self.sample, 2, 0xA), self.sample.backup.system_identifier.as_u64());
        let raw = segment(&self.sample, name, system);
        let (object, bytes) = wal(&self.sample, &self.repository, WalFileName::Segment(name), &raw);
        self.write(&object, &bytes);
    }
}

fn flip(at: impl Fn(usize) -> usize) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| {
        let at = at(bytes.len());
        bytes[at] ^= 0x10;
    }
}

/// Changes the host in a record, or a bit if the record is encrypted.
fn other_host(bytes: &mut Vec<u8>) {
    match bytes.windows(3).position(|window| window == b"db1") {
        Some(at) => bytes[at + 2] = b'2',
        None => flip(|length| length / 2)(bytes),
    }
}

/// Whether a damage affects the backup or a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Backup,
    Window,
    Nothing,
}

struct Case {
    what: &'static str,
    plant: fn(&Bench),
    /// The lowest level that finds it.
    level: Level,
    class: ObjectClass,
    kind: DamageKind,
    /// The text after the name and the words of the kind, without encryption.
    words: &'static str,
    harm: Harm,
}

/// Whether a text is this one, with anything for each `*`.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    for part in parts {
        if part.is_empty() {
            return true;
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

#[tokio::test]
async fn every_kind_of_damage_is_found_and_named() {
    for case in CASES {
        for encrypted in [false, true] {
            let bench = Bench::new(encrypted).await;
            (case.plant)(&bench);
            let context = format!("{}, encrypted: {encrypted}", case.what);
            if case.level == Level::Deep {
                let shallow = bench.verify(Level::Shallow).await;
                assert_eq!(shallow.damage, [], "{context}");
            }
            for level in [Level::Shallow, Level::Deep].into_iter().filter(|level| *level >= case.level) {
                let found = bench.verify(level).await;
                assert!(found.interrupted.is_none(), "{context}: {:?}", found.interrupted);
                let [damage] = found.damage.as_slice() else { panic!("{context}: {:?}", found.damage) };
                assert_eq!(damage.class, case.class, "{context}: {damage}");
                let id = bench.sample.backup.backup_id;
                let harms_backup = damage.backups == [id];
                let harm = match (harms_backup, damage.windows.is_empty()) {
                    (true, _) => Harm::Backup,
                    (false, false) => Harm::Window,
                    (false, true) => Harm::Nothing,
                };
                assert_eq!(harm, case.harm, "{context}: {damage:?}");
                let expected = if harms_backup { BackupResult::Damaged } else { BackupResult::Sound };
                assert_eq!(found.backups[0].result, expected, "{context}");
                if !encrypted {
                    assert_eq!(damage.kind, case.kind, "{context}: {damage}");
                    let size = bench.sample.packs[0].size_bytes;
                    let words = case.words.replace("{size}", &size.to_string());
                    let words = words.replace("{size+1}", &(size + 1).to_string());
                    let expected = format!("{} {} {}{words}", case.class.words(), damage.object, case.kind.words());
                    assert!(matches(&expected, &damage.to_string()), "{context}:\n{damage}\n{expected}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_sound_repository_gives_no_damage() {
    for encrypted in [false, true] {
        for promoted in [false, true] {
            let bench = Bench::new(encrypted).await;
            if promoted {
                bench.promote();
            }
            for level in [Level::Shallow, Level::Deep] {
                let found = bench.verify(level).await;
                assert!(found.interrupted.is_none() && found.damage.is_empty(), "{found:?}");
                assert_eq!((found.newer.len(), found.notes.clone()), (0, Vec::new()));
                let [backup] = found.backups.as_slice() else { panic!("{found:?}") };
                assert_eq!((backup.result, backup.level, backup.recorded), (BackupResult::Sound, level, true));
                assert_eq!(backup.compared, Compared::Size);
                assert_eq!(backup.pack_count, bench.sample.packs.len() as u64);
                let [claim] = found.claims.as_slice() else { panic!("{found:?}") };
                assert_eq!(claim.windows, claim.sound_windows);
                assert_eq!(claim.windows.len(), if promoted { 2 } else { 1 });
                let segments = if promoted { 5 } else { 4 };
                assert_eq!(claim.segment_count, segments);
                assert_eq!(claim.segments_read, if level == Level::Deep { segments } else { 0 });
                let packs: u64 = bench.sample.packs.iter().map(|pack| pack.size_bytes).sum();
                let read = if level == Level::Deep { packs + (segments << 20) } else { 0 };
                assert_eq!(found.read_bytes, read);
            }
        }
    }
}

/// If the store keeps a checksum of the whole object, a changed pack is found without reading it.
#[tokio::test]
async fn a_store_with_checksums_finds_a_changed_pack_at_once() {
    let sample = Sample::new(false).await;
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let bench = Bench::of(sample).await;
    let options = VerifyOptions { remember: false, ..bench.options(Level::Shallow) };
    let cancel = CancellationToken::new();
    let found = verify(&bench.sample.repository, &options, &progress, &cancel).await.unwrap();
    assert_eq!((found.damage.len(), found.backups[0].compared), (0, Compared::Checksum));
    let name = bench.pack(1);
    bench
        .sample
        .replace(&name, |mut bytes| {
            bytes[5000] ^= 1;
            bytes
        })
        .await;
    let found = verify(&bench.sample.repository, &options, &progress, &cancel).await.unwrap();
    let [damage] = found.damage.as_slice() else { panic!("{found:?}") };
    let words =
        format!("pack {name} does not match its checksum: the store says that its CRC-32C is *, the manifest says *");
    assert!(matches(&words, &damage.to_string()), "{damage}");
    assert_eq!(found.backups[0].result, BackupResult::Damaged);
    assert_eq!(found.claims[0].sound_windows, []);
}

/// The pack has the same size, and every frame alone is sound.
#[tokio::test]
async fn a_pack_of_another_backup_is_found_by_reading() {
    for encrypted in [false, true] {
        let (bench, other) = (Bench::new(encrypted).await, Bench::new(encrypted).await);
        // Of the files that are always read, it holds only those that both backups share.
        let name = bench.pack(0);
        let theirs = std::fs::read(other.file(&name)).unwrap();
        bench.change(&name, |bytes| {
            let length = bytes.len().min(theirs.len());
            bytes[..length].copy_from_slice(&theirs[..length]);
        });
        let found = bench.verify(Level::Deep).await;
        let [damage] = found.damage.as_slice() else { panic!("{found:?}") };
        // The pack is of another repository; in an encrypted one its frames cannot be opened.
        let kind = if encrypted { DamageKind::NotAuthentic } else { DamageKind::Foreign };
        assert_eq!((damage.kind, damage.backups.len()), (kind, 1), "{damage}");
    }
}

/// In a repository without encryption only this check binds an object to its name.
#[tokio::test]
async fn the_manifest_or_record_of_another_backup_is_foreign() {
    let bench = Bench::new(false).await;
    let (name, id) = (bench.manifest(), bench.repository.id());
    let own = Manifest::parse(&name, &std::fs::read(bench.file(&name)).unwrap(), id, None).unwrap();
    let mut other = Manifest::new(ManifestHeader { backup: CHILD.to_owned(), ..own.header().clone() });
    for entry in own.files() {
        other.push(&entry).unwrap();
    }
    other.set_packs(own.packs().to_vec()).unwrap();
    let object = ManifestWriter::write(&name, id, None, &other).unwrap();
    let manifest = ManifestEntry { name: name.clone(), size_bytes: object.len() as u64, sha256: sha256_hex(&object) };
    let record = BackupRecord { manifest, ..bench.sample.backup.clone() };
    bench.write(&name, &object);
    bench.write(&bench.summary(), &encode_plain(&record).unwrap());
    let found = bench.verify(Level::Shallow).await;
    let [damage] = found.damage.as_slice() else { panic!("{found:?}") };
    let words = "is another object than its name says: it is the manifest of backup";
    assert_eq!(damage.to_string(), format!("manifest {name} {words} {CHILD} of main"));

    let other = BackupRecord { backup_id: CHILD.parse().unwrap(), ..record };
    bench.write(&bench.summary(), &encode_plain(&other).unwrap());
    let found = bench.verify(Level::Shallow).await;
    let [damage] = found.damage.as_slice() else { panic!("{found:?}") };
    let words = format!("is another object than its name says: it is of backup {CHILD} of cluster main");
    assert_eq!(damage.to_string(), format!("backup record {} {words}", bench.summary()));
}

/// Objects of a newer release are not damaged.
#[tokio::test]
async fn what_a_newer_release_wrote_is_not_called_damaged() {
    let bench = Bench::new(false).await;
    bench.change(&bench.summary(), |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap().replace("\"version\": 1", "\"version\": 2");
        *bytes = text.into_bytes();
    });
    let found = bench.verify(Level::Deep).await;
    assert_eq!((found.damage.len(), found.backups[0].result), (0, BackupResult::Newer));
    assert!(!found.backups[0].recorded);
    let [newer] = found.newer.as_slice() else { panic!("{found:?}") };
    assert_eq!(newer.reason, "backup record of version 2, this software reads up to version 1");
    assert_eq!((newer.object.clone(), newer.backups.len()), (bench.summary(), 1));
}

/// A manifest that takes over frames of an earlier one needs it.
#[tokio::test]
async fn a_missing_parent_manifest_harms_the_child() {
    for encrypted in [false, true] {
        let sample = Sample::with(encrypted, true).await;
        let child = store_child(&sample).await.backup_id;
        let bench = Bench::of(sample).await;
        let parent = bench.sample.backup.backup_id;
        let found = bench.verify(Level::Deep).await;
        assert_eq!(found.damage, []);
        // Both name the same packs, which are read once.
        let packs: u64 = bench.sample.packs.iter().map(|pack| pack.size_bytes).sum();
        assert_eq!(found.read_bytes, packs + (4 << 20) + (4 << 20));
        assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
        bench.remove(&bench.manifest());
        let found = bench.verify(Level::Shallow).await;
        let [damage] = found.damage.as_slice() else { panic!("{found:?}") };
        assert_eq!((damage.kind, damage.class), (DamageKind::Missing, ObjectClass::Manifest));
        assert_eq!(damage.backups, [parent, child]);
        let results: Vec<BackupResult> = found.backups.iter().map(|backup| backup.result).collect();
        assert_eq!(results, [BackupResult::Damaged, BackupResult::Damaged]);
    }
}

#[tokio::test]
async fn a_missing_backup_or_archive_is_an_error() {
    let bench = Bench::new(false).await;
    let unknown: BackupId = "20200101T000000Z".parse().unwrap();
    let options = VerifyOptions { which: BackupChoice::One(unknown), ..bench.options(Level::Shallow) };
    let error = bench.verify_with(&options).await.unwrap_err();
    assert!(matches!(*error.what, Cause::NoSuchBackup { .. }), "{error}");
    let options = VerifyOptions { cluster: "other".parse().unwrap(), ..bench.options(Level::Shallow) };
    let error = bench.verify_with(&options).await.unwrap_err();
    assert!(matches!(*error.what, Cause::NoClaim { .. }), "{error}");
}
