//! The flags that lead to a place, and whether they do: the planner of `restore` is asked.
//!
//! Before a change, the target is an LSN and exclusive. PostgreSQL then stops before the first record at that LSN or
//! later (`recoveryStopsBefore`), which is the change itself, so no other transaction is lost. A transaction id would
//! do the same for a commit, but ids repeat after a wraparound, and the drop of a database happens before its
//! transaction commits. A time is not exact: transactions of the same microsecond, or a clock that was set back.

use holdfast_contract::report::wal_find::{RestoreFlags, StopSide};
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline, moment};
use holdfast_repo::recovery::{RecoveryPath, RecoveryRequest, TargetFacts};

use crate::restore::Archive;

/// Finds the flags along one timeline.
pub(super) struct FlagsFinder<'a> {
    pub(super) archive: &'a Archive,
    pub(super) timeline: TargetTimeline,
}

impl FlagsFinder<'_> {
    /// The flags for a target. `facts` are those that the planner needs for it, if it needs any.
    pub(super) fn to(&self, target: &RecoveryTarget, stops: StopSide, facts: Option<&TargetFacts>) -> RestoreFlags {
        let request = RecoveryRequest {
            target: target.clone(),
            inclusive: stops == StopSide::After,
            timeline: self.timeline,
            backup: None,
        };
        let none = TargetFacts::default();
        let found = RecoveryPath::find(&request, &self.archive.world());
        let plan = found.and_then(|path| path.decide(facts.unwrap_or(&none)));
        let (backup, refused) = match plan {
            Ok(plan) => (Some(plan.backup), None),
            Err(why) => (None, Some(why.to_string())),
        };
        RestoreFlags { stops, flags: self.flags(target, stops), backup, refused }
    }

    fn flags(&self, target: &RecoveryTarget, stops: StopSide) -> Vec<String> {
        let (flag, value) = match target {
            RecoveryTarget::Lsn(lsn) => ("--target-lsn", lsn.to_string()),
            RecoveryTarget::Xid(xid) => ("--target-xid", xid.to_string()),
            RecoveryTarget::Name(name) => ("--target-name", name.clone()),
            RecoveryTarget::Time(time) => ("--target-time", moment::text(*time)),
            RecoveryTarget::Immediate => return vec!["--target-immediate".to_owned()],
            RecoveryTarget::Latest => return Vec::new(),
        };
        let mut flags = vec![flag.to_owned(), value];
        // A restore point has no inside: recovery always stops after it.
        if stops == StopSide::Before && !matches!(target, RecoveryTarget::Name(_)) {
            flags.push("--target-exclusive".to_owned());
        }
        if let TargetTimeline::Number(timeline) = self.timeline {
            flags.extend(["--target-timeline".to_owned(), timeline.to_string()]);
        } else if self.timeline == TargetTimeline::Current {
            flags.extend(["--target-timeline".to_owned(), "current".to_owned()]);
        }
        flags
    }
}
