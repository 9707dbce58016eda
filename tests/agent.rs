//! The agent: what it acknowledges is durable, what it hands over is right, and without it nothing changes.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use holdfast_testkit::postgres::Cluster;
use holdfast_testkit::proxy::{Effect, Fault, When};
use holdfast_testkit::random::Random;
use holdfast_testkit::rows::{Pace, RowWriter};
use rustix::process::Signal;
use serde_json::Value;

use crate::faults::kit::{
    add_to_wal_table, archive, holds, http_faults, no_divergence, no_gaps, small, stop, tcp_proxy, unarchived,
};
use crate::stage::attack::{Victim, back_up, fill_segments, segment_path, segments, wal_object};
use crate::stage::proof::number;
use crate::stage::{Seal, Stage, StoreKind, wait_promoted};

/// The exit code "unreachable".
const UNREACHABLE: i32 = 24;
/// Added to a code if recovery reads it.
const FOR_RECOVERY: i32 = 128;

fn socket(stage: &Stage) -> PathBuf {
    stage.scratch.path().join("spool/main/agent.sock")
}

/// Starts an agent, and waits until it answers.
async fn agent(stage: &Stage) -> Victim {
    answering(stage, Victim::start(stage, &["agent"])).await
}

async fn answering(stage: &Stage, mut agent: Victim) -> Victim {
    let answers = || stage.run(&["agent", "status"]).status.success();
    assert!(agent.runs_until(answers).await, "the agent ended: {:?}", agent.wait());
    agent
}

fn status(stage: &Stage) -> Value {
    stage.json(&["agent", "status"])
}

