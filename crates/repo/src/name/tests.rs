//! Names round-trip, and nothing else parses.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::codec::Codec;
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{SegmentName, TimelineId, WalFileName};
use proptest::prelude::*;

fn cluster() -> ClusterName {
    "main".parse().unwrap()
}

#[test]
fn the_names_of_the_format() {
    let cluster = cluster();
    let backup: BackupId = "20260822T101500Z".parse().unwrap();
    let claim_3 = ClaimNumber::new(3).unwrap();
    let segment: WalFileName = "000000010000000A000000FF".parse().unwrap();
    let tail_segment: SegmentName = "000000010000000A000000FF".parse().unwrap();
    let wal = |file: &str, codec, encrypted| wal_file(&cluster, claim_3, &file.parse().unwrap(), codec, encrypted);
    let ledger_time = LedgerTime::new("2026-08-22T10:15:00.0000019Z".parse().unwrap()).unwrap();
    let table = [
        (REPOSITORY_OBJECT.to_owned(), "holdfast.json"),
        (key_slot(&"default".parse().unwrap()), "keys/default.json"),
        (key_slot_removal(&"default".parse().unwrap()), "keys/default.removing"),
        (claim(&cluster, claim_3), "main/claims/3.json"),
        (
            wal("000000010000000A000000FF", Codec::Zstd, false),
            "main/wal/3/00000001/000000010000000A/000000010000000A000000FF.zst",
        ),
        (
            wal("000000010000000A000000FF", Codec::Lz4, true),
            "main/wal/3/00000001/000000010000000A/000000010000000A000000FF.lz4.enc",
        ),
        (
            wal("000000010000000A000000FF.partial", Codec::None, false),
            "main/wal/3/00000001/000000010000000A/000000010000000A000000FF.partial.raw",
        ),
        (
            wal("000000010000000A000000FF.00000028.backup", Codec::Gzip, true),
            "main/wal/3/00000001/000000010000000A/000000010000000A000000FF.00000028.backup.gz.enc",
        ),
        // A history file is zstd whatever the claim's codec is.
        (wal("0000001A.history", Codec::Lz4, true), "main/wal/3/0000001A/0000001A.history.zst.enc"),
        (
            wal_tail(&cluster, claim_3, tail_segment, TailRange::new(0, 0x4_0000).unwrap(), Codec::Zstd, true),
            "main/wal-tail/3/00000001/000000010000000A000000FF/00000000-00040000.zst.enc",
        ),
        (pack(&cluster, &backup, 42), "main/packs/20260822T101500Z/000042.pack"),
        (backup_start(&cluster, &backup), "main/backups/20260822T101500Z/start.json"),
        (backup_end(&cluster, &backup), "main/backups/20260822T101500Z/ended.json"),
        (manifest(&cluster, &backup), "main/backups/20260822T101500Z/manifest"),
        (backup_summary(&cluster, &backup), "main/backups/20260822T101500Z/backup.json"),
        (snapshot(&cluster, &backup), "main/snapshots/20260822T101500Z.json"),
        (ledger(&cluster, ledger_time, LedgerKind::Gap), "main/ledger/20260822T101500.000001Z-gap.json"),
        (
            verification(&cluster, ledger_time, &backup, true),
            "main/ledger/20260822T101500.000001Z-verification-20260822T101500Z-deep.json",
        ),
        (
            verification(&cluster, ledger_time, &backup, false),
            "main/ledger/20260822T101500.000001Z-verification-20260822T101500Z-shallow.json",
        ),
        (
            drill(&cluster, ledger_time, &backup, true),
            "main/ledger/20260822T101500.000001Z-drill-20260822T101500Z-proven.json",
        ),
        (
            drill(&cluster, ledger_time, &backup, false),
            "main/ledger/20260822T101500.000001Z-drill-20260822T101500Z-failed.json",
        ),
        (
            lease(&cluster, ledger_time, &"4c1f-6a52".parse().unwrap()),
            "main/leases/20260822T101500.000001Z-4c1f-6a52.json",
        ),
        ("features/read-chains".to_owned(), "features/read-chains"),
        ("features/write-expire-2".to_owned(), "features/write-expire-2"),
    ];
    for (name, expected) in table {
        assert_eq!(name, expected);
        assert_eq!(name.parse::<ObjectPath>().unwrap().to_string(), expected);
    }
    assert_eq!(wal_claim_folder(&cluster, claim_3), "main/wal/3/");
    assert_eq!(wal_timeline_folder(&cluster, claim_3, TimelineId::new(26).unwrap()), "main/wal/3/0000001A/");
    assert_eq!(wal_log_folder(&cluster, claim_3, &segment), "main/wal/3/00000001/000000010000000A/");
    let history = WalFileName::History(TimelineId::new(26).unwrap());
    assert_eq!(wal_log_folder(&cluster, claim_3, &history), "main/wal/3/0000001A/");
    assert_eq!(packs_folder(&cluster, &backup), "main/packs/20260822T101500Z/");
    assert_eq!(backup_folder(&cluster, &backup), "main/backups/20260822T101500Z/");
    assert_eq!(backups_folder(&cluster), "main/backups/");
    assert_eq!(claims_folder(&cluster), "main/claims/");
    assert_eq!(ledger_folder(&cluster), "main/ledger/");
    assert_eq!(leases_folder(&cluster), "main/leases/");
    assert_eq!(keys_folder(), "keys/");
    assert_eq!(features_folder(), "features/");
}

