//! A killed backup is continued by the next one: what it had stored is not stored again, what is not needed is removed,
//! and the continued backup is as good as any other.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_repo::Manifest;
use holdfast_repo::record::{RepositoryRecord, decode_plain};
use holdfast_testkit::proxy::{Effect, Fault, HttpFaults, When};

use crate::stage::attack::{Victim, back_up, complete, load, objects, sessions_gone, small_packs, sum};
use crate::stage::{Plan, Seal, Stage, wait_promoted};

/// The store still carries out, a moment later, what a killed client has already sent.
const SETTLE: Duration = Duration::from_millis(100);

/// The packs that the manifest of a backup names.
fn packs_named_by(stage: &Stage, backup: &str) -> BTreeSet<String> {
    let read = |name: &str| std::fs::read(stage.repository_folder().join(name)).expect("read an object");
    let record: RepositoryRecord = decode_plain(&read("holdfast.json")).expect("the repository's record");
    let name = format!("main/backups/{backup}/manifest");
    let manifest = Manifest::parse(&name, &read(&name), record.repository_id, None).expect("a manifest");
    manifest.packs().iter().map(|pack| pack.name.clone()).collect()
}

/// Incomplete backups leave only packs that complete ones name.
fn only_packs_in_use(stage: &Stage) {
    let (known, all) = (complete(stage), objects(stage));
    let in_use: BTreeSet<String> = known.iter().flat_map(|backup| packs_named_by(stage, backup)).collect();
    for name in all.into_keys().filter(|name| name.starts_with("main/packs/") || name.starts_with("main/backups/")) {
        let is_known = known.iter().any(|backup| name.contains(backup.as_str()));
        assert!(is_known || in_use.contains(&name), "{name} is left of a killed backup");
    }
    stage.ok(&["verify"]);
}

/// A killed backup is continued, and the one that continues it is killed as well: what both had stored is not stored
/// again, and what is not needed is removed.
async fn continued_backups(kind: &str) {
    let Some(stage) = Stage::start(18, Plan { seal: Seal::None, compression: "zstd:1", ..Plan::default() }).await
    else {
        return;
    };
    small_packs(&stage);
    let s3 = stage.s3.as_ref().expect("a stage on S3");
    let proxy = HttpFaults::start(s3.address()).expect("start a proxy");
    stage.write_config("holdfast.toml", &stage.config_text().replace(&s3.endpoint(), &proxy.endpoint()));
    load(&stage.cluster).await;
    let mut before = BTreeSet::new();
    if kind == "incremental" {
        before.insert(back_up(&stage));
        let changed = "CREATE TABLE more AS SELECT * FROM load; UPDATE load SET id = id WHERE id % 50 = 0; CHECKPOINT";
        stage.cluster.sql(changed).await.expect("change data");
    }
    let mut killed: Vec<String> = Vec::new();
    let mut packs = packs_below(&stage);
    for more in [3, 2] {
        // The manifest cannot be stored, so that no run succeeds.
        proxy.inject(Fault::new(Effect::Status(503, "SlowDown"), When::Always).method("PUT").path_contains("manifest"));
        proxy
            .inject(Fault::new(Effect::Status(503, "SlowDown"), When::Always).method("POST").path_contains("manifest"));
        let stored = || packs_below(&stage).difference(&packs).count() >= more;
        let mut victim = Victim::start(&stage, &["backup", "--type", kind]);
        assert!(victim.runs_until(stored).await, "it stores packs: {:?}", victim.wait());
        victim.kill();
        tokio::time::sleep(SETTLE).await;
        proxy.clear();
        sessions_gone(&stage.cluster).await;
        assert_eq!(complete(&stage), before);
        packs = packs_below(&stage);
        killed = stage.json(&["list"])["repositories"][0]["unfinished"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|unfinished| unfinished["backup_id"].as_str().expect("an id").to_owned())
            .collect();
        // The table is written again after the first kill: its packs no longer help.
        stage
            .cluster
            .sql("UPDATE load SET text = reverse(text) WHERE id <= 20000; CHECKPOINT")
            .await
            .expect("change data");
    }
    assert_eq!(killed.len(), 2, "{killed:?}");
    let expected = sum(&stage.cluster).await;
    let report = stage.json(&["backup", "--type", kind]);
    assert_eq!(report["resumed"]["backups"], serde_json::json!(killed), "{report}");
    assert!(report["resumed"]["size_bytes"].as_u64().expect("bytes") > 1 << 20, "{report}");
    let backup = report["repositories"][0]["backup"]["backup_id"].as_str().expect("an id").to_owned();
    let used = packs_named_by(&stage, &backup);
    for dead in &killed {
        assert!(used.iter().any(|pack| pack.contains(dead.as_str())), "a pack of {dead} is used: {used:?}");
    }
    only_packs_in_use(&stage);
    let listed = stage.json(&["list"]);
    assert_eq!(listed["repositories"][0]["unfinished"], serde_json::json!([]), "{listed}");
    // Packs in use stay after the next backups, and a backup that builds on them has them.
    let child = back_up(&stage);
    only_packs_in_use(&stage);
    stage.ok(&["verify", "--deep"]);
    stage.archive_now().await;
    for (name, backup) in [("continued", &backup), ("child", &child)] {
        let restored = stage.restore_and_start(name, &["--backup", backup]).await;
        wait_promoted(&restored).await;
        assert_eq!(sum(&restored).await, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_full_backup_is_continued() {
    continued_backups("full").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_incremental_backup_is_continued() {
    continued_backups("incremental").await;
}

/// The packs in the store.
fn packs_below(stage: &Stage) -> BTreeSet<String> {
    objects(stage).into_keys().filter(|name| name.starts_with("main/packs/")).collect()
}
