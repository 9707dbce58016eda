//! Bad networks, stores that go away, full disks and two writers at once, between `holdfast` and a real store: what was
//! acknowledged is there, nothing is written twice, no wrong byte is handed over, and doubt is never reported as absence.

#![expect(clippy::expect_used, clippy::panic, reason = "a failed set-up fails the test")]

mod stage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_testkit::disk::SmallDisk;
use holdfast_testkit::postgres::Cluster;
use holdfast_testkit::proxy::{Effect, Fault, HttpFaults, TcpProxy, When};
use holdfast_testkit::rows::{Bound, Journal, Pace, RowWriter, Target, found};
use stage::attack::{
    Dice, Victim, back_up, complete, fill_segments, ids_in_store, insert_lsn, load, objects, segment_path, segments,
    sum, wal_object,
};
use stage::{Plan, Seal, Stage, StoreKind, wait_promoted};

/// The exit code "diverged".
const DIVERGED: i32 = 44;
/// The exit code "no-space".
const NO_SPACE: i32 = 30;
/// The exit code "unreachable".
const UNREACHABLE: i32 = 24;
/// Added to a code where recovery reads it.
const FOR_RECOVERY: i32 = 128;

fn small(seal: Seal) -> Plan {
    Plan { seal, compression: "zstd:1", wal_segment_mib: 1, ..Plan::default() }
}

/// A server that makes segments ready and never archives one by itself.
fn unarchived(store: StoreKind, seal: Seal) -> Plan {
    let settings = vec![("archive_mode", "on".to_owned()), ("archive_command", "/bin/false".to_owned())];
    Plan { store, archive: false, settings, ..small(seal) }
}

/// Lets the server archive through holdfast from now on.
async fn archive(stage: &Stage) {
    let command = format!("{} --config {} wal push %p", stage.holdfast.display(), stage.config.display());
    stage.cluster.set("archive_command", &command).expect("set the archive command");
    stage.cluster.reload().await.expect("reload");
}

/// Leads the stage's S3 requests, those of its server's `archive_command` too, to another address.
fn lead_to(stage: &Stage, endpoint: &str) {
    let s3 = stage.s3.as_ref().expect("a stage on S3");
    stage.write_config("holdfast.toml", &stage.config_text().replace(&s3.endpoint(), endpoint));
}

fn http_faults(stage: &Stage) -> HttpFaults {
    let proxy = HttpFaults::start(stage.s3.as_ref().expect("a stage on S3").address()).expect("start a proxy");
    lead_to(stage, &proxy.endpoint());
    proxy
}

fn tcp_proxy(stage: &Stage) -> TcpProxy {
    let proxy = TcpProxy::start(stage.s3.as_ref().expect("a stage on S3").address()).expect("start a proxy");
    lead_to(stage, &proxy.endpoint());
    proxy
}

/// Adds lines to the `[wal]` table, which is the last one of the stage's configuration.
fn add_to_wal_table(stage: &Stage, lines: &str) {
    let text = stage.config_text();
    stage.write_config("holdfast.toml", &format!("{text}{lines}\n"));
}

/// A writer's rows, with the LSN at which they end.
struct Written {
    journal: Journal,
    end: u64,
}

async fn stop(stage: &Stage, writer: RowWriter) -> Written {
    let journal = writer.stop().await.expect("stop the writer");
    Written { journal, end: insert_lsn(&stage.cluster).await }
}

async fn holds(restored: &Cluster, written: &Written) {
    wait_promoted(restored).await;
    let rows = found(restored).await.expect("read the rows");
    let target = Target::Latest(written.end);
    written.journal.check(&target, &rows).unwrap_or_else(|e| panic!("{e}\n{}", restored.log_text()));
}

/// No push met other content than its own: nothing of it in the ledger, nothing in the server's log.
fn no_divergence(stage: &Stage) {
    let ledger: Vec<String> = objects(stage).into_keys().filter(|name| name.contains("/ledger/")).collect();
    assert!(ledger.is_empty(), "{ledger:?}");
    let log = stage.cluster.log_text();
    assert!(!log.contains("other content"), "{log}");
}

fn no_gaps(stage: &Stage) {
    let listed = stage.json(&["wal", "list"]);
    let gaps = &listed["repositories"][0]["claims"][0]["timelines"][0]["gaps"];
    assert_eq!(gaps, &serde_json::json!([]), "{listed}");
}

