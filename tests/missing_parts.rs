//! Parts of a data directory are missing while a backup runs, because their volume is not mounted: the backup fails and
//! names the part. Tablespaces in unusual places are restored.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_testkit::postgres::{Cluster, Shutdown};
use holdfast_testkit::user::DatabaseUser;

use crate::stage::attack::{Victim, load, objects, small_packs};
use crate::stage::{Plan, Seal, Stage, StoreKind, wait_promoted};

async fn stage() -> Option<Stage> {
    let plan = Plan {
        seal: Seal::None,
        compression: "none",
        store: StoreKind::Directory,
        wal_segment_mib: 1,
        // Nothing is written between the test's own changes.
        settings: vec![("autovacuum", "off".to_owned())],
        ..Plan::default()
    };
    Stage::start(18, plan).await
}

async fn oid_of(cluster: &Cluster, database: &str) -> String {
    let query = format!("SELECT oid FROM pg_database WHERE datname = '{database}'");
    cluster.value(&query).await.expect("ask for a database")
}

/// Makes a tablespace `space` with a table `t`, and returns its OID.
async fn with_tablespace(stage: &Stage, location: &Path) -> String {
    let sql = format!("CREATE TABLESPACE space LOCATION '{}'", location.display());
    stage.cluster.sql(&sql).await.expect("make a tablespace");
    stage.cluster.sql("CREATE TABLE t TABLESPACE space AS SELECT 7 AS n").await.expect("make a table");
    stage.cluster.value("SELECT oid FROM pg_tablespace WHERE spcname = 'space'").await.expect("ask for its OID")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_fails_the_backup() {
    let Some(stage) = stage().await else { return };
    let space = stage.scratch.folder("space").expect("make a folder");
    let tablespace = with_tablespace(&stage, &space).await;
    stage.cluster.sql("CREATE DATABASE app").await.expect("make a database");
    stage.cluster.sql("CREATE DATABASE far TABLESPACE space").await.expect("make another one");
    stage.cluster.sql("CHECKPOINT").await.expect("write everything");
    let data = stage.cluster.data();
    let app = data.join("base").join(oid_of(&stage.cluster, "app").await);
    let version = fs::read_dir(data.join("pg_tblspc").join(&tablespace)).expect("list the tablespace");
    let version = version.map(|entry| entry.expect("an entry").path()).next().expect("the directory of the version");
    let far = version.join(oid_of(&stage.cluster, "far").await);
    let away = stage.target("away");

    let refused = |missing: &Path, database: &str| {
        let (code, said) = stage.fails(&["backup"]);
        assert_eq!(code, 2, "{said}");
        let named = format!("database {database} has no {}", missing.display());
        for words in [named.as_str(), "is its volume mounted?"] {
            assert!(said.contains(words), "does not say {words:?}: {said}");
        }
        assert!(stage.ok(&["list"]).contains("no complete backup"));
    };
    // An unmounted volume leaves an empty directory; and the directory itself can be gone.
    for (place, database) in [(&app, "app"), (&far, "far")] {
        fs::rename(place, &away).expect("take the database away");
        refused(&place.join("PG_VERSION"), database);
        fs::create_dir(place).expect("make an empty folder");
        DatabaseUser::current().expect("find PostgreSQL's user").own(place).expect("give it away");
        refused(&place.join("PG_VERSION"), database);
        fs::remove_dir(place).expect("remove the folder");
        fs::rename(&away, place).expect("bring the database back");
    }
    // Without this file the server refuses every connection to the database.
    let map = app.join("pg_filenode.map");
    fs::rename(&map, &away).expect("take the file away");
    refused(&map, "app");
    fs::rename(&away, &map).expect("bring the file back");

    stage.ok(&["backup"]);
    let mapping = format!("space={}", stage.target("other-space").display());
    let restored = stage.restore_and_start("restored", &["--tablespace", &mapping]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT n FROM t").await.expect("read"), "7");
}

/// The same after the files were listed: what is away when it is read looks like files that PostgreSQL has removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_goes_away_during_the_copy_fails_the_backup() {
    // Slow enough that the small files are read a long time after the first packs are stored.
    let plan = Plan {
        seal: Seal::None,
        compression: "zstd:19",
        wal_segment_mib: 1,
        settings: vec![("autovacuum", "off".to_owned())],
        ..Plan::default()
    };
    let Some(stage) = Stage::start(18, plan).await else { return };
    small_packs(&stage);
    load(&stage.cluster).await;
    let space = stage.scratch.folder("space").expect("make a folder");
    let tablespace = with_tablespace(&stage, &space).await;
    stage.cluster.sql("CREATE DATABASE app").await.expect("make a database");
    stage.cluster.sql("CREATE DATABASE far TABLESPACE space").await.expect("make another one");
    stage.cluster.sql("CHECKPOINT").await.expect("write everything");
    let data = stage.cluster.data();
    let app = data.join("base").join(oid_of(&stage.cluster, "app").await);
    let version = fs::read_dir(data.join("pg_tblspc").join(&tablespace)).expect("list the tablespace");
    let version = version.map(|entry| entry.expect("an entry").path()).next().expect("the directory of the version");
    let far = version.join(oid_of(&stage.cluster, "far").await);
    let away = stage.target("away");
    let packs = || objects(&stage).into_keys().filter(|name| name.starts_with("main/packs/")).count();
    let gone = |place: &Path| format!("has no {}", place.join("PG_VERSION").display());
    for (place, words) in [(&app, gone(&app)), (&far, gone(&far)), (&version, gone(&far))] {
        let before = packs();
        let mut victim = Victim::start(&stage, &["backup", "--type", "full", "--jobs", "1"]);
        let begun = victim.runs_until(|| packs() >= before + 2).await;
        fs::rename(place, &away).expect("take it away");
        assert!(begun && victim.is_running(), "the copy has begun and not ended: {:?}", victim.wait());
        let ended = victim.wait();
        fs::rename(&away, place).expect("bring it back");
        assert_eq!(ended.code(), 2, "{ended:?}");
        assert!(ended.stderr.contains(&words), "does not say {words:?}: {ended:?}");
        assert!(ended.stderr.contains("is its volume mounted?"), "{ended:?}");
        assert!(stage.ok(&["list"]).contains("no complete backup"));
    }
    stage.ok(&["backup"]);
}

/// Only a table is in the tablespace, so no file of a database is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_tablespace_of_tables_that_goes_away_during_the_copy_fails_the_backup() {
    let plan = Plan { seal: Seal::None, compression: "zstd:19", wal_segment_mib: 1, ..Plan::default() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    small_packs(&stage);
    load(&stage.cluster).await;
    let space = stage.scratch.folder("space").expect("make a folder");
    let tablespace = with_tablespace(&stage, &space).await;
    stage.cluster.sql("CHECKPOINT").await.expect("write everything");
    let version = fs::read_dir(stage.cluster.data().join("pg_tblspc").join(&tablespace)).expect("list the tablespace");
    let version = version.map(|entry| entry.expect("an entry").path()).next().expect("the directory of the version");
    let away = stage.target("away");
    let packs = || objects(&stage).into_keys().filter(|name| name.starts_with("main/packs/")).count();
    let mut victim = Victim::start(&stage, &["backup", "--jobs", "1"]);
    let begun = victim.runs_until(|| packs() >= 2).await;
    fs::rename(&version, &away).expect("take it away");
    assert!(begun && victim.is_running(), "the copy has begun and not ended: {:?}", victim.wait());
    let ended = victim.wait();
    fs::rename(&away, &version).expect("bring it back");
    assert_eq!(ended.code(), 2, "{ended:?}");
    assert!(ended.stderr.contains("tablespace space has no directory "), "{ended:?}");
    assert!(stage.ok(&["list"]).contains("no complete backup"));
}

/// A database that is dropped while the files are listed causes no failure.
#[tokio::test(flavor = "multi_thread")]
async fn databases_that_come_and_go_fail_no_backup() {
    let Some(stage) = stage().await else { return };
    stage.cluster.sql("CREATE TABLE t AS SELECT 7 AS n").await.expect("make a table");
    let dropping = async {
        for round in 0..12 {
            let name = format!("short_{round}");
            stage.cluster.sql(&format!("CREATE DATABASE {name}")).await.expect("make a database");
            stage.cluster.sql(&format!("DROP DATABASE {name}")).await.expect("drop it");
        }
    };
    let backing_up = async {
        for _ in 0..4 {
            let command = stage.command(&["backup", "--type", "full"]);
            let output = tokio::process::Command::from(command).output().await.expect("run holdfast");
            crate::stage::succeeded(&output, &["backup"]);
        }
    };
    tokio::join!(dropping, backing_up);
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT n FROM t").await.expect("read"), "7");
}

/// PostgreSQL writes absolute links. It also follows other links, which people make when they move a tablespace by
/// hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_tablespace_with_a_relative_link_is_restored() {
    let Some(mut stage) = stage().await else { return };
    let space = stage.scratch.folder("space").expect("make a folder");
    let oid = with_tablespace(&stage, &space).await;
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
    let link = stage.cluster.data().join("pg_tblspc").join(&oid);
    let folder = link.parent().expect("a folder").canonicalize().expect("the folder's own path");
    let to_root: PathBuf = folder.ancestors().skip(1).map(|_| "..").collect();
    let relative = to_root.join(space.strip_prefix("/").expect("an absolute path"));
    fs::remove_file(&link).expect("remove the link");
    std::os::unix::fs::symlink(&relative, &link).expect("make a relative link");
    stage.cluster.start().await.expect("start the server");
    assert_eq!(stage.cluster.value("SELECT n FROM t").await.expect("read"), "7");

    stage.ok(&["backup"]);
    let listed = stage.ok(&["list", "--output", "json"]);
    assert!(listed.contains(&space.display().to_string()), "{listed}");
    let other = stage.target("other-space");
    let restored = stage.restore_and_start("restored", &["--tablespace", &format!("space={}", other.display())]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT n FROM t").await.expect("read"), "7");
    let place = restored.value(&format!("SELECT pg_tablespace_location({oid})")).await.expect("ask for its place");
    assert_eq!(Path::new(&place), other);
}

/// The setting that allows such tablespaces was on in one session only, but the recovery needs it.
#[tokio::test(flavor = "multi_thread")]
async fn a_tablespace_in_place_is_restored_without_its_setting() {
    let Some(stage) = stage().await else { return };
    let allow = "ALTER ROLE CURRENT_USER SET allow_in_place_tablespaces = on";
    stage.cluster.sql(allow).await.expect("allow it in sessions");
    with_tablespace(&stage, Path::new("")).await;
    stage.cluster.sql("ALTER ROLE CURRENT_USER RESET ALL").await.expect("forbid it again");
    stage.ok(&["backup"]);
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT n FROM t").await.expect("read"), "7");
}