#[test]
fn what_is_almost_a_name_is_refused() {
    for text in [
        "",
        "/holdfast.json",
        "holdfast.json/",
        "keys/a/b.json",
        "keys/.json",
        "features/",
        "features/read-",
        "features/chains",
        "features/delete-chains",
        "features/read-a/b",
        "main/leases/20260822T101500.000001Z.json",
        "main/leases/20260822T101500Z-run.json",
        "main/claims/0.json",
        "main/claims/01.json",
        "main/claims/+1.json",
        // the folder names another timeline, another log, another depth
        "main/wal/1/00000002/000000010000000A/000000010000000A000000FF.zst",
        "main/wal/1/00000001/000000010000000B/000000010000000A000000FF.zst",
        "main/wal/1/00000001/000000010000000A000000FF.zst",
        "main/wal/1/00000001/000000010000000A/00000001.history.zst",
        "main/wal/1/00000001/000000010000000A/000000010000000a000000ff.zst",
        "main/wal/1/00000001/000000010000000A/000000010000000A000000FF",
        // another timeline, an empty range, a range that goes backwards, one in another form, none
        "main/wal-tail/1/00000002/000000010000000A000000FF/00000000-00040000.zst",
        "main/wal-tail/1/00000001/000000010000000A000000FF/00040000-00040000.zst",
        "main/wal-tail/1/00000001/000000010000000A000000FF/00040000-00000000.zst",
        "main/wal-tail/1/00000001/000000010000000A000000FF/0-40000.zst",
        "main/wal-tail/1/00000001/000000010000000A000000FF/000000000-00040000.zst",
        "main/wal-tail/1/00000001/000000010000000A000000FF/00000000-0004000a.zst",
        "main/wal-tail/1/00000001/000000010000000A000000FF.zst",
        "main/wal/1/00000001/000000010000000A/000000010000000A000000FF.bz2",
        "main/wal/1/00000001/000000010000000A/000000010000000A000000FF.zst.enc.enc",
        "main/packs/20260822T101500Z/42.pack",
        "main/packs/20260822T101500Z/+00042.pack",
        "main/packs/20260822T101500Z/0000042.pack",
        "main/backups/20260822T101500Z/backup.json.tmp",
        "main/backups/20260822T101500/backup.json",
        "main/ledger/20260822T101500Z-gap.json",
        "main/ledger/20260822T101500.000001Z-other.json",
        "main/ledger/20260822T101500.000001Z-verification-20260822T101500Z-thorough.json",
        "main/ledger/20260822T101500.000001Z-gap-20260822T101500Z-deep.json",
        "../backups/20260822T101500Z/backup.json",
        "main//backups/20260822T101500Z/backup.json",
    ] {
        assert!(text.parse::<ObjectPath>().is_err(), "{text}");
    }
}

#[test]
fn cluster_names_have_rules() {
    for good in ["a", "main", "Prod-1.eu_west", "x".repeat(63).as_str()] {
        assert_eq!(good.parse::<ClusterName>().unwrap().as_str(), good);
    }
    for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ü", "a\0", "keys", "holdfast.json", "x".repeat(64).as_str()] {
        assert!(bad.parse::<ClusterName>().is_err(), "{bad:?}");
    }
    assert_eq!(
        "keys".parse::<ClusterName>().unwrap_err().to_string(),
        "\"keys\" is not a cluster name: the repository uses this name itself"
    );
}

#[test]
fn backup_ids_are_seconds() {
    let time: DateTime<Utc> = "2026-08-22T10:15:00.999999Z".parse().unwrap();
    let id = BackupId::new(time).unwrap();
    assert_eq!(id.to_string(), "20260822T101500Z");
    assert_eq!(id.time().to_rfc3339(), "2026-08-22T10:15:00+00:00");
    assert!(id < "20260822T101501Z".parse().unwrap());
    for bad in ["20260822T101560Z", "20261322T101500Z", "20260230T000000Z", "20260822t101500Z", "+0260822T101500Z"] {
        assert!(bad.parse::<BackupId>().is_err(), "{bad}");
    }
    assert!(BackupId::new(DateTime::<Utc>::MAX_UTC).is_err());
    assert!(LedgerTime::new(DateTime::<Utc>::MIN_UTC).is_err());
}

