#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::backups::backup::task::{ATTEMPTS, Action};
use crate::backups::cluster_view::InstanceAnswer;
use crate::backups::fixture::{at, begun, line, observed, status, task};
use chrono::TimeDelta;
use holdfast_kube_api::backup::BackupMethod::{BarmanObjectStore, VolumeSnapshot};
use holdfast_kube_api::backup::BackupPhase::{Completed, Failed, Finalizing, Pending, Running};
use holdfast_kube_api::status_port::{BackupResult, BackupRun, BackupState};

fn run(state: BackupState, done: u64) -> BackupRun {
    BackupRun {
        uid: "0a1b2c3d-4e5f.1".to_owned(),
        name: "nightly".to_owned(),
        state,
        done_bytes: done,
        total_bytes: Some(1000),
        ..BackupRun::default()
    }
}

#[test]
fn a_pending_backup_begins_waits_or_fails() {
    type Change = fn(&mut Task, &mut Observed, &mut Memory);
    let table: &[(&str, i64, Change, &str)] = &[
        ("healthy", 1, |_, _, _| {}, "Running [hold, start main-2] "),
        (
            "primary asked for",
            1,
            |t, _, _| t.spec.target = Some(holdfast_kube_api::cluster::BackupTarget::Primary),
            "Running [hold, start main-1] ",
        ),
        (
            "primary by the cluster",
            1,
            |_, o, _| o.cluster.as_mut().unwrap().target = holdfast_kube_api::cluster::BackupTarget::Primary,
            "Running [hold, start main-1] ",
        ),
        (
            "no cluster yet",
            1,
            |_, o, _| o.cluster = None,
            "Pending [] cluster main does not exist; waiting for it until 2026-11-22T12:10:00Z",
        ),
        ("no cluster for long", 600, |_, o, _| o.cluster = None, "Failed [] cluster main does not exist"),
        (
            "cluster being deleted",
            1,
            |_, o, _| o.cluster.as_mut().unwrap().deleting = true,
            "Failed [] cluster main was deleted",
        ),
        (
            "no object store",
            1,
            |_, o, _| o.cluster.as_mut().unwrap().archive = None,
            "Failed [] cluster main has no object store to back up into",
        ),
        (
            "another before it",
            1,
            |_, o, _| o.ahead = Some("earlier".into()),
            "Pending [] waiting for Backup earlier, which comes first",
        ),
        (
            "no object store, and another before it: it is not in the way of others",
            1,
            |_, o, _| {
                o.ahead = Some("earlier".into());
                o.cluster.as_mut().unwrap().archive = None;
            },
            "Failed [] cluster main has no object store to back up into",
        ),
        (
            "bootstrapping",
            5000,
            |_, o, _| o.cluster.as_mut().unwrap().bootstrapped = false,
            "Pending [] cluster main is being bootstrapped",
        ),
        (
            "no primary",
            1,
            |_, o, _| status(o.cluster.as_mut().unwrap(), 1).ready = false,
            "Pending [] cluster main has no primary that is ready; waiting until 2026-11-22T13:00:01Z",
        ),
        (
            "no primary for long",
            3700,
            |_, o, m| {
                status(o.cluster.as_mut().unwrap(), 1).ready = false;
                m.waiting_since = Some(at(0));
            },
            "Failed [] cluster main has no primary that is ready",
        ),
        (
            "hibernated: no instance at all",
            1,
            |_, o, _| o.cluster.as_mut().unwrap().instances.clear(),
            "Pending [] cluster main has no primary that is ready; waiting until 2026-11-22T13:00:01Z",
        ),
        (
            "already runs on an instance",
            1,
            |_, o, _| status(o.cluster.as_mut().unwrap(), 3).backup = Some(run(BackupState::Running, 5)),
            "Running [hold] ",
        ),
        (
            "an old failed run does not count",
            1,
            |_, o, _| status(o.cluster.as_mut().unwrap(), 2).backup = Some(run(BackupState::Failed, 5)),
            "Running [hold, start main-2] ",
        ),
        (
            "busy with another Backup",
            1,
            |_, o, _| {
                let other = BackupRun { uid: "other.1".into(), ..run(BackupState::Running, 5) };
                status(o.cluster.as_mut().unwrap(), 2).backup = Some(other);
                o.known.insert("other".into());
            },
            "Pending [] main-2 is busy with another Backup; waiting until 2026-11-22T13:00:01Z",
        ),
        (
            "busy with an orphan",
            1,
            |_, o, _| {
                let other = BackupRun { uid: "other.1".into(), ..run(BackupState::WaitingForWal, 5) };
                status(o.cluster.as_mut().unwrap(), 2).backup = Some(other);
            },
            "Pending [give up other.1 on main-2, release other.1 on main-2] ",
        ),
        (
            "between attempts",
            1,
            |t, _, m| {
                t.status.attempts = 1;
                t.status.reason = Some("attempt 2 of 5 begins soon".into());
                m.retry_at = Some(at(10));
            },
            "Pending [] attempt 2 of 5 begins soon",
        ),
        (
            "the next attempt goes elsewhere",
            10,
            |t, o, m| {
                t.status.attempts = 1;
                t.status.instance = Some("main-2".into());
                m.retry_at = Some(at(10));
                status(o.cluster.as_mut().unwrap(), 3).lsn = Some("0/5000060".into());
            },
            "Running [hold, start main-3] ",
        ),
        (
            "asked, and refused for long",
            3700,
            |_, _, m| {
                m.refused = Some("main-2 refused".into());
                m.waiting_since = Some(at(0));
            },
            "Failed [] main-2 refused",
        ),
    ];
    for (name, seconds, change, expected) in table {
        let (mut task, mut observed, mut memory) = (task(BarmanObjectStore), observed(), Memory::default());
        change(&mut task, &mut observed, &mut memory);
        assert_eq!(line(&decide(&task, &observed, &memory, at(*seconds))), *expected, "{name}");
    }
}

