//! What attack tests need in addition to the stage: victims, and a look at what the store really contains.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use holdfast_testkit::postgres::Cluster;
use rustix::process::{Pid, Signal, kill_process_group};

use super::Stage;

/// A `holdfast` in its own process group, which will be killed. Dropping the value kills it too.
pub(crate) struct Victim {
    child: Option<Child>,
    group: Pid,
}

/// How a victim ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The status as a shell shows it: if a signal ended it, 128 and the number of the signal.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    }
}

impl Victim {
    /// Starts `holdfast` with the stage's configuration.
    pub(crate) fn start(stage: &Stage, arguments: &[&str]) -> Self {
        Self::of(stage.command(arguments))
    }

    /// Starts any command.
    pub(crate) fn of(mut command: Command) -> Self {
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("start holdfast");
        let group = Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("a process id");
        Self { child: Some(child), group }
    }

    /// Sends a signal to the whole group. A group that has already ended is not an error.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.group, signal);
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("look at holdfast").is_none())
    }

    /// Kills it with `SIGKILL` if it still runs, and collects it.
    pub(crate) fn kill(self) -> Ended {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        let output = self.child.take().expect("it was not collected yet").wait_with_output().expect("wait");
        Ended {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Waits until a condition holds or the victim has ended. Returns whether the condition holds.
    pub(crate) async fn runs_until(&mut self, mut condition: impl FnMut() -> bool) -> bool {
        let began = Instant::now();
        loop {
            if condition() {
                return true;
            }
            if !self.is_running() {
                return false;
            }
            assert!(began.elapsed() < Duration::from_mins(3), "nothing happened for three minutes");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = kill_process_group(self.group, Signal::KILL);
            let _ = child.wait();
        }
    }
}

/// What shows whether an object was written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObjectFile {
    pub(crate) size_bytes: u64,
    pub(crate) inode: u64,
    modified: (i64, i64),
}

/// All objects of the repository by name, as they are on the disk of the store.
pub(crate) fn objects(stage: &Stage) -> BTreeMap<String, ObjectFile> {
    files_below(&stage.repository_folder())
        .into_iter()
        .filter(|(name, _)| !name.starts_with(".holdfast-tmp/"))
        .collect()
}

/// All files below a folder, by path relative to it. Files that vanish meanwhile are left out.
pub(crate) fn files_below(root: &Path) -> BTreeMap<String, ObjectFile> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => panic!("list {}: {error}", folder.display()),
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            if metadata.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root).expect("a path below the root").display().to_string();
            let file = ObjectFile {
                size_bytes: metadata.len(),
                inode: metadata.ino(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
            };
            found.insert(name, file);
        }
    }
    found
}

/// The ids of all backups of which the store has any part, from the objects' names.
pub(crate) fn ids_in_store(stage: &Stage) -> BTreeSet<String> {
    let id_of = |name: &String| {
        let mut parts = name.split('/');
        let folder = parts.nth(1)?;
        matches!(folder, "packs" | "backups").then(|| parts.next().map(str::to_owned)).flatten()
    };
    objects(stage).keys().filter_map(id_of).collect()
}

/// The ids of the complete backups, from `holdfast list`.
pub(crate) fn complete(stage: &Stage) -> BTreeSet<String> {
    let listed = stage.json(&["list"]);
    let backups = listed["repositories"][0]["backups"].as_array().expect("a list of backups");
    backups.iter().map(|backup| backup["backup_id"].as_str().expect("an id").to_owned()).collect()
}

/// Takes a backup and returns its id.
pub(crate) fn back_up(stage: &Stage) -> String {
    let report = stage.json(&["backup"]);
    report["repositories"][0]["backup"]["backup_id"].as_str().expect("an id").to_owned()
}

/// Waits until the server has no session of holdfast: the end of the session ends the backup mode.
pub(crate) async fn sessions_gone(cluster: &Cluster) {
    let query = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'holdfast'";
    cluster.wait_for(query, Duration::from_mins(3)).await.expect("the session of the dead backup ends");
}

