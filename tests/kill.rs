//! `kill -9` at any moment: of `backup`, of `wal push`, of `restore`, and of the server during a backup. Afterwards the
//! promises 1 to 6 of `docs/semantics.md` must hold.
//!
//! Moments are chosen at random over the duration of an undisturbed run, one in each equal share of it, so that all
//! phases are hit. If one phase is important, the store holds the process there. The seed is printed, and
//! `HOLDFAST_TEST_SEED` repeats a run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::stage::attack::{
    Ended, ObjectFile, Victim, back_up, complete, ids_in_store, insert_lsn, load, objects, segments, sessions_gone, sum,
};
use crate::stage::{Plan, Seal, Stage, StoreKind, wait_promoted};
use holdfast_testkit::postgres::Cluster;
use holdfast_testkit::proxy::{Effect, Fault, HttpFaults, When};
use holdfast_testkit::random::Random;
use holdfast_testkit::rows::{Journal, Pace, RowWriter, Target, found};
use rustix::process::{Pid, Signal, kill_process};

/// The store still carries out, a moment later, what a killed client has already sent.
const SETTLE: Duration = Duration::from_millis(100);

fn quick(store: StoreKind) -> Plan {
    Plan { store, seal: Seal::KeyFile, compression: "zstd:1", ..Plan::default() }
}

/// Small parts, so that one backup is an upload of several parts.
fn with_small_parts(stage: &Stage) {
    let text = stage.config_text().replace("path_style = true\n", "path_style = true\npart_size = \"5MiB\"\n");
    stage.write_config("holdfast.toml", &text);
}

/// Sends the stage's S3 requests through a proxy.
fn through_proxy(stage: &Stage) -> HttpFaults {
    let s3 = stage.s3.as_ref().expect("a stage on S3");
    let proxy = HttpFaults::start(s3.address()).expect("start a proxy");
    let text = stage.config_text().replace(&s3.endpoint(), &proxy.endpoint());
    stage.write_config("holdfast.toml", &text);
    proxy
}

/// All data of a backup is there: its restore has the loaded table, and the rows up to this LSN.
async fn restores(stage: &Stage, name: &str, backup: &str, expected: &[Vec<String>], journal: &Journal, end: u64) {
    let restored = stage.restore_and_start(name, &["--backup", backup]).await;
    holds(&restored, name, expected, journal, end).await;
}

async fn holds(restored: &Cluster, name: &str, expected: &[Vec<String>], journal: &Journal, end: u64) {
    wait_promoted(restored).await;
    assert_eq!(sum(restored).await, expected, "{name}");
    let rows = found(restored).await.expect("read the rows");
    journal.check(&Target::Latest(end), &rows).unwrap_or_else(|e| panic!("{name}: {e}\n{}", restored.log_text()));
}

/// Killed backups leave only packs, and the complete ones miss nothing. `resume.rs`, where manifests can be read, tests
/// that these packs are in use.
fn only_packs_are_left(stage: &Stage, known: &BTreeSet<String>) {
    let known = |name: &str| known.iter().any(|backup| name.contains(backup.as_str()));
    let others = objects(stage).into_keys().filter(|name| name.starts_with("main/backups/") && !known(name));
    assert_eq!(others.collect::<Vec<_>>(), [""; 0]);
    stage.ok(&["verify"]);
}

