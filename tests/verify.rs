//! `holdfast verify` against real backups and WAL: sound ones are restored, started and read; damage in the store is
//! reported, with its effect.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_testkit::s3::S3Server;
use serde_json::Value;

use crate::stage::{Plan, Seal, Stage, StoreKind, config_text, repository_lines, wait_promoted};

/// Two backups, and WAL after each.
struct Archive {
    stage: Stage,
    folder: PathBuf,
    backups: Vec<String>,
}

impl Archive {
    async fn make(seal: Seal, store: StoreKind) -> Option<Self> {
        let (stage, backups) = Stage::with_two_backups(seal, store).await?;
        let folder = stage.repository_folder();
        Some(Self { stage, folder, backups })
    }

    /// The objects below a folder of the cluster, ascending.
    fn objects(&self, below: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.join("main").join(below)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("list a folder") {
                let path = entry.expect("list a folder").path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }

    /// The name of an object in the repository.
    fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.folder).expect("in the repository").to_str().expect("a name").to_owned()
    }

    /// The report of `verify` with these flags, and its exit code.
    fn verify(&self, flags: &[&str]) -> (i32, Value, String) {
        let mut arguments = vec!["--output", "json", "verify"];
        arguments.extend_from_slice(flags);
        let output = self.stage.run(&arguments);
        let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let report = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}\n{error}"));
        (output.status.code().unwrap_or(-1), report, error.into_owned())
    }

    fn results(report: &Value) -> Vec<String> {
        let backups = report["repositories"][0]["backups"].as_array().expect("backups");
        backups.iter().map(|backup| backup["result"].as_str().expect("a result").to_owned()).collect()
    }

    fn damage(report: &Value) -> &Vec<Value> {
        report["repositories"][0]["damage"].as_array().expect("damage")
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("read an object");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(path, bytes).expect("change an object");
}

