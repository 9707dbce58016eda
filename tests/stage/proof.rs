//! What a restored cluster is compared with: rows, the tree of files, PostgreSQL's own checking tools.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_repo::ChunkHash;
use holdfast_testkit::postgres::Cluster;
use holdfast_testkit::rows::{Journal, RowWriter, Target, found};
use holdfast_testkit::user::run_as_postgres;
use serde_json::Value;

use super::Stage;

/// The insert LSN as a number.
pub(crate) async fn insert_lsn(cluster: &Cluster) -> u64 {
    let text = cluster.value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").await.expect("ask for the LSN");
    text.parse().expect("a number")
}

/// Ends the writer. Returns its journal, and the LSN up to which a restore to the end of the archive must have
/// everything.
pub(crate) async fn finish(writer: RowWriter, cluster: &Cluster) -> (Journal, u64) {
    let journal = writer.stop().await.expect("stop the writer");
    (journal, insert_lsn(cluster).await)
}

/// The restored cluster has what was committed up to this LSN.
pub(crate) async fn holds_all(restored: &Cluster, journal: &Journal, end: u64) {
    let rows = found(restored).await.expect("read the rows");
    journal.check(&Target::Latest(end), &rows).unwrap_or_else(|e| panic!("{e}\n{}", restored.log_text()));
}

/// The first value of this key anywhere in a document.
pub(crate) fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|value| find(value, key))),
        Value::Array(list) => list.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

/// The number at this key anywhere in a document.
pub(crate) fn number(value: &Value, key: &str) -> u64 {
    find(value, key).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number {key} in {value}"))
}

/// The text at this key anywhere in a document.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    find(value, key).and_then(Value::as_str).unwrap_or_else(|| panic!("no text {key} in {value}"))
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file with this length and BLAKE3 hash.
    File(u64, ChunkHash),
    /// A directory.
    Directory,
    /// A link to this place.
    Link(PathBuf),
    /// A pipe, a socket or a device.
    Other,
}

/// Everything below a folder, by relative path, with permission bits. Links are not followed.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Kind)> {
    let mut entries = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("read a folder").path();
            let metadata = fs::symlink_metadata(&path).expect("look at a file");
            let kind = if metadata.is_symlink() {
                Kind::Link(fs::read_link(&path).expect("read a link"))
            } else if metadata.is_dir() {
                waiting.push(path.clone());
                Kind::Directory
            } else if metadata.is_file() {
                Kind::File(metadata.len(), ChunkHash::of(&fs::read(&path).expect("read a file")))
            } else {
                Kind::Other
            };
            let inside = path.strip_prefix(root).expect("a path in the folder").to_owned();
            entries.insert(inside, (metadata.permissions().mode() & 0o7777, kind));
        }
    }
    entries
}

/// Lists where two trees differ, except for the named files.
pub(crate) fn same_trees(left: &Path, right: &Path, but_for: &[&str]) {
    let (a, b) = (tree(left), tree(right));
    let all: std::collections::BTreeSet<&PathBuf> = a.keys().chain(b.keys()).collect();
    let other: Vec<String> = all
        .into_iter()
        .filter(|path| !but_for.iter().any(|known| Path::new(known) == path.as_path()))
        .filter(|path| a.get(*path) != b.get(*path))
        .map(|path| format!("{}: {:?} and {:?}", path.display(), a.get(path), b.get(path)))
        .collect();
    assert!(other.is_empty(), "{} and {} differ:\n{}", left.display(), right.display(), other.join("\n"));
}

/// Bytes that a file takes on disk.
pub(crate) fn bytes_on_disk(path: &Path) -> u64 {
    fs::metadata(path).expect("look at a file").blocks() * 512
}

/// `pg_verifybackup` accepts a restored directory in which no server has run yet.
pub(crate) fn verify_backup(stage: &Stage, target: &Path) {
    verify_backup_but_for(stage, target, &[]);
}

