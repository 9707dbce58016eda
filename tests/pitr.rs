//! Point-in-time recovery, proved by rows: a writer commits numbered rows all the time, and a restore to any kind of
//! target must have exactly the rows that the target allows. Also across a switch of timelines.
//!
//! Targets are chosen at random among the committed rows. The seed is printed, and `HOLDFAST_TEST_SEED` repeats a run.

use crate::stage::{Plan, Seal, Stage, StoreKind, wait_promoted};
use holdfast_testkit::postgres::Cluster;
use holdfast_testkit::random::Random;
use holdfast_testkit::rows::{Bound, Journal, Pace, Row, RowWriter, Target, found, time_text};

/// A row between the two numbers.
fn row_between<'a>(random: &mut Random, journal: &'a Journal, from: usize, to: usize) -> &'a Row {
    &journal.rows()[from + random.index(to - from)]
}

fn lsn(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xFFFF_FFFF)
}

/// The flags of a target.
fn flags(target: &Target) -> Vec<String> {
    let (mut flags, bound) = match target {
        Target::Time(micros, bound) => (vec!["--target-time".to_owned(), time_text(*micros)], *bound),
        Target::Lsn(position, bound) => (vec!["--target-lsn".to_owned(), lsn(*position)], *bound),
        Target::Xid(xid, bound) => (vec!["--target-xid".to_owned(), xid.to_string()], *bound),
        Target::Name(name) => (vec!["--target-name".to_owned(), name.clone()], Bound::Inclusive),
        Target::Immediate(_) => (vec!["--target-immediate".to_owned()], Bound::Inclusive),
        Target::Latest(_) => (Vec::new(), Bound::Inclusive),
    };
    if bound == Bound::Exclusive {
        flags.push("--target-exclusive".to_owned());
    }
    if !matches!(target, Target::Latest(_)) {
        flags.extend(["--target-action".to_owned(), "promote".to_owned()]);
    }
    flags
}

async fn restore_and_compare(stage: &Stage, name: &str, target: &Target, extra: &[&str], journal: &Journal) -> Cluster {
    let mut arguments: Vec<String> = flags(target);
    arguments.extend(extra.iter().map(|text| (*text).to_owned()));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let restored = stage.restore_and_start(name, &arguments).await;
    wait_promoted(&restored).await;
    let rows = found(&restored).await.expect("read the rows");
    journal.check(target, &rows).unwrap_or_else(|e| panic!("{name}: {e}\n{}", restored.log_text()));
    restored
}

async fn insert_lsn(cluster: &Cluster) -> u64 {
    let text = cluster.value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").await.expect("ask for the LSN");
    text.parse().expect("a number")
}

fn stop_lsn(report: &serde_json::Value) -> u64 {
    let text = find(report, "stop_lsn").and_then(serde_json::Value::as_str).expect("a stop LSN");
    let (high, low) = text.split_once('/').expect("an LSN");
    u64::from_str_radix(high, 16).expect("hex") << 32 | u64::from_str_radix(low, 16).expect("hex")
}

/// The first value of this key anywhere in a document.
fn find<'a>(value: &'a serde_json::Value, key: &str) -> Option<&'a serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|value| find(value, key))),
        serde_json::Value::Array(list) => list.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

