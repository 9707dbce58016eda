#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use holdfast_contract::report::wal_find::{FoundWhat, RecognisedBy, StopSide, WalFindReport};
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::searched_object::{Schemas, SearchedObject};
use super::{FindOptions, Query, find};
use crate::error::{Cause, Error};
use crate::progress::Silent;
use crate::restore::tests::sample::{SEGMENT, Sample, facts};

async fn found(sample: &Sample, query: Query) -> Result<WalFindReport, Error> {
    let options = FindOptions { cluster: "main".parse().unwrap(), timeline: TargetTimeline::Latest, query, jobs: 2 };
    find(&sample.repository, &options, &Silent, &CancellationToken::new()).await
}

fn about(text: &str) -> Query {
    Query::Changes { about: Some(text.parse().unwrap()), since: None, until: None }
}

fn all() -> Query {
    Query::Changes { about: None, since: None, until: None }
}

/// The drop in the sample's segment, as `pg_waldump` shows it: a prepared transaction that drops two tables.
#[tokio::test]
async fn a_drop_is_found_with_and_without_facts() {
    let sample = Sample::new(true).await;
    let without = |field: &str| {
        let mut facts = facts();
        facts.as_object_mut().unwrap().remove(field).unwrap();
        facts
    };
    let mut too_many = facts();
    too_many["ddl"]["left_out"] = json!(1);
    // The segments of the sample but one have no WAL in them, and no facts about changes.
    for (stored, read) in [(facts(), 3), (without("ddl"), 4), (json!({ "note": "not looked at" }), 4), (too_many, 4)] {
        sample.put_segment(0xA, SEGMENT, Some(stored)).await;
        let report = found(&sample, all()).await.unwrap();
        let searched = report.searched.unwrap();
        assert_eq!((searched.segments, searched.segments_read), (4, read));
        let [place] = report.places.as_slice() else { panic!("{report:?}") };
        assert_eq!(place.what, FoundWhat::Drop);
        assert_eq!((place.lsn.to_string().as_str(), place.xid), ("0/A02440", Some(778)));
        assert_eq!(place.segment.to_string(), "00000001000000000000000A");
        assert_eq!(place.time, Some("2026-11-22T08:45:27.455562Z".parse().unwrap()));
        let change = place.change.as_ref().unwrap();
        let files: Vec<String> = change.lost_files.first.iter().map(ToString::to_string).collect();
        assert_eq!((change.database, files), (Some(5), vec!["1663/5/16395".to_owned(), "1663/5/16398".to_owned()]));
        let [way] = place.ways.as_slice() else { panic!("{place:?}") };
        assert_eq!((way.stops, way.backup), (StopSide::Before, Some(sample.backup.backup_id)));
        assert_eq!(way.flags, ["--target-lsn", "0/A02440", "--target-exclusive"]);
    }
}

#[tokio::test]
async fn a_number_that_facts_left_out_is_looked_up_in_the_segment() {
    let sample = Sample::new(false).await;
    let mut bounded = facts();
    for list in ["relations", "dropped"] {
        let list = &mut bounded["ddl"]["events"][0]["change"]["relations"][list];
        let first: Vec<Value> = list["first"].as_array().unwrap()[..1].to_vec();
        *list = json!({ "first": first, "more": 1 });
    }
    sample.put_segment(0xA, SEGMENT, Some(bounded)).await;
    for (number, recognised, read) in [
        ("16395", RecognisedBy::RelationOid, 3),
        ("16398", RecognisedBy::RelationOid, 4),
        ("base/5/16395", RecognisedBy::File, 3),
        ("base/5/16398", RecognisedBy::File, 4),
    ] {
        let report = found(&sample, about(number)).await.unwrap();
        let [place] = report.places.as_slice() else { panic!("{number}: {report:?}") };
        assert_eq!(place.change.as_ref().unwrap().recognised, Some(recognised.into()), "{number}");
        assert_eq!(report.searched.unwrap().segments_read, read, "{number}");
    }
    for other in ["16399", "base/6/16398", "nothing", "public.nothing"] {
        assert!(found(&sample, about(other)).await.unwrap().places.is_empty(), "{other}");
    }
}

#[tokio::test]
async fn changes_are_limited_by_time() {
    let sample = Sample::new(false).await;
    let at = "2026-11-22T08:45:27.455562Z".parse().ok();
    let later = "2026-11-22T08:45:27.455563Z".parse().ok();
    let sooner = "2026-11-22T08:45:27.455561Z".parse().ok();
    for (since, until, count) in [(at, at, 1), (sooner, None, 1), (later, None, 0), (None, sooner, 0), (None, later, 1)]
    {
        let report = found(&sample, Query::Changes { about: None, since, until }).await.unwrap();
        assert_eq!(report.places.len(), count, "{since:?} to {until:?}");
    }
}

