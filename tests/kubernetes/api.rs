//! An API server that is unreachable, and an operator that is killed in the middle. A running cluster needs neither of
//! them, no wrong instance takes writes, and everything continues where it was.

use crate::stage::Stage;
use crate::stage::processes::{processes, signal_instance};
use crate::stage::sql::{query, query_when_connected};
use rustix::process::{Signal, kill_process};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_mins(5);
/// How long the API server is unreachable: longer than every time of the primary's Lease.
const AWAY: Duration = Duration::from_mins(1);
/// An instance that stops taking writes takes none until the API server is back: much longer than a slow disk blocks.
const STILL: Duration = Duration::from_secs(20);

/// The API server is unreachable until this is dropped, also if the test fails: other tests need it.
struct Away<'a>(&'a Stage);

impl<'a> Away<'a> {
    fn deaf(stage: &'a Stage) -> Self {
        stage.bed.pause_apiserver().expect("stop the API server");
        Self(stage)
    }

    fn killed(stage: &'a Stage) -> Self {
        stage.bed.kill_apiserver().expect("kill the API server");
        Self(stage)
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        self.0.bed.bring_apiserver().expect("bring the API server back");
    }
}

/// The operator is killed. The kubelet starts its container again.
fn kill_operator() {
    let start = Instant::now();
    let found = loop {
        let found = processes("cmdline", &["operator", "run"]);
        if !found.is_empty() {
            break found;
        }
        assert!(start.elapsed() < LIMIT, "no operator runs");
        std::thread::sleep(Duration::from_millis(100));
    };
    for pid in found {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn skipped(stage: &Stage) -> bool {
    if !stage.bed.is_own() {
        eprintln!("skipped: the cluster in KUBECONFIG is not ours to take apart");
    }
    !stage.bed.is_own()
}

/// The API server hangs, and then it is gone. Writes and archiving continue, no failover happens, and afterwards the
/// operator works again.
#[test]
fn alone_without_its_api_server_a_cluster_continues() {
    let stage = Stage::new("noapi");
    if skipped(&stage) {
        return;
    }
    stage.apply(&stage.archived_cluster("main", 3, ""));
    stage.wait_ready("main", 3, LIMIT);
    let writer = stage.write_rows("main");
    writer.next(LIMIT);
    let service = stage.get("service", "main-rw")["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let application = stage.connection_to("main", &service);
    let ask = |statement: &str| query_when_connected(&application, statement).expect("ask the primary");
    let archived = || -> u64 { ask("SELECT archived_count FROM pg_stat_archiver")[0][0].parse().unwrap() };
    for how in ["deaf", "killed"] {
        let before = archived();
        let away = if how == "deaf" { Away::deaf(&stage) } else { Away::killed(&stage) };
        let since = Instant::now();
        // More than one segment of WAL.
        ask("CREATE TABLE IF NOT EXISTS bulk (text text)");
        ask("INSERT INTO bulk SELECT repeat(md5(i::text), 40) FROM generate_series(1, 40000) AS i");
        while since.elapsed() < AWAY || archived() <= before {
            assert!(since.elapsed() < LIMIT, "nothing was archived while the API server was {how}");
            writer.next(STILL);
            std::thread::sleep(Duration::from_millis(500));
        }
        drop(away);
        writer.next(LIMIT);
        let cluster = stage.wait_ready("main", 3, LIMIT);
        assert_eq!(cluster["status"]["currentPrimary"], "main-1", "no failover while it was {how}");
        assert_eq!(cluster["status"]["timelineID"], 1, "no promotion while it was {how}");
    }
    let pause = writer.so_far().longest_pause;
    println!("the longest pause of the writer in two times {AWAY:?} without an API server: {pause:?}");
    assert!(pause < STILL, "no writes for {pause:?}");
    // The operator is the leader again, and does what is requested.
    stage.kubectl(&["patch", "clusters.holdfast.dev", "main", "--type=merge", "-p", r#"{"spec":{"instances":2}}"#]);
    stage.wait_ready("main", 2, LIMIT);
    writer.stop().assert_kept(&stage.numbers("main"));
}

/// Without the API server nobody can take over: the standby stays a standby as long as that lasts, and takes over
/// afterwards.
#[test]
fn alone_nobody_takes_writes_without_the_api_server() {
    let stage = Stage::new("nowriter");
    if skipped(&stage) {
        return;
    }
    stage.apply(&stage.archived_cluster("main", 2, ""));
    stage.wait_ready("main", 2, LIMIT);
    let writer = stage.write_rows("main");
    writer.next(LIMIT);
    let primary = stage.connection_to("main", &stage.address("main-1"));
    let standby = stage.connection_to("main", &stage.address("main-2"));
    let away = Away::deaf(&stage);
    // The kubelet starts its container again: an instance that cannot read its Cluster waits.
    assert!(signal_instance(&stage, "main-1", Signal::KILL) > 0, "main-1 has no processes");
    let killed = Instant::now();
    while query(&primary, "SELECT 1").is_ok() {
        assert!(killed.elapsed() < LIMIT, "main-1 does not die");
    }
    // The writer receives what had been acknowledged.
    std::thread::sleep(Duration::from_secs(1));
    let (since, acknowledged) = (Instant::now(), writer.so_far().acknowledged.len());
    while since.elapsed() < Duration::from_secs(40) {
        if let Ok(rows) = query(&standby, "SELECT pg_is_in_recovery()::text") {
            assert_eq!(rows, [["true"]], "a second writer after {:?}", since.elapsed());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(writer.so_far().acknowledged.len(), acknowledged, "somebody took writes");
    drop(away);
    writer.next(LIMIT);
    stage.wait_ready("main", 2, LIMIT);
}

/// Killed while a cluster is created, and during a failover.
#[test]
fn alone_a_killed_operator_is_continued() {
    let stage = Stage::new("killed");
    if skipped(&stage) {
        return;
    }
    stage.apply(&stage.archived_cluster("main", 3, ""));
    stage.wait("clusters.holdfast.dev", "main", "its first instance", LIMIT, |object| {
        object["status"]["instanceNames"].is_array().then_some(())
    });
    kill_operator();
    stage.wait_ready("main", 3, LIMIT);
    assert_eq!(stage.list("pods").len(), 3);
    assert_eq!(stage.list("pvc").len(), 3);
    let writer = stage.write_rows("main");
    writer.next(LIMIT);
    stage.kubectl(&["delete", "pod", "main-1", "--wait=false"]);
    std::thread::sleep(Duration::from_millis(300));
    kill_operator();
    let since = Instant::now();
    stage.wait("clusters.holdfast.dev", "main", "another primary", LIMIT, |object| {
        object["status"]["currentPrimary"].as_str().filter(|name| *name != "main-1").map(|_| ())
    });
    println!("a failover whose operator was killed took {:?}", since.elapsed());
    writer.next(LIMIT);
    stage.wait_ready("main", 3, LIMIT);
    writer.stop().assert_kept(&stage.numbers("main"));
}
