//! Files that change after a backup has listed them and before it reads them: a backup that is reported complete
//! restores and starts.
//!
//! A backup whose store does not answer stops with its memory full of the large files, which are read first. Changes to
//! the small files then always happen after the listing and before the reading, on every machine.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::stage::held::SlowStore;
use crate::stage::proof::{am_check, bulk};
use crate::stage::{Plan, Seal, Stage, StoreKind, wait_promoted};
use holdfast_testkit::postgres::{Cluster, Shutdown};
use holdfast_testkit::user::{DatabaseUser, is_root};

fn plan() -> Plan {
    Plan { seal: Seal::None, compression: "none", wal_segment_mib: 1, ..Plan::default() }
}

/// A backup that has listed its files, has begun with the large ones, and now waits.
struct Held {
    backup: Child,
    store: SlowStore,
}

impl Held {
    async fn start(stage: &Stage) -> Self {
        let store = SlowStore::of(stage);
        let backup = store.hold(stage, &["--output", "json", "backup", "--jobs", "1"]).await;
        Self { backup, store }
    }

    /// Lets the backup continue to its end. Fails if it has already come to the small files.
    fn report(self) -> serde_json::Value {
        let counts = fs::read_to_string(format!("/proc/{}/io", self.backup.id())).expect("look at the backup");
        let read = counts.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok());
        assert!(read.expect("a number") < 64 << 20, "the backup continued too early: {counts}");
        self.store.let_go();
        let output = self.backup.wait_with_output().expect("wait for the backup");
        let text = crate::stage::succeeded(&output, &["backup"]);
        serde_json::from_str(&text).expect("JSON")
    }
}

/// The file of a relation.
async fn file_of(stage: &Stage, relation: &str) -> PathBuf {
    let query = format!("SELECT pg_relation_filepath('{relation}')");
    stage.cluster.data().join(stage.cluster.value(&query).await.expect("ask for the file"))
}

