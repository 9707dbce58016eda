//! The time of a recovery target, as people write it and as PostgreSQL reads it.
//!
//! [`parse`] takes PostgreSQL's usual forms and RFC 3339: `2026-11-22 10:15:00+00`, with `T` instead of the space,
//! fractions of a second, without seconds, and with `Z`, `UTC`, `GMT`, `+02`, `+02:00` or `+0200`. A date with a zone
//! and without a time of day is midnight in that zone. Digits after the sixth must be zeros: programs that count
//! nanoseconds print them. [`text`] writes one form only.
//!
//! The caller decides whether the zone may be missing ([`MissingZone`]). PostgreSQL would use its own `timezone`
//! setting and a shell its `TZ`, and a person who restores at three in the morning may be on a third machine. A wrong
//! guess costs an hour of rows. So a command line refuses a missing zone. A manifest is read by machines that are all
//! on UTC, so it may leave the zone out and gets a warning.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};

/// PostgreSQL accepts offsets up to 15:59:59 (`MAX_TZDISP_HOUR`).
const MOST_OFFSET_HOURS: i32 = 15;

/// What a time without a zone means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingZone {
    /// Nothing: it is an error.
    Refused,
    /// UTC; a date without a time of day means midnight.
    MeansUtc,
}

/// A moment, and whether its zone was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The moment, to the microsecond.
    pub time: DateTime<Utc>,
    /// Whether the zone was written; always so with [`MissingZone::Refused`].
    pub zone_is_written: bool,
}

/// Why a text is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    /// It does not look like a time.
    #[error("expected a time such as \"2026-11-22 10:15:00+00\"")]
    NotATime,
    /// The date is not in the calendar.
    #[error("there is no day {0}")]
    NoSuchDay(String),
    /// The time of day is not on the clock.
    #[error("there is no time of day {0}")]
    NoSuchTimeOfDay(String),
    /// PostgreSQL keeps microseconds and would round further digits; a target that rounding would change is refused.
    #[error(
        "PostgreSQL keeps at most 6 digits after the decimal point and would round this time: leave out the other digits"
    )]
    TooManyDigits,
    /// The zone is missing, and the caller requires it.
    #[error("the time zone is missing: write it as an offset from UTC, such as +00, +02:00 or Z")]
    ZoneMissing,
    /// The zone does not have one of the accepted forms.
    #[error("unknown time zone {0:?}: write it as an offset from UTC, such as +02, +02:00 or Z")]
    UnknownZone(String),
    /// In UTC the moment is outside of the calendar.
    #[error("this moment is out of range")]
    OutOfRange,
}

