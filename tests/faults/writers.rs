//! Other content under the same name, and two writers at the same time: two equal pushes both succeed and store one
//! object, and a push of other content is refused.

use std::time::Duration;

use super::kit::{archive, http_faults, no_divergence, unarchived};
use crate::stage::attack::{Victim, fill_segments, objects, segment_path, segments, wal_object};
use crate::stage::{Seal, Stage, StoreKind};

/// The exit code "diverged".
const DIVERGED: i32 = 44;

#[tokio::test(flavor = "multi_thread")]
async fn other_content_under_a_name_is_a_hard_stop() {
    for store in [StoreKind::S3, StoreKind::Directory] {
        let Some(stage) = Stage::start(18, unarchived(store, Seal::KeyFile)).await else { return };
        fill_segments(&stage.cluster, 3).await;
        let segment = segments(stage.cluster.data(), "ready").first().expect("a segment").clone();
        let path = segment_path(stage.cluster.data(), &segment);
        // Another server of the same cluster came first: the same header, but another record.
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

        // PostgreSQL itself: it keeps the segment and all later ones, however often it tries.
        archive(&stage).await;
        stage.cluster.sql("SELECT pg_stat_reset_shared('archiver'); SELECT pg_switch_wal()").await.expect("reset");
        let failed = format!("SELECT failed_count >= 2 AND last_failed_wal = '{segment}' FROM pg_stat_archiver");
        stage.cluster.wait_for(&failed, Duration::from_mins(3)).await.expect("archiving fails");
        stage.cluster.sql("CHECKPOINT").await.expect("checkpoint");
        assert!(path.exists() && segments(stage.cluster.data(), "ready").contains(&segment));
        let log = stage.cluster.log_text();
        assert!(log.contains(&format!("exit code {DIVERGED}")), "{log}");
        assert_eq!(wal_object(&stage, &segment).expect("its object"), stored, "the stored object was touched");
        assert_eq!(ledger().len(), 1, "one record covers all of it: {:?}", ledger());
        let fetched = stage.scratch.path().join("fetched");
        stage.ok(&["wal", "get", &segment, &fetched.display().to_string()]);
        assert!(std::fs::read(fetched).expect("read what was fetched") == other, "the first content stays");
    }
}

async fn two_pushes(store: StoreKind) {
    let Some(stage) = Stage::start(18, unarchived(store, Seal::KeyFile)).await else { return };
    let proxy = stage.s3.is_some().then(|| http_faults(&stage));
    if let Some(proxy) = &proxy {
        proxy.one_at_a_time();
    }
    // Two hosts, or two archivers by mistake: the same configuration, but separate spools.
    let spool = stage.scratch.path().join("spool").display().to_string();
    let second = stage.config_text().replace(&spool, &format!("{spool}-2"));
    let second = stage.write_config("second.toml", &second);
    fill_segments(&stage.cluster, 10).await;
    let ready = segments(stage.cluster.data(), "ready");
    for (round, segment) in ready.iter().take(6).enumerate() {
        let path = segment_path(stage.cluster.data(), segment).display().to_string();
        // Each pushes the whole queue at first, and then the rest of it.
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
