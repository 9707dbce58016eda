#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use proptest::prelude::*;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap_or_else(|_| format!("{text}:00Z").replace(' ', "T").parse().unwrap())
}

/// The next times after `after`, as RFC 3339 in UTC.
fn next(text: &str, zone: Option<&str>, after: &str, count: usize) -> Vec<String> {
    let schedule = Schedule::parse(text, zone).unwrap();
    schedule.upcoming(at(after)).take(count).map(|time| time.format("%Y-%m-%d %H:%M:%S").to_string()).collect()
}

#[test]
fn expressions_mean_the_same_as_in_cron() {
    // 2025-06-01 was a Sunday.
    for (text, after, expected) in [
        ("0 2 * * *", "2025-06-01 01:59", vec!["2025-06-01 02:00:00", "2025-06-02 02:00:00"]),
        ("0 2 * * *", "2025-06-01 02:00", vec!["2025-06-02 02:00:00"]),
        ("30 0 2 * * *", "2025-06-01 02:00", vec!["2025-06-01 02:00:30", "2025-06-02 02:00:30"]),
        ("*/15 * * * *", "2025-06-01 00:50", vec!["2025-06-01 01:00:00", "2025-06-01 01:15:00"]),
        (
            "5/20 * * * *",
            "2025-06-01 00:50",
            vec!["2025-06-01 01:05:00", "2025-06-01 01:25:00", "2025-06-01 01:45:00", "2025-06-01 02:05:00"],
        ),
        (
            "0 8-18/5 * * *",
            "2025-06-01 00:00",
            vec!["2025-06-01 08:00:00", "2025-06-01 13:00:00", "2025-06-01 18:00:00"],
        ),
        ("0 0 * * 0", "2025-06-01 12:00", vec!["2025-06-08 00:00:00"]),
        ("0 0 * * 7", "2025-06-01 12:00", vec!["2025-06-08 00:00:00"]),
        ("0 0 * * 1", "2025-06-01 12:00", vec!["2025-06-02 00:00:00"]),
        ("0 0 * * 5-7", "2025-06-01 12:00", vec!["2025-06-06 00:00:00", "2025-06-07 00:00:00", "2025-06-08 00:00:00"]),
        ("0 0 * * MON,fri", "2025-06-01 12:00", vec!["2025-06-02 00:00:00", "2025-06-06 00:00:00"]),
        ("0 0 1 JAN *", "2025-06-01 12:00", vec!["2026-01-01 00:00:00"]),
        // If both kinds of days are restricted, either of them counts.
        ("0 0 13 * 5", "2025-06-07 00:00", vec!["2025-06-13 00:00:00", "2025-06-20 00:00:00"]),
        ("0 0 10 * 5", "2025-06-07 00:00", vec!["2025-06-10 00:00:00", "2025-06-13 00:00:00"]),
        ("0 0 ? * 5", "2025-06-07 00:00", vec!["2025-06-13 00:00:00"]),
        ("0 0 31 * *", "2025-06-01 00:00", vec!["2025-07-31 00:00:00", "2025-08-31 00:00:00", "2025-10-31 00:00:00"]),
        ("0 0 29 2 *", "2096-03-01 00:00", vec!["2104-02-29 00:00:00"]),
        ("@daily", "2025-06-01 12:00", vec!["2025-06-02 00:00:00"]),
        ("@midnight", "2025-06-01 12:00", vec!["2025-06-02 00:00:00"]),
        ("@weekly", "2025-06-02 12:00", vec!["2025-06-08 00:00:00"]),
        ("@monthly", "2025-06-02 12:00", vec!["2025-07-01 00:00:00"]),
        ("@yearly", "2025-06-02 12:00", vec!["2026-01-01 00:00:00"]),
        ("@hourly", "2025-06-02 12:00", vec!["2025-06-02 13:00:00"]),
        ("  0   2 * *  * ", "2025-06-01 01:59", vec!["2025-06-01 02:00:00"]),
        ("59 59 23 31 12 *", "2025-06-01 01:59", vec!["2025-12-31 23:59:59"]),
    ] {
        assert_eq!(next(text, None, after, expected.len()), expected, "{text} after {after}");
    }
}

#[test]
fn a_part_of_a_second_counts() {
    let schedule = Schedule::parse("* * * * * *", None).unwrap();
    assert_eq!(schedule.next_after(at("2025-06-01T00:00:00.700Z")), Some(at("2025-06-01T00:00:01Z")));
    assert_eq!(schedule.next_after(at("2025-06-01T00:00:01Z")), Some(at("2025-06-01T00:00:02Z")));
}