#[test]
fn a_snapshot_that_cannot_be_restored_is_not_begun() {
    type Change = fn(&mut Task, &mut Observed);
    let table: &[(&str, Change, &str)] = &[
        ("hot", |_, _| {}, "Running [hold, prepare main-2 online=true] "),
        ("cold by the Backup", |t, _| t.spec.online = Some(false), "Running [hold, prepare main-2 online=false] "),
        (
            "cold by the cluster",
            |_, o| o.cluster.as_mut().unwrap().snapshots.online = Some(false),
            "Running [hold, prepare main-2 online=false] ",
        ),
        (
            "the Backup's own setting counts",
            |t, o| {
                t.spec.online = Some(true);
                o.cluster.as_mut().unwrap().snapshots.online = Some(false);
            },
            "Running [hold, prepare main-2 online=true] ",
        ),
        (
            "no snapshots here",
            |_, o| o.snapshots_known = false,
            "Failed [] this Kubernetes does not have the API snapshot.storage.k8s.io/v1",
        ),
        (
            "hot without an archive",
            |_, o| o.cluster.as_mut().unwrap().archive = None,
            "Failed [] cluster main has no WAL archive, and a hot snapshot cannot be restored without one",
        ),
        (
            "cold without an archive",
            |t, o| {
                t.spec.online = Some(false);
                o.cluster.as_mut().unwrap().archive = None;
            },
            "Running [hold, prepare main-2 online=false] ",
        ),
    ];
    for (name, change, expected) in table {
        let (mut task, mut observed) = (task(VolumeSnapshot), observed());
        change(&mut task, &mut observed);
        assert_eq!(line(&decide(&task, &observed, &Memory::default(), at(1))), *expected, "{name}");
    }
}