#[test]
fn ledger_times_move_on() {
    let time: LedgerTime = "20260822T235959.999999Z".parse().unwrap();
    assert_eq!(time.next().to_string(), "20260823T000000.000000Z");
}

fn any_time() -> impl Strategy<Value = DateTime<Utc>> {
    // years 0000 to 9999
    (-62_167_219_200i64..253_402_300_800, 0u32..2_000_000_000)
        .prop_filter_map("leap seconds are at second 59", |(seconds, nanos)| DateTime::from_timestamp(seconds, nanos))
}

fn any_segment() -> impl Strategy<Value = SegmentName> {
    (1u32.., any::<u32>(), any::<u32>())
        .prop_map(|(timeline, id, segment)| format!("{timeline:08X}{id:08X}{segment:08X}").parse().unwrap())
}

fn any_wal_file() -> impl Strategy<Value = WalFileName> {
    prop_oneof![
        any_segment().prop_map(WalFileName::Segment),
        any_segment().prop_map(WalFileName::Partial),
        (1u32..).prop_map(|timeline| WalFileName::History(TimelineId::new(timeline).unwrap())),
        (any_segment(), any::<u32>()).prop_map(|(segment, offset)| WalFileName::BackupHistory { segment, offset }),
    ]
}

fn any_path() -> impl Strategy<Value = ObjectPath> {
    let cluster =
        "[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}".prop_filter_map("reserved", |name| name.parse::<ClusterName>().ok());
    let claim = (1u32..).prop_map(|number| ClaimNumber::new(number).unwrap());
    let backup = any_time().prop_map(|time| BackupId::new(time).unwrap());
    let codec = prop::sample::select(Codec::ALL.to_vec());
    let kind = prop::sample::select(vec![LedgerKind::Gap, LedgerKind::Divergence, LedgerKind::Deletion]);
    (cluster, claim, backup, any_wal_file(), codec, any::<bool>(), 0..=MAX_PACK_NUMBER, any_time(), kind, 0u8..9)
        .prop_map(|(cluster, claim, backup, file, codec, encrypted, number, time, kind, which)| match which {
            0 => ObjectPath::KeySlot(cluster.as_str().parse().unwrap()),
            1 => ObjectPath::Claim { cluster, claim },
            2 => ObjectPath::Pack { cluster, backup, number },
            3 => ObjectPath::BackupStart { cluster, backup },
            4 => ObjectPath::Manifest { cluster, backup },
            5 => ObjectPath::BackupSummary { cluster, backup },
            7 => ObjectPath::BackupEnd { cluster, backup },
            6 => ObjectPath::Ledger { cluster, time: LedgerTime::new(time).unwrap(), kind },
            _ => ObjectPath::WalFile { cluster, claim, file, codec, encrypted },
        })
}

proptest! {
    #[test]
    fn every_object_is_found_again_by_its_name(path in any_path()) {
        prop_assert_eq!(path.to_string().parse::<ObjectPath>().unwrap(), path);
    }

    #[test]
    fn what_parses_prints_the_same(
        text in "(main|keys|\\.\\.)/(wal|packs|backups|ledger|claims)/[0-9A-FTZ./a-z-]{0,60}|.*"
    ) {
        if let Ok(path) = text.parse::<ObjectPath>() {
            prop_assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn a_changed_name_is_refused_or_another_object(path in any_path(), at in any::<prop::sample::Index>(), to in any::<char>()) {
        let name = path.to_string();
        let mut changed: Vec<char> = name.chars().collect();
        let at = at.index(changed.len());
        changed[at] = to;
        let changed: String = changed.into_iter().collect();
        if let Ok(other) = changed.parse::<ObjectPath>() {
            prop_assert_eq!(other == path, changed == name);
        }
    }

    #[test]
    fn backup_ids_order_as_their_text(a in any_time(), b in any_time()) {
        let (a, b) = (BackupId::new(a).unwrap(), BackupId::new(b).unwrap());
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        prop_assert_eq!(a.to_string().parse::<BackupId>().unwrap(), a);
    }

    #[test]
    fn short_parsers_never_panic(text in ".*") {
        let _ = text.parse::<BackupId>();
        let _ = text.parse::<LedgerTime>();
        let _ = text.parse::<ClaimNumber>();
        let _ = text.parse::<SlotName>();
    }
}
