//! Foreign and damaged files in every folder of a real repository: commands continue to work, and damage is reported.

use std::fs;
use std::path::Path;

use holdfast_repo::record::{BackupRecord, ClaimRecord, decode_plain, encode_plain};
use holdfast_testkit::postgres::Cluster;

use super::kit::{Damage, texts_of};
use crate::stage::attack::objects;
use crate::stage::{Plan, Seal, Stage, StoreKind, wait_promoted};

/// Writes files below a folder, owned by PostgreSQL's user.
fn plant(stage: &Stage, folder: &Path, names: &[&str]) {
    for name in names {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        fs::write(&path, "this is not an object of the repository\n").expect("plant a file");
    }
    stage.scratch.user().own_tree(folder).expect("give the files to PostgreSQL's user");
}

/// A stage whose archive had two other clusters before: three claims, of which the last belongs to the running server.
async fn third_owner(seal: Seal) -> Option<Stage> {
    let plan = Plan { store: StoreKind::Directory, seal, wal_segment_mib: 1, archive: true, ..Plan::default() };
    let stage = Stage::start(18, plan).await?;
    let other = Cluster::builder(&stage.installation).wal_segment_mib(1).create().await.expect("make another cluster");
    let data = stage.cluster.data().display().to_string();
    let text = stage.config_text().replace(&data, &other.data().display().to_string());
    let config = stage.write_config("other.toml", &text);
    let output = stage.command_with(&config, &["repo", "init", "--new-claim"]).output().expect("run holdfast");
    crate::stage::succeeded(&output, &["repo", "init", "--new-claim"]);
    stage.ok(&["repo", "init", "--new-claim"]);
    Some(stage)
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_files_anywhere_stop_nothing_and_damage_is_reported() {
    let Some(stage) = third_owner(Seal::Passphrase).await else { return };
    let repository = stage.repository_folder();
    stage.cluster.sql("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 1000) g").await.expect("load data");
    let mut backups = Vec::new();
    for _ in 0..3 {
        let report = stage.json(&["backup"]);
        backups.push(report["repositories"][0]["backup"]["backup_id"].as_str().expect("an id").to_owned());
        stage.cluster.sql("INSERT INTO t SELECT generate_series(1, 1000)").await.expect("insert");
        stage.archive_now().await;
    }
    let log_folder = {
        let timeline = repository.join("main/wal/3/00000001");
        let folder = fs::read_dir(&timeline).expect("list the WAL").next().expect("a folder").expect("an entry").path();
        folder.strip_prefix(&repository).expect("below").display().to_string()
    };

    plant(
        &stage,
        &repository,
        &[
            "README",
            "lost+found/#123",
            "holdfast.json.old",
            "other/notes.txt",
            "keys/README",
            "keys/default.json.old",
            "keys/deep/slot.json",
            "keys/second.json",
            "main/README",
            "main/ledger.json",
            "main/claims/README",
            "main/claims/04.json",
            "main/claims/deep/9.json",
            "main/backups/README",
            "main/backups/20260101T000000Z.old/backup.json",
            "main/backups/20260101T000000Z/backup.json.tmp",
            "main/backups/20260102T000000Z/start.json",
            "main/packs/README",
            "main/packs/20260101T000000Z/1.pack",
            "main/wal/README",
            "main/wal/x/00000001/000000010000000000000001.zst",
            "main/wal/3/README",
            "main/wal/3/00000001/README",
            &format!("{log_folder}/README"),
            &format!("{log_folder}/000000010000000000000001.bak"),
            "main/snapshots/README",
            "main/snapshots/20260101T000000Z.json",
            "main/ledger/README",
            "main/ledger/20260101T000000.000000Z-gap.json",
        ],
    );
    let claims = ["1", "2"].map(|claim| Damage::halve(&repository.join(format!("main/claims/{claim}.json"))));
    let first = Damage::flip(&repository.join(format!("main/backups/{}/backup.json", backups[0])));
    let last = Damage::halve(&repository.join(format!("main/backups/{}/backup.json", backups[2])));

    // Push, check, backup.
    stage.cluster.sql("INSERT INTO t SELECT generate_series(1, 1000)").await.expect("insert");
    stage.archive_now().await;
    let checked = stage.ok(&["check"]);
    assert!(checked.contains("keys/second.json"), "{checked}");
    stage.ok(&["backup", "--label", "beside the damage"]);
    stage.cluster.sql("INSERT INTO t SELECT generate_series(1, 1000)").await.expect("insert");
    stage.archive_now().await;

    // Both outputs name what is damaged, with its code, and show the rest.
    let mut texts = texts_of(&stage);
    texts.name("FIRST", &backups[0]);
    texts.name("LAST", &backups[2]);
    let listed = texts.plain(&stage.ok(&["list"]));
    for line in [
        "unreadable backup $FIRST: the backup record cannot be opened: object main/backups/$FIRST/backup.json: ",
        "unreadable backup $LAST: the backup record cannot be opened: object main/backups/$LAST/backup.json: truncated: ",
        "unreadable start record of the unfinished backup $BACKUP: ",
    ] {
        assert!(listed.contains(line), "{line}\n{listed}");
    }
    assert!(listed.contains("(41, truncated-object)"), "{listed}");
    let listed = stage.json(&["list"]);
    let listed = &listed["repositories"][0];
    assert_eq!(listed["backups"].as_array().expect("backups").len(), 2, "{listed}");
    assert_eq!(listed["unreadable"][1]["id"], backups[2].as_str());
    assert_eq!(listed["unreadable"][1]["error"]["code"], 41);
    assert_eq!(listed["unfinished"][0]["error"]["code"], 40);
    let info = stage.json(&["info"]);
    let info = &info["repositories"][0];
    let named: Vec<String> = info["unreadable"]
        .as_array()
        .expect("what cannot be read")
        .iter()
        .map(|bad| format!("{} {}", bad["kind"].as_str().unwrap_or("?"), bad["id"].as_str().unwrap_or("?")))
        .collect();
    let expected = [
        "key slot second".to_owned(),
        "claim 1".to_owned(),
        "claim 2".to_owned(),
        format!("backup {}", backups[0]),
        format!("backup {}", backups[2]),
        "snapshot 20260101T000000Z".to_owned(),
        "gap 20260101T000000.000000Z".to_owned(),
    ];
    assert_eq!(named, expected);
    assert_eq!(info["claims"][0]["reach"][0]["windows"].as_array().expect("windows").len(), 1, "{info}");
    let about = stage.ok(&["repo", "info"]);
    assert!(about.contains("unreadable key slot second") && about.contains("unreadable claim on main: 1"), "{about}");
    // There is no other snapshot: listing prints the problem and then fails.
    let (code, _) = stage.fails(&["snapshot", "list"]);
    assert_eq!(code, 40);

    // If the damaged one was requested, that is an error; otherwise it is a note.
    let target = stage.target("named").display().to_string();
    let (code, said) = stage.fails(&["restore", "--pgdata", &target, "--backup", &backups[2]]);
    assert_eq!(code, 41, "{said}");
    let target = stage.target("restored");
    let said = stage.ok(&["restore", "--pgdata", &target.display().to_string()]);
    for id in [&backups[0], &backups[2]] {
        assert!(said.contains(&format!("note: backup {id} was left out, because it cannot be read: ")), "{said}");
    }
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT count(*) FROM t").await.expect("count"), "6000");

    // After the repair, everything is there again.
    drop((claims, first, last));
    let listed = stage.json(&["list"]);
    assert_eq!(listed["repositories"][0]["backups"].as_array().expect("backups").len(), 4);
}

/// A claim by a future release, with a major version that this one does not know.
fn of_the_future(stage: &Stage, claim: u32) -> Damage {
    Damage::change(&stage.repository_folder().join(format!("main/claims/{claim}.json")), |bytes| {
        let mut record: ClaimRecord = decode_plain(bytes).expect("read the claim");
        record.pg_major = 99;
        *bytes = encode_plain(&record).expect("write the claim");
    })
}

/// The report of `info`, its exit code and its messages.
fn info(stage: &Stage) -> (Option<i32>, serde_json::Value, String) {
    let output = stage.run(&["--output", "json", "info"]);
    let shown = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = String::from_utf8_lossy(&stage.run(&["info"]).stdout).into_owned();
    (output.status.code(), shown, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn info_shows_the_rest_beside_a_claim_it_cannot_understand() {
    let Some(stage) = third_owner(Seal::None).await else { return };
    stage.ok(&["backup"]);
    stage.archive_now().await;

    // An old claim of an unknown major version: it is shown, and so is everything else.
    let first = of_the_future(&stage, 1);
    let (code, shown, text) = info(&stage);
    let claims = &shown["repositories"][0]["claims"];
    assert_eq!((code, claims.as_array().expect("claims").len()), (Some(0), 3), "{shown}");
    assert_eq!((&claims[0]["claim"]["pg_major"], &claims[2]["claim"]["pg_major"]), (&99.into(), &18.into()), "{shown}");
    assert_eq!(claims[2]["reach"][0]["windows"].as_array().expect("windows").len(), 1, "{shown}");
    assert!(text.contains("claim 1: PostgreSQL 99,") && text.contains("claim 3: PostgreSQL 18,"), "{text}");
    drop(first);

    // The claim in force: its content is counted, and a note says that this release cannot judge it.
    let newest = of_the_future(&stage, 3);
    let (code, shown, text) = info(&stage);
    let claim = &shown["repositories"][0]["claims"][2];
    assert_eq!((code, &claim["backups"]["complete"]), (Some(0), &1.into()), "{shown}");
    assert_eq!(claim["wal"]["timelines"][0]["gaps"], serde_json::json!([]), "{shown}");
    assert!(claim["reach"][0]["unreadable"].as_str().expect("a reason").contains("99"), "{shown}");
    assert!(text.contains("UNKNOWN   timeline 1: ") && text.contains("a newer holdfast may know it"), "{text}");
    drop(newest);

    // The claim in force cannot be read: nothing is archived any more, so the command fails after it has shown the
    // rest.
    let newest = Damage::halve(&stage.repository_folder().join("main/claims/3.json"));
    let (code, shown, text) = info(&stage);
    assert_eq!(code, Some(41), "{shown}");
    let repository = &shown["repositories"][0];
    assert_eq!(repository["claims"].as_array().expect("claims").len(), 2, "{shown}");
    assert_eq!(
        (&repository["unreadable"][0]["kind"], &repository["unreadable"][0]["id"]),
        (&"claim".into(), &"3".into())
    );
    assert!(text.contains("claim 2: PostgreSQL 18,") && text.contains("unreadable claim 3: "), "{text}");
    let (code, said) = stage.fails(&["info"]);
    assert!(code == 41 && said.contains("hint:  "), "{said}");
    drop(newest);
    let (code, shown, _) = info(&stage);
    assert_eq!((code, shown["repositories"][0]["claims"].as_array().expect("claims").len()), (Some(0), 3), "{shown}");
}

/// Without encryption, anybody who can write into a repository can plant records. A planted record is refused by its
/// size before it is received, and nothing is written outside of the target.
#[tokio::test(flavor = "multi_thread")]
async fn planted_records_cost_no_memory_and_lead_nowhere() {
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    let space = stage.scratch.folder("space").expect("make a folder");
    stage
        .cluster
        .sql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()))
        .await
        .expect("make a tablespace");
    stage.cluster.sql("CREATE TABLE t TABLESPACE space AS SELECT 6 AS n").await.expect("fill a table");
    stage.ok(&["backup"]);
    stage.archive_now().await;
    let summary = objects(&stage).into_keys().find(|name| name.ends_with("/backup.json")).expect("a record");
    let summary = stage.repository_folder().join(summary);
    let sound = fs::read(&summary).expect("read the record");
    let change = |edit: &dyn Fn(&mut BackupRecord)| {
        let mut record: BackupRecord = decode_plain(&sound).expect("understand the record");
        edit(&mut record);
        fs::write(&summary, encode_plain(&record).expect("make a record")).expect("plant the record");
    };
    let victim = stage.scratch.folder("home/.ssh").expect("make a folder");
    fs::write(victim.join("authorized_keys"), "of somebody\n").expect("write a file");
    let target = stage.target("restored");
    let refused = |what: &str| {
        let (code, text) = stage.fails(&["restore", "--pgdata", &target.display().to_string()]);
        assert!(code != 99 && text.contains("hint:  "), "{what}: {text}");
        assert!(!target.exists(), "{what}: something was written: {text}");
        assert_eq!(fs::read_dir(&victim).expect("list a folder").count(), 1, "{what}");
    };
    let above = victim.parent().expect("a folder above").display().to_string();
    for place in [victim.display().to_string(), format!("{above}/x/../.ssh"), "home/.ssh".to_owned(), String::new()] {
        change(&|record| record.tablespaces.iter_mut().for_each(|tablespace| tablespace.path.clone_from(&place)));
        refused(&place);
    }
    change(&|record| record.manifest.size_bytes = 1 << 50);
    refused("a manifest of a PiB");
    fs::File::options().write(true).open(&summary).and_then(|file| file.set_len(1 << 30)).expect("extend the record");
    refused("a record of a GiB");
    let output = stage.run(&["list"]);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("larger than such an object can be"), "{text}");

    fs::write(&summary, &sound).expect("repair the record");
    let mapping = format!("space={}", stage.target("restored-space").display());
    let restored = stage.restore_and_start("sound", &["--tablespace", &mapping]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT n FROM t").await.expect("ask"), "6");
}