#[test]
fn a_running_backup_is_followed_to_its_end() {
    type Change = fn(&mut Task, &mut Observed, &mut Memory);
    let table: &[(&str, i64, Change, &str)] = &[
        ("copying", 1, |_, o, _| o.run = InstanceAnswer::Known(run(BackupState::Running, 420)), "Running [] "),
        (
            "slow, not stuck",
            3600,
            |_, o, m| {
                o.run = InstanceAnswer::Known(run(BackupState::Running, 421));
                m.progress = Some((BackupState::Running, 420, at(0)));
            },
            "Running [] ",
        ),
        (
            "stuck",
            900,
            |_, o, m| {
                o.run = InstanceAnswer::Known(run(BackupState::Running, 420));
                m.progress = Some((BackupState::Running, 420, at(0)));
            },
            "Failed [give up 0a1b2c3d-4e5f.1 on main-2] the backup has read no data for 15m 00s",
        ),
        (
            "waits for WAL on a standby",
            1,
            |_, o, _| o.run = InstanceAnswer::Known(run(BackupState::WaitingForWal, 1000)),
            "Finalizing [switch main-1] ",
        ),
        (
            "asked to switch just now",
            9,
            |_, o, m| {
                o.run = InstanceAnswer::Known(run(BackupState::WaitingForWal, 1000));
                m.switched_at = Some(at(0));
            },
            "Finalizing [] ",
        ),
        (
            "asked again",
            10,
            |_, o, m| {
                o.run = InstanceAnswer::Known(run(BackupState::WaitingForWal, 1000));
                m.switched_at = Some(at(0));
            },
            "Finalizing [switch main-1] ",
        ),
        (
            "waits for WAL on the primary",
            1,
            |t, o, _| {
                t.status.instance = Some("main-1".into());
                o.run = InstanceAnswer::Known(run(BackupState::WaitingForWal, 1000));
            },
            "Finalizing [] ",
        ),
        (
            "the primary changed",
            1,
            |_, o, _| {
                let cluster = o.cluster.as_mut().unwrap();
                status(cluster, 1).role = None;
                status(cluster, 3).role = Some(holdfast_kube_api::status_port::Role::Primary);
                o.run = InstanceAnswer::Known(run(BackupState::WaitingForWal, 1000));
            },
            "Finalizing [switch main-3] ",
        ),
        (
            "no primary to archive the rest",
            1,
            |_, o, _| {
                status(o.cluster.as_mut().unwrap(), 1).ready = false;
                o.run = InstanceAnswer::Known(run(BackupState::WaitingForWal, 1000));
            },
            "Finalizing [] cluster main has no primary that could archive the last WAL; waiting for one",
        ),
        (
            "WAL never comes",
            4500,
            |t, o, m| {
                t.status.phase = Some(Finalizing);
                o.run = InstanceAnswer::Known(run(BackupState::WaitingForWal, 1000));
                m.progress = Some((BackupState::WaitingForWal, 1000, at(0)));
            },
            "Failed [give up 0a1b2c3d-4e5f.1 on main-2] the WAL that the backup needs was not archived within 1h 15m",
        ),
        (
            "failed",
            1,
            |_, o, _| {
                let error = Some("error: no space\nwhile: storing\nhint:  grow".to_owned());
                o.run = InstanceAnswer::Known(BackupRun { error, ..run(BackupState::Failed, 5) });
            },
            "Pending [] attempt 2 of 5 begins at 2026-11-22T12:00:11Z; attempt 1 on main-2 \
            ended: no space",
        ),
        (
            "failed for the last time",
            1,
            |t, o, _| {
                t.status.attempts = ATTEMPTS;
                let error = Some("error: no space\nwhile: storing\nhint:  grow".to_owned());
                o.run = InstanceAnswer::Known(BackupRun { error, ..run(BackupState::Failed, 5) });
            },
            "Failed [] no space",
        ),
        (
            "the manager was restarted",
            1,
            |_, o, _| o.run = InstanceAnswer::Unknown,
            "Pending [] attempt 2 of 5 begins at 2026-11-22T12:00:11Z; attempt 1 on main-2 ended: the instance \
             manager of main-2 was restarted during the backup",
        ),
        (
            "the manager was restarted for the third time",
            1,
            |t, o, _| {
                t.status.attempts = 3;
                o.run = InstanceAnswer::Unknown;
            },
            "Pending [] attempt 4 of 5 begins at 2026-11-22T12:00:41Z; attempt 3 on main-2 ended: the instance \
             manager of main-2 was restarted during the backup",
        ),
        (
            "silent",
            1,
            |_, o, _| o.run = InstanceAnswer::Silent("timed out".into()),
            "Running [] main-2 has not answered since 2026-11-22T12:00:01Z; waiting until 2026-11-22T12:02:01Z: \
             timed out",
        ),
        (
            "silent for long",
            121,
            |_, o, m| {
                o.run = InstanceAnswer::Silent("timed out".into());
                m.silent_since = Some(at(0));
            },
            "Pending [] attempt 2 of 5 begins at 2026-11-22T12:02:11Z; attempt 1 on main-2 ended: main-2 has not \
             answered since 2026-11-22T12:00:00Z: timed out",
        ),
        (
            "the pod is gone",
            1,
            |_, o, _| {
                o.cluster.as_mut().unwrap().instances.remove(1);
            },
            "Pending [] attempt 2 of 5 begins at 2026-11-22T12:00:11Z; attempt 1 on main-2 ended: pod main-2 is gone",
        ),
        ("the cluster is gone", 1, |_, o, _| o.cluster = None, "Failed [] cluster main was deleted"),
        (
            "the archive was removed from the spec during the run: it continues",
            1,
            |_, o, _| {
                o.cluster.as_mut().unwrap().archive = None;
                o.run = InstanceAnswer::Known(run(BackupState::Running, 420));
            },
            "Running [] ",
        ),
        (
            "complete without saying what",
            1,
            |_, o, _| o.run = InstanceAnswer::Known(run(BackupState::Completed, 1000)),
            "Pending [] attempt 2 of 5 begins at 2026-11-22T12:00:11Z; attempt 1 on main-2 \
             ended: the backup ended, but its report has no backup id",
        ),
        (
            "over already",
            1,
            |t, o, _| {
                t.status.phase = Some(Completed);
                o.cluster = None;
            },
            "Completed [] ",
        ),
        (
            "failed already",
            1,
            |t, o, _| {
                t.status.phase = Some(Failed);
                o.cluster = None;
            },
            "Failed [] ",
        ),
    ];
    for (name, seconds, change, expected) in table {
        let (mut task, mut observed, mut memory) = (begun(BarmanObjectStore), observed(), Memory::default());
        change(&mut task, &mut observed, &mut memory);
        assert_eq!(line(&decide(&task, &observed, &memory, at(*seconds))), *expected, "{name}");
    }
}

