#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::backups::backup::decide;
use crate::backups::fixture::{at, begun, line, observed, status};
use holdfast_kube_api::backup::BackupMethod::VolumeSnapshot;
use holdfast_kube_api::status_port::Role;

const DATA: &str = "nightly-0a1b2c3d";
const WAL: &str = "nightly-0a1b2c3d-wal";

fn run(state: SnapshotState) -> SnapshotRun {
    SnapshotRun {
        uid: "0a1b2c3d-4e5f.1".to_owned(),
        name: "nightly".to_owned(),
        online: true,
        state,
        begin_lsn: Some("0/4000028".to_owned()),
        begin_wal: Some("000000010000000000000004".to_owned()),
        timeline_id: Some(1),
        ..SnapshotRun::default()
    }
}

/// What the instance reports at the end of a hot snapshot.
fn result() -> SnapshotRun {
    SnapshotRun {
        end_lsn: Some("0/4000120".to_owned()),
        end_wal: Some("000000010000000000000004".to_owned()),
        backup_label: Some("START WAL LOCATION".to_owned()),
        tablespace_map: Some(String::new()),
        wal_confirmed: true,
        snapshot_id: Some("20261122T120000Z".to_owned()),
        ..run(SnapshotState::Stopped)
    }
}

fn snapshot(name: &str, cut: bool, ready: bool) -> ObservedSnapshot {
    let wal = name.ends_with("-wal");
    ObservedSnapshot {
        name: name.to_owned(),
        claim: if wal { "main-2-wal" } else { "main-2" }.to_owned(),
        kind: if wal { names::PG_WAL } else { names::PG_DATA }.to_owned(),
        attempt: 1,
        number: 1,
        cut,
        ready,
        ..ObservedSnapshot::default()
    }
}

fn both(cut: bool, ready: bool) -> Vec<ObservedSnapshot> {
    vec![snapshot(DATA, cut, ready), snapshot(WAL, cut, ready)]
}

fn broken(mut snapshot: ObservedSnapshot, number: i32, at: DateTime<Utc>) -> ObservedSnapshot {
    snapshot.number = number;
    snapshot.error = Some("quota exceeded".to_owned());
    snapshot.error_at = Some(at);
    snapshot
}

