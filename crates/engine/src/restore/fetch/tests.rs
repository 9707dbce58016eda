#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use std::time::Duration;

use holdfast_repo::ChunkHash;
use holdfast_repo::codec::{Compression, Compressor};
use holdfast_repo::manifest::{Extent, FileEntry, FileKind, ManifestHeader};
use holdfast_repo::pack::PackWriter;
use holdfast_store::{MemoryStore, PutMode};

use super::super::layout::Layout;
use super::*;
use crate::pipeline::budget::MINIMUM_BYTES;
use crate::progress::Silent;
use crate::repository::{Repository, RepositoryTarget, Unlock, init, object_name};

const PACK: &str = "main/packs/20260822T101500Z/000001.pack";

/// The wanted bytes of each frame.
const WANTED_BYTES: usize = 100;

/// A repository in memory with one pack: `frames` frames of `raw_len` bytes; a file wants the first hundred bytes of
/// each.
async fn mover(directory: &std::path::Path, frames: u32, raw_len: usize) -> (Arc<Mover>, Vec<WantedExtent>) {
    let target = RepositoryTarget { store: Arc::new(MemoryStore::new()), unlock: Unlock::NotEncrypted };
    let now = "2026-11-22T11:00:00Z".parse().unwrap();
    let repository: Repository = init::init(&target, now).await.unwrap().repository;
    let (mut writer, head) = PackWriter::new(PACK, repository.id(), repository.key()).unwrap();
    let mut pack = head.to_vec();
    let mut compressor = Compressor::new(Compression::default()).unwrap();
    let header = ManifestHeader {
        backup: "20260822T101500Z".to_owned(),
        cluster: "main".to_owned(),
        extent_bytes: 1 << 20,
        details: serde_json::Map::new(),
    };
    let mut manifest = Manifest::new(header);
    let mut wanted = Vec::new();
    for number in 0..frames {
        let mut raw = vec![0; raw_len];
        raw[..WANTED_BYTES].fill(number as u8 + 1);
        let frame = compressor.compress(FrameKind::Data, &raw).unwrap();
        let (location, sealed) = writer.append(frame, &[]).unwrap();
        pack.extend_from_slice(&sealed);
        let content = &raw[..WANTED_BYTES];
        let extents = [Extent::stored(ChunkHash::of(content), 0, location, 0, WANTED_BYTES as u32)];
        let path = format!("f{number}");
        let entry = FileEntry {
            path: path.as_bytes(),
            kind: FileKind::file(crc32c::crc32c(content), &extents),
            mode: 0o600,
            size_bytes: WANTED_BYTES as u64,
            mtime_seconds: 0,
        };
        manifest.push(&entry).unwrap();
        wanted.push(WantedExtent { pack: 0, frame_offset: location.offset, file: number, source: 0 });
    }
    let (end, entry) = writer.finish().unwrap();
    pack.extend_from_slice(&end);
    manifest.set_packs(vec![entry]).unwrap();
    repository.store().put(&object_name(PACK).unwrap(), pack.into(), PutMode::Create).await.unwrap();
    let manifest = Arc::new(manifest);
    let files = Files::new(Arc::clone(&manifest), Arc::new(Layout::new(directory, &[], &[]).unwrap()));
    (0..frames).for_each(|file| files.expect(file, 1));
    let mover = Mover {
        packs: Packs::new(repository, Arc::clone(&manifest)),
        manifest,
        files,
        crew: Crew::new(2),
        budget: ByteBudget::new(MINIMUM_BYTES),
        surplus: ByteBudget::new(MINIMUM_BYTES),
        progress: Arc::new(Silent),
        roots: Arc::new(Roots::open(&Layout::new(directory, &[], &[]).unwrap()).unwrap()),
        fetched_bytes: AtomicU64::new(0),
        written_bytes: AtomicU64::new(0),
        cancel: CancellationToken::new(),
    };
    (Arc::new(mover), wanted)
}

/// Twelve frames of 12 MiB each, of which a hundred bytes are wanted: two of them fit into 32 MiB.
#[tokio::test]
async fn frames_with_more_than_is_wanted_wait_for_each_other() {
    const RAW: usize = 12 << 20;
    let directory = tempfile::tempdir().unwrap();
    let (mover, wanted) = mover(directory.path(), 12, RAW).await;
    let total = mover.surplus.total_bytes();
    // The crew has other work, so frames that have got their share wait for it.
    let (free, busy): (Vec<_>, Vec<_>) = (0..2).map(|_| std::sync::mpsc::sync_channel::<()>(1)).unzip();
    let busy: Vec<_> = busy.into_iter().map(|busy| mover.crew.run(move || busy.recv())).collect();
    let moving = tokio::spawn({
        let mover = Arc::clone(&mover);
        async move { fetch(&mover, wanted).await }
    });
    let room_for_no_other = || mover.surplus.available_bytes() < RAW as u64;
    let opened = async {
        while !room_for_no_other() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), opened).await.expect("each frame takes its raw size from the budget");
    // Each holds its share until it is written, so only as many can be opened as fit.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let held = (total - mover.surplus.available_bytes()) / (RAW as u64 - (1 << 20));
    assert_eq!(held, 2);
    assert_eq!(mover.written_bytes.load(Ordering::Relaxed), 0);
    drop(free);
    for busy in busy {
        busy.await.unwrap().unwrap_err();
    }
    moving.await.unwrap().unwrap();
    assert_eq!(mover.surplus.available_bytes(), total);
    for number in 0..12 {
        let content = std::fs::read(directory.path().join(format!("f{number}"))).unwrap();
        assert_eq!(content, [number + 1; WANTED_BYTES]);
    }
}

/// A frame that is larger than the whole budget passes alone.
#[tokio::test]
async fn a_frame_beyond_the_budget_passes_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (mover, wanted) = mover(directory.path(), 3, 40 << 20).await;
    fetch(&mover, wanted).await.unwrap();
    assert_eq!(mover.written_bytes.load(Ordering::Relaxed), 3 * WANTED_BYTES as u64);
}

/// The usual case: the frame holds only wanted bytes, and nothing waits.
#[tokio::test]
async fn frames_with_only_wanted_bytes_need_no_extra_room() {
    let directory = tempfile::tempdir().unwrap();
    let (mover, wanted) = mover(directory.path(), 50, WANTED_BYTES).await;
    let all = mover.surplus.acquire(u64::MAX).await;
    fetch(&mover, wanted).await.unwrap();
    drop(all);
}
