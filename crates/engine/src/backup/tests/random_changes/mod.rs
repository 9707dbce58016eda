//! Random changes of a synthetic data directory during backups, for hundreds of seeds: every complete backup can be
//! restored, and WAL replay can repair the restored copy.
//!
//! A second thread makes changes as a server and its users do. Every page of a relation contains its file, block and
//! version. Every plain file has only one version. So each byte of the restored copy can be checked: untouched files
//! are the same to the last byte, pages have a version that was written, plain files are whole, and no file is missing
//! that was there all the time. The seed decides the steps; the machine decides how many of them happen before the
//! backup ends.
//!
//! Each seed takes a full backup and an incremental one, and restores both. In every third seed, volumes go away and
//! come back: then a backup may be refused, but a complete one must have everything.

mod judge;
mod world;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_testkit::random::{Random, number_in, seed_of_environment};

use self::world::{Habits, World};
use super::{Bench, Complete, KnownServer, Wanted, start_in};
use crate::error::{Cause, Error};

/// The number of seeds, unless `HOLDFAST_TEST_SEEDS` is set.
const SEEDS: u64 = 300;

/// Whether a backup may fail like this: files are replaced faster than they can be opened, or a volume was away.
fn is_allowed(error: &Error, times_away: u32) -> bool {
    let is_replaced = "is replaced by another file again and again";
    times_away > 0 || matches!(&*error.what, Cause::Refused(reason) if reason.contains(is_replaced))
}

/// A folder in memory if possible: hundreds of restores would wait for the disk.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Backups and restores of one seed.
struct Story<'a> {
    seed: u64,
    bench: Bench,
    folder: &'a Path,
    check_pages: bool,
}

impl Story<'_> {
    /// Takes a backup while the world changes, restores it, and judges the copy. `None` if the backup was refused.
    async fn back_up(&self, world: World, segment: u64, parent: Option<&Complete>) -> (World, Option<Complete>) {
        let Self { seed, bench, check_pages, .. } = self;
        let (mut world, seed) = (world, *seed);
        let control = crate::server::read_control_file(&world.pgdata).unwrap();
        world.begin(start_in(segment, &control).as_u64());
        let (pgdata, server) = (world.pgdata.clone(), Arc::clone(&world.server));
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let changing = std::thread::spawn(move || {
            let mut pauses = Random::of_seed(seed ^ segment);
            while !until.load(Ordering::Acquire) {
                world.step();
                // A server also does other things.
                std::thread::sleep(Duration::from_micros(pauses.below(300)));
            }
            world.bring_back();
            world
        });
        let wanted = Wanted { pgdata: &pgdata, server: Some(&server), check_pages: *check_pages, segment, parent };
        let backup = bench.backup(&wanted).await;
        ended.store(true, Ordering::Release);
        let world = changing.join().unwrap();
        let complete = match backup {
            Ok(complete) => complete,
            Err(error) if is_allowed(&error, world.times_away) => return (world, None),
            Err(error) => panic!("seed {seed}: {error} ({:?})", error.doing),
        };
        let copy = self.folder.join(format!("restored-{segment}"));
        if let Err(error) = bench.restore(&complete, &copy).await {
            panic!("seed {seed}: a complete backup cannot be restored: {error} ({:?})", error.doing);
        }
        let sound = *check_pages && control.has_data_checksums() && complete.record.checksum_failures.count == 0;
        let kind = complete.record.backup_type;
        world.judge(&copy, sound).unwrap_or_else(|e| panic!("seed {seed}, {kind:?}: {e}"));
        (world, Some(complete))
    }
}

/// What became of the backups of one seed.
#[derive(Debug, Default, Clone, Copy)]
struct Outcome {
    full: u64,
    incremental: u64,
    refused: u64,
    /// Those that were refused although no volume was away.
    refused_without_reason: u64,
}

async fn changes(seed: u64, outcome: &mut Outcome) {
    let folder = folder();
    let habits = Habits { checksums: !seed.is_multiple_of(4), volumes_go_away: seed.is_multiple_of(3) };
    // Nothing that is missing in the other seeds is there to stay: the server is about to drop it.
    let dropped_within = Duration::from_millis(if habits.volumes_go_away { 20 } else { 10_000 });
    let server = Arc::new(KnownServer { dropped_within, ..KnownServer::default() });
    let mut world = World::new(folder.path(), seed, habits, server);
    let story = Story { seed, bench: Bench::new().await, folder: folder.path(), check_pages: seed.is_multiple_of(2) };
    let mut parent = None;
    for segment in [8, 10] {
        let (after, complete) = story.back_up(world, segment, parent.as_ref()).await;
        world = after;
        let Some(complete) = complete else {
            outcome.refused += 1;
            outcome.refused_without_reason += u64::from(world.times_away == 0);
            continue;
        };
        let count = if parent.is_some() { &mut outcome.incremental } else { &mut outcome.full };
        *count += 1;
        // A backup with bad pages is not a parent.
        parent = Some(complete).filter(|complete| complete.record.checksum_failures.count == 0);
    }
}

/// The seeds from 1 to `HOLDFAST_TEST_SEEDS`, or the one that `HOLDFAST_TEST_SEED` names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_seeds() {
    let seeds = match seed_of_environment() {
        Some(seed) => seed..=seed,
        None => 1..=number_in("HOLDFAST_TEST_SEEDS").unwrap_or(SEEDS),
    };
    let mut outcome = Outcome::default();
    for seed in seeds {
        changes(seed, &mut outcome).await;
    }
    eprintln!("{outcome:?}");
    let Outcome { full, incremental, refused, refused_without_reason } = outcome;
    assert!(full + incremental > 9 * refused_without_reason, "{outcome:?}");
    assert!(incremental > 0 && full + incremental > refused, "{outcome:?}");
}
