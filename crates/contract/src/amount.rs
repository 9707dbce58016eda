//! Sizes, rates and durations for people: three or four significant digits, with a unit.

use std::time::Duration;

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// `0 B`, `512 B`, `1.2 GiB`, `130 MiB`: one digit after the point below 100.
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // In tenths, as integers: rounded down, so that the shown value is never too large.
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if tenths < 1000 { format!("{}.{} {name}", tenths / 10, tenths % 10) } else { format!("{} {name}", tenths / 10) }
}

/// `85.2 MiB/s`; `None` if no time passed.
pub fn rate(bytes: u64, took: Duration) -> Option<String> {
    let nanoseconds = took.as_nanos();
    if nanoseconds == 0 {
        return None;
    }
    let per_second = u128::from(bytes) * 1_000_000_000 / nanoseconds;
    Some(format!("{}/s", size(u64::try_from(per_second).unwrap_or(u64::MAX))))
}

/// `0.3s`, `42s`, `5m 07s`, `3h 05m`, `2d 04h`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{}.{}s", seconds, duration.subsec_millis() / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_and_a_unit() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_288_490_189, "1.2 GiB"),
            (100 << 20, "100 MiB"),
            ((1 << 20) - 1, "1023 KiB"),
            (16 << 40, "16.0 TiB"),
            (u64::MAX, "16383 PiB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn rates_need_time() {
        assert_eq!(rate(100 << 20, Duration::from_secs(2)).as_deref(), Some("50.0 MiB/s"));
        assert_eq!(rate(100 << 20, Duration::ZERO), None);
    }

    #[test]
    fn durations_grow_their_unit() {
        for (milliseconds, expected) in [
            (0, "0.0s"),
            (340, "0.3s"),
            (42_900, "42s"),
            (307_000, "5m 07s"),
            (11_100_000, "3h 05m"),
            (187_200_000, "2d 04h"),
        ] {
            assert_eq!(duration(Duration::from_millis(milliseconds)), expected);
        }
    }
}
