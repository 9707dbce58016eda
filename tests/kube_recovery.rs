//! Recovery on a real Kubernetes: to a moment, over three timelines, from the bucket alone, and what is refused.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a failed set-up fails the test")]

mod kube_stage;

use kube_stage::Stage;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(4);

/// A cluster that reads the archive of another as its source. `recovery` is written below `bootstrap.recovery`.
fn recovered(stage: &Stage, name: &str, source: &str, recovery: &str) -> String {
    stage.archived_cluster(
        name,
        1,
        &format!(
            "  bootstrap:\n    recovery:\n      database: app\n      owner: app\n      source: {source}\n{recovery}  externalClusters:\n  - name: {source}\n    barmanObjectStore:\n{}",
            stage.object_store(6)
        ),
    )
}

/// Two failovers, so three timelines; then recoveries to a moment on each, to the end, and from the bucket alone.
#[test]
fn every_moment_of_three_timelines_comes_back() {
    let stage = Stage::new("recovery");
    stage.apply(&stage.archived_cluster("main", 3, ""));
    stage.wait_ready("main", 3, LIMIT);
    let writer = stage.write_rows("main");
    stage.back_up("main", "base", "");

    let mut marks = Vec::new();
    for failover in 0..3 {
        writer.next(Duration::from_mins(1));
        std::thread::sleep(Duration::from_secs(2));
        // Taken between two rows: everything up to this count, and nothing after, was committed by then.
        let mark = stage.sql("main", "SELECT clock_timestamp()::text, (SELECT max(n) FROM numbers)::text");
        marks.push((mark[0][0].clone(), mark[0][1].parse::<u64>().unwrap()));
        std::thread::sleep(Duration::from_secs(2));
        if failover < 2 {
            let old = stage.primary("main");
            stage.kubectl(&["delete", "pod", &old, "--wait=false"]);
            stage.wait("clusters.holdfast.dev", "main", "another primary", LIMIT, |object| {
                object["status"]["currentPrimary"].as_str().filter(|name| *name != old).map(|_| ())
            });
            stage.wait_ready("main", 3, LIMIT);
        }
    }
    let written = writer.stop();
    assert_eq!(stage.get("clusters.holdfast.dev", "main")["status"]["timelineID"], 3);
    let primary = stage.primary("main");
    stage.psql(&primary, "SELECT pg_switch_wal()");
    let segment = stage.psql(&primary, "SELECT pg_walfile_name(pg_current_wal_lsn() - 1)");
    stage.wait("clusters.holdfast.dev", "main", &format!("{segment} in the archive"), LIMIT, |_| {
        let archived = stage.psql(&primary, "SELECT last_archived_wal FROM pg_stat_archiver");
        (archived >= segment).then_some(())
    });

    // Whatever happens to the cluster, the bucket is enough.
    stage.kubectl(&["delete", "clusters.holdfast.dev", "main"]);
    stage.kubectl(&["delete", "backups.holdfast.dev", "--all"]);
    for (number, (moment, count)) in marks.iter().enumerate() {
        let name = format!("moment{number}");
        let target = format!("      recoveryTarget:\n        targetTime: \"{moment}\"\n");
        stage.apply(&recovered(&stage, &name, "main", &target));
        stage.wait_ready(&name, 1, LIMIT);
        let found = stage.numbers(&name);
        // Rows in flight at the moment itself may be on either side.
        assert!(
            (*count..=count + 2).contains(&(found.len() as u64)),
            "{moment} has rows 1 to {count}, found {}",
            found.len()
        );
        assert_eq!(found.last().copied(), Some(found.len() as u64), "no row is missing in between");
        stage.kubectl(&["delete", "clusters.holdfast.dev", &name]);
    }
    stage.apply(&recovered(&stage, "latest", "main", ""));
    let cluster = stage.wait_ready("latest", 1, LIMIT);
    written.assert_kept(&stage.numbers("latest"));
    assert_eq!(cluster["status"]["timelineID"], 4);
    // It has an archive of its own and can be backed up at once.
    stage.back_up("latest", "own", "");
}

/// A target that cannot be reached is refused before anything is written, with the window that can be.
#[test]
fn an_unreachable_target_is_refused_with_the_window() {
    let stage = Stage::new("refused");
    stage.apply(&stage.archived_cluster("main", 1, ""));
    stage.wait_ready("main", 1, LIMIT);
    stage.back_up("main", "base", "");
    stage.apply(&recovered(
        &stage,
        "early",
        "main",
        "      recoveryTarget:\n        targetTime: \"2001-01-01 00:00:00+00\"\n",
    ));
    let cluster = stage.wait("clusters.holdfast.dev", "early", "the refusal", LIMIT, |object| {
        object["status"]["blockedBy"]["what"].is_string().then(|| object.clone())?;
        object["status"]["bootstrap"]["error"].is_string().then(|| object.clone())
    });
    let error = cluster["status"]["bootstrap"]["error"].as_str().unwrap();
    assert!(error.contains("2001-01-01"), "{error}");

    // A new cluster does not write into an archive that has an owner, and says who that is.
    stage.apply(
        &stage
            .archived_cluster("second", 1, "")
            .replace("    barmanObjectStore:\n", "    barmanObjectStore:\n      serverName: main\n"),
    );
    let cluster = stage.wait("clusters.holdfast.dev", "second", "the refusal", LIMIT, |object| {
        object["status"]["bootstrap"]["error"].is_string().then(|| object.clone())
    });
    let error = cluster["status"]["bootstrap"]["error"].as_str().unwrap();
    assert!(error.contains(&format!("{}/main", stage.namespace)), "the owner is named: {error}");
}

/// The pod is killed while files are restored: the recovery goes on and the rows are there.
#[test]
fn a_recovery_survives_the_death_of_its_pod() {
    let stage = Stage::new("resumed");
    stage.apply(&stage.archived_cluster("main", 1, ""));
    stage.wait_ready("main", 1, LIMIT);
    stage.sql("main", "CREATE TABLE bulk AS SELECT i, md5(i::text) AS text FROM generate_series(1, 1000000) i");
    stage.back_up("main", "base", "");
    stage.apply(&recovered(&stage, "copy", "main", ""));
    for _ in 0..2 {
        stage.wait("pods", "copy-1", "a running pod", LIMIT, |object| {
            (object["status"]["phase"] == "Running" && object["metadata"]["deletionTimestamp"].is_null()).then_some(())
        });
        std::thread::sleep(Duration::from_millis(1500));
        stage.kubectl(&["delete", "pod", "copy-1", "--grace-period=0", "--force"]);
    }
    stage.wait_ready("copy", 1, LIMIT);
    assert_eq!(stage.value("copy", "SELECT count(*) FROM bulk"), "1000000");
}
