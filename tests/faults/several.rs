//! One of several repositories fails a backup: the messages, their time, and the content of the others.

use std::fs;
use std::time::Duration;

use holdfast_testkit::proxy::{Effect, Fault, SeenRequest, When};
use rustix::process::Signal;

use super::kit::{add_to_wal_table, http_faults, small, with_second_repository};
use crate::stage::attack::{Victim, back_up, load, sum};
use crate::stage::{Plan, Seal, Stage, wait_promoted};

const CONFIGURATION: i32 = 10;
const UNREACHABLE: i32 = 24;

/// Runs a backup while one repository fails; returns the report and the messages.
fn backup_in_one(stage: &Stage, code: i32) -> (serde_json::Value, String) {
    let output = stage.run(&["--output", "json", "backup"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    for part in ["repositories", "failed"] {
        assert_eq!(report[part].as_array().map(Vec::len), Some(1), "{report}\n{said}");
    }
    assert_eq!((&report["failed"][0]["code"], output.status.code()), (&code.into(), Some(code)), "{report}\n{said}");
    (report, said)
}

fn text<'r>(report: &'r serde_json::Value, path: &str) -> &'r str {
    report.pointer(path).and_then(serde_json::Value::as_str).unwrap_or_else(|| panic!("{path} of {report}"))
}

