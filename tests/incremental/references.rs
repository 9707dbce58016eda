//! A cluster with thousands of tables: incremental manifests refer to parts of earlier ones. Everything that reads them
//! gives the same files: a restore, `--delta`, the independent reader, a copy, and what `expire` leaves.

use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_testkit::settings;
use serde_json::Value;

use super::{backup, compare, plan, restore};
use crate::stage::{Plan, Seal, Stage, StoreKind, config_text, repository_lines, succeeded, wait_promoted};

/// Enough that references save more than they cost (`crates/engine/src/backup/incremental/sharing.rs`).
const TABLES: usize = 2000;
const TABLES_AT_ONCE: usize = 250;

const SUM: &str = "SELECT count(*), sum(n), md5(string_agg(text, '' ORDER BY n)) FROM ";

/// A server with many tables, each with a row, a large one, and the backups so far.
struct Many {
    stage: Stage,
    plan: Plan,
    backups: Vec<Value>,
}

impl Many {
    async fn start(major: u16, plan: Plan) -> Option<Self> {
        let stage = Stage::start(major, plan.clone()).await?;
        for first in (0..TABLES).step_by(TABLES_AT_ONCE) {
            let last = first + TABLES_AT_ONCE - 1;
            let create = format!(
                "DO $$ BEGIN FOR g IN {first}..{last} LOOP EXECUTE format('CREATE TABLE t%s AS SELECT %s AS n, \
                 md5(%L) AS text', g, g, g); END LOOP; END $$"
            );
            stage.cluster.sql(&create).await.expect("make tables");
        }
        stage
            .cluster
            .sql("CREATE TABLE load AS SELECT g AS n, md5(g::text) AS text FROM generate_series(1, 20000) g")
            .await
            .expect("make a table");
        Some(Self { stage, plan, backups: Vec::new() })
    }