/// The files of a restored directory that are the backup's, with their content.
fn content(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let own = ["postgresql.auto.conf", "backup_manifest", "recovery.signal"];
    let names = stage::attack::files_below(root).into_keys().filter(|name| !own.contains(&name.as_str()));
    names.map(|name| (name.clone(), std::fs::read(root.join(&name)).expect("read a restored file"))).collect()
}

// ---------------------------------------------------------------------------------------------------------------------
// Answers and requests that get lost
// ---------------------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_are_neither_doubles_nor_divergence() {
    let Some(stage) = Stage::start(18, unarchived(StoreKind::S3, Seal::KeyFile)).await else { return };
    let part_size = stage.config_text().replace("path_style = true\n", "path_style = true\npart_size = \"5MiB\"\n");
    stage.write_config("holdfast.toml", &part_size);
    let proxy = http_faults(&stage);
    let lost = |when| Fault::new(Effect::LostAnswer, when);
    // The first segments.
    proxy.inject(lost(When::First(3)).method("PUT").path_contains("/wal/"));
    archive(&stage).await;
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    load(&stage.cluster).await;
    stage.archive_now().await;
    assert_eq!(proxy.hits(), 3, "{:?}", proxy.seen());
    proxy.clear();
    // Every kind of write that a backup does.
    let kinds = [
        ("PUT", "start.json"),
        ("POST", "?uploads"),
        ("PUT", "partNumber="),
        ("POST", "uploadId="),
        ("PUT", "/manifest"),
        ("PUT", "backup.json"),
    ];
    for (method, path) in kinds {
        proxy.inject(lost(When::First(1)).method(method).path_contains(path));
    }
    let before = proxy.hits();
    let id = back_up(&stage);
    let seen: Vec<_> = proxy.seen().into_iter().filter(|seen| seen.effect.is_some()).collect();
    assert_eq!(proxy.hits() - before, kinds.len(), "{seen:?}");
    assert_eq!(complete(&stage).into_iter().collect::<Vec<_>>(), [id]);
    assert_eq!(ids_in_store(&stage), complete(&stage));
    proxy.clear();
    // A third of everything.
    proxy.inject(lost(When::EveryNth(3)));
    let rows = writer.journal().rows().len() as u64;
    writer.wait_for_rows(rows + 50).await.expect("write rows");
    back_up(&stage);
    let written = stop(&stage, writer).await;
    stage.archive_now().await;
    let restored = stage.restore_and_start("restored", &[]).await;
    holds(&restored, &written).await;
    proxy.clear();
    assert_eq!(complete(&stage).len(), 2);
    no_divergence(&stage);
    no_gaps(&stage);
    stage.ok(&["check"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_and_lost_requests_are_survived() {
    let Some(stage) = Stage::start(17, small(Seal::Passphrase)).await else { return };
    let mut dice = Dice::new();
    let proxy = http_faults(&stage);
    proxy.inject(Fault::new(Effect::Status(503, "SlowDown"), When::EveryNth(4)));
    proxy.inject(Fault::new(Effect::Status(500, "InternalError"), When::EveryNth(7)));
    let chance = When::Chance { per_mille: 150, seed: dice.below(u64::MAX) };
    proxy.inject(Fault::new(Effect::LostRequest, chance));
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    load(&stage.cluster).await;
    back_up(&stage);
    let rows = writer.journal().rows().len() as u64;
    writer.wait_for_rows(rows + 50).await.expect("write rows");
    let written = stop(&stage, writer).await;
    stage.archive_now().await;
    let restored = stage.restore_and_start("restored", &[]).await;
    holds(&restored, &written).await;
    assert!(proxy.hits() > 20, "{}", proxy.hits());
    no_divergence(&stage);
    no_gaps(&stage);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_and_cut_connections_are_survived() {
    let Some(stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    let proxy = tcp_proxy(&stage);
    proxy.set_latency(Duration::from_millis(20));
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    load(&stage.cluster).await;
    let mut victim = Victim::start(&stage, &["backup"]);
    let began = Instant::now();
    while victim.is_running() {
        // Often enough to meet every phase, and with pauses in which something succeeds.
        tokio::time::sleep(Duration::from_millis(250)).await;
        if began.elapsed() < Duration::from_secs(4) {
            proxy.cut();
        }
    }
    let ended = victim.wait();
    if !ended.status.success() {
        // `s3s-fs` gives a multipart upload up when the connection is cut while it puts the parts together; the request
        // that comes again meets an upload that it does not know, which it calls a lack of permission. Then nothing may
        // be left, and the next backup works.
        assert!(ended.stderr.contains("complete the upload"), "{ended:?}");
        assert!(complete(&stage).is_empty() && ids_in_store(&stage).is_empty(), "{:?}", ids_in_store(&stage));
        back_up(&stage);
    }
    let written = stop(&stage, writer).await;
    stage.archive_now().await;
    let target = stage.target("restored");
    let mut victim = Victim::start(&stage, &["restore", "--pgdata", &target.display().to_string()]);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        proxy.cut();
    }
    // Nothing comes for a while, and then everything.
    proxy.stall();
    tokio::time::sleep(Duration::from_millis(500)).await;
    proxy.resume();
    assert!(victim.runs_until(|| false).await || !victim.is_running());
    let ended = victim.wait();
    assert!(ended.status.success(), "{ended:?}");
    let restored = stage.start_restored(&target).await;
    holds(&restored, &written).await;
    no_divergence(&stage);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_restarts_in_the_middle_of_a_backup_is_waited_for() {
    let Some(mut stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    load(&stage.cluster).await;
    stage.archive_now().await;
    let expected = sum(&stage.cluster).await;
    let mut victim = Victim::start(&stage, &["backup"]);
    let folder = stage.repository_folder().join("main/backups");
    let begun = || stage::attack::files_below(&folder).keys().any(|name| name.ends_with("start.json"));
    assert!(victim.runs_until(begun).await, "the backup begins: {:?}", victim.wait());
    let s3 = stage.s3.as_mut().expect("a stage on S3");
    s3.stop();
    tokio::time::sleep(Duration::from_secs(2)).await;
    s3.restart().expect("start the store again");
    let ended = victim.wait();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(complete(&stage).len(), 1);
    assert_eq!(complete(&stage), ids_in_store(&stage));
    stage.archive_now().await;
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(sum(&restored).await, expected);
    no_divergence(&stage);
}

// ---------------------------------------------------------------------------------------------------------------------
// Answers that are wrong
// ---------------------------------------------------------------------------------------------------------------------

/// The codes of damage: corrupt, truncated, swapped; and those of a configuration or an answer that makes no sense.
fn is_damage(code: i32) -> bool {
    (40..=43).contains(&code) || [11, 12, 14, 17, 24, 25, 60, 61].contains(&code)
}

async fn damaged_answers(major: u16, seal: Seal) {
    let Some(stage) = Stage::start(major, small(seal)).await else { return };
    let mut dice = Dice::new();
    let proxy = http_faults(&stage);
    load(&stage.cluster).await;
    back_up(&stage);
    stage.archive_now().await;
    let clean = stage.target("clean");
    stage.ok(&["restore", "--pgdata", &clean.display().to_string()]);
    let expected = content(&clean);

    // Once, or now and then: mended by asking again, or an error. Never another content.
    let mut restored = 0;
    for round in 0..7 {
        let at = dice.below(200_000);
        let (effect, when, path) = match round {
            0 => (Effect::TruncatedBody(at), When::First(2), "/packs/"),
            1 => (Effect::TruncatedBody(dice.below(400)), When::EveryNth(3), ""),
            2 => (Effect::FlippedBit(at), When::Nth(1), "/packs/"),
            3 => (Effect::FlippedBit(dice.below(5_000_000)), When::Nth(2), "/packs/"),
            4 => (Effect::FlippedBit(dice.below(3000)), When::Nth(1), "/manifest"),
            5 => (Effect::FlippedBit(dice.below(300)), When::Nth(1 + dice.below(8)), ""),
            _ => (Effect::FlippedBit(at), When::Always, "/packs/"),
        };
        let what = format!("round {round}: {effect:?} {when:?} {path:?}");
        let truncated = matches!(effect, Effect::TruncatedBody(_));
        proxy.clear();
        proxy.inject(Fault::new(effect, when).method("GET").path_contains(path));
        let target = stage.target(&format!("damaged-{round}"));
        let output = stage.run(&["restore", "--pgdata", &target.display().to_string()]);
        let (code, text) = (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr));
        eprintln!("{what}: {code}");
        if code == 0 {
            restored += 1;
            let differing = differing(&expected, &content(&target));
            assert!(differing.is_empty(), "{what}: wrong content in {differing:?}");
        } else {
            assert!(is_damage(code), "{what}: {code}\n{text}");
            assert!(!target.join("global/pg_control").exists(), "{what}: a failed restore has a control file");
            assert!(!truncated, "{what}: an interrupted answer is asked for again: {text}");
        }
        assert!(round < 6 || code != 0, "{what}: data that is always damaged cannot be restored");
    }
    assert!(restored >= 2, "only {restored} restores succeeded");

    // WAL: the right bytes, or a status that stops recovery; and never "absent".
    add_to_wal_table(&stage, "timeout = \"2s\"\nprefetch = 0");
    proxy.clear();
    let segment = segments(stage.cluster.data(), "done").last().expect("an archived segment").clone();
    let original = std::fs::read(segment_path(stage.cluster.data(), &segment)).expect("read the segment");
    let size = wal_object(&stage, &segment).expect("its object").1.size_bytes;
    let folder = stage.scratch.folder("fetched").expect("make a folder");
    let mut fetched = 0;
    for round in 0..10 {
        let at = dice.below(size);
        let (effect, when) = match round {
            0 => (Effect::TruncatedBody(at), When::First(2)),
            1 => (Effect::TruncatedBody(at), When::Always),
            2 => (Effect::FlippedBit(at), When::First(1)),
            3 => (Effect::Status(404, "NoSuchBucket"), When::Always),
            4 => (Effect::Status(403, "AccessDenied"), When::Always),
            _ => (Effect::FlippedBit(dice.below(size)), When::Always),
        };
        let what = format!("round {round}: {effect:?} {when:?}");
        proxy.clear();
        proxy.inject(Fault::new(effect, when).method("GET").path_contains("/wal/"));
        let destination = folder.join(format!("{segment}-{round}"));
        let output = stage.run(&["wal", "get", &segment, &destination.display().to_string()]);
        let (code, text) = (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr));
        eprintln!("{what}: {code}");
        if code == 0 {
            fetched += 1;
            let bytes = std::fs::read(&destination).expect("read what was fetched");
            assert!(bytes == original, "{what}: wrong bytes were handed over");
        } else {
            assert!(code > 125 && code != 143, "{what}: {code} would end recovery early: {text}");
            assert!(!destination.exists(), "{what}: a failed fetch leaves a file");
        }
        let mended = round == 0 || round == 2;
        assert!(code == 0 || !mended, "{what}: what went wrong on the way is asked for again: {text}");
        assert!(code != 0 || mended, "{what}: must fail");
    }
    assert!(fetched >= 1);
}

fn differing(expected: &BTreeMap<String, Vec<u8>>, found: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let names = expected.keys().chain(found.keys());
    names.filter(|name| expected.get(*name) != found.get(*name)).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_answers_are_never_handed_over() {
    damaged_answers(18, Seal::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_answers_are_never_handed_over_encrypted() {
    damaged_answers(14, Seal::KeyFile).await;
}

// ---------------------------------------------------------------------------------------------------------------------
// A store that is away
// ---------------------------------------------------------------------------------------------------------------------

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
    stage.cluster.wait_for(failed, Duration::from_secs(30)).await.expect("archiving fails");
    let waiting = segments(stage.cluster.data(), "ready");
    assert!(waiting.len() >= 4, "PostgreSQL keeps what is not archived: {waiting:?}");
    // A checkpoint would remove them if PostgreSQL held them for archived.
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

/// Starts a restored server that is expected to give up, and returns its log.
async fn gives_up(server: &mut Cluster) -> String {
    let before = server.log_text().len();
    server.spawn().expect("start PostgreSQL");
    let status = server.wait_exited(Duration::from_mins(1)).await.expect("PostgreSQL gives up");
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
    // Towards the end, so that much WAL lies before it.
    let target = &written.journal.rows()[written.journal.rows().len() - 20];
    let xid = target.xid.to_string();
    let folder = stage.target("restored");
    let path = folder.display().to_string();
    stage.ok(&["restore", "--pgdata", &path, "--target-xid", &xid, "--target-action", "promote"]);
    let mut server = Cluster::adopt(&stage.installation, &folder).expect("take over the restored folder");
    server.override_setting("archive_mode", "off");

    // Away from the beginning.
    let away = || Fault::new(Effect::LostRequest, When::Always);
    proxy.inject(away());
    let log = gives_up(&mut server).await;
    assert!(log.contains(&format!("exit code {}", FOR_RECOVERY + UNREACHABLE)), "{log}");
    // By hand: a doubt, and for a standby, which asks again, an ordinary failure.
    let file = segments(stage.cluster.data(), "done").last().expect("an archived segment").clone();
    let destination = stage.scratch.path().join("by-hand").display().to_string();
    let (code, text) = stage.fails(&["wal", "get", &file, &destination]);
    assert_eq!(code, FOR_RECOVERY + UNREACHABLE, "{text}");
    let (code, text) = stage.fails(&["wal", "get", "--standby", &file, &destination]);
    assert_eq!(code, UNREACHABLE, "{text}");
    let (code, text) = stage.fails(&["wal", "get", "00000009.history", &destination]);
    assert_eq!(code, FOR_RECOVERY + UNREACHABLE, "what nobody can look for is not absent: {text}");

    // Away in the middle.
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
        assert!(server.is_running() && began.elapsed() < Duration::from_secs(30), "{}", server.log_text());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.clear();
    proxy.inject(Fault::new(Effect::Status(503, "SlowDown"), When::Always));
    let status = server.wait_exited(Duration::from_mins(1)).await.expect("PostgreSQL gives up");
    assert!(!status.success() && !server.log_text().contains("archive recovery complete"), "{}", server.log_text());

    // Back: the same server goes on and comes to its target.
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
    // Only what the standby asks for: the primary goes on archiving.
    let before = proxy.hits();
    proxy.inject(Fault::new(Effect::Status(503, "SlowDown"), When::Always).method("GET"));
    let began = Instant::now();
    while proxy.hits() < before + 6 {
        assert!(began.elapsed() < Duration::from_secs(30), "the standby asks again and again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(standby.value("SELECT pg_is_in_recovery()").await.expect("ask the standby"), "t");
    proxy.clear();
    let written = stop(&stage, writer).await;
    stage.archive_now().await;
    let caught_up = format!("SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn >= {}", written.end);
    standby.wait_for(&caught_up, Duration::from_secs(45)).await.unwrap_or_else(|e| panic!("{e}"));
    let rows = found(&standby).await.expect("read the rows");
    written.journal.check(&Target::Latest(written.end), &rows).unwrap_or_else(|e| panic!("{e}"));
}

// ---------------------------------------------------------------------------------------------------------------------
// Disks that are full
// ---------------------------------------------------------------------------------------------------------------------

/// Takes all room of a disk but this.
fn fill(disk: &SmallDisk, left: u64) -> PathBuf {
    let path = disk.path().join("filler");
    let free = disk.free_bytes().expect("ask for the free bytes");
    let zeros = vec![0_u8; usize::try_from(free.saturating_sub(left)).expect("a small disk")];
    std::fs::write(&path, zeros).expect("fill the disk");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_on_a_full_disk_fails_cleanly() {
    let Some(disk) = SmallDisk::or_skip(24 << 20) else { return };
    let plan = Plan { compression: "none", wal_compression: "none", ..unarchived(StoreKind::Directory, Seal::None) };
    let Some(stage) = Stage::start(18, plan).await else { return };
    let folder = stage.repository_folder();
    let repository = disk.path().join("repository");
    let text = stage.config_text().replace(&folder.display().to_string(), &repository.display().to_string());
    stage.write_config("holdfast.toml", &text);
    add_to_wal_table(&stage, "push_ahead = 1");
    stage.ok(&["repo", "init"]);
    load(&stage.cluster).await;
    fill_segments(&stage.cluster, 2).await;
    let ready = segments(stage.cluster.data(), "ready");
    let path = segment_path(stage.cluster.data(), &ready[0]).display().to_string();
    let other = segment_path(stage.cluster.data(), &ready[1]).display().to_string();
    stage.ok(&["wal", "push", &path]);
    let before = disk.free_bytes().expect("ask for the free bytes");
    let stored = stage::attack::files_below(&repository);

    let (code, text) = stage.fails(&["backup"]);
    assert_eq!(code, NO_SPACE, "{text}");
    assert!(text.contains("error: ") && text.contains("hint:  "), "{text}");
    assert!(complete(&stage).is_empty());
    let left = stage::attack::files_below(&repository);
    assert_eq!(left.keys().collect::<Vec<_>>(), stored.keys().collect::<Vec<_>>(), "remains of the failed backup");
    let after = disk.free_bytes().expect("ask for the free bytes");
    assert!(after + (64 << 10) >= before, "{before} bytes were free, {after} are");

    let filler = fill(&disk, 100 << 10);
    let (code, text) = stage.fails(&["wal", "push", &other]);
    assert_eq!(code, NO_SPACE, "{text}");
    let left = stage::attack::files_below(&repository);
    assert_eq!(left.keys().collect::<Vec<_>>(), stored.keys().collect::<Vec<_>>(), "a part of a segment");
    std::fs::remove_file(filler).expect("make room");
    stage.ok(&["wal", "push", &other]);
    let fetched = stage.scratch.path().join("fetched");
    stage.ok(&["wal", "get", &ready[1], &fetched.display().to_string()]);
    assert!(std::fs::read(fetched).expect("read") == std::fs::read(other).expect("read"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_onto_a_full_disk_fails_cleanly_and_resumes_with_room() {
    let Some(disk) = SmallDisk::or_skip(160 << 20) else { return };
    let plan = Plan { store: StoreKind::Directory, wal_segment_mib: 16, ..small(Seal::KeyFile) };
    let Some(stage) = Stage::start(18, plan).await else { return };
    load(&stage.cluster).await;
    let expected = sum(&stage.cluster).await;
    back_up(&stage);
    stage.archive_now().await;
    let filler = fill(&disk, 20 << 20);
    let target = disk.path().join("restored");
    let path = target.display().to_string();
    for _ in 0..2 {
        let (code, text) = stage.fails(&["restore", "--pgdata", &path]);
        assert_eq!(code, NO_SPACE, "{text}");
        assert!(text.contains("make room"), "{text}");
        assert!(!target.join("global/pg_control").exists());
    }
    std::fs::remove_file(filler).expect("make room");
    let report = stage.json(&["restore", "--pgdata", &path]);
    assert_eq!(report["target_state"].as_str(), Some("resumed"), "{report}");
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(sum(&restored).await, expected);
}

/// Without room for marks a push is still right: what it says is stored is stored, and no mark speaks for what is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_spool_on_a_full_disk_makes_no_false_success() {
    let Some(disk) = SmallDisk::or_skip(4 << 20) else { return };
    let Some(stage) = Stage::start(18, unarchived(StoreKind::S3, Seal::KeyFile)).await else { return };
    let spool = disk.path().join("spool");
    let text = stage
        .config_text()
        .replace(&stage.scratch.path().join("spool").display().to_string(), &spool.display().to_string());
    stage.write_config("holdfast.toml", &text);
    fill_segments(&stage.cluster, 8).await;
    let filler = fill(&disk, 0);
    let ready = segments(stage.cluster.data(), "ready");
    for segment in ready.iter().take(4) {
        let path = segment_path(stage.cluster.data(), segment).display().to_string();
        let output = stage.run(&["wal", "push", &path]);
        let (code, text) = (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr));
        assert_eq!(code, 0, "a push works without its spool: {text}");
        assert!(wal_object(&stage, segment).is_some(), "{segment} was acknowledged and is not stored: {text}");
    }
    // Fetching works as well, and hands over the right bytes, also of segments that it would have kept in the spool.
    for segment in ready.iter().take(4) {
        let fetched = stage.scratch.path().join(format!("fetched-{segment}"));
        stage.ok(&["wal", "get", segment, &fetched.display().to_string()]);
        let original = std::fs::read(segment_path(stage.cluster.data(), segment)).expect("read the segment");
        assert!(std::fs::read(fetched).expect("read what was fetched") == original, "{segment}");
    }
    // Every mark speaks for a stored segment.
    std::fs::remove_file(filler).expect("make room");
    let path = segment_path(stage.cluster.data(), &ready[4]).display().to_string();
    stage.ok(&["wal", "push", &path]);
    let marks: Vec<String> = stage::attack::files_below(&spool).into_keys().collect();
    for mark in marks.iter().filter_map(|name| name.rsplit('/').next()?.strip_suffix(".durable")) {
        assert!(wal_object(&stage, mark).is_some(), "{mark} is marked and not stored: {marks:?}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Other content, and two writers
// ---------------------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn other_content_under_a_name_is_a_hard_stop() {
    for store in [StoreKind::S3, StoreKind::Directory] {
        let Some(stage) = Stage::start(18, unarchived(store, Seal::KeyFile)).await else { return };
        fill_segments(&stage.cluster, 3).await;
        let segment = segments(stage.cluster.data(), "ready").first().expect("a segment").clone();
        let path = segment_path(stage.cluster.data(), &segment);
        // Another server of the same lineage came first: the same header, another record.
        let mut other = std::fs::read(&path).expect("read the segment");
        let middle = other.len() / 2;
        other[middle] ^= 0x55;
        let elsewhere = stage.scratch.folder("elsewhere").expect("make a folder");
        stage.scratch.write(&format!("elsewhere/{segment}"), &other).expect("write the other segment");
        stage.ok(&["wal", "push", &elsewhere.join(&segment).display().to_string()]);
        let stored = wal_object(&stage, &segment).expect("its object");

        let (code, text) = stage.fails(&["wal", "push", &path.display().to_string()]);
        assert_eq!(code, DIVERGED, "{text}");
        assert!(text.contains(&segment) && text.contains("hint:  "), "{text}");
        let ledger = || objects(&stage).into_keys().filter(|name| name.contains("/ledger/")).collect::<Vec<_>>();
        assert_eq!(ledger().len(), 1, "{:?}", ledger());
        assert!(ledger()[0].contains("divergence"), "{:?}", ledger());

        // PostgreSQL itself: it keeps the segment and all behind it, however often it asks.
        archive(&stage).await;
        stage.cluster.sql("SELECT pg_stat_reset_shared('archiver'); SELECT pg_switch_wal()").await.expect("reset");
        let failed = format!("SELECT failed_count >= 2 AND last_failed_wal = '{segment}' FROM pg_stat_archiver");
        stage.cluster.wait_for(&failed, Duration::from_secs(90)).await.expect("archiving fails");
        stage.cluster.sql("CHECKPOINT").await.expect("checkpoint");
        assert!(path.exists() && segments(stage.cluster.data(), "ready").contains(&segment));
        let log = stage.cluster.log_text();
        assert!(log.contains(&format!("exit code {DIVERGED}")), "{log}");
        assert_eq!(wal_object(&stage, &segment).expect("its object"), stored, "the stored object was touched");
        assert_eq!(ledger().len(), 1, "one record tells of it all: {:?}", ledger());
        let fetched = stage.scratch.path().join("fetched");
        stage.ok(&["wal", "get", &segment, &fetched.display().to_string()]);
        assert!(std::fs::read(fetched).expect("read what was fetched") == other, "what came first stays");
    }
}

async fn two_pushes(store: StoreKind) {
    let Some(stage) = Stage::start(18, unarchived(store, Seal::KeyFile)).await else { return };
    let proxy = stage.s3.is_some().then(|| http_faults(&stage));
    if let Some(proxy) = &proxy {
        proxy.one_at_a_time();
    }
    // Two hosts, or two archivers by mistake: the same configuration, but a spool each.
    let spool = stage.scratch.path().join("spool").display().to_string();
    let second = stage.config_text().replace(&spool, &format!("{spool}-2"));
    let second = stage.write_config("second.toml", &second);
    fill_segments(&stage.cluster, 10).await;
    let ready = segments(stage.cluster.data(), "ready");
    for (round, segment) in ready.iter().take(6).enumerate() {
        let path = segment_path(stage.cluster.data(), segment).display().to_string();
        // Both over the whole queue at first, then over what is left of it.
        let first = Victim::of(stage.command(&["wal", "push", &path]));
        let other = Victim::of(stage.command_with(&second, &["wal", "push", &path]));
        for ended in [first.wait(), other.wait()] {
            assert_eq!(ended.code(), 0, "round {round}: {}", ended.stderr);
        }
    }
    let names: Vec<String> = objects(&stage).into_keys().collect();
    for segment in ready.iter().take(6) {
        let object = format!("/{segment}.zst");
        assert_eq!(names.iter().filter(|name| name.contains(&object)).count(), 1, "{segment}: {names:?}");
        let fetched = stage.scratch.path().join(format!("fetched-{segment}"));
        stage.ok(&["wal", "get", segment, &fetched.display().to_string()]);
        let original = std::fs::read(segment_path(stage.cluster.data(), segment)).expect("read the segment");
        assert!(std::fs::read(fetched).expect("read what was fetched") == original, "{segment}");
    }
    no_divergence(&stage);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pushes_at_once_to_s3() {
    two_pushes(StoreKind::S3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pushes_at_once_to_a_directory() {
    two_pushes(StoreKind::Directory).await;
}
