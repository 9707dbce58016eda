//! An incremental backup of a large cluster in which nothing has changed: time, memory and bytes of its manifest work.
//! The files are invented, so nothing is listed or read.

use std::time::Instant;

use holdfast_contract::report::backup::BackupReport;
use holdfast_repo::manifest::{Extent, FileEntry, FileKind, ManifestHeader, ManifestWriter, PackEntry, PackIdentity};
use holdfast_repo::record::{ManifestEntry, sha256_hex};
use holdfast_repo::{ChunkHash, FrameLocation};
use holdfast_secret::Secret;
use holdfast_testkit::random::{Random, number_in};

use super::super::incremental::Base;
use super::super::incremental::lane::ParentLane;
use super::super::listing::{Directory, PageCheck, SourceFile};
use super::*;
use crate::restore::{Trial, try_manifest};

const REPORT: &str = include_str!("../../../../contract/tests/samples/backup-2.json");

/// The number of files, unless `HOLDFAST_TEST_FILES` is set. A million need 3 GiB for the store in memory.
const FILES: u64 = 40_000;

/// The extents of each file.
const EXTENTS: u64 = 10;

/// The extents in a pack.
const IN_A_PACK: u64 = 300;

const MIB: u64 = 1 << 20;

/// `VmRSS` or `VmHWM` of this process in MiB.
fn resident_mib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

fn path(number: u64) -> String {
    format!("base/{}/{number}", 16384 + number / 10_000)
}

fn source(number: u64) -> SourceFile {
    SourceFile {
        path: path(number).as_bytes().into(),
        size_bytes: EXTENTS * MIB,
        mtime: 1_787_393_700,
        mode: 0o600,
        check: PageCheck::Off,
        identity: None,
    }
}

fn root() -> Directory {
    Directory { path: b"".as_slice().into(), mode: 0o700, mtime: 1 }
}

fn record_of(manifest: ManifestEntry, backup_id: BackupId) -> BackupRecord {
    let report: BackupReport = serde_json::from_str(REPORT).unwrap();
    let cluster = "main".parse().unwrap();
    BackupRecord { backup_id, cluster, manifest, tablespaces: Vec::new(), ..report.repositories[0].backup.clone() }
}

/// The packs of a backup, with salts and checksums that do not compress.
fn packs(cluster: &ClusterName, id: BackupId, count: u64, random: &mut Random) -> Vec<PackEntry> {
    let mut pack = |number| {
        let mut salt = [0; 32];
        salt[..28].as_chunks_mut::<4>().0.fill_with(|| (random.word() as u32).to_le_bytes());
        let identity = Some(PackIdentity { salt, crc32c: random.word() as u32 });
        let size_bytes = 128 * MIB + random.below(MIB);
        PackEntry { identity, ..PackEntry::new(name::pack(cluster, &id, number), size_bytes) }
    };
    (1..=count as u32).map(&mut pack).collect()
}

