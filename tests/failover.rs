//! Failover: what the standbys of a cluster do for its archive.

use std::time::{Duration, Instant};

use crate::stage::proof::{am_check, find, finish, holds_all};
use crate::stage::{Plan, Stage, wait_promoted};
use holdfast_testkit::postgres::{Cluster, Shutdown};
use holdfast_testkit::proxy::TcpProxy;
use holdfast_testkit::rows::{Pace, RowWriter};

const LIMIT: Duration = Duration::from_mins(3);

async fn caught_up(standby: &Cluster, primary: &Cluster) {
    let lsn = primary.value("SELECT pg_current_wal_lsn()").await.expect("ask for the LSN");
    let query = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{lsn}', false)");
    standby.wait_for(&query, LIMIT).await.unwrap_or_else(|e| panic!("{e}\n{}", standby.log_text()));
}

/// The `archive_command` of every server of the cluster, as its instance manager sets it: a standby keeps WAL, a
/// primary pushes it.
fn command_of_either(stage: &Stage, config: &std::path::Path) -> String {
    let (program, config) = (stage.holdfast.display(), config.display());
    format!(
        "if test -f standby.signal; then exec {program} --config {config} wal push --standby --wait 2s %p; \
         else exec {program} --config {config} wal push %p; fi"
    )
}

fn configuration(stage: &Stage, name: &str, server: &Cluster) -> std::path::PathBuf {
    let text = stage.config_text();
    let line = text.lines().find(|line| line.starts_with("pgdata = ")).expect("a pgdata line");
    let spool = stage.scratch.path().join("spool").display().to_string();
    let own = stage.scratch.folder(&format!("spool-{name}")).expect("make a spool").display().to_string();
    let text = text.replace(line, &format!("pgdata = \"{}\"", server.data().display())).replace(&spool, &own);
    stage.write_config(&format!("{name}.toml"), &text)
}

