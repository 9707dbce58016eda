//! Random histories of an archive, and the promises that must be true in all of them.
//!
//! `world.rs` is the truth: what a cluster, its hosts and its users did, hour by hour. `promise.rs` computes in another
//! way what can be restored and what nothing needs: it looks at each backup and each segment alone. The planner sees
//! only the catalog. `HOLDFAST_TEST_SEED` repeats one history.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod expire;
mod promise;
mod world;

use expire::Host;
use holdfast_testkit::random::{self, Random};
use world::World;

/// The number of histories in one test.
const HISTORIES: u64 = 2_500;

fn run(seed: u64) {
    let mut random = Random::of_seed(seed);
    let mut world = World::new(seed, &mut random);
    // The second clock is late by up to two days.
    let mut hosts = [Host::new(0), Host::new(random.below(48).cast_signed())];
    for _ in 0..random.below(120) {
        world.hour += random.below(30).cast_signed();
        let host = random.index(2);
        world.is_quiet = hosts.iter().all(Host::is_idle);
        match random.below(100) {
            0..12 => hosts[host].decide(&mut world, &mut random),
            12..24 => hosts[host].look(&world, &mut random),
            24..36 => hosts[host].remove(&mut world, &mut random),
            // These changes affect what is restorable, so they do not happen between a plan and its removal.
            36..42 if world.is_quiet => world.change_backups(&mut random),
            _ => world.live(&mut random),
        }
    }
    for host in &mut hosts {
        host.remove(&mut world, &mut random);
    }
    world.come_to_rest(&mut random);
    for _ in 0..4 {
        world.hour += 24 * 10;
        for host in &mut hosts {
            host.decide(&mut world, &mut Random::of_seed(1));
            host.look(&world, &mut Random::of_seed(1));
            host.remove_all(&mut world);
        }
    }
    promise::nothing_useless_is_left(&world);
}

/// The histories of the seeds from `first` on.
fn run_from(first: u64) {
    if let Some(seed) = random::seed_of_environment() {
        run(seed);
        return;
    }
    for seed in first..first + random::number_in("HOLDFAST_TEST_HISTORIES").unwrap_or(HISTORIES) {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "HOLDFAST_TEST_SEED={seed} repeats it");
    }
}

/// Data that a promise needs is never removed, and data that nothing needs is removed in the end. There are four tests,
/// so that four cores can run them.
#[test]
fn promises_hold_in_the_first_histories() {
    run_from(0);
}

#[test]
fn promises_hold_in_the_second_histories() {
    run_from(1_000_000);
}

#[test]
fn promises_hold_in_the_third_histories() {
    run_from(2_000_000);
}

#[test]
fn promises_hold_in_the_fourth_histories() {
    run_from(3_000_000);
}
