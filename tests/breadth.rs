//! Everything a data directory can hold, and everything that can happen to it while a backup runs: tablespaces, files
//! that do not belong, files of odd names and modes, holes, storms of DDL, several repositories, all features of S3, and
//! restores over what is there already.

#![expect(clippy::expect_used, clippy::panic, reason = "a failed set-up fails the test")]

mod stage;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_testkit::postgres::{Cluster, Shutdown};
use holdfast_testkit::proxy::TcpProxy;
use holdfast_testkit::rows::{Pace, RowWriter};
use holdfast_testkit::s3::Moto;
use stage::proof::{
    Kind, Storm, am_check, bulk, bytes_on_disk, find, finish, holds_all, number, same_trees, text, tree, verify_backup,
    verify_backup_but_for, wait_until_it_has_read,
};
use stage::{Plan, Seal, Stage, StoreKind, wait_promoted};

/// A plan in a directory, quick.
fn local() -> Plan {
    Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, compression: "lz4", ..Plan::default() }
}

const SUM: &str = "SELECT count(*), sum(id), md5(string_agg(md5(text), '' ORDER BY id)) FROM ";

async fn tablespace(stage: &Stage, name: &str, folder: &str) -> PathBuf {
    let path = stage.scratch.folder(folder).expect("make a folder");
    let statement = format!("CREATE TABLESPACE {name} LOCATION '{}'", path.display());
    stage.cluster.sql(&statement).await.expect("make a tablespace");
    path
}

async fn oid(cluster: &Cluster, tablespace: &str) -> String {
    cluster
        .value(&format!("SELECT oid FROM pg_tablespace WHERE spcname = '{tablespace}'"))
        .await
        .expect("ask for an OID")
}

/// Waits for the first answer `t`, without a limit of its own but a minute.
async fn wait_for(cluster: &Cluster, query: &str) {
    cluster.wait_for(query, Duration::from_mins(1)).await.expect("wait");
}

/// Two tablespaces, and a third that is made while the backup waits for its checkpoint, restored to other directories and
/// to their own.
#[tokio::test(flavor = "multi_thread")]
async fn tablespaces_go_where_they_are_told() {
    let plan = Plan {
        wal_segment_mib: 1,
        settings: vec![("checkpoint_timeout", "1h".to_owned()), ("checkpoint_completion_target", "0.9".to_owned())],
        ..Plan::default()
    };
    let Some(mut stage) = Stage::start(18, plan).await else { return };
    let fast = tablespace(&stage, "fast", "ts fast").await;
    let slow = tablespace(&stage, "slow", "ts_slow").await;
    bulk(&stage.cluster, "wide", 3).await;
    stage
        .cluster
        .sql(
            "ALTER TABLE wide SET TABLESPACE fast; CREATE INDEX wide_id ON wide (id) TABLESPACE slow; \
             CREATE UNLOGGED TABLE passing TABLESPACE slow AS SELECT generate_series(1, 1000) AS n; \
             CREATE TABLE small (id int, text text) TABLESPACE slow; INSERT INTO small VALUES (1, 'one')",
        )
        .await
        .expect("fill the tablespaces");
    let version = fs::read_dir(&fast).expect("list").next().expect("a version folder").expect("list").file_name();
    let sorts = fast.join(&version).join("pgsql_tmp");
    fs::create_dir_all(&sorts).expect("make a folder");
    fs::write(sorts.join("pgsql_tmp4711.0"), vec![7; 100_000]).expect("write a sort file");
    stage.cluster.scratch().user().own_tree(&sorts).expect("give it away");

    // A backup that does not hurry: the spread checkpoint takes for ever, until one in a hurry is asked for.
    let slow_start = stage.config_text().replace("start_fast = true", "start_fast = false");
    stage.write_config("holdfast.toml", &slow_start);
    stage.cluster.sql("CHECKPOINT; UPDATE wide SET id = id").await.expect("dirty the buffers");
    let backup = stage.spawn(&["backup"]);
    wait_for(
        &stage.cluster,
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT %pg_backup_start%' \
         AND pid <> pg_backend_pid()",
    )
    .await;
    let late = tablespace(&stage, "late", "ts_late").await;
    stage.cluster.sql("CREATE TABLE latecomer TABLESPACE late AS SELECT 1 AS id, 'x' AS text").await.expect("fill it");
    stage.cluster.sql("CHECKPOINT").await.expect("hurry");
    let output = backup.wait_with_output().expect("wait for the backup");
    stage::succeeded(&output, &["backup"]);
    let mut sums = Vec::new();
    for table in ["wide", "small", "latecomer"] {
        sums.push((table, stage.cluster.sql(&format!("{SUM}{table}")).await.expect("sum up")));
    }
    stage.archive_now().await;

    let moved: Vec<PathBuf> = ["new-fast", "new-slow", "new-late"].iter().map(|name| stage.target(name)).collect();
    let mut oids = Vec::new();
    for name in ["fast", "slow", "late"] {
        oids.push(oid(&stage.cluster, name).await);
    }
    let by_oid = &oids[1];
    let mappings = [
        format!("fast={}", moved[0].display()),
        format!("{by_oid}={}", moved[1].display()),
        format!("late={}", moved[2].display()),
    ];
    let flags: Vec<&str> = mappings.iter().flat_map(|mapping| ["--tablespace", mapping.as_str()]).collect();
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let originals = [tree(&fast), tree(&slow)];
    let target = stage.target("moved");
    let mut arguments = vec!["restore", "--pgdata", target.to_str().expect("UTF-8")];
    arguments.extend(&flags);
    stage.ok(&arguments);
    verify_backup(&stage, &target);
    assert!(!moved[0].join(&version).join("pgsql_tmp/pgsql_tmp4711.0").exists(), "a sort file was backed up");
    for (oid, place) in oids.iter().zip(&moved) {
        let link = target.join("pg_tblspc").join(oid);
        assert_eq!(&fs::read_link(&link).expect("read a link"), place);
    }
    // Replaying its CREATE TABLESPACE, PostgreSQL makes the latecomer anew at its first place, which has to be there.
    fs::rename(&late, stage.target("aside")).expect("put the original aside");
    stage.scratch.folder("ts_late").expect("make a folder");
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    for (name, place) in ["fast", "slow"].iter().zip(&moved) {
        let asked = format!("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = '{name}'");
        assert_eq!(restored.value(&asked).await.expect("ask"), place.display().to_string());
    }
    for (table, sum) in &sums {
        assert_eq!(&restored.sql(&format!("{SUM}{table}")).await.expect("sum up"), sum, "{table}");
    }
    assert_eq!(restored.value("SELECT count(*) FROM passing").await.expect("count"), "0");
    am_check(&restored);
    drop(restored);
    assert_eq!([tree(&fast), tree(&slow)], originals, "the originals are not touched");

    // The original places still hold something: refused. Gone: restored there.
    let pgdata = stage.cluster.data().to_owned();
    fs::remove_dir_all(&pgdata).expect("remove the data directory");
    let (code, message) = stage.fails(&["restore", "--pgdata", &pgdata.display().to_string()]);
    assert_eq!(code, 62, "{message}");
    assert!(!pgdata.exists(), "a refused restore wrote something");
    for place in [&fast, &slow, &late] {
        fs::remove_dir_all(place).expect("remove a tablespace");
    }
    stage.ok(&["restore", "--pgdata", &pgdata.display().to_string()]);
    stage.cluster.override_setting("archive_mode", "off");
    stage.cluster.start().await.expect("start");
    wait_promoted(&stage.cluster).await;
    for (table, sum) in &sums {
        assert_eq!(&stage.cluster.sql(&format!("{SUM}{table}")).await.expect("sum up"), sum, "{table}");
    }
    assert_eq!(fs::read_link(pgdata.join("pg_tblspc").join(by_oid)).expect("read a link"), slow);
}

