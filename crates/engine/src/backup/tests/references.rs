//! Chains of manifests that refer to earlier ones, without files or a server: each manifest has exactly the files of
//! its time, in every repository, and a long chain neither grows nor depends on more and more objects.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use holdfast_contract::report::backup::BackupReport;
use holdfast_repo::manifest::{Extent, FileEntry, FileKind, Manifest, ManifestWriter, Patch};
use holdfast_repo::record::sha256_hex;
use holdfast_repo::{ChunkHash, Compressor, FrameKind, FrameLocation};
use holdfast_secret::Secret;
use holdfast_testkit::random::{Random, number_in};

use super::super::incremental::Base;
use super::super::incremental::lane::ParentLane;
use super::super::listing::{Directory, PageCheck, SourceFile};
use super::super::sinks::FrameLocations;
use super::*;
use crate::restore::{PathIndex, Trial, try_manifest};

const REPORT: &str = include_str!("../../../../contract/tests/samples/backup-2.json");

const PAGE: u32 = 8192;

/// The most objects to which a manifest refers (`incremental/sharing.rs`).
const MOST_OBJECTS: usize = 16;

/// Bytes in a pack, with their place in each repository.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Placed {
    hash: ChunkHash,
    length: u32,
    backup: BackupId,
    locations: Vec<FrameLocation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct File {
    mtime: i64,
    mode: u32,
    crc32c: Option<u32>,
    extents: Vec<Placed>,
    /// The offset of each patch in the first extent.
    patches: Vec<(u32, Placed)>,
}

impl File {
    fn size_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| u64::from(extent.length)).sum()
    }

    fn source(&self, path: &str) -> SourceFile {
        SourceFile {
            path: path.as_bytes().into(),
            size_bytes: self.size_bytes(),
            mtime: self.mtime,
            mode: self.mode,
            check: PageCheck::Off,
            identity: None,
        }
    }
}

/// What happens to a file before a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Same,
    /// Only its time changes.
    Touched,
    Patched,
    Rewritten,
}

/// An unencrypted and an encrypted repository with the backups of one cluster.
struct Chain {
    repositories: Vec<Repository>,
    /// The newest backup in each repository.
    records: Vec<Option<BackupRecord>>,
    files: BTreeMap<String, File>,
    cluster: ClusterName,
    crew: Crew,
    number: i64,
}

async fn repository(unlock: Unlock) -> Repository {
    let target = RepositoryTarget { store: Arc::new(MemoryStore::new()), unlock };
    init::init(&target, now()).await.unwrap().repository
}

fn record_of(stored: &Stored, backup_id: BackupId) -> BackupRecord {
    let report: BackupReport = serde_json::from_str(REPORT).unwrap();
    BackupRecord {
        backup_id,
        cluster: "main".parse().unwrap(),
        manifest: stored.manifest.clone(),
        tablespaces: Vec::new(),
        ..report.repositories[0].backup.clone()
    }
}

/// A running backup of a chain.
struct Step<'a> {
    sinks: Sinks<'a>,
    id: BackupId,
    compressor: Compressor,
    random: &'a mut Random,
}

