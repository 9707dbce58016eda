//! A sink in a store in memory: waiting, limits, and packs that the store keeps otherwise than they were sent.

#![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

use std::time::Duration;

use holdfast_repo::{Compressor, FrameKind};
use holdfast_store::{Fault, FaultRule, Faulty, MemoryStore, Operation, Store};

use super::*;
use crate::pipeline::budget::ByteBudget;
use crate::repository::confirm::not_compared;
use crate::repository::{RepositoryTarget, Unlock, init};

/// The sink waits for a store that takes an hour for each pack, and does not hold all packs in memory.
#[tokio::test(start_paused = true)]
async fn a_whole_pack_waits_for_the_packs_on_their_way() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let target = RepositoryTarget { store: Arc::clone(&store), unlock: Unlock::NotEncrypted };
    init::init(&target, "2026-11-29T11:00:00Z".parse().unwrap()).await.unwrap();
    let hour = Duration::from_hours(1);
    let slow = Faulty::new(store, 1, vec![FaultRule::new(&[Operation::Put], 1.0, Fault::Delay(hour))]);
    let target = RepositoryTarget { store: Arc::new(slow), unlock: Unlock::NotEncrypted };
    let repository = Repository::open(&target).await.unwrap();
    let (cluster, backup) = ("main".parse().unwrap(), "20261129T110000Z".parse().unwrap());
    let cancel = CancellationToken::new();
    let sink = Sink::new(repository, &cluster, backup, 5 << 20, 64 << 10, 32 << 20, &cancel).await.unwrap();
    // Each frame fills a pack.
    let mut sink = Sink { whole: true, pack_size: 1, ..sink };
    let budget = ByteBudget::new(32 << 20);
    let mut compressor = Compressor::new("zstd:1".parse().unwrap()).unwrap();
    for number in 1..=8_u8 {
        let frame = compressor.compress(FrameKind::Data, &[number; 1000]).unwrap();
        let permit = budget.acquire(1000).await;
        sink.frame(frame, &[], &[], permit).await.unwrap();
        assert!(sink.finishing.len() <= WHOLE_PACKS_ON_THEIR_WAY, "{} after pack {number}", sink.finishing.len());
    }
    assert_eq!(sink.finish().await.unwrap().pack_count, 8);
}

/// Another repository may have larger packs or another store.
#[tokio::test]
async fn too_many_packs_are_an_error_of_one_repository() {
    let target = RepositoryTarget { store: Arc::new(MemoryStore::new()), unlock: Unlock::NotEncrypted };
    init::init(&target, "2026-11-29T11:00:00Z".parse().unwrap()).await.unwrap();
    let repository = Repository::open(&target).await.unwrap();
    let (cluster, backup) = ("main".parse().unwrap(), "20261129T110000Z".parse().unwrap());
    let cancel = CancellationToken::new();
    let mut sink = Sink::new(repository, &cluster, backup, 5 << 20, 64 << 10, 32 << 20, &cancel).await.unwrap();
    sink.own_packs = MAX_PACK_NUMBER;
    let frame = Compressor::new("none".parse().unwrap()).unwrap().compress(FrameKind::Data, b"one more").unwrap();
    let permit = ByteBudget::new(1 << 20).acquire(1000).await;
    let error = sink.frame(frame, &[], &[], permit).await.unwrap_err();
    assert!(matches!(&*error.what, Cause::TooManyPacks { .. }), "{error}");
    assert!(error.is_of_repository());
}

/// The store repeats the checksum of the request, and keeps other bytes.
#[tokio::test]
async fn a_pack_that_was_changed_on_its_way_ends_the_backup() {
    for (damaged, complete) in [("main/packs/20261129T110000Z/000002", false), ("main/packs/other/", true)] {
        let rule = FaultRule::new(&[Operation::GetRange], 1.0, Fault::FlipBit).on(damaged);
        let store = Arc::new(Faulty::new(Arc::new(MemoryStore::new()), 1, vec![rule]));
        let target = RepositoryTarget { store, unlock: Unlock::NotEncrypted };
        init::init(&target, "2026-11-29T11:00:00Z".parse().unwrap()).await.unwrap();
        let repository = not_compared(&Repository::open(&target).await.unwrap());
        let (cluster, backup) = ("main".parse().unwrap(), "20261129T110000Z".parse().unwrap());
        let cancel = CancellationToken::new();
        let sink = Sink::new(repository, &cluster, backup, 5 << 20, 64 << 10, 32 << 20, &cancel).await.unwrap();
        let mut sink = Sink { pack_size: 1, ..sink };
        let budget = ByteBudget::new(32 << 20);
        let mut compressor = Compressor::new("zstd:1".parse().unwrap()).unwrap();
        let mut failed = None;
        for number in 1..=3_u8 {
            let frame = compressor.compress(FrameKind::Data, &[number; 1000]).unwrap();
            let permit = budget.acquire(1000).await;
            failed = failed.or(sink.frame(frame, &[], &[], permit).await.err());
        }
        let finished = sink.finish().await;
        let error = failed.or(finished.err());
        let text = error.as_ref().map(ToString::to_string).unwrap_or_default();
        assert_eq!(error.is_none(), complete, "{text}");
        assert!(complete || text.contains("000002.pack") && text.contains("is not as it was stored"), "{text}");
    }
}

/// A changed `holdfast.json` can have a pack size of 2 GiB.
#[test]
fn packs_that_are_held_whole_fit_into_the_memory() {
    let (mib, gib) = (1_u64 << 20, 1_u64 << 30);
    assert_eq!(pack_size(2 * gib, false, 32 * mib), 2 * gib);
    assert_eq!(pack_size(32 * mib, true, 256 * mib), 32 * mib);
    assert_eq!(pack_size(2 * gib, true, 256 * mib), 256 * mib / 5);
    assert_eq!(pack_size(2 * gib, true, 32 * mib), 32 * mib / 5);
    assert_eq!(pack_size(32 * mib, true, mib), SMALLEST_PACK_BYTES);
}
