//! Tables of times as people write them.

use super::*;
use chrono::SecondsFormat;
use proptest::prelude::*;

fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Forms that mean the same wherever they are written.
#[test]
fn with_a_zone() {
    for (written, expected) in [
        ("2026-11-22 10:15:00+00", "2026-11-22T10:15:00Z"),
        ("2026-11-22T10:15:00Z", "2026-11-22T10:15:00Z"),
        ("2026-11-22t10:15:00z", "2026-11-22T10:15:00Z"),
        ("2026-11-22 10:15:00 UTC", "2026-11-22T10:15:00Z"),
        ("2026-11-22 10:15:00 gmt", "2026-11-22T10:15:00Z"),
        ("2026-11-22 10:15:00UTC", "2026-11-22T10:15:00Z"),
        ("  2026-11-22   10:15:00  +00 ", "2026-11-22T10:15:00Z"),
        ("2026-11-22 10:15:00.5+02", "2026-11-22T08:15:00.500Z"),
        ("2026-11-22 10:15:00.00000+00", "2026-11-22T10:15:00Z"),
        ("2026-11-22T10:15:00.123456+02:00", "2026-11-22T08:15:00.123456Z"),
        ("2026-11-22 10:15:00 -0330", "2026-11-22T13:45:00Z"),
        ("2026-11-22 10:15:00+00:19:32", "2026-11-22T09:55:28Z"),
        ("2026-11-22 10:15:00-15:59:59", "2026-11-23T02:14:59Z"),
        ("2026-11-22 10:15+05:30", "2026-11-22T04:45:00Z"),
        ("2026-1-2 9:15+00", "2026-01-02T09:15:00Z"),
        ("2024-02-29 00:00:00+00", "2024-02-29T00:00:00Z"),
        // As printed by programs that count nanoseconds.
        ("2026-11-22T10:15:00.000000000Z", "2026-11-22T10:15:00Z"),
        ("2026-11-22T10:15:00.123456000+02:00", "2026-11-22T08:15:00.123456Z"),
        // Midnight in that zone.
        ("2026-11-22Z", "2026-11-22T00:00:00Z"),
        ("2026-11-22 UTC", "2026-11-22T00:00:00Z"),
        ("2026-11-22GMT", "2026-11-22T00:00:00Z"),
        ("2026-11-22+02:00", "2026-11-21T22:00:00Z"),
        ("2026-11-22 -03", "2026-11-22T03:00:00Z"),
    ] {
        for missing_zone in [MissingZone::Refused, MissingZone::MeansUtc] {
            let read = parse(written, missing_zone).map(|moment| (shown(moment.time), moment.zone_is_written));
            assert_eq!(read, Ok((expected.to_owned(), true)), "{written:?}, {missing_zone:?}");
        }
    }
}

#[test]
fn without_a_zone() {
    for (written, refused, expected) in [
        ("2026-11-22 10:15:00", MomentError::ZoneMissing, "2026-11-22T10:15:00Z"),
        ("2026-11-22T10:15", MomentError::ZoneMissing, "2026-11-22T10:15:00Z"),
        ("2026-11-22 10:15:00.25", MomentError::ZoneMissing, "2026-11-22T10:15:00.250Z"),
        ("2026-11-22", MomentError::NotATime, "2026-11-22T00:00:00Z"),
    ] {
        assert_eq!(parse(written, MissingZone::Refused), Err(refused), "{written:?}");
        let read = parse(written, MissingZone::MeansUtc).map(|moment| (shown(moment.time), moment.zone_is_written));
        assert_eq!(read, Ok((expected.to_owned(), false)), "{written:?}");
    }
}

#[test]
fn no_moment() {
    let zone = |zone: &str| MomentError::UnknownZone(zone.to_owned());
    for (written, expected) in [
        ("2026-11-22 10:15:00 Europe/Berlin", zone("Europe/Berlin")),
        ("2026-11-22 10:15:00 CEST", zone("CEST")),
        ("2026-11-22 10:15:00+2", zone("+2")),
        ("2026-11-22 10:15:00+16", zone("+16")),
        ("2026-11-22 10:15:00+02:60", zone("+02:60")),
        ("2026-11-22 10:15:00+02:00:00:00", zone("+02:00:00:00")),
        ("2026-11-22 10:15:00+", zone("+")),
        ("2026-02-29 00:00:00+00", MomentError::NoSuchDay("2026-02-29".to_owned())),
        ("2026-13-01", MomentError::NoSuchDay("2026-13-01".to_owned())),
        ("2026-11-22 24:15:00+00", MomentError::NoSuchTimeOfDay("24:15:00".to_owned())),
        ("2026-11-22 10:15:00.1234567+00", MomentError::TooManyDigits),
        ("2026-11-22 10:15:00.123456789Z", MomentError::TooManyDigits),
        ("2026-11-22 10:15:00.0000001Z", MomentError::TooManyDigits),
        ("2026-11-22-03", MomentError::NotATime),
        ("2026-11-22 CEST", MomentError::NotATime),
        ("2026-11-22 noon", MomentError::NotATime),
        ("2026-11-22T", MomentError::NotATime),
        ("2026-11-22TZ", MomentError::NotATime),
        ("2026-11-22:10:15Z", MomentError::NotATime),
        ("2026-11-2210:15:00Z", MomentError::NotATime),
        ("2026-11-22 10:15:.5Z", MomentError::NotATime),
        ("2026-11-22 10:15:00.Z", MomentError::NotATime),
        ("2026-11-22 10Z", MomentError::NotATime),
        ("22.11.2026", MomentError::NotATime),
        ("10:15", MomentError::NotATime),
        ("", MomentError::NotATime),
        ("yesterday", MomentError::NotATime),
        ("２026-11-22 10:15:00Z", MomentError::NotATime),
        ("é2026-11-2", MomentError::NotATime),
    ] {
        for missing_zone in [MissingZone::Refused, MissingZone::MeansUtc] {
            assert_eq!(parse(written, missing_zone), Err(expected.clone()), "{written:?}, {missing_zone:?}");
        }
    }
}

#[test]
fn written_with_all_digits_and_the_zone() {
    for (time, expected) in [
        ("2026-11-22T10:15:00Z", "2026-11-22 10:15:00.000000+00"),
        ("2026-11-22T10:15:00.123456Z", "2026-11-22 10:15:00.123456+00"),
    ] {
        let time = parse_with_zone(time);
        assert_eq!(time.map(text), Ok(expected.to_owned()));
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(microseconds in 0_i64..253_402_300_799_000_000) {
        let time = DateTime::from_timestamp_micros(microseconds);
        prop_assert_eq!(time.map(|time| parse_with_zone(&text(time))), time.map(Ok));
    }

    #[test]
    fn no_text_panics(written in "\\PC*") {
        let _ = parse(&written, MissingZone::MeansUtc);
    }

    #[test]
    fn no_text_like_a_time_panics(written in "[-0-9:.+ TZ]{0,32}") {
        let _ = parse(&written, MissingZone::MeansUtc);
    }
}