#[test]
fn snapshots_are_taken_between_ready_and_stop() {
    type Change = fn(&mut Task, &mut Observed, &mut Memory);
    let table: &[(&str, i64, Change, &str)] = &[
        (
            "waiting for the checkpoint",
            1,
            |_, o, _| o.snapshot = InstanceAnswer::Known(run(SnapshotState::Starting)),
            "Running [] ",
        ),
        (
            "ready",
            1,
            |_, o, _| o.snapshot = InstanceAnswer::Known(run(SnapshotState::Ready)),
            "Running [create nightly-0a1b2c3d, create nightly-0a1b2c3d-wal] ",
        ),
        (
            "one is there already",
            1,
            |_, o, _| {
                o.snapshot = InstanceAnswer::Known(run(SnapshotState::Ready));
                o.snapshots = vec![snapshot(DATA, false, false)];
            },
            "Running [create nightly-0a1b2c3d-wal] ",
        ),
        (
            "both exist, none cut",
            1,
            |_, o, _| {
                o.snapshot = InstanceAnswer::Known(run(SnapshotState::Ready));
                o.snapshots = both(false, false);
            },
            "Running [] ",
        ),
        (
            "one cut",
            1,
            |_, o, _| {
                o.snapshot = InstanceAnswer::Known(run(SnapshotState::Ready));
                o.snapshots = vec![snapshot(DATA, true, true), snapshot(WAL, false, false)];
            },
            "Running [] ",
        ),
        (
            "both cut, neither ready",
            1,
            |_, o, _| {
                o.snapshot = InstanceAnswer::Known(run(SnapshotState::Ready));
                o.snapshots = both(true, false);
            },
            "Finalizing [stop main-2] ",
        ),
        (
            "snapshots of an earlier attempt do not count",
            1,
            |t, o, _| {
                t.status.attempts = 2;
                o.snapshot = InstanceAnswer::Known(run(SnapshotState::Ready));
                o.snapshots = both(true, true);
            },
            "Running [create nightly-0a1b2c3d-2-1, create nightly-0a1b2c3d-2-1-wal] ",
        ),
        (
            "the driver's error is shown while it may pass",
            5,
            |_, o, _| {
                o.snapshot = InstanceAnswer::Known(run(SnapshotState::Ready));
                o.snapshots = vec![broken(snapshot(DATA, false, false), 1, at(0)), snapshot(WAL, true, false)];
            },
            "Running [] VolumeSnapshot nightly-0a1b2c3d: quota exceeded",
        ),
        (
            "the driver's error lasts: created again",
            10,
            |_, o, _| {
                o.snapshot = InstanceAnswer::Known(run(SnapshotState::Ready));
                o.snapshots = vec![broken(snapshot(DATA, false, false), 1, at(0)), snapshot(WAL, true, false)];
            },
            "Running [create nightly-0a1b2c3d-1-2] ",
        ),
        (
            "the second try is taken",
            20,
            |_, o, _| {
                o.snapshot = InstanceAnswer::Known(run(SnapshotState::Ready));
                let second = ObservedSnapshot { number: 2, ..snapshot("nightly-0a1b2c3d-1-2", true, false) };
                o.snapshots = vec![broken(snapshot(DATA, false, false), 1, at(0)), second, snapshot(WAL, true, false)];
            },
            "Finalizing [stop main-2] ",
        ),
        (
            "three errors",
            60,
            |_, o, _| {
                o.snapshot = InstanceAnswer::Known(run(SnapshotState::Ready));
                o.snapshots = vec![
                    broken(snapshot(DATA, false, false), 1, at(0)),
                    broken(snapshot("nightly-0a1b2c3d-1-2", false, false), 2, at(20)),
                    broken(snapshot("nightly-0a1b2c3d-1-3", false, false), 3, at(40)),
                    snapshot(WAL, true, false),
                ];
            },
            "Failed [release 0a1b2c3d-4e5f.1 on main-2, delete nightly-0a1b2c3d, delete nightly-0a1b2c3d-1-2, \
            delete nightly-0a1b2c3d-1-3, delete nightly-0a1b2c3d-wal] quota exceeded",
        ),
        (
            "no volumes",
            1,
            |_, o, _| {
                o.cluster.as_mut().unwrap().instances[1].volumes.clear();
                o.snapshot = InstanceAnswer::Known(run(SnapshotState::Ready));
            },
            "Failed [release 0a1b2c3d-4e5f.1 on main-2] main-2 has no volume that could be snapshotted",
        ),
        (
            "stopping: a standby's WAL needs the primary",
            2,
            |_, o, _| {
                o.snapshot = InstanceAnswer::Known(run(SnapshotState::Stopping));
                o.snapshots = both(true, false);
            },
            "Finalizing [switch main-1] ",
        ),
        (
            "stopping on the primary",
            2,
            |t, o, _| {
                t.status.instance = Some("main-1".into());
                o.snapshot = InstanceAnswer::Known(run(SnapshotState::Stopping));
            },
            "Finalizing [] ",
        ),
        (
            "a cold one waits for its segment too",
            2,
            |_, o, _| {
                o.snapshot = InstanceAnswer::Known(SnapshotRun { online: false, ..run(SnapshotState::Stopping) });
                o.snapshots = both(true, false);
            },
            "Finalizing [switch main-1] ",
        ),
    ];
    for (name, seconds, change, expected) in table {
        let (mut task, mut observed, mut memory) = (begun(VolumeSnapshot), observed(), Memory::default());
        change(&mut task, &mut observed, &mut memory);
        assert_eq!(line(&decide(&task, &observed, &memory, at(*seconds))), *expected, "{name}");
    }
}