#[test]
fn clocks_that_change_neither_lose_nor_repeat_a_run() {
    // Paris: 2025-03-30 01:00Z from +1 to +2 (02:00 becomes 03:00), 2025-10-26 01:00Z back (03:00 becomes 02:00).
    let paris = Some("Europe/Paris");
    for (text, after, expected) in [
        ("30 1 * * *", "2025-03-29 12:00", vec!["2025-03-30 00:30:00", "2025-03-30 23:30:00"]),
        // 02:30 is left out on that day: it runs at 03:00, once.
        ("30 2 * * *", "2025-03-28 12:00", vec!["2025-03-29 01:30:00", "2025-03-30 01:00:00", "2025-03-31 00:30:00"]),
        ("0,15,30 2 * * *", "2025-03-29 12:00", vec!["2025-03-30 01:00:00", "2025-03-31 00:00:00"]),
        ("0 2,3 * * *", "2025-03-29 12:00", vec!["2025-03-30 01:00:00", "2025-03-31 00:00:00"]),
        ("0 3 * * *", "2025-03-29 12:00", vec!["2025-03-30 01:00:00", "2025-03-31 01:00:00"]),
        // 02:30 comes twice on that day: the first time counts.
        ("30 2 * * *", "2025-10-25 12:00", vec!["2025-10-26 00:30:00", "2025-10-27 01:30:00"]),
        ("30 2 * * *", "2025-10-26 00:30", vec!["2025-10-27 01:30:00"]),
        ("30 2 * * *", "2025-10-26 01:10", vec!["2025-10-27 01:30:00"]),
        ("30 3 * * *", "2025-10-26 01:10", vec!["2025-10-26 02:30:00"]),
        ("*/30 2 * * *", "2025-10-25 12:00", vec!["2025-10-26 00:00:00", "2025-10-26 00:30:00", "2025-10-27 01:00:00"]),
        // A schedule for every hour runs every hour.
        ("30 * * * *", "2025-03-29 23:40", vec!["2025-03-30 00:30:00", "2025-03-30 01:30:00"]),
        ("30 * * * *", "2025-10-25 23:40", vec!["2025-10-26 00:30:00", "2025-10-26 01:30:00", "2025-10-26 02:30:00"]),
        ("0 0 * * *", "2025-03-29 12:00", vec!["2025-03-29 23:00:00", "2025-03-30 22:00:00"]),
    ] {
        assert_eq!(next(text, paris, after, expected.len()), expected, "{text} after {after}");
    }
    // Clocks change by half an hour only.
    assert_eq!(
        next("15 2 * * *", Some("Australia/Lord_Howe"), "2025-10-04 00:00", 3),
        ["2025-10-04 15:30:00", "2025-10-05 15:15:00", "2025-10-06 15:15:00"]
    );
    // A whole day is left out: Samoa had no 2011-12-30.
    assert_eq!(
        next("0 12 30 12 *", Some("Pacific/Apia"), "2011-12-01 00:00", 2),
        ["2011-12-30 10:00:00", "2012-12-29 22:00:00"]
    );
}

#[test]
fn times_between_ends_with_the_last() {
    let schedule = Schedule::parse("0 * * * *", None).unwrap();
    let times: Vec<_> = schedule.times_between(at("2025-06-01 00:00"), at("2025-06-01 03:00")).collect();
    assert_eq!(times, [at("2025-06-01 01:00"), at("2025-06-01 02:00"), at("2025-06-01 03:00")]);
    assert_eq!(schedule.times_between(at("2025-06-01 00:00"), at("2025-06-01 00:59")).count(), 0);
}