/// As [`verify_backup`], without these paths: they are links, which a `backup_manifest` does not contain.
pub(crate) fn verify_backup_but_for(stage: &Stage, target: &Path, links: &[&str]) {
    let Some(tool) = stage.installation.program("pg_verifybackup") else { return };
    let mut command = Command::new(tool);
    command.args(["--no-parse-wal", "--exit-on-error"]).arg(target);
    command.args(links.iter().flat_map(|link| ["--ignore", link]));
    run_as_postgres(&mut command).expect("drop to PostgreSQL's user");
    let output = command.output().expect("run pg_verifybackup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `pg_amcheck` finds no fault in any database of the restored cluster.
pub(crate) fn am_check(restored: &Cluster) {
    let Some(tool) = restored.installation().program("pg_amcheck") else { return };
    let mut command = Command::new(tool);
    command.args(["--install-missing", "--heapallindexed", "--all", "-U", "postgres"]);
    command.arg("-h").arg(restored.socket_folder()).arg("-p").arg(restored.port().to_string());
    run_as_postgres(&mut command).expect("drop to PostgreSQL's user");
    let output = command.output().expect("run pg_amcheck");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// Fills a table `bulk` with this many MiB that compress badly.
pub(crate) async fn bulk(cluster: &Cluster, table: &str, mib: u32) {
    // 32 rows of 8 hashes: about 8 KiB.
    let rows = mib * 128 * 28;
    let statement = format!(
        "CREATE TABLE {table} AS SELECT g AS id, md5(g::text) || md5((g * 7)::text) || md5((g * 11)::text) \
         || md5((g * 13)::text) || md5((g * 17)::text) || md5((g * 19)::text) || md5((g * 23)::text) AS text \
         FROM generate_series(1, {rows}) g"
    );
    cluster.sql(&statement).await.expect("fill a table");
}

/// Runs a statement every few milliseconds until it is stopped. Failures are counted, and do not fail the test, because
/// storms of DDL refuse each other.
#[derive(Debug)]
pub(crate) struct Storm {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    threads: Vec<std::thread::JoinHandle<(u64, String)>>,
}

impl Storm {
    /// One connection for each of the texts. Each is a loop over its statements, which are separated by `;;`. `{n}` in
    /// them is the number of the round.
    pub(crate) fn start(cluster: &Cluster, loops: &[&str]) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let threads = loops
            .iter()
            .map(|text| {
                let (text, stop) = ((*text).to_owned(), std::sync::Arc::clone(&stop));
                let connection = cluster.connection_string("postgres");
                std::thread::spawn(move || {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                    runtime.block_on(run_storm(&connection, &text, &stop))
                })
            })
            .collect();
        Self { stop, threads }
    }

    /// Ends it. Every loop must have completed at least one round of its own.
    pub(crate) fn end(self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for thread in self.threads {
            let (rounds, error) = thread.join().expect("join a storm");
            assert!(rounds > 0, "a storm never got through: {error}");
        }
    }
}

async fn run_storm(connection: &str, text: &str, stop: &std::sync::atomic::AtomicBool) -> (u64, String) {
    let (client, driver) = tokio_postgres::connect(connection, tokio_postgres::NoTls).await.expect("connect");
    tokio::spawn(async move { drop(driver.await) });
    let (mut rounds, mut error, mut n) = (0, String::new(), 0_u64);
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        n += 1;
        let mut whole = true;
        for statement in text.split(";;") {
            let statement = statement.replace("{n}", &n.to_string());
            if let Err(e) = client.batch_execute(&statement).await {
                whole = false;
                error = format!("{statement}: {e:?}");
            }
        }
        rounds += u64::from(whole);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    (rounds, error)
}

/// Waits until a backup has begun to read files: this many bytes, as the kernel counts them.
pub(crate) async fn wait_until_it_has_read(backup: &std::process::Child, bytes: u64) {
    let start = std::time::Instant::now();
    loop {
        let counts = fs::read_to_string(format!("/proc/{}/io", backup.id())).unwrap_or_default();
        let read = counts.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok()).unwrap_or(0_u64);
        if read >= bytes {
            return;
        }
        assert!(start.elapsed() < std::time::Duration::from_mins(3), "the backup does not read: {counts}");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}
