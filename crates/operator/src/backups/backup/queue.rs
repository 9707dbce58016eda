//! Whose turn it is: one backup at a time within a cluster, in the order of creation. Pure.
//!
//! A `Backup` that waits for its next attempt keeps its turn only while nobody else waits. So a `Backup` that always
//! fails delays the others by at most one attempt.

use super::task::Task;
use holdfast_kube_api::backup::BackupPhase;

/// The `Backup` that `task` has to wait for, of all `Backup`s of its cluster.
pub(crate) fn ahead<'a>(task: &Task, all: impl IntoIterator<Item = &'a Task>) -> Option<&'a str> {
    let mut first: Option<&Task> = None;
    for other in all {
        if other.uid == task.uid || other.phase().is_final() {
            continue;
        }
        let at_work = other.phase() != BackupPhase::Pending;
        if at_work {
            return Some(&other.name);
        }
        // A deleted `Backup` that has not begun will never begin.
        if other.deleted.is_none() && rank(other) < rank(task) && first.is_none_or(|first| rank(other) < rank(first)) {
            first = Some(other);
        }
    }
    first.map(|first| first.name.as_str())
}

/// First attempts go before later attempts.
fn rank(task: &Task) -> (bool, chrono::DateTime<chrono::Utc>, &str) {
    (task.status.attempts > 0, task.created, &task.name)
}

/// Whether another `Backup` of the cluster ended later than this time. Then only that one may write
/// `Cluster.status.lastBackup`, in whichever order the two are reconciled.
pub(crate) fn is_overtaken<'a>(
    task: &Task,
    stopped_at: Option<chrono::DateTime<chrono::Utc>>,
    all: impl IntoIterator<Item = &'a Task>,
) -> bool {
    all.into_iter().any(|other| {
        let of_cluster = other.uid != task.uid && other.spec.cluster.name == task.spec.cluster.name;
        of_cluster && other.phase().is_final() && other.status.stopped_at > stopped_at
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backups::fixture::{at, task};
    use holdfast_kube_api::backup::BackupMethod;

    fn backup(name: &str, created: i64, phase: BackupPhase, attempts: i32) -> Task {
        let mut task = task(BackupMethod::BarmanObjectStore);
        task.uid = format!("uid-{name}");
        task.name = name.to_owned();
        task.created = at(created);
        task.status.phase = Some(phase);
        task.status.attempts = attempts;
        task
    }

    #[test]
    fn the_order_is_that_of_creation() {
        use BackupPhase::{Completed, Failed, Finalizing, Pending, Running};
        let me = backup("m", 10, Pending, 0);
        let table: [(&str, Vec<Task>, Option<&str>); 10] = [
            ("alone", vec![], None),
            ("only finished ones", vec![backup("a", 0, Completed, 1), backup("b", 1, Failed, 5)], None),
            ("an earlier one", vec![backup("a", 0, Pending, 0)], Some("a")),
            ("the earliest is named", vec![backup("b", 1, Pending, 0), backup("a", 0, Pending, 0)], Some("a")),
            ("a later one", vec![backup("z", 20, Pending, 0)], None),
            ("the same second: by name", vec![backup("a", 10, Pending, 0)], Some("a")),
            ("the same second: by name, after it", vec![backup("z", 10, Pending, 0)], None),
            ("a later one that runs", vec![backup("z", 20, Running, 1)], Some("z")),
            ("one that waits for WAL", vec![backup("a", 0, Finalizing, 1)], Some("a")),
            ("an earlier one that begins again", vec![backup("a", 0, Pending, 2)], None),
        ];
        for (name, mut others, expected) in table {
            others.push(me.clone());
            assert_eq!(ahead(&me, &others), expected, "{name}");
        }
        let mut deleted = backup("a", 0, Pending, 0);
        deleted.deleted = Some(at(1));
        assert_eq!(ahead(&me, &[deleted]), None);
        let again = backup("a", 0, Pending, 1);
        assert_eq!(ahead(&again, std::slice::from_ref(&me)), Some("m"));
    }

    #[test]
    fn the_last_backup_is_the_one_that_ended_last() {
        let ended = |name: &str, phase, stopped| {
            let mut other = backup(name, 0, phase, 1);
            other.status.stopped_at = Some(at(stopped));
            other
        };
        let mut elsewhere = ended("c", BackupPhase::Completed, 9);
        elsewhere.spec.cluster.name = "another".to_owned();
        let me = ended("m", BackupPhase::Completed, 5);
        for (name, others, expected) in [
            ("alone", vec![me.clone()], false),
            ("after another", vec![ended("a", BackupPhase::Completed, 4)], false),
            ("before another", vec![ended("a", BackupPhase::Completed, 6)], true),
            ("before one that failed", vec![ended("a", BackupPhase::Failed, 6)], true),
            ("one is under way", vec![backup("a", 0, BackupPhase::Running, 1)], false),
            ("one of another cluster", vec![elsewhere], false),
        ] {
            assert_eq!(is_overtaken(&me, me.status.stopped_at, &others), expected, "{name}");
        }
    }
}
