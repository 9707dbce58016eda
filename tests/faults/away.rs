//! An unreachable store: `archive_command` loses nothing, `restore_command` does not end recovery early, and a standby
//! waits.

use std::process::Command;
use std::time::{Duration, Instant};

use holdfast_testkit::postgres::{Cluster, Shutdown};
use holdfast_testkit::proxy::{Effect, Fault, HttpFaults, When};
use holdfast_testkit::rows::{Bound, Pace, RowWriter, Target, found};

use super::kit::{
    add_to_wal_table, holds, http_faults, no_divergence, no_gaps, small, stop, tcp_proxy, with_second_repository,
};
use crate::stage::attack::{back_up, fill_segments, load, objects, segment_path, segments, sum, wal_object};
use crate::stage::{Plan, Seal, Stage, StoreKind, wait_promoted};

/// The exit code "unreachable".
const UNREACHABLE: i32 = 24;
/// Added to a code if recovery reads it.
const FOR_RECOVERY: i32 = 128;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_away_under_the_archive_command_loses_nothing() {
    let Some(stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    let proxy = tcp_proxy(&stage);
    add_to_wal_table(&stage, "timeout = \"1s\"");
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    back_up(&stage);
    stage.archive_now().await;
    proxy.refuse();
    proxy.cut();
    fill_segments(&stage.cluster, 4).await;
    let failed = "SELECT failed_count >= 2 FROM pg_stat_archiver";
    stage.cluster.wait_for(failed, Duration::from_mins(3)).await.expect("archiving fails");
    let waiting = segments(stage.cluster.data(), "ready");
    assert!(waiting.len() >= 4, "PostgreSQL keeps what is not archived: {waiting:?}");
    // A checkpoint would remove them if PostgreSQL counted them as archived.
    stage.cluster.sql("CHECKPOINT").await.expect("checkpoint");
    let path = |segment: &String| segment_path(stage.cluster.data(), segment);
    assert!(waiting.iter().all(|segment| path(segment).exists()), "{waiting:?}");
    let (code, text) = stage.fails(&["wal", "push", &path(&waiting[0]).display().to_string()]);
    assert_eq!(code, UNREACHABLE, "{text}");
    assert!(text.contains("error: ") && text.contains("hint:  "), "{text}");
    assert!(waiting.iter().all(|segment| wal_object(&stage, segment).is_none()));

    proxy.resume();
    let written = stop(&stage, writer).await;
    stage.archive_now().await;
    assert!(waiting.iter().all(|segment| wal_object(&stage, segment).is_some()), "archiving catches up");
    no_gaps(&stage);
    no_divergence(&stage);
    let restored = stage.restore_and_start("restored", &[]).await;
    holds(&restored, &written).await;
}

/// Starts a restored server that should give up, and returns its log.
async fn gives_up(server: &mut Cluster) -> String {
    let before = server.log_text().len();
    server.spawn().expect("start PostgreSQL");
    let status = server.wait_exited(Duration::from_mins(3)).await.expect("PostgreSQL gives up");
    let log = server.log_text().get(before..).unwrap_or_default().to_owned();
    assert!(!status.success(), "{log}");
    assert!(!log.contains("archive recovery complete"), "recovery ended early:\n{log}");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_away_under_the_restore_command_never_ends_recovery_early() {
    let Some(stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    let proxy = http_faults(&stage);
    add_to_wal_table(&stage, "timeout = \"1s\"\nprefetch = 0");
    let pace = Pace { payload_bytes: 8000, ..Pace::default() };
    let writer = RowWriter::start(&stage.cluster, pace).await.expect("start the writer");
    writer.wait_for_rows(10).await.expect("write rows");
    back_up(&stage);
    let rows = writer.journal().rows().len() as u64;
    writer.wait_for_rows(rows + 1200).await.expect("write rows");
    let written = stop(&stage, writer).await;
    stage.archive_now().await;
    // Near the end, so that much WAL comes before it.
    let target = &written.journal.rows()[written.journal.rows().len() - 20];
    let xid = target.xid.to_string();
    let folder = stage.target("restored");
    let path = folder.display().to_string();
    stage.ok(&["restore", "--pgdata", &path, "--target-xid", &xid, "--target-action", "promote"]);
    let mut server = Cluster::adopt(&stage.installation, &folder).expect("take over the restored folder");
    server.override_setting("archive_mode", "off");

    // Unreachable from the beginning.
    let away = || Fault::new(Effect::LostRequest, When::Always);
    proxy.inject(away());
    let log = gives_up(&mut server).await;
    assert!(log.contains(&format!("exit code {}", FOR_RECOVERY + UNREACHABLE)), "{log}");
    // On the command line: "unknown"; for a standby, which asks again, an ordinary failure.
    let file = segments(stage.cluster.data(), "done").last().expect("an archived segment").clone();
    let destination = stage.scratch.path().join("by-hand").display().to_string();
    let (code, text) = stage.fails(&["wal", "get", &file, &destination]);
    assert_eq!(code, FOR_RECOVERY + UNREACHABLE, "{text}");
    let (code, text) = stage.fails(&["wal", "get", "--standby", &file, &destination]);
    assert_eq!(code, UNREACHABLE, "{text}");
    let (code, text) = stage.fails(&["wal", "get", "00000009.history", &destination]);
    assert_eq!(code, FOR_RECOVERY + UNREACHABLE, "a failed search does not mean absent: {text}");

    // Unreachable in the middle.
    proxy.clear();
    let slow = Fault::new(Effect::Delay(Duration::from_millis(150)), When::Always);
    proxy.inject(slow.method("GET").path_contains("/wal/"));
    let fetched = |proxy: &HttpFaults| {
        let wal = |path: &str| path.contains("/wal/") && !path.contains("history") && !path.contains("list-type");
        proxy.seen().iter().filter(|seen| seen.method == "GET" && wal(&seen.path)).count()
    };
    let before = fetched(&proxy);
    server.spawn().expect("start PostgreSQL");
    let began = Instant::now();
    while fetched(&proxy) < before + 4 {
        assert!(server.is_running() && began.elapsed() < Duration::from_mins(3), "{}", server.log_text());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.clear();
    proxy.inject(Fault::new(Effect::Status(503, "SlowDown"), When::Always));
    let status = server.wait_exited(Duration::from_mins(3)).await.expect("PostgreSQL gives up");
    assert!(!status.success() && !server.log_text().contains("archive recovery complete"), "{}", server.log_text());

    // Reachable again: the same server continues and reaches its target.
    proxy.clear();
    let (code, text) = stage.fails(&["wal", "get", "00000009.history", &destination]);
    assert_eq!(code, 1, "{text}");
    server.start().await.unwrap_or_else(|e| panic!("{e}\n{}", server.log_text()));
    wait_promoted(&server).await;
    let rows = found(&server).await.expect("read the rows");
    let target = Target::Xid(target.xid, Bound::Inclusive);
    written.journal.check(&target, &rows).unwrap_or_else(|e| panic!("{e}\n{}", server.log_text()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_outlives_a_store_that_is_away() {
    let Some(stage) = Stage::start(16, small(Seal::KeyFile)).await else { return };
    let proxy = http_faults(&stage);
    add_to_wal_table(&stage, "timeout = \"1s\"");
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    writer.wait_for_rows(10).await.expect("write rows");
    back_up(&stage);
    stage.archive_now().await;
    let standby = stage.restore_and_start("standby", &["--standby"]).await;
    // Only the standby's requests fail: the primary continues to archive.
    let before = proxy.hits();
    proxy.inject(Fault::new(Effect::Status(503, "SlowDown"), When::Always).method("GET"));
    let began = Instant::now();
    while proxy.hits() < before + 6 {
        assert!(began.elapsed() < Duration::from_mins(3), "the standby asks again and again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(standby.value("SELECT pg_is_in_recovery()").await.expect("ask the standby"), "t");
    proxy.clear();
    let written = stop(&stage, writer).await;
    stage.archive_now().await;
    let caught_up = format!("SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn >= {}", written.end);
    standby.wait_for(&caught_up, Duration::from_mins(3)).await.unwrap_or_else(|e| panic!("{e}"));
    let rows = found(&standby).await.expect("read the rows");
    written.journal.check(&Target::Latest(written.end), &rows).unwrap_or_else(|e| panic!("{e}"));
}

/// Runs a backup into two repositories, of which one fails; returns the exit code, the report and the messages.
fn backup_in_one(stage: &Stage) -> (i32, serde_json::Value, String) {
    let output = stage.run(&["--output", "json", "backup"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    for part in ["repositories", "failed"] {
        assert_eq!(report[part].as_array().map(Vec::len), Some(1), "{report}\n{said}");
    }
    assert_eq!(report["failed"][0]["code"], output.status.code().unwrap_or(-1), "{report}\n{said}");
    (output.status.code().unwrap_or(-1), report, said)
}

/// One of two repositories goes away while a backup is copied, or refuses: the other has the backup.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_goes_away_costs_its_own_backup_and_no_other() {
    let plan = Plan { compression: "none", ..small(Seal::KeyFile) };
    let Some(stage) = Stage::start(18, plan).await else { return };
    let proxy = http_faults(&stage);
    add_to_wal_table(&stage, "timeout = \"1s\"");
    with_second_repository(&stage);
    load(&stage.cluster).await;
    let sums = sum(&stage.cluster).await;
    stage.archive_now().await;
    let files = |folder: &str| objects(&stage).into_keys().filter(|name| name.contains(folder)).collect::<Vec<_>>();

    // It refuses the first pack, after everything before it was stored: what was stored is removed again.
    proxy.inject(Fault::new(Effect::Status(403, "AccessDenied"), When::Always).path_contains("/packs/").method("PUT"));
    proxy.inject(Fault::new(Effect::Status(403, "AccessDenied"), When::Always).path_contains("/packs/").method("POST"));
    let (code, report, said) = backup_in_one(&stage);
    let url = report["failed"][0]["repository"].as_str().expect("a repository").to_owned();
    assert_eq!(code, 22, "{said}");
    assert!(url.starts_with("s3://") && said.contains(&url), "{report}\n{said}");
    assert!(report["repositories"][0]["repository"].as_str().expect("a repository").starts_with("file://"), "{report}");
    assert_eq!((files("/packs/"), files("/backups/")), (vec![], vec![]));
    proxy.clear();

    // It goes away while it receives the first pack, and does not come back before the end.
    proxy.inject(Fault::new(Effect::Delay(Duration::from_secs(3)), When::Always).path_contains("/packs/"));
    let seen = proxy.seen().len();
    let runs = std::thread::scope(|scope| {
        let running = scope.spawn(|| backup_in_one(&stage));
        let began = Instant::now();
        while !proxy.seen().iter().skip(seen).any(|seen| seen.path.contains("/packs/")) {
            assert!(began.elapsed() < Duration::from_mins(3) && !running.is_finished(), "the backup sends nothing");
            std::thread::sleep(Duration::from_millis(20));
        }
        proxy.clear();
        proxy.inject(Fault::new(Effect::LostRequest, When::Always));
        running.join()
    });
    let (code, report, said) = runs.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(code, UNREACHABLE, "{said}");
    assert_eq!(report["failed"][0]["repository"], url.as_str(), "{report}");
    let id = report["repositories"][0]["backup"]["backup_id"].as_str().expect("an id").to_owned();
    assert!(said.contains(&format!("backup {id} is complete in file://")), "{said}");
    proxy.clear();

    // The other repository is enough.
    let target = stage.target("restored");
    stage.ok(&["restore", "--repo", "2", "--pgdata", &target.display().to_string()]);
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(sum(&restored).await, sums);

    // It is back: what is left of the failed run is removed, and both have the next backup.
    let whole = stage.json(&["backup"]);
    assert_eq!((whole["repositories"].as_array().map(Vec::len), &whole["failed"]), (Some(2), &serde_json::json!([])));
    assert!(files("/packs/").iter().all(|name| !name.contains(&id)), "{id} is still there");

    // A repository that cannot even be opened.
    std::fs::rename(stage.scratch.path().join("second"), stage.scratch.path().join("gone")).expect("take it away");
    let (_, report, _) = backup_in_one(&stage);
    assert!(report["failed"][0]["repository"].as_str().expect("a repository").starts_with("file://"), "{report}");
    assert_eq!(files("/backups/").iter().filter(|name| name.ends_with("backup.json")).count(), 2);

    // A new archive is not begun while a repository is away that might refuse this server.
    let text = stage.config_text().replace("name = \"main\"", "name = \"other\"");
    let config = stage.scratch.write_secret("other.toml", text).expect("write a configuration");
    let output = stage.command_with(&config, &["backup"]).output().expect("run holdfast");
    assert!(!output.status.success(), "{output:?}");
    let began = objects(&stage).into_keys().filter(|name| name.starts_with("other/")).collect::<Vec<_>>();
    assert_eq!(began, [""; 0], "{output:?}");
}

/// The archiver gets one more round when the server stops. A store that refuses connections must not delay that for
/// long.
#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_ends_without_the_store() {
    let Some(mut stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    load(&stage.cluster).await;
    back_up(&stage);
    stage.archive_now().await;
    stage.s3.as_mut().expect("a stage on S3").stop();
    fill_segments(&stage.cluster, 3).await;
    let expected = sum(&stage.cluster).await;
    stage.cluster.stop(Shutdown::Fast).await.expect("the server stops");
    let waiting = segments(stage.cluster.data(), "ready");
    assert!(waiting.len() >= 3, "{waiting:?}");

    stage.s3.as_mut().expect("a stage on S3").restart().expect("start the store again");
    assert!(waiting.iter().all(|segment| wal_object(&stage, segment).is_none()));
    stage.cluster.start().await.expect("start the server again");
    stage.archive_now().await;
    assert!(waiting.iter().all(|segment| wal_object(&stage, segment).is_some()), "{waiting:?}");
    no_gaps(&stage);
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(sum(&restored).await, expected);
}

/// How a store fails that still accepts connections.
#[derive(Clone, Copy)]
enum Fails {
    /// It resets them.
    Resets,
    /// It accepts data, and never answers.
    IsSilent,
}

/// Stops a server whose store fails; a push may have begun before. `pg_ctl` waits for a minute, and the archiver may
/// try six times. Nothing is lost.
async fn a_fast_shutdown_ends(fails: Fails) {
    let Some(mut stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    let proxy = tcp_proxy(&stage);
    add_to_wal_table(&stage, "timeout = \"10m\"");
    load(&stage.cluster).await;
    back_up(&stage);
    stage.archive_now().await;
    match fails {
        Fails::Resets => {
            proxy.refuse();
            proxy.cut();
        }
        Fails::IsSilent => proxy.stall(),
    }
    fill_segments(&stage.cluster, 3).await;
    let expected = sum(&stage.cluster).await;
    let began = Instant::now();
    stage.cluster.stop(Shutdown::Fast).await.expect("the server stops");
    assert!(began.elapsed() < Duration::from_mins(1), "the stop took {:?}", began.elapsed());
    let waiting = segments(stage.cluster.data(), "ready");
    assert!(waiting.len() >= 3, "{waiting:?}");

    proxy.resume();
    stage.cluster.start().await.expect("start the server again");
    stage.archive_now().await;
    assert!(waiting.iter().all(|segment| wal_object(&stage, segment).is_some()), "{waiting:?}");
    no_gaps(&stage);
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(sum(&restored).await, expected);
}

/// Requests to a store that resets connections are repeated up to twelve times, for half a minute; by a stopping
/// server's archiver only for some seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_ends_with_a_store_that_resets_connections() {
    a_fast_shutdown_ends(Fails::Resets).await;
}

/// A request without an answer is waited for up to two minutes; by a stopping server's archiver only for some seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_ends_with_a_store_that_never_answers() {
    a_fast_shutdown_ends(Fails::IsSilent).await;
}

/// A repository on a network mount whose server is gone: system calls do not return. Opening a FIFO does the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_ends_with_a_directory_that_never_answers() {
    let plan = Plan { store: StoreKind::Directory, ..small(Seal::KeyFile) };
    let Some(mut stage) = Stage::start(18, plan).await else { return };
    add_to_wal_table(&stage, "timeout = \"10m\"");
    load(&stage.cluster).await;
    back_up(&stage);
    stage.archive_now().await;
    let record = stage.repository_folder().join("holdfast.json");
    let aside = stage.scratch.path().join("holdfast.json.aside");
    std::fs::rename(&record, &aside).expect("move the record aside");
    let made = Command::new("mkfifo").args(["-m", "666"]).arg(&record).status().expect("run mkfifo");
    assert!(made.success(), "{made}");
    fill_segments(&stage.cluster, 3).await;
    let expected = sum(&stage.cluster).await;
    let began = Instant::now();
    stage.cluster.stop(Shutdown::Fast).await.expect("the server stops");
    assert!(began.elapsed() < Duration::from_mins(1), "the stop took {:?}", began.elapsed());
    let log = stage.cluster.log_text();
    assert!(log.contains(&format!("exit code {UNREACHABLE}")), "{log}");
    let waiting = segments(stage.cluster.data(), "ready");
    assert!(waiting.len() >= 3, "{waiting:?}");

    std::fs::remove_file(&record).expect("remove the FIFO");
    std::fs::rename(&aside, &record).expect("bring the record back");
    stage.cluster.start().await.expect("start the server again");
    stage.archive_now().await;
    assert!(waiting.iter().all(|segment| wal_object(&stage, segment).is_some()), "{waiting:?}");
    no_gaps(&stage);
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(sum(&restored).await, expected);
}

/// A segment that was fetched ahead is delivered while the store is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_in_the_spool_needs_no_store() {
    let Some(stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    let proxy = tcp_proxy(&stage);
    add_to_wal_table(&stage, "timeout = \"1s\"");
    back_up(&stage);
    fill_segments(&stage.cluster, 6).await;
    stage.archive_now().await;
    let target = stage.target("restored");
    stage.ok(&["restore", "--pgdata", &target.display().to_string()]);
    let archived = segments(stage.cluster.data(), "done");
    let wanted = archived.get(archived.len() - 4..).expect("four segments");
    let destination = target.join("pg_wal/RECOVERYXLOG").display().to_string();
    stage.ok(&["wal", "get", &wanted[0], &destination]);
    proxy.refuse();
    proxy.cut();
    stage.ok(&["wal", "get", &wanted[1], &destination]);
    let report = stage.json(&["wal", "get", &wanted[2], &destination]);
    assert_eq!((&report["source"], &report["file"]), (&"spool".into(), &wanted[2].as_str().into()), "{report}");
    let (is, was) = (std::fs::read(&destination), std::fs::read(segment_path(stage.cluster.data(), &wanted[2])));
    assert!(is.expect("read the segment") == was.expect("read the original"));
    // No repository is even opened: without its key it could not be.
    let (key, gone) = (stage.scratch.path().join("key"), stage.scratch.path().join("key.gone"));
    std::fs::rename(&key, &gone).expect("take the key away");
    assert!(!stage.run(&["list"]).status.success(), "the repository can be opened without its key");
    let report = stage.json(&["wal", "get", &wanted[3], &destination]);
    assert_eq!(report["source"], "spool", "{report}");
    std::fs::rename(&gone, &key).expect("bring the key back");
    // Whether other segments exist is unknown.
    let (code, text) = stage.fails(&["wal", "get", "0000000100000000000000FF", &destination]);
    assert_eq!(code, FOR_RECOVERY + UNREACHABLE, "{text}");
}