/// A restored server that takes its WAL through the agent.
async fn restored(stage: &Stage, name: &str) -> Cluster {
    let restored = stage.restore_and_start(name, &[]).await;
    wait_promoted(&restored).await;
    restored
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_stored_ahead_and_recovery_is_fetched_ahead() {
    let Some(stage) = Stage::start(18, unarchived(StoreKind::S3, Seal::KeyFile)).await else { return };
    let writer = RowWriter::start(&stage.cluster, Pace { payload_bytes: 8000, ..Pace::default() }).await;
    let writer = writer.expect("start the writer");
    writer.wait_for_rows(20).await.expect("write rows");
    let agent = agent(&stage).await;
    archive(&stage).await;
    back_up(&stage);
    // Segments wait from here on.
    stage.cluster.set("archive_command", "/bin/false").expect("set the archive command");
    stage.cluster.reload().await.expect("reload");
    fill_segments(&stage.cluster, 40).await;
    let written = stop(&stage, writer).await;
    archive(&stage).await;
    stage.archive_now().await;
    let now = status(&stage);
    let (answered, at_once) = (number(&now["push"], "answered"), number(&now["push"], "answered_at_once"));
    assert!(answered >= 40 && at_once >= answered / 2, "{now}");
    assert_eq!((number(&now["push"], "failed"), number(&now["push"], "in_flight")), (0, 0), "{now}");
    no_gaps(&stage);
    no_divergence(&stage);

    let restored = restored(&stage, "restored").await;
    holds(&restored, &written).await;
    let now = status(&stage);
    let (answered, at_once) = (number(&now["get"], "answered"), number(&now["get"], "answered_at_once"));
    assert!(answered >= 40 && at_once >= answered / 2, "{now}");
    assert!(number(&now["get"], "absent") >= 1, "recovery ended at the end of the archive: {now}");
    agent.signal(Signal::TERM);
    let ended = agent.wait();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let (code, text) = stage.fails(&["agent", "status"]);
    assert!(code != 0 && text.contains("no agent of cluster main answers"), "{text}");
}

/// Killed, stopped and replaced at random moments, under load.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_stopped_or_replaced_loses_nothing() {
    let Some(stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    let writer = RowWriter::start(&stage.cluster, Pace { payload_bytes: 8000, ..Pace::default() }).await;
    let writer = writer.expect("start the writer");
    back_up(&stage);
    let mut random = Random::of_this_run();
    let mut running = agent(&stage).await;
    for (round, attack) in ["kill", "replace", "stop", "kill", "replace", "end"].into_iter().enumerate() {
        fill_segments(&stage.cluster, 3).await;
        tokio::time::sleep(Duration::from_millis(random.below(300))).await;
        match attack {
            "kill" => {
                running.kill();
                fill_segments(&stage.cluster, 2).await;
                running = agent(&stage).await;
            }
            "replace" => {
                running.signal(Signal::HUP);
                fill_segments(&stage.cluster, 3).await;
                assert!(running.is_running(), "round {round}: it ended: {:?}", running.wait());
            }
            "stop" => {
                running.signal(Signal::STOP);
                // The command gives up on the agent, and does not ask it again for a while.
                stage.archive_now().await;
                running.signal(Signal::CONT);
            }
            _ => running.signal(Signal::TERM),
        }
    }
    let ended = running.wait();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let written = stop(&stage, writer).await;
    stage.archive_now().await;
    no_gaps(&stage);
    no_divergence(&stage);
    let restored = restored(&stage, "restored").await;
    holds(&restored, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_reported_as_without_an_agent() {
    let Some(stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    let proxy = tcp_proxy(&stage);
    add_to_wal_table(&stage, "timeout = \"1s\"");
    let _agent = agent(&stage).await;
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    back_up(&stage);
    stage.archive_now().await;
    proxy.refuse();
    proxy.cut();
    fill_segments(&stage.cluster, 4).await;
    let failed = "SELECT failed_count >= 2 FROM pg_stat_archiver";
    stage.cluster.wait_for(failed, Duration::from_mins(3)).await.expect("archiving fails");
    let waiting = segments(stage.cluster.data(), "ready");
    assert!(waiting.len() >= 4, "PostgreSQL keeps what is not archived: {waiting:?}");
    let (code, text) =
        stage.fails(&["wal", "push", &segment_path(stage.cluster.data(), &waiting[0]).display().to_string()]);
    assert_eq!(code, UNREACHABLE, "{text}");
    assert!(text.contains("error: ") && text.contains("while: ") && text.contains("hint:  "), "{text}");
    let now = status(&stage);
    assert!(number(&now["push"], "failed") >= 2 && number(&now["push"], "window") == 0, "{now}");
    assert_eq!(number(&now["push"]["last_failure"], "code"), 24, "{now}");
    assert!(waiting.iter().all(|segment| wal_object(&stage, segment).is_none()));
    let (file, destination) = (segments(stage.cluster.data(), "done"), stage.cluster.data().join("pg_wal/fetched"));
    let fetch = ["wal", "get", file.last().expect("an archived segment"), &destination.display().to_string()];
    let (code, text) = stage.fails(&fetch);
    assert_eq!(code, FOR_RECOVERY + UNREACHABLE, "{text}");

    proxy.resume();
    let written = stop(&stage, writer).await;
    stage.archive_now().await;
    assert!(waiting.iter().all(|segment| wal_object(&stage, segment).is_some()), "archiving catches up");
    let now = status(&stage);
    assert!(now["push"]["last_failure"].is_null() && number(&now["push"], "window") >= 1, "{now}");
    // Fetched by hand: the file, and "not in the archive".
    stage.ok(&fetch);
    let original = segment_path(stage.cluster.data(), fetch[2]);
    if original.exists() {
        assert!(std::fs::read(&destination).expect("read") == std::fs::read(original).expect("read"));
    }
    let absent = ["wal", "get", "0000000100000FFF00000001", &destination.display().to_string()];
    let (code, text) = stage.fails(&absent);
    assert_eq!((code, text.lines().count()), (1, 1), "{text}");
    no_divergence(&stage);
    let restored = restored(&stage, "restored").await;
    holds(&restored, &written).await;
}

/// A request of an agent that sleeps ends when its server stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_ends_with_a_store_that_resets_connections() {
    let Some(mut stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    let proxy = http_faults(&stage);
    let agent = agent(&stage).await;
    back_up(&stage);
    proxy.inject(Fault::new(Effect::LostRequest, When::Always));
    fill_segments(&stage.cluster, 3).await;
    let began = Instant::now();
    stage.cluster.stop(holdfast_testkit::postgres::Shutdown::Fast).await.expect("stop the server");
    let took = began.elapsed();
    assert!(took < Duration::from_mins(1), "a shutdown took {took:?}, and `pg_ctl stop` waits for 60 s");
    // The server comes back, and the agent has time again.
    proxy.clear();
    stage.cluster.start().await.expect("start the server");
    stage.archive_now().await;
    no_gaps(&stage);
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_with_other_settings_works_alone() {
    let Some(stage) = Stage::start(18, unarchived(StoreKind::Directory, Seal::None)).await else { return };
    let _agent = agent(&stage).await;
    fill_segments(&stage.cluster, 2).await;
    let waiting = segments(stage.cluster.data(), "ready");
    let path = segment_path(stage.cluster.data(), &waiting[0]).display().to_string();
    let other = stage.write_config("other.toml", &stage.config_text().replace("zstd:1", "zstd:4"));
    let output = stage.command_with(&other, &["wal", "push", &path]).output().expect("run holdfast");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("the agent has other settings"), "{text}");
    assert_eq!(number(&status(&stage)["push"], "answered"), 0);
    // Its own command is answered: the file is found stored, and the next one is stored ahead.
    let report = stage.json(&["wal", "push", &path]);
    assert_eq!(report["outcome"]["archived"]["repositories"][0]["stored"], "already-there", "{report}");
    assert_eq!(number(&status(&stage)["push"], "answered"), 1);
    // Another agent is refused while this one lives.
    let (_, text) = stage.fails(&["agent"]);
    assert!(text.contains("another agent of this cluster runs on this machine"), "{text}");
    // A file that is no WAL file fails as ever.
    let (code, text) = stage.fails(&["wal", "push", &stage.config.display().to_string()]);
    assert!(code != 0 && text.contains("is not the name of a WAL segment"), "{text}");
}

/// While the agent is silent, commands take its marks from the spool and it is not asked for what it stored ahead. That
/// must not count as ahead for ever.
#[tokio::test(flavor = "multi_thread")]
async fn storing_ahead_continues_after_commands_worked_alone() {
    let Some(stage) = Stage::start(18, unarchived(StoreKind::Directory, Seal::None)).await else { return };
    let agent = agent(&stage).await;
    fill_segments(&stage.cluster, 20).await;
    let waiting = segments(stage.cluster.data(), "ready");
    assert!(waiting.len() >= 19, "{waiting:?}");
    let archived = |segment: &str| {
        stage.ok(&["wal", "push", &segment_path(stage.cluster.data(), segment).display().to_string()]);
        let status = stage.cluster.data().join("pg_wal/archive_status");
        std::fs::rename(status.join(format!("{segment}.ready")), status.join(format!("{segment}.done"))).expect("mark");
    };
    archived(&waiting[0]);
    let began = Instant::now();
    while number(&status(&stage)["push"], "ahead") < 15 {
        assert!(began.elapsed() < Duration::from_mins(1), "{}", status(&stage));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    agent.signal(Signal::STOP);
    waiting[1..16].iter().for_each(|segment| archived(segment));
    agent.signal(Signal::CONT);
    std::fs::remove_file(stage.scratch.path().join("spool/main/agent.silent")).expect("the agent was silent");
    archived(&waiting[16]);
    let began = Instant::now();
    while wal_object(&stage, &waiting[18]).is_none() {
        assert!(began.elapsed() < Duration::from_mins(1), "nothing is stored ahead: {}", status(&stage));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// systemd listens, and starts the agent with the socket as its standard input.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_on_standard_input_is_used() {
    let Some(stage) = Stage::start(18, unarchived(StoreKind::Directory, Seal::None)).await else { return };
    fill_segments(&stage.cluster, 2).await;
    // Makes the folder of the cluster in the spool.
    let waiting = segments(stage.cluster.data(), "ready");
    let path = segment_path(stage.cluster.data(), &waiting[0]).display().to_string();
    stage.ok(&["wal", "push", &path]);
    let listener = std::os::unix::net::UnixListener::bind(socket(&stage)).expect("listen");
    std::fs::set_permissions(socket(&stage), std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("open it");
    // Commands wait for the agent that is being started.
    let early = stage.spawn(&["wal", "push", &path]);
    let mut command = stage.command(&["agent"]);
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
    let agent = answering(&stage, Victim::of(command)).await;
    assert!(early.wait_with_output().expect("wait").status.success());
    assert_eq!(number(&status(&stage)["push"], "answered"), 1);
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_starts_it_as_the_owner_of_the_data_directory() {
    let Some(stage) = Stage::start(18, unarchived(StoreKind::Directory, Seal::None)).await else { return };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut command = std::process::Command::new(&stage.holdfast);
    command.arg("--config").arg(&stage.config).arg("agent").stdin(Stdio::null());
    let _agent = answering(&stage, Victim::of(command)).await;
    let process = number(&status(&stage), "pid");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(stage.cluster.data()).expect("look"));
    let lines = std::fs::read_to_string(format!("/proc/{process}/status")).expect("read the process");
    let ids = lines.lines().find_map(|line| line.strip_prefix("Uid:")).expect("user ids");
    assert!(ids.split_whitespace().all(|id| id == owner.to_string()), "{ids}");
    let groups = lines.lines().find_map(|line| line.strip_prefix("Groups:")).expect("groups");
    assert!(!groups.split_whitespace().any(|group| group == "0"), "{groups}");
}

/// Puts a file in the place of a folder, which the agent may make again in between.
fn put_in_the_way(folder: &std::path::Path) {
    let began = Instant::now();
    loop {
        drop(std::fs::remove_dir_all(folder));
        match std::fs::write(folder, "in the way") {
            Ok(()) => return,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(10), "{}: {error}", folder.display()),
        }
    }
}

/// The spool is full: segments are not kept there, and the commands fetch them by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_cannot_be_written_costs_time_only() {
    let Some(stage) = Stage::start(18, small(Seal::None)).await else { return };
    let writer = RowWriter::start(&stage.cluster, Pace { payload_bytes: 8000, ..Pace::default() }).await;
    let writer = writer.expect("start the writer");
    let agent = agent(&stage).await;
    back_up(&stage);
    fill_segments(&stage.cluster, 5).await;
    let written = stop(&stage, writer).await;
    stage.archive_now().await;
    // A file has the name of the folder for marks, and a file has the name of each folder for segments.
    let spool = stage.scratch.path().join("spool/main");
    put_in_the_way(&spool.join("push"));
    let target = stage.target("restored");
    stage.ok(&["restore", "--pgdata", &target.display().to_string()]);
    stage.ok(&[
        "wal",
        "get",
        &segments(stage.cluster.data(), "done")[0],
        &target.join("pg_wal/one").display().to_string(),
    ]);
    for entry in std::fs::read_dir(&spool).expect("list").flatten() {
        if entry.file_name().to_string_lossy().starts_with("get-") {
            put_in_the_way(&entry.path());
        }
    }
    let restored = stage.start_restored(&target).await;
    holds(&restored, &written).await;
    stage.archive_now().await;
    no_gaps(&stage);
    no_divergence(&stage);
    drop(agent);
}

/// A reload that cannot succeed leaves the agent as it is: a configuration that does not load, and a program that does
/// not start. A reload with another program ends in that program.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_program_and_never_ends_in_nothing() {
    let Some(mut stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    // All tests use the same program: this one gets its own.
    let own = stage.scratch.folder("bin").expect("make a folder").join("holdfast");
    std::fs::copy(&stage.holdfast, &own).expect("copy the program");
    stage.holdfast = own;
    let mut running = agent(&stage).await;
    let began = status(&stage)["since"].clone();
    let pid = number(&status(&stage), "pid");
    let config = stage.config_text();
    let sound = std::fs::read(&stage.holdfast).expect("read the program");
    let other = stage.holdfast.with_file_name("another-holdfast");
    std::fs::copy(&stage.holdfast, &other).expect("copy the program");
    let put = |content: &[u8]| {
        // A running program cannot be written to: another file gets its name, as a package manager does it.
        let aside = stage.holdfast.with_file_name("aside");
        std::fs::write(&aside, content).expect("write a program");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&aside, mode).expect("make it executable");
        std::fs::rename(&aside, &stage.holdfast).expect("replace the program");
    };

    for broken in ["configuration", "program"] {
        match broken {
            "configuration" => drop(stage.write_config("holdfast.toml", &config.replace("[wal]", "[wla]"))),
            _ => put(b"#!/bin/sh\nexit 1\n"),
        }
        running.signal(Signal::HUP);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(running.is_running(), "{broken}: it ended: {:?}", running.wait());
        stage.write_config("holdfast.toml", &config);
        put(&sound);
        assert_eq!(status(&stage)["since"], began, "{broken}: the agent is the one from before");
    }
    stage.archive_now().await;
    assert!(number(&status(&stage)["push"], "answered") > 0, "it still works");

    put(format!("#!/bin/sh\nexec {} \"$@\"\n", other.display()).as_bytes());
    running.signal(Signal::HUP);
    let limit = Instant::now() + Duration::from_mins(1);
    loop {
        let output = stage.run(&["--output", "json", "agent", "status"]);
        let now: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        if let Some(now) = now.filter(|now| now["since"] != began) {
            assert_eq!(number(&now, "pid"), pid, "the same process");
            break;
        }
        assert!(running.is_running() && Instant::now() < limit, "it was not replaced");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).expect("ask for the program");
    assert_eq!(program, other);
    stage.archive_now().await;
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), 0);
}

/// Commands with other settings work without the agent. It knows nothing of them, and must not report that all is well.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_nobody_asks_knows_what_waits() {
    let Some(stage) = Stage::start(18, unarchived(StoreKind::Directory, Seal::KeyFile)).await else { return };
    let running = agent(&stage).await;
    fill_segments(&stage.cluster, 3).await;
    let waiting = segments(stage.cluster.data(), "ready");
    assert!(number(&status(&stage)["push"], "waiting") >= 3, "{}", status(&stage));
    // The configuration of the commands has changed.
    let text = stage.config_text();
    stage.write_config("holdfast.toml", &text.replace("[wal]", "[wal]\ntimeout = \"7s\""));
    let path = segment_path(stage.cluster.data(), &waiting[0]).display().to_string();
    stage.ok(&["wal", "push", &path]);
    let now = status(&stage);
    assert_eq!((number(&now, "declined"), number(&now["push"], "answered")), (1, 0), "{now}");
    assert!(now["last_declined"].as_str().is_some_and(|why| why.contains("other settings")), "{now}");
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), 0);
}
