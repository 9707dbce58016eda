//! Recovery on a real Kubernetes: to a time, over three timelines, from the bucket alone. Also recoveries that are
//! refused.

use crate::stage::Stage;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(5);

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

fn wait_timeline(stage: &Stage, cluster: &str, timeline: u32) {
    stage.wait("clusters.holdfast.dev", cluster, &format!("timeline {timeline}"), LIMIT, |object| {
        (object["status"]["timelineID"] == timeline).then_some(())
    });
}

/// Waits until the bootstrap of a cluster has stopped with an error that contains these words.
fn wait_refused(stage: &Stage, cluster: &str, words: &str) {
    stage.wait("clusters.holdfast.dev", cluster, &format!("the refusal: {words}"), LIMIT, |object| {
        object["status"]["bootstrap"]["error"].as_str().filter(|error| error.contains(words)).map(drop)?;
        object["status"]["blockedBy"]["what"].is_string().then_some(())
    });
}

/// Two failovers, so three timelines. Then recoveries to a time on each of them, to the end, and from the bucket alone.
#[test]
fn every_moment_of_three_timelines_comes_back() {
    let stage = Stage::new("recovery");
    stage.apply(&stage.archived_cluster("main", 3, ""));
    stage.wait_ready("main", 3, LIMIT);
    let writer = stage.write_rows("main");
    stage.back_up("main", "base", "");

    let mut marks = Vec::new();
    for failover in 0..3 {
        writer.next(LIMIT);
        std::thread::sleep(Duration::from_secs(2));
        // What is seen before the time was committed by then, and what is not seen after it was not, except for one row
        // that was being committed.
        let last = "SELECT max(n) FROM numbers";
        let mark = stage.sql("main", &format!("{last}; SELECT clock_timestamp(); {last}"));
        let count = |row: &[String]| row[0].parse::<u64>().unwrap();
        marks.push((mark[1][0].clone(), count(&mark[0])..=count(&mark[2]) + 1));
        std::thread::sleep(Duration::from_secs(2));
        // A recovery stops at the first commit after its target time.
        writer.next(LIMIT);
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
    wait_timeline(&stage, "main", 3);
    stage.archive_wal("main", LIMIT);

    // Whatever happens to the cluster, the bucket is enough.
    stage.kubectl(&["delete", "clusters.holdfast.dev", "main"]);
    stage.kubectl(&["delete", "backups.holdfast.dev", "--all"]);
    for (number, (moment, counts)) in marks.iter().enumerate() {
        let name = format!("moment{number}");
        let target = format!("      recoveryTarget:\n        targetTime: \"{moment}\"\n");
        stage.apply(&recovered(&stage, &name, "main", &target));
        stage.wait_ready(&name, 1, LIMIT);
        let found = stage.numbers(&name);
        assert!(counts.contains(&(found.len() as u64)), "{moment} has {counts:?} rows, found {}", found.len());
        assert_eq!(found.last().copied(), Some(found.len() as u64), "no row is missing in between");
        stage.kubectl(&["delete", "clusters.holdfast.dev", &name]);
    }
    stage.apply(&recovered(&stage, "latest", "main", ""));
    stage.wait_ready("latest", 1, LIMIT);
    written.assert_kept(&stage.numbers("latest"));
    wait_timeline(&stage, "latest", 4);
    // It has an archive of its own, and a backup of it is possible at once.
    stage.back_up("latest", "own", "");
}

/// An unreachable target is refused before anything is written, and the message gives the window of reachable times.
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
    wait_refused(&stage, "early", "2001-01-01");

    // A new cluster does not write into an archive that has an owner. The message names that owner.
    stage.apply(
        &stage
            .archived_cluster("second", 1, "")
            .replace("    barmanObjectStore:\n", "    barmanObjectStore:\n      serverName: main\n"),
    );
    wait_refused(&stage, "second", &format!("{}/main", stage.namespace));
}

/// The pod is killed while files are restored: the recovery continues, and the rows are there.
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
