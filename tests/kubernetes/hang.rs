//! An instance manager that hangs while its PostgreSQL lives: there are never two primaries that take writes, and the
//! cluster recovers.

use crate::stage::Stage;
use crate::stage::processes::signal_manager;
use crate::stage::sql::{query, until_it_fails};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_mins(3);
/// If the manager is silent, PostgreSQL ends within this time: less than the duration of the primary's Lease.
const ENDED_WITHIN: Duration = Duration::from_secs(10);

/// The identity of the container: it changes with a restart, and with another pod.
fn container(stage: &Stage, pod: &str) -> String {
    let Some(pod) = stage.find("pod", pod) else { return String::new() };
    format!("{} {}", pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
}

/// If the manager hangs for a moment, nothing happens. If it hangs for good, PID 1 ends its PostgreSQL before another
/// instance takes writes.
#[test]
fn alone_a_primary_whose_manager_hangs_stops_writing() {
    let stage = Stage::new("hang");
    if !stage.bed.is_own() {
        eprintln!("skipped: the processes of the cluster in KUBECONFIG cannot be reached");
        return;
    }
    stage.apply(&stage.archived_cluster("main", 2, ""));
    stage.wait_ready("main", 2, LIMIT);
    stage.sql("main", "CREATE TABLE beside (time timestamptz DEFAULT clock_timestamp())");
    let writer = stage.write_rows("main");
    writer.next(LIMIT);

    let first = container(&stage, "main-1");
    signal_manager(&stage, "main-1", Signal::STOP);
    std::thread::sleep(Duration::from_secs(3));
    signal_manager(&stage, "main-1", Signal::CONT);
    // Longer than every time of the Lease.
    std::thread::sleep(Duration::from_secs(15));
    assert_eq!(container(&stage, "main-1"), first, "a short pause ended the container");
    let cluster = stage.wait_ready("main", 2, LIMIT);
    assert_eq!(cluster["status"]["currentPrimary"], "main-1");
    assert_eq!(cluster["status"]["timelineID"], 1);

    let old = stage.connection_to("main", &stage.address("main-1"));
    let new = stage.connection_to("main", &stage.address("main-2"));
    // An application that keeps its connection open.
    let old = std::thread::spawn(move || until_it_fails(&old, "INSERT INTO beside DEFAULT VALUES"));
    stage.until("a write through it", LIMIT, || {
        (stage.value("main", "SELECT count(*) FROM beside") != "0").then_some(())
    });
    let hung = Instant::now();
    signal_manager(&stage, "main-1", Signal::STOP);
    // Either may come first: the old instance, which starts again after its end, or the other one.
    let mut taken = None;
    while container(&stage, "main-1") == first {
        assert!(hung.elapsed() < LIMIT, "nobody ended the instance whose manager hangs");
        let answer = query(&new, "SELECT pg_is_in_recovery()::text");
        if taken.is_none() && answer.is_ok_and(|rows| rows == [["false"]]) {
            taken = Some(Instant::now());
        }
    }
    let last = old.join().unwrap().expect("writes before the manager hung");
    println!("the old primary's last write came {:?} after its manager hung", last.saturating_duration_since(hung));
    assert!(last.saturating_duration_since(hung) < ENDED_WITHIN, "it continued to write");
    if let Some(taken) = taken {
        assert!(last < taken, "two writers for {:?}", last - taken);
    }
    writer.next(LIMIT);
    println!("writes continued for {:?} after it hung", hung.elapsed());
    let cluster = stage.wait_ready("main", 2, LIMIT);

    // If a hanging manager gets the request to end, nobody waits for it: the pod's own time for that is half an hour.
    let standby = if cluster["status"]["currentPrimary"] == "main-1" { "main-2" } else { "main-1" };
    let before = stage.get("pod", standby)["metadata"]["uid"].clone();
    signal_manager(&stage, standby, Signal::STOP);
    stage.kubectl(&["delete", "pod", standby, "--wait=false"]);
    stage.wait("pods", standby, "another pod", LIMIT, |pod| {
        (pod["metadata"]["uid"].is_string() && pod["metadata"]["uid"] != before).then_some(())
    });
    stage.wait_ready("main", 2, LIMIT);
}
