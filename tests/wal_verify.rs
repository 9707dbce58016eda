//! `holdfast wal verify` against real servers and S3: gaps are found, recorded, alarmed and healed; what is restored is
//! started and read.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::stage::attack::{age, objects, segment_path, wal_object};
use crate::stage::{Plan, Stage, wait_promoted};
use holdfast_testkit::postgres::{Cluster, Shutdown};
use holdfast_testkit::user::run_as_postgres;

const LIMIT: Duration = Duration::from_mins(3);

fn plan() -> Plan {
    // The server keeps what it has archived, so that it can give it back.
    Plan { wal_segment_mib: 1, settings: vec![("wal_keep_size", "512MB".to_owned())], ..Plan::default() }
}

/// Removes a segment from the bucket.
fn lose(stage: &Stage, segment: &str) {
    let (object, _) = wal_object(stage, segment).expect("the segment is archived");
    std::fs::remove_file(stage.repository_folder().join(object)).expect("lose the segment");
    age(stage);
}

/// The exit code, the report and standard error of `wal verify` with these flags.
fn verify(stage: &Stage, flags: &[&str]) -> (i32, Value, String) {
    let mut arguments = vec!["--output", "json", "wal", "verify"];
    arguments.extend_from_slice(flags);
    let output = stage.run(&arguments);
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let report = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}\n{error}"));
    (output.status.code().unwrap_or(-1), report, error.into_owned())
}

/// The findings, each as its kind, weight, file and count.
fn findings(report: &Value) -> Vec<(String, String, String, u64)> {
    let text = |finding: &Value, field: &str| finding[field].as_str().expect("a text").to_owned();
    let found = report["repositories"][0]["findings"].as_array().expect("findings").iter();
    found
        .map(|one| (text(one, "kind"), text(one, "weight"), text(one, "file"), one["count"].as_u64().expect("a count")))
        .collect()
}

fn gap(segment: &str, count: u64) -> (String, String, String, u64) {
    ("gap".to_owned(), "loss".to_owned(), segment.to_owned(), count)
}

/// The names of the entries about gaps in the ledger.
fn ledger(stage: &Stage) -> Vec<String> {
    let kind = |name: String| Some(name.split_once("/ledger/")?.1.split_once('-')?.1.to_owned());
    objects(stage).into_keys().filter_map(kind).filter(|kind| kind.starts_with("gap")).collect()
}

async fn insert(stage: &Stage, n: u32) {
    stage.cluster.sql(&format!("INSERT INTO t VALUES ({n})")).await.expect("insert a row");
}

/// Finishes the segment of the last row, and returns its name.
async fn archived(stage: &Stage) -> String {
    let segment = stage.cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await.expect("ask");
    stage.archive_now().await;
    segment
}

async fn time(stage: &Stage) -> String {
    // Between two transactions, whatever the resolution of the clock is.
    stage.cluster.value("SELECT clock_timestamp()::text FROM pg_sleep(0.02)").await.expect("ask for the time")
}

async fn rows(cluster: &Cluster) -> String {
    cluster.value("SELECT string_agg(n::text, ',' ORDER BY n) FROM t").await.expect("read the rows")
}

