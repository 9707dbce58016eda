//! When a `ScheduledBackup` is due: cron expressions in a time zone. Pure: the time is always an argument.
//!
//! Five fields are standard cron (minute, hour, day of month, month, day of week). Six fields have seconds first, as
//! CloudNativePG writes them. Days of the week are numbered from Sunday, 0 or 7. If both kinds of days are restricted,
//! a day that fits either of them counts, as in POSIX.
//!
//! Where clocks change, a schedule with set hours means the hours on the wall clock. A time that is left out runs once,
//! at the first moment after the gap. A time that comes twice runs the first time. A schedule for every hour means
//! elapsed time: nothing is caught up, and nothing is left out.
//!
//! - [`parse`]: the fields, as sets of numbers
//! - [`wall`]: the next fit on a clock that never changes
//! - [`Schedule::next_after`]: the same on a clock that changes, range by range between two changes of its offset

mod parse;
mod wall;

pub use parse::ScheduleError;

use chrono::{DateTime, DurationRound, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use std::fmt;
use wall::Fields;

/// Step of the search for changes of a zone's offset: two changes were never closer to each other.
const PROBE: TimeDelta = TimeDelta::hours(6);

/// A cron expression in a time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    zone: Tz,
    fields: Fields,
}

impl Schedule {
    /// Reads an expression and the name of a zone; UTC if there is none.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let zone = parse::zone(zone)?;
        let fields = parse::fields(text)?;
        Ok(Self { text: text.trim().to_owned(), zone, fields })
    }

    /// The zone of the schedule.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The first due time after `time`; `None` if there is none for years.
    pub fn next_after(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut start = time.duration_trunc(TimeDelta::seconds(1)).ok()?;
        let mut offset = self.offset(start);
        let mut wall = start.naive_utc().checked_add_signed(offset)?.checked_add_signed(TimeDelta::seconds(1))?;
        if !self.fields.every_hour() {
            // Shortly after clocks were set back, their times occur for the second time.
            let before = start.checked_sub_signed(PROBE)?;
            let earlier = self.offset(before);
            if earlier > offset {
                let change = self.change_between(before, start, earlier);
                wall = wall.max(change.naive_utc().checked_add_signed(earlier)?);
            }
        }
        loop {
            let fit = self.fields.next_from(wall)?;
            let due = utc(fit, offset)?;
            let Some(change) = self.first_change(start, due, offset) else { return Some(due) };
            let next_offset = self.offset(change);
            let (left, entered) =
                (change.naive_utc().checked_add_signed(offset)?, change.naive_utc().checked_add_signed(next_offset)?);
            if self.fields.every_hour() {
                wall = entered;
            } else {
                if fit >= left && fit < entered {
                    return Some(change);
                }
                wall = left.max(entered);
            }
            (start, offset) = (change, next_offset);
        }
    }

    /// The due times after `after`, up to and including `until`.
    pub fn times_between(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        self.upcoming(after).take_while(move |time| *time <= until)
    }

    /// All due times after `after`.
    pub fn upcoming(&self, after: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        std::iter::successors(self.next_after(after), |time| self.next_after(*time))
    }

    fn offset(&self, time: DateTime<Utc>) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.zone.offset_from_utc_datetime(&time.naive_utc()).fix().local_minus_utc()))
    }

    /// The first moment after `start`, up to and including `end`, with another offset.
    fn first_change(&self, start: DateTime<Utc>, end: DateTime<Utc>, offset: TimeDelta) -> Option<DateTime<Utc>> {
        let mut known = start;
        while known < end {
            let probe = known.checked_add_signed(PROBE)?.min(end);
            if self.offset(probe) != offset {
                return Some(self.change_between(known, probe, offset));
            }
            known = probe;
        }
        None
    }

    /// The moment at which `offset` ends. It is valid at `before` and not valid at `after`.
    fn change_between(&self, before: DateTime<Utc>, after: DateTime<Utc>, offset: TimeDelta) -> DateTime<Utc> {
        let (mut before, mut after) = (before, after);
        while after - before > TimeDelta::seconds(1) {
            let middle = before + TimeDelta::seconds((after - before).num_seconds() / 2);
            if self.offset(middle) == offset {
                before = middle;
            } else {
                after = middle;
            }
        }
        after
    }
}

fn utc(wall: NaiveDateTime, offset: TimeDelta) -> Option<DateTime<Utc>> {
    Some(wall.checked_sub_signed(offset)?.and_utc())
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.text, self.zone.name())
    }
}

#[cfg(test)]
mod tests;