#[test]
fn what_goes_wrong_leaves_nothing_behind() {
    const GONE: &str = "delete nightly-0a1b2c3d, delete nightly-0a1b2c3d-wal";
    const RELEASE: &str = "release 0a1b2c3d-4e5f.1 on main-2";
    const AGAIN: &str = "attempt 2 of 5 begins at 2026-11-22T12:00:11Z; attempt 1 on main-2 ended:";
    type Change = fn(&mut Task, &mut Observed);
    let table: &[(&str, i64, Change, String)] = &[
        (
            "the instance gave up",
            1,
            |_, o| {
                let error = Some("error: the connection was lost\nwhile: x\nhint:  y".to_owned());
                o.snapshot = InstanceAnswer::Known(SnapshotRun { error, ..run(SnapshotState::Failed) });
                o.snapshots = both(true, false);
            },
            format!("Pending [{RELEASE}, {GONE}] {AGAIN} the connection was lost"),
        ),
        (
            "the manager was restarted",
            1,
            |_, o| {
                o.snapshot = InstanceAnswer::Unknown;
                o.snapshots = both(true, true);
            },
            format!(
                "Pending [{GONE}] {AGAIN} the instance manager of main-2 was restarted before the snapshots were taken"
            ),
        ),
        (
            "the pod is gone",
            1,
            |_, o| {
                o.cluster.as_mut().unwrap().instances.remove(1);
                o.snapshots = both(true, true);
            },
            format!("Pending [{GONE}] {AGAIN} pod main-2 is gone"),
        ),
        (
            "stopped before all were cut",
            1,
            |_, o| {
                o.snapshot = InstanceAnswer::Known(result());
                o.snapshots = vec![snapshot(DATA, true, true), snapshot(WAL, false, false)];
            },
            format!(
                "Pending [{RELEASE}, {GONE}] {AGAIN} the instance ended the snapshot before all volumes were \
                 snapshotted"
            ),
        ),
        (
            "stopped without a label",
            1,
            |_, o| {
                o.snapshot = InstanceAnswer::Known(SnapshotRun { backup_label: None, ..result() });
                o.snapshots = both(true, true);
            },
            format!("Pending [{RELEASE}, {GONE}] {AGAIN} the instance ended backup mode but reported no backup label"),
        ),
        (
            "stopped without its WAL",
            1,
            |_, o| {
                o.snapshot = InstanceAnswer::Known(SnapshotRun { wal_confirmed: false, ..result() });
                o.snapshots = both(true, true);
            },
            format!(
                "Pending [{RELEASE}, {GONE}] {AGAIN} the instance ended the snapshot before its WAL was in the archive"
            ),
        ),
        (
            "stopped without a record",
            1,
            |_, o| {
                o.snapshot = InstanceAnswer::Known(SnapshotRun { snapshot_id: None, ..result() });
                o.snapshots = both(true, true);
            },
            format!(
                "Pending [{RELEASE}, {GONE}] {AGAIN} the instance ended the snapshot, but the archive has no record \
                 of it"
            ),
        ),
        (
            "the deadline, with the driver's error",
            600,
            |_, o| {
                o.snapshot = InstanceAnswer::Known(run(SnapshotState::Ready));
                o.snapshots = vec![broken(snapshot(DATA, false, false), 1, at(595)), snapshot(WAL, true, true)];
            },
            format!("Failed [{RELEASE}, {GONE}] quota exceeded"),
        ),
        (
            "the deadline, by the cluster",
            30,
            |_, o| {
                o.cluster.as_mut().unwrap().snapshots.deadline_seconds = Some(30);
                o.snapshot = InstanceAnswer::Known(run(SnapshotState::Ready));
                o.snapshots = both(false, false);
            },
            format!("Failed [{RELEASE}, {GONE}] the snapshots were not taken within their deadline"),
        ),
        (
            "the deadline, and nobody answers",
            600,
            |_, o| {
                o.snapshot = InstanceAnswer::Silent("timed out".into());
                o.snapshots = both(true, false);
            },
            format!("Failed [{GONE}] the snapshots were not taken within their deadline"),
        ),
        (
            "the cluster is gone",
            1,
            |_, o| {
                o.cluster = None;
                o.snapshots = both(true, true);
            },
            format!("Failed [{GONE}] cluster main was deleted"),
        ),
        (
            "its Backup is deleted",
            1,
            |t, o| {
                t.deleted = Some(at(0));
                o.snapshot = InstanceAnswer::Known(run(SnapshotState::Ready));
                o.snapshots = both(true, false);
            },
            format!("Running [{GONE}, {RELEASE}] "),
        ),
    ];
    for (name, seconds, change, expected) in table {
        let (mut task, mut observed) = (begun(VolumeSnapshot), observed());
        change(&mut task, &mut observed);
        assert_eq!(line(&decide(&task, &observed, &Memory::default(), at(*seconds))), *expected, "{name}");
    }
}

/// The instance's last report is first kept in the status. From then on, neither the instance nor the cluster is
/// needed.
#[test]
fn a_hot_one_ends_with_its_label_on_the_snapshots() {
    let mut task = begun(VolumeSnapshot);
    let mut observed = observed();
    observed.snapshot = InstanceAnswer::Known(result());
    observed.snapshots = both(true, false);
    let decision = decide(&task, &observed, &Memory::default(), at(5));
    assert_eq!(line(&decision), "Finalizing [] ");
    assert_eq!(decision.status.backup_label_file.as_deref(), Some("U1RBUlQgV0FMIExPQ0FUSU9O"));
    assert_eq!(decision.status.tablespace_map_file, None, "an empty map does not count as a map");
    task.status = decision.status;

    observed.cluster = None;
    observed.snapshot = InstanceAnswer::Unknown;
    let decision = decide(&task, &observed, &decision.memory, at(6));
    assert_eq!(line(&decision), format!("Finalizing [annotate {DATA}, annotate {WAL}] "));

    let failed = broken(snapshot("nightly-0a1b2c3d-1-0", false, false), 0, at(0));
    observed.snapshots = both(true, true);
    for one in &mut observed.snapshots {
        one.annotations.extend(annotations(&task));
    }
    observed.snapshots.push(failed);
    let decision = decide(&task, &observed, &decision.memory, at(7));
    assert_eq!(line(&decision), "Completed [delete nightly-0a1b2c3d-1-0] ");
    assert_eq!(decision.status.backup_id.as_deref(), Some("20261122T120000Z"));
    let elements = decision.status.snapshot_backup_status.unwrap().elements;
    assert_eq!(
        elements.iter().map(|one| (one.name.as_str(), one.kind.as_str())).collect::<Vec<_>>(),
        [(DATA, names::PG_DATA), (WAL, names::PG_WAL)]
    );
    assert!(decision.let_go);
}