/// The primary cannot reach the store, its standby continues to stream, and the primary dies with its segments. When
/// the standby is promoted, it archives what only it still has. Nothing is missing, and nothing is stored twice.
#[tokio::test(flavor = "multi_thread")]
async fn segments_that_only_a_standby_has_reach_the_archive() {
    let settings = vec![("wal_keep_size", "512MB".to_owned())];
    let Some(mut stage) = Stage::start(18, Plan { wal_segment_mib: 1, settings, ..Plan::default() }).await else {
        return;
    };
    let mut standby = Cluster::standby_of(&stage.cluster).await.expect("copy a standby");
    let own = configuration(&stage, "standby", &standby);
    standby.override_setting("archive_mode", "always");
    standby.override_setting("archive_command", &command_of_either(&stage, &own));
    standby.start().await.expect("start the standby");
    let mut third = Cluster::standby_of(&stage.cluster).await.expect("copy another standby");
    let thirds = configuration(&stage, "third", &third);
    third.override_setting("archive_mode", "always");
    third.override_setting("archive_command", &command_of_either(&stage, &thirds));
    third.start().await.expect("start the other standby");

    let writer =
        RowWriter::start(&stage.cluster, Pace { payload_bytes: 8000, ..Pace::default() }).await.expect("write");
    writer.wait_for_rows(50).await.expect("write rows");
    stage.ok(&["backup"]);
    // While the primary archives, the standby releases what the archive has, and stores nothing.
    stage.archive_now().await;
    let last = stage.cluster.value("SELECT last_archived_wal FROM pg_stat_archiver").await.expect("ask");
    let caught = format!("SELECT coalesce(last_archived_wal >= '{last}', false) FROM pg_stat_archiver");
    standby.wait_for(&caught, LIMIT).await.unwrap_or_else(|e| panic!("{e}\n{}", standby.log_text()));

    // The primary's connection to the store is cut. It writes some more segments.
    let s3 = stage.s3.as_ref().expect("an S3 server");
    let proxy = TcpProxy::start(s3.address()).expect("start a proxy");
    let away =
        stage.config_text().replace(&s3.endpoint(), &proxy.endpoint()).replace("[wal]", "[wal]\ntimeout = \"1s\"");
    proxy.refuse();
    let direct = stage.config_text();
    stage.write_config("holdfast.toml", &away);
    let rows = writer.journal().rows().len() as u64;
    writer.wait_for_rows(rows + 600).await.expect("write rows");
    let (journal, end) = finish(writer, &stage.cluster).await;
    caught_up(&standby, &stage.cluster).await;
    caught_up(&third, &stage.cluster).await;
    let failed = stage.cluster.value("SELECT failed_count > 0 FROM pg_stat_archiver").await.expect("ask");
    assert_eq!(failed, "t", "the primary still archives");
    let kept = crate::stage::attack::segments(standby.data(), "ready");
    assert!(kept.len() >= 3, "the standby keeps what the archive does not have: {kept:?}");
    stage.cluster.kill9().await.expect("kill the primary");
    stage.write_config("holdfast.toml", &direct);

    standby.promote().await.expect("promote");
    third.set("primary_conninfo", &standby.connection_string("postgres")).expect("configure");
    third.reload().await.expect("follow the new primary");
    let writer = RowWriter::continue_from(&standby, Pace::default(), &journal).await.expect("continue writing");
    writer.wait_for_rows(journal.rows().len() as u64 + 50).await.expect("write rows");
    let (journal, end_of_all) = finish(writer, &standby).await;
    assert!(end_of_all > end);
    caught_up(&third, &standby).await;
    let began = Instant::now();
    stage.cluster = standby;
    stage.archive_now().await;
    eprintln!("everything that waited was archived within {:?}", began.elapsed());
    let waiting = crate::stage::attack::segments(stage.cluster.data(), "ready");
    assert!(waiting.is_empty(), "{waiting:?}\n{}", stage.cluster.log_text());
    for segment in &kept {
        assert!(crate::stage::attack::wal_object(&stage, segment).is_some(), "{segment} is not in the archive");
    }
    // The other standby releases all of it, including the unfinished end of the first timeline.
    let began = Instant::now();
    loop {
        let waiting = crate::stage::attack::segments(third.data(), "ready");
        if waiting.is_empty() {
            break;
        }
        assert!(began.elapsed() < LIMIT, "{waiting:?}\n{}", third.log_text());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(!stage.cluster.log_text().contains("with other content"), "{}", stage.cluster.log_text());
    let ledger = stage.repository_folder().join("main/ledger");
    assert_eq!(std::fs::read_dir(&ledger).map_or(0, |entries| entries.flatten().count()), 0, "a divergence");
    let listed = stage.json(&["wal", "list"]);
    assert!(!listed.to_string().contains("\"gaps\":[{"), "{listed}");
    assert!(find(&listed, "gaps").is_some(), "{listed}");

    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    holds_all(&restored, &journal, end_of_all).await;
    am_check(&restored);
}

/// Two standbys of one primary. Each archives for itself after its promotion.
async fn two_standbys(stage: &Stage) -> [(Cluster, std::path::PathBuf); 2] {
    let mut made = Vec::new();
    for name in ["one", "two"] {
        let mut standby = Cluster::standby_of(&stage.cluster).await.expect("copy a standby");
        let config = configuration(stage, name, &standby);
        let command = format!("{} --config {} wal push %p", stage.holdfast.display(), config.display());
        standby.override_setting("archive_mode", "on");
        standby.override_setting("archive_command", &command);
        standby.start().await.expect("start a standby");
        made.push((standby, config));
    }
    made.try_into().unwrap_or_else(|_| panic!("two standbys"))
}

/// The names that wait in `archive_status`, for any kind of file.
fn waiting(server: &Cluster) -> Vec<String> {
    let entries = std::fs::read_dir(server.data().join("pg_wal/archive_status")).expect("list archive_status");
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().strip_suffix(".ready").map(str::to_owned));
    names.collect()
}

