//! A cluster on a real Kubernetes: bootstrap, its objects, scaling, failover, and the return of the old primary.

use crate::stage::Stage;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_mins(5);

/// Three instances start, follow, and survive the loss of their primary. The old one follows again. Scaling works in
/// both directions.
#[test]
fn three_instances_fail_over_and_scale() {
    let stage = Stage::new("cluster");
    stage.apply(&stage.archived_cluster(
        "main",
        3,
        "  bootstrap:\n    initdb:\n      database: shop\n      owner: seller\n      postInitApplicationSQL:\n      - CREATE TABLE greeting \
         (word text)\n      - INSERT INTO greeting VALUES ('hello')\n      - GRANT ALL ON greeting TO seller\n  postgresql:\n    \
         parameters:\n      work_mem: 7MB\n",
    ));
    let cluster = stage.wait_ready("main", 3, LIMIT);
    assert_eq!(cluster["status"]["currentPrimary"], "main-1");
    assert_eq!(stage.value("main", "SELECT word FROM greeting"), "hello");
    assert_eq!(stage.value("main", "SHOW work_mem"), "7MB");
    assert_eq!(stage.value("main", "SELECT current_user || '@' || current_database()"), "seller@shop");

    // Standbys stream through slots of their own, and the read-only service leads only to them.
    let streaming = "SELECT count(*) FROM pg_replication_slots WHERE active AND slot_name LIKE '_holdfast_%'";
    stage.wait_psql("main-1", streaming, "2", LIMIT);
    assert_eq!(stage.sql_through("main", "main-ro", "SELECT pg_is_in_recovery()::text"), [["true"]]);

    // A changed parameter takes effect without help: by reload, or, if it needs one, by an ordered restart. A standby
    // must not have fewer connections than its primary: a raised value reaches the standbys first, a lowered value the
    // primary.
    let began = |pod: &str| {
        stage
            .psql(pod, "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint")
            .parse::<u64>()
            .unwrap()
    };
    for (memory, connections, primary_first) in [("9MB", "157", false), ("8MB", "61", true)] {
        let parameters = format!(
            r#"{{"spec":{{"postgresql":{{"parameters":{{"work_mem":"{memory}","max_connections":"{connections}"}}}}}}}}"#
        );
        stage.kubectl(&["patch", "clusters.holdfast.dev", "main", "--type=merge", "-p", &parameters]);
        let changed = Instant::now();
        let wanted = format!("{memory}{connections}");
        let settings = "SELECT current_setting('work_mem') || current_setting('max_connections')";
        while !["main-1", "main-2", "main-3"]
            .iter()
            .all(|pod| stage.psql_if_up(pod, settings).as_ref() == Some(&wanted))
        {
            if changed.elapsed() > LIMIT {
                stage.show();
                panic!("{wanted} did not reach every instance");
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        stage.wait_ready("main", 3, LIMIT);
        assert_eq!(stage.primary("main"), "main-1", "a restart is not a failover");
        let times = ["main-1", "main-2", "main-3"].map(began);
        for standby in &times[1..] {
            assert_eq!(times[0] < *standby, primary_first, "{wanted}: the primary and its standbys began at {times:?}");
        }
        // No instance is restarted for ever.
        std::thread::sleep(Duration::from_secs(5));
        assert_eq!(["main-1", "main-2", "main-3"].map(began), times);
        let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        stage.wait_psql("main-1", streaming, "2", LIMIT);
    }

    // The primary is deleted during writes: nothing that was acknowledged is lost, and it comes back as a standby.
    let writer = stage.write_rows("main");
    writer.next(LIMIT);
    let old = stage.primary("main");
    stage.kubectl(&["delete", "pod", &old, "--wait=false"]);
    let new = stage.wait("clusters.holdfast.dev", "main", "another primary", LIMIT, |object| {
        object["status"]["currentPrimary"].as_str().filter(|name| *name != old).map(str::to_owned)
    });
    writer.next(LIMIT);
    stage.wait_ready("main", 3, LIMIT);
    stage.wait("clusters.holdfast.dev", "main", "timeline 2", LIMIT, |object| {
        (object["status"]["timelineID"] == 2).then_some(())
    });
    let written = writer.stop();
    let kept = stage.numbers("main");
    written.assert_kept(&kept);
    assert_eq!(stage.psql(&old, "SELECT pg_is_in_recovery()"), "t");
    assert_eq!(stage.psql(&new, "SELECT pg_is_in_recovery()"), "f");

    // Down to one, then up to two: the primary stays, and a new standby has the rows.
    stage.kubectl(&["scale", "clusters.holdfast.dev", "main", "--replicas=1"]);
    stage.until("an end of the pods that are too many", LIMIT, || (stage.list("pods").len() == 1).then_some(()));
    assert_eq!(stage.wait_ready("main", 1, LIMIT)["status"]["currentPrimary"], new.as_str());
    stage.kubectl(&["scale", "clusters.holdfast.dev", "main", "--replicas=2"]);
    stage.wait_ready("main", 2, LIMIT);
    let counted = stage.sql_through("main", "main-ro", "SELECT count(*) FROM numbers");
    assert_eq!(counted[0][0], kept.len().to_string());
}

/// A primary that is killed (its node stops) is replaced when its Lease ends, and is rewound when it comes back.
#[test]
fn alone_a_lost_node_makes_no_second_writer() {
    let stage = Stage::new("node");
    if !stage.bed.is_own() {
        eprintln!("skipped: nodes of the cluster in KUBECONFIG are not ours to stop");
        return;
    }
    let apart = "  affinity:\n    podAntiAffinityType: required\n";
    stage.apply(&stage.archived_cluster("main", 2, apart));
    stage.wait_ready("main", 2, LIMIT);
    let writer = stage.write_rows("main");
    writer.next(LIMIT);
    let old = stage.primary("main");
    let node = stage.get("pod", &old)["spec"]["nodeName"].as_str().unwrap().to_owned();
    let node = stage.bed.node(node.trim_start_matches("node-").parse().unwrap()).expect("a node of the bed");
    node.stop().expect("stop the node");
    let new = stage.wait("clusters.holdfast.dev", "main", "another primary", LIMIT, |object| {
        object["status"]["currentPrimary"].as_str().filter(|name| *name != old).map(str::to_owned)
    });
    writer.next(LIMIT);
    node.start().expect("start the node");
    stage.wait_ready("main", 2, LIMIT);
    let written = writer.stop();
    assert_eq!(stage.psql(&old, "SELECT pg_is_in_recovery()"), "t");
    assert_eq!(stage.psql(&new, "SELECT pg_is_in_recovery()"), "f");
    // Replication is asynchronous: the last commits before the loss may be missing, but none after it, and none in
    // between.
    let found = stage.numbers("main");
    let lost: Vec<_> = written.acknowledged.iter().filter(|number| !found.contains(number)).collect();
    assert!(lost.len() <= 20, "lost rows: {lost:?}");
    let gap = lost.windows(2).any(|pair| *pair[1] != *pair[0] + 1);
    assert!(!gap, "rows are missing in several places: {lost:?}");
}

/// A spec with unknown and unsupported fields is reported in a condition and an Event, and the cluster runs.
#[test]
fn unknown_fields_are_reported() {
    let stage = Stage::new("unknown");
    stage.apply(&Stage::cluster("main", 1, "  hibernate: true\n  postgresql:\n    paramters:\n      work_mem: 4MB\n"));
    stage.wait_ready("main", 1, LIMIT);
    let cluster = stage.get("clusters.holdfast.dev", "main");
    let conditions = cluster["status"]["conditions"].as_array().unwrap();
    let accepted = conditions.iter().find(|condition| condition["type"] == "SpecAccepted").expect("the condition");
    let message = accepted["message"].as_str().unwrap();
    assert!(message.contains("spec.hibernate") && message.contains("spec.postgresql.paramters"), "{message}");
    stage.until("an Event about spec.postgresql.paramters", LIMIT, || {
        let events = stage.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"]);
        events.contains("spec.postgresql.paramters").then_some(())
    });
}
