//! Which backups the counts of `keep` choose.
//!
//! A count counts only hours, days and so on that *have* a backup: if backups stop for a year, nothing is removed
//! during that year. The newest backup of each period is chosen, in UTC, by the time of its end: that is the first
//! moment that can be restored from it.

use crate::catalog::{Backup, Verified};
use crate::policy::Keep;
use crate::verdict::BackupKept;
use chrono::{DateTime, Datelike as _, Timelike as _, Utc};
use holdfast_repo::name::BackupId;

/// The chosen backups, each with its reason. A backup may be chosen for several reasons. `newest_first` has the backups
/// to choose from.
pub(crate) fn chosen(keep: &Keep, newest_first: &[&Backup]) -> Vec<(BackupId, BackupKept)> {
    // Exhaustive, so that a new count is not forgotten.
    let Keep { last, hourly, daily, weekly, monthly, yearly, verified } = *keep;
    let mut found = Vec::new();
    let mut take = |count: u32, reason: BackupKept| {
        let ids = newest_first.iter().take(count as usize).map(|backup| backup.id);
        found.extend(ids.map(|id| (id, reason.clone())));
    };
    take(last, BackupKept::Last);
    let mut by_period = |count: u32, reason: BackupKept, period: fn(DateTime<Utc>) -> (i32, u32, u32)| {
        let mut latest = None;
        let mut left = count;
        for backup in newest_first {
            let here = period(backup.stop_time);
            if latest == Some(here) {
                continue;
            }
            if left == 0 {
                break;
            }
            left -= 1;
            latest = Some(here);
            found.push((backup.id, reason.clone()));
        }
    };
    by_period(hourly, BackupKept::Hourly, |time| (time.year(), time.ordinal(), time.hour()));
    by_period(daily, BackupKept::Daily, |time| (time.year(), time.ordinal(), 0));
    by_period(weekly, BackupKept::Weekly, |time| (time.iso_week().year(), time.iso_week().week(), 0));
    by_period(monthly, BackupKept::Monthly, |time| (time.year(), time.month(), 0));
    by_period(yearly, BackupKept::Yearly, |time| (time.year(), 0, 0));
    let sound = newest_first.iter().filter(|backup| backup.verified == Verified::Sound);
    found.extend(sound.take(verified as usize).map(|backup| (backup.id, BackupKept::Verified)));
    found
}