/// Waits until a server's archiver has nothing left to do.
async fn all_archived(server: &Cluster) {
    let began = Instant::now();
    while !waiting(server).is_empty() {
        assert!(began.elapsed() < LIMIT, "{:?} still wait\n{}", waiting(server), server.log_text());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The names of the WAL objects of timeline 1 that are partial segments.
fn partials(stage: &Stage) -> Vec<String> {
    crate::stage::attack::objects(stage).into_keys().filter(|name| name.contains(".partial.")).collect()
}

/// The primary dies. A first standby is promoted, archives its `.partial` and dies too. A second standby, still on the
/// old timeline and a little further on it, is promoted to the next free timeline. Its `.partial` has the same name,
/// but other bytes. It continues to archive: the first content stays, the ledger records it, and everything can be
/// restored.
#[tokio::test(flavor = "multi_thread")]
async fn two_partial_segments_of_one_name_do_not_stop_the_archive() {
    let Some(mut stage) = Stage::start(18, Plan { wal_segment_mib: 1, ..Plan::default() }).await else { return };
    stage.cluster.sql("CREATE TABLE said (n int); INSERT INTO said VALUES (1)").await.expect("write");
    stage.ok(&["backup"]);
    stage.archive_now().await;
    let [(mut first, _), (mut second, config)] = two_standbys(&stage).await;
    // A timeline that ends within a segment leaves a partial segment.
    stage.cluster.sql("CREATE TABLE begun (n int)").await.expect("write");
    caught_up(&first, &stage.cluster).await;
    // From here on the first standby receives nothing more. The second gets further, in the same segment.
    first.set("primary_conninfo", "").expect("configure");
    first.reload().await.expect("reload");
    first.wait_for("SELECT count(*) = 0 FROM pg_stat_wal_receiver", LIMIT).await.expect("the receiver ends");
    stage.cluster.sql("INSERT INTO said VALUES (2)").await.expect("write");
    caught_up(&second, &stage.cluster).await;
    // Only the second standby archives what it finished: a standby counts received WAL as archived.
    all_archived(&stage.cluster).await;
    stage.cluster.kill9().await.expect("kill the primary");

    first.promote().await.expect("promote the first");
    first.sql("INSERT INTO said VALUES (3)").await.expect("write");
    all_archived(&first).await;
    let stored = partials(&stage);
    assert_eq!(stored.len(), 1, "{stored:?}");
    let before = crate::stage::attack::objects(&stage);
    first.kill9().await.expect("kill the first");

    // The second standby finds that timeline 2 exists in the archive, and takes the next one.
    let restore = format!("{} --config {} wal get %f %p", stage.holdfast.display(), config.display());
    second.set("restore_command", &restore).expect("configure");
    second.set("recovery_target_timeline", "current").expect("configure");
    second.restart().await.expect("restart the second");
    second.promote().await.expect("promote the second");
    second.sql("INSERT INTO said VALUES (4)").await.expect("write");
    // Two statements: a switch in the same transaction would leave its commit to the next segment.
    second.sql("SELECT pg_switch_wal()").await.expect("switch");
    all_archived(&second).await;
    assert!(second.log_text().contains("timeline 1 ends at"), "{}", second.log_text());
    let after = crate::stage::attack::objects(&stage);
    for (name, file) in &before {
        assert_eq!(after.get(name), Some(file), "{name} was changed");
    }
    assert!(after.keys().any(|name| name.contains("/00000003.history.")), "{after:?}");
    assert_eq!(partials(&stage), stored);
    assert!(after.keys().any(|name| name.contains("/ledger/") && name.contains("-divergence")), "{after:?}");

    stage.cluster = second;
    stage.archive_now().await;
    let restored = stage.restore_and_start("restored", &["--target-timeline", "3"]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.sql("SELECT n FROM said ORDER BY n").await.expect("ask"), [["1"], ["2"], ["4"]]);
    am_check(&restored);
}

/// The objects of WAL, and the records of complete backups.
fn wal_and_complete<T>(objects: &std::collections::BTreeMap<String, T>) -> Vec<&String> {
    objects.keys().filter(|name| name.contains("/wal/") || name.ends_with("/backup.json")).collect()
}

/// Two standbys are promoted at the same time, neither sees the other's history, and both are on timeline 2. The second
/// one stops archiving, and the message says what to do: it needs an archive of its own. Both can be restored.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_timeline_stop_hard_with_a_way_out() {
    let Some(mut stage) = Stage::start(18, Plan { wal_segment_mib: 1, ..Plan::default() }).await else { return };
    stage.cluster.sql("CREATE TABLE said (n int); INSERT INTO said VALUES (1)").await.expect("write");
    stage.ok(&["backup"]);
    stage.archive_now().await;
    let [(first, _), (second, config)] = two_standbys(&stage).await;
    caught_up(&second, &stage.cluster).await;
    second.set("primary_conninfo", "").expect("configure");
    second.reload().await.expect("reload");
    second.wait_for("SELECT count(*) = 0 FROM pg_stat_wal_receiver", LIMIT).await.expect("the receiver ends");
    stage.cluster.sql("INSERT INTO said VALUES (2)").await.expect("write");
    caught_up(&first, &stage.cluster).await;
    // Only the second standby archives what it finished: a standby counts received WAL as archived.
    all_archived(&stage.cluster).await;
    stage.cluster.kill9().await.expect("kill the primary");

    first.promote().await.expect("promote the first");
    first.sql("INSERT INTO said VALUES (3)").await.expect("write");
    first.sql("SELECT pg_switch_wal()").await.expect("switch");
    all_archived(&first).await;
    let before = crate::stage::attack::objects(&stage);
    second.promote().await.expect("promote the second");
    second.sql("INSERT INTO said VALUES (4)").await.expect("write");
    second.sql("SELECT pg_switch_wal()").await.expect("switch");
    let stuck = "SELECT failed_count > 0 AND last_failed_wal = '00000002.history' FROM pg_stat_archiver";
    second.wait_for(stuck, LIMIT).await.unwrap_or_else(|e| panic!("{e}\n{}", second.log_text()));
    let history = second.data().join("pg_wal/00000002.history").display().to_string();
    let output = stage.command_with(&config, &["wal", "push", &history]).output().expect("run holdfast");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(44), "{said}");
    assert!(said.contains("two servers were promoted to timeline 2 at different LSNs"), "{said}");
    assert!(said.contains("give this one a `cluster.name` of its own"), "{said}");
    let after = crate::stage::attack::objects(&stage);
    for (name, file) in &before {
        assert_eq!(after.get(name), Some(file), "{name} was changed");
    }

    // Backups of this server would restore the other one's WAL, and send segments past the stopped archiver.
    let objects = crate::stage::attack::objects(&stage);
    for verb in ["backup", "check"] {
        let output = stage.command_with(&config, &[verb]).output().expect("run holdfast");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(44), "{verb}: {said}");
        for words in [
            "00000002.history",
            "is already stored in",
            "while: comparing the archive with the WAL of this server",
            "two servers were promoted to timeline 2 at different LSNs",
            "give this one a `cluster.name` of its own",
        ] {
            assert!(said.contains(words), "{verb} does not say {words:?}: {said}");
        }
    }
    assert_eq!(wal_and_complete(&crate::stage::attack::objects(&stage)), wal_and_complete(&objects));
    // The other one still archives.
    first.sql("INSERT INTO said VALUES (3)").await.expect("write");
    first.sql("SELECT pg_switch_wal()").await.expect("switch");
    all_archived(&first).await;

    // As the message says: an archive of its own.
    let text = std::fs::read_to_string(&config).expect("read a configuration").replace("\"main\"", "\"second\"");
    stage.write_config("two.toml", &text);
    all_archived(&second).await;
    let output = stage.command_with(&config, &["backup"]).output().expect("run holdfast");
    crate::stage::succeeded(&output, &["backup"]);
    second.sql("INSERT INTO said VALUES (5)").await.expect("write");
    second.sql("SELECT pg_switch_wal()").await.expect("switch");
    all_archived(&second).await;
    for (config, rows) in [(stage.config.clone(), ["1", "2", "3", "3"].as_slice()), (config, &["1", "4", "5"])] {
        let name = config.file_stem().expect("a name").to_string_lossy().into_owned();
        let target = stage.target(&format!("restored-{name}"));
        let arguments = ["restore", "--pgdata", &target.display().to_string()];
        crate::stage::succeeded(&stage.command_with(&config, &arguments).output().expect("run holdfast"), &arguments);
        let restored = stage.start_restored(&target).await;
        wait_promoted(&restored).await;
        let found = restored.sql("SELECT n FROM said ORDER BY n").await.expect("ask").concat();
        assert_eq!(found, rows, "{name}");
    }
    stage.cluster = first;
}