#[test]
fn a_cold_one_needs_neither_label_nor_archive() {
    let mut task = begun(VolumeSnapshot);
    let mut observed = observed();
    observed.cluster.as_mut().unwrap().archive = None;
    observed.snapshot = InstanceAnswer::Known(SnapshotRun { online: false, ..run(SnapshotState::Stopped) });
    observed.snapshots = both(true, true);
    task.status = decide(&task, &observed, &Memory::default(), at(5)).status;
    assert_eq!((task.status.end_lsn.as_deref(), task.status.online), (Some("0/4000028"), Some(false)));
    assert_eq!(line(&decide(&task, &observed, &Memory::default(), at(6))), "Completed [] ");
}

#[test]
fn what_was_cut_may_still_fail_to_become_ready() {
    let mut task = begun(VolumeSnapshot);
    let mut observed = observed();
    observed.snapshot = InstanceAnswer::Known(result());
    observed.snapshots = both(true, false);
    task.status = decide(&task, &observed, &Memory::default(), at(5)).status;
    for one in &mut observed.snapshots {
        one.annotations.extend(annotations(&task));
    }
    let waiting = decide(&task, &observed, &Memory::default(), at(599));
    assert_eq!(line(&waiting), "Finalizing [] ");
    observed.snapshots[1] = ObservedSnapshot {
        annotations: annotations(&task).into_iter().collect(),
        ..broken(snapshot(WAL, true, false), 1, at(100))
    };
    let shown = decide(&task, &observed, &Memory::default(), at(599));
    assert_eq!(
        line(&shown),
        format!("Finalizing [] VolumeSnapshot {WAL}: quota exceeded; waiting until 2026-11-22T12:10:00Z")
    );
    let late = decide(&task, &observed, &Memory::default(), at(600));
    assert_eq!(line(&late), format!("Failed [delete {DATA}, delete {WAL}] quota exceeded"));
    observed.snapshots.remove(0);
    let lost = decide(&task, &observed, &Memory::default(), at(7));
    assert_eq!(lost.status.phase, Some(BackupPhase::Pending));
    assert!(lost.status.reason.unwrap().contains("was deleted before it was ready to use"));
}

#[test]
fn options_of_the_cluster_reach_the_snapshots() {
    use holdfast_kube_api::cluster::SnapshotOwner;
    let mut observed = observed();
    let options = &mut observed.cluster.as_mut().unwrap().snapshots;
    options.class_name = Some("fast".into());
    options.labels.insert("team".into(), "a".into());
    options.annotations.insert("note".into(), "b".into());
    observed.snapshot = InstanceAnswer::Known(run(SnapshotState::Ready));
    let owners = [
        (None, None),
        (Some(SnapshotOwner::Backup), Some(("Backup", "0a1b2c3d-4e5f"))),
        (Some(SnapshotOwner::Cluster), Some(("Cluster", "cluster-uid"))),
    ];
    for (owner, expected) in owners {
        observed.cluster.as_mut().unwrap().snapshots.snapshot_owner_reference = owner;
        let decision = decide(&begun(VolumeSnapshot), &observed, &Memory::default(), at(1));
        let plans: Vec<_> = decision
            .actions
            .iter()
            .filter_map(|action| if let Action::CreateSnapshot(plan) = action { Some(plan) } else { None })
            .collect();
        assert_eq!(plans.len(), 2);
        for plan in plans {
            assert_eq!(plan.owner.as_ref().map(|owner| (owner.kind, owner.uid.as_str())), expected);
            assert_eq!(plan.class.as_deref(), Some("fast"), "the WAL's class is the data's when none is set");
            assert_eq!((plan.labels["team"].as_str(), plan.annotations["note"].as_str()), ("a", "b"));
            assert_eq!(plan.annotations[names::SNAPSHOT_BACKUP], "nightly");
        }
    }
}

/// The role changes during the snapshot: the instance that is asked to switch WAL is the primary at that time.
#[test]
fn the_current_primary_is_asked_to_switch() {
    let mut observed = observed();
    let cluster = observed.cluster.as_mut().unwrap();
    status(cluster, 1).ready = false;
    status(cluster, 2).role = Some(Role::Primary);
    observed.snapshot = InstanceAnswer::Known(run(SnapshotState::Stopping));
    assert_eq!(line(&decide(&begun(VolumeSnapshot), &observed, &Memory::default(), at(2))), "Finalizing [] ");
}
