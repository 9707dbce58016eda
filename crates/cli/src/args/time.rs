//! Moments as people write them for a recovery target, in PostgreSQL's usual forms:
//! `2026-11-22 10:15:00+00`, with `T` instead of the space, fractions of a second, `Z`, `UTC`, `+02`, `+02:00` or `+0200`.
//!
//! The zone must be there. PostgreSQL would take its own `timezone` setting, a shell its `TZ`, and whoever restores at
//! three in the morning may be on a third machine: an hour of lost or unwanted rows is not worth the saved keystrokes.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};

/// PostgreSQL accepts offsets up to 15:59:59 (`MAX_TZDISP_HOUR`).
const MOST_OFFSET_HOURS: i32 = 15;

/// Parses a moment; the error says what is wrong with it.
pub fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    let shape = || "expected a time such as \"2026-11-22 10:15:00+00\"".to_owned();
    let text = text.trim();
    if !text.is_ascii() {
        return Err(shape());
    }
    let (date, rest) = text.split_at_checked(10).ok_or_else(shape)?;
    let date = parse_date(date).ok_or_else(shape)??;
    let rest = match rest.as_bytes().first() {
        Some(b' ' | b'T' | b't') => rest.get(1..).unwrap_or_default().trim_start(),
        _ => return Err(shape()),
    };
    let clock_length = rest.bytes().take_while(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.')).count();
    let (clock, zone) = rest.split_at(clock_length);
    let clock = parse_clock(clock).ok_or_else(shape)??;
    let offset = parse_zone(zone.trim())?;
    let local = NaiveDateTime::new(date, clock);
    offset
        .from_local_datetime(&local)
        .single()
        .map(|moment| moment.with_timezone(&Utc))
        .ok_or_else(|| "this moment is out of range".to_owned())
}

/// So many digits and nothing else.
fn digits(text: &str, count: usize) -> Option<u32> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// None: not the shape of a date. An error: no such day.
fn parse_date(text: &str) -> Option<Result<NaiveDate, String>> {
    let mut parts = text.split('-');
    let (year, month, day) = (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    if parts.next().is_some() {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(year.cast_signed(), month, day);
    Some(date.ok_or_else(|| format!("there is no day {text}")))
}

fn parse_clock(text: &str) -> Option<Result<NaiveTime, String>> {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (text, None),
    };
    let mut parts = clock.split(':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let second = match parts.next() {
        Some(second) => digits(second, 2)?,
        None if fraction.is_some() => return None,
        None => 0,
    };
    if parts.next().is_some() {
        return None;
    }
    let microseconds = match fraction {
        None => 0,
        // PostgreSQL keeps microseconds and would round what is more; a target that moves by rounding is refused.
        Some(fraction) if fraction.len() > 6 => {
            return Some(Err("PostgreSQL's times have at most 6 digits behind the point".to_owned()));
        }
        Some(fraction) => {
            let value = digits(fraction, fraction.len())?;
            value * 10_u32.pow(6 - u32::try_from(fraction.len()).ok()?)
        }
    };
    let time = NaiveTime::from_hms_micro_opt(hour, minute, second, microseconds);
    Some(time.ok_or_else(|| format!("there is no time of day {text}")))
}

fn parse_zone(text: &str) -> Result<FixedOffset, String> {
    let wrong = || format!("unknown time zone {text:?}: write it as an offset from UTC, such as +02, +02:00 or Z");
    if text.is_empty() {
        return Err("the time zone is missing: write it as an offset from UTC, such as +00, +02:00 or Z".to_owned());
    }
    if ["z", "utc", "gmt"].iter().any(|name| text.eq_ignore_ascii_case(name)) {
        return FixedOffset::east_opt(0).ok_or_else(wrong);
    }
    let (sign, numbers) = match text.split_at(1) {
        ("+", numbers) => (1, numbers),
        ("-", numbers) => (-1, numbers),
        _ => return Err(wrong()),
    };
    let parts: Vec<&str> = match numbers.contains(':') {
        true => numbers.split(':').collect(),
        false if matches!(numbers.len(), 2 | 4 | 6) => {
            (0..numbers.len()).step_by(2).filter_map(|start| numbers.get(start..start + 2)).collect()
        }
        false => return Err(wrong()),
    };
    let mut seconds = 0;
    for (part, unit) in parts.iter().zip([3600, 60, 1]) {
        let number = digits(part, 2).ok_or_else(wrong)?.cast_signed();
        if number > if unit == 3600 { MOST_OFFSET_HOURS } else { 59 } {
            return Err(wrong());
        }
        seconds += number * unit;
    }
    if parts.len() > 3 {
        return Err(wrong());
    }
    FixedOffset::east_opt(sign * seconds).ok_or_else(wrong)
}