impl Step<'_> {
    /// Stores bytes that nobody has stored before.
    async fn store(&mut self, length: u32) -> (FrameLocations, Placed) {
        let mut raw = self.random.word().to_le_bytes().to_vec();
        raw.extend(self.random.word().to_le_bytes());
        let hash = ChunkHash::of(&raw);
        // The frame is shorter than the extent: nothing reads it.
        let frame = self.compressor.compress(FrameKind::Data, &raw).unwrap();
        let permit = ByteBudget::new(1 << 20).acquire(1000).await;
        let places = self.sinks.frame(frame, &[], &[], permit).await.unwrap();
        let locations = places.iter().flatten().map(|(_, location)| *location).collect();
        (places, Placed { hash, length, backup: self.id, locations })
    }

    async fn write(&mut self, path: &str, file: &mut File, base: Option<u32>) {
        for number in 0..file.extents.len() {
            let length = file.extents[number].length;
            let (places, stored) = self.store(length).await;
            let hash = stored.hash;
            file.extents[number] = stored;
            let extent = |_: &mut Sink, place: Option<&(u32, FrameLocation)>| {
                let (pack, location) = place.unwrap();
                Ok(Extent::stored(hash, *pack, *location, 0, length))
            };
            self.sinks.extent(&places, extent).unwrap();
        }
        file.patches.clear();
        file.crc32c = Some(self.random.word() as u32);
        self.sinks.finish_file(&file.source(path), file.size_bytes(), file.crc32c, base).await.unwrap();
    }

    async fn patch(&mut self, path: &str, file: &mut File, base: u32) {
        self.sinks.kept_extent(base, 0).unwrap();
        let (at, length) = (64 * self.random.below(4) as u32, 64);
        let (places, stored) = self.store(length).await;
        let hash = stored.hash;
        let extent = |_: &mut Sink, place: Option<&(u32, FrameLocation)>| {
            let (pack, location) = place.unwrap();
            Ok(Extent::stored(hash, *pack, *location, 0, length))
        };
        self.sinks.patch(&places, 0, at, extent).unwrap();
        file.patches.retain(|(old, _)| *old != at);
        file.patches.push((at, stored));
        file.crc32c = None;
        for number in 1..file.extents.len() {
            self.sinks.kept_extent(base, number as u32).unwrap();
        }
        self.sinks.finish_file(&file.source(path), file.size_bytes(), None, Some(base)).await.unwrap();
    }

    /// A file whose content is the parent's, found in one of two ways.
    async fn keep(&mut self, path: &str, file: &File, base: u32) {
        if self.random.below(2) == 0 {
            return self.sinks.kept_file(&file.source(path), base).await.unwrap();
        }
        for number in 0..file.extents.len() {
            self.sinks.kept_extent(base, number as u32).unwrap();
        }
        self.sinks.finish_file(&file.source(path), file.size_bytes(), file.crc32c, Some(base)).await.unwrap();
    }
}

impl Chain {
    async fn new() -> Self {
        let key = Secret::new((0..32).collect::<Vec<u8>>());
        Self {
            repositories: vec![repository(Unlock::NotEncrypted).await, repository(Unlock::KeyFile(key)).await],
            records: vec![None, None],
            files: BTreeMap::new(),
            cluster: "main".parse().unwrap(),
            crew: Crew::new(2),
            number: 0,
        }
    }

    fn add(&mut self, path: String, random: &mut Random) {
        let extent = |length| Placed {
            hash: ChunkHash::of(b""),
            length,
            backup: BackupId::new(now()).unwrap(),
            locations: Vec::new(),
        };
        let lengths: &[u32] = [&[PAGE][..], &[EXTENT_BYTES, PAGE], &[], &[2 * PAGE]][random.index(4)];
        let extents = lengths.iter().map(|length| extent(*length)).collect();
        self.files.insert(path, File { mtime: 1, mode: 0o600, crc32c: None, extents, patches: Vec::new() });
    }

    /// The parent in both repositories, with the base.
    async fn parents(&self) -> (Vec<Option<ParentLane>>, Option<Base>) {
        let mut lanes: Vec<Option<ParentLane>> = Vec::new();
        let mut first: Option<(Arc<Manifest>, PathIndex)> = None;
        for (repository, record) in self.repositories.iter().zip(&self.records) {
            let Some(record) = record else {
                lanes.push(None);
                continue;
            };
            let Trial { manifest, index } = try_manifest(repository, record, &self.crew).await.unwrap();
            if let Some((base, _)) = &first {
                lanes.push(Some(ParentLane::beside(base, &manifest, &index).expect("the same files")));
            } else {
                lanes.push(Some(ParentLane::of_base(Arc::clone(&manifest))));
                first = Some((manifest, index));
            }
        }
        (lanes, first.map(|(manifest, index)| Base::new(manifest, Arc::new(index), None, 64)))
    }

