//! The two steps, from decision to removal.

use super::bench::{Bench, first_segment};
use crate::expire::{ExpireOptions, HoldOptions, hold, plan, release};
use crate::progress::Silent;
use chrono::TimeDelta;
use holdfast_contract::report::expire::Amount;
use holdfast_repo::name;
use std::collections::BTreeSet;
use std::time::Duration;

#[tokio::test]
async fn what_no_rule_keeps_is_removed_and_the_rest_is_sound() {
    for encrypted in [false, true] {
        let bench = Bench::with_days(encrypted, 5).await;
        bench.backup_history(first_segment(0)).await;
        bench.backup_history(first_segment(3)).await;
        let planned = plan(&bench.repository, &bench.last(2), &Silent).await.unwrap();
        assert_eq!(bench.sound_days().await, [0, 1, 2, 3, 4], "a plan changes nothing");
        let kept: Vec<bool> = planned.backups.iter().map(|backup| backup.kept).collect();
        assert_eq!(kept, [false, false, false, true, true]);
        assert_eq!((planned.packs.kept, planned.packs.going), (4, 6));
        assert_eq!(planned.before[0].backup, bench.id(0));
        assert_eq!(planned.after[0].backup, bench.id(3));

        let report = bench.expire(&bench.last(2)).await.unwrap();
        assert_eq!(report.removed.backups, [bench.id(0), bench.id(1), bench.id(2)]);
        assert_eq!((report.removed.packs, report.removed.wal_files), (6, 31));
        assert_eq!(report.warnings, [""; 0]);
        assert_eq!(bench.sound_days().await, [3, 4]);
        assert_eq!(bench.names("packs/").await.len(), 4);
        assert_eq!(bench.names("backups/").await.len(), 6);
        assert_eq!(bench.segments().await, (first_segment(3)..first_segment(5)).collect::<BTreeSet<_>>());
        // The backup history file of a segment is removed with it.
        assert_eq!(bench.names("wal/").await.len(), 21);
        assert_eq!((bench.ledger("deletion").await, bench.ledger("removal").await), (0, 1));
        assert_eq!(bench.names("leases/").await.len(), 0);

        let again = bench.expire(&bench.last(2)).await.unwrap();
        assert_eq!((again.decided, again.removed), (Amount::default(), Amount::default()));
        assert_eq!(bench.ledger("removal").await, 1);
    }
}

#[tokio::test]
async fn without_a_policy_nothing_is_removed() {
    let bench = Bench::with_days(false, 3).await;
    let report = bench.expire(&bench.last(0)).await.unwrap();
    assert_eq!((report.decided, report.removed), (Amount::default(), Amount::default()));
    assert_eq!(bench.sound_days().await, [0, 1, 2]);
    assert_eq!(bench.names("ledger/").await.len(), 0);
}

#[tokio::test]
async fn a_removal_waits_for_the_grace_time_and_can_be_taken_back() {
    let bench = Bench::with_days(true, 4).await;
    let now = bench.now - TimeDelta::days(5);
    let at =
        |hours| ExpireOptions { grace: Duration::from_hours(24), now: now + TimeDelta::hours(hours), ..bench.last(1) };
    let report = bench.expire(&at(0)).await.unwrap();
    assert_eq!(report.decided.backups.len(), 3);
    assert_eq!(report.removed, Amount::default());
    assert_eq!(report.next_removal, report.backups[0].not_before);
    let due = report.next_removal.unwrap();
    assert!(due >= now + TimeDelta::hours(24) && due < now + TimeDelta::hours(25), "{due}");
    assert_eq!(bench.sound_days().await, [0, 1, 2, 3]);

    // Twelve hours later, somebody holds one of them, so it is taken back. The rest keeps its time.
    let holding = HoldOptions {
        cluster: bench.cluster.clone(),
        backup: bench.id(1),
        until: None,
        with_wal: false,
        reason: Some("audit".to_owned()),
        host: "db2".to_owned(),
        now,
    };
    hold(&bench.repository, &holding).await.unwrap();
    let report = bench.expire(&at(12)).await.unwrap();
    assert_eq!((report.decided, report.removed.clone()), (Amount::default(), Amount::default()));
    assert_eq!(report.backups[1].why, ["held"]);
    assert_eq!(report.next_removal, Some(due));

    let report = bench.expire(&at(25)).await.unwrap();
    assert_eq!(report.removed.backups, [bench.id(0), bench.id(2)]);
    assert_eq!(bench.sound_days().await, [1, 3]);
    let own = first_segment(1)..=first_segment(1) + 1;
    let rest = first_segment(3)..first_segment(4);
    assert_eq!(bench.segments().await, own.chain(rest).collect::<BTreeSet<_>>());

    // After the release, it waits its own grace time.
    assert!(release(&bench.repository, &bench.cluster, bench.id(1)).await.unwrap());
    assert!(!release(&bench.repository, &bench.cluster, bench.id(1)).await.unwrap());
    bench.expire(&at(26)).await.unwrap();
    assert_eq!(bench.sound_days().await, [1, 3]);
    bench.expire(&at(51)).await.unwrap();
    assert_eq!(bench.sound_days().await, [3]);
    assert_eq!(bench.names("packs/").await.len(), 2);
    assert_eq!(bench.ledger("deletion").await, 0);
}

/// A later backup uses a pack of the first backup and frames of its manifest: both stay until the later backup is
/// removed.
#[tokio::test]
async fn packs_and_manifests_that_others_use_outlive_their_backup() {
    let bench = Bench::new(true).await;
    bench.backup(0, &[]).await;
    bench.backup(1, &[(0, 2)]).await;
    bench.backup(2, &[]).await;
    bench.backup(3, &[]).await;
    for number in 1..first_segment(4) {
        bench.segment(number).await;
    }
    bench.expire(&bench.last(3)).await.unwrap();
    assert_eq!(bench.sound_days().await, [1, 2, 3]);
    let (first, cluster) = (bench.id(0), &bench.cluster);
    assert_eq!(bench.names(&format!("backups/{first}/")).await, [name::manifest(cluster, &first)]);
    assert_eq!(bench.names(&format!("packs/{first}/")).await, [name::pack(cluster, &first, 2)]);
    // The rest is no longer a backup, and there is nothing to do.
    let again = bench.expire(&bench.last(3)).await.unwrap();
    assert_eq!((again.backups.len(), again.decided, again.removed), (3, Amount::default(), Amount::default()));

    bench.expire(&bench.last(2)).await.unwrap();
    assert_eq!(bench.sound_days().await, [2, 3]);
    for folder in ["backups", "packs"] {
        assert_eq!(bench.names(&format!("{folder}/{first}/")).await, [""; 0]);
    }
}

/// A child uses frames of its parent's manifest, and none of the parent's packs.
#[tokio::test]
async fn a_manifest_stays_for_its_frames_alone() {
    let bench = Bench::new(false).await;
    bench.backup(0, &[]).await;
    let (first, second) = (bench.id(0), bench.id(1));
    bench.backup(1, &[]).await;
    bench.remove(&name::manifest(&bench.cluster, &second)).await;
    let packs = [1, 2].map(|number| name::pack(&bench.cluster, &second, number));
    bench.manifest(second, &packs, [name::manifest(&bench.cluster, &first)].into()).await;
    for number in 1..first_segment(2) {
        bench.segment(number).await;
    }
    bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [1]);
    assert_eq!(bench.names(&format!("backups/{first}/")).await, [name::manifest(&bench.cluster, &first)]);
    assert_eq!(bench.names(&format!("packs/{first}/")).await, [""; 0]);
}