async fn found_and_named(seal: Seal, store: StoreKind) {
    let Some(archive) = Archive::make(seal, store).await else { return };
    let (code, report, error) = archive.verify(&[]);
    assert_eq!((code, Archive::results(&report)), (0, vec!["sound".to_owned(); 2]), "{report:#}\n{error}");
    let (code, report, error) = archive.verify(&["--deep"]);
    assert_eq!((code, Archive::results(&report)), (0, vec!["sound".to_owned(); 2]), "{report:#}\n{error}");
    let claim = &report["repositories"][0]["claims"][0];
    assert_eq!(claim["windows"], claim["sound_windows"]);
    assert!(claim["segments_read"].as_u64() >= Some(6), "{claim}");
    let info = archive.stage.ok(&["info"]);
    for backup in &archive.backups {
        assert!(info.contains(&format!("    verified  {backup}: verified ")), "{info}");
    }
    assert!(info.contains(" deep\n"), "{info}");
    // The next scrub has nothing to do.
    let (code, report, _) = archive.verify(&["--deep", "--max-age", "30d"]);
    assert_eq!((code, Archive::results(&report)), (0, vec!["passed-over".to_owned(); 2]));
    let (code, report, _) = archive.verify(&["--sample", "50%", "--seed", "7", "--no-record"]);
    assert_eq!((code, report["sample"]["seed"].as_u64()), (0, Some(7)));

    // Sound backups are restored, started and read.
    let rows = "SELECT count(*), sum(id) FROM t";
    let expected = archive.stage.cluster.sql(rows).await.expect("count");
    let restored = archive.stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.sql(rows).await.expect("count"), expected);
    drop(restored);

    // A bit of the first backup: its restore would fail, and the second one is sound.
    let pack = archive.objects(&format!("packs/{}", archive.backups[0])).remove(0);
    let whole = fs::read(&pack).expect("read a pack");
    flip(&pack);
    let (code, report, error) = archive.verify(&["--deep"]);
    assert_eq!(code, 45, "{error}");
    assert_eq!(Archive::results(&report), ["damaged", "sound"], "{report:#}");
    let damage = Archive::damage(&report);
    assert_eq!(damage.len(), 1, "{damage:#?}");
    assert_eq!(damage[0]["object"], archive.name(&pack));
    assert_eq!(damage[0]["backups"], serde_json::json!([archive.backups[0]]));
    assert!(!damage[0]["windows"].as_array().expect("windows").is_empty(), "{damage:#?}");
    assert!(error.contains("1 object is missing or damaged: 1 of 2 backups cannot be restored"), "{error}");
    let target = archive.stage.target("broken").display().to_string();
    let (code, _) = archive.stage.fails(&["restore", "--pgdata", &target, "--backup", &archive.backups[0]]);
    assert!((40..=43).contains(&code), "{code}");
    let second = archive.stage.restore_and_start("second", &["--backup", &archive.backups[1]]).await;
    wait_promoted(&second).await;
    assert_eq!(second.sql(rows).await.expect("count"), expected);
    drop(second);
    fs::write(&pack, whole).expect("bring the pack back");

    // WAL between the backups: only the window is cut.
    let segments: Vec<PathBuf> = archive
        .objects("wal")
        .into_iter()
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            !name.contains(".backup.") && !name.contains("history")
        })
        .collect();
    let list = archive.stage.json(&["list"]);
    let stop = list["repositories"][0]["backups"][0]["stop_segment"].as_str().expect("a segment").to_owned();
    let after = segments.iter().position(|path| archive.name(path).contains(&stop)).expect("the stop segment") + 1;
    let whole = fs::read(&segments[after]).expect("read a segment");
    fs::remove_file(&segments[after]).expect("remove a segment");
    let output = archive.stage.run(&["verify"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(45), "{text}");
    let name = archive.name(&segments[after]);
    assert!(text.contains(&format!("  DAMAGE WAL segment {name} is missing: there is WAL after it\n")), "{text}");
    assert!(text.contains("    cuts the window "), "{text}");
    assert!(text.contains("  2 of 2 backups are sound"), "{text}");
    fs::write(&segments[after], whole).expect("bring the segment back");

    // The manifest of the second backup.
    let manifest = archive.folder.join(format!("main/backups/{}/manifest", archive.backups[1]));
    fs::remove_file(&manifest).expect("remove a manifest");
    let (code, report, _) = archive.verify(&["--backup", "latest"]);
    assert_eq!((code, Archive::results(&report)), (45, vec!["damaged".to_owned()]), "{report:#}");
    let (code, report, _) = archive.verify(&["--backup", &archive.backups[0]]);
    assert_eq!((code, Archive::results(&report)), (0, vec!["sound".to_owned()]), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_s3_is_found_and_named() {
    found_and_named(Seal::Passphrase, StoreKind::S3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_without_encryption_is_found_and_named() {
    found_and_named(Seal::None, StoreKind::Directory).await;
}

/// A store that does not answer is not damage.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_not_called_damaged() {
    let Some(mut archive) = Archive::make(Seal::None, StoreKind::S3).await else { return };
    archive.stage.s3 = None;
    let (code, report, error) = archive.verify(&[]);
    assert_eq!(code, 24, "{error}");
    assert_eq!(report["repositories"][0]["error"]["name"], "unreachable", "{report:#}");
}

/// A repository, and a second one with the same backups, which `backup` filled, or `repo copy`.
async fn repaired_and_restored(seal: Seal, other: Seal, copied: bool) {
    let plan = Plan { store: StoreKind::Directory, seal, wal_segment_mib: 1, ..Plan::default() };
    let Some(stage) = Stage::start(18, plan.clone()).await else { return };
    let s3 = S3Server::start().expect("start the S3 server");
    let elsewhere = Plan { store: StoreKind::S3, seal: other, ..plan.clone() };
    let lines = [
        repository_lines(&plan, None, &stage.scratch, "repository"),
        repository_lines(&elsewhere, Some(&s3), &stage.scratch, "second"),
    ];
    let alone = stage.config_text();
    let both = config_text(&plan, &stage.scratch, stage.cluster.data(), &lines);
    stage.write_config("holdfast.toml", &both);
    stage.ok(&["repo", "init"]);
    if copied {
        stage.write_config("holdfast.toml", &alone);
        let (code, error) = stage.fails(&["verify", "--repair"]);
        assert_eq!(code, 2, "{error}");
        assert!(error.contains("there is no other repository to repair from") && error.contains("\nhint:"), "{error}");
    }
    stage.cluster.sql("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 50000) g").await.expect("load data");
    stage.ok(&["backup", "--type", "full"]);
    stage.cluster.sql("UPDATE t SET id = id + 1 WHERE id % 50 = 0").await.expect("change data");
    stage.archive_now().await;
    stage.ok(&["backup", "--type", "incremental"]);
    stage.cluster.sql("INSERT INTO t SELECT generate_series(1, 1000)").await.expect("insert");
    stage.archive_now().await;
    if copied {
        stage.write_config("holdfast.toml", &both);
        stage.ok(&["repo", "copy", "--from", "1", "--to", "2"]);
    }
    let rows = "SELECT count(*), sum(id) FROM t";
    let expected = stage.cluster.sql(rows).await.expect("count");
    let list = stage.json(&["list"]);
    let backups: Vec<String> = list["repositories"][0]["backups"]
        .as_array()
        .expect("backups")
        .iter()
        .map(|backup| backup["backup_id"].as_str().expect("an id").to_owned())
        .collect();
    let archive = Archive { folder: stage.repository_folder(), stage, backups };
    let one = ["--repo", "1", "--deep"];
    let (code, report, error) = archive.verify(&one);
    assert_eq!(code, 0, "{report:#}\n{error}");

    let pack = archive.objects(&format!("packs/{}", archive.backups[0])).remove(0);
    flip(&pack);
    flip(&archive.folder.join(format!("main/backups/{}/manifest", archive.backups[1])));
    let segment = |backup: usize, which: &str| {
        let name = list["repositories"][0]["backups"][backup][which].as_str().expect("a segment").to_owned();
        let mut objects = archive.objects("wal").into_iter();
        let is_it = |path: &PathBuf| {
            let path = path.to_string_lossy();
            path.contains(&name) && !path.contains(".backup.")
        };
        objects.find(is_it).expect("the segment")
    };
    fs::remove_file(segment(0, "stop_segment")).expect("remove a segment");
    flip(&segment(1, "start_segment"));
    let (code, report, _) = archive.verify(&one);
    assert_eq!(code, 45, "{report:#}");

    let (code, report, error) = archive.verify(&[&one[..], &["--repair", "--from", "2"]].concat());
    let repair = &report["repositories"][0]["repair"];
    assert_eq!(code, 0, "{report:#}\n{error}");
    assert!(repair["repaired"].as_array().is_some_and(|repaired| repaired.len() == 4), "{repair:#}");
    assert_eq!(repair["left"].as_array().map(Vec::len), Some(0), "{repair:#}");
    assert_eq!(repair["backups"], serde_json::json!(archive.backups), "{repair:#}");
    let (code, report, error) = archive.verify(&one);
    assert_eq!((code, Archive::results(&report)), (0, vec!["sound".to_owned(); 2]), "{report:#}\n{error}");

    let restored = archive.stage.restore_and_start("restored", &["--repo", "1"]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.sql(rows).await.expect("count"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_repaired_from_a_copy_under_another_key() {
    repaired_and_restored(Seal::KeyFile, Seal::Passphrase, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_repaired_from_a_repository_that_the_backup_filled_too() {
    repaired_and_restored(Seal::Passphrase, Seal::None, false).await;
}
