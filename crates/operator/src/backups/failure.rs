//! Texts for people: errors in three parts, times, bytes, progress.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use holdfast_contract::problem::Problem;
use std::fmt;

/// A failure in three parts: what happened, what was being done, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub error: String,
    /// What was being done: the `while` line.
    pub doing: String,
    /// What to do: the `hint` line.
    pub hint: String,
}

impl Failure {
    /// A failure of these three parts.
    pub fn new(error: impl Into<String>, doing: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { error: error.into(), doing: doing.into(), hint: hint.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Problem::new(&self.error).doing(&self.doing).hint(&self.hint).fmt(f)
    }
}

/// The first line of a failure, for a progress line.
pub(crate) use holdfast_contract::problem::headline as first_line;

/// A time to the second, in UTC.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A duration in the largest unit that keeps it readable.
pub(crate) fn duration(span: TimeDelta) -> String {
    match span.num_seconds() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// Bytes with a binary unit, one digit after the point.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let step = (count.ilog2() / 10) as usize;
    // Tenths in integers: a float would not hold every count, and the remainder is below 1024.
    let shift = 10 * step;
    let whole = count >> shift;
    let tenths = (count >> (shift - 10) & 0x3ff) * 10 / 1024;
    format!("{whole}.{tenths} {}", UNITS.get(step - 1).unwrap_or(&"EiB"))
}

/// `42% (1.2 GiB of 2.9 GiB)`, or the bytes alone while the total is not known.
pub(crate) fn progress(done: u64, total: Option<u64>) -> String {
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let percent = (u128::from(done) * 100 / u128::from(total)).min(100);
            format!("{percent}% ({} of {})", bytes(done.min(total)), bytes(total))
        }
        None => bytes(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_as_people_write_them() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 * 1024 * 1024 * 1024), "3.0 GiB");
        assert_eq!(bytes(u64::MAX), "15.9 EiB");
        assert_eq!(progress(0, None), "0 B");
        assert_eq!(progress(1_288_490_188, Some(3_113_851_289)), "41% (1.1 GiB of 2.8 GiB)");
        assert_eq!(progress(7, Some(5)), "100% (5 B of 5 B)");
        assert_eq!(duration(TimeDelta::seconds(90)), "90 s");
        assert_eq!(duration(TimeDelta::minutes(15)), "15 min");
        assert_eq!(duration(TimeDelta::hours(5)), "5 h");
        assert_eq!(first_line("error: no space\nwhile: writing\nhint:  grow it"), "no space");
        assert_eq!(
            Failure::new("no archive", "looking for one", "name one").to_string(),
            "error: no archive\nwhile: looking for one\nhint:  name one"
        );
    }
}