    /// Takes a backup. `fate` decides what happened to each file that the parent has.
    async fn back_up(&mut self, random: &mut Random, fate: impl Fn(&str, &mut Random) -> Fate) -> BackupId {
        self.number += 1;
        let id = BackupId::new(now() + TimeDelta::minutes(self.number)).unwrap();
        let (lanes, base) = self.parents().await;
        let cancel = CancellationToken::new();
        let mut sinks = Sinks::new(&Silent, cancel.clone());
        for (repository, lane) in self.repositories.iter().zip(lanes) {
            let sink =
                Sink::new(repository.clone(), &self.cluster, id, PART_BYTES, EXTENT_BYTES, 32 << 20, &cancel).await;
            sinks.add(repository.describe(), sink.map(|sink| sink.with_parent(lane)));
        }
        let root = Directory { path: b"".as_slice().into(), mode: 0o700, mtime: self.number };
        sinks.entry(&root.entry()).await.unwrap();
        sinks.end_group().await.unwrap();
        let compressor = Compressor::new("none".parse().unwrap()).unwrap();
        let mut step = Step { sinks, id, compressor, random };
        for (path, file) in &mut self.files {
            let in_parent = base.as_ref().and_then(|base| base.find(path.as_bytes()));
            let fate = in_parent.map_or(Fate::Rewritten, |_| fate(path, step.random));
            match (fate, in_parent) {
                (Fate::Same, Some(base)) => step.keep(path, file, base).await,
                (Fate::Touched, Some(base)) => {
                    file.mtime = self.number;
                    step.keep(path, file, base).await;
                }
                (Fate::Patched, Some(base)) if !file.extents.is_empty() => step.patch(path, file, base).await,
                _ => {
                    file.mtime = self.number;
                    step.write(path, file, in_parent).await;
                }
            }
        }
        step.sinks.unchanged_files().await.unwrap();
        let mut control = File { mtime: 0, mode: 0o600, crc32c: None, extents: Vec::new(), patches: Vec::new() };
        control.extents.extend(self.files.values().filter_map(|file| file.extents.first()).take(1).cloned());
        step.write("pg_control", &mut control, None).await;
        let stored = step.sinks.finish().await.unwrap();
        self.records = stored.into_iter().map(|stored| Some(record_of(&stored.unwrap(), id))).collect();
        id
    }

    /// Reads the newest manifest in each repository, and compares it with the files to the last place.
    async fn check(&self, what: &str) -> Vec<Arc<Manifest>> {
        let mut manifests = Vec::new();
        for (lane, (repository, record)) in self.repositories.iter().zip(&self.records).enumerate() {
            let record = record.as_ref().unwrap();
            restore::would_take(repository, record, &self.crew).await.unwrap();
            let Trial { manifest, index } = try_manifest(repository, record, &self.crew).await.unwrap();
            // The data directory and `pg_control` are there, too.
            assert_eq!(manifest.len(), self.files.len() + 2, "{what}");
            for (path, file) in &self.files {
                let found = manifest.file(index.find(&manifest, path.as_bytes()).unwrap()).unwrap();
                let stored = |place: &Placed| {
                    let pack = name::pack(&self.cluster, &place.backup, 1);
                    (place.hash, place.length, pack, place.locations[lane])
                };
                let found_place = |place: &Extent| {
                    let pack = manifest.packs()[place.pack as usize].name.clone();
                    (place.hash, place.length, pack, place.frame())
                };
                let extents: Vec<_> = file.extents.iter().map(stored).collect();
                assert_eq!(
                    found.extents().iter().map(|extent| found_place(&extent)).collect::<Vec<_>>(),
                    extents,
                    "{what}: {path}"
                );
                let patches: Vec<_> = file.patches.iter().map(|(at, place)| (0, *at, stored(place))).collect();
                let found_patch = |patch: &Patch| (patch.extent, patch.at, found_place(&patch.place));
                assert_eq!(found.patches().iter().map(found_patch).collect::<Vec<_>>(), patches, "{what}: {path}");
                let facts = (found.mode, found.mtime_seconds, found.size_bytes);
                assert_eq!(facts, (file.mode, file.mtime.cast_unsigned(), file.size_bytes()), "{what}: {path}");
                let FileKind::File { crc32c, .. } = found.kind else { panic!("{path} is no file") };
                assert_eq!(crc32c, file.crc32c, "{what}: {path}");
            }
            manifests.push(manifest);
        }
        manifests
    }