/// Stores the manifest of a full backup.
async fn store_parent(repository: &Repository, id: BackupId, files: u64) -> BackupRecord {
    let cluster: ClusterName = "main".parse().unwrap();
    let name = name::manifest(&cluster, &id);
    let details = serde_json::Map::new();
    let header =
        ManifestHeader { backup: id.to_string(), cluster: cluster.to_string(), extent_bytes: MIB as u32, details };
    let (mut writer, start) = ManifestWriter::new(&name, repository.id(), repository.key(), &header).unwrap();
    let mut object = start.to_vec();
    object.extend(writer.push(&root().entry()).unwrap().unwrap_or_default());
    let mut random = Random::of_seed(1);
    for number in 0..files {
        let extents: Vec<Extent> = (number * EXTENTS..(number + 1) * EXTENTS)
            .map(|extent| {
                let mut hash = [0; 32];
                hash.as_chunks_mut::<8>().0.fill_with(|| random.word().to_le_bytes());
                let location = FrameLocation { offset: (extent % IN_A_PACK) as u32 * 400_000 + 92, length: 400_000 };
                let pack = (extent / IN_A_PACK) as u32;
                Extent::stored(ChunkHash::from_bytes(hash), pack, location, 0, MIB as u32)
            })
            .collect();
        let file = source(number);
        let entry = FileEntry {
            path: &file.path,
            kind: FileKind::file(number as u32, &extents),
            mode: file.mode,
            size_bytes: file.size_bytes,
            mtime_seconds: file.mtime_seconds(),
        };
        object.extend(writer.push(&entry).unwrap().unwrap_or_default());
    }
    let packs = packs(&cluster, id, (files * EXTENTS).div_ceil(IN_A_PACK), &mut random);
    object.extend(writer.finish(&packs).unwrap());
    let (size_bytes, sha256) = (object.len() as u64, sha256_hex(&object));
    repository.store().put(&object_name(&name).unwrap(), object.into(), PutMode::Create).await.unwrap();
    record_of(ManifestEntry { name, size_bytes, sha256 }, id)
}

#[tokio::test]
async fn nothing_has_changed_in_a_large_cluster() {
    let files = number_in("HOLDFAST_TEST_FILES").unwrap_or(FILES);
    let key = Secret::new((0..32).collect::<Vec<u8>>());
    let target = RepositoryTarget { store: Arc::new(MemoryStore::new()), unlock: Unlock::KeyFile(key) };
    let repository = init::init(&target, now()).await.unwrap().repository;
    let crew = Crew::new(2);
    let record = store_parent(&repository, BackupId::new(now()).unwrap(), files).await;
    let before = resident_mib("VmRSS");
    // The next peak begins here.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();

    let began = Instant::now();
    let Trial { manifest, index } = try_manifest(&repository, &record, &crew).await.unwrap();
    let read = began.elapsed();
    let base = Base::new(Arc::clone(&manifest), Arc::new(index), None, 64);
    let (cluster, cancel) = (record.cluster.clone(), CancellationToken::new());
    let id = BackupId::new(now() + chrono::TimeDelta::minutes(1)).unwrap();
    let sink = Sink::new(repository.clone(), &cluster, id, PART_BYTES, MIB as u32, 64 << 20, &cancel).await.unwrap();
    let mut sinks = Sinks::new(&Silent, cancel);
    sinks.add(repository.describe(), Ok(sink.with_parent(Some(ParentLane::of_base(Arc::clone(&manifest))))));
    sinks.entry(&root().entry()).await.unwrap();
    sinks.end_group().await.unwrap();
    for number in 0..files {
        let file = source(number);
        sinks.kept_file(&file, base.find(&file.path).unwrap()).await.unwrap();
    }
    sinks.unchanged_files().await.unwrap();
    drop((base, manifest));
    let stored = sinks.finish().await.unwrap().pop().flatten().unwrap();
    let written = began.elapsed();
    let child = record_of(stored.manifest.clone(), id);
    let Trial { manifest, .. } = try_manifest(&repository, &child, &crew).await.unwrap();
    let all = began.elapsed();
    assert_eq!((manifest.len() as u64, manifest.extent_count()), (files + 1, files * EXTENTS));
    assert_eq!(manifest.origins().len(), 1);
    assert_eq!(manifest.packs().len() as u64, (files * EXTENTS).div_ceil(IN_A_PACK));
    let (full, incremental) = (record.manifest.size_bytes, stored.manifest.size_bytes);
    eprintln!(
        "{files} files of {EXTENTS} MiB: a manifest of {full} bytes, then one of {incremental} bytes; read in \
         {read:.1?}, written after {written:.1?}, read back after {all:.1?}; {} MiB at most",
        resident_mib("VmHWM").saturating_sub(before)
    );
    assert!(incremental * 30 < full, "{incremental} of {full} bytes");
    assert!(incremental < 10_000_000, "{incremental} bytes");
}
