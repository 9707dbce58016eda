//! Hosts that run `expire`. Each has its own clock, can be interrupted anywhere, and may act on a plan that is hours
//! old.

use crate::world::{World, moment};
use chrono::Duration;
use holdfast_retention::*;
use holdfast_testkit::random::Random;
use std::collections::BTreeSet;

const GRACE: Duration = Duration::hours(48);

#[derive(Debug)]
pub(crate) struct Host {
    /// Hours by which its clock is late.
    late: i64,
    /// What it is about to remove, and the restores that were running when it planned. A later restore knows from the
    /// ledger which WAL may be removed.
    seen: Option<(Removal, Vec<BackupId>)>,
}

impl Host {
    pub(crate) fn new(late: i64) -> Self {
        Self { late, seen: None }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.seen.is_none()
    }

    /// The first step: writes decisions into the ledger.
    pub(crate) fn decide(&self, world: &mut World, random: &mut Random) {
        let (catalog, manifests) = world.catalog();
        let plan = decide(&catalog, &manifests, &world.policy, moment(world.hour - self.late)).unwrap();
        let back = plan.taken_back(&world.ledger);
        // An interrupted run takes nothing back, and in some histories no run ever does: the removal must be safe
        // without that.
        if !world.seed.is_multiple_of(3) && random.below(3) > 0 {
            for decision in &mut world.ledger {
                decision.backups.retain(|id| !back.backups.contains(id));
                decision.packs.retain(|id| !back.packs.contains(id));
                decision.wal.retain(|range| !back.wal.iter().any(|back| overlap(range, back)));
            }
            world.ledger.retain(|decision| !decision.is_empty());
        }
        let new = plan.to_decide(&world.ledger);
        if !new.is_empty() {
            world.ledger.push(new);
        }
    }

    /// The second step, first half: reads the catalog and plans the removal.
    pub(crate) fn look(&mut self, world: &World, random: &mut Random) {
        let (catalog, manifests) = world.catalog();
        let now = moment(world.hour - self.late);
        let removal = carry_out(&world.ledger, &catalog, &manifests, &world.policy, now, GRACE).unwrap();
        // Sometimes it dies before it removes anything.
        let restores = world.restores.iter().filter(|(_, lease)| *lease >= world.hour).map(|(id, _)| *id);
        self.seen = (random.below(8) > 0).then_some((removal, restores.collect()));
    }

    /// The second step, second half, some time later: removes some or all of it.
    pub(crate) fn remove(&mut self, world: &mut World, random: &mut Random) {
        if let Some((removal, restores)) = self.seen.take() {
            let all = removal.backups.len() + removal.packs.len() + removal.manifests.len() + removal.wal.len();
            let steps = if random.below(3) == 0 { random.index(all + 1) } else { all };
            remove(world, &removal, &restores, steps);
        }
    }

    pub(crate) fn remove_all(&mut self, world: &mut World) {
        if let Some((removal, restores)) = self.seen.take() {
            remove(world, &removal, &restores, usize::MAX);
        }
    }
}

fn overlap(a: &WalRange, b: &WalRange) -> bool {
    (a.claim, a.timeline) == (b.claim, b.timeline) && a.first <= b.last && b.first <= a.last
}

/// Removes the first `steps` objects in the order of the removal, and checks every promise.
fn remove(world: &mut World, removal: &Removal, restores: &[BackupId], steps: usize) {
    let seed = world.seed;
    let promised = world.promised();
    let intact: BTreeSet<BackupId> =
        world.backups.values().filter(|backup| world.is_intact(backup)).map(|backup| backup.id).collect();
    let reach = world.reach();
    let segments = world.restorable_segments(&reach);
    let restoring: Vec<BackupId> = world
        .restores
        .iter()
        .filter(|(id, lease)| *lease >= world.hour && restores.contains(id))
        .map(|(id, _)| *id)
        .collect();

    let mut left = steps;
    let mut step = || {
        let goes = left > 0;
        left = left.saturating_sub(1);
        goes
    };
    for id in &removal.backups {
        if step() && world.backups.remove(id).is_some() {
            world.half_removed.insert(*id);
        }
    }
    for pack in &removal.packs {
        if step() {
            world.packs.remove(pack);
        }
    }
    for id in &removal.manifests {
        if step() {
            assert!(!world.packs.iter().any(|pack| pack.backup == *id), "seed {seed}: {id} has packs and no manifest");
            world.half_removed.remove(id);
        }
    }
    for range in &removal.wal {
        if step()
            && let Some(segments) = world.wal.get_mut(&(range.claim.get(), range.timeline.get()))
        {
            segments.retain(|number, _| !(range.first..=range.last).contains(number));
        }
    }

    for id in promised.intersection(&intact) {
        assert!(world.backups.get(id).is_some_and(|backup| world.is_intact(backup)), "seed {seed}: promised {id}");
    }
    for backup in world.backups.values().filter(|backup| intact.contains(&backup.id)) {
        assert!(world.is_intact(backup), "seed {seed}: {} was left in pieces", backup.id);
    }
    let after = world.reach();
    let left = world.restorable_segments(&after);
    let lost: Vec<_> = segments.difference(&left).collect();
    assert!(lost.is_empty(), "seed {seed}: moments of the window are lost: {lost:?}");
    for ((id, line), end) in reach.iter().filter(|((id, _), _)| restoring.contains(id)) {
        assert_eq!(after.get(&(*id, *line)), Some(end), "seed {seed}: a restore of {id} runs towards {line:?}");
    }
}
