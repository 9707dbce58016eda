//! Frozen samples of the ledger entries of a scrub, with their values: what was read, what was passed over, and what a
//! drill found damaged.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use holdfast_pgtypes::TimelineId;
use holdfast_repo::name::ClaimNumber;
use holdfast_repo::record::{self, DrillFound, LedgerEntry, LedgerRecord, PacksRead, WalRead};

fn check(sample: &[u8], entry: LedgerEntry) {
    let value = LedgerRecord {
        time: "2026-08-22T12:00:00.000001Z".parse().unwrap(),
        host: "db1".to_owned(),
        software_version: "0.1.0".to_owned(),
        entry,
    };
    assert_eq!(record::decode_plain::<LedgerRecord>(sample).unwrap(), value);
    assert_eq!(record::encode_plain(&value).unwrap(), sample, "the writer has changed");
}

#[test]
fn what_was_read() {
    let time = "2026-08-22T02:00:00.5Z".parse().unwrap();
    let earlier = "2026-08-20T02:00:00Z".parse().unwrap();
    let entry = LedgerEntry::Reading {
        packs: vec![
            PacksRead { backup: "20260821T101500Z".parse().unwrap(), first: 1, last: 9, time: earlier },
            PacksRead { backup: "20260822T101500Z".parse().unwrap(), first: 1, last: 2, time },
        ],
        wal: vec![WalRead {
            claim: ClaimNumber::FIRST,
            first: "0000000100000016000000B1".parse().unwrap(),
            last: "0000000100000016000000B8".parse().unwrap(),
            time,
        }],
        includes: vec!["20260821T020000.500000Z".parse().unwrap()],
    };
    check(include_bytes!("samples/ledger-reading.json"), entry);
}

#[test]
fn a_verification_that_passed_objects_over() {
    let entry = LedgerEntry::Verification {
        backup: Some("20260822T101500Z".parse().unwrap()),
        deep: true,
        object_count: 5,
        size_bytes: 35_123_456,
        problems: Vec::new(),
        sample_percent: None,
        passed_over_count: 42,
    };
    check(include_bytes!("samples/ledger-verification-passed-over.json"), entry);
}

#[test]
fn a_drill_that_names_an_object() {
    let entry = LedgerEntry::Drill {
        backup: "20260822T101500Z".parse().unwrap(),
        claim: ClaimNumber::FIRST,
        timeline: TimelineId::FIRST,
        restored_time: None,
        restored_lsn: None,
        size_bytes: 0,
        wal_bytes: 83_886_080,
        restore_milliseconds: 900,
        replay_milliseconds: 0,
        page_count: 0,
        amcheck: false,
        probe_count: 0,
        problems: vec!["the body of frame 7 fails its checksum".to_owned()],
        found: vec![DrillFound::Object],
        objects: vec!["main/packs/20260822T101500Z/000002.pack".to_owned()],
    };
    check(include_bytes!("samples/ledger-drill-objects.json"), entry);
}

/// What a later release finds is not lost as damage, and a release that says nothing may blame the backup.
#[test]
fn what_a_drill_found_is_an_open_set() {
    let of = |words: &str| serde_json::from_str::<Vec<DrillFound>>(words).unwrap();
    assert_eq!(of(r#"["amcheck", "smell"]"#), [DrillFound::Amcheck, DrillFound::Other]);
    for (words, blames) in [
        ("[]", true),
        (r#"["object"]"#, true),
        (r#"["time", "page"]"#, true),
        (r#"["server"]"#, true),
        (r#"["smell"]"#, true),
        (r#"["probe", "time", "host"]"#, false),
    ] {
        assert_eq!(DrillFound::blames_the_backup(&of(words)), blames, "{words}");
    }
}
