//! How well the operator performs, measured on the test bed and printed with the goals. The test fails only if
//! something does not happen at all: figures from a shared machine are for reading, not for passing.

use crate::stage::Stage;
use crate::stage::sql::query_when_connected;
use holdfast_testkit::random::number_in;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_mins(5);

/// Failovers in a test run. A meaningful median needs ten: `make measure-kube`.
const FAILOVERS: u64 = 3;

#[test]
fn alone_start_and_failovers_beside_their_goals() {
    let stage = Stage::new("failovers");
    let start = Instant::now();
    stage.apply(&stage.archived_cluster("main", 3, ""));
    stage.wait_ready("main", 3, LIMIT);
    stage.sql("main", "CREATE TABLE first (n int); INSERT INTO first VALUES (1)");
    report("three instances take writes after kubectl apply", start.elapsed(), "60 s");

    let writer = stage.write_rows("main");
    let mut pauses = Vec::new();
    for _ in 0..number_in("HOLDFAST_FAILOVERS").unwrap_or(FAILOVERS).max(1) {
        writer.next(LIMIT);
        let old = stage.primary("main");
        stage.kubectl(&["delete", "pod", &old, "--wait=false"]);
        let deleted = Instant::now();
        stage.wait("clusters.holdfast.dev", "main", "another primary", LIMIT, |object| {
            object["status"]["currentPrimary"].as_str().filter(|name| *name != old).map(|_| ())
        });
        writer.next(LIMIT);
        pauses.push(deleted.elapsed());
        stage.wait_ready("main", 3, LIMIT);
    }
    pauses.sort();
    println!("failovers: {pauses:?}");
    report("a deleted primary is replaced, median", pauses[pauses.len() / 2], "10 s");
    let written = writer.stop();
    written.assert_kept(&stage.numbers("main"));
    report_memory(&stage);
}

#[test]
fn alone_backup_and_recovery_beside_the_command() {
    let stage = Stage::new("measures");
    stage.apply(&stage.archived_cluster("main", 1, ""));
    stage.wait_ready("main", 1, LIMIT);
    stage.sql("main", "CREATE TABLE first (n int); INSERT INTO first VALUES (1)");
    // As many as make a gigabyte when it is measured: `make measure-kube`.
    let rows = number_in("HOLDFAST_BULK_ROWS").unwrap_or(100_000);
    stage.sql(
        "main",
        &format!("CREATE TABLE bulk AS SELECT i, repeat(md5(i::text), 8) AS text FROM generate_series(1, {rows}) i"),
    );
    let primary = stage.primary("main");
    // The cluster comes to rest first, so that the backup is measured and not the WAL of a later vacuum.
    stage.sql("main", "VACUUM (FREEZE, ANALYZE) bulk");
    stage.psql(&primary, "CHECKPOINT");
    stage.psql(&primary, "SELECT pg_switch_wal()");
    let bytes = stage.value("main", "SELECT pg_database_size(current_database())");
    println!("database: {bytes} bytes");
    let start = Instant::now();
    stage.back_up("main", "measured", "  target: primary\n");
    let by_resource = start.elapsed();
    let start = Instant::now();
    let program = "/controller/holdfast";
    stage.kubectl(&[
        "exec",
        &primary,
        "-c",
        "postgres",
        "--",
        program,
        "--config",
        "/controller/holdfast.toml",
        "backup",
        "--start-fast",
    ]);
    let by_command = start.elapsed();
    compare("a Backup to completed, beside the command", by_resource, by_command, 1.3);

    let start = Instant::now();
    stage.apply(&stage.archived_cluster(
        "copy",
        1,
        &format!(
            "  bootstrap:\n    recovery:\n      database: app\n      owner: app\n      source: main\n  externalClusters:\n  - name: main\n    barmanObjectStore:\n{}",
            stage.object_store(6)
        ),
    ));
    for (kind, name) in [("service", "copy-rw"), ("secret", "copy-app")] {
        stage.until("a way to the copy", LIMIT, || stage.find(kind, name).map(drop));
    }
    let rows = query_when_connected(&stage.connection("copy", "copy-rw"), "SELECT count(*) FROM first");
    assert_eq!(rows.expect("ask the copy"), [["1"]]);
    let by_resource = start.elapsed();
    // The same without the operator: the command, and a server on the result, until it answers a query.
    let directory = "/var/lib/postgresql/data/measured";
    let in_pod = ["exec", &primary, "-c", "postgres", "--"];
    let start = Instant::now();
    let restore = [program, "--config", "/controller/holdfast.toml", "restore", "--pgdata", directory];
    stage.kubectl(&[&in_pod[..], &restore[..]].concat());
    let by_command = start.elapsed();
    let settings =
        "-c archive_mode=off -c listen_addresses= -c ssl=off -c unix_socket_directories=/tmp -c shared_buffers=128MB";
    let by_hand = format!(
        "pg_ctl -D {directory} -o '{settings}' -l /tmp/measured.log -w -t 600 start >/dev/null && until [ \"$(psql -h /tmp -U postgres \
         -Atc 'SELECT NOT pg_is_in_recovery()' app)\" = t ]; do sleep 0.05; done && psql -h /tmp -U postgres -Atc 'SELECT count(*) FROM first' app"
    );
    let rows = stage.kubectl(&[&in_pod[..], &["sh", "-c", &by_hand]].concat());
    assert_eq!(rows.trim(), "1");
    let by_command_and_server = start.elapsed();
    stage.kubectl(&[&in_pod[..], &["pg_ctl", "-D", directory, "-m", "immediate", "stop"]].concat());
    compare(
        "a recovery to its first query, beside the command and a server's start",
        by_resource,
        by_command_and_server,
        1.3,
    );
    compare("the same, beside the command alone", by_resource, by_command, 1.3);

    report_memory(&stage);
}

fn report_memory(stage: &Stage) {
    let memory = stage.kubectl(&[
        "-n",
        "holdfast-system",
        "exec",
        "deployment/holdfast-operator",
        "--",
        "cat",
        "/proc/1/status",
    ]);
    let peak = memory.lines().find(|line| line.starts_with("VmHWM")).expect("the peak of its memory").to_owned();
    println!("operator's memory at its peak: {peak} (goal: below 102400 kB)");
}

fn report(what: &str, took: Duration, goal: &str) {
    println!("{what}: {:.1} s (goal: {goal})", took.as_secs_f64());
}

fn compare(what: &str, took: Duration, reference: Duration, goal: f64) {
    let ratio = took.as_secs_f64() / reference.as_secs_f64();
    println!(
        "{what}: {:.1} s and {:.1} s, ratio {ratio:.2} (goal: {goal})",
        took.as_secs_f64(),
        reference.as_secs_f64()
    );
}
