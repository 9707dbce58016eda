//! Sizes ("64MiB") and durations ("60s", "1h30min", "30d") as they are written.

use std::time::Duration;

const UNITS_OF_SIZE: &[(&str, u64)] =
    &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// A size in bytes. Without a unit the number is bytes. Units are only binary, because "MB" means 1000000 bytes to most
/// tools and 1048576 to PostgreSQL.
pub fn size_bytes(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let number: u64 = number.parse().map_err(|_| "expected a whole number and a unit, such as 64MiB".to_owned())?;
    let factor = if unit.is_empty() {
        1
    } else {
        UNITS_OF_SIZE
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor)
            .ok_or_else(|| format!("unknown unit {unit:?}, expected B, KiB, MiB, GiB or TiB"))?
    };
    number.checked_mul(factor).ok_or_else(|| "too large".to_owned())
}

const UNITS_OF_TIME: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("min", 60_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

/// A duration: numbers with units, one after the other. A number without a unit is refused, since it means seconds in
/// some programs and minutes in others.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a whole number and a unit, such as 60s, 90min, 12h or 30d".to_owned();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(expected());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
        let number: u64 = number.parse().map_err(|_| expected())?;
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        if unit.is_empty() {
            return Err(expected());
        }
        let factor = UNITS_OF_TIME
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor)
            .ok_or_else(|| format!("unknown unit {unit:?}, expected ms, s, min, h, d or w"))?;
        total = number
            .checked_mul(factor)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| "too large".to_owned())?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(total))
}

/// A duration where months are likely to be meant: `m` alone, which is minutes elsewhere, is refused.
pub fn long_duration(text: &str) -> Result<Duration, String> {
    let mut units = text.split(|letter: char| !letter.is_ascii_alphabetic());
    if units.any(|unit| unit == "m") {
        return Err("the unit \"m\" may mean minutes or months: write 6min, or 180d for months".to_owned());
    }
    duration(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("512", Ok(512)),
            ("64MiB", Ok(64 << 20)),
            ("64 MiB", Ok(64 << 20)),
            ("2TiB", Ok(2 << 40)),
            ("64MB", Err("unknown unit \"MB\", expected B, KiB, MiB, GiB or TiB")),
            ("MiB", Err("expected a whole number and a unit, such as 64MiB")),
            ("", Err("expected a whole number and a unit, such as 64MiB")),
            ("-1", Err("expected a whole number and a unit, such as 64MiB")),
            ("1.5GiB", Err("unknown unit \".5GiB\", expected B, KiB, MiB, GiB or TiB")),
            ("99999999999TiB", Err("too large")),
        ] {
            assert_eq!(size_bytes(text), expected.map_err(str::to_owned), "{text:?}");
        }
    }

    /// Six months that were taken for six minutes would remove nearly all backups.
    #[test]
    fn minutes_are_not_taken_for_months() {
        for text in ["6m", "6 m", "1d6m", "6m 1d"] {
            assert!(long_duration(text).is_err_and(|problem| problem.contains("write 6min, or 180d")), "{text:?}");
        }
        for text in ["6min", "180d", "6ms", "90"] {
            assert_eq!(long_duration(text), duration(text), "{text:?}");
        }
    }

    #[test]
    fn durations() {
        for (text, expected) in [
            ("60s", Ok(60)),
            ("1h30min", Ok(5400)),
            ("1h 30m", Ok(5400)),
            ("30d", Ok(30 * 86400)),
            ("2w", Ok(14 * 86400)),
            ("5000ms", Ok(5)),
            ("60", Err("expected a whole number and a unit, such as 60s, 90min, 12h or 30d")),
            ("", Err("expected a whole number and a unit, such as 60s, 90min, 12h or 30d")),
            ("s", Err("expected a whole number and a unit, such as 60s, 90min, 12h or 30d")),
            ("3 months", Err("expected a whole number and a unit, such as 60s, 90min, 12h or 30d")),
            ("3y", Err("unknown unit \"y\", expected ms, s, min, h, d or w")),
            ("99999999999999999w", Err("too large")),
        ] {
            assert_eq!(duration(text), expected.map(Duration::from_secs).map_err(str::to_owned), "{text:?}");
        }
    }
}
