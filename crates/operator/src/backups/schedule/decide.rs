//! What to do about a `ScheduledBackup`: pure, no client, no clock.
//!
//! If several times passed since the last look, one `Backup` is made for the newest, and the others are counted as
//! missed. Times that pass while it is suspended are not made up for: that is what suspending means.

use crate::backups::event::{BackupEvent, Reason};
use crate::backups::failure::time;
use crate::backups::snapshot::Owner;
use chrono::{DateTime, TimeDelta, Utc};
use holdfast_kube_api::backup::{BackupPhase, BackupSpec};
use holdfast_kube_api::names;
use holdfast_kube_api::schedule::Schedule;
use holdfast_kube_api::scheduled_backup::{BackupOwner, ConcurrencyPolicy, ScheduledBackupSpec, ScheduledBackupStatus};
use std::collections::BTreeMap;

/// Missed times are counted up to this number: a schedule by the second that was down for a month should not count for
/// minutes.
const COUNTED: usize = 10_000;
/// The longest sleep: if a clock is set forward, the next time comes earlier than planned.
const LONGEST_SLEEP: TimeDelta = TimeDelta::minutes(10);
/// How many completed `Backup`s are kept by default. Thousands of them cost memory, and say nothing that the archive
/// does not say.
const SUCCESSFUL: usize = 10;
/// How many failed `Backup`s are kept by default.
const FAILED: usize = 5;
/// How many future times the status shows.
const SHOWN: usize = 3;

/// The fields of a `ScheduledBackup` that decisions need.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scheduled {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`.
    pub created: DateTime<Utc>,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// The spec as it was read.
    pub spec: ScheduledBackupSpec,
    /// The status as it was read.
    pub status: ScheduledBackupStatus,
}

/// The input of a decision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// All `Backup`s of the namespace.
    pub backups: Vec<Made>,
    /// The uid of the cluster; `None` if it does not exist.
    pub cluster_uid: Option<String>,
}

/// A `Backup` that exists in the namespace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Made {
    /// `metadata.name`.
    pub name: String,
    /// Whether this schedule created it.
    pub ours: bool,
    /// `metadata.creationTimestamp`.
    pub created: DateTime<Utc>,
    /// `status.phase`.
    pub phase: BackupPhase,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it consists of volume snapshots, which may be deleted with it.
    pub of_snapshots: bool,
}

/// A `Backup` to be created.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BackupPlan {
    /// `metadata.name`: the schedule's name with the time.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    pub spec: BackupSpec,
    /// The owner reference, if `backupOwnerReference` asks for one.
    pub owner: Option<Owner>,
}

/// The output of a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Names of the `Backup`s to delete; done first.
    pub delete: Vec<String>,
    /// The `Backup`s to create; done before the status is written.
    pub create: Vec<BackupPlan>,
    /// The new status, without conditions.
    pub status: ScheduledBackupStatus,
    /// The Events to publish.
    pub events: Vec<BackupEvent>,
    /// How long until the next look.
    pub next: TimeDelta,
}

/// The decision about one schedule, without side effects.
pub fn decide(scheduled: &Scheduled, schedule: &Schedule, observed: &Observed, now: DateTime<Utc>) -> Decision {
    let status = ScheduledBackupStatus { observed_generation: scheduled.generation, ..scheduled.status.clone() };
    let mut work = DecisionBuilder {
        scheduled,
        observed,
        active: observed.backups.iter().filter(|made| is_active(made)).map(|made| made.name.clone()).collect(),
        decision: Decision { delete: Vec::new(), create: Vec::new(), status, events: Vec::new(), next: LONGEST_SLEEP },
    };
    let anchor = scheduled.status.last_schedule_time.unwrap_or(scheduled.created).min(now);
    let (newest, count) = due(schedule, anchor, now);
    let suspended = scheduled.spec.suspend.unwrap_or(false);
    if suspended {
        work.decision.status.message = Some("suspended".to_owned());
    } else {
        if work.decision.status.message.as_deref() == Some("suspended") {
            work.decision.status.message = None;
        }
        if scheduled.spec.immediate.unwrap_or(false) && !scheduled.status.immediate_done {
            work.answer(scheduled.created, "is created now, because `immediate` is set");
            work.decision.status.immediate_done = true;
        }
        if let Some(newest) = newest {
            if count > 1 {
                let others = count - 1;
                work.left_out(others, format!("no backup was made for the {others} times before {}", time(newest)));
            }
            work.due_at(newest, now);
        }
    }
    work.prune();
    let mut decision = work.decision;
    let status = &mut decision.status;
    if let Some(newest) = newest {
        status.last_schedule_time = Some(newest);
    }
    status.next_schedule_times = if suspended { Vec::new() } else { schedule.upcoming(now).take(SHOWN).collect() };
    if newest.is_some() || *status != scheduled.status {
        status.last_check_time = Some(now);
    }
    decision.next = schedule.next_after(now).map_or(LONGEST_SLEEP, |next| (next - now).min(LONGEST_SLEEP));
    decision
}

