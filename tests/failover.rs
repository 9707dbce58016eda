//! Failover: what the standbys of a cluster do for its archive.

#![expect(clippy::expect_used, clippy::panic, reason = "a failed set-up fails the test")]

mod stage;

use std::time::{Duration, Instant};

use holdfast_testkit::postgres::Cluster;
use holdfast_testkit::proxy::TcpProxy;
use holdfast_testkit::rows::{Pace, RowWriter};
use stage::proof::{am_check, find, finish, holds_all};
use stage::{Plan, Stage, wait_promoted};

const LIMIT: Duration = Duration::from_mins(3);

async fn caught_up(standby: &Cluster, primary: &Cluster) {
    let lsn = primary.value("SELECT pg_current_wal_lsn()").await.expect("ask for the LSN");
    let query = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{lsn}', false)");
    standby.wait_for(&query, LIMIT).await.unwrap_or_else(|e| panic!("{e}\n{}", standby.log_text()));
}

/// The `archive_command` of any server of the cluster, as its instance manager has it: a standby keeps, a primary pushes.
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

/// The store is away for the primary, its standby streams on, the primary dies with its segments: what only the standby
/// still has comes into the archive when it is promoted. Nothing is missing, nothing is there twice.
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
    // While the primary archives, the standby lets go of what is there, and stores nothing.
    stage.archive_now().await;
    let last = stage.cluster.value("SELECT last_archived_wal FROM pg_stat_archiver").await.expect("ask");
    let caught = format!("SELECT coalesce(last_archived_wal >= '{last}', false) FROM pg_stat_archiver");
    standby.wait_for(&caught, LIMIT).await.unwrap_or_else(|e| panic!("{e}\n{}", standby.log_text()));

    // The primary's way to the store is cut; it writes on for some segments.
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
    let kept = stage::attack::segments(standby.data(), "ready");
    assert!(kept.len() >= 3, "the standby keeps what the archive does not have: {kept:?}");
    stage.cluster.kill9().await.expect("kill the primary");
    stage.write_config("holdfast.toml", &direct);

    standby.promote().await.expect("promote");
    third.set("primary_conninfo", &standby.connection_string("postgres")).expect("configure");
    third.reload().await.expect("follow the new primary");
    let writer = RowWriter::continue_from(&standby, Pace::default(), &journal).await.expect("go on writing");
    writer.wait_for_rows(journal.rows().len() as u64 + 50).await.expect("write rows");
    let (journal, end_of_all) = finish(writer, &standby).await;
    assert!(end_of_all > end);
    caught_up(&third, &standby).await;
    let began = Instant::now();
    stage.cluster = standby;
    stage.archive_now().await;
    eprintln!("everything that waited was archived within {:?}", began.elapsed());
    let waiting = stage::attack::segments(stage.cluster.data(), "ready");
    assert!(waiting.is_empty(), "{waiting:?}\n{}", stage.cluster.log_text());
    for segment in &kept {
        assert!(stage::attack::wal_object(&stage, segment).is_some(), "{segment} is not in the archive");
    }
    // The other standby lets go of all of it, the unfinished end of the first timeline included.
    let began = Instant::now();
    loop {
        let waiting = stage::attack::segments(third.data(), "ready");
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
