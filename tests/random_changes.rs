//! Random changes of everything that a backup lists and reads, while backups run. Each complete backup is restored to
//! the end of the archive, and has what the server had then.
//!
//! The steps follow from the seed. How many of them happen during a backup depends on the machine. A failure prints the
//! seed.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::stage::proof::{am_check, bulk, text};
use crate::stage::{Plan, Seal, Stage, StoreKind, wait_promoted};
use holdfast_testkit::postgres::Cluster;
use holdfast_testkit::random::{Random, seed_of_environment};
use holdfast_testkit::user::DatabaseUser;

const DATABASES: [&str; 3] = ["postgres", "d1", "d2"];
const TABLES: [&str; 6] = ["t1", "t2", "t3", "t4", "t5", "t6"];
const SPACES: [&str; 4] = ["pg_default", "outside", "s1", "s2"];

/// The next step, and its database. The server refuses some of them: tables do not exist, tablespaces are not empty.
fn statement(random: &mut Random) -> (&'static str, String) {
    let mut one_of = |names: &[&'static str]| random.one_of(names).expect("names");
    let (database, table) = (one_of(&DATABASES), one_of(&TABLES));
    let (space, other) = (one_of(&SPACES), one_of(&TABLES));
    let strategy = one_of(&["wal_log", "file_copy"]);
    let rows = 1 + random.below(20000);
    let sql = match random.below(20) {
        0..=2 => format!("CREATE TABLE {table} TABLESPACE {space} AS SELECT g AS n FROM generate_series(1, {rows}) g"),
        3..=6 => format!("INSERT INTO {table} SELECT generate_series(1, {rows})"),
        7 => format!("DROP TABLE {table}"),
        8 => format!("TRUNCATE {table}"),
        9 => format!("DELETE FROM {table} WHERE n % 3 > 0; VACUUM {table}"),
        10 => format!("VACUUM FULL {table}"),
        11 => format!("ALTER TABLE {table} RENAME TO {other}"),
        12 => format!("ALTER TABLE {table} SET TABLESPACE {space}"),
        13 => format!("CREATE INDEX ON {table} (n)"),
        14 => format!("ALTER SYSTEM SET work_mem = {}", 1000 + rows),
        15 => "CHECKPOINT".to_owned(),
        16 => format!("CREATE DATABASE {database} STRATEGY {strategy}"),
        17 => format!("DROP DATABASE {database}"),
        18 => format!("CREATE TABLESPACE {space} LOCATION ''"),
        _ => format!("DROP TABLESPACE {space}"),
    };
    let alone = ["CREATE DATABASE", "DROP DATABASE", "CREATE TABLESPACE", "DROP TABLESPACE"];
    (if alone.iter().any(|start| sql.starts_with(start)) { "postgres" } else { database }, sql)
}

/// Files that are not relations grow, shrink, disappear, get another name, or become links.
#[expect(clippy::unwrap_in_result, reason = "a failed set-up fails the test")]
fn change_files(random: &mut Random, folder: &std::path::Path) -> std::io::Result<()> {
    let path: PathBuf = folder.join(random.one_of(&["a", "b", "c", "d"]).expect("a name"));
    let bytes = random.index(2 << 20);
    match random.below(7) {
        0..=2 => OpenOptions::new().append(true).create(true).open(&path)?.write_all(&vec![b'x'; bytes])?,
        3 => fs::write(&path, "little\n")?,
        4 => fs::remove_file(&path)?,
        5 => fs::rename(&path, folder.join("a"))?,
        _ => {
            fs::remove_file(&path)?;
            symlink("/nowhere/at/all", &path)?;
        }
    }
    if path.is_file() {
        DatabaseUser::current().and_then(|user| user.own(&path)).expect("give the file away");
    }
    Ok(())
}

/// All queries about the server's databases, tables and tablespaces.
async fn state(cluster: &Cluster) -> String {
    let mut state = String::new();
    let spaces = "SELECT string_agg(spcname, ' ' ORDER BY spcname) FROM pg_tablespace";
    writeln!(state, "{}", cluster.value(spaces).await.expect("ask for tablespaces")).expect("write");
    let databases = "SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit <> -2 ORDER BY datname";
    for database in cluster.sql(databases).await.expect("ask for databases").into_iter().flatten() {
        let tables = "SELECT c.relname, coalesce(s.spcname, '') FROM pg_class c LEFT JOIN pg_tablespace s \
                      ON s.oid = c.reltablespace WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' \
                      AND c.relname LIKE 't_' ORDER BY 1";
        for row in cluster.sql_in(&database, tables).await.expect("ask for tables") {
            let query = format!("SELECT count(*), sum(n), min(n), max(n) FROM {}", row[0]);
            let sums = cluster.sql_in(&database, &query).await.expect("read a table");
            writeln!(state, "{database} {row:?} {sums:?}").expect("write");
        }
    }
    state
}

async fn changes(seed: u64) {
    eprintln!("seed {seed}");
    let plan = Plan {
        store: StoreKind::Directory,
        seal: Seal::KeyFile,
        compression: "zstd:9",
        checksums: seed.is_multiple_of(2),
        // In place, so that WAL replay creates them in the copy and not in the places of the original.
        settings: vec![("allow_in_place_tablespaces", "on".to_owned())],
        ..Plan::default()
    };
    let Some(stage) = Stage::start(18, plan).await else { return };
    let mut random = Random::of_seed(seed);
    bulk(&stage.cluster, "load", 60).await;
    let place = stage.scratch.folder("outside").expect("make a folder");
    let sql = format!("CREATE TABLESPACE outside LOCATION '{}'", place.display());
    stage.cluster.sql(&sql).await.expect("make a tablespace");
    // So that it cannot be dropped, nor created again if a copy does not have its directory.
    stage.cluster.sql("CREATE TABLE keep TABLESPACE outside AS SELECT 1 AS n").await.expect("make a table");
    let folder = stage.cluster.data().join("log");
    fs::create_dir(&folder).expect("make a folder");
    DatabaseUser::current().and_then(|user| user.own(&folder)).expect("give the folder away");

    let mut complete = Vec::new();
    for _ in 0..2 {
        let mut backup = stage.spawn(&["--output", "json", "backup", "--jobs", "1"]);
        let (mut done, mut refused) = (0, 0);
        while backup.try_wait().expect("look at the backup").is_none() {
            let (database, sql) = statement(&mut random);
            let worked = stage.cluster.sql_in(database, &sql).await.is_ok();
            let (yes, no) = if worked { (1, 0) } else { (0, 1) };
            (done, refused) = (done + yes, refused + no);
            // A file that does not exist is left as it is.
            drop(change_files(&mut random, &folder));
        }
        let output = backup.wait_with_output().expect("wait for the backup");
        eprintln!("{done} statements, {refused} refused: {}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value =
            serde_json::from_str(&crate::stage::succeeded(&output, &["backup"])).expect("JSON of a backup");
        complete.push(text(&report, "backup_id").to_owned());
    }
    let expected = state(&stage.cluster).await;
    stage.archive_now().await;
    eprintln!("{expected}");
    for (n, backup) in complete.iter().enumerate() {
        let other = format!("outside={}", stage.target(&format!("outside-{n}")).display());
        let arguments = ["--backup", backup, "--tablespace", &other];
        let restored = stage.restore_and_start(&format!("restored-{n}"), &arguments).await;
        wait_promoted(&restored).await;
        assert_eq!(state(&restored).await, expected, "seed {seed}, backup {backup}");
        am_check(&restored);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_first_seed() {
    changes(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_second_seed() {
    changes(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_third_seed() {
    changes(3).await;
}

/// The fourth one, or that of `HOLDFAST_TEST_SEED`.
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_seed_of_your_own() {
    changes(seed_of_environment().unwrap_or(4)).await;
}