/// The newest time that is due, and the number of times that are due.
fn due(schedule: &Schedule, after: DateTime<Utc>, until: DateTime<Utc>) -> (Option<DateTime<Utc>>, usize) {
    let mut newest = None;
    let mut count = 0;
    for time in schedule.times_between(after, until).take(COUNTED) {
        newest = Some(time);
        count += 1;
    }
    if count < COUNTED {
        return (newest, count);
    }
    // Many times in the span: the newest is near its end.
    let spans = [TimeDelta::minutes(1), TimeDelta::hours(1), TimeDelta::days(1), TimeDelta::days(32)];
    let near = spans.iter().find_map(|span| schedule.times_between((until - *span).max(after), until).last());
    (near.max(newest), count)
}

fn is_active(made: &Made) -> bool {
    made.ours && !made.deleting && !made.phase.is_final()
}

/// A decision while it is built.
struct DecisionBuilder<'a> {
    scheduled: &'a Scheduled,
    observed: &'a Observed,
    /// Names of the `Backup`s of this schedule that have not ended.
    active: Vec<String>,
    decision: Decision,
}

impl DecisionBuilder<'_> {
    /// Handles a time of the schedule that has passed.
    fn due_at(&mut self, at: DateTime<Utc>, now: DateTime<Utc>) {
        let late = now - at;
        if let Some(limit) = self.scheduled.spec.starting_deadline_seconds
            && late > TimeDelta::seconds(limit)
        {
            let text = format!(
                "the backup of {} was skipped: it was {} s late, and `startingDeadlineSeconds` is {limit}",
                time(at),
                late.num_seconds()
            );
            return self.left_out(1, text);
        }
        self.answer(at, &format!("is created for {}", time(at)));
    }

    /// Creates the `Backup` of a time, unless it exists.
    fn answer(&mut self, at: DateTime<Utc>, why: &str) {
        let name = format!("{}-{}", self.scheduled.name, at.format("%Y%m%d%H%M%S"));
        if let Some(there) = self.observed.backups.iter().find(|made| made.name == name) {
            if there.ours {
                self.decision.status.last_backup = Some(name);
            } else {
                let text = format!("the backup of {} was skipped: another Backup has the name {name}", time(at));
                self.left_out(1, text);
            }
            return;
        }
        if let Some(before) = self.active.first() {
            match self.scheduled.spec.concurrency_policy.unwrap_or_default() {
                ConcurrencyPolicy::Forbid => {
                    let text = format!("the backup of {} was skipped: Backup {before} has not ended yet", time(at));
                    return self.left_out(1, text);
                }
                ConcurrencyPolicy::Allow => {}
                ConcurrencyPolicy::Replace => self.decision.delete.append(&mut self.active),
            }
        }
        let spec = &self.scheduled.spec;
        let owner = match spec.backup_owner_reference.unwrap_or_default() {
            BackupOwner::None => None,
            BackupOwner::Itself => Some(Owner {
                kind: "ScheduledBackup",
                name: self.scheduled.name.clone(),
                uid: self.scheduled.uid.clone(),
            }),
            BackupOwner::Cluster => self.observed.cluster_uid.clone().map(|uid| Owner {
                kind: "Cluster",
                name: spec.cluster.name.clone(),
                uid,
            }),
        };
        self.decision.events.push(BackupEvent::new(Reason::BackupScheduled, format!("Backup {name} {why}")));
        self.decision.status.message = None;
        self.decision.status.last_backup = Some(name.clone());
        self.active.push(name.clone());
        self.decision.create.push(BackupPlan {
            name,
            labels: BTreeMap::from([
                (names::SCHEDULE_LABEL.to_owned(), self.scheduled.name.clone()),
                (names::CLUSTER_LABEL.to_owned(), spec.cluster.name.clone()),
            ]),
            spec: BackupSpec {
                cluster: spec.cluster.clone(),
                method: spec.method,
                target: spec.target,
                online: spec.online,
            },
            owner,
        });
    }

    /// Counts times that get no `Backup`, with an Event.
    fn left_out(&mut self, count: usize, text: String) {
        self.decision.status.missed += i64::try_from(count).unwrap_or(i64::MAX);
        self.decision.status.message = Some(text.clone());
        self.decision.events.push(BackupEvent::new(Reason::ScheduleMissed, text));
    }

    /// Deletes the oldest `Backup`s beyond the history limits.
    fn prune(&mut self) {
        let spec = &self.scheduled.spec;
        let limits = [
            (BackupPhase::Completed, spec.successful_backups_history_limit, SUCCESSFUL),
            (BackupPhase::Failed, spec.failed_backups_history_limit, FAILED),
        ];
        for (phase, written, default) in limits {
            let limit = written.map_or(default, |limit| usize::try_from(limit).unwrap_or(0));
            let mut made: Vec<&Made> = self
                .observed
                .backups
                .iter()
                .filter(|made| made.ours && !made.deleting && made.phase == phase)
                // Snapshots may be deleted with their `Backup`: that is not done unless somebody wrote the limit.
                .filter(|made| written.is_some() || !made.of_snapshots)
                .collect();
            made.sort_by(|a, b| (b.created, &b.name).cmp(&(a.created, &a.name)));
            for old in made.into_iter().skip(limit) {
                let text =
                    format!("Backup {} is deleted, because the history limit is {limit}; its data stays", old.name);
                self.decision.events.push(BackupEvent::new(Reason::HistoryPruned, text));
                self.decision.delete.push(old.name.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
