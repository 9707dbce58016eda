#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::backups::fixture::at;
use holdfast_kube_api::backup::ClusterReference;

/// Every five minutes, created at 12:00:00, so first due at 12:05:00.
fn scheduled() -> Scheduled {
    Scheduled {
        name: "nightly".to_owned(),
        uid: "schedule-uid".to_owned(),
        created: at(0),
        generation: Some(1),
        spec: ScheduledBackupSpec {
            schedule: "*/5 * * * *".to_owned(),
            cluster: ClusterReference { name: "main".to_owned() },
            ..ScheduledBackupSpec::default()
        },
        status: ScheduledBackupStatus::default(),
    }
}

fn made(name: &str, created: i64, phase: BackupPhase) -> Made {
    Made { name: name.to_owned(), ours: true, created: at(created), phase, deleting: false, of_snapshots: false }
}

fn line(decision: &Decision) -> String {
    let created: Vec<&str> = decision.create.iter().map(|plan| plan.name.as_str()).collect();
    format!(
        "+[{}] -[{}] missed {} next in {} s{}",
        created.join(" "),
        decision.delete.join(" "),
        decision.status.missed,
        decision.next.num_seconds(),
        decision.status.message.as_deref().map(|text| format!(": {text}")).unwrap_or_default()
    )
}

fn run(scheduled: &Scheduled, observed: &Observed, now: i64) -> Decision {
    let schedule = Schedule::parse(&scheduled.spec.schedule, scheduled.spec.time_zone.as_deref()).unwrap();
    decide(scheduled, &schedule, observed, at(now))
}

