//! Moments as people write them: RFC 3339, or as PostgreSQL prints them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};

/// Without a zone, the longest first.
const WITHOUT_ZONE: &[&str] = &["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"];
/// With an offset, or `Z`.
const WITH_ZONE: &[&str] = &["%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z"];

/// A moment, and whether its zone was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) time: DateTime<Utc>,
    pub(super) zone_is_written: bool,
}

/// A moment as it is written in `recoveryTarget.targetTime`; UTC is meant where no zone is written. `None` when it is none.
pub fn moment(text: &str) -> Option<DateTime<Utc>> {
    parse(text).map(|moment| moment.time)
}

/// Reads a moment; UTC is meant where no zone is written.
pub(super) fn parse(text: &str) -> Option<Moment> {
    let text = text.trim();
    let (text, utc) =
        match text.strip_suffix("UTC").or_else(|| text.strip_suffix("GMT")).or_else(|| text.strip_suffix(['Z', 'z'])) {
            Some(rest) => (rest.trim_end(), true),
            None => (text, false),
        };
    // The `T` of RFC 3339, and a blank before the offset.
    let mut plain: String = text
        .char_indices()
        .map(|(at, letter)| if at == 10 && matches!(letter, 'T' | 't') { ' ' } else { letter })
        .collect();
    if let Some(at) = plain.rfind([' ']).filter(|at| *at > 10) {
        plain.remove(at);
    }
    if !utc {
        for format in WITH_ZONE {
            if let Ok(time) = DateTime::parse_from_str(&plain, format) {
                return Some(Moment { time: time.with_timezone(&Utc), zone_is_written: true });
            }
        }
    }
    let naive = WITHOUT_ZONE
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(&plain, format).ok())
        .or_else(|| NaiveDate::parse_from_str(&plain, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))?;
    Some(Moment { time: naive.and_utc(), zone_is_written: utc })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::SecondsFormat;

    #[test]
    fn moments_of_all_spellings() {
        for (text, expected) in [
            ("2025-01-01T14:30:00Z", Some(("2025-01-01T14:30:00Z", true))),
            ("2025-01-01T14:30:00.123456+02:00", Some(("2025-01-01T12:30:00.123456Z", true))),
            ("2025-01-01 14:30:00.00000+00", Some(("2025-01-01T14:30:00Z", true))),
            ("2025-01-01 14:30:00-0530", Some(("2025-01-01T20:00:00Z", true))),
            ("2025-01-01 14:30:00 +01", Some(("2025-01-01T13:30:00Z", true))),
            ("2025-01-01 14:30:00 UTC", Some(("2025-01-01T14:30:00Z", true))),
            ("2025-01-01 14:30+01", Some(("2025-01-01T13:30:00Z", true))),
            ("2025-01-01 14:30:00", Some(("2025-01-01T14:30:00Z", false))),
            ("2025-01-01T14:30", Some(("2025-01-01T14:30:00Z", false))),
            ("2025-01-01", Some(("2025-01-01T00:00:00Z", false))),
            ("2025-02-30 00:00:00", None),
            ("01.02.2025", None),
            ("yesterday", None),
            ("2025-01-01 14:30:00 CEST", None),
            ("", None),
            ("é2025-01-0", None),
        ] {
            let read = parse(text)
                .map(|moment| (moment.time.to_rfc3339_opts(SecondsFormat::AutoSi, true), moment.zone_is_written));
            assert_eq!(read, expected.map(|(time, zone)| (time.to_owned(), zone)), "{text}");
        }
    }
}
