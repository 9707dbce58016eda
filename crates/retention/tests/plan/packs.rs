//! Packs stay while a manifest names them, even if the backup that wrote them is removed.

use crate::archive::{Archive, id, pack};
use holdfast_retention::*;

/// Day 1 is full, days 10, 20 and 29 are incremental.
fn incremental() -> Archive {
    let mut archive = Archive::new(&[1], 31).keep(Keep { last: 1, ..Keep::default() });
    archive.backup_of(10, &[pack(1, 1)]);
    archive.backup_of(20, &[pack(1, 1), pack(10, 1)]);
    archive.backup_of(29, &[pack(1, 1), pack(20, 1)]);
    archive
}

fn verdict_on(archive: &Archive, which: PackId) -> PackVerdict {
    archive.plan().packs.iter().find(|(pack, _)| pack.id == which).unwrap().1.clone()
}

/// A parent may be removed: its children need only its packs, and those stay.
#[test]
fn a_parent_is_removed_and_its_packs_stay() {
    let archive = incremental();
    assert_eq!(archive.going(), [1, 10, 20]);
    assert_eq!(archive.going_packs(), [pack(10, 1)]);
    assert_eq!(verdict_on(&archive, pack(1, 1)), PackVerdict::Kept(PackKept::Named { by: id(29), count: 1 }));
    assert_eq!(verdict_on(&archive, pack(10, 1)), PackVerdict::Goes(PackGoes::WithItsBackup));
}

#[test]
fn a_held_child_keeps_the_packs_of_others() {
    let mut archive = incremental();
    archive.find(20).hold = Some(Hold { until: None });
    assert_eq!(archive.going_packs(), []);
    assert_eq!(verdict_on(&archive, pack(1, 1)), PackVerdict::Kept(PackKept::Named { by: id(20), count: 2 }));
}

/// A crash left packs of a backup that is gone.
#[test]
fn a_pack_that_nothing_names_is_removed() {
    let mut archive = incremental();
    archive.catalog.packs.push(Pack { id: pack(5, 3), size_bytes: 1 });
    assert_eq!(verdict_on(&archive, pack(5, 3)), PackVerdict::Goes(PackGoes::NotNamed));
    // While its backup is not finished, the pack belongs to that run.
    archive.unfinished(5).lease_until = None;
    assert_eq!(verdict_on(&archive, pack(5, 3)), PackVerdict::Kept(PackKept::Unfinished));
}

/// A crash left a manifest without records: its packs no longer count as named.
#[test]
fn a_half_removed_backup_is_removed_with_its_packs() {
    let mut archive = incremental();
    archive.catalog.half_removed.insert(id(10));
    archive.catalog.backups.retain(|backup| backup.id != id(10));
    assert_eq!(archive.plan().backups[&id(10)], BackupVerdict::Goes(BackupGoes::HalfRemoved));
    assert_eq!(archive.going_packs(), [pack(10, 1)]);
}

#[test]
fn a_mostly_dead_pack_is_rewritten() {
    let mut archive = incremental();
    let rule = RewriteRule { live_percent: 30, dead_bytes: 50 };
    for (live_bytes, size_bytes, rewrite) in
        [(30, 100, true), (31, 100, false), (0, 100, true), (10, 59, false), (10, 60, true), (200, 100, false)]
    {
        archive.policy.rewrite = Some(rule);
        archive.catalog.packs[0].size_bytes = size_bytes;
        archive.manifests.get_mut(&id(29)).unwrap().packs[0].live_bytes = live_bytes;
        let expected = if rewrite {
            PackVerdict::Rewrite { live_bytes, size_bytes }
        } else {
            PackVerdict::Kept(PackKept::Named { by: id(29), count: 1 })
        };
        assert_eq!(verdict_on(&archive, pack(1, 1)), expected, "{live_bytes} of {size_bytes}");
        archive.policy.rewrite = None;
        assert!(!matches!(verdict_on(&archive, pack(1, 1)), PackVerdict::Rewrite { .. }));
    }
}

/// One manifest may need little of a pack, and another one all of it.
#[test]
fn the_manifest_that_needs_most_decides_how_live_a_pack_is() {
    let mut archive = incremental();
    archive.policy.rewrite = Some(RewriteRule { live_percent: 30, dead_bytes: 1 });
    archive.manifests.get_mut(&id(29)).unwrap().packs[0].live_bytes = 5;
    assert!(matches!(verdict_on(&archive, pack(1, 1)), PackVerdict::Rewrite { .. }));
    archive.find(10).hold = Some(Hold { until: None });
    assert_eq!(verdict_on(&archive, pack(1, 1)), PackVerdict::Kept(PackKept::Named { by: id(10), count: 2 }));
}