/// Restores from the repository of this number, starts, and compares the data.
async fn holds(stage: &Stage, repository: &str, target: &str, sums: &[Vec<String>]) {
    let target = stage.target(target);
    stage.ok(&["restore", "--repo", repository, "--pgdata", &target.display().to_string()]);
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(sum(&restored).await, sums);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_repositories_fails_a_backup_in_its_own_way() {
    let plan = Plan { compression: "none", ..small(Seal::KeyFile) };
    let Some(stage) = Stage::start(18, plan).await else { return };
    let proxy = http_faults(&stage);
    add_to_wal_table(&stage, "timeout = \"1s\"");
    let second = with_second_repository(&stage);
    load(&stage.cluster).await;
    let sums = sum(&stage.cluster).await;
    stage.archive_now().await;
    stage.ok(&["backup"]);

    // Its key file is away: the message comes before the backup begins, and not only at its end.
    let (key, aside) = (stage.scratch.path().join("key"), stage.scratch.path().join("key-aside"));
    fs::rename(&key, &aside).expect("take the key away");
    let output = stage.run(&["backup"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(CONFIGURATION), "{said}");
    let at = |words: &str| said.find(words).unwrap_or_else(|| panic!("no {words:?} in: {said}"));
    let warned = at("the backup continues without s3://");
    assert!(warned < at("starts at") && said[warned..].contains("key"), "{said}");
    fs::rename(&aside, &key).expect("bring the key back");
    stage.archive_now().await;
    holds(&stage, "2", "without-key", &sums).await;

    // Its claim is damaged: the owner of the archive is unknown there, but known in the other repository.
    let claims = second.join("main/claims");
    let claim = fs::read_dir(&claims).expect("look for claims").next().expect("a claim").expect("a claim").path();
    let before = fs::read(&claim).expect("read the claim");
    fs::write(&claim, &before[..before.len() / 2]).expect("damage the claim");
    let output = stage.run(&["--output", "json", "backup"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    let code = output.status.code().unwrap_or(-1);
    assert!((40..=43).contains(&code), "{code}: {said}");
    assert!(text(&report, "/failed/0/repository").starts_with("file://"), "{report}");
    assert!(report["failed"][0].to_string().contains("claim"), "{report}");
    assert_eq!(report["failed"][0]["may_exist"], false, "{report}");
    assert!(text(&report, "/repositories/0/repository").starts_with("s3://"), "{report}");
    fs::write(&claim, &before).expect("repair the claim");
    stage.archive_now().await;
    holds(&stage, "1", "without-claim", &sums).await;

    // The record that makes the backup exist is stored, but neither the write nor a look-up gets an answer.
    let of_record = |effect, method: &str| Fault::new(effect, When::Always).path_contains("backup.json").method(method);
    proxy.inject(of_record(Effect::LostAnswer, "PUT"));
    proxy.inject(of_record(Effect::LostRequest, "GET"));
    proxy.inject(of_record(Effect::LostRequest, "HEAD"));
    let (report, said) = backup_in_one(&stage, UNREACHABLE);
    proxy.clear();
    let id = text(&report, "/repositories/0/backup/backup_id").to_owned();
    assert!(text(&report, "/failed/0/repository").starts_with("s3://"), "{report}");
    assert_eq!(report["failed"][0]["may_exist"], true, "{report}");
    assert!(said.contains("it may exist in s3://") && said.contains("`holdfast list` tells"), "{said}");
    assert!(!said.contains("not in s3://"), "{said}");
    // It exists, and is complete.
    let listed = stage.json(&["list"]);
    assert_eq!(listed.to_string().matches(&format!("\"backup_id\":\"{id}\"")).count(), 2, "{listed}");
    let target = stage.target("in-doubt");
    stage.ok(&["restore", "--repo", "1", "--backup", &id, "--pgdata", &target.display().to_string()]);
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(sum(&restored).await, sums);

    // The only repository in doubt: the whole backup may exist.
    let config = stage.config_text();
    let block = format!("[[repo]]\nurl = \"file://{}\"\nencryption = \"none\"\n\n", second.display());
    let config = stage.scratch.write_secret("one.toml", config.replacen(&block, "", 1)).expect("write a configuration");
    proxy.inject(of_record(Effect::LostAnswer, "PUT"));
    proxy.inject(of_record(Effect::LostRequest, "GET"));
    proxy.inject(of_record(Effect::LostRequest, "HEAD"));
    let output = stage.command_with(&config, &["--no-progress", "backup"]).output().expect("run holdfast");
    proxy.clear();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(UNREACHABLE), "{said}");
    assert!(said.contains("error: backup ") && said.contains(" may exist in s3://"), "{said}");
    assert!(said.contains("`holdfast list` tells"), "{said}");
}

/// A signal while the second repository receives the record that makes the backup exist: the backup in the first stays
/// and is reported, and the message says that it may exist in the second.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_while_the_second_repository_gets_its_record_reports_what_exists() {
    let Some(stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    let proxy = http_faults(&stage);
    with_second_repository(&stage);
    // The directory comes first.
    let (head, repositories) = stage.config_text().split_once("[[repo]]").map(two).expect("repositories");
    let (s3, rest) = repositories.split_once("[[repo]]").map(two).expect("a second repository");
    let (directory, tail) = rest.split_once("[backup]").map(two).expect("a table");
    let turned = format!("{head}[[repo]]{directory}[[repo]]{s3}[backup]{tail}");
    stage.write_config("holdfast.toml", &turned);
    load(&stage.cluster).await;
    let sums = sum(&stage.cluster).await;
    stage.archive_now().await;

    let late = Fault::new(Effect::Delay(Duration::from_secs(10)), When::Always);
    proxy.inject(late.method("PUT").path_contains("backup.json"));
    let mut victim = Victim::start(&stage, &["--output", "json", "backup"]);
    let record = |seen: &SeenRequest| seen.method == "PUT" && seen.path.contains("backup.json");
    let stored = || proxy.seen().iter().any(|seen| record(seen) && seen.executed);
    assert!(victim.runs_until(stored).await, "the backup ended: {:?}", victim.wait());
    victim.signal(Signal::TERM);
    let ended = victim.wait();
    proxy.clear();
    assert_eq!(ended.code(), 143, "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
    assert!(text(&report, "/repositories/0/repository").starts_with("file://"), "{report}");
    assert!(text(&report, "/failed/0/repository").starts_with("s3://"), "{report}");
    assert_eq!(report["failed"][0]["may_exist"], true, "{report}");
    assert!(ended.stderr.contains("it may exist in s3://"), "{ended:?}");
    let id = text(&report, "/repositories/0/backup/backup_id").to_owned();

    // The store had it already. The next backup removes nothing, and each can be restored.
    back_up(&stage);
    let listed = stage.json(&["list"]);
    assert_eq!(listed.to_string().matches(&format!("\"backup_id\":\"{id}\"")).count(), 2, "{listed}");
    for repository in ["1", "2"] {
        let target = stage.target(&format!("from-{repository}"));
        let arguments = ["restore", "--repo", repository, "--backup", &id, "--pgdata", &target.display().to_string()];
        stage.ok(&arguments);
        let restored = stage.start_restored(&target).await;
        wait_promoted(&restored).await;
        assert_eq!(sum(&restored).await, sums, "repository {repository}");
    }
}

fn two((left, right): (&str, &str)) -> (String, String) {
    (left.to_owned(), right.to_owned())
}
