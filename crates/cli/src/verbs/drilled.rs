//! The lines of `info` about drills.

use super::time;
use chrono::{DateTime, TimeDelta, Utc};
use holdfast_contract::amount::duration;
use holdfast_contract::report::drill::Drilled;
use holdfast_engine::drill::Drills;
use std::fmt::Write;
use std::time::Duration;

/// The clock of a host that runs drills may be ahead of this host's clock by this much.
const AHEAD: TimeDelta = TimeDelta::hours(1);

/// What drills proved: the newest success, and a newer failure. A drill with a time in the future is shown, but proves
/// nothing.
pub(super) fn describe(text: &mut String, drills: &Drills, now: DateTime<Utc>) {
    let moment = |drilled: &Drilled| match (drilled.restored_time, drilled.restored_lsn) {
        (Some(restored), Some(lsn)) => format!("{} (LSN {lsn})", time::shown(restored)),
        (None, Some(lsn)) => format!("LSN {lsn}"),
        (_, None) => "the end of the backup".to_owned(),
    };
    let ago = |drilled: &Drilled| duration(time::ago(drilled.time, now));
    let (proven, failed) = (drills.last_proven.as_ref(), drills.last_failed.as_ref());
    let is_ahead = |drilled: &&Drilled| drilled.time > now + AHEAD;
    for drilled in proven.into_iter().chain(failed).filter(is_ahead) {
        let _ = writeln!(
            text,
            "  AHEAD: a drill of backup {} by {} says that it was at {}, which is still to come: it is ignored",
            drilled.backup_id,
            drilled.host,
            time::shown(drilled.time)
        );
    }
    let proven = proven.filter(|drilled| !is_ahead(drilled));
    if let Some(proven) = proven {
        let _ = writeln!(
            text,
            "  last proven restorable: {}, from backup {}, by the drill of {} ({} ago); recovery took {}",
            moment(proven),
            proven.backup_id,
            time::shown(proven.time),
            ago(proven),
            duration(Duration::from_millis(proven.recovery_milliseconds))
        );
    }
    if let Some(failed) = failed.filter(|drilled| !is_ahead(drilled))
        && proven.is_none_or(|proven| proven.time < failed.time)
    {
        let problem = failed.problems.first().and_then(|problem| problem.lines().next()).unwrap_or_default();
        let _ = writeln!(
            text,
            "  DRILL FAILED: of backup {}, {} ({} ago): {problem}",
            failed.backup_id,
            time::shown(failed.time),
            ago(failed)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drilled(time: &str, proven: bool) -> Drilled {
        Drilled {
            backup_id: "20260822T101500Z".parse().expect("an id"),
            time: time.parse().expect("a time"),
            proven,
            timeline: holdfast_pgtypes::TimelineId::FIRST,
            restored_time: None,
            restored_lsn: None,
            recovery_milliseconds: 15_000,
            problems: if proven { Vec::new() } else { vec!["page: bad".to_owned()] },
            host: "db2".to_owned(),
            software_version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn what_is_still_to_come_proves_nothing() {
        let now = "2026-11-30T12:00:00Z".parse().expect("a time");
        let said = |proven: Option<&str>, failed: Option<&str>| {
            let mut text = String::new();
            let drills = Drills {
                last_proven: proven.map(|time| drilled(time, true)),
                last_failed: failed.map(|time| drilled(time, false)),
                unreadable: Vec::new(),
            };
            describe(&mut text, &drills, now);
            text
        };
        assert!(said(Some("2026-11-30T11:00:00Z"), None).starts_with("  last proven restorable: "));
        let ahead = said(Some("2030-01-01T00:00:00Z"), Some("2026-11-30T11:00:00Z"));
        assert!(
            ahead.starts_with("  AHEAD: a drill of backup 20260822T101500Z by db2 says that it was at 2030-01-01"),
            "{ahead}"
        );
        assert!(!ahead.contains("last proven") && ahead.contains("  DRILL FAILED: "), "{ahead}");
        let ahead = said(Some("2026-11-30T11:00:00Z"), Some("2030-01-01T00:00:00Z"));
        assert!(ahead.contains("last proven") && !ahead.contains("DRILL FAILED"), "{ahead}");
        // A small difference between clocks is accepted.
        assert!(said(Some("2026-11-30T12:30:00Z"), None).starts_with("  last proven restorable: "));
    }
}