#[test]
fn a_missing_pack_is_reported() {
    let mut archive = incremental();
    archive.catalog.packs.retain(|one| one.id != pack(20, 1));
    assert!(archive.warns(&Warning::PackMissing { backup: id(29), pack: pack(20, 1) }));
    // So the backup of day 29 is not the last restorable one. The backup of day 20 is not either, because it names the
    // same pack. The backup of day 10 is.
    assert_eq!(archive.going(), [1, 20]);
    assert_eq!(archive.reasons(29), [BackupKept::Unsound]);
    assert_eq!(archive.reasons(10), [BackupKept::Last, BackupKept::LastRestorable]);
}

#[test]
fn a_pack_that_a_manifest_names_twice_has_one_user() {
    let mut archive = incremental();
    let twice = PackUse { pack: pack(29, 1), live_bytes: 1, size_bytes: None };
    archive.manifests.get_mut(&id(29)).unwrap().packs.push(twice);
    assert_eq!(verdict_on(&archive, pack(29, 1)), PackVerdict::Kept(PackKept::Named { by: id(29), count: 1 }));
}

/// A pack that a restore reads, or that a backup will name in its manifest, must keep its name.
#[test]
fn nothing_is_rewritten_beside_a_running_backup_or_restore() {
    let mut archive = incremental();
    archive.policy.rewrite = Some(RewriteRule { live_percent: 30, dead_bytes: 1 });
    archive.manifests.get_mut(&id(29)).unwrap().packs[0].live_bytes = 5;
    assert!(matches!(verdict_on(&archive, pack(1, 1)), PackVerdict::Rewrite { .. }));
    let lease_until = crate::archive::day(32);
    archive.catalog.restores.push(RunningRestore { backup: Some(id(29)), lease_until });
    assert!(matches!(verdict_on(&archive, pack(1, 1)), PackVerdict::Kept(_)));
    archive.catalog.restores.clear();
    archive.unfinished(31).parent = Parent::Backup(id(29));
    assert!(matches!(verdict_on(&archive, pack(1, 1)), PackVerdict::Kept(_)));
}

/// The manifest of a removed backup stays as long as a kept one refers to it, and its packs go.
#[test]
fn a_manifest_stays_while_another_refers_to_it() {
    let mut archive = Archive::new(&[1, 10, 20, 29], 30).keep(Keep { last: 2, ..Keep::default() });
    archive.manifests.get_mut(&id(20)).unwrap().origins = vec![id(1)];
    archive.manifests.get_mut(&id(10)).unwrap().origins = vec![id(1)];
    let decided = [archive.plan().going()];
    assert_eq!(decided[0].backups, [id(1), id(10)].into());
    archive.today = 40;
    let now = crate::archive::day(archive.today);
    let removal = |archive: &Archive| {
        let (catalog, manifests) = (&archive.catalog, &archive.manifests);
        carry_out(&decided, catalog, manifests, &archive.policy, now, chrono::Duration::days(1)).unwrap()
    };
    let removed = removal(&archive);
    assert_eq!((removed.backups, removed.manifests), ([id(1), id(10)].into(), [id(10)].into()));
    assert_eq!(removed.packs, [pack(1, 1), pack(10, 1)].into());

    // Only its manifest is left. It is no longer a backup, and has no verdict.
    archive.catalog.backups.retain(|backup| ![id(1), id(10)].contains(&backup.id));
    archive.catalog.packs.retain(|pack| pack.id.backup != id(1) && pack.id.backup != id(10));
    archive.catalog.manifests.remove(&id(10));
    archive.catalog.half_removed.insert(id(1));
    assert_eq!(archive.plan().backups.get(&id(1)), None);
    assert!(removal(&archive).manifests.is_empty());
    archive.manifests.get_mut(&id(20)).unwrap().origins.clear();
    assert_eq!(archive.plan().backups.get(&id(1)), Some(&BackupVerdict::Goes(BackupGoes::HalfRemoved)));
    assert_eq!(removal(&archive).manifests, [id(1)].into());
}

/// A backup that refers to a missing manifest cannot be restored, so it is never the last one.
#[test]
fn a_missing_manifest_makes_the_backups_that_refer_to_it_damaged() {
    let mut archive = Archive::new(&[10, 20, 29], 30).keep(Keep { last: 1, ..Keep::default() });
    archive.manifests.get_mut(&id(29)).unwrap().origins = vec![id(5)];
    let plan = archive.plan();
    assert!(archive.warns(&Warning::ManifestMissing { backup: id(29), of: id(5) }));
    assert!(matches!(plan.backups[&id(29)], BackupVerdict::Kept(_)));
    assert!(matches!(plan.backups[&id(20)], BackupVerdict::Kept(_)), "the newest one that can be restored");
    assert!(matches!(plan.backups[&id(10)], BackupVerdict::Goes(_)));
    assert_eq!(
        Warning::ManifestMissing { backup: id(29), of: id(5) }.to_string(),
        format!("backup {} needs the manifest of backup {}, which is missing", id(29), id(5))
    );
}
