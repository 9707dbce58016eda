//! The next fit of a cron expression on a clock that never changes.

use chrono::{Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

/// The longest distance between two fits: from one 29th of February to the next across a year that is not a leap year,
/// 1896 to 1904 or 2096 to 2104.
const LONGEST_YEARS: i32 = 8;

/// A set of small numbers, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Set(u64);

impl Set {
    pub(super) fn insert(&mut self, number: u32) {
        self.0 |= 1 << number;
    }

    pub(super) fn has(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }

    /// The smallest number of the set that is not below `number`.
    fn from(self, number: u32) -> Option<u32> {
        let rest = if number < 64 { self.0 >> number << number } else { 0 };
        (rest != 0).then(|| rest.trailing_zeros())
    }
}

/// The fields of an expression.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) seconds: Set,
    pub(super) minutes: Set,
    pub(super) hours: Set,
    pub(super) days_of_month: Set,
    pub(super) months: Set,
    /// Numbered from Sunday, 0.
    pub(super) days_of_week: Set,
    /// Whether the day of the month is not restricted.
    pub(super) any_day_of_month: bool,
    /// Whether the day of the week is not restricted.
    pub(super) any_day_of_week: bool,
}

impl Fields {
    /// Whether the expression fits every hour of a day.
    pub(super) fn every_hour(&self) -> bool {
        (0..24).all(|hour| self.hours.has(hour))
    }

    /// The first fit that is not before `wall`; `None` if there is none for years.
    pub(super) fn next_from(&self, wall: NaiveDateTime) -> Option<NaiveDateTime> {
        let mut date = wall.date();
        let mut from = wall.time();
        let last_year = date.year().checked_add(LONGEST_YEARS)?;
        while date.year() <= last_year {
            if !self.months.has(date.month()) {
                date = date.with_day(1)?.checked_add_months(Months::new(1))?;
                from = NaiveTime::MIN;
                continue;
            }
            if self.day_fits(date)
                && let Some(time) = self.time_from(from)
            {
                return Some(date.and_time(time));
            }
            date = date.checked_add_days(Days::new(1))?;
            from = NaiveTime::MIN;
        }
        None
    }

    fn day_fits(&self, date: NaiveDate) -> bool {
        let by_month = self.days_of_month.has(date.day());
        let by_week = self.days_of_week.has(date.weekday().num_days_from_sunday());
        match (self.any_day_of_month, self.any_day_of_week) {
            (true, true) => true,
            (true, false) => by_week,
            (false, true) => by_month,
            (false, false) => by_month || by_week,
        }
    }

    /// The first fitting time of a day that is not before `from`.
    fn time_from(&self, from: NaiveTime) -> Option<NaiveTime> {
        let first = |set: Set| set.from(0);
        let (hour, minute, second) = (from.hour(), from.minute(), from.second());
        if self.hours.has(hour) {
            if self.minutes.has(minute)
                && let Some(second) = self.seconds.from(second)
            {
                return NaiveTime::from_hms_opt(hour, minute, second);
            }
            if let Some(minute) = self.minutes.from(minute + 1) {
                return NaiveTime::from_hms_opt(hour, minute, first(self.seconds)?);
            }
        }
        let hour = self.hours.from(hour + 1)?;
        NaiveTime::from_hms_opt(hour, first(self.minutes)?, first(self.seconds)?)
    }
}
