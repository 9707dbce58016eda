//! `holdfast repo copy`: a repository is gone. What was copied from it is restored, started and read.

use std::path::PathBuf;
use std::process::Output;

use holdfast_testkit::s3::S3Server;
use serde_json::Value;

use crate::stage::{Plan, Seal, Stage, StoreKind, config_text, repository_lines, succeeded, wait_promoted};

/// A server that archives into one repository, and a second repository elsewhere, with another key and another
/// compression of WAL.
struct Two {
    stage: Stage,
    _s3: S3Server,
    /// The configuration with both repositories.
    both: PathBuf,
    /// The configuration with only the second one.
    second: PathBuf,
}

impl Two {
    async fn start(first: Seal, second: Seal) -> Option<Self> {
        let plan = Plan {
            store: StoreKind::Directory,
            seal: first,
            wal_segment_mib: 1,
            settings: vec![("summarize_wal", "on".to_owned())],
            ..Plan::default()
        };
        let stage = Stage::start(18, plan.clone()).await?;
        let s3 = S3Server::start().expect("start the S3 server");
        let elsewhere = Plan { store: StoreKind::S3, seal: second, wal_compression: "lz4", ..plan.clone() };
        let lines = [
            repository_lines(&plan, None, &stage.scratch, "repository"),
            repository_lines(&elsewhere, Some(&s3), &stage.scratch, "second"),
        ];
        let data = stage.cluster.data();
        let both = stage.write_config("both.toml", &config_text(&elsewhere, &stage.scratch, data, &lines));
        let second = config_text(&elsewhere, &stage.scratch, data, &lines[1..]);
        let second = stage.write_config("second.toml", &second);
        let two = Self { stage, _s3: s3, both, second };
        let init = ["repo", "init"];
        succeeded(&two.run(&two.second, &init), &init);
        Some(two)
    }

    fn run(&self, config: &std::path::Path, arguments: &[&str]) -> Output {
        self.stage.command_with(config, arguments).output().expect("run holdfast")
    }

    fn copy(&self, flags: &[&str]) -> Value {
        let mut arguments = vec!["--output", "json", "repo", "copy", "--from", "1", "--to", "2"];
        arguments.extend_from_slice(flags);
        let text = succeeded(&self.run(&self.both, &arguments), &arguments);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
    }
}

fn outcomes(report: &Value) -> Vec<&str> {
    let backups = report["backups"].as_array().expect("backups");
    backups.iter().map(|backup| backup["outcome"].as_str().expect("an outcome")).collect()
}

async fn survives_the_loss_of_the_first(first: Seal, second: Seal) {
    let Some(two) = Two::start(first, second).await else { return };
    let stage = &two.stage;
    let sql = async |text: &str| stage.cluster.sql(text).await.expect("change data");
    sql("CREATE TABLE t AS SELECT g AS id, repeat('x', 300) AS text FROM generate_series(1, 20000) g").await;
    stage.ok(&["backup", "--type", "full"]);
    sql("UPDATE t SET text = repeat('y', 300) WHERE id % 100 = 0").await;
    stage.archive_now().await;
    let report = two.copy(&["--backup", "latest"]);
    assert_eq!(outcomes(&report), ["copied"], "{report:#}");
    stage.ok(&["backup", "--type", "incremental"]);
    sql("INSERT INTO t SELECT g, 'after' FROM generate_series(20001, 20100) g").await;
    stage.archive_now().await;
    let rows = "SELECT count(*), sum(id), count(DISTINCT text), md5(string_agg(text, '' ORDER BY id)) FROM t";
    let expected = stage.cluster.sql(rows).await.expect("count");

    let report = two.copy(&[]);
    assert_eq!(outcomes(&report), ["already-there", "copied"], "{report:#}");
    assert!(report["wal_file_count"].as_u64() >= Some(2), "{report:#}");
    // What the full backup stored is not stored again.
    let backups = &report["backups"];
    assert!(backups[1]["pack_count"].as_u64() > backups[1]["new_pack_count"].as_u64(), "{backups:#}");
    let report = two.copy(&[]);
    assert_eq!((outcomes(&report), report["size_bytes"].as_u64()), (vec!["already-there"; 2], Some(0)), "{report:#}");

    std::fs::remove_dir_all(stage.repository_folder()).expect("lose the first repository");
    let verify = ["verify", "--deep"];
    succeeded(&two.run(&two.second, &verify), &verify);
    let target = stage.target("restored");
    let path = target.display().to_string();
    let restore = ["restore", "--pgdata", &path];
    succeeded(&two.run(&two.second, &restore), &restore);
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.sql(rows).await.expect("count"), expected);
    drop(restored);

    // The server continues archiving there, and the next backup builds on what was copied.
    let backup = ["--output", "json", "backup", "--type", "incremental"];
    stage.write_config("holdfast.toml", &std::fs::read_to_string(&two.second).expect("read a configuration"));
    let report = succeeded(&two.run(&two.second, &backup), &backup);
    assert!(report.contains("\"type\":\"incremental\"") || report.contains("\"type\": \"incremental\""), "{report}");
    succeeded(&two.run(&two.second, &verify), &verify);
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_survive_in_a_second_repository_with_another_key() {
    survives_the_loss_of_the_first(Seal::KeyFile, Seal::Passphrase).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_without_encryption_survive_in_a_repository_with_it() {
    survives_the_loss_of_the_first(Seal::None, Seal::Passphrase).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_copied_is_refused_in_words() {
    let Some(two) = Two::start(Seal::None, Seal::None).await else { return };
    for (flags, text) in [
        (["--from", "1", "--to", "1"], "a repository cannot be copied onto itself"),
        (["--from", "1", "--to", "3"], "there is no repository 3"),
        (["--from", "1", "--to", "2"], "there is no complete backup"),
    ] {
        let output = two.run(&two.both, &[&["repo", "copy"][..], &flags].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(text) && error.contains("\nhint:"), "{error}");
    }
}
