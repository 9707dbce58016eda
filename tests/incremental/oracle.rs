//! PostgreSQL's own incremental backup as the judge: `pg_basebackup --incremental` beside ours, combined by
//! `pg_combinebackup`, and compared page by page.

use super::{SUM, backup, compare, plan, restore};
use crate::stage::{Stage, wait_promoted};

/// The changes between two backups.
const ROUNDS: &[&[&str]] = &[
    &["UPDATE load SET text = md5(text) WHERE id % 97 = 0"],
    &[
        "DELETE FROM load WHERE id > 30000",
        "VACUUM load",
        "CREATE TABLE later AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 5000) g",
    ],
    &["TRUNCATE later", "INSERT INTO later VALUES (1, 'x')", "CREATE DATABASE copied STRATEGY FILE_COPY"],
    &["VACUUM FULL load", "DROP DATABASE copied", "CREATE DATABASE copied"],
];

/// Takes a backup with PostgreSQL's own program, into a folder that PostgreSQL's user may write.
async fn base_backup(stage: &Stage, name: &str, parent: Option<&str>) -> String {
    let folder = stage.scratch.folder("theirs").expect("make a folder");
    let target = folder.join(name).display().to_string();
    let mut arguments = vec!["-D", &target, "--checkpoint=fast", "--wal-method=none", "--no-sync"];
    let manifest = parent.map(|parent| format!("--incremental={parent}/backup_manifest"));
    arguments.extend(manifest.as_deref());
    stage.cluster.tool("pg_basebackup", &arguments).await.expect("run pg_basebackup");
    target
}

/// The program of a major reads the files of this major alone.
async fn pages_are_those_of_pg_combinebackup(major: u16) {
    let Some(stage) = Stage::start(major, plan(&[("summarize_wal", "on")])).await else { return };
    let load = "CREATE TABLE load AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 40000) g";
    stage.cluster.sql(load).await.expect("load");
    stage.cluster.sql("VACUUM load").await.expect("vacuum");
    backup(&stage, &["--type", "full"]);
    let mut theirs = vec![base_backup(&stage, "theirs-0", None).await];
    for (number, statements) in (1..).zip(ROUNDS) {
        for statement in *statements {
            stage.cluster.sql(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
        // Nothing may change between the two backups of a round, also no hint bits.
        stage.cluster.sql("SELECT count(*) FROM load").await.expect("read");
        stage.cluster.sql("CHECKPOINT").await.expect("checkpoint");
        let ours = backup(&stage, &["--type", "incremental"]);
        assert_eq!(ours["type"], "incremental");
        let parent = theirs.last().expect("a backup").clone();
        theirs.push(base_backup(&stage, &format!("theirs-{number}"), Some(&parent)).await);
        let folder = stage.scratch.folder("combined").expect("make a folder");
        let combined = folder.join(number.to_string());
        let place = combined.display().to_string();
        let mut arguments: Vec<&str> = theirs.iter().map(String::as_str).collect();
        arguments.extend(["-o", &place, "--no-sync"]);
        stage.cluster.tool("pg_combinebackup", &arguments).await.expect("run pg_combinebackup");
        let restored = restore(&stage, &ours, &format!("ours-{number}"));
        compare(&combined, &restored, &statements.join("; "));
        compare(stage.cluster.data(), &restored, &statements.join("; "));
    }
    let expected = stage.cluster.sql(&format!("{SUM}load")).await.expect("sum up");
    stage.archive_now().await;
    let restored = stage.restore_and_start("started", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.sql(&format!("{SUM}load")).await.expect("sum up"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_those_of_pg_combinebackup_of_18() {
    pages_are_those_of_pg_combinebackup(18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_those_of_pg_combinebackup_of_19() {
    pages_are_those_of_pg_combinebackup(19).await;
}
