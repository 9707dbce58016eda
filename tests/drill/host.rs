//! What this host does to a drill says nothing about a backup: there is no finding, and no entry in the ledger.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use holdfast_testkit::disk::SmallDisk;
use rustix::process::{Pid, Signal, kill_process};

use super::{arguments, drill, place, proven, servers_below};
use crate::stage::attack::{Victim, files_below, objects};
use crate::stage::{Plan, Seal, Stage, StoreKind};

/// The entries of drills in the ledger.
fn entries(stage: &Stage) -> BTreeSet<String> {
    objects(stage).into_keys().filter(|name| name.starts_with("main/ledger/") && name.contains("-drill-")).collect()
}

fn slow_probe(stage: &Stage) -> String {
    let slow = stage.scratch.path().join("slow.sql");
    fs::write(&slow, "SELECT pg_sleep(3600) IS NOT NULL;\n").expect("write a probe");
    slow.to_str().expect("a path").to_owned()
}

fn signal(pid: i32, signal: Signal) {
    // An earlier signal may already have ended one of them.
    let _ = kill_process(Pid::from_raw(pid).expect("a process id"), signal);
}

/// The server process that the lock file names.
fn server_in(place: &Path) -> Option<i32> {
    let below = files_below(place);
    let lock = below.keys().find(|name| name.ends_with("data/postmaster.pid"))?;
    let text = fs::read_to_string(place.join(lock)).ok()?;
    text.lines().next()?.parse().ok().filter(|_| text.contains("ready"))
}

/// systemd sends its signal to every process of the unit, and PostgreSQL may be gone first.
#[tokio::test(flavor = "multi_thread")]
async fn a_drill_that_is_stopped_with_its_server_records_nothing() {
    let Some((stage, _)) = Stage::with_two_backups(Seal::None, StoreKind::Directory).await else { return };
    let (place, probe) = (place(&stage), slow_probe(&stage));
    proven(&drill(&stage, &["--no-amcheck"]));
    let before = entries(&stage);
    assert_eq!(before.len(), 1);
    for _ in 0..3 {
        let mut victim = Victim::start(&stage, &arguments(&stage, &place, &["--no-amcheck", "--probe", &probe]));
        assert!(victim.runs_until(|| server_in(&place).is_some()).await, "{:?}", victim.wait());
        for pid in servers_below(&place) {
            signal(pid, Signal::TERM);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        victim.signal(Signal::TERM);
        let ended = victim.wait();
        assert_eq!(ended.code(), 143, "{ended:?}");
        assert_eq!((fs::read_dir(&place).expect("list").count(), servers_below(&place)), (0, Vec::new()), "{ended:?}");
    }
    // Somebody stops the server alone, or the kernel ends one of its processes.
    for (what, words) in [(Signal::INT, "somebody stopped the server"), (Signal::KILL, "was terminated by signal 9")] {
        let mut victim = Victim::start(&stage, &arguments(&stage, &place, &["--no-amcheck", "--probe", &probe]));
        assert!(victim.runs_until(|| server_in(&place).is_some()).await, "{:?}", victim.wait());
        let server = server_in(&place).expect("a server");
        let pid = match what {
            Signal::KILL => servers_below(&place).into_iter().find(|pid| *pid != server).expect("a process of it"),
            _ => server,
        };
        signal(pid, what);
        let ended = victim.wait();
        assert!(ended.code() == 33 && ended.stderr.contains(words), "{ended:?}");
        assert!(ended.stderr.contains("this says nothing about the backup"), "{ended:?}");
        assert_eq!((fs::read_dir(&place).expect("list").count(), servers_below(&place)), (0, Vec::new()), "{ended:?}");
    }
    assert_eq!(entries(&stage), before);
}

/// A probe sorts more than the disk can hold: the disk keeps its reserve, and the backup can still be proven.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_no_finding() {
    let Some((stage, _)) = Stage::with_two_backups(Seal::None, StoreKind::Directory).await else { return };
    let Some(disk) = SmallDisk::or_skip(400 << 20) else { return };
    let probe = stage.scratch.path().join("large.sql");
    // 4 GB in temporary files.
    fs::write(
        &probe,
        "SELECT count(*) > 0 FROM (SELECT repeat(md5(g::text), 32) AS x FROM generate_series(1, 4000000) g ORDER BY x) s;\n",
    )
    .expect("write a probe");
    for flags in [
        vec!["--no-amcheck", "--probe", probe.to_str().expect("a path")],
        // Without PostgreSQL's own limit, the drill watches the disk.
        vec!["--no-amcheck", "--set", "temp_file_limit=-1", "--probe", probe.to_str().expect("a path")],
    ] {
        let (code, text) = stage.fails(&arguments(&stage, disk.path(), &flags));
        assert!(
            code == 30 && (text.contains("this says nothing about the backup") || text.contains("are needed")),
            "{code} {text}"
        );
        assert_eq!(fs::read_dir(disk.path()).expect("list").count(), 0, "{text}");
    }
    assert_eq!(entries(&stage), BTreeSet::new());
    proven(&drill(&stage, &["--no-amcheck"]));
}

/// If memory is short, the kernel ends the drill's server before all others. It takes little memory and overlooks
/// nothing, whatever the settings of the original are.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_small_and_goes_first() {
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    for (name, value) in [
        ("shared_buffers", "4TB"),
        ("huge_pages", "on"),
        ("min_dynamic_shared_memory", "1TB"),
        ("ignore_invalid_pages", "on"),
        ("ignore_checksum_failure", "on"),
        ("zero_damaged_pages", "on"),
        ("log_min_messages", "panic"),
    ] {
        stage.cluster.set(name, value).expect("write a setting");
    }
    stage.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id").await.expect("load");
    crate::stage::attack::back_up(&stage);
    stage.archive_now().await;
    let probes = stage.scratch.path().join("probes.sql");
    fs::write(
        &probes,
        "SELECT btrim(pg_read_file('/proc/self/oom_score_adj'), E'\\n') = '1000', pg_read_file('/proc/self/oom_score_adj');\n\
         SELECT count(*) = 0, string_agg(name, ', ') FROM pg_settings WHERE setting <> 'off' AND name IN \
         ('huge_pages', 'ignore_invalid_pages', 'ignore_checksum_failure', 'zero_damaged_pages', 'ignore_system_indexes');\n\
         SELECT current_setting('shared_buffers') = '256MB' AND current_setting('min_dynamic_shared_memory') = '0';\n",
    )
    .expect("write the probes");
    proven(&drill(&stage, &["--no-amcheck", "--probe", probes.to_str().expect("a path")]));
    for setting in
        ["ignore_invalid_pages=on", "zero_damaged_pages=on", "Ignore-Checksum-Failure=on", "log_min_messages=panic"]
    {
        let place = place(&stage);
        let (code, text) = stage.fails(&arguments(&stage, &place, &["--set", setting]));
        assert!(code == 2 && text.contains("belongs to what a drill proves"), "{code} {text}");
    }
}