/// A table of about 20 MB that compresses to half: its upload has several parts.
pub(crate) async fn load(cluster: &Cluster) {
    cluster
        .sql(
            "CREATE TABLE load AS SELECT g AS id, md5(g::text) || md5((-g)::text) || md5(g::text || 'a') \
             || md5(g::text || 'b') AS text FROM generate_series(1, 120000) g; CHECKPOINT",
        )
        .await
        .expect("load data");
}

/// Packs of 1 MiB, so that a small backup has many.
pub(crate) fn small_packs(stage: &Stage) {
    let path = stage.repository_folder().join("holdfast.json");
    let text = std::fs::read_to_string(&path).expect("read the repository's record");
    let (head, body) = text.split_once("\"body\": ").expect("a body");
    let body = body.strip_suffix("\n}\n").expect("an envelope");
    let body = body.replacen("\"pack_size_bytes\": 134217728", "\"pack_size_bytes\": 1048576", 1);
    let digest = holdfast_repo::record::sha256_hex(body.as_bytes());
    let (kind, _) = head.split_once("\"sha256\"").expect("a digest");
    std::fs::write(&path, format!("{kind}\"sha256\": \"{digest}\",\n\"body\": {body}\n}}\n")).expect("write it");
    // The store keeps the checksums of objects beside them, and this object now has another content.
    let root = stage.s3.as_ref().expect("a stage on S3").root().to_path_buf();
    for entry in std::fs::read_dir(root).expect("list the store").flatten() {
        if entry.file_name().to_string_lossy().starts_with(".bucket-") {
            std::fs::remove_file(entry.path()).expect("remove a checksum");
        }
    }
}

/// The content of the table of [`load`], in one row.
pub(crate) async fn sum(cluster: &Cluster) -> Vec<Vec<String>> {
    cluster.sql("SELECT count(*), sum(id), md5(string_agg(text, '' ORDER BY id)) FROM load").await.expect("sum up")
}

/// The LSN up to which everything is written.
pub(crate) async fn insert_lsn(cluster: &Cluster) -> u64 {
    let text = cluster.value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").await.expect("ask for the LSN");
    text.parse().expect("a number")
}

/// The segments in `pg_wal` with the state `ready` or `done`, ascending.
pub(crate) fn segments(data: &Path, state: &str) -> Vec<String> {
    let suffix = format!(".{state}");
    let entries = std::fs::read_dir(data.join("pg_wal/archive_status")).expect("list archive_status");
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().strip_suffix(&suffix).map(str::to_owned))
        .filter(|name| name.len() == 24)
        .collect();
    names.sort();
    names
}

/// The object that contains a segment, and not the history of a backup that began in it.
pub(crate) fn wal_object(stage: &Stage, segment: &str) -> Option<(String, ObjectFile)> {
    let start = format!("/{segment}.");
    let holds = |name: &str| name.contains("/wal/") && name.contains(&start) && !name.contains(".backup.");
    objects(stage).into_iter().find(|(name, _)| holds(name))
}

/// A segment in `pg_wal`.
pub(crate) fn segment_path(data: &Path, segment: &str) -> PathBuf {
    data.join("pg_wal").join(segment)
}

/// Makes the server write WAL and switch segments this many times.
pub(crate) async fn fill_segments(cluster: &Cluster, count: u32) {
    cluster.sql("CREATE TABLE IF NOT EXISTS filler (text text)").await.expect("make a table");
    for _ in 0..count {
        cluster
            .sql(
                "INSERT INTO filler SELECT md5(random()::text) FROM generate_series(1, 2000); \
                 SELECT pg_switch_wal()",
            )
            .await
            .expect("write WAL");
    }
}

/// Makes all archived WAL look old: in a young gap, a segment might still be on its way.
pub(crate) fn age(stage: &Stage) {
    let long_ago = SystemTime::now() - Duration::from_mins(10);
    for name in objects(stage).into_keys().filter(|name| name.contains("/wal/")) {
        let file = File::open(stage.repository_folder().join(name)).expect("open an object");
        file.set_modified(long_ago).expect("make it old");
    }
}