#[test]
fn each_time_gets_a_backup_or_is_counted() {
    use BackupPhase::{Completed, Failed, Running};
    type Change = fn(&mut Scheduled, &mut Observed);
    let table: &[(&str, i64, Change, &str)] = &[
        ("not yet", 10, |_, _| {}, "+[] -[] missed 0 next in 290 s"),
        ("at its time", 300, |_, _| {}, "+[nightly-20261122120500] -[] missed 0 next in 300 s"),
        ("a little late", 301, |_, _| {}, "+[nightly-20261122120500] -[] missed 0 next in 299 s"),
        ("answered", 301, |s, _| s.status.last_schedule_time = Some(at(300)), "+[] -[] missed 0 next in 299 s"),
        (
            "created, and the status was not written",
            301,
            |_, o| o.backups.push(made("nightly-20261122120500", 300, Running)),
            "+[] -[] missed 0 next in 299 s",
        ),
        (
            "the name is taken by another Backup",
            301,
            |_, o| {
                o.backups.push(Made { ours: false, ..made("nightly-20261122120500", 300, Running) });
            },
            "+[] -[] missed 1 next in 299 s: the backup of 2026-11-22T12:05:00Z was skipped: another Backup has the \
             name nightly-20261122120500",
        ),
        ("down for three times", 920, |_, _| {}, "+[nightly-20261122121500] -[] missed 2 next in 280 s"),
        (
            "down, and too late",
            960,
            |s, _| s.spec.starting_deadline_seconds = Some(59),
            "+[] -[] missed 3 next in 240 s: the backup of 2026-11-22T12:15:00Z was skipped: it was 60 s late, and \
             `startingDeadlineSeconds` is 59",
        ),
        (
            "down, and just in time",
            960,
            |s, _| s.spec.starting_deadline_seconds = Some(60),
            "+[nightly-20261122121500] -[] missed 2 next in 240 s",
        ),
        ("suspended", 301, |s, _| s.spec.suspend = Some(true), "+[] -[] missed 0 next in 299 s: suspended"),
        (
            "resumed: times during the suspension are not made up for",
            400,
            |s, _| {
                s.status.last_schedule_time = Some(at(300));
                s.status.message = Some("suspended".into());
            },
            "+[] -[] missed 0 next in 200 s",
        ),
        ("immediate", 1, |s, _| s.spec.immediate = Some(true), "+[nightly-20261122120000] -[] missed 0 next in 299 s"),
        (
            "immediate, done",
            1,
            |s, _| {
                s.spec.immediate = Some(true);
                s.status.immediate_done = true;
            },
            "+[] -[] missed 0 next in 299 s",
        ),
        (
            "immediate, created, and the status was not written",
            1,
            |s, o| {
                s.spec.immediate = Some(true);
                o.backups.push(made("nightly-20261122120000", 0, Running));
            },
            "+[] -[] missed 0 next in 299 s",
        ),
        (
            "immediate while suspended waits",
            1,
            |s, _| {
                s.spec.immediate = Some(true);
                s.spec.suspend = Some(true);
            },
            "+[] -[] missed 0 next in 299 s: suspended",
        ),
        (
            "the one before still runs: forbidden",
            601,
            |s, o| {
                s.status.last_schedule_time = Some(at(300));
                o.backups.push(made("nightly-20261122120500", 300, Running));
            },
            "+[] -[] missed 1 next in 299 s: the backup of 2026-11-22T12:10:00Z was skipped: Backup \
             nightly-20261122120500 has not ended yet",
        ),
        (
            "the one before still runs: allowed",
            601,
            |s, o| {
                s.spec.concurrency_policy = Some(ConcurrencyPolicy::Allow);
                s.status.last_schedule_time = Some(at(300));
                o.backups.push(made("nightly-20261122120500", 300, Running));
            },
            "+[nightly-20261122121000] -[] missed 0 next in 299 s",
        ),
        (
            "the one before still runs: replaced",
            601,
            |s, o| {
                s.spec.concurrency_policy = Some(ConcurrencyPolicy::Replace);
                s.status.last_schedule_time = Some(at(300));
                o.backups.push(made("nightly-20261122120500", 300, Running));
            },
            "+[nightly-20261122121000] -[nightly-20261122120500] missed 0 next in 299 s",
        ),
        (
            "the one before has ended",
            601,
            |s, o| {
                s.status.last_schedule_time = Some(at(300));
                o.backups.push(made("nightly-20261122120500", 300, Failed));
            },
            "+[nightly-20261122121000] -[] missed 0 next in 299 s",
        ),
        (
            "somebody else's Backup runs",
            301,
            |_, o| {
                o.backups.push(Made { ours: false, ..made("by-hand", 200, Running) });
            },
            "+[nightly-20261122120500] -[] missed 0 next in 299 s",
        ),
        (
            "history",
            10,
            |s, o| {
                s.spec.successful_backups_history_limit = Some(1);
                s.spec.failed_backups_history_limit = Some(0);
                o.backups = vec![
                    made("b", 2, Completed),
                    made("a", 1, Completed),
                    made("c", 3, Completed),
                    made("f", 1, Failed),
                    Made { ours: false, ..made("x", 0, Completed) },
                    Made { deleting: true, ..made("y", 0, Completed) },
                ];
            },
            "+[] -[b a f] missed 0 next in 290 s",
        ),
        (
            "history by default",
            20,
            |_, o| {
                for number in 0..12 {
                    o.backups.push(made(&format!("{number:02}"), number, if number < 6 { Failed } else { Completed }));
                    let snapshot = made(&format!("s{number:02}"), number, Completed);
                    o.backups.push(Made { of_snapshots: true, ..snapshot });
                }
            },
            "+[] -[00] missed 0 next in 280 s",
        ),
        (
            "the clock was set back to before the last time",
            10,
            |s, _| s.status.last_schedule_time = Some(at(3600)),
            "+[] -[] missed 0 next in 290 s",
        ),
    ];
    for (name, now, change, expected) in table {
        let (mut scheduled, mut observed) = (scheduled(), Observed::default());
        change(&mut scheduled, &mut observed);
        assert_eq!(line(&run(&scheduled, &observed, *now)), *expected, "{name}");
    }
}