#[test]
fn completed_is_the_engines_own_result() {
    let mut observed = observed();
    observed.run = InstanceAnswer::Known(BackupRun {
        started_at: Some(at(1)),
        stopped_at: Some(at(9)),
        result: Some(BackupResult {
            backup_id: "20261122T120001Z".into(),
            begin_lsn: Some("0/4000028".into()),
            end_lsn: Some("0/4000120".into()),
            timeline_id: Some(1),
            data_bytes: Some(1000),
            stored_bytes: Some(300),
            warnings: vec!["2 pages were torn".into()],
            ..BackupResult::default()
        }),
        ..run(BackupState::Completed, 1000)
    });
    let mut running = begun(BarmanObjectStore);
    running.status.phase = Some(Finalizing);
    let decision = decide(&running, &observed, &Memory::default(), at(10));
    let status = &decision.status;
    assert_eq!(status.phase, Some(Completed));
    assert_eq!(status.backup_id.as_deref(), Some("20261122T120001Z"));
    assert_eq!((status.begin_lsn.as_deref(), status.end_lsn.as_deref()), (Some("0/4000028"), Some("0/4000120")));
    assert_eq!((status.started_at, status.stopped_at), (Some(at(1)), Some(at(9))));
    assert_eq!((status.data_bytes, status.stored_bytes, status.attempts), (Some(1000), Some(300), 1));
    assert_eq!(status.reason.as_deref(), Some("2 pages were torn"));
    assert_eq!(status.progress.as_deref(), Some("100% (1000 B of 1000 B)"));
    let reasons: Vec<Reason> = decision.events.iter().map(|event| event.reason).collect();
    assert_eq!(reasons, [Reason::BackupWarning, Reason::BackupCompleted]);
    assert!(decision.let_go && decision.actions.is_empty());
}

#[test]
fn progress_is_written_for_people_not_for_every_block() {
    let mut task = begun(BarmanObjectStore);
    let mut memory = Memory::default();
    let mut written = 0;
    for tick in 0..20_u64 {
        let mut observed = observed();
        observed.run = InstanceAnswer::Known(run(BackupState::Running, 10 * tick));
        let now = at(0) + TimeDelta::milliseconds(300 * i64::try_from(tick).unwrap());
        let decision = decide(&task, &observed, &memory, now);
        written += u32::from(decision.status != task.status);
        task.status = decision.status;
        memory = decision.memory;
    }
    // Six seconds: at 0.0, 2.1 and 4.2 s; the generation is written with the first.
    assert_eq!(written, 3);
    assert_eq!(task.status.progress.as_deref(), Some("14% (140 B of 1000 B)"));
}

