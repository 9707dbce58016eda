//! `expire`, `backup hold` and `backup release`.

use crate::config::units::long_duration;
use chrono::{DateTime, TimeDelta, Utc};
use clap::Subcommand;
use holdfast_pgtypes::recovery_target::moment::{self, MomentError};

/// `holdfast expire`
#[derive(Clone, Debug, clap::Args)]
pub struct ExpireArgs {
    /// Only say what stays and what goes, and why
    #[arg(long)]
    pub plan: bool,
    /// Only in the repository with this number; the first one in the configuration is 1 [default: in all]
    #[arg(long, value_name = "N")]
    pub repo: Option<usize>,
}

/// `holdfast backup hold` and `holdfast backup release`
#[derive(Clone, Debug, Subcommand)]
pub enum BackupCommand {
    /// Keep a backup, whatever the retention says, in every repository that has it
    Hold {
        /// The backup, such as 20260822T101500Z
        id: String,
        /// Until when: a time (2027-01-31T12:00:00Z), the end of a day (2027-01-31) or how long from now (90d)
        /// [default: until it is released]
        #[arg(long, value_name = "TIME", value_parser = until)]
        until: Option<Until>,
        /// Also keep all WAL after the backup, for a restored server that still fetches WAL
        #[arg(long)]
        with_wal: bool,
        /// The reason, recorded in the repository with the hold
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Let the retention decide about a held backup again
    Release {
        /// The backup, such as 20260822T101500Z
        id: String,
    },
}

/// `--until`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// At this time.
    At(DateTime<Utc>),
    /// This long from now.
    In(TimeDelta),
}

impl Until {
    /// The time; the latest possible time if the sum is too large.
    pub fn moment(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(time) => time,
            Self::In(length) => now.checked_add_signed(length).unwrap_or(DateTime::<Utc>::MAX_UTC),
        }
    }
}

fn until(text: &str) -> Result<Until, String> {
    match moment::parse_with_zone(text) {
        Ok(time) => return Ok(Until::At(time)),
        // It may be a day or a duration.
        Err(MomentError::NotATime) => {}
        Err(problem) => return Err(problem.to_string()),
    }
    if let Ok(day) = moment::parse_day(text) {
        // The whole day: a user who writes today's date does not mean a time that is already over.
        let end = day.and_hms_opt(23, 59, 59).ok_or("no such day")?;
        return Ok(Until::At(end.and_utc()));
    }
    let length = long_duration(text).map_err(|problem| {
        format!("expected a time such as 2027-01-31T12:00:00Z, a day such as 2027-01-31, or 90d ({problem})")
    })?;
    TimeDelta::from_std(length).map(Until::In).map_err(|_| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_ends_at_a_time_on_a_day_or_after_a_duration() {
        let noon = "2027-01-31T12:00:00Z".parse().map(Until::At).ok();
        // As every other flag with a time reads it, and as PostgreSQL prints it.
        let spellings = ["2027-01-31T13:00:00+01:00", "2027-01-31 12:00:00+00", "2027-01-31 13:00+01:00"];
        for text in spellings {
            assert_eq!(until(text).ok(), noon, "{text}");
        }
        assert_eq!(until("2027-01-31").ok(), "2027-01-31T23:59:59Z".parse().map(Until::At).ok());
        assert_eq!(until("90d").ok(), Some(Until::In(TimeDelta::days(90))));
        for text in ["", "tomorrow", "2027-13-31", "90", "6m"] {
            assert!(until(text).is_err(), "{text}");
        }
        assert_eq!(until("2027-13-31").err().as_deref(), Some("there is no day 2027-13-31"));
        let zone = "the time zone is missing: write it as an offset from UTC, such as +00, +02:00 or Z";
        assert_eq!(until("2027-01-31 12:00:00").err().as_deref(), Some(zone));
    }
}