/// As `pg_waldump` shows the segment.
#[tokio::test]
async fn targets_are_described() {
    let sample = Sample::new(true).await;
    let time = |text: &str| RecoveryTarget::Time(format!("2026-11-22T08:45:{text}Z").parse().unwrap());
    let lsn = |text: &str| RecoveryTarget::Lsn(text.parse().unwrap());
    for (target, what, place, xid, flags) in [
        (RecoveryTarget::Xid(778), FoundWhat::Commit, "0/A02440", Some(778), "--target-xid 778 --target-exclusive"),
        (RecoveryTarget::Xid(774), FoundWhat::Rollback, "0/A001F0", Some(774), "--target-xid 774 --target-exclusive"),
        (
            RecoveryTarget::Name("before drop".to_owned()),
            FoundWhat::RestorePoint,
            "0/A00098",
            None,
            "--target-name before drop",
        ),
        (time("27.430851"), FoundWhat::Commit, "0/A01660", Some(775), "--target-time 2026-11-22 08:45:27.430851+00"),
        (lsn("0/A02440"), FoundWhat::Position, "0/A02440", None, "--target-lsn 0/A02440 --target-exclusive"),
    ] {
        let report = found(&sample, Query::Target(target)).await.unwrap();
        let [found] = report.places.as_slice() else { panic!("{report:?}") };
        assert_eq!((found.what, found.lsn.to_string().as_str(), found.xid), (what, place, xid));
        assert_eq!(found.ways[0].flags.join(" "), flags);
        assert_eq!(found.ways[0].backup, Some(sample.backup.backup_id));
    }
    let error = found(&sample, Query::Target(RecoveryTarget::Xid(4711))).await.unwrap_err();
    assert!(matches!(*error.what, Cause::Unreachable(_)), "{error}");
}

/// Facts have the first and the last transaction. If there are no others, a plan does not read the segment: here it
/// holds nothing.
#[tokio::test]
async fn a_segment_with_two_transactions_is_not_read_for_a_plan() {
    let sample = Sample::new(false).await;
    let mut two = facts();
    (two["commits"], two["aborts"]) = (json!(2), json!(0));
    sample.put_segment(0xA, b"WAL", Some(two)).await;
    let time = |text: &str| RecoveryTarget::Time(format!("2026-11-22T08:45:{text}Z").parse().unwrap());
    for (target, lsn) in [
        (RecoveryTarget::Xid(771), "0/A00070"),
        (RecoveryTarget::Xid(780), "0/A04668"),
        (time("27"), "0/A00070"),
        (time("27.476188"), "0/A04668"),
        (RecoveryTarget::Name("after drop".to_owned()), "0/A044F0"),
    ] {
        let report = found(&sample, Query::Target(target.clone())).await.unwrap();
        assert_eq!(report.places.first().unwrap().lsn.to_string(), lsn, "{target}");
    }
}

#[test]
fn what_is_named_is_read_as_in_sql() {
    let name = |schema: Option<&str>, name: &str| SearchedObject::Name {
        schema: schema.map(str::to_owned),
        name: name.to_owned(),
    };
    for (text, expected) in [
        ("Orders", name(None, "orders")),
        ("public.Orders", name(Some("public"), "orders")),
        ("\"Shop\".\"a.b\"\"c\"", name(Some("Shop"), "a.b\"c")),
        ("\"16384\"", name(None, "16384")),
        ("16384", SearchedObject::Number(16384)),
        ("base/5/16384", SearchedObject::File { database: 5, number: 16384 }),
        ("base/5/16384.2", SearchedObject::File { database: 5, number: 16384 }),
        ("1663/5/16384", SearchedObject::File { database: 5, number: 16384 }),
        ("pg_tblspc/16400/PG_18_202506291/5/16384_fsm", SearchedObject::File { database: 5, number: 16384 }),
    ] {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }
    for text in ["", ".", "a.", ".a", "a.b.c", "\"a", "\"a\"b", "4294967296", "base/x/1", "16384/"] {
        assert!(text.parse::<SearchedObject>().is_err(), "{text}");
    }
}

#[test]
fn without_changes_only_public_and_low_oids_are_schemas() {
    let schemas = Schemas::seen_in(&[]);
    for (oid, wanted, expected) in [
        (2200, None, true),
        (2200, Some("public"), true),
        (2200, Some("shop"), false),
        (16_384, Some("shop"), true),
        (16_384, Some("public"), false),
        (16_383, None, false),
        (4_000_000_000, None, false),
    ] {
        assert_eq!(schemas.may_be(oid, wanted), expected, "{oid} {wanted:?}");
    }
}