async fn every_kind_of_target(major: u16, plan: Plan) {
    let Some(stage) = Stage::start(major, plan).await else { return };
    let mut random = Random::of_this_run();
    let pace = Pace { payload_bytes: 2000, ..Pace::default() };
    let writer = RowWriter::start(&stage.cluster, pace).await.expect("start the writer");
    writer.wait_for_rows(50).await.expect("write rows");
    let report = stage.json(&["backup"]);
    let first = writer.journal().rows().len();
    writer.wait_for_rows(first as u64 + 200).await.expect("write rows");
    writer.restore_point("before the accident").await.expect("make a restore point");
    stage.archive_now().await;
    let middle = writer.journal().rows().len();
    writer.wait_for_rows(middle as u64 + 200).await.expect("write rows");
    // A second backup, so that a backup must be chosen.
    stage.ok(&["backup"]);
    let second = writer.journal().rows().len();
    writer.wait_for_rows(second as u64 + 100).await.expect("write rows");
    let journal = writer.stop().await.expect("stop the writer");
    let end = insert_lsn(&stage.cluster).await;
    stage.archive_now().await;

    let last = journal.rows().len() - 1;
    let time = row_between(&mut random, &journal, first, last).commit_micros;
    let later = row_between(&mut random, &journal, second, last).commit_micros;
    let between = row_between(&mut random, &journal, first, last).lsn_after;
    let targets = [
        ("time", Target::Time(time, Bound::Inclusive)),
        ("time-exclusive", Target::Time(later, Bound::Exclusive)),
        ("lsn", Target::Lsn(between, Bound::Inclusive)),
        ("lsn-exclusive", Target::Lsn(row_between(&mut random, &journal, first, last).lsn_after, Bound::Exclusive)),
        ("xid", Target::Xid(row_between(&mut random, &journal, first, last).xid, Bound::Inclusive)),
        ("xid-exclusive", Target::Xid(row_between(&mut random, &journal, first, last).xid, Bound::Exclusive)),
        ("name", Target::Name("before the accident".to_owned())),
        ("latest", Target::Latest(end)),
    ];
    for (name, target) in &targets {
        drop(restore_and_compare(&stage, name, target, &[], &journal).await);
    }
    let id = find(&report, "backup_id").and_then(serde_json::Value::as_str).expect("a backup id").to_owned();
    let immediate = Target::Immediate(stop_lsn(&report));
    drop(restore_and_compare(&stage, "immediate", &immediate, &["--backup", &id], &journal).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_target_on_19() {
    every_kind_of_target(19, Plan { wal_segment_mib: 1, ..Plan::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_target_on_18() {
    every_kind_of_target(18, Plan::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_target_on_15_with_small_segments() {
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() };
    every_kind_of_target(15, plan).await;
}

async fn now(stage: &Stage) -> String {
    stage.cluster.value("SELECT clock_timestamp() AT TIME ZONE 'UTC' || '+00'").await.expect("ask for the time")
}

async fn insert(stage: &Stage, number: u32) {
    stage.cluster.sql(&format!("INSERT INTO t VALUES ({number})")).await.expect("write a row");
}

/// Two backups, and a gap in the WAL between them. A time before the first, in the gap, or after the end is refused
/// before anything is written, and the message has both windows; times in each of them are restored.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_target_time_is_refused() {
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    stage.cluster.sql("CREATE TABLE t (n int)").await.expect("make a table");
    let before = now(&stage).await;
    stage.ok(&["backup"]);
    insert(&stage, 1).await;
    let first = now(&stage).await;
    insert(&stage, 2).await;
    stage.archive_now().await;
    insert(&stage, 3).await;
    let lost = stage.cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await.expect("ask for the segment");
    let in_the_hole = now(&stage).await;
    insert(&stage, 4).await;
    stage.archive_now().await;
    insert(&stage, 5).await;
    stage.archive_now().await;
    let past_the_hole = now(&stage).await;
    let report = stage.json(&["backup"]);
    let second = find(&report, "backup_id").and_then(serde_json::Value::as_str).expect("a backup id").to_owned();
    insert(&stage, 6).await;
    let later = now(&stage).await;
    insert(&stage, 7).await;
    stage.archive_now().await;
    let after = now(&stage).await;
    let (object, _) = crate::stage::attack::wal_object(&stage, &lost).expect("the segment is archived");
    std::fs::remove_file(stage.repository_folder().join(object)).expect("lose the segment");
    // An old gap: in a young one, a segment might still be on its way.
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_mins(10);
    for name in crate::stage::attack::objects(&stage).into_keys().filter(|name| name.contains("/wal/")) {
        let file = std::fs::File::open(stage.repository_folder().join(name)).expect("open an object");
        file.set_modified(long_ago).expect("make it old");
    }

    let target = stage.target("refused").display().to_string();
    let hole = format!("error: WAL segment {lost} is missing on the way to time ");
    for (time, named, words) in [
        (&before, None, "is before the end of the oldest backup"),
        (&in_the_hole, None, hole.as_str()),
        (&past_the_hole, None, hole.as_str()),
        (&after, None, "is beyond the archived WAL, which ends at "),
        (&first, Some(&second), "which is consistent from "),
    ] {
        for plan in [&[][..], &["--plan"]] {
            let mut all = vec!["restore", "--pgdata", &target, "--target-time", time];
            all.extend_from_slice(plan);
            all.extend(named.iter().flat_map(|id| ["--backup", id.as_str()]));
            let (code, text) = stage.fails(&all);
            assert_eq!(code, 61, "{all:?}: {text}");
            assert!(text.contains(words) && text.contains("while: choosing a backup of main for time "), "{text}");
            let hint = text.split_once("hint:  what can be restored: ").map(|(_, hint)| hint).unwrap_or_default();
            assert_eq!(hint.matches("on timeline 1").count(), 2, "{all:?}: {text}");
            assert!(!std::path::Path::new(&target).exists(), "something was written");
        }
    }
    for (name, time, rows) in [("early", &first, "1"), ("late", &later, "1,2,3,4,5,6")] {
        let restored = stage.restore_and_start(name, &["--target-time", time, "--target-action", "promote"]).await;
        wait_promoted(&restored).await;
        let found = restored.value("SELECT string_agg(n::text, ',' ORDER BY n) FROM t").await.expect("read the rows");
        assert_eq!(found, rows, "{name}");
    }
}

/// A restored cluster archives into the same archive on a new timeline. Both timelines stay reachable.
async fn targets_across_a_switch_of_timelines(major: u16) {
    let plan = Plan { wal_segment_mib: 1, ..Plan::default() };
    let Some(mut stage) = Stage::start(major, plan).await else { return };
    let mut random = Random::of_this_run();
    let pace = Pace { payload_bytes: 1000, ..Pace::default() };
    let writer = RowWriter::start(&stage.cluster, pace).await.expect("start the writer");
    writer.wait_for_rows(30).await.expect("write rows");
    stage.ok(&["backup"]);
    let first = writer.journal().rows().len();
    writer.wait_for_rows(first as u64 + 200).await.expect("write rows");
    let old = writer.stop().await.expect("stop the writer");
    let old_end = insert_lsn(&stage.cluster).await;
    stage.archive_now().await;
    stage.cluster.stop(holdfast_testkit::postgres::Shutdown::Fast).await.expect("stop the old server");

    // The accident: back to a row in the middle, and from there on timeline 2, with archiving.
    let branch_row = first + 50 + random.index(100);
    let branch = Target::Xid(old.rows()[branch_row].xid, Bound::Inclusive);
    let target = stage.target("branch");
    let path = target.display().to_string();
    let mut arguments = vec!["restore".to_owned(), "--pgdata".to_owned(), path];
    arguments.extend(flags(&branch));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    stage.ok(&arguments);
    let mut restored = Cluster::adopt(&stage.installation, &target).expect("take over the restored folder");
    restored.start().await.unwrap_or_else(|e| panic!("{e}\n{}", restored.log_text()));
    wait_promoted(&restored).await;
    old.check(&branch, &found(&restored).await.expect("read the rows")).unwrap_or_else(|e| panic!("{e}"));
    let writer = RowWriter::continue_from(&restored, pace, &old).await.expect("continue writing");
    writer.wait_for_rows(branch_row as u64 + 200).await.expect("write rows");
    let new = writer.stop().await.expect("stop the writer");
    let new_end = insert_lsn(&restored).await;
    stage.cluster = restored;
    stage.archive_now().await;

    // `latest` follows the new timeline, also from the backup of the old one.
    drop(restore_and_compare(&stage, "new-latest", &Target::Latest(new_end), &[], &new).await);
    let late = row_between(&mut random, &new, branch_row + 20, new.rows().len() - 1);
    let time = Target::Time(late.commit_micros, Bound::Inclusive);
    drop(restore_and_compare(&stage, "new-time", &time, &[], &new).await);
    // The old timeline can still be chosen by its number.
    let old_latest = Target::Latest(old_end);
    drop(restore_and_compare(&stage, "old-latest", &old_latest, &["--target-timeline", "1"], &old).await);
    let lost = row_between(&mut random, &old, branch_row + 5, old.rows().len() - 1);
    let old_xid = Target::Xid(lost.xid, Bound::Inclusive);
    drop(restore_and_compare(&stage, "old-xid", &old_xid, &["--target-timeline", "1"], &old).await);
    // A backup of the new timeline works by itself.
    let config = stage.config_text().replace(
        &format!("pgdata = \"{}\"", old_pgdata(&stage)),
        &format!("pgdata = \"{}\"", stage.cluster.data().display()),
    );
    stage.write_config("holdfast.toml", &config);
    stage.ok(&["backup"]);
    drop(restore_and_compare(&stage, "new-backup", &Target::Latest(new_end), &[], &new).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_across_a_switch_of_timelines_on_18() {
    targets_across_a_switch_of_timelines(18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_across_a_switch_of_timelines_on_19() {
    targets_across_a_switch_of_timelines(19).await;
}

/// The data directory that the stage's configuration names.
fn old_pgdata(stage: &Stage) -> String {
    let text = stage.config_text();
    let line = text.lines().find_map(|line| line.strip_prefix("pgdata = \"")).expect("a pgdata line");
    line.trim_end_matches('"').to_owned()
}