/// What stands in the data directory besides relations: what is left out, and what is kept as it is.
#[tokio::test(flavor = "multi_thread")]
async fn odd_files_are_kept_and_others_left_out() {
    let Some(mut stage) = Stage::start(18, local()).await else { return };
    stage
        .cluster
        .sql(
            "CREATE TABLE kept AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 2000) g; \
             CREATE UNLOGGED TABLE passing AS SELECT * FROM kept; CREATE INDEX ON passing (id); CHECKPOINT",
        )
        .await
        .expect("load");
    let unlogged = stage.cluster.value("SELECT pg_relation_filepath('passing')").await.expect("ask for the path");
    let relation = stage.cluster.value("SELECT pg_relation_filepath('kept')").await.expect("ask for the path");
    let pgdata = stage.cluster.data().to_owned();
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");

    // WAL on another disk, the server's own log, a configuration folder, group access.
    let wal = stage.scratch.path().join("wal");
    fs::rename(pgdata.join("pg_wal"), &wal).expect("move the WAL");
    symlink(&wal, pgdata.join("pg_wal")).expect("link the WAL");
    let odd = OsStr::from_bytes(b"odd \xFF\n'name\\");
    let write = |path: &Path, mode: u32, content: &[u8]| {
        fs::write(path, content).expect("write a file");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set a mode");
    };
    for folder in ["conf.d", "log", "empty", "empty/nested"] {
        fs::create_dir(pgdata.join(folder)).expect("make a folder");
    }
    write(&pgdata.join(odd), 0o440, b"odd");
    write(&pgdata.join("log/script.sh"), 0o750, b"#!/bin/sh\n");
    write(&pgdata.join("empty/nothing"), 0o600, b"");
    write(&pgdata.join("conf.d/work.conf"), 0o640, b"work_mem = '5MB'\n");
    symlink("/etc/hostname", pgdata.join("log/link")).expect("make a link");
    symlink("nowhere/at/all", pgdata.join("dangling")).expect("make a link");
    symlink("/etc", pgdata.join("pg_tblspc/old")).expect("make a link");
    stage.cluster.set("include_dir", "conf.d").expect("configure");
    // Extents of zeros before, between and behind others.
    let sparse = fs::File::create(pgdata.join("sparse")).expect("make a file");
    sparse.set_len(9 << 20).expect("extend");
    sparse.write_all_at(b"middle", 4 << 20).expect("write");
    drop(sparse);
    // PostgreSQL extends relations with zeros, and a crash can leave many of them.
    let grown = fs::OpenOptions::new().write(true).open(pgdata.join(&relation)).expect("open a relation");
    grown.set_len(6 << 20).expect("extend");
    drop(grown);
    let left_out = [
        "pgsql_tmp1".to_owned(),
        "base/pgsql_tmp/pgsql_tmp99.1".to_owned(),
        "pg_stat_tmp/global.stat".to_owned(),
        "pg_replslot/slot/state".to_owned(),
        "pg_notify/9999".to_owned(),
        "postgresql.auto.conf.tmp".to_owned(),
        "pg_internal.init.7".to_owned(),
        format!("{}/t3_16999", Path::new(&relation).parent().expect("a folder").display()),
        format!("{unlogged}_fsm"),
    ];
    // They come after the start, which removes some of them itself.
    stage.cluster.scratch().user().own_tree(&pgdata).expect("give it away");
    stage.cluster.scratch().user().own_tree(&wal).expect("give it away");
    for (path, (mode, kind)) in tree(&pgdata) {
        let path = pgdata.join(path);
        match kind {
            Kind::Directory | Kind::File(..) => {
                let more = (mode >> 3) & 0o050;
                fs::set_permissions(&path, fs::Permissions::from_mode(mode | more)).expect("set a mode");
            }
            _ => {}
        }
    }
    fs::set_permissions(&pgdata, fs::Permissions::from_mode(0o750)).expect("set a mode");
    stage.cluster.start().await.expect("start");
    let user = stage.cluster.scratch().user().clone();
    for path in &left_out {
        let path = pgdata.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        fs::write(&path, b"does not belong").expect("write a file");
        user.own_tree(path.parent().expect("a folder")).expect("give it away");
    }
    // A session's temporary table on disk.
    let session = stage.cluster.connect("postgres").await.expect("connect");
    session
        .batch_execute("SET temp_buffers = '800kB'; CREATE TEMP TABLE mine AS SELECT generate_series(1, 200000) AS n")
        .await
        .expect("make a temporary table");
    let own = session.query_one("SELECT pg_relation_filepath('mine')", &[]).await.expect("ask for the path");
    let own: String = own.get(0);
    assert!(pgdata.join(&own).exists());

    stage.ok(&["backup"]);
    drop(session);
    stage.archive_now().await;
    let target = stage.target("restored");
    fs::create_dir(&target).expect("make the empty folder");
    user.own(&target).expect("give it away");
    stage.ok(&["restore", "--pgdata", &target.display().to_string()]);
    verify_backup_but_for(&stage, &target, &["log/link", "dangling", "pg_tblspc/old"]);
    let (before, after) = (tree(&pgdata), tree(&target));
    for path in left_out.iter().chain([&own, &unlogged]) {
        assert!(!after.contains_key(Path::new(path)), "{path} was backed up");
    }
    for path in ["postmaster.pid", "postmaster.opts"] {
        assert!(before.contains_key(Path::new(path)) && !after.contains_key(Path::new(path)), "{path}");
    }
    assert!(after.contains_key(Path::new(&format!("{unlogged}_init"))), "the init fork makes the table anew");
    let same =
        ["log/script.sh", "empty/nothing", "conf.d/work.conf", "log/link", "dangling", "pg_tblspc/old", "sparse"];
    let same = same.iter().map(Path::new).chain([Path::new(odd)]);
    for path in same.chain(["postgresql.conf", "pg_hba.conf", "empty/nested", "log"].iter().map(Path::new)) {
        assert!(before.contains_key(path), "{}", path.display());
        assert_eq!(after.get(path), before.get(path), "{}", path.display());
    }
    for path in after.keys().filter(|path| before.contains_key(*path) && !path.starts_with("pg_wal")) {
        assert_eq!(after[path].0, before[path].0, "the mode of {}", path.display());
    }
    for path in ["backup_label", "recovery.signal", "backup_manifest", "global/pg_control"] {
        assert_eq!(after[Path::new(path)].0, 0o640, "the mode of {path}");
    }
    assert_eq!(fs::metadata(&target).expect("look").permissions().mode() & 0o7777, 0o750);
    assert_eq!(after[Path::new("pg_wal")].1, Kind::Directory, "WAL goes into the restored directory");
    assert!(bytes_on_disk(&target.join("sparse")) <= 2 << 20, "zeros were written");
    assert_eq!(fs::metadata(target.join(&relation)).expect("look").len(), 6 << 20);
    assert!(bytes_on_disk(&target.join(&relation)) <= 2 << 20, "zeros were written");

    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SHOW work_mem").await.expect("ask"), "5MB");
    assert_eq!(restored.value("SELECT count(*) FROM kept").await.expect("count"), "2000");
    assert_eq!(restored.value("SELECT count(*) FROM passing").await.expect("count"), "0");
    assert_eq!(restored.value("SHOW data_directory_mode").await.expect("ask"), "0750");
}