fn checked(stage: &Stage) -> (i32, String) {
    let output = stage.run(&["check"]);
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_found_alarmed_and_healed_from_the_living_server() {
    let Some(stage) = Stage::start(18, plan()).await else { return };
    stage.cluster.sql("CREATE TABLE t (n int)").await.expect("make a table");
    let (code, found) = checked(&stage);
    assert_eq!(code, 0, "{found}");
    assert!(
        found.contains("there is no complete backup, so nothing can be restored: run `holdfast backup`"),
        "{found}"
    );
    stage.ok(&["backup"]);
    insert(&stage, 1).await;
    let first = time(&stage).await;
    insert(&stage, 2).await;
    archived(&stage).await;
    insert(&stage, 3).await;
    let lost = archived(&stage).await;
    insert(&stage, 4).await;
    let later = time(&stage).await;
    insert(&stage, 5).await;
    archived(&stage).await;
    let (code, report, error) = verify(&stage, &["--deep"]);
    assert_eq!((code, findings(&report)), (0, Vec::new()), "{report:#}\n{error}");
    let compared = report["repositories"][0]["compared_count"].as_u64().expect("a count");
    assert!(compared >= 3, "{report:#}");
    let (code, found) = checked(&stage);
    assert!(code == 0 && found.contains("the end of backup ") && found.contains(", can be restored"), "{found}");

    lose(&stage, &lost);
    let (code, report, error) = verify(&stage, &[]);
    assert_eq!((code, findings(&report)), (45, vec![gap(&lost, 1)]), "{report:#}\n{error}");
    let finding = &report["repositories"][0]["findings"][0];
    assert!(finding["lost"][0]["from_time"].is_string() && finding["lost"][0]["until"].is_null(), "{finding:#}");
    assert!(error.contains("take a backup now: until then, nothing that happens can be restored"), "{error}");
    let (code, _, _) = verify(&stage, &[]);
    assert_eq!((code, ledger(&stage)), (45, vec!["gap.json".to_owned()]), "recorded once");

    let (code, found) = checked(&stage);
    assert_eq!(code, 3, "{found}");
    let alarm = format!("WAL segment {lost} is missing: no moment after ");
    assert!(found.contains("failed") && found.contains(&alarm), "{found}");
    assert!(found.contains("can be restored until the next backup: run `holdfast backup` now"), "{found}");
    let info = stage.ok(&["info"]);
    let reported = format!("    GAP       timeline 1: {lost} to {lost} (1) are missing, recorded ");
    assert!(info.contains(&reported), "{info}");

    // Later is refused before anything is written, earlier works.
    let target = stage.target("refused").display().to_string();
    for flags in [&["--target-time", &later][..], &[]] {
        let (code, error) = stage.fails(&[&["restore", "--pgdata", &target], flags].concat());
        assert_eq!(code, 61, "{error}");
        assert!(error.contains(&format!("error: WAL segment {lost} is missing on the way to ")), "{error}");
        assert!(error.contains("`holdfast wal verify --heal DIR` brings it back"), "{error}");
        assert!(!Path::new(&target).exists(), "something was written");
    }
    let early = ["--target-time", &first, "--target-action", "promote"];
    let restored = stage.restore_and_start("early", &early).await;
    wait_promoted(&restored).await;
    assert_eq!(rows(&restored).await, "1");
    drop(restored);

    // A folder that does not have it heals nothing.
    let empty = stage.scratch.folder("empty").expect("make a folder").display().to_string();
    let (code, report, _) = verify(&stage, &["--heal", &empty]);
    let left = &report["repositories"][0]["healing"]["left"];
    assert_eq!(
        (code, left[0]["file"].as_str(), left[0]["reason"].as_str()),
        (45, Some(&*lost), Some("no folder has it"))
    );
    let before = objects(&stage);
    let pg_wal = stage.cluster.data().join("pg_wal").display().to_string();
    let (code, report, error) = verify(&stage, &["--heal", &pg_wal]);
    assert_eq!((code, findings(&report)), (0, Vec::new()), "{report:#}\n{error}");
    assert_eq!(report["repositories"][0]["healing"]["healed"][0]["file"], lost.as_str(), "{report:#}");
    let after = objects(&stage);
    assert!(before.iter().all(|(name, file)| after.get(name) == Some(file)), "something was replaced");
    assert_eq!(ledger(&stage), ["gap.json", "gap-closed.json"].map(str::to_owned));
    let (code, report, error) = verify(&stage, &["--deep"]);
    assert_eq!((code, findings(&report)), (0, Vec::new()), "{report:#}\n{error}");
    assert_eq!(checked(&stage).0, 0);
    let info = stage.ok(&["info"]);
    assert!(!info.contains("GAP"), "{info}");
    let restored = stage.restore_and_start("all", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(rows(&restored).await, "1,2,3,4,5");
}

/// A gap that nothing can heal: a backup ends the alarm, `check` still tells the lost moments, and the next backup may
/// be incremental: it needs no WAL from before its start.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_ends_the_alarm_of_a_gap_that_stays() {
    let Some(stage) = Stage::start(17, plan()).await else { return };
    stage.cluster.sql("CREATE TABLE t (n int)").await.expect("make a table");
    stage.ok(&["backup"]);
    insert(&stage, 1).await;
    archived(&stage).await;
    insert(&stage, 2).await;
    let lost = archived(&stage).await;
    insert(&stage, 3).await;
    archived(&stage).await;
    lose(&stage, &lost);
    let (code, found) = checked(&stage);
    assert!(code == 3 && found.contains("run `holdfast backup` now"), "{found}");
    let report = stage.json(&["backup"]);
    assert_eq!(report["repositories"][0]["backup"]["type"], "incremental", "{report:#}");
    insert(&stage, 4).await;
    archived(&stage).await;
    age(&stage);
    let (code, found) = checked(&stage);
    let warning = format!("WAL segment {lost} is missing: no moment after ");
    assert!(code == 0 && found.contains("warning") && found.contains(&warning), "{found}");
    let (code, report, _) = verify(&stage, &[]);
    assert_eq!((code, findings(&report)), (45, vec![gap(&lost, 1)]), "{report:#}");
    assert!(report["repositories"][0]["findings"][0]["lost"][0]["until"]["backup"].is_string(), "{report:#}");
    let restored = stage.restore_and_start("all", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(rows(&restored).await, "1,2,3,4");
}

/// A promotion leaves a partial segment and two timelines. A segment from before it is missed by both, and the standby
/// that was promoted still has it.
#[tokio::test(flavor = "multi_thread")]
async fn timelines_are_followed_through_a_promotion() {
    let Some(mut stage) = Stage::start(18, plan()).await else { return };
    stage.cluster.sql("CREATE TABLE t (n int)").await.expect("make a table");
    let mut standby = Cluster::standby_of(&stage.cluster).await.expect("copy a standby");
    let command = format!("{} --config {} wal push %p", stage.holdfast.display(), stage.config.display());
    standby.override_setting("archive_mode", "on");
    standby.override_setting("archive_command", &command);
    standby.start().await.expect("start the standby");
    stage.ok(&["backup"]);
    insert(&stage, 1).await;
    archived(&stage).await;
    insert(&stage, 2).await;
    let lost = archived(&stage).await;
    insert(&stage, 3).await;
    archived(&stage).await;
    insert(&stage, 4).await;
    let lsn = stage.cluster.value("SELECT pg_current_wal_lsn()").await.expect("ask");
    let caught_up = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{lsn}', false)");
    standby.wait_for(&caught_up, LIMIT).await.unwrap_or_else(|e| panic!("{e}\n{}", standby.log_text()));
    stage.cluster.kill9().await.expect("kill the primary");
    let old = std::mem::replace(&mut stage.cluster, standby);
    stage.cluster.promote().await.expect("promote");
    insert(&stage, 5).await;
    archived(&stage).await;
    let own =
        stage.config_text().replace(&old.data().display().to_string(), &stage.cluster.data().display().to_string());
    stage.write_config("holdfast.toml", &own);

    let (code, report, error) = verify(&stage, &["--deep"]);
    assert_eq!(code, 0, "{report:#}\n{error}");
    let found = findings(&report);
    assert!(found.len() == 1 && found[0].0 == "partial" && found[0].1 == "remark", "{found:?}");
    let timelines = report["repositories"][0]["claims"][0]["timelines"].as_array().expect("timelines").len();
    assert_eq!(timelines, 2, "{report:#}");
    assert_eq!(checked(&stage).0, 0);

    lose(&stage, &lost);
    let history = objects(&stage).into_keys().find(|name| name.contains("/00000002.history.")).expect("a history");
    let (code, report, error) = verify(&stage, &[]);
    assert_eq!(code, 45, "{error}");
    assert_eq!(findings(&report)[0], gap(&lost, 1), "{report:#}");
    let lost_on = report["repositories"][0]["findings"][0]["lost"].as_array().expect("what is lost").len();
    assert_eq!(lost_on, 2, "both timelines need it: {report:#}");
    std::fs::remove_file(stage.repository_folder().join(history)).expect("lose the history");
    let (code, report, _) = verify(&stage, &[]);
    assert!(code == 45 && findings(&report).iter().any(|one| one.0 == "history-missing"), "{report:#}");
    let (code, found) = checked(&stage);
    assert!(code == 3 && found.contains("no backup leads to timeline 2, on which this server is"), "{found}");

    let pg_wal = stage.cluster.data().join("pg_wal").display().to_string();
    let (code, report, error) = verify(&stage, &["--heal", &pg_wal, "--deep"]);
    assert_eq!(code, 0, "{report:#}\n{error}");
    let healed = report["repositories"][0]["healing"]["healed"].as_array().expect("healed").len();
    assert_eq!(healed, 2, "{report:#}");
    assert_eq!(checked(&stage).0, 0);
    let restored = stage.restore_and_start("all", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(rows(&restored).await, "1,2,3,4,5");
}

/// Starts a copy of the stopped server without a recovery. It does not archive.
async fn copied(stage: &Stage) -> Cluster {
    let folder = stage.target("copy");
    let mut command = Command::new("cp");
    command.arg("-a").arg(stage.cluster.data()).arg(&folder);
    assert!(run_as_postgres(&mut command).expect("drop to PostgreSQL's user").status().expect("run cp").success());
    let mut copy = Cluster::adopt(&stage.installation, &folder).expect("take over the copy");
    copy.override_setting("archive_mode", "off");
    copy.start().await.unwrap_or_else(|e| panic!("{e}\n{}", copy.log_text()));
    copy
}

/// A copy that writes as much as its original, and ends its segments as often, has other transactions at the same
/// positions. What it has is of this cluster and has the right names, and it heals nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_writes_as_much_heals_nothing() {
    let Some(mut stage) = Stage::start(18, plan()).await else { return };
    stage.cluster.sql("CREATE TABLE t (n int)").await.expect("make a table");
    stage.ok(&["backup"]);
    insert(&stage, 1).await;
    archived(&stage).await;
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let copy = copied(&stage).await;
    stage.cluster.start().await.expect("start again");
    let mut own = Vec::new();
    for n in 2..=4 {
        insert(&stage, n).await;
        copy.sql(&format!("INSERT INTO t VALUES ({})", n + 10)).await.expect("insert another row");
        copy.sql("SELECT pg_switch_wal()").await.expect("switch");
        own.push(archived(&stage).await);
    }
    let (code, report, error) = verify(&stage, &["--deep"]);
    assert_eq!((code, findings(&report)), (0, Vec::new()), "{report:#}\n{error}");
    let lost = &own[1];
    lose(&stage, lost);
    let offered = copy.data().join("pg_wal");
    assert!(offered.join(lost).exists(), "the copy has a segment of this name");
    let before = objects(&stage);
    let (code, report, error) = verify(&stage, &["--heal", &offered.display().to_string(), "--no-record"]);
    assert_eq!((code, findings(&report)), (45, vec![gap(lost, 1)]), "{report:#}\n{error}");
    assert_eq!(report["repositories"][0]["healing"]["healed"], serde_json::json!([]), "{report:#}");
    assert!(objects(&stage) == before, "something was stored");
    let pg_wal = stage.cluster.data().join("pg_wal").display().to_string();
    let (code, report, error) = verify(&stage, &["--heal", &pg_wal, "--deep"]);
    assert_eq!((code, findings(&report)), (0, Vec::new()), "{report:#}\n{error}");
    let restored = stage.restore_and_start("all", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(rows(&restored).await, "1,2,3,4");
}

/// Two servers with one history, then a copy of the first that was started without a recovery, archive different
/// segments. No name is used twice, so no push is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_of_a_copied_server_is_found() {
    let Some(mut stage) = Stage::start(18, plan()).await else { return };
    stage.cluster.sql("CREATE TABLE t (n int); CREATE TABLE filler (text text)").await.expect("make tables");
    stage.ok(&["backup"]);
    insert(&stage, 1).await;
    archived(&stage).await;
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let copy = copied(&stage).await;
    let copied = stage.target("copy");
    stage.cluster.start().await.expect("start again");

    let fill = "INSERT INTO filler SELECT md5(random()::text) FROM generate_series(1, 20000)";
    let begun = stage.cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await.expect("ask");
    stage.cluster.sql(fill).await.expect("write");
    let between = archived(&stage).await;
    stage.cluster.sql(fill).await.expect("write");
    let end = archived(&stage).await;
    assert!(begun < end && between < end, "the first server fills segments of its own: {begun}, {between}, {end}");
    let size = stage.cluster.value("SELECT setting::int FROM pg_settings WHERE name = 'wal_segment_size'").await;
    assert_eq!(size.expect("ask"), "1048576");
    let past = format!("SELECT pg_walfile_name(pg_current_wal_lsn() - 2 * 1048576) > '{end}'");
    while copy.value(&past).await.expect("ask") != "t" {
        copy.sql(fill).await.expect("write");
    }
    // The copy has written past the end of the archive. Its next segment is pushed by hand.
    let next = format!("{}{:08X}", &end[..16], u32::from_str_radix(&end[16..], 16).expect("a number") + 1);
    let path = segment_path(&copied, &next).display().to_string();
    stage.ok(&["wal", "push", &path]);
    let (code, report, error) = verify(&stage, &["--deep"]);
    let expected = ("other-history".to_owned(), "loss".to_owned(), next.clone(), 1);
    assert_eq!((code, findings(&report)), (45, vec![expected]), "{report:#}\n{error}");
    let problem = report["repositories"][0]["findings"][0]["problem"].as_str().expect("a text");
    assert!(problem.starts_with(&format!("it does not continue {end}: ")), "{problem}");
    // The copy cannot heal what its original lost.
    lose(&stage, &end);
    let pg_wal = copied.join("pg_wal").display().to_string();
    let (code, report, error) = verify(&stage, &["--heal", &pg_wal]);
    let left = report["repositories"][0]["healing"]["left"][0]["reason"].as_str().unwrap_or_default();
    let is_other = left.contains(" differs from the archived one ") || left.contains(" does not continue ");
    assert!(code == 45 && is_other, "{report:#}\n{error}");
    assert_eq!(report["repositories"][0]["healing"]["healed"], serde_json::json!([]), "{report:#}");
}
