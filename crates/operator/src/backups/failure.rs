//! Texts for people: errors in three parts, times, bytes, progress.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use holdfast_contract::amount;
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

/// A duration as everywhere; 0 for a negative one.
pub(crate) fn duration(span: TimeDelta) -> String {
    amount::duration(span.to_std().unwrap_or_default())
}

/// `42% (1.2 GiB of 2.9 GiB)`, or the bytes alone while the total is not known.
pub(crate) fn progress(done: u64, total: Option<u64>) -> String {
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let percent = (u128::from(done) * 100 / u128::from(total)).min(100);
            format!("{percent}% ({} of {})", amount::size(done.min(total)), amount::size(total))
        }
        None => amount::size(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_written_as_people_write_them() {
        assert_eq!(progress(0, None), "0 B");
        assert_eq!(progress(1_288_490_188, Some(3_113_851_289)), "41% (1.1 GiB of 2.8 GiB)");
        assert_eq!(progress(7, Some(5)), "100% (5 B of 5 B)");
        assert_eq!(duration(TimeDelta::minutes(15)), "15m 00s");
        assert_eq!(duration(TimeDelta::minutes(-1)), "0.0s");
        assert_eq!(first_line("error: no space\nwhile: writing\nhint:  grow it"), "no space");
        assert_eq!(
            Failure::new("no archive", "looking for one", "name one").to_string(),
            "error: no archive\nwhile: looking for one\nhint:  name one"
        );
    }
}
