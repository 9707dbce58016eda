//! Conditions: of a `ScheduledBackup`, and `LastBackupSucceeded` of the `Cluster`. Pure.

use super::failure::first_line;
use chrono::{DateTime, Utc};
use holdfast_kube_api::backup::{BackupPhase, BackupStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// The condition of the `Cluster` about its newest backup that has ended.
pub(crate) const LAST_BACKUP: &str = "LastBackupSucceeded";

/// The new content of a condition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewCondition<'a> {
    /// Its type.
    pub(crate) kind: &'a str,
    /// Whether it holds.
    pub(crate) holds: bool,
    /// The reason, one word in camel case.
    pub(crate) reason: &'a str,
    /// The message, for people.
    pub(crate) message: &'a str,
    /// The generation that was observed.
    pub(crate) generation: Option<i64>,
}

/// Sets one condition in the list. Its transition time changes only if its value changes.
pub(crate) fn set(conditions: &mut Vec<Condition>, wanted: NewCondition<'_>, now: DateTime<Utc>) {
    let value = if wanted.holds { "True" } else { "False" };
    let before = conditions.iter().find(|condition| condition.type_ == wanted.kind);
    let since = match before {
        Some(before) if before.status == value => before.last_transition_time.clone(),
        _ => Time(Timestamp::from_second(now.timestamp()).unwrap_or_default()),
    };
    let condition = Condition {
        type_: wanted.kind.to_owned(),
        status: value.to_owned(),
        reason: wanted.reason.to_owned(),
        message: wanted.message.to_owned(),
        observed_generation: wanted.generation,
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|condition| condition.type_ == wanted.kind) {
        Some(before) => *before = condition,
        None => conditions.push(condition),
    }
}

/// Sets the condition of the `Cluster` about a `Backup` that has ended.
pub(crate) fn set_last_backup(conditions: &mut Vec<Condition>, name: &str, status: &BackupStatus, now: DateTime<Utc>) {
    let holds = status.phase == Some(BackupPhase::Completed);
    let message = if holds {
        let id = status.backup_id.as_deref().map(|id| format!(" ({id})")).unwrap_or_default();
        format!("Backup {name} is complete{id}")
    } else {
        format!(
            "Backup {name} failed: {}",
            first_line(status.error.as_deref().unwrap_or("error: no reason was reported"))
        )
    };
    let reason = if holds { "BackupCompleted" } else { "BackupFailed" };
    let wanted = NewCondition { kind: LAST_BACKUP, holds, reason, message: &message, generation: None };
    set(conditions, wanted, status.stopped_at.unwrap_or(now));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backups::fixture::at;

    #[test]
    fn the_condition_of_the_last_backup_changes_its_time_only_with_its_value() {
        let mut conditions = Vec::new();
        set(
            &mut conditions,
            NewCondition { kind: "Ready", holds: true, reason: "R", message: "m", generation: None },
            at(0),
        );
        let over = |phase, stopped: i64| BackupStatus {
            phase: Some(phase),
            stopped_at: Some(at(stopped)),
            backup_id: Some("id".to_owned()),
            error: Some("error: no space\nwhile: x".to_owned()),
            ..BackupStatus::default()
        };
        let table = [
            (BackupPhase::Completed, 10, "True", "Backup b is complete (id)", 10),
            (BackupPhase::Completed, 20, "True", "Backup b is complete (id)", 10),
            (BackupPhase::Failed, 30, "False", "Backup b failed: no space", 30),
            (BackupPhase::Failed, 40, "False", "Backup b failed: no space", 30),
        ];
        for (phase, stopped, value, message, since) in table {
            set_last_backup(&mut conditions, "b", &over(phase, stopped), at(99));
            assert_eq!(conditions.len(), 2);
            let condition = &conditions[1];
            assert_eq!((condition.status.as_str(), condition.message.as_str()), (value, message));
            assert_eq!(condition.last_transition_time.0.as_second(), at(since).timestamp());
        }
    }
}