async fn values(cluster: &Cluster) -> String {
    cluster.value("SELECT string_agg(n::text, ',' ORDER BY n) FROM rows").await.expect("read the rows")
}

/// A copy was restored for a drill and promoted with its archiving on, and writes into the archive of production: its
/// timeline has the higher number. The backup that production takes afterwards is on the other timeline. A restore
/// without a named timeline must not skip that backup silently, and every complete backup can be restored with the
/// command that `info` prints.
#[tokio::test(flavor = "multi_thread")]
async fn a_drill_in_the_archive_does_not_hide_production() {
    let Some(stage) = Stage::start(18, Plan { wal_segment_mib: 1, ..Plan::default() }).await else {
        return;
    };
    stage.cluster.sql("CREATE TABLE rows (n int); INSERT INTO rows VALUES (1), (2)").await.expect("write");
    stage.ok(&["backup"]);
    stage.archive_now().await;

    // The drill: restored next to production, archiving into the same archive, promoted.
    let target = stage.target("drill");
    stage.ok(&["restore", "--pgdata", &target.display().to_string()]);
    let mut drill = Cluster::adopt(&stage.installation, &target).expect("take over the restored folder");
    let config = configuration(&stage, "drill", &drill);
    let command = format!("{} --config {} wal push %p", stage.holdfast.display(), config.display());
    drill.override_setting("archive_command", &command);
    drill.start().await.unwrap_or_else(|e| panic!("start the drill: {e}\n{}", drill.log_text()));
    wait_promoted(&drill).await;
    // Two statements in one message are one transaction, and its commit would come after the switch.
    drill.sql("INSERT INTO rows VALUES (-100)").await.expect("write on the drill");
    drill.sql("SELECT pg_switch_wal()").await.expect("switch");
    let archived = "SELECT coalesce(last_archived_wal LIKE '00000002%' AND last_archived_wal NOT LIKE '%history', false) \
                    FROM pg_stat_archiver";
    drill.wait_for(archived, LIMIT).await.unwrap_or_else(|e| panic!("{e}\n{}", drill.log_text()));
    drill.kill9().await.expect("end the drill");

    // Production continues. Its timeline has newer WAL, and the plan of a restore mentions that.
    stage.cluster.sql("INSERT INTO rows VALUES (3), (4)").await.expect("write");
    // Object stores give the time of an object in whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    stage.archive_now().await;
    let elsewhere = stage.target("elsewhere").display().to_string();
    let plan = stage.json(&["restore", "--plan", "--pgdata", &elsewhere]);
    assert_eq!(plan["recovery"]["timeline"], 2, "{plan}");
    assert_eq!(plan["recovery"]["other_lines"][0]["timeline"], 1, "{plan}");
    assert_eq!(plan["recovery"]["other_lines"][0]["newer"], "wal", "{plan}");
    let text = stage.ok(&["restore", "--plan", "--pgdata", &elsewhere]);
    let note = "note: recovery follows timeline 2, but another timeline has newer WAL: timeline 1 separates from it at";
    assert!(text.contains(note) && text.contains("--target-timeline 1"), "{text}");

    // The next backup of production is on the timeline that `latest` does not follow.
    stage.ok(&["backup"]);
    stage.cluster.sql("INSERT INTO rows VALUES (5), (6)").await.expect("write");
    let moment = stage.cluster.value("SELECT clock_timestamp() AT TIME ZONE 'UTC' || '+00'").await.expect("ask");
    stage.cluster.sql("INSERT INTO rows VALUES (7)").await.expect("write");
    stage.archive_now().await;
    // A time after that backup is on the other timeline, so the timeline must be named as well.
    let (code, text) = stage.fails(&["restore", "--target-time", &moment, "--pgdata", &elsewhere]);
    assert_eq!(code, 61, "{text}");
    assert!(text.contains("--target-timeline 1"), "{text}");
    let (code, text) = stage.fails(&["restore", "--pgdata", &elsewhere]);
    assert_eq!(code, 61, "{text}");
    assert!(text.contains("is newer and does not lead there"), "{text}");
    assert!(text.contains("--target-timeline 1: timeline 1 separates from it at"), "{text}");
    assert!(!std::path::Path::new(&elsewhere).exists(), "something was written");

    let info = stage.json(&["info"]);
    let claim = &info["repositories"][0]["claims"][0];
    assert_eq!(claim["followed_timeline"], 2, "{info}");
    assert_eq!(claim["timeline_must_be_named"], true, "{info}");
    assert_eq!(claim["other_lines"][0]["newer"], "backup", "{info}");
    let text = stage.ok(&["info"]);
    assert!(text.contains("NEWER     another timeline has a newer backup: timeline 1"), "{text}");
    for line in ["timeline 1, with --target-timeline 1", "timeline 2, with --target-timeline 2"] {
        assert!(text.contains(&format!("can be restored: {line}")), "{text}");
    }

    // The restored state is that of the timeline that was named.
    let restored = stage.restore_and_start("production", &["--target-timeline", "1"]).await;
    wait_promoted(&restored).await;
    assert_eq!(values(&restored).await, "1,2,3,4,5,6,7");
    let arguments = ["--target-timeline", "1", "--target-time", &moment, "--target-action", "promote"];
    let restored = stage.restore_and_start("earlier", &arguments).await;
    wait_promoted(&restored).await;
    assert_eq!(values(&restored).await, "1,2,3,4,5,6");
    let restored = stage.restore_and_start("again", &["--target-timeline", "2"]).await;
    wait_promoted(&restored).await;
    assert_eq!(values(&restored).await, "-100,1,2");

    // A damaged history affects only recoveries along it.
    let history = crate::stage::attack::objects(&stage)
        .into_keys()
        .find(|name| name.contains("00000002.history"))
        .expect("a history");
    let file = stage.repository_folder().join(history);
    let sound = std::fs::read(&file).expect("read the history");
    std::fs::write(&file, &sound[..sound.len() / 2]).expect("damage the history");
    for arguments in [&["--target-timeline", "2"][..], &[]] {
        let (code, text) = stage.fails(&[&["restore", "--pgdata", &elsewhere], arguments].concat());
        assert!((40..=43).contains(&code), "{code}: {text}");
        assert!(text.contains("the history of timeline 2 is needed, but cannot be read: "), "{text}");
    }
    let output = stage.run(&["info"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("can be restored: timeline 1"), "{text}");
    let arguments = ["--target-timeline", "1", "--target-time", &moment];
    let planned = stage.json(&[&["restore", "--plan", "--pgdata", &elsewhere], &arguments[..]].concat());
    assert!(planned["notes"].to_string().contains("PostgreSQL asks for it when recovery ends"), "{planned}");
    let restored = stage.restore_and_start("beside-the-damage", &arguments).await;
    let paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'";
    restored.wait_for(paused, LIMIT).await.unwrap_or_else(|e| panic!("{e}\n{}", restored.log_text()));
    assert_eq!(values(&restored).await, "1,2,3,4,5,6");
    // Before it opens for writing, PostgreSQL asks for the histories of all higher timelines, to find a free number.
    std::fs::write(&file, &sound).expect("repair the history");
    restored.sql("SELECT pg_wal_replay_resume()").await.expect("resume");
    wait_promoted(&restored).await;
    stage.ok(&["restore", "--plan", "--target-timeline", "2", "--pgdata", &elsewhere]);
}

/// A copy that was restored with `--no-archiving` is promoted, writes, and ends: the archive of production is
/// unchanged, and the copy counts nothing as archived.
#[tokio::test(flavor = "multi_thread")]
async fn a_drill_without_archiving_leaves_the_archive_unchanged() {
    let Some(stage) = Stage::start(18, Plan { wal_segment_mib: 1, ..Plan::default() }).await else {
        return;
    };
    stage.cluster.sql("CREATE TABLE rows (n int); INSERT INTO rows VALUES (1), (2)").await.expect("write");
    stage.ok(&["backup"]);
    stage.archive_now().await;
    let archived = || stage.json(&["wal", "list"])["repositories"][0]["claims"].clone();
    let before = archived();
    assert_eq!(before[0]["timelines"].as_array().map(Vec::len), Some(1), "{before}");

    let target = stage.target("drill");
    stage.ok(&["restore", "--no-archiving", "--pgdata", &target.display().to_string()]);
    let mut drill = Cluster::adopt(&stage.installation, &target).expect("take over the restored folder");
    // The command itself would work: only its switch is off.
    let config = configuration(&stage, "drill", &drill);
    let command = format!("{} --config {} wal push %p", stage.holdfast.display(), config.display());
    drill.override_setting("archive_command", &command);
    drill.start().await.unwrap_or_else(|e| panic!("start the drill: {e}\n{}", drill.log_text()));
    wait_promoted(&drill).await;
    assert_eq!(drill.value("SHOW archive_mode").await.expect("ask"), "off");
    drill.sql("INSERT INTO rows VALUES (-100)").await.expect("write on the drill");
    drill.sql("SELECT pg_switch_wal()").await.expect("switch");
    drill.sql("INSERT INTO rows VALUES (-101)").await.expect("write on the drill");
    let counted = drill.value("SELECT archived_count + failed_count FROM pg_stat_archiver").await.expect("ask");
    assert_eq!(counted, "0");
    assert_eq!(values(&drill).await, "-101,-100,1,2");
    // A shutdown waits for the archiver, where there is one.
    drill.stop(Shutdown::Fast).await.expect("stop the drill");
    assert_eq!(archived(), before);

    stage.cluster.sql("INSERT INTO rows VALUES (3)").await.expect("write");
    stage.archive_now().await;
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(values(&restored).await, "1,2,3");
}
