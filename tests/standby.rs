//! Standbys: backups from them, restores to them, their promotion, and an archive that both servers write to.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::stage::held::SlowStore;
use crate::stage::proof::{am_check, bulk, find, finish, holds_all, text, verify_backup};
use crate::stage::{Plan, Seal, Stage, StoreKind, wait_promoted};
use holdfast_pgtypes::{ControlFile, Lsn};
use holdfast_testkit::postgres::{Cluster, Shutdown};
use holdfast_testkit::rows::{Pace, RowWriter};

const LIMIT: Duration = Duration::from_mins(3);

/// A running standby that streams from the stage's primary.
async fn standby(stage: &Stage, settings: &[(&str, &str)]) -> Cluster {
    let mut standby = Cluster::standby_of(&stage.cluster).await.expect("copy a standby");
    for (name, value) in settings {
        standby.override_setting(name, value);
    }
    standby.start().await.expect("start the standby");
    standby
}

/// Waits until the standby has replayed what the primary has written.
async fn caught_up(standby: &Cluster, primary: &Cluster) {
    let lsn = primary.value("SELECT pg_current_wal_lsn()").await.expect("ask for the LSN");
    let query = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{lsn}', false)");
    standby.wait_for(&query, LIMIT).await.unwrap_or_else(|e| panic!("{e}\n{}", standby.log_text()));
}

/// The stage's configuration for the data directory of another server.
fn config_for(stage: &Stage, name: &str, server: &Cluster, more: &str) -> PathBuf {
    let text = stage.config_text();
    let line = text.lines().find(|line| line.starts_with("pgdata = ")).expect("a pgdata line");
    let changed = text.replace(line, &format!("pgdata = \"{}\"\n{more}", server.data().display()));
    stage.write_config(name, &changed)
}

fn json(stage: &Stage, config: &Path, arguments: &[&str]) -> serde_json::Value {
    let mut all = vec!["--output", "json"];
    all.extend_from_slice(arguments);
    let output = stage.command_with(config, &all).output().expect("run holdfast");
    serde_json::from_str(&crate::stage::succeeded(&output, arguments)).expect("JSON")
}

/// The LSN from which the server of a restored directory reports that it is consistent. It must not be after the stop
/// LSN; otherwise the WAL that the backup waited for is not enough.
fn check_control_file(target: &Path, backup: &serde_json::Value) {
    let control = std::fs::read(target.join(ControlFile::PATH)).expect("read the control file");
    let control = ControlFile::parse(&control).expect("a control file");
    let stop: Lsn = text(backup, "stop_lsn").parse().expect("an LSN");
    let minimum = control.min_recovery_point.expect("a standby has one");
    assert!(minimum <= stop, "consistent from {minimum} on, but the backup waited for WAL up to {stop}");
}

