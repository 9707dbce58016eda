//! The session that keeps the server in backup mode: no time limit of the server ends it, and its loss is noticed at
//! once.

use std::process::Child;
use std::time::{Duration, Instant};

use crate::stage::held::SlowStore;
use crate::stage::proof::bulk;
use crate::stage::{Plan, Seal, Stage};
use holdfast_testkit::postgres::Shutdown;

fn plan() -> Plan {
    Plan { seal: Seal::None, compression: "none", wal_segment_mib: 1, ..Plan::default() }
}

/// The backup ends by itself while its store still does not answer. Otherwise it would wait for the store.
fn ends_for(mut backup: Child, reason: &str) {
    let start = Instant::now();
    while backup.try_wait().expect("look at the backup").is_none() {
        assert!(start.elapsed() < Duration::from_secs(90), "the backup continues without its session");
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = backup.wait_with_output().expect("wait for the backup");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(50), "{message}");
    assert!(message.contains("error: the session with PostgreSQL was lost: "), "{message}");
    assert!(message.contains(reason), "{message}");
    assert!(message.contains("while: copying the data directory"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_ends_the_copy() {
    let Some(mut stage) = Stage::start(18, plan()).await else { return };
    bulk(&stage.cluster, "load", 48).await;
    let store = SlowStore::of(&stage);
    let backup = store.hold(&stage, &["backup"]).await;
    let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'holdfast'";
    assert_eq!(stage.cluster.value(ended).await.expect("end the session"), "1");
    // Mostly with the server's own reason. A request that is just being sent can meet the closed connection first.
    ends_for(backup, "hint:  the backup failed because its session ended");

    store.proxy.resume();
    let backup = store.hold(&stage, &["backup"]).await;
    stage.cluster.stop(Shutdown::Immediate).await.expect("stop the server");
    stage.cluster.start().await.expect("start the server");
    ends_for(backup, "hint:  the backup failed because its session ended");

    // Nothing remains that could disturb the next backup.
    store.let_go();
    stage.ok(&["backup"]);
    let listed = stage.ok(&["list"]);
    assert!(!listed.contains("unfinished"), "{listed}");
    let restored = stage.restore_and_start("restored", &[]).await;
    crate::stage::wait_promoted(&restored).await;
    assert!(restored.value("SELECT count(*) > 0 FROM load").await.expect("count") == "t");
}

/// Every limit that a user may have set for sessions, in the server's configuration and for the role.
#[tokio::test(flavor = "multi_thread")]
async fn no_limit_of_the_server_ends_a_backup() {
    for major in [19, 18, 14, 13] {
        let Some(stage) = Stage::start(major, plan()).await else { continue };
        bulk(&stage.cluster, "load", 24).await;
        bulk(&stage.cluster, "more", 24).await;
        let mut settings = vec![
            ("statement_timeout", "2s"),
            ("lock_timeout", "2s"),
            ("idle_in_transaction_session_timeout", "2s"),
            ("default_transaction_isolation", "serializable"),
            ("search_path", "nowhere"),
            ("datestyle", "German"),
            ("timezone", "Asia/Kathmandu"),
        ];
        if major >= 14 {
            settings.push(("idle_session_timeout", "2s"));
        }
        if major >= 17 {
            settings.push(("transaction_timeout", "2s"));
        }
        for (name, value) in settings {
            stage.cluster.sql(&format!("ALTER SYSTEM SET {name} = '{value}'")).await.expect("set");
            stage.cluster.sql(&format!("ALTER ROLE postgres SET {name} = '{value}'")).await.expect("set");
        }
        stage.cluster.reload().await.expect("reload");
        let store = SlowStore::of(&stage);
        let backup = store.hold(&stage, &["backup"]).await;
        // Longer than each limit, but not longer than the store's requests are repeated.
        tokio::time::sleep(Duration::from_secs(6)).await;
        store.let_go();
        let output = backup.wait_with_output().expect("wait for the backup");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "PostgreSQL {major}: {message}");
        stage.ok(&["check"]);

        // The start of a backup is one long statement while it waits for a spread checkpoint.
        let slow_start = stage.config_text().replace("start_fast = true", "start_fast = false");
        stage.write_config("holdfast.toml", &slow_start);
        stage.cluster.sql("UPDATE public.more SET id = id WHERE id % 8 = 0").await.expect("dirty the buffers");
        let backup = stage.spawn(&["backup"]);
        let waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'active' \
                     AND query LIKE 'SELECT %pg_%start%' AND pid <> pg_backend_pid()";
        stage.cluster.wait_for(waits, Duration::from_mins(1)).await.expect("wait for the statement");
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(stage.cluster.value(waits).await.expect("look at the session"), "t", "it does not wait any more");
        stage.cluster.sql("CHECKPOINT").await.expect("hurry");
        let output = backup.wait_with_output().expect("wait for the backup");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "PostgreSQL {major}: {message}");
    }
}