#[test]
fn a_deleted_backup_gives_up_its_run_first() {
    type Change = fn(&mut Task, &mut Observed);
    let table: &[(&str, i64, Change, &str)] = &[
        (
            "running",
            2,
            |_, o| o.run = InstanceAnswer::Known(run(BackupState::Running, 4)),
            "Running [give up 0a1b2c3d-4e5f.1 on main-2] ",
        ),
        (
            "not begun",
            2,
            |t, _| {
                t.status.phase = Some(Pending);
                t.status.instance = None;
            },
            "Pending [] ",
        ),
        (
            "silent",
            2,
            |_, o| o.run = InstanceAnswer::Silent("timed out".into()),
            "Running [give up 0a1b2c3d-4e5f.1 on main-2] ",
        ),
        ("silent for long", 62, |_, o| o.run = InstanceAnswer::Silent("timed out".into()), "Running [] "),
        (
            "the pod is gone",
            2,
            |_, o| {
                o.cluster.as_mut().unwrap().instances.remove(1);
            },
            "Running [] ",
        ),
        ("the cluster is gone", 2, |_, o| o.cluster = None, "Running [] "),
        ("over", 2, |t, _| t.status.phase = Some(Completed), "Completed [] "),
    ];
    for (name, seconds, change, expected) in table {
        let (mut task, mut observed) = (begun(BarmanObjectStore), observed());
        task.deleted = Some(at(1));
        change(&mut task, &mut observed);
        let decision = decide(&task, &observed, &Memory::default(), at(*seconds));
        assert_eq!(line(&decision), *expected, "{name}");
        assert!(decision.let_go, "{name}");
    }
}

/// Whatever instances report, and however often a run is lost, the `Backup` ends within a known time and asks for a run
/// at most five times.
#[test]
fn nothing_makes_it_run_for_ever() {
    let answers: [fn(u64) -> InstanceAnswer<BackupRun>; 6] = [
        |_| InstanceAnswer::Silent("timed out".into()),
        |_| InstanceAnswer::Unknown,
        |_| InstanceAnswer::Known(run(BackupState::Running, 5)),
        |_| InstanceAnswer::Known(run(BackupState::WaitingForWal, 1000)),
        |_| InstanceAnswer::Known(run(BackupState::Failed, 5)),
        |_| InstanceAnswer::Known(run(BackupState::Completed, 1000)),
    ];
    for answer in answers {
        let (mut task, mut memory) = (task(BarmanObjectStore), Memory::default());
        let mut starts = 0;
        let mut now = at(1);
        while !task.phase().is_final() {
            let mut observed = observed();
            observed.run = answer(0);
            let decision = decide(&task, &observed, &memory, now);
            starts += decision.actions.iter().filter(|action| matches!(action, Action::Start { .. })).count();
            task.status = decision.status;
            memory = decision.memory;
            now += match decision.next {
                Requeue::OnChange => TimeDelta::hours(1),
                Requeue::After(wait) => TimeDelta::from_std(wait).unwrap().max(TimeDelta::milliseconds(100)),
            };
            assert!(now < at(3 * 3600), "still {:?} after three hours: {:?}", task.phase(), task.status.reason);
        }
        assert!(starts <= 5, "{starts} attempts");
        assert_eq!(task.status.phase, Some(Failed));
        assert!(task.status.error.as_deref().unwrap().contains("\nwhile: ") || task.status.attempts == ATTEMPTS);
    }
}

#[test]
fn an_attempt_that_begins_again_starts_with_a_clean_status() {
    let mut task = begun(BarmanObjectStore);
    task.status.progress = Some("42%".into());
    task.status.backup_id = Some("x".into());
    let mut observed = observed();
    observed.run = InstanceAnswer::Unknown;
    let decision = decide(&task, &observed, &Memory::default(), at(5));
    assert_eq!(decision.status.phase, Some(Pending));
    assert_eq!((decision.status.progress, decision.status.backup_id, decision.status.attempts), (None, None, 1));
    assert_eq!(decision.memory.retry_at, Some(at(15)));
    let restarted = begun(BarmanObjectStore);
    assert_eq!(restarted.status.phase, Some(Running));
}