async fn backups_from_a_standby(major: u16, plan: Plan) {
    let Some(stage) = Stage::start(major, plan).await else { return };
    let standby = standby(&stage, &[]).await;
    bulk(&stage.cluster, "load", 4).await;
    let pace = Pace { payload_bytes: 3000, ..Pace::default() };
    let writer = RowWriter::start(&stage.cluster, pace).await.expect("start the writer");
    writer.wait_for_rows(50).await.expect("write rows");
    caught_up(&standby, &stage.cluster).await;

    // Holdfast asks the primary to finish its segment.
    let connection = format!("primary_connection = \"{}\"\n", stage.cluster.connection_string("postgres"));
    let config = config_for(&stage, "asking.toml", &standby, &connection);
    let report = json(&stage, &config, &["backup"]);
    assert_eq!(find(&report, "from_standby"), Some(&serde_json::Value::Bool(true)), "{report}");
    assert_eq!(report["warnings"], serde_json::json!([]), "{report}");
    assert!(stage.ok(&["list"]).contains("from standby"));
    // If the primary cannot be reached, that is reported. The primary's own work still finishes the segment.
    let config = config_for(&stage, "mute.toml", &standby, "primary_connection = \"host=/nowhere user=postgres\"\n");
    let mut command = stage.command_with(&config, &["--output", "json", "backup"]);
    let waiting = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start a backup");
    let mut waiting = Some(waiting);
    let start = Instant::now();
    let mute = loop {
        let child = waiting.as_mut().expect("a child");
        if child.try_wait().expect("wait").is_some() {
            break waiting.take().expect("a child").wait_with_output().expect("wait");
        }
        assert!(start.elapsed() < LIMIT, "the backup waits for ever");
        stage.cluster.sql("SELECT pg_switch_wal()").await.expect("switch");
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    let mute: serde_json::Value = serde_json::from_str(&crate::stage::succeeded(&mute, &["backup"])).expect("JSON");
    let warnings = mute["warnings"].to_string();
    assert!(warnings.contains("the primary could not be asked to finish its WAL segment"), "{warnings}");

    let (journal, end) = finish(writer, &stage.cluster).await;
    // Nobody writes and nobody switches: the WAL does not come, and nothing remains.
    stage.archive_now().await;
    caught_up(&standby, &stage.cluster).await;
    stage.cluster.sql("CREATE TABLE little AS SELECT 1 AS n; CHECKPOINT").await.expect("write a little");
    caught_up(&standby, &stage.cluster).await;
    let config = config_for(&stage, "alone.toml", &standby, "");
    let output = stage.command_with(&config, &["backup", "--archive-timeout", "2s"]).output().expect("run holdfast");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(52), "{message}");
    let listed = stage.ok(&["list"]);
    assert!(!listed.contains("unfinished"), "{listed}");
    stage.archive_now().await;

    for (n, backup) in [&report, &mute].into_iter().enumerate() {
        let target = stage.target(&format!("restored-{n}"));
        stage.ok(&["restore", "--backup", text(backup, "backup_id"), "--pgdata", &target.display().to_string()]);
        check_control_file(&target, backup);
        verify_backup(&stage, &target);
        assert!(!target.join("standby.signal").exists(), "a restored backup of a standby is not a standby");
        let restored = stage.start_restored(&target).await;
        wait_promoted(&restored).await;
        holds_all(&restored, &journal, end).await;
        am_check(&restored);
    }
    // Only up to the end of the backup itself.
    let target = stage.target("immediate");
    let folder = target.display().to_string();
    let id = text(&report, "backup_id");
    stage.ok(&["restore", "--backup", id, "--pgdata", &folder, "--target-immediate", "--target-action", "promote"]);
    wait_promoted(&stage.start_restored(&target).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_from_a_standby_restore_on_19() {
    backups_from_a_standby(19, Plan { wal_segment_mib: 1, ..Plan::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_from_a_standby_restore_on_18() {
    backups_from_a_standby(18, Plan { wal_segment_mib: 1, ..Plan::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_from_a_standby_restore_on_13() {
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() };
    backups_from_a_standby(13, plan).await;
}

/// A backup of this server that has begun to copy and does not continue.
async fn held(stage: &Stage, server: &Cluster) -> (Child, SlowStore) {
    let config = config_for(stage, "server.toml", server, "");
    let store = SlowStore::with(stage, &std::fs::read_to_string(&config).expect("read the configuration"));
    (store.hold(stage, &["backup"]).await, store)
}

/// A standby that is promoted in the middle: the backup fails with a clear message and leaves nothing, because it could
/// not be restored.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_during_the_backup_fails_it() {
    let plan = Plan { compression: "none", wal_segment_mib: 1, ..Plan::default() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    bulk(&stage.cluster, "load", 48).await;
    let mut standby = standby(&stage, &[("archive_mode", "off")]).await;
    caught_up(&standby, &stage.cluster).await;
    stage.cluster.sql("CHECKPOINT").await.expect("checkpoint");
    caught_up(&standby, &stage.cluster).await;
    let (backup, store) = held(&stage, &standby).await;
    standby.promote().await.expect("promote");
    store.proxy.resume();
    let output = backup.wait_with_output().expect("wait for the backup");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(51), "{message}");
    assert!(message.contains("the standby was promoted during online backup"), "{message}");
    let listed = stage.ok(&["list"]);
    assert!(listed.contains("no complete backup") && !listed.contains("unfinished"), "{listed}");
    assert!(standby.is_running());
}

/// A standby's upstream is promoted in the middle, and the standby follows it to the new timeline. The backup begins on
/// one timeline and ends on another. The former primary, if it lives, continues to archive the old timeline.
async fn a_standby_follows_its_upstream_during_the_backup(primary_lives: bool) {
    let plan = Plan {
        compression: "none",
        wal_segment_mib: 1,
        settings: vec![("wal_retrieve_retry_interval", "100ms".to_owned())],
        ..Plan::default()
    };
    let Some(mut stage) = Stage::start(18, plan).await else { return };
    bulk(&stage.cluster, "load", 80).await;
    let rows = stage.cluster.value("SELECT count(*) FROM load").await.expect("count");
    let mut upstream = Cluster::standby_of(&stage.cluster).await.expect("copy a standby");
    stage.scratch.folder("other-spool").expect("make a folder");
    let config = config_for(&stage, "upstream.toml", &upstream, "");
    let settings = std::fs::read_to_string(&config).expect("read the configuration");
    let spool = stage.scratch.path().join("spool").display().to_string();
    let other = stage.scratch.path().join("other-spool").display().to_string();
    let config = stage.write_config("upstream.toml", &settings.replace(&spool, &other));
    let command = format!("{} --config {} wal push %p", stage.holdfast.display(), config.display());
    upstream.override_setting("archive_command", &command);
    upstream.start().await.expect("start the upstream");
    caught_up(&upstream, &stage.cluster).await;
    let mut standby = Cluster::standby_of(&upstream).await.expect("copy a standby of the standby");
    standby.start().await.expect("start the standby");
    stage.cluster.sql("CHECKPOINT").await.expect("checkpoint");
    caught_up(&standby, &stage.cluster).await;

    let (mut backup, store) = held(&stage, &standby).await;
    stage.archive_now().await;
    caught_up(&standby, &stage.cluster).await;
    if !primary_lives {
        stage.cluster.stop(Shutdown::Immediate).await.expect("stop the primary");
    }
    upstream.promote().await.expect("promote");
    upstream.wait_promoted(LIMIT).await.expect("promote");
    let sql = "CREATE TABLE new AS SELECT generate_series(1, 5000) AS n; SELECT pg_switch_wal(); CHECKPOINT";
    upstream.sql(sql).await.expect("write on the new timeline");
    if primary_lives {
        for n in 0..3 {
            stage.cluster.sql(&format!("CREATE TABLE old_{n} AS SELECT 1 AS n")).await.expect("write on the old one");
            stage.archive_now().await;
        }
    }
    caught_up(&standby, &upstream).await;
    standby.sql("CHECKPOINT").await.expect("a restart point");
    let reached = "SELECT min_recovery_end_timeline FROM pg_control_recovery()";
    assert_eq!(standby.value(reached).await.expect("ask"), "2");
    store.let_go();
    // Nobody but the new primary can finish the last segment.
    let start = Instant::now();
    while backup.try_wait().expect("look at the backup").is_none() {
        assert!(start.elapsed() < LIMIT, "the backup waits for ever");
        upstream.sql("SELECT pg_create_restore_point('go on'); SELECT pg_switch_wal()").await.expect("switch");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let output = backup.wait_with_output().expect("wait for the backup");
    crate::stage::succeeded(&output, &["backup"]);

    let list = stage.json(&["list"]);
    assert_eq!(find(&list, "timeline"), Some(&serde_json::json!(1)), "{list}");
    for key in ["start_segment", "stop_segment"] {
        let timeline = if key == "start_segment" { "00000001" } else { "00000002" };
        assert!(text(&list, key).starts_with(timeline), "{key}: {list}");
    }
    let target = stage.target("immediate");
    let folder = target.display().to_string();
    stage.ok(&["restore", "--pgdata", &folder, "--target-immediate", "--target-action", "promote"]);
    check_control_file(&target, &list);
    verify_backup(&stage, &target);
    let immediate = stage.start_restored(&target).await;
    wait_promoted(&immediate).await;
    assert_eq!(immediate.value("SELECT count(*) FROM load").await.expect("count"), rows);
    am_check(&immediate);

    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT count(*) FROM load").await.expect("count"), rows);
    assert_eq!(restored.value("SELECT count(*) FROM new").await.expect("count"), "5000");
    let old = restored.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'old_%'").await.expect("count");
    assert_eq!(old, "0", "rows of the other history");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_follows_to_the_timeline_beside_the_former_primary() {
    a_standby_follows_its_upstream_during_the_backup(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_follows_to_the_timeline_of_the_only_primary() {
    a_standby_follows_its_upstream_during_the_backup(false).await;
}

/// `restore --standby`: the server follows through the archive, also after a time without it, then by streaming, and
/// becomes a primary that archives and is backed up.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_standby_follows_and_takes_over() {
    let plan = Plan {
        wal_segment_mib: 1,
        settings: vec![("wal_retrieve_retry_interval", "100ms".to_owned())],
        ..Plan::default()
    };
    let Some(mut stage) = Stage::start(18, plan).await else { return };
    bulk(&stage.cluster, "load", 2).await;
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    writer.wait_for_rows(20).await.expect("write rows");
    stage.ok(&["backup"]);
    stage.archive_now().await;
    let target = stage.target("standby");
    let said = stage.ok(&["restore", "--standby", "--pgdata", &target.display().to_string()]);
    assert!(said.contains("follows the archive as a standby"), "{said}");
    assert!(target.join("standby.signal").exists() && !target.join("recovery.signal").exists());
    let auto = std::fs::read_to_string(target.join("postgresql.auto.conf")).expect("read the settings");
    assert!(auto.contains("wal get --standby"), "{auto}");
    let mut standby = Cluster::adopt(&stage.installation, &target).expect("take over");
    standby.start().await.unwrap_or_else(|e| panic!("{e}\n{}", standby.log_text()));

    // Through the archive.
    let number = writer.journal().rows().len();
    writer.wait_for_rows(number as u64 + 20).await.expect("write rows");
    stage.archive_now().await;
    let seen = format!("SELECT coalesce(max(n), 0) >= {number} FROM holdfast_rows");
    standby.wait_for(&seen, LIMIT).await.unwrap_or_else(|e| panic!("{e}\n{}", standby.log_text()));

    // Without the store the standby waits: the exit status means "try again" to a standby, and "stop" to others.
    let mut s3 = stage.s3.take().expect("an S3 server");
    s3.stop();
    let next = stage.cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await.expect("name the segment");
    let short = stage.config_text().replace("[wal]", "[wal]\ntimeout = \"2s\"");
    let short = stage.write_config("short.toml", &short);
    let folder = stage.target("segment").display().to_string();
    for (arguments, code) in [(vec!["wal", "get", "--standby"], 24), (vec!["wal", "get"], 152)] {
        let arguments = [arguments, vec![next.as_str(), folder.as_str()]].concat();
        let output = stage.command_with(&short, &arguments).output().expect("run holdfast");
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!Path::new(&folder).exists());
    }
    let number = writer.journal().rows().len();
    writer.wait_for_rows(number as u64 + 20).await.expect("write rows");
    assert!(standby.is_running(), "{}", standby.log_text());
    assert_eq!(standby.value("SELECT pg_is_in_recovery()").await.expect("ask"), "t");
    s3.restart().expect("start the store again");
    stage.s3 = Some(s3);
    stage.archive_now().await;
    let seen = format!("SELECT coalesce(max(n), 0) >= {number} FROM holdfast_rows");
    standby.wait_for(&seen, LIMIT).await.unwrap_or_else(|e| panic!("{e}\n{}", standby.log_text()));

    // By streaming: no switch is needed any more.
    standby.set("primary_conninfo", &stage.cluster.connection_string("postgres")).expect("configure");
    standby.reload().await.expect("reload");
    standby.wait_for("SELECT count(*) = 1 FROM pg_stat_wal_receiver", LIMIT).await.expect("stream");
    let (journal, end) = finish(writer, &stage.cluster).await;
    caught_up(&standby, &stage.cluster).await;
    holds_all(&standby, &journal, end).await;

    // It takes over, archives its own timeline, and is backed up.
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the primary");
    standby.promote().await.expect("promote");
    let config = config_for(&stage, "holdfast.toml", &standby, "");
    assert_eq!(config, stage.config);
    let pace = Pace::default();
    let writer = RowWriter::continue_from(&standby, pace, &journal).await.expect("continue writing");
    let rows = journal.rows().len() as u64;
    writer.wait_for_rows(rows + 20).await.expect("write rows");
    stage.cluster = standby;
    let report = stage.json(&["backup"]);
    assert_eq!(find(&report, "timeline"), Some(&serde_json::json!(2)), "{report}");
    assert_eq!(find(&report, "from_standby"), Some(&serde_json::Value::Bool(false)), "{report}");
    writer.wait_for_rows(rows + 40).await.expect("write rows");
    let (journal, end) = finish(writer, &stage.cluster).await;
    stage.archive_now().await;
    let restored = stage.restore_and_start("taken-over", &[]).await;
    wait_promoted(&restored).await;
    holds_all(&restored, &journal, end).await;
    // Also across the switch, from the backup of the first timeline.
    let list = stage.json(&["list"]);
    let first = find(&list, "backups").and_then(|list| list[0]["backup_id"].as_str()).expect("a backup").to_owned();
    let restored = stage.restore_and_start("along-the-switch", &["--backup", &first]).await;
    wait_promoted(&restored).await;
    holds_all(&restored, &journal, end).await;
}

/// `archive_mode = always`: both servers push the same segments, and both succeed.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_fed_from_both_sides() {
    let plan = Plan { store: StoreKind::Directory, seal: Seal::KeyFile, wal_segment_mib: 1, ..Plan::default() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    stage.scratch.folder("other-spool").expect("make a folder");
    let standby = Cluster::standby_of(&stage.cluster).await.expect("copy a standby");
    let config = config_for(&stage, "standby.toml", &standby, "");
    let text = std::fs::read_to_string(&config).expect("read the configuration");
    let spool = stage.scratch.path().join("spool").display().to_string();
    let other = stage.scratch.path().join("other-spool").display().to_string();
    stage.write_config("standby.toml", &text.replace(&spool, &other));
    let mut standby = standby;
    let command = format!("{} --config {} wal push %p", stage.holdfast.display(), config.display());
    standby.override_setting("archive_mode", "always");
    standby.override_setting("archive_command", &command);
    standby.start().await.expect("start the standby");

    let pace = Pace { payload_bytes: 8000, ..Pace::default() };
    let writer = RowWriter::start(&stage.cluster, pace).await.expect("start the writer");
    writer.wait_for_rows(300).await.expect("write rows");
    let report = json(&stage, &config, &["backup", "--archive-timeout", "30s"]);
    assert_eq!(find(&report, "from_standby"), Some(&serde_json::Value::Bool(true)), "{report}");
    writer.wait_for_rows(600).await.expect("write rows");
    let (journal, end) = finish(writer, &stage.cluster).await;
    stage.archive_now().await;
    let last = stage.cluster.value("SELECT last_archived_wal FROM pg_stat_archiver").await.expect("ask");
    let caught = format!("SELECT coalesce(last_archived_wal >= '{last}', false) FROM pg_stat_archiver");
    standby.wait_for(&caught, LIMIT).await.unwrap_or_else(|e| panic!("{e}\n{}", standby.log_text()));
    for server in [&stage.cluster, &standby] {
        let counts = server.sql("SELECT archived_count > 3, failed_count FROM pg_stat_archiver").await.expect("ask");
        assert_eq!(counts, [["t", "0"]], "{}", server.log_text());
    }
    let ledger = stage.repository_folder().join("main/ledger");
    let entries = std::fs::read_dir(&ledger).map_or(0, |entries| entries.flatten().count());
    assert_eq!(entries, 0, "a divergence was recorded");
    let listed = stage.json(&["wal", "list"]);
    assert_eq!(find(&listed, "gaps"), Some(&serde_json::json!([])), "{listed}");
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    holds_all(&restored, &journal, end).await;
}