    async fn change(&self, round: usize) {
        for statement in [
            format!("UPDATE t{} SET text = 'round {round}'", round * 7),
            format!("UPDATE load SET text = 'round {round}' WHERE n % 500 = {round}"),
            format!("DROP TABLE t{}", 1000 + round),
            format!("CREATE TABLE new{round} AS SELECT 1 AS n, 'x' AS text"),
        ] {
            self.stage.cluster.sql(&statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
    }

    /// Takes a backup; gives the bytes of its manifest.
    fn back_up(&mut self, kind: &str) -> u64 {
        let record = backup(&self.stage, &["--type", kind]);
        assert_eq!(record["type"], kind);
        let bytes = record["manifest"]["size_bytes"].as_u64().expect("a size");
        self.backups.push(record);
        bytes
    }

    fn id(&self, number: usize) -> &str {
        self.backups[number]["backup_id"].as_str().expect("an id")
    }

    fn manifest(&self, number: usize) -> PathBuf {
        self.stage.repository_folder().join(format!("main/backups/{}/manifest", self.id(number)))
    }

    /// The results of a query on the server, for [`Self::prove`].
    async fn sums(&self) -> Vec<Vec<Vec<String>>> {
        let mut sums = Vec::new();
        for table in ["load", "t7", "t14", "t21", "t1900", "new3"] {
            sums.push(self.stage.cluster.sql(&format!("{SUM}{table}")).await.expect("sum up"));
        }
        sums
    }

    /// Starts a restored directory, and compares its answers.
    async fn prove(&self, target: &Path, sums: &[Vec<Vec<String>>], what: &str) {
        let restored = self.stage.start_restored(target).await;
        wait_promoted(&restored).await;
        for (table, expected) in ["load", "t7", "t14", "t21", "t1900", "new3"].iter().zip(sums) {
            assert_eq!(&restored.sql(&format!("{SUM}{table}")).await.expect("sum up"), expected, "{what}: {table}");
        }
    }
}

/// A full backup and three incremental ones; gives the bytes of their manifests.
async fn four_backups(many: &mut Many) -> Vec<u64> {
    let mut bytes = vec![many.back_up("full")];
    for round in 1..=3 {
        many.change(round).await;
        bytes.push(many.back_up("incremental"));
    }
    many.stage.archive_now().await;
    eprintln!("manifests of {bytes:?} bytes");
    assert!(bytes[1..].iter().all(|incremental| incremental * 2 < bytes[0]), "{bytes:?}");
    bytes
}

/// The independent reader restores the backup as well.
fn read_independently(many: &Many, id: &str, target: &Path) {
    let Some(python) = settings::get("HOLDFAST_PYTHON") else {
        settings::skip("there is no HOLDFAST_PYTHON; scripts/provision makes it");
        return;
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format/reader.py");
    let text = std::fs::read_to_string(source).expect("read the reader");
    let reader = many.stage.scratch.write("reader.py", text).expect("copy the reader");
    let mut command = Command::new(python);
    command
        .arg(reader)
        .arg(many.stage.repository_folder())
        .args(["restore", "main", "--backup", id, "--to"])
        .arg(target);
    if many.plan.seal == Seal::Passphrase {
        command.arg("--passphrase-file").arg(many.stage.scratch.path().join("passphrase"));
    }
    holdfast_testkit::user::run_as_postgres(&mut command).expect("drop to PostgreSQL's user");
    let output = command.output().expect("run the reader");
    assert!(output.status.success(), "reader.py:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// After the older backups have expired, the newest one is whole: the manifest that it refers to is still there.
fn expire_the_others(many: &Many) {
    let retention = "\n[retention]\nkeep = { last = 1 }\ngrace = \"0\"\n";
    let config = many.stage.write_config("last.toml", &(many.stage.config_text() + retention));
    for _ in 0..2 {
        let output = many.stage.command_with(&config, &["expire"]).output().expect("run expire");
        succeeded(&output, &["expire"]);
    }
    let listed = many.stage.json(&["list"]);
    let backups = listed["repositories"][0]["backups"].as_array().expect("backups").clone();
    assert_eq!(backups.len(), 1, "{listed:#}");
    assert!(many.manifest(0).exists(), "the newest backup refers to it");
    assert!(!many.manifest(0).with_file_name("backup.json").exists());
    many.stage.ok(&["verify", "--deep"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_reads_a_manifest_that_refers_to_others() {
    let seal = Seal::Passphrase;
    let own = Plan { seal, compression: "zstd:1", ..plan(&[("summarize_wal", "on")]) };
    let Some(mut many) = Many::start(18, own).await else { return };
    four_backups(&mut many).await;
    let (sums, last) = (many.sums().await, many.backups[3].clone());
    let id = many.id(3).to_owned();

    let restored = restore(&many.stage, &last, "restored");
    compare(many.stage.cluster.data(), &restored, "a chain of four");

    // From the full backup to the newest one, in place.
    let delta = restore(&many.stage, &many.backups[0], "delta");
    many.stage.ok(&["restore", "--delta", "--backup", &id, "--pgdata", &delta.display().to_string()]);
    compare(many.stage.cluster.data(), &delta, "a delta");

    let independent = many.stage.target("independent");
    read_independently(&many, &id, &independent);
    if independent.exists() {
        compare(many.stage.cluster.data(), &independent, "the independent reader");
    }
    many.stage.ok(&["verify", "--deep"]);

    // A second repository with another key needs nothing of the first.
    let elsewhere = Plan { seal: Seal::KeyFile, ..many.plan.clone() };
    let lines = [
        repository_lines(&many.plan, None, &many.stage.scratch, "repository"),
        repository_lines(&elsewhere, None, &many.stage.scratch, "second"),
    ];
    let data = many.stage.cluster.data();
    let both = many.stage.write_config("both.toml", &config_text(&many.plan, &many.stage.scratch, data, &lines));
    let second = config_text(&many.plan, &many.stage.scratch, data, &lines[1..]);
    let second = many.stage.write_config("second.toml", &second);
    let run = |config: &Path, arguments: &[&str]| {
        succeeded(&many.stage.command_with(config, arguments).output().expect("run holdfast"), arguments)
    };
    run(&second, &["repo", "init"]);
    run(&both, &["repo", "copy", "--from", "1", "--to", "2"]);
    let copied = many.stage.target("copied");
    run(&second, &["restore", "--backup", &id, "--pgdata", &copied.display().to_string()]);
    many.prove(&copied, &sums, "copied").await;

    // The manifest of the full backup is lost: all four backups need it, and come back from the copy.
    std::fs::remove_file(many.manifest(0)).expect("lose a manifest");
    let output = many.stage.run(&["--output", "json", "verify"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(output.status.code(), Some(45));
    let damage = &report["repositories"][0]["damage"];
    let ids: Vec<&str> = (0..4).map(|number| many.id(number)).collect();
    assert_eq!(
        (damage[0]["kind"].as_str(), &damage[0]["backups"]),
        (Some("missing"), &serde_json::json!(ids)),
        "{damage:#}"
    );
    run(&both, &["verify", "--repo", "1", "--repair"]);
    many.stage.ok(&["verify", "--deep"]);

    // The chain continues in both ways: on a parent whose manifest was written again, and by reference to it.
    many.change(4).await;
    many.back_up("incremental");
    many.change(5).await;
    many.back_up("incremental");
    let sums = many.sums().await;
    many.stage.archive_now().await;
    let newest = many.backups[5].clone();
    let continued = restore(&many.stage, &newest, "continued");
    compare(many.stage.cluster.data(), &continued, "a continued chain");
    many.prove(&continued, &sums, "continued").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_stays_as_long_as_a_kept_backup_refers_to_it() {
    let Some(mut many) = Many::start(16, Plan { store: StoreKind::Directory, ..plan(&[]) }).await else { return };
    four_backups(&mut many).await;
    let (sums, id) = (many.sums().await, many.id(3).to_owned());
    expire_the_others(&many);
    let restored = restore(&many.stage, &many.backups[3], "restored");
    compare(many.stage.cluster.data(), &restored, "expire");
    many.prove(&restored, &sums, "after expire").await;
    let independent = many.stage.target("independent");
    read_independently(&many, &id, &independent);
    if independent.exists() {
        compare(many.stage.cluster.data(), &independent, "the independent reader after expire");
    }
    // The next one builds on it, and when nothing refers to the old manifest any more, it goes.
    many.change(4).await;
    many.back_up("incremental");
    expire_the_others(&many);
    let full = many.back_up("full");
    assert!(full > 0);
    let retention = "\n[retention]\nkeep = { last = 1 }\ngrace = \"0\"\n";
    let config = many.stage.write_config("last.toml", &(many.stage.config_text() + retention));
    for _ in 0..2 {
        succeeded(&many.stage.command_with(&config, &["expire"]).output().expect("run expire"), &["expire"]);
    }
    assert!(!many.manifest(0).exists(), "no backup refers to it");
    let restored = restore(&many.stage, &many.backups[5], "full");
    compare(many.stage.cluster.data(), &restored, "a full backup");
}