    fn manifest_bytes(&self) -> u64 {
        self.records[0].as_ref().unwrap().manifest.size_bytes
    }
}

/// The number of requests for the frames of other manifests, if neighbours are read together.
fn requests(manifest: &Manifest) -> usize {
    let taken: Vec<_> = manifest.frames().iter().filter(|frame| frame.origin.is_some()).collect();
    let apart = |a: &holdfast_repo::manifest::FileFrame, b: &holdfast_repo::manifest::FileFrame| {
        let gap = u64::from(b.location.offset).checked_sub(a.location.range().end);
        a.origin != b.origin || gap.is_none_or(|gap| gap > 128 << 10)
    };
    taken.windows(2).filter(|pair| apart(pair[0], pair[1])).count() + usize::from(!taken.is_empty())
}

fn is_hot(path: &str) -> bool {
    path.ends_with("77")
}

/// A chain in which some files change each time, and any file may change now and then.
#[tokio::test]
async fn a_long_chain_neither_grows_nor_depends_on_more_and_more_manifests() {
    let mut random = Random::of_this_run();
    let mut chain = Chain::new().await;
    for number in 0..8000 {
        chain.add(format!("base/16384/{number}"), &mut random);
    }
    chain.back_up(&mut random, |_, _| Fate::Same).await;
    let full = chain.manifest_bytes();
    let (mut early, mut late) = (Vec::new(), Vec::new());
    let steps = number_in("HOLDFAST_TEST_BACKUPS").unwrap_or(24);
    for step in 1..=steps {
        chain.add(format!("base/5/{step}"), &mut random);
        if let Some(path) = chain.files.keys().nth(random.index(chain.files.len())).cloned() {
            chain.files.remove(&path);
        }
        chain
            .back_up(&mut random, |path, random| match random.below(40_000) {
                0 => Fate::Rewritten,
                1 => Fate::Patched,
                2 => Fate::Touched,
                _ if is_hot(path) => Fate::Patched,
                _ => Fate::Same,
            })
            .await;
        let manifests = chain.check(&format!("backup {step}")).await;
        for manifest in &manifests {
            assert!(manifest.origins().len() <= MOST_OBJECTS, "{} manifests", manifest.origins().len());
        }
        let cost = (chain.manifest_bytes(), requests(&manifests[0]), manifests[0].origins().len());
        if step > steps / 2 { late.push(cost) } else { early.push(cost) }
    }
    let mean = |costs: &[(u64, usize, usize)]| {
        let count = costs.len() as u64;
        (
            costs.iter().map(|cost| cost.0).sum::<u64>() / count,
            costs.iter().map(|cost| cost.1 as u64).sum::<u64>() / count,
            costs.iter().map(|cost| cost.2 as u64).sum::<u64>() / count,
        )
    };
    let (early, late) = (mean(&early), mean(&late));
    eprintln!("full: {full} bytes; bytes, requests, manifests of the first half: {early:?}, of the second: {late:?}");
    assert!(late.0 * 2 < full, "{late:?} of {full}");
    assert!(late.0 * 2 < early.0 * 3, "{late:?} after {early:?}");
    assert!(late.1 <= 2 * MOST_OBJECTS as u64, "{late:?}");
}