#[test]
fn errors_say_what_is_wrong_and_what_to_write() {
    for (text, zone, message) in [
        ("", None, "the schedule `` has 0 fields"),
        ("0 2 * *", None, "the schedule `0 2 * *` has 4 fields"),
        ("0 0 2 * * * 2025", None, "the schedule `0 0 2 * * * 2025` has 7 fields"),
        ("60 2 * * *", None, "`60` cannot be the minute of a schedule"),
        ("0 24 * * *", None, "`24` cannot be the hour of a schedule"),
        ("0 0 0 * *", None, "`0` cannot be the day of the month of a schedule"),
        ("0 0 * 13 *", None, "`13` cannot be the month of a schedule"),
        ("0 0 * * 8", None, "`8` cannot be the day of the week of a schedule"),
        ("0 0 * * FOO", None, "`FOO` cannot be the day of the week of a schedule"),
        ("0 0 L * *", None, "`L` cannot be the day of the month of a schedule"),
        ("5-1 0 * * *", None, "`5-1` cannot be the minute of a schedule"),
        ("*/0 0 * * *", None, "`*/0` cannot be the minute of a schedule"),
        ("? 0 * * *", None, "`?` cannot be the minute of a schedule"),
        ("1,,2 0 * * *", None, "`` cannot be the minute of a schedule"),
        ("-1 0 * * *", None, "`-1` cannot be the minute of a schedule"),
        ("0 0 30 2 *", None, "the schedule `0 0 30 2 *` never matches any time"),
        ("@every 6h", None, "`@every 6h` is not a known schedule"),
        ("CRON_TZ=UTC 0 0 * * *", None, "`CRON_TZ=UTC 0 0 * * *` is not a known schedule"),
        ("0 2 * * *", Some("Mars/Olympus"), "`Mars/Olympus` is not a known time zone"),
    ] {
        let error = Schedule::parse(text, zone).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(!error.hint().is_empty(), "{text}");
        assert_eq!(error.field(), if zone.is_some() { "spec.timeZone" } else { "spec.schedule" });
    }
    assert_eq!(
        Schedule::parse("61 * * * *", None).unwrap_err().hint(),
        "minutes go from 0 to 59; lists `1,2`, ranges `1-5` and steps `*/15` are allowed"
    );
}

/// Every matching minute between two times, found by trying each minute: the slow way to the same answer.
fn by_trying(text: &str, zone: Tz, from: DateTime<Utc>, minutes: i64) -> Vec<DateTime<Utc>> {
    let fields = parse::fields(text).unwrap();
    let mut found = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut before = zone.from_utc_datetime(&from.naive_utc()).naive_local();
    // Times before the start count as seen.
    for minute in -600..=minutes {
        let time = from + TimeDelta::minutes(minute);
        let wall = zone.from_utc_datetime(&time.naive_utc()).naive_local();
        if minute > -600 {
            let mut due = false;
            let mut left_out = before + TimeDelta::minutes(1);
            while left_out <= wall {
                due |= fields.next_from(left_out) == Some(left_out) && (fields.every_hour() || seen.insert(left_out));
                if fields.every_hour() && left_out < wall {
                    due = false;
                }
                left_out += TimeDelta::minutes(1);
            }
            if wall <= before {
                due = fields.next_from(wall) == Some(wall) && (fields.every_hour() || seen.insert(wall));
            }
            if due && minute > 0 {
                found.push(time);
            }
        }
        before = wall;
    }
    found
}

proptest! {
    #[test]
    fn the_search_agrees_with_trying_every_minute(
        minute in prop::sample::select(vec!["0", "30", "*/20", "1,59", "*"]),
        hour in prop::sample::select(vec!["*", "1", "2", "3", "0-4", "*/3"]),
        days in prop::sample::select(vec!["* * *", "* * 0", "26 * *", "30 3 *", "*/2 * 1"]),
        zone in prop::sample::select(vec![Tz::UTC, Tz::Europe__Paris, Tz::America__New_York, Tz::Australia__Lord_Howe, Tz::Africa__Cairo]),
        // Around both changes of 2025, in all of these zones.
        start in prop::sample::select(vec!["2025-03-08 12:00", "2025-03-29 12:00", "2025-04-05 00:00", "2025-04-24 12:00", "2025-10-04 00:00", "2025-10-25 12:00", "2025-10-30 12:00", "2025-11-01 12:00"]),
        shift in 0_i64..1440,
    ) {
        let text = format!("{minute} {hour} {days}");
        let from = at(start) + TimeDelta::minutes(shift);
        let schedule = Schedule::parse(&text, Some(zone.name())).unwrap();
        let span = 2 * 24 * 60;
        let found: Vec<_> = schedule.times_between(from, from + TimeDelta::minutes(span)).collect();
        prop_assert_eq!(found, by_trying(&text, zone, from, span), "{} {} from {}", text, zone, from);
    }

    #[test]
    fn times_only_go_forward(
        text in "[0-9*/,-]{1,5} [0-9*/,-]{1,4} [0-9*?,-]{1,4} [0-9*,-]{1,3} [0-7*?,-]{1,3}",
        seconds in 0_i64..4_000_000_000,
    ) {
        if let Ok(schedule) = Schedule::parse(&text, Some("America/New_York")) {
            let mut time = DateTime::from_timestamp(seconds, 0).unwrap();
            for next in schedule.upcoming(time).take(5) {
                prop_assert!(next > time);
                time = next;
            }
        }
    }

    #[test]
    fn reading_never_panics(text in ".{0,40}", zone in ".{0,10}") {
        let _ = Schedule::parse(&text, Some(&zone));
    }
}
