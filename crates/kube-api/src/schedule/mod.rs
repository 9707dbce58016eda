//! When a `ScheduledBackup` is due: cron expressions in a time zone. Pure: the time is always an argument.
//!
//! Five fields are standard cron (minute, hour, day of month, month, day of week), six have seconds before them, as
//! CloudNativePG writes them. Days of the week are numbered from Sunday, 0 or 7. When both kinds of days are restricted, a
//! day that fits either of them counts, as POSIX has it.
//!
//! Where clocks change, a schedule with set hours means the hours on the wall: a time that is left out runs once at the
//! first moment after it, a time that comes twice runs at the first of the two. A schedule for every hour means elapsed
//! time: it neither catches up nor leaves out.
//!
//! - [`parse`]: the fields, as sets of numbers
//! - [`wall`]: the next fit on a clock that never changes
//! - [`Schedule::next_after`]: the same on a clock that does, stretch by stretch between two changes of its offset

mod parse;
mod wall;

pub use parse::ScheduleError;

use chrono::{DateTime, DurationRound, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use std::fmt;
use wall::Fields;

/// Changes of a zone's offset are searched for in steps of this length: never were two of them nearer to each other.
const PROBE: TimeDelta = TimeDelta::hours(6);

/// When something is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    zone: Tz,
    fields: Fields,
}

impl Schedule {
    /// Reads an expression and the name of a zone; UTC when there is none.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let zone = parse::zone(zone)?;
        let fields = parse::fields(text)?;
        Ok(Self { text: text.trim().to_owned(), zone, fields })
    }

    /// The zone it is meant in.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The first time after `time`.
    pub fn next_after(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut start = time.duration_trunc(TimeDelta::seconds(1)).ok()?;
        let mut offset = self.offset(start);
        let mut wall = start.naive_utc().checked_add_signed(offset)?.checked_add_signed(TimeDelta::seconds(1))?;
        if !self.fields.every_hour() {
            // Shortly after clocks went back the times on them were there before.
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

    /// The times after `after`, up to and including `until`.
    pub fn times_between(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        self.upcoming(after).take_while(move |time| *time <= until)
    }

    /// All times after `after`.
    pub fn upcoming(&self, after: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        std::iter::successors(self.next_after(after), |time| self.next_after(*time))
    }

    fn offset(&self, time: DateTime<Utc>) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.zone.offset_from_utc_datetime(&time.naive_utc()).fix().local_minus_utc()))
    }

    /// The first moment after `start`, up to and including `end`, at which another offset holds.
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

    /// The moment at which `offset`, which holds at `before`, holds no more; it does not at `after`.
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