/// Small clusters have no use for references, and theirs are never written.
#[tokio::test]
async fn a_small_cluster_never_refers_to_another_manifest() {
    let mut random = Random::of_this_run();
    let mut chain = Chain::new().await;
    for number in 0..1000 {
        chain.add(format!("base/16384/{number}"), &mut random);
    }
    chain.back_up(&mut random, |_, _| Fate::Same).await;
    let full = chain.manifest_bytes();
    for step in 0..3 {
        chain.back_up(&mut random, |_, _| Fate::Same).await;
        let manifests = chain.check(&format!("backup {step}")).await;
        assert!(manifests.iter().all(|manifest| manifest.origins().is_empty()));
        // The names of the packs of two more backups, and nothing else.
        assert!(chain.manifest_bytes() < full + 500, "{} after {full}", chain.manifest_bytes());
    }
}

/// An unchanged cluster costs the list of packs, and a reference names the object that holds the bytes.
#[tokio::test]
async fn an_unchanged_cluster_refers_to_one_manifest_for_ever() {
    let mut random = Random::of_this_run();
    let mut chain = Chain::new().await;
    for number in 0..8000 {
        chain.add(format!("base/16384/{number}"), &mut random);
    }
    let first = chain.back_up(&mut random, |_, _| Fate::Same).await;
    let full = chain.manifest_bytes();
    for step in 0..5 {
        chain.back_up(&mut random, |_, _| Fate::Same).await;
        for manifest in chain.check(&format!("backup {step}")).await {
            let origins: Vec<&str> = manifest.origins().iter().map(|origin| origin.name.as_str()).collect();
            assert_eq!(origins, [name::manifest(&chain.cluster, &first)]);
            assert_eq!(requests(&manifest), 1);
        }
        // The directory has another time, so the other files of its frame are written again.
        assert!(chain.manifest_bytes() * 6 < full, "{} of {full}", chain.manifest_bytes());
    }
}

/// The manifest in the second repository has the same files in another order.
#[tokio::test]
async fn the_order_of_files_may_differ_between_repositories() {
    let mut random = Random::of_this_run();
    let mut chain = Chain::new().await;
    for number in 0..6000 {
        chain.add(format!("base/16384/{number}"), &mut random);
    }
    chain.back_up(&mut random, |_, _| Fate::Same).await;
    let (repository, record) = (&chain.repositories[1], chain.records[1].clone().unwrap());
    let Trial { manifest, .. } = try_manifest(repository, &record, &chain.crew).await.unwrap();
    let mut turned = Manifest::new(manifest.header().clone());
    let files: Vec<FileEntry<'_>> = manifest.files().collect();
    let (root, files) = files.split_first().unwrap();
    let (control, files) = files.split_last().unwrap();
    for file in std::iter::once(root).chain(files.iter().rev()).chain([control]) {
        turned.push(file).unwrap();
    }
    turned.set_packs(manifest.packs().to_vec()).unwrap();
    let object = ManifestWriter::write(&record.manifest.name, repository.id(), repository.key(), &turned).unwrap();
    let mut stored = record.manifest.clone();
    (stored.size_bytes, stored.sha256) = (object.len() as u64, sha256_hex(&object));
    let place = object_name(&stored.name).unwrap();
    repository.store().put(&place, object, PutMode::Overwrite).await.unwrap();
    chain.records[1] = Some(BackupRecord { manifest: stored, ..record });
    for step in 0..3 {
        chain.back_up(&mut random, |path, _| if is_hot(path) { Fate::Patched } else { Fate::Same }).await;
        let manifests = chain.check(&format!("backup {step}")).await;
        // At first there is a changed file in every frame. Then these files are in frames of their own.
        assert!(manifests.iter().all(|manifest| manifest.origins().is_empty() == (step == 0)));
    }
}
