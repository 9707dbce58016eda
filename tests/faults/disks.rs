//! Full disks: of the repository, of a restore, and of the spool; and a disk that loses what was written. Nothing is
//! wrongly reported as stored or restored, and work continues when there is room again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use holdfast_testkit::disk::{LosingDisk, SmallDisk};
use holdfast_testkit::postgres::Shutdown;

use super::kit::{add_to_wal_table, small, unarchived};
use crate::stage::attack::{back_up, complete, fill_segments, load, segment_path, segments, sum, wal_object};
use crate::stage::{self, Plan, Seal, Stage, StoreKind, wait_promoted};

/// The exit code "no-space".
const NO_SPACE: i32 = 30;
/// The exit code "unwritable-file".
const UNWRITABLE: i32 = 32;

/// Takes all room of a disk except this much.
fn fill(disk: &SmallDisk, left: u64) -> PathBuf {
    let path = disk.path().join("filler");
    let free = disk.free_bytes().expect("ask for the free bytes");
    let zeros = vec![0_u8; usize::try_from(free.saturating_sub(left)).expect("a small disk")];
    std::fs::write(&path, zeros).expect("fill the disk");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_on_a_full_disk_fails_cleanly() {
    let Some(disk) = SmallDisk::or_skip(24 << 20) else { return };
    let plan = Plan { compression: "none", wal_compression: "none", ..unarchived(StoreKind::Directory, Seal::None) };
    let Some(stage) = Stage::start(18, plan).await else { return };
    let folder = stage.repository_folder();
    let repository = disk.path().join("repository");
    let text = stage.config_text().replace(&folder.display().to_string(), &repository.display().to_string());
    stage.write_config("holdfast.toml", &text);
    add_to_wal_table(&stage, "push_ahead = 1");
    stage.ok(&["repo", "init"]);
    load(&stage.cluster).await;
    fill_segments(&stage.cluster, 2).await;
    let ready = segments(stage.cluster.data(), "ready");
    let path = segment_path(stage.cluster.data(), &ready[0]).display().to_string();
    let other = segment_path(stage.cluster.data(), &ready[1]).display().to_string();
    stage.ok(&["wal", "push", &path]);
    let before = disk.free_bytes().expect("ask for the free bytes");
    let stored = stage::attack::files_below(&repository);

    let (code, text) = stage.fails(&["backup"]);
    assert_eq!(code, NO_SPACE, "{text}");
    assert!(text.contains("error: ") && text.contains("hint:  "), "{text}");
    assert!(complete(&stage).is_empty());
    let left = stage::attack::files_below(&repository);
    assert_eq!(left.keys().collect::<Vec<_>>(), stored.keys().collect::<Vec<_>>(), "remains of the failed backup");
    let after = disk.free_bytes().expect("ask for the free bytes");
    assert!(after + (64 << 10) >= before, "{before} bytes were free, {after} are");

    let filler = fill(&disk, 100 << 10);
    let (code, text) = stage.fails(&["wal", "push", &other]);
    assert_eq!(code, NO_SPACE, "{text}");
    let left = stage::attack::files_below(&repository);
    assert_eq!(left.keys().collect::<Vec<_>>(), stored.keys().collect::<Vec<_>>(), "a part of a segment");
    std::fs::remove_file(filler).expect("make room");
    stage.ok(&["wal", "push", &other]);
    let fetched = stage.scratch.path().join("fetched");
    stage.ok(&["wal", "get", &ready[1], &fetched.display().to_string()]);
    assert!(std::fs::read(fetched).expect("read") == std::fs::read(other).expect("read"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_onto_a_full_disk_fails_cleanly_and_resumes_with_room() {
    let Some(disk) = SmallDisk::or_skip(160 << 20) else { return };
    let plan = Plan { store: StoreKind::Directory, wal_segment_mib: 16, ..small(Seal::KeyFile) };
    let Some(stage) = Stage::start(18, plan).await else { return };
    load(&stage.cluster).await;
    let expected = sum(&stage.cluster).await;
    back_up(&stage);
    stage.archive_now().await;
    let filler = fill(&disk, 20 << 20);
    let target = disk.path().join("restored");
    let path = target.display().to_string();
    for _ in 0..2 {
        let (code, text) = stage.fails(&["restore", "--pgdata", &path]);
        assert_eq!(code, NO_SPACE, "{text}");
        assert!(text.contains("make room"), "{text}");
        assert!(!target.join("global/pg_control").exists());
    }
    std::fs::remove_file(filler).expect("make room");
    let report = stage.json(&["restore", "--pgdata", &path]);
    assert_eq!(report["target_state"].as_str(), Some("resumed"), "{report}");
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(sum(&restored).await, expected);
}

/// Without room for marks, a push is still correct: what it reports as stored is stored, and no mark exists for
/// anything else.
#[tokio::test(flavor = "multi_thread")]
async fn a_spool_on_a_full_disk_makes_no_false_success() {
    let Some(disk) = SmallDisk::or_skip(4 << 20) else { return };
    let Some(stage) = Stage::start(18, unarchived(StoreKind::S3, Seal::KeyFile)).await else { return };
    let spool = disk.path().join("spool");
    let text = stage
        .config_text()
        .replace(&stage.scratch.path().join("spool").display().to_string(), &spool.display().to_string());
    stage.write_config("holdfast.toml", &text);
    fill_segments(&stage.cluster, 8).await;
    let filler = fill(&disk, 0);
    let ready = segments(stage.cluster.data(), "ready");
    for segment in ready.iter().take(4) {
        let path = segment_path(stage.cluster.data(), segment).display().to_string();
        let output = stage.run(&["wal", "push", &path]);
        let (code, text) = (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr));
        assert_eq!(code, 0, "a push works without its spool: {text}");
        assert!(wal_object(&stage, segment).is_some(), "{segment} was acknowledged and is not stored: {text}");
    }
    // Fetching works too, and delivers the right bytes, also of segments that it would otherwise have kept in the
    // spool.
    for segment in ready.iter().take(4) {
        let fetched = stage.scratch.path().join(format!("fetched-{segment}"));
        stage.ok(&["wal", "get", segment, &fetched.display().to_string()]);
        let original = std::fs::read(segment_path(stage.cluster.data(), segment)).expect("read the segment");
        assert!(std::fs::read(fetched).expect("read what was fetched") == original, "{segment}");
    }
    // Every mark belongs to a stored segment.
    std::fs::remove_file(filler).expect("make room");
    let path = segment_path(stage.cluster.data(), &ready[4]).display().to_string();
    stage.ok(&["wal", "push", &path]);
    let marks: Vec<String> = stage::attack::files_below(&spool).into_keys().collect();
    for mark in marks.iter().filter_map(|name| name.rsplit('/').next()?.strip_suffix(".durable")) {
        assert!(wal_object(&stage, mark).is_some(), "{mark} is marked and not stored: {marks:?}");
    }
}

/// The files below a folder as they are on the device, not in the page cache.
fn on_device(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for path in stage::attack::files_below(folder).into_keys() {
        let file = File::open(folder.join(&path)).expect("open a file");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("drop it from the cache");
        let mut bytes = Vec::new();
        (&file).read_to_end(&mut bytes).expect("read it from the device");
        found.insert(path.into(), bytes);
    }
    found
}

/// All writes succeed, but the kernel loses them, and only the `syncfs` at the end gets an error. Afterwards the page
/// cache still has data that the disk does not have, and a resumed restore must not trust it.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_onto_a_device_that_loses_writes_is_not_done() {
    let Some(disk) = LosingDisk::or_skip(256 << 20, 12 << 20) else { return };
    let Some(stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    load(&stage.cluster).await;
    let expected = sum(&stage.cluster).await;
    back_up(&stage);
    stage.archive_now().await;
    let target = disk.path().join("restored");
    let path = target.display().to_string();
    let output = stage.run(&["restore", "--pgdata", &path]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(UNWRITABLE), "{text}");
    assert!(
        output.stdout.is_empty(),
        "it reports that something was restored: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    for part in [format!("error: cannot sync the file system of {path}"), "while: ".to_owned(), "hint:  ".to_owned()] {
        assert!(text.contains(&part), "{part} in {text}");
    }
    assert!(!target.join("global/pg_control").exists() && target.join("holdfast.restore").exists());

    // With room on the device the same command finishes the restore, and the device has all of it.
    disk.keep(512 << 20).expect("give the device room");
    stage.ok(&["restore", "--pgdata", &path]);
    let sound = stage.target("sound");
    stage.ok(&["restore", "--pgdata", &sound.display().to_string()]);
    let (here, there) = (on_device(&target.join("base")), on_device(&sound.join("base")));
    assert!(there.len() > 100, "{} files", there.len());
    let differing: Vec<_> = there.iter().filter(|(name, bytes)| here.get(*name) != Some(bytes)).collect();
    assert!(differing.is_empty(), "{} files, {:?}", differing.len(), differing.first().map(|(name, _)| name));
    let mut restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(sum(&restored).await, expected);
    restored.stop(Shutdown::Fast).await.expect("stop the server before its disk is removed");
}