/// Reads a moment.
///
/// # Errors
/// [`MomentError`], which says what is wrong with the text.
pub fn parse(text: &str, missing_zone: MissingZone) -> Result<Moment, MomentError> {
    let text = text.trim();
    if !text.is_ascii() {
        return Err(MomentError::NotATime);
    }
    let (date, rest) = leading(text, |byte| byte.is_ascii_digit() || byte == b'-')?;
    let date = parse_date(date)?;
    let after_t = rest.strip_prefix(['T', 't']);
    let (clock, zone) =
        leading(after_t.unwrap_or(rest).trim_start(), |byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.'))?;
    let zone = zone.trim();
    let only_a_date = clock.is_empty() && after_t.is_none();
    let local = NaiveDateTime::new(date, if only_a_date { NaiveTime::MIN } else { parse_clock(clock)? });
    match (zone, missing_zone) {
        ("", MissingZone::Refused) if only_a_date => Err(MomentError::NotATime),
        ("", MissingZone::Refused) => Err(MomentError::ZoneMissing),
        ("", MissingZone::MeansUtc) => Ok(Moment { time: local.and_utc(), zone_is_written: false }),
        (zone, _) => {
            // After a date alone, any text could be meant as a time of day.
            let zone = parse_zone(zone).map_err(|error| if only_a_date { MomentError::NotATime } else { error })?;
            let moment = zone.from_local_datetime(&local).single().ok_or(MomentError::OutOfRange)?;
            Ok(Moment { time: moment.with_timezone(&Utc), zone_is_written: true })
        }
    }
}

/// Reads a moment whose zone must be written.
///
/// # Errors
/// As [`parse`].
pub fn parse_with_zone(text: &str) -> Result<DateTime<Utc>, MomentError> {
    parse(text, MissingZone::Refused).map(|moment| moment.time)
}

/// Reads a date without a time of day, such as `2026-11-22`.
///
/// # Errors
/// [`MomentError::NotATime`] if it is not a date alone, and [`MomentError::NoSuchDay`].
pub fn parse_day(text: &str) -> Result<NaiveDate, MomentError> {
    parse_date(text.trim())
}

/// `2026-11-22 10:15:00.123456+00`: with all digits that PostgreSQL keeps, and with the zone, so that no server's
/// `timezone` setting matters. [`parse`] reads it back.
pub fn text(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}

/// Splits off the bytes at the beginning that fulfil a condition.
fn leading(text: &str, is_of_kind: impl Fn(u8) -> bool) -> Result<(&str, &str), MomentError> {
    let length = text.bytes().take_while(|byte| is_of_kind(*byte)).count();
    text.split_at_checked(length).ok_or(MomentError::NotATime)
}

/// A number that consists only of digits, as many as `count` allows.
fn digits(text: &str, count: impl std::ops::RangeBounds<usize>) -> Option<u32> {
    (count.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn parse_date(text: &str) -> Result<NaiveDate, MomentError> {
    let fields = || {
        let mut parts = text.split('-');
        let fields = (digits(parts.next()?, 4..=4)?, digits(parts.next()?, 1..=2)?, digits(parts.next()?, 1..=2)?);
        parts.next().is_none().then_some(fields)
    };
    let (year, month, day) = fields().ok_or(MomentError::NotATime)?;
    NaiveDate::from_ymd_opt(year.cast_signed(), month, day).ok_or_else(|| MomentError::NoSuchDay(text.to_owned()))
}

fn parse_clock(text: &str) -> Result<NaiveTime, MomentError> {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (text, None),
    };
    let fields = || {
        let mut parts = clock.split(':');
        let (hour, minute) = (digits(parts.next()?, 1..=2)?, digits(parts.next()?, 2..=2)?);
        let second = match parts.next() {
            Some(second) => digits(second, 2..=2)?,
            None if fraction.is_some() => return None,
            None => 0,
        };
        parts.next().is_none().then_some((hour, minute, second))
    };
    let (hour, minute, second) = fields().ok_or(MomentError::NotATime)?;
    let microseconds = match fraction {
        None => 0,
        Some(fraction) if fraction.bytes().skip(6).any(|digit| digit != b'0') => {
            return Err(MomentError::TooManyDigits);
        }
        Some(fraction) => digits(&format!("{:0<6}", fraction.get(..6).unwrap_or(fraction)), 6..=6)
            .filter(|_| !fraction.is_empty())
            .ok_or(MomentError::NotATime)?,
    };
    NaiveTime::from_hms_micro_opt(hour, minute, second, microseconds)
        .ok_or_else(|| MomentError::NoSuchTimeOfDay(text.to_owned()))
}

fn parse_zone(text: &str) -> Result<FixedOffset, MomentError> {
    let unknown = || MomentError::UnknownZone(text.to_owned());
    if ["z", "utc", "gmt"].iter().any(|name| text.eq_ignore_ascii_case(name)) {
        return FixedOffset::east_opt(0).ok_or_else(unknown);
    }
    let (sign, numbers) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(numbers), _) => (1, numbers),
        (None, Some(numbers)) => (-1, numbers),
        (None, None) => return Err(unknown()),
    };
    let parts: Vec<&str> = match numbers.contains(':') {
        true => numbers.split(':').collect(),
        false if matches!(numbers.len(), 2 | 4 | 6) => {
            (0..numbers.len()).step_by(2).filter_map(|start| numbers.get(start..start + 2)).collect()
        }
        false => return Err(unknown()),
    };
    if parts.len() > 3 {
        return Err(unknown());
    }
    let mut seconds = 0;
    for (part, unit) in parts.iter().zip([3600, 60, 1]) {
        let number = digits(part, 2..=2).ok_or_else(unknown)?.cast_signed();
        if number > if unit == 3600 { MOST_OFFSET_HOURS } else { 59 } {
            return Err(unknown());
        }
        seconds += number * unit;
    }
    FixedOffset::east_opt(sign * seconds).ok_or_else(unknown)
}

#[cfg(test)]
mod tests;