/// From less than one extent to several, so that no group of small files has room for it.
async fn a_small_table_grows(checksums: bool) {
    let Some(stage) = Stage::start(18, Plan { checksums, ..plan() }).await else { return };
    bulk(&stage.cluster, "load", 80).await;
    let sql = "CREATE TABLE small AS SELECT g AS n, repeat('x', 100) AS text FROM generate_series(1, 1000) g; \
               CREATE INDEX ON small (n); CHECKPOINT";
    stage.cluster.sql(sql).await.expect("make a table");
    let file = file_of(&stage, "small").await;
    let before = fs::metadata(&file).expect("look at the table").len();
    assert!(before < 1 << 20, "{before}");

    let held = Held::start(&stage).await;
    let sql = "INSERT INTO small SELECT g, repeat('y', 100) FROM generate_series(1001, 200000) g; CHECKPOINT";
    stage.cluster.sql(sql).await.expect("grow the table");
    let after = fs::metadata(&file).expect("look at the table").len();
    assert!(after > 20 << 20, "{after}");
    let report = held.report();
    let said = warnings(&report);
    assert!(if checksums { said == "[]" } else { said.contains("no data checksums") }, "{said}");

    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    let counted = "SELECT count(*) = 200000 AND count(DISTINCT n) = 200000 FROM small";
    assert_eq!(restored.value(counted).await.expect("count"), "t");
    am_check(&restored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_table_without_checksums_grows() {
    a_small_table_grows(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_table_with_checksums_grows() {
    a_small_table_grows(true).await;
}

/// Logs that grow, are cut, removed and created again, and a settings file that is written again.
#[tokio::test(flavor = "multi_thread")]
async fn small_files_that_are_not_relations_change() {
    let Some(stage) = Stage::start(18, plan()).await else { return };
    bulk(&stage.cluster, "load", 80).await;
    let log = stage.cluster.data().join("log");
    fs::create_dir(&log).expect("make a folder");
    let line = "LOG:  statement: SELECT 1\n".repeat(80);
    for name in ["grows.log", "shrinks.log", "goes.log", "a.log", "z.log"] {
        fs::write(log.join(name), &line).expect("write a log");
    }
    own(&log);
    let held = Held::start(&stage).await;
    let add = |name: &str, bytes: usize| {
        let mut file = OpenOptions::new().append(true).open(log.join(name)).expect("open a log");
        file.write_all(&vec![b'x'; bytes]).expect("write to a log");
    };
    add("grows.log", 3 << 20);
    // Together they exceed the room of a group of small files, though not alone.
    add("a.log", 700 << 10);
    add("z.log", 700 << 10);
    fs::write(log.join("shrinks.log"), "").expect("cut a log");
    fs::remove_file(log.join("goes.log")).expect("remove a log");
    fs::write(log.join("new.log"), "new\n").expect("make a log");
    own(&log);
    held.report();

    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    let restored_log = restored.data().join("log");
    for name in ["grows.log", "a.log", "z.log", "shrinks.log"] {
        let (is, was) = (fs::read(restored_log.join(name)), fs::read(log.join(name)));
        assert!(is.expect("read the restored log") == was.expect("read the log"), "{name} differs");
    }
    assert!(!restored_log.join("goes.log").exists() && !restored_log.join("new.log").exists());
    assert_eq!(restored.value("SELECT count(*) > 0 FROM load").await.expect("count"), "t");
}

/// Gives a folder and its content to PostgreSQL's user.
fn own(folder: &Path) {
    let user = DatabaseUser::current().expect("find PostgreSQL's user");
    user.own(folder).expect("give the folder away");
    for entry in fs::read_dir(folder).expect("list the folder") {
        user.own(&entry.expect("list the folder").path()).expect("give a file away");
    }
}

/// A store in a directory, because nothing has to be held up.
fn still() -> Plan {
    Plan { store: StoreKind::Directory, ..plan() }
}

fn warnings(report: &serde_json::Value) -> String {
    report["warnings"].to_string()
}

/// As packages and administrators do it: the settings are elsewhere, with links to them. On another host nothing exists
/// at the targets.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_links_are_restored() {
    let Some(stage) = Stage::start(18, still()).await else { return };
    stage.cluster.sql("CREATE TABLE t AS SELECT 1 AS n").await.expect("make a table");
    let data = stage.cluster.data();
    let outside = stage.scratch.folder("etc").expect("make a folder");
    let (settings, more, logs) = (outside.join("pg.conf"), outside.join("more"), outside.join("logs"));
    for folder in [&more, &logs] {
        fs::create_dir(folder).expect("make a folder");
    }
    let text = fs::read_to_string(data.join("postgresql.conf")).expect("read the settings");
    fs::write(&settings, format!("{text}\ninclude_dir 'conf.d'\n")).expect("write the settings");
    fs::write(more.join("memory.conf"), "work_mem = '7MB'\n").expect("write a setting");
    fs::write(more.join("notes.txt"), "no settings").expect("write a file");
    fs::write(logs.join("server.log"), "a line\n").expect("write a log");
    for folder in [&outside, &more, &logs] {
        own(folder);
    }
    // Only root can read it: PostgreSQL does not read it, either.
    let secret = stage.target("secret");
    fs::write(&secret, "hush").expect("write a file");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("close it");
    fs::remove_file(data.join("postgresql.conf")).expect("remove the settings");
    let linked = [("postgresql.conf", &settings), ("conf.d", &more), ("pg_log", &logs), ("other.key", &secret)];
    for (name, target) in linked {
        symlink(target, data.join(name)).expect("make a link");
    }
    let said = warnings(&stage.json(&["backup"]));
    for ((name, target), what) in linked.into_iter().zip([
        ": the backup has the content, and a restore makes a file of it",
        ": the backup has the settings in it (*.conf) and nothing else, and a restore makes a directory of it",
        " and is kept as a link: what it leads to is not in the backup",
        " and is kept as a link: what it leads to is not in the backup",
    ]) {
        let (at, what) = (format!("{name} is a link to "), format!("{}{what}", target.display()));
        assert!(said.contains(&at) && said.contains(&what), "{at} {what}: {said}");
    }

    move_away(&outside, &stage.target("elsewhere"));
    let target = stage.target("restored");
    let pgdata = target.display().to_string();
    let report = stage.json(&["restore", "--pgdata", &pgdata]);
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("postgresql.conf is a link to") && notes.contains("a restore makes a file of it"),
        "{notes}"
    );
    assert_eq!(fs::read_link(target.join("pg_log")).expect("a link"), logs);
    assert!(!target.join("conf.d/notes.txt").exists());

    // An update of an old directory replaces the link, and does not write through it.
    let other = stage.target("other.conf");
    fs::write(&other, "of somebody else\n").expect("write a file");
    fs::remove_file(target.join("postgresql.conf")).expect("remove the settings");
    symlink(&other, target.join("postgresql.conf")).expect("make a link");
    stage.ok(&["restore", "--delta", "--pgdata", &pgdata]);
    assert_eq!(fs::read_to_string(&other).expect("read the file"), "of somebody else\n");

    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT n FROM t").await.expect("read"), "1");
    assert_eq!(restored.value("SHOW work_mem").await.expect("ask for a setting"), "7MB");
}

/// There is no backup afterwards, and the message names the data that would be missing.
fn refused(stage: &Stage, reasons: &[&str]) {
    let (code, message) = stage.fails(&["backup"]);
    assert_ne!(code, 1, "{message}");
    for reason in reasons {
        assert!(message.contains(reason), "{reason}: {message}");
    }
    let listed = stage.ok(&["list"]);
    assert!(listed.contains("no complete backup") && !listed.contains("unfinished"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_behind_a_link_fails_the_backup() {
    let Some(stage) = Stage::start(18, still()).await else { return };
    stage.cluster.sql("CREATE DATABASE other").await.expect("make a database");
    let oid = stage.cluster.value("SELECT oid FROM pg_database WHERE datname = 'other'").await.expect("ask");
    let place = stage.scratch.folder("space").expect("make a folder");
    let sql = format!("CREATE TABLESPACE space LOCATION '{}'", place.display());
    stage.cluster.sql(&sql).await.expect("make a tablespace");
    stage.cluster.sql("CREATE TABLE t TABLESPACE space AS SELECT 1 AS n; CHECKPOINT").await.expect("make a table");
    let table = file_of(&stage, "t").await;
    let data = stage.cluster.data();
    let catalog = file_of(&stage, "pg_class").await;
    let of_the_database = table.parent().expect("a folder").to_owned();
    for inside in [data.join("base").join(&oid), catalog, table, of_the_database, data.join("pg_tblspc")] {
        let outside = stage.target("moved");
        move_away(&inside, &outside);
        symlink(&outside, &inside).expect("make a link");
        refused(&stage, &[&inside.display().to_string(), "is a symbolic link"]);
        fs::remove_file(&inside).expect("remove the link");
        move_away(&outside, &inside);
    }
    stage.ok(&["backup"]);
}

/// Also across file systems.
fn move_away(from: &Path, to: &Path) {
    let moved = std::process::Command::new("mv").arg(from).arg(to).status().expect("run mv");
    assert!(moved.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tablespace_that_is_away_fails_the_backup() {
    let Some(stage) = Stage::start(18, still()).await else { return };
    let place = stage.scratch.folder("space").expect("make a folder");
    let sql = format!("CREATE TABLESPACE space LOCATION '{}'", place.display());
    stage.cluster.sql(&sql).await.expect("make a tablespace");
    stage
        .cluster
        .sql("CREATE TABLE t TABLESPACE space AS SELECT g AS n FROM generate_series(1, 5) g")
        .await
        .expect("fill");
    // Otherwise the checkpoint at the start of the backup fails first.
    stage.cluster.sql("CHECKPOINT").await.expect("checkpoint");
    // The directory itself is missing, or only its content: a volume that is not mounted leaves an empty directory.
    let away = stage.target("away");
    move_away(&place, &away);
    refused(&stage, &["tablespace space has no directory"]);
    fs::create_dir(&place).expect("make an empty folder");
    refused(&stage, &["tablespace space has no directory", "is its volume mounted?"]);
    fs::remove_dir(&place).expect("remove the folder");
    move_away(&away, &place);
    stage.ok(&["backup"]);
    let other = format!("space={}", stage.target("restored-space").display());
    let restored = stage.restore_and_start("restored", &["--tablespace", &other]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT count(*) FROM t").await.expect("count"), "5");
}

/// `backup.json` contains only text, and a restore must find the place exactly.
#[tokio::test(flavor = "multi_thread")]
async fn a_tablespace_in_a_place_that_is_not_utf8_fails_the_backup() {
    let Some(mut stage) = Stage::start(18, still()).await else { return };
    let place = stage.scratch.folder("space").expect("make a folder");
    let sql = format!("CREATE TABLESPACE space LOCATION '{}'", place.display());
    stage.cluster.sql(&sql).await.expect("make a tablespace");
    stage.cluster.sql("CREATE TABLE t TABLESPACE space AS SELECT 3 AS n").await.expect("fill");
    let oid = stage.cluster.value("SELECT oid FROM pg_tablespace WHERE spcname = 'space'").await.expect("ask");
    let link = stage.cluster.data().join("pg_tblspc").join(oid);
    // Moved by hand, as people do with full disks.
    let odd = stage.scratch.path().join(OsStr::from_bytes(b"odd-\xFF"));
    let lead_to = |from: &Path, to: &Path| {
        fs::rename(from, to).expect("move the tablespace");
        fs::remove_file(&link).expect("remove the link");
        symlink(to, &link).expect("make a link");
    };
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
    lead_to(&place, &odd);
    stage.cluster.start().await.expect("start the server");
    refused(&stage, &["tablespace space is in ", "whose name is not UTF-8: move it elsewhere"]);
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
    lead_to(&odd, &place);
    stage.cluster.start().await.expect("start the server");
    stage.ok(&["backup"]);
    let other = format!("space={}", stage.target("restored-space").display());
    let restored = stage.restore_and_start("restored", &["--tablespace", &other]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT n FROM t").await.expect("read"), "3");
}

/// A data directory that is a file system of its own has `lost+found`, which only root may list. Anywhere else a
/// directory with that name is an ordinary one.
#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_the_file_system_is_left_out() {
    if !is_root() {
        eprintln!("skipped: only root can create a directory of root");
        return;
    }
    let Some(stage) = Stage::start(18, still()).await else { return };
    stage.cluster.sql("CREATE TABLE t AS SELECT 4 AS n").await.expect("make a table");
    let closed = |place: &Path| {
        let found = place.join("lost+found");
        fs::create_dir(&found).expect("make a folder");
        fs::set_permissions(&found, fs::Permissions::from_mode(0o700)).expect("close it");
        found
    };
    let data = stage.cluster.data();
    let log = data.join("log");
    fs::create_dir(&log).expect("make a folder");
    own(&log);
    let deeper = closed(&log);
    refused(&stage, &["log/lost+found", "Permission denied"]);
    fs::remove_dir(deeper).expect("remove it");
    closed(data);
    let output = stage.run(&["backup"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert!(!restored.data().join("lost+found").exists());
    assert_eq!(restored.value("SELECT n FROM t").await.expect("read"), "4");
}

/// Somebody else removes objects from the store while the backup waits for its WAL: a pack, or the start record. A
/// missing start record means that another run took this one for dead. A standby's backup waits until the primary
/// switches to another segment.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_gone_fails_the_backup() {
    let Some(stage) = Stage::start(18, still()).await else { return };
    let mut standby = Cluster::standby_of(&stage.cluster).await.expect("copy a standby");
    standby.start().await.expect("start the standby");
    stage.archive_now().await;
    bulk(&stage.cluster, "load", 8).await;
    let data = |cluster: &Cluster| format!("pgdata = \"{}\"", cluster.data().display());
    let text = stage.config_text().replace(&data(&stage.cluster), &data(&standby));
    let config = stage.write_config("standby.toml", &text);
    let folder = stage.repository_folder().join("main");

    for (table, gone, complaint) in [
        ("little", "/packs/", "checking backup"),
        ("less", "/start.json", "another run took this backup for dead and removed it"),
    ] {
        stage.archive_now().await;
        let write = format!("CREATE TABLE {table} AS SELECT 1 AS n; CHECKPOINT");
        stage.cluster.sql(&write).await.expect("write a little");
        let lsn = stage.cluster.value("SELECT pg_current_wal_lsn()").await.expect("ask for the LSN");
        let replayed = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{lsn}', false)");
        standby.wait_for(&replayed, Duration::from_mins(3)).await.expect("replay");

        let mut command = stage.command_with(&config, &["backup", "--archive-timeout", "10m"]);
        let mut backup = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start a backup");
        let said = said_until(&mut backup, "waiting for WAL");
        let found = objects(&folder).into_iter().filter(|path| path.to_string_lossy().contains(gone));
        fs::remove_file(found.max().expect("an object")).expect("remove an object");
        assert!(!summary(&folder), "the backup does not wait for its WAL");
        stage.archive_now().await;
        let message = said.join().expect("read what the backup says");
        let status = backup.wait().expect("wait for the backup");
        assert!(!status.success(), "a backup without {gone} is called complete: {message}");
        assert!(message.contains(complaint), "{gone}: {message}");
        assert!(!summary(&folder), "{gone}: there is a backup.json: {message}");
        let listed = stage.ok(&["list"]);
        assert!(listed.contains("no complete backup"), "{gone}: {listed}");
    }

    // The next backup finds no remains that could disturb it.
    stage.ok(&["backup"]);
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT little.n + less.n FROM little, less").await.expect("read"), "2");
}

/// All files below a folder.
fn objects(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { objects(&path) } else { vec![path] }).collect()
}

fn summary(folder: &Path) -> bool {
    objects(folder).iter().any(|path| path.ends_with("backup.json"))
}

/// Waits until the backup reports this phase; the thread returns its later output.
fn said_until(backup: &mut Child, phase: &str) -> std::thread::JoinHandle<String> {
    let mut lines = BufReader::new(backup.stderr.take().expect("a piped standard error")).lines();
    let mut before = String::new();
    loop {
        let line = lines.next().unwrap_or_else(|| panic!("the backup ended before \"{phase}\": {before}"));
        let line = line.expect("read what the backup says");
        if line.contains(phase) {
            return std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>().join("\n"));
        }
        before.push_str(&line);
        before.push('\n');
    }
}

/// Listed as files, and links when they are read: a file that is not PostgreSQL's data is restored as a file, with a
/// warning, and data of PostgreSQL fails the backup.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_becomes_a_link_is_in_the_backup_or_fails_it() {
    let Some(stage) = Stage::start(18, plan()).await else { return };
    bulk(&stage.cluster, "load", 80).await;
    let log = stage.cluster.data().join("log");
    fs::create_dir(&log).expect("make a folder");
    fs::write(log.join("server.log"), "a line\n").expect("write a log");
    own(&log);
    let outside = stage.scratch.folder("outside").expect("make a folder");
    let user = DatabaseUser::current().expect("find PostgreSQL's user");
    let link_out = |file: &Path| {
        let moved = outside.join(file.file_name().expect("a name"));
        fs::copy(file, &moved).expect("copy the file");
        user.own(&moved).expect("give the copy away");
        let link = file.with_extension("link");
        symlink(&moved, &link).expect("make a link");
        fs::rename(&link, file).expect("put the link in the place of the file");
        moved
    };

    let held = Held::start(&stage).await;
    let moved = link_out(&log.join("server.log"));
    let said = warnings(&held.report());
    let taken = format!("log/server.log is a link to {}: the backup has the content", moved.display());
    assert!(said.contains(&taken), "{said}");

    let held = Held::start(&stage).await;
    let data = stage.cluster.data().join("pg_xact/0000");
    let moved = link_out(&data);
    held.store.let_go();
    let output = held.backup.wait_with_output().expect("wait for the backup");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("pg_xact/0000 was a file when the backup listed it"), "{said}");
    // As before, until the server writes through the link again.
    fs::copy(&moved, data.with_extension("back")).expect("copy the file back");
    user.own(&data.with_extension("back")).expect("give the file away");
    fs::rename(data.with_extension("back"), &data).expect("put the file back");

    let target = stage.target("restored");
    stage.ok(&["restore", "--pgdata", &target.display().to_string()]);
    assert!(!target.join("log/server.log").is_symlink());
    assert_eq!(fs::read_to_string(target.join("log/server.log")).expect("read the log"), "a line\n");
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT count(*) > 0 FROM load").await.expect("count"), "t");
    am_check(&restored);
}