#[test]
fn the_backup_is_what_the_schedule_says() {
    let mut scheduled = scheduled();
    scheduled.spec.online = Some(false);
    let mut observed = Observed { cluster_uid: Some("cluster-uid".into()), ..Observed::default() };
    let owners = [
        (BackupOwner::None, None),
        (BackupOwner::Itself, Some(("ScheduledBackup", "nightly", "schedule-uid"))),
        (BackupOwner::Cluster, Some(("Cluster", "main", "cluster-uid"))),
    ];
    for (owner, expected) in owners {
        scheduled.spec.backup_owner_reference = Some(owner);
        let decision = run(&scheduled, &observed, 300);
        let plan = &decision.create[0];
        let found = plan.owner.as_ref().map(|owner| (owner.kind, owner.name.as_str(), owner.uid.as_str()));
        assert_eq!(found, expected, "{owner:?}");
        assert_eq!(plan.labels[names::SCHEDULE_LABEL], "nightly");
        assert_eq!((plan.spec.cluster.name.as_str(), plan.spec.online), ("main", Some(false)));
    }
    observed.cluster_uid = None;
    assert_eq!(run(&scheduled, &observed, 300).create[0].owner, None, "no cluster yet");
}

#[test]
fn the_status_shows_what_comes_and_is_written_only_when_it_changes() {
    let mut scheduled = scheduled();
    let first = run(&scheduled, &Observed::default(), 10);
    assert_eq!(first.status.next_schedule_times, [at(300), at(600), at(900)]);
    assert_eq!(first.status.last_check_time, Some(at(10)));
    scheduled.status = first.status;
    let second = run(&scheduled, &Observed::default(), 20);
    assert_eq!(second.status, scheduled.status, "nothing to write");
    let due = run(&scheduled, &Observed::default(), 300);
    assert_eq!(due.status.last_schedule_time, Some(at(300)));
    assert_eq!(due.status.next_schedule_times, [at(600), at(900), at(1200)]);
    assert_eq!(due.status.last_backup.as_deref(), Some("nightly-20261122120500"));
}

#[test]
fn a_time_zone_and_seconds_count() {
    let mut scheduled = scheduled();
    scheduled.spec.schedule = "30 0 14 * * *".to_owned();
    scheduled.spec.time_zone = Some("Europe/Paris".to_owned());
    // 14:00:30 in Paris is 13:00:30 UTC in November.
    let decision = run(&scheduled, &Observed::default(), 3630);
    assert_eq!(line(&decision), "+[nightly-20261122130030] -[] missed 0 next in 600 s");
}

#[test]
fn a_month_of_seconds_is_made_up_for_once() {
    let mut scheduled = scheduled();
    scheduled.spec.schedule = "* * * * * *".to_owned();
    let now = 31 * 86_400;
    let decision = run(&scheduled, &Observed::default(), now);
    assert_eq!(decision.create.len(), 1);
    assert_eq!(decision.create[0].name, format!("nightly-{}", at(now).format("%Y%m%d%H%M%S")));
    assert_eq!(decision.status.missed, i64::try_from(COUNTED).unwrap() - 1);
    assert_eq!(decision.status.last_schedule_time, Some(at(now)));
}

/// Crashes between creation and status, at every time: each time gets exactly one `Backup`.
#[test]
fn no_time_gets_two_backups() {
    let mut scheduled = scheduled();
    let mut observed = Observed::default();
    let mut created = 0;
    for now in (0..3600).step_by(60) {
        let decision = run(&scheduled, &observed, now);
        created += decision.create.len();
        observed.backups.extend(decision.create.iter().map(|plan| made(&plan.name, now, BackupPhase::Completed)));
        if now % 180 == 0 {
            scheduled.status = decision.status;
        }
    }
    assert_eq!(created, 11);
    let mut names: Vec<&str> = observed.backups.iter().map(|made| made.name.as_str()).collect();
    names.dedup();
    assert_eq!(names.len(), 11);
}
