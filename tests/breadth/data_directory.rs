//! Everything that a data directory can contain: tablespaces, which are restored to the given places, and files with
//! odd names, modes and holes or that do not belong there, which are kept as they are or left out.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use holdfast_testkit::postgres::{Cluster, Shutdown};

use super::kit::{SUM, local, tablespace, wait_for};
use crate::stage::proof::{Kind, am_check, bulk, bytes_on_disk, tree, verify_backup, verify_backup_but_for};
use crate::stage::{self, Plan, Stage, wait_promoted};

async fn oid(cluster: &Cluster, tablespace: &str) -> String {
    cluster
        .value(&format!("SELECT oid FROM pg_tablespace WHERE spcname = '{tablespace}'"))
        .await
        .expect("ask for an OID")
}

/// Two tablespaces, and a third one that is created while the backup waits for its checkpoint. They are restored to
/// other directories, and to their own.
async fn tablespaces_go_to_the_requested_places(major: u16) {
    let plan = Plan {
        wal_segment_mib: 1,
        settings: vec![("checkpoint_timeout", "1h".to_owned()), ("checkpoint_completion_target", "0.9".to_owned())],
        ..Plan::default()
    };
    let Some(mut stage) = Stage::start(major, plan).await else { return };
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

    // A backup with a spread checkpoint, which takes very long until somebody requests an immediate one.
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
    // When PostgreSQL replays the CREATE TABLESPACE, it creates the third tablespace again at its first place, which
    // must exist.
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

    // While the original places still have content, the restore is refused. After that is removed, it succeeds.
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

#[tokio::test(flavor = "multi_thread")]
async fn tablespaces_go_to_the_requested_places_on_18() {
    tablespaces_go_to_the_requested_places(18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tablespaces_go_to_the_requested_places_on_19() {
    tablespaces_go_to_the_requested_places(19).await;
}

/// Files in the data directory other than relations: which ones are left out, and which ones are kept as they are.
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
    symlink("script.sh", pgdata.join("log/inside")).expect("make a link");
    symlink("nowhere/at/all", pgdata.join("dangling")).expect("make a link");
    symlink("/etc", pgdata.join("pg_tblspc/old")).expect("make a link");
    stage.cluster.set("include_dir", "conf.d").expect("configure");
    // Extents of zeros before, between and after others.
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
    // These files are added after the start, because the start removes some of them.
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
    verify_backup_but_for(&stage, &target, &["log/inside", "dangling", "pg_tblspc/old"]);
    let (before, after) = (tree(&pgdata), tree(&target));
    for path in left_out.iter().chain([&own, &unlogged]) {
        assert!(!after.contains_key(Path::new(path)), "{path} was backed up");
    }
    for path in ["postmaster.pid", "postmaster.opts"] {
        assert!(before.contains_key(Path::new(path)) && !after.contains_key(Path::new(path)), "{path}");
    }
    assert!(after.contains_key(Path::new(&format!("{unlogged}_init"))), "the init fork creates the table again");
    let same =
        ["log/script.sh", "empty/nothing", "conf.d/work.conf", "log/inside", "dangling", "pg_tblspc/old", "sparse"];
    let same = same.iter().map(Path::new).chain([Path::new(odd)]);
    for path in same.chain(["postgresql.conf", "pg_hba.conf", "empty/nested", "log"].iter().map(Path::new)) {
        assert!(before.contains_key(path), "{}", path.display());
        assert_eq!(after.get(path), before.get(path), "{}", path.display());
    }
    // A file of root.
    let link = Path::new("log/link");
    let hostname = fs::read("/etc/hostname").expect("read a file");
    assert_eq!(fs::read(target.join(link)).expect("read the file"), hostname);
    assert_eq!((after[link].0, matches!(after[link].1, Kind::File(..))), (0o600, true));
    let comparable = |path: &&PathBuf| before.contains_key(*path) && !path.starts_with("pg_wal") && *path != link;
    for path in after.keys().filter(comparable) {
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