/// The backup stands still in the middle of the copy while most of what it has yet to read changes under it.
#[tokio::test(flavor = "multi_thread")]
async fn files_change_and_vanish_while_a_backup_waits() {
    let plan = Plan { seal: Seal::Passphrase, compression: "none", wal_segment_mib: 1, ..Plan::default() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    let s3 = stage.s3.as_ref().expect("an S3 server");
    let proxy = TcpProxy::start(s3.address()).expect("start a proxy");
    proxy.set_latency(Duration::from_millis(60));
    let config = stage.config_text();
    let slow = config
        .replace(&s3.endpoint(), &proxy.endpoint())
        .replace("start_fast = true", "start_fast = true\nmemory = \"32MiB\"");
    assert_ne!(config, slow);
    let slow = stage.write_config("slow.toml", &slow);
    // `base/1` comes before `base/5` (postgres) and the others: the first MiBs fill the budget.
    let cluster = &stage.cluster;
    cluster.sql("CREATE DATABASE doomed").await.expect("make a database");
    cluster.sql_in("template1", "SELECT 1").await.expect("connect");
    bulk(cluster, "first", 48).await;
    for (name, mib) in [("shrunk", 3), ("emptied", 2), ("dropped", 2), ("rewritten", 3), ("vacuumed", 3)] {
        bulk(cluster, name, mib).await;
    }
    cluster.sql_in("doomed", "CREATE TABLE t AS SELECT generate_series(1, 1000) n").await.expect("fill the database");
    cluster.sql("CREATE INDEX rewritten_id ON rewritten (id); CHECKPOINT").await.expect("index");
    let writer = RowWriter::start(cluster, Pace::default()).await.expect("start the writer");
    writer.wait_for_rows(10).await.expect("write rows");

    let mut command = stage.command_with(&slow, &["--output", "json", "backup"]);
    let backup = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let backup = backup.spawn().expect("start a backup");
    // Less than the budget, and the first answer about an upload is still on its way.
    wait_until_it_has_read(&backup, 6 << 20).await;
    proxy.stall();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for statement in [
        "DROP DATABASE doomed",
        "DROP TABLE dropped",
        "TRUNCATE emptied",
        "DELETE FROM shrunk WHERE id > 100",
        "VACUUM shrunk",
        "ALTER TABLE rewritten ALTER id TYPE bigint",
        "UPDATE vacuumed SET id = -id",
        "VACUUM FULL vacuumed",
        "CREATE TABLE created AS SELECT g AS id, 'new' AS text FROM generate_series(1, 5000) g",
        "CREATE DATABASE newborn",
        "CHECKPOINT",
    ] {
        cluster.sql(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    cluster.sql_in("newborn", "CREATE TABLE t AS SELECT generate_series(1, 1000) n").await.expect("fill a database");
    proxy.resume();
    let output = backup.wait_with_output().expect("wait for the backup");
    let report = stage::succeeded(&output, &["backup"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert!(number(&report, "removed_file_count") > 0, "nothing was removed under the backup: {report}");
    let (journal, end) = finish(writer, cluster).await;
    let tables = ["first", "shrunk", "emptied", "rewritten", "vacuumed", "created"];
    let mut sums = Vec::new();
    for table in tables {
        sums.push(cluster.sql(&format!("{SUM}{table}")).await.expect("sum up"));
    }
    stage.archive_now().await;

    let target = stage.target("restored");
    stage.ok(&["restore", "--pgdata", &target.display().to_string()]);
    verify_backup(&stage, &target);
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    holds_all(&restored, &journal, end).await;
    for (table, sum) in tables.iter().zip(sums) {
        assert_eq!(restored.sql(&format!("{SUM}{table}")).await.expect("sum up"), sum, "{table}");
    }
    assert_eq!(restored.value("SELECT to_regclass('dropped') IS NULL").await.expect("ask"), "t");
    assert_eq!(restored.value("SELECT count(*) FROM pg_database WHERE datname = 'doomed'").await.expect("ask"), "0");
    let newborn = restored.sql_in("newborn", "SELECT count(*) FROM t").await.expect("count");
    assert_eq!(newborn, [["1000"]]);
    am_check(&restored);
}

/// Two thousand tables, several databases, and everything that DDL can do at once during three backups.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_ddl_does_not_matter() {
    let plan = Plan { wal_segment_mib: 16, settings: vec![("max_locks_per_transaction", "256".to_owned())], ..local() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    let cluster = &stage.cluster;
    let storm_space = tablespace(&stage, "storm", "ts_storm").await;
    stage.scratch.folder("ts_brief").expect("make a folder");
    let brief = stage.scratch.path().join("ts_brief");
    cluster
        .sql(
            "DO $$ BEGIN FOR n IN 1..2000 LOOP EXECUTE format('CREATE TABLE many_%s (n int)', n); \
             EXECUTE format('INSERT INTO many_%s VALUES (%s)', n, n); END LOOP; END $$; \
             CREATE TABLE left_side (id int PRIMARY KEY, text text); CREATE TABLE right_side (LIKE left_side); \
             CREATE TABLE counters (id int PRIMARY KEY, n bigint); \
             INSERT INTO counters SELECT g, 0 FROM generate_series(1, 100) g; \
             CREATE TABLE churn AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 20000) g; \
             CREATE INDEX churn_id ON churn (id); CREATE UNLOGGED TABLE passing (n int)",
        )
        .await
        .expect("load");
    for name in ["one", "two"] {
        cluster.sql(&format!("CREATE DATABASE {name}")).await.expect("make a database");
        cluster
            .sql_in(name, &format!("CREATE TABLE t AS SELECT '{name}' AS name FROM generate_series(1, 1000)"))
            .await
            .expect("fill a database");
    }
    let brief_loop = format!(
        "CREATE TABLESPACE brief LOCATION '{}';; CREATE TABLE brief_t TABLESPACE brief AS SELECT 1 AS n;; \
         DROP TABLE brief_t;; DROP TABLESPACE brief",
        brief.display()
    );
    let storm = Storm::start(
        cluster,
        &[
            "BEGIN; INSERT INTO left_side VALUES ({n}, md5('{n}')); INSERT INTO right_side VALUES ({n}, md5('{n}')); COMMIT",
            "VACUUM FULL churn;; REINDEX TABLE churn;; UPDATE churn SET text = md5(text) WHERE id % 7 = {n} % 7;; \
             ALTER TABLE churn SET TABLESPACE storm;; CLUSTER churn USING churn_id;; ALTER TABLE churn SET TABLESPACE pg_default",
            "CREATE TABLE gone AS SELECT g FROM generate_series(1, 3000) g;; TRUNCATE gone;; \
             INSERT INTO gone SELECT g FROM generate_series(1, 3000) g;; DROP TABLE gone",
            "CREATE DATABASE gone_{n} STRATEGY file_copy;; DROP DATABASE gone_{n};; \
             CREATE DATABASE gone_{n} STRATEGY wal_log;; DROP DATABASE gone_{n}",
            "ALTER TABLE passing SET LOGGED;; INSERT INTO passing VALUES ({n});; ALTER TABLE passing SET UNLOGGED;; \
             UPDATE counters SET n = n + 1;; VACUUM counters;; CHECKPOINT",
            "CREATE TEMP TABLE IF NOT EXISTS mine (n int);; INSERT INTO mine SELECT generate_series(1, 30000);; \
             TRUNCATE mine;; SELECT count(*) FROM (SELECT md5(g::text) FROM generate_series(1, 60000) g ORDER BY 1) s",
            &brief_loop,
        ],
    );
    let writer = RowWriter::start(cluster, Pace::default()).await.expect("start the writer");
    let mut removed = 0;
    for _ in 0..3 {
        let report = stage.json(&["backup"]);
        removed += number(&report, "removed_file_count");
        assert_eq!(find(&report, "checksum_failures").map(|found| number(found, "count")), Some(0), "{report}");
        assert!(number(&report, "file_count") > 2000, "{report}");
    }
    eprintln!("{removed} files vanished under the backups");
    storm.end();
    let (journal, end) = finish(writer, cluster).await;
    let invariant = "SELECT (SELECT count(*) FROM left_side) = (SELECT count(*) FROM right_side), \
                     (SELECT count(*) FROM left_side JOIN right_side USING (id, text)) = (SELECT count(*) FROM left_side), \
                     (SELECT min(n) = max(n) FROM counters), (SELECT count(*) FROM churn)";
    let sums = [format!("{SUM}churn"), format!("{SUM}left_side"), "SELECT sum(n) FROM counters".to_owned()];
    let mut expected = Vec::new();
    for sum in &sums {
        expected.push(cluster.sql(sum).await.expect("sum up"));
    }
    stage.archive_now().await;
    let listed = stage.json(&["list"]);
    let backups = find(&listed, "backups").and_then(|backups| backups.as_array()).expect("backups").clone();
    assert_eq!(backups.len(), 3);
    let mapping = format!("storm={}", stage.target("storm-end").display());
    for (n, backup) in backups.iter().enumerate().filter(|(n, _)| *n != 1) {
        // A tablespace that was there for a moment only is in one backup or another; it has to go somewhere else as well.
        let moved = stage.target(&format!("brief-{n}"));
        let spaces = find(backup, "tablespaces").and_then(|list| list.as_array()).expect("tablespaces");
        let brief_mapping = spaces
            .iter()
            .find(|space| text(space, "path") == brief.display().to_string())
            .map(|space| format!("{}={}", number(space, "oid"), moved.display()));
        let id = text(backup, "backup_id");
        let (last, target) = (n + 1 == backups.len(), stage.target(&format!("storm-{n}")));
        let storm_mapping =
            if last { mapping.clone() } else { format!("storm={}", stage.target(&format!("s{n}")).display()) };
        let mut arguments = vec![
            "restore",
            "--pgdata",
            target.to_str().expect("UTF-8"),
            "--backup",
            id,
            "--tablespace",
            &storm_mapping,
        ];
        if let Some(mapping) = &brief_mapping {
            arguments.extend(["--tablespace", mapping]);
        }
        if !last {
            arguments.extend(["--target-immediate", "--target-action", "promote"]);
        }
        stage.ok(&arguments);
        verify_backup(&stage, &target);
        let restored = stage.start_restored(&target).await;
        wait_promoted(&restored).await;
        assert_eq!(restored.sql(invariant).await.expect("ask"), [["t", "t", "t", "20000"]], "backup {n}");
        let many = "SELECT count(*) FROM pg_class WHERE relname LIKE 'many\\_%' AND pg_relation_size(oid) = 8192";
        assert_eq!(restored.value(many).await.expect("count"), "2000");
        for name in ["one", "two"] {
            let found = restored.sql_in(name, "SELECT count(*), min(name) FROM t").await.expect("count");
            assert_eq!(found, [["1000", name]]);
        }
        if last {
            for (sum, expected) in sums.iter().zip(&expected) {
                assert_eq!(&restored.sql(sum).await.expect("sum up"), expected, "{sum}");
            }
            holds_all(&restored, &journal, end).await;
            am_check(&restored);
        }
    }
    assert!(storm_space.exists());
}

/// Adds a second repository in a directory to the configuration and makes it.
fn with_second_repository(stage: &Stage) -> PathBuf {
    let second = stage.scratch.path().join("second");
    let block = format!("[[repo]]\nurl = \"file://{}\"\nencryption = \"none\"\n\n[backup]", second.display());
    stage.write_config("holdfast.toml", &stage.config_text().replacen("[backup]", &block, 1));
    stage.ok(&["repo", "init"]);
    second
}

/// One backup feeds an encrypted repository in S3 and an open one in a directory; WAL is acknowledged when both have it.
#[tokio::test(flavor = "multi_thread")]
async fn two_repositories_are_fed_at_once() {
    let Some(stage) = Stage::start(18, Plan { wal_segment_mib: 1, ..Plan::default() }).await else { return };
    let second = with_second_repository(&stage);
    let cluster = &stage.cluster;
    bulk(cluster, "load", 3).await;
    let writer = RowWriter::start(cluster, Pace::default()).await.expect("start the writer");
    writer.wait_for_rows(20).await.expect("write rows");
    let report = stage.json(&["backup"]);
    let stored = report["repositories"].as_array().expect("repositories");
    assert_eq!(stored.len(), 2, "{report}");
    let [first, other] = [&stored[0]["backup"], &stored[1]["backup"]];
    for key in ["backup_id", "start_lsn", "stop_lsn", "size_bytes", "file_count"] {
        assert_eq!(first[key], other[key], "{key}");
    }
    assert_eq!((text(first, "encryption"), text(other, "encryption")), ("aes-256-gcm", "none"));

    // The second one breaks: its archive folder is a file. Nothing is acknowledged, nothing is lost.
    let wal_folder = second.join("main/wal");
    let aside = stage.scratch.path().join("aside");
    fs::rename(&wal_folder, &aside).expect("take the folder away");
    fs::write(&wal_folder, b"").expect("put a file there");
    let before = cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await.expect("name the segment");
    cluster.sql("SELECT pg_create_restore_point('broken'); SELECT pg_switch_wal()").await.expect("switch");
    wait_for(cluster, "SELECT failed_count > 1 FROM pg_stat_archiver").await;
    for _ in 0..3 {
        cluster.sql("SELECT pg_create_restore_point('more'); SELECT pg_switch_wal()").await.expect("switch");
    }
    let late = format!("SELECT coalesce(last_archived_wal < '{before}', true) FROM pg_stat_archiver");
    assert_eq!(
        cluster.value(&late).await.expect("ask"),
        "t",
        "a segment was acknowledged that only one repository has"
    );
    assert!(cluster.data().join("pg_wal").join(&before).exists(), "PostgreSQL keeps the segment");
    let pushed = stage.command(&["wal", "push", &format!("pg_wal/{before}")]).current_dir(cluster.data()).output();
    let code = pushed.expect("run wal push").status.code().expect("an exit code");
    assert!((1..=125).contains(&code), "exit code {code}");
    let (code, message) = stage.fails(&["backup", "--archive-timeout", "1s"]);
    assert!(code != 0 && !message.is_empty());

    fs::remove_file(&wal_folder).expect("remove the file");
    fs::rename(&aside, &wal_folder).expect("put the folder back");
    let (journal, end) = finish(writer, cluster).await;
    let sum = cluster.sql(&format!("{SUM}load")).await.expect("sum up");
    stage.archive_now().await;
    let listed = stage.json(&["wal", "list"]);
    let [one, two] = [&listed["repositories"][0], &listed["repositories"][1]];
    assert!(number(one, "segments") >= 4, "{listed}");
    for key in ["ranges", "gaps"] {
        assert_eq!(find(one, key), find(two, key), "{listed}");
    }
    assert_eq!(find(one, "gaps"), Some(&serde_json::json!([])), "{listed}");
    for number in ["1", "2"] {
        let target = stage.target(&format!("from-{number}"));
        stage.ok(&["restore", "--repo", number, "--pgdata", &target.display().to_string()]);
        verify_backup(&stage, &target);
        let restored = stage.start_restored(&target).await;
        wait_promoted(&restored).await;
        assert_eq!(restored.sql(&format!("{SUM}load")).await.expect("sum up"), sum);
        holds_all(&restored, &journal, end).await;
    }
    // One of them is enough for a restore, and for the WAL of one.
    fs::rename(stage.repository_folder(), stage.scratch.path().join("lost")).expect("lose a repository");
    let target = stage.target("from-what-is-left");
    stage.ok(&["restore", "--repo", "2", "--pgdata", &target.display().to_string()]);
}

/// The answer to a request without a body, head and body as text.
fn ask_moto(moto: &Moto, request: &str) -> String {
    let mut socket = TcpStream::connect(moto.address()).expect("connect");
    let request = format!(
        "{request} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\nAuthorization: AWS4-HMAC-SHA256 \
         Credential=testkit/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n",
        moto.address()
    );
    socket.write_all(request.as_bytes()).expect("ask");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("listen");
    String::from_utf8_lossy(&answer).to_lowercase()
}

/// Tags, storage class and encryption by the server on every object, and parts of multipart uploads.
#[tokio::test(flavor = "multi_thread")]
async fn every_feature_of_s3_at_once() {
    let Some(moto) = Moto::or_skip() else { return };
    let Some(mut stage) = Stage::start(18, Plan { archive: false, ..local() }).await else { return };
    let block = format!(
        "[[repo]]\nurl = \"s3://holdfast/some/prefix\"\nendpoint = \"{}\"\nregion = \"{}\"\npath_style = true\n\
         access_key_id = \"{}\"\nsecret_access_key = \"{}\"\nstorage_class = \"STANDARD_IA\"\nsse = \"s3\"\n\
         tags = {{ team = \"db\", \"cost centre\" = \"a+b/c=d\" }}\npart_size = \"5MiB\"\n\
         encryption = {{ key_file = \"{}\" }}\n",
        moto.endpoint(),
        moto.region(),
        moto.credentials().access_key,
        moto.credentials().secret_key,
        stage.scratch.path().join("key").display(),
    );
    let config = stage.config_text();
    let start = config.find("[[repo]]").expect("a repository");
    let end = config.find("[backup]").expect("a section");
    stage.write_config("holdfast.toml", &format!("{}{block}\n{}", &config[..start], &config[end..]));
    stage.ok(&["repo", "init"]);
    let command = format!("{} --config {} wal push %p", stage.holdfast.display(), stage.config.display());
    stage.cluster.set("archive_mode", "on").expect("configure");
    stage.cluster.set("archive_command", &command).expect("configure");
    stage.cluster.restart().await.expect("restart");
    bulk(&stage.cluster, "load", 12).await;
    let report = stage.json(&["backup", "--compression", "none"]);
    let sum = stage.cluster.sql(&format!("{SUM}load")).await.expect("sum up");
    stage.archive_now().await;

    let id = text(&report, "backup_id").to_owned();
    let listing = ask_moto(&moto, "GET /holdfast?list-type=2");
    let keys: Vec<String> =
        listing.split("<key>").skip(1).filter_map(|rest| Some(rest.split_once('<')?.0.to_owned())).collect();
    assert!(keys.iter().any(|key| key.contains("/packs/")) && keys.iter().any(|key| key.contains("/wal/")), "{keys:?}");
    for key in &keys {
        // Names are shown in small letters above; they hold capitals in hexadecimal numbers and ids only.
        let key = key.replace(&id.to_lowercase(), &id);
        let key = capitals_of_wal(&key);
        let head = ask_moto(&moto, &format!("HEAD /holdfast/{key}"));
        assert!(head.starts_with("http/1.1 200"), "{key}: {head}");
        assert!(head.contains("x-amz-storage-class: standard_ia"), "{key}: {head}");
        assert!(head.contains("x-amz-server-side-encryption: aes256"), "{key}: {head}");
        let tags = ask_moto(&moto, &format!("GET /holdfast/{key}?tagging"));
        assert!(tags.contains("<key>team</key><value>db</value>"), "{key}: {tags}");
        assert!(tags.contains("<key>cost centre</key><value>a+b/c=d</value>"), "{key}: {tags}");
    }
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.sql(&format!("{SUM}load")).await.expect("sum up"), sum);
}

/// The name of a WAL object with the capitals of its hexadecimal digits.
fn capitals_of_wal(key: &str) -> String {
    let Some((folder, rest)) = key.split_once("/wal/") else { return key.to_owned() };
    let parts: Vec<String> = rest
        .split('/')
        .map(|part| match part.split_once('.') {
            Some((name, end)) => format!("{}.{end}", name.to_uppercase()),
            None => part.to_uppercase(),
        })
        .collect();
    format!("{folder}/wal/{}", parts.join("/"))
}

/// `--plan` says what would be done and does nothing; `--delta` fetches what differs and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_writes_nothing_and_a_delta_little() {
    let Some(stage) = Stage::start(18, Plan { compression: "none", ..local() }).await else { return };
    let cluster = &stage.cluster;
    bulk(cluster, "load", 12).await;
    cluster.sql("CHECKPOINT").await.expect("checkpoint");
    let path = cluster.value("SELECT pg_relation_filepath('load')").await.expect("ask for the path");
    let report = stage.json(&["backup"]);
    let sum = cluster.sql(&format!("{SUM}load")).await.expect("sum up");
    stage.archive_now().await;

    let target = stage.target("restored");
    let place = target.display().to_string();
    let plan = stage.json(&["restore", "--plan", "--pgdata", &place]);
    assert!(!target.exists(), "a plan wrote something");
    assert_eq!(text(&plan, "cluster"), "main");
    assert_eq!(text(&plan, "pgdata"), place);
    assert_eq!(text(&plan, "target_state"), "fresh");
    assert_eq!(text(&plan["recovery"], "backup"), text(&report, "backup_id"));
    assert_eq!(text(&plan, "signal_file"), "recovery.signal");
    for key in ["file_count", "fetch_bytes", "write_bytes", "hole_bytes"] {
        assert!(number(&plan, key) > 0 || key == "hole_bytes", "{key} in {plan}");
    }
    let lines = plan["auto_conf_lines"].to_string();
    assert!(lines.contains("restore_command") && lines.contains("recovery_target_timeline"), "{lines}");
    let shown = stage.ok(&["restore", "--plan", "--pgdata", &place]);
    assert!(shown.ends_with("nothing was written\n") && shown.contains(text(&report, "backup_id")), "{shown}");

    let done = stage.json(&["restore", "--pgdata", &place]);
    for (planned, did) in
        [("fetch_bytes", "fetched_bytes"), ("write_bytes", "written_bytes"), ("file_count", "file_count")]
    {
        assert_eq!(number(&plan, planned), number(&done, did), "{planned}");
    }
    assert_eq!(number(&done, "reused_bytes"), 0);
    let (code, message) = stage.fails(&["restore", "--pgdata", &place]);
    assert_eq!(code, 62, "{message}");

    // What a bad disk, an operator and a server may have left.
    let fresh = stage.target("fresh");
    stage.ok(&["restore", "--pgdata", &fresh.display().to_string()]);
    let damaged = fs::OpenOptions::new().read(true).write(true).open(target.join(&path)).expect("open a relation");
    damaged.write_all_at(b"damage", (5 << 20) + 4711).expect("damage");
    damaged.set_len(damaged.metadata().expect("look").len() - 8192).expect("shorten");
    drop(damaged);
    fs::remove_file(target.join("PG_VERSION")).expect("remove a file");
    fs::write(target.join("PG_VERSION"), b"18\n").expect("write it again");
    fs::remove_file(target.join("pg_hba.conf")).expect("remove a file");
    fs::write(target.join("postgresql.conf"), vec![b'#'; 3 << 20]).expect("lengthen a file");
    fs::set_permissions(target.join("pg_ident.conf"), fs::Permissions::from_mode(0o666)).expect("set a mode");
    fs::create_dir_all(target.join("base/4711/deep")).expect("make folders");
    fs::write(target.join("base/4711/deep/extra"), b"extra").expect("write a file");
    fs::write(target.join("base/1/99999"), b"extra").expect("write a file");
    fs::remove_dir_all(target.join("pg_multixact")).expect("remove a folder");
    fs::write(target.join("pg_multixact"), b"a file in place of a folder").expect("write a file");
    symlink("/etc/passwd", target.join("base/1/link")).expect("make a link");
    cluster.scratch().user().own_tree(&target).expect("give it away");
    let damaged = tree(&target);
    let plan = stage.json(&["restore", "--plan", "--delta", "--pgdata", &place]);
    assert_eq!(text(&plan, "target_state"), "delta");
    assert_eq!(tree(&target), damaged, "a plan changed something");
    let (code, _) = stage.fails(&["restore", "--pgdata", &place]);
    assert_eq!(code, 62);
    assert_eq!(tree(&target), damaged, "a refused restore changed something");
    let delta = stage.json(&["restore", "--delta", "--pgdata", &place]);
    let (whole, fetched) = (number(&done, "fetched_bytes"), number(&delta, "fetched_bytes"));
    assert!(fetched > 1 << 20 && fetched < whole / 4, "{fetched} of {whole} bytes were fetched");
    assert!(number(&delta, "reused_bytes") > whole / 2, "{delta}");
    assert!(number(&delta, "removed_entries") >= 4, "{delta}");
    // Their auto.conf names the time of the restore; backup_manifest has its checksum.
    same_trees(&target, &fresh, &["postgresql.auto.conf", "backup_manifest"]);
    verify_backup(&stage, &target);

    // A server that ran there and changed much is no obstacle either.
    let mut used = stage.start_restored(&target).await;
    wait_promoted(&used).await;
    used.sql("UPDATE load SET id = 0 WHERE id < 1000; CREATE TABLE later AS SELECT 1; CHECKPOINT")
        .await
        .expect("change");
    let (code, message) = stage.fails(&["restore", "--delta", "--pgdata", &place]);
    assert_eq!(code, 63, "{message}");
    used.stop(Shutdown::Fast).await.expect("stop");
    drop(used);
    stage.ok(&["restore", "--delta", "--pgdata", &place]);
    same_trees(&target, &fresh, &["postgresql.auto.conf", "backup_manifest"]);
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.sql(&format!("{SUM}load")).await.expect("sum up"), sum);
    assert_eq!(restored.value("SELECT to_regclass('later') IS NULL").await.expect("ask"), "t");
}

/// At its target the server pauses or shuts down, as it was told.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_pauses_or_shuts_down_at_the_target() {
    let Some(stage) = Stage::start(18, local()).await else { return };
    let cluster = &stage.cluster;
    cluster.sql("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await.expect("load");
    stage.ok(&["backup"]);
    for statement in ["INSERT INTO t VALUES (2)", "SELECT pg_create_restore_point('here')", "INSERT INTO t VALUES (3)"]
    {
        cluster.sql(statement).await.expect("write");
    }
    stage.archive_now().await;

    let target = stage.target("pause");
    let place = target.display().to_string();
    let said = stage.ok(&["restore", "--pgdata", &place, "--target-name", "here", "--target-action", "pause"]);
    assert!(said.contains("pauses there") && said.contains("to open it for writing"), "{said}");
    let paused = stage.start_restored(&target).await;
    wait_for(&paused, "SELECT pg_get_wal_replay_pause_state() = 'paused'").await;
    assert_eq!(paused.value("SELECT pg_is_in_recovery()").await.expect("ask"), "t");
    assert_eq!(paused.value("SELECT sum(n) FROM t").await.expect("sum up"), "3");
    paused.sql("SELECT pg_wal_replay_resume()").await.expect("go on");
    wait_promoted(&paused).await;
    assert_eq!(paused.value("SELECT sum(n) FROM t").await.expect("sum up"), "3");

    let target = stage.target("shutdown");
    let place = target.display().to_string();
    let said = stage.ok(&["restore", "--pgdata", &place, "--target-name", "here", "--target-action", "shutdown"]);
    assert!(said.contains("shuts down"), "{said}");
    let mut ends = Cluster::adopt(&stage.installation, &target).expect("take over");
    ends.override_setting("archive_mode", "off");
    ends.spawn().expect("start");
    let status = ends.wait_exited(Duration::from_mins(1)).await.expect("wait for its end");
    assert!(ends.log_text().contains("shutdown at recovery target"), "{status}\n{}", ends.log_text());
    assert!(target.join("recovery.signal").exists(), "it stays in recovery");
    // Started again it does the same, unless it is told otherwise.
    ends.override_setting("recovery_target_action", "promote");
    ends.start().await.expect("start");
    wait_promoted(&ends).await;
    assert_eq!(ends.value("SELECT sum(n) FROM t").await.expect("sum up"), "3");
}