async fn killed_backups(stage: &Stage, rounds: u32) {
    let mut random = Random::of_this_run();
    load(&stage.cluster).await;
    let expected = sum(&stage.cluster).await;
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    writer.wait_for_rows(20).await.expect("write rows");
    let began = Instant::now();
    let first = back_up(stage);
    let whole = began.elapsed();
    let mut known = complete(stage);
    let mut with_remains = 0;
    for round in 0..rounds {
        let delay = random.moment(whole, round, rounds);
        let victim = Victim::start(stage, &["backup"]);
        tokio::time::sleep(delay).await;
        let ended = victim.kill();
        tokio::time::sleep(SETTLE).await;
        sessions_gone(&stage.cluster).await;
        let now = complete(stage);
        let remains: Vec<String> = ids_in_store(stage).difference(&now).cloned().collect();
        eprintln!("round {round}: killed after {delay:?} of {whole:?}: {}, remains {remains:?}", ended.status);
        assert!(now.is_superset(&known), "complete backups vanished: {known:?} became {now:?}");
        let new: Vec<&String> = now.difference(&known).collect();
        if let [id] = new.as_slice() {
            // It made its last write before it died. Then the backup must be whole.
            let target = stage.target(&format!("won-{round}"));
            stage.ok(&["restore", "--pgdata", &target.display().to_string(), "--backup", id]);
        } else {
            assert!(new.is_empty() && !ended.status.success(), "{new:?} after {ended:?}");
        }
        with_remains += usize::from(!remains.is_empty());
        known = now;
    }
    assert!(with_remains > 0, "no round left anything: the moments were not spread over the run");

    let last = back_up(stage);
    let now = complete(stage);
    assert!(now.contains(&first) && now.contains(&last), "{now:?}");
    only_packs_are_left(stage, &now);
    let journal = writer.stop().await.expect("stop the writer");
    let end = insert_lsn(&stage.cluster).await;
    stage.archive_now().await;
    restores(stage, "earlier", &first, &expected, &journal, end).await;
    restores(stage, "next", &last, &expected, &journal, end).await;
    stage.ok(&["check"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_backups_to_s3() {
    let Some(stage) = Stage::start(18, quick(StoreKind::S3)).await else { return };
    with_small_parts(&stage);
    killed_backups(&stage, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_backups_to_a_directory() {
    let Some(stage) = Stage::start(15, quick(StoreKind::Directory)).await else { return };
    killed_backups(&stage, 4).await;
}

fn only(id: &str) -> BTreeSet<String> {
    BTreeSet::from([id.to_owned()])
}

/// Everything is stored except the record that makes the backup exist. The backup must not exist, and the next run
/// removes its packs.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_killed_before_its_last_write_does_not_exist() {
    let Some(stage) = Stage::start(18, quick(StoreKind::S3)).await else { return };
    let proxy = through_proxy(&stage);
    load(&stage.cluster).await;
    let first = back_up(&stage);
    proxy.inject(Fault::new(Effect::Status(503, "SlowDown"), When::Always).method("PUT").path_contains("backup.json"));
    let mut victim = Victim::start(&stage, &["backup"]);
    assert!(victim.runs_until(|| proxy.hits() > 0).await, "the backup comes to its last write: {:?}", victim.wait());
    let ended = victim.kill();
    assert_eq!(ended.code(), 137, "{ended:?}");
    tokio::time::sleep(SETTLE).await;
    proxy.clear();
    sessions_gone(&stage.cluster).await;
    assert_eq!(complete(&stage), only(&first));
    let listed = stage.json(&["list"]);
    let dead =
        listed["repositories"][0]["unfinished"][0]["backup_id"].as_str().expect("an unfinished backup").to_owned();
    let of_dead = |name: &String| name.contains(&dead);
    let left: Vec<String> = objects(&stage).into_keys().filter(of_dead).collect();
    assert!(left.iter().any(|name| name.contains("/packs/")), "the packs are there: {left:?}");
    assert!(left.iter().any(|name| name.ends_with("/manifest")), "the manifest is there: {left:?}");
    // It cannot be restored, neither by its name nor by accident.
    let target = stage.target("dead").display().to_string();
    let (code, text) = stage.fails(&["restore", "--pgdata", &target, "--backup", &dead]);
    assert_eq!(code, 60, "{text}");
    let report = stage.json(&["restore", "--pgdata", &target]);
    assert_eq!(report["backup"].as_str(), Some(first.as_str()), "{report}");

    let next = back_up(&stage);
    assert_ne!(next, dead, "names do not come back with other content");
    only_packs_are_left(&stage, &complete(&stage));
    assert_eq!(complete(&stage).into_iter().collect::<Vec<_>>(), [first, next]);
}

/// The processes that run `wal push` with this configuration.
fn pushes(config: &Path) -> Vec<Pid> {
    let config = config.display().to_string();
    let entries = std::fs::read_dir("/proc").expect("list /proc");
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let words: Vec<&str> =
                line.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok()).collect();
            let is_push =
                words.first()?.ends_with("holdfast") && words.contains(&config.as_str()) && words.contains(&"push");
            is_push.then_some(pid)
        })
        .collect()
}

/// The objects seen so far, each as it was first seen. An object that changes later was overwritten, or was seen before
/// it was complete.
#[derive(Default)]
struct Watch(BTreeMap<String, ObjectFile>);

impl Watch {
    fn look(&mut self, stage: &Stage) {
        for (name, file) in objects(stage) {
            let first = *self.0.entry(name.clone()).or_insert(file);
            assert_eq!(first, file, "{name} was written twice");
        }
    }
}

/// Promises 1, 2 and 5: what PostgreSQL counts as archived is there, complete, written once and without a gap.
async fn killed_pushes(store: StoreKind) {
    let plan = Plan { store, seal: Seal::KeyFile, wal_segment_mib: 1, ..Plan::default() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    let mut random = Random::of_this_run();
    // If a signal ends the command, PostgreSQL's archiver stops for ten seconds. A shell in between turns that into a
    // failure.
    let command = format!("{} --config {} wal push %p || exit 1", stage.holdfast.display(), stage.config.display());
    stage.cluster.set("archive_command", &command).expect("set the archive command");
    stage.cluster.reload().await.expect("reload");
    stage.ok(&["backup"]);
    let pace = Pace { pause: Duration::from_millis(1), payload_bytes: 16_000 };
    let writer = RowWriter::start(&stage.cluster, pace).await.expect("start the writer");
    writer.wait_for_rows(200).await.expect("write rows");
    let mut watch = Watch::default();
    let (mut killed, mut last) = (0, None);
    let began = Instant::now();
    while killed < 10 && began.elapsed() < Duration::from_secs(20) {
        watch.look(&stage);
        let Some(pid) = pushes(&stage.config).into_iter().find(|pid| Some(*pid) != last) else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        // A push takes about a tenth of a second here.
        tokio::time::sleep(Duration::from_micros(random.below(120_000))).await;
        if pushes(&stage.config).contains(&pid) && kill_process(pid, Signal::KILL).is_ok() {
            killed += 1;
        }
        last = Some(pid);
    }
    assert!(killed >= 3, "only {killed} pushes were killed while they ran");
    let journal = writer.stop().await.expect("stop the writer");
    let end = insert_lsn(&stage.cluster).await;
    stage.archive_now().await;
    watch.look(&stage);

    let names: Vec<String> = objects(&stage).into_keys().collect();
    let done = segments(stage.cluster.data(), "done");
    assert!(done.len() > 3, "{done:?}");
    for segment in &done {
        let object = format!("/{segment}.zst");
        assert_eq!(names.iter().filter(|name| name.contains(&object)).count(), 1, "{segment} is done");
    }
    let listed = stage.json(&["wal", "list"]);
    let gaps = &listed["repositories"][0]["claims"][0]["timelines"][0]["gaps"];
    assert_eq!(gaps, &serde_json::json!([]), "{listed}");
    assert!(!names.iter().any(|name| name.contains("divergence")), "{names:?}");
    stage.ok(&["check"]);
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    let rows = found(&restored).await.expect("read the rows");
    journal.check(&Target::Latest(end), &rows).unwrap_or_else(|e| panic!("{e}\n{}", restored.log_text()));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_pushes_to_s3() {
    killed_pushes(StoreKind::S3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_pushes_to_a_directory() {
    killed_pushes(StoreKind::Directory).await;
}

/// What a killed restore leaves.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// Nothing that can be resumed.
    Nothing,
    /// A resume point. PostgreSQL refuses to start.
    Half,
    /// The control file, which is written last: everything is there.
    Whole,
}

/// Looks at the remains of a killed restore. Without a control file, no server may start.
async fn left(stage: &Stage, target: &Path) -> Left {
    if target.join("global/pg_control").exists() {
        return Left::Whole;
    }
    if !target.exists() {
        return Left::Nothing;
    }
    let mut server = Cluster::adopt(&stage.installation, target).expect("take over the folder");
    server.spawn().expect("start PostgreSQL");
    let status = server.wait_exited(Duration::from_mins(3)).await.expect("PostgreSQL gives up");
    assert!(!status.success(), "PostgreSQL started in a half-restored folder:\n{}", server.log_text());
    assert!(!target.join("global/pg_control").exists());
    let point = std::fs::read(target.join("holdfast.restore")).unwrap_or_default();
    let whole = serde_json::from_slice::<serde_json::Value>(&point).is_ok();
    if whole { Left::Half } else { Left::Nothing }
}

/// Bytes that are written in the files of a folder.
fn size_of(folder: &Path) -> u64 {
    crate::stage::attack::files_below(folder).values().map(|file| file.size_bytes).sum()
}

async fn killed_restores(major: u16, store: StoreKind) {
    const ROUNDS: u32 = 4;
    let Some(stage) = Stage::start(major, quick(store)).await else { return };
    let mut random = Random::of_this_run();
    load(&stage.cluster).await;
    let expected = sum(&stage.cluster).await;
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    writer.wait_for_rows(20).await.expect("write rows");
    let older = back_up(&stage);
    let newer = back_up(&stage);
    let journal = writer.stop().await.expect("stop the writer");
    let end = insert_lsn(&stage.cluster).await;
    stage.archive_now().await;

    let target = stage.target("undisturbed");
    let began = Instant::now();
    let undisturbed = stage.json(&["restore", "--pgdata", &target.display().to_string()]);
    let whole = began.elapsed();
    let all_bytes = undisturbed["fetched_bytes"].as_u64().expect("fetched bytes");
    assert_eq!(undisturbed["backup"].as_str(), Some(newer.as_str()));
    let size = size_of(&target);
    let mut resumed = 0;
    for round in 0..ROUNDS {
        let target = stage.target(&format!("killed-{round}"));
        let path = target.display().to_string();
        let command = ["--output", "json", "restore", "--pgdata", path.as_str()];
        let mut victim = Victim::start(&stage, &command);
        if round == 0 {
            victim.runs_until(|| size_of(&target) > size / 2).await;
        } else {
            tokio::time::sleep(random.moment(whole, round - 1, ROUNDS - 1)).await;
        }
        let ended = victim.kill();
        let found = left(&stage, &target).await;
        eprintln!("round {round}: {}, left {found:?}, {} of {size} bytes", ended.status, size_of(&target));
        assert!(found == Left::Whole || !ended.status.success(), "{ended:?}");
        if found == Left::Half {
            let (code, text) = stage.fails(&["restore", "--pgdata", &path, "--backup", &older]);
            assert_eq!(code, 2, "{text}");
            assert!(text.contains(&older) && text.contains(&newer), "the message names both backups: {text}");
            assert!(left(&stage, &target).await == Left::Half, "the refused restore changed something");
            // It is killed again while it resumes, unless it ends before.
            let victim = Victim::start(&stage, &command);
            tokio::time::sleep(Duration::from_micros(random.below(whole.as_micros() as u64 / 2))).await;
            let ended: Ended = victim.kill();
            let found = left(&stage, &target).await;
            eprintln!("round {round}, resumed: {}, left {found:?}", ended.status);
            assert!(found != Left::Nothing, "the resume point is gone");
            if ended.status.success() {
                resumed += u32::from(reuses(&ended.stdout, all_bytes, round == 0));
            }
        }
        if left(&stage, &target).await != Left::Whole {
            let report = stage.ok(&command);
            if found == Left::Half {
                resumed += u32::from(reuses(&report, all_bytes, round == 0));
            }
            assert!(!target.join("holdfast.restore").exists(), "a finished restore leaves no resume point");
        }
        let restored = stage.start_restored(&target).await;
        holds(&restored, &format!("round {round}"), &expected, &journal, end).await;
    }
    assert!(resumed > 0, "no restore was resumed with something to reuse");
}

/// Whether a resumed restore reused existing files. It must, if the first one was killed half-way.
fn reuses(report: &str, all_bytes: u64, must: bool) -> bool {
    let report: serde_json::Value = serde_json::from_str(report).expect("a report");
    assert_eq!(report["target_state"].as_str(), Some("resumed"), "{report}");
    let fetched = report["fetched_bytes"].as_u64().expect("fetched bytes");
    assert!(fetched <= all_bytes, "a resumed restore fetches no more: {report}");
    let less = fetched < all_bytes && report["reused_bytes"].as_u64().is_some_and(|bytes| bytes > 0);
    assert!(less || !must, "a resumed restore uses what is there: {report}");
    less
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_restores_from_s3() {
    killed_restores(18, StoreKind::S3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_restores_from_a_directory() {
    killed_restores(16, StoreKind::Directory).await;
}

/// Everything that the store keeps besides objects: parts and notes of unfinished uploads.
fn unfinished_uploads(stage: &Stage) -> Vec<String> {
    let Some(s3) = &stage.s3 else { return Vec::new() };
    let entries = std::fs::read_dir(s3.root()).expect("list the store");
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(".upload"))
        .collect()
}

/// A signal in the middle ends a backup properly: code, server, store. So does the death of the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_backup_leaves_nothing_and_a_dead_server_fails_it() {
    let Some(mut stage) = Stage::start(18, quick(StoreKind::S3)).await else { return };
    with_small_parts(&stage);
    let proxy = through_proxy(&stage);
    let mut random = Random::of_this_run();
    load(&stage.cluster).await;
    let began = Instant::now();
    let first = back_up(&stage);
    let whole = began.elapsed();
    let hold = || Fault::new(Effect::Status(503, "SlowDown"), When::Always).method("PUT").path_contains("/packs/");

    // Held in the middle of the copy.
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        proxy.inject(hold());
        let before = proxy.hits();
        let mut victim = Victim::start(&stage, &["backup", "--type", "full"]);
        assert!(victim.runs_until(|| proxy.hits() > before).await, "the backup begins to copy: {:?}", victim.wait());
        victim.signal(signal);
        let ended = victim.wait();
        proxy.clear();
        assert_eq!(ended.code(), code, "{ended:?}");
        assert!(ended.stderr.contains("cancel"), "{}", ended.stderr);
        sessions_gone(&stage.cluster).await;
        assert_eq!(ids_in_store(&stage), only(&first), "remains");
        assert_eq!(unfinished_uploads(&stage), Vec::<String>::new(), "remains of an upload");
    }
    // At any moment.
    for round in 0..3 {
        let victim = Victim::start(&stage, &["backup"]);
        let delay = random.moment(whole, round, 3);
        tokio::time::sleep(delay).await;
        victim.signal(Signal::TERM);
        let ended = victim.wait();
        eprintln!("SIGTERM after {delay:?} of {whole:?}: {}", ended.status);
        assert!(ended.code() == 143 || ended.status.success(), "{ended:?}");
        sessions_gone(&stage.cluster).await;
        tokio::time::sleep(SETTLE).await;
        assert_eq!(ids_in_store(&stage), complete(&stage), "remains after SIGTERM at {delay:?}");
    }

    // While the store is unreachable: the backup ends in bounded time, and the next backup cleans up.
    proxy.inject(hold());
    let before = proxy.hits();
    let mut victim = Victim::start(&stage, &["backup", "--type", "full"]);
    assert!(victim.runs_until(|| proxy.hits() > before).await, "the backup begins to copy: {:?}", victim.wait());
    proxy.clear();
    proxy.inject(Fault::new(Effect::LostRequest, When::Always));
    let began = Instant::now();
    victim.signal(Signal::TERM);
    let ended = victim.wait();
    assert_eq!(ended.code(), 143, "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(25), "a cancel took {:?}", began.elapsed());
    assert!(ended.stderr.contains("the next backup on this host will remove"), "{}", ended.stderr);
    proxy.clear();
    sessions_gone(&stage.cluster).await;
    let known = complete(&stage);
    assert!(ids_in_store(&stage).len() > known.len(), "what could not be removed is still there");
    back_up(&stage);
    assert_eq!(ids_in_store(&stage), complete(&stage), "the next backup removes the remains");

    // The postmaster dies during a backup.
    let known = complete(&stage);
    proxy.inject(hold());
    let before = proxy.hits();
    let mut victim = Victim::start(&stage, &["backup", "--type", "full"]);
    assert!(victim.runs_until(|| proxy.hits() > before).await, "the backup begins to copy: {:?}", victim.wait());
    stage.cluster.kill9().await.expect("kill the server");
    proxy.clear();
    let ended = victim.wait();
    assert_eq!(ended.code(), 50, "{ended:?}");
    for part in ["error: ", "while: ", "taking backup ", "hint:  "] {
        assert!(ended.stderr.contains(part), "{part:?} is missing in:\n{}", ended.stderr);
    }
    assert_eq!(complete(&stage), known);
    assert_eq!(ids_in_store(&stage), known, "remains of a backup whose server died");
    stage.cluster.start().await.expect("start the server again");
    let next = back_up(&stage);
    assert!(complete(&stage).contains(&next));
}
