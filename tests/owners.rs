//! Who can read and who can use what Holdfast creates: with any umask, and also if root runs a command.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};

use crate::snapshots::{hot, run_with_input};
use crate::stage::attack::{fill_segments, segment_path, segments};
use crate::stage::{Plan, Seal, Stage, StoreKind, succeeded, wait_promoted};
use holdfast_testkit::user::{is_root, run_as_postgres};

/// Runs `holdfast` as PostgreSQL's user under a umask.
fn under_umask(stage: &Stage, umask: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("/bin/sh");
    let script = format!("umask {umask}; exec \"$0\" --config \"$@\"");
    command.arg("-c").arg(script).arg(&stage.holdfast).arg(&stage.config).args(arguments);
    run_as_postgres(&mut command).expect("drop to PostgreSQL's user");
    command.output().expect("run holdfast")
}

/// A folder and everything below it must be closed to group and others.
fn all_closed(root: &Path, umask: &str) {
    let mut waiting = vec![root.to_path_buf()];
    let mut count = 0;
    while let Some(path) = waiting.pop() {
        let metadata = std::fs::symlink_metadata(&path).expect("look at a file");
        if metadata.is_symlink() {
            continue;
        }
        let mode = metadata.permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o} under umask {umask}", path.display());
        count += 1;
        if metadata.is_dir() {
            waiting.extend(std::fs::read_dir(&path).expect("list").flatten().map(|entry| entry.path()));
        }
    }
    assert!(count > 2, "nothing was made in {}", root.display());
}

/// Marks, segments that were fetched ahead, fetched files, the objects of a directory, and restored files.
#[tokio::test(flavor = "multi_thread")]
async fn plain_wal_is_closed_to_others_whatever_the_umask() {
    let settings = vec![("wal_keep_size", "256MB".to_owned())];
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, settings, ..Plan::default() };
    let Some(mut stage) = Stage::start(18, plan).await else { return };
    fill_segments(&stage.cluster, 4).await;
    stage.archive_now().await;
    let archived = segments(stage.cluster.data(), "done");
    assert!(archived.len() >= 4, "{archived:?}");
    let text = stage.config_text();
    for umask in ["000", "022"] {
        // Segments that wait next to each other, as in `pg_wal`.
        let waiting = stage.scratch.folder(&format!("waiting-{umask}")).expect("make a folder");
        let status = stage.scratch.folder(&format!("waiting-{umask}/archive_status")).expect("make a folder");
        for name in &archived {
            let copy = waiting.join(name);
            std::fs::copy(segment_path(stage.cluster.data(), name), &copy).expect("copy a segment");
            stage.scratch.user().own(&copy).expect("give a segment away");
            std::fs::write(status.join(format!("{name}.ready")), "").expect("write a status");
        }
        let spool = stage.scratch.path().join(format!("own-spool-{umask}"));
        let repository = stage.scratch.path().join(format!("own-repository-{umask}"));
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).expect("a line").to_owned();
        let own = text
            .replace(&line("spool = "), &format!("spool = \"{}\"", spool.display()))
            .replace(&line("url = "), &format!("url = \"file://{}\"", repository.display()));
        stage.config = stage.write_config(&format!("own-{umask}.toml"), &own);
        let ok = |arguments: &[&str]| succeeded(&under_umask(&stage, umask, arguments), arguments);
        ok(&["repo", "init"]);
        ok(&["backup"]);
        ok(&["wal", "push", &waiting.join(&archived[0]).display().to_string()]);
        all_closed(&spool, umask);
        let fetched = stage.scratch.folder(&format!("fetched-{umask}")).expect("make a folder").join("segment");
        ok(&["wal", "get", &archived[0], &fetched.display().to_string()]);
        let mode = std::fs::metadata(&fetched).expect("look at the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o} under umask {umask}");
        all_closed(&spool, umask);
        all_closed(&repository, umask);
        let target = stage.target(&format!("restored-{umask}"));
        ok(&["restore", "--pgdata", &target.display().to_string()]);
        all_closed(&target, umask);
        // As recovery does: a segment that was fetched ahead is delivered without a repository.
        let place = target.join("pg_wal/RECOVERYXLOG").display().to_string();
        ok(&["wal", "get", &archived[0], &place]);
        let away = repository.with_extension("away");
        std::fs::rename(&repository, &away).expect("move the repository away");
        ok(&["wal", "get", &archived[1], &place]);
        let handed_over = std::fs::read(&place).expect("read the segment");
        assert!(handed_over == std::fs::read(waiting.join(&archived[1])).expect("read the segment"));
        std::fs::rename(&away, &repository).expect("move the repository back");
        all_closed(&target, umask);
    }
}

/// Every verb once as root, those that create something first. PostgreSQL's own archiver still works afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn commands_typed_as_root_do_not_stop_the_archive() {
    if !is_root() {
        eprintln!("skipped: only root can type a command as root");
        return;
    }
    let plan = Plan { store: StoreKind::Directory, wal_segment_mib: 1, ..Plan::default() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    let user = stage.cluster.data().metadata().expect("look at the data directory").uid();
    let (repository, spool) = (stage.scratch.path().join("by-root/repository"), stage.scratch.path().join("spool"));
    let text = stage.config_text();
    let url = text.lines().find(|line| line.starts_with("url = ")).expect("a url");
    let connection = format!("[cluster]\nconnection = \"{}\"", stage.cluster.connection_string("postgres"));
    let text =
        text.replace(url, &format!("url = \"file://{}\"", repository.display())).replace("[cluster]", &connection);
    stage.write_config("holdfast.toml", &format!("{text}\n[retention]\nwindow = \"30d\"\n"));
    let as_root = |arguments: &[&str]| {
        let mut command = Command::new(&stage.holdfast);
        command.arg("--config").arg(&stage.config).args(arguments).current_dir("/");
        command.output().expect("run holdfast as root")
    };
    let owned = |folder: &Path, when: &str| {
        let mut waiting = vec![folder.to_owned()];
        while let Some(path) = waiting.pop() {
            let metadata = std::fs::symlink_metadata(&path).expect("look at a file");
            assert_eq!(metadata.uid(), user, "{} after {when}", path.display());
            if metadata.is_dir() {
                waiting.extend(std::fs::read_dir(&path).expect("list").flatten().map(|entry| entry.path()));
            }
        }
    };
    let all_owned = |when: &str| {
        owned(&stage.scratch.path().join("by-root"), when);
        owned(&spool, when);
    };
    succeeded(&as_root(&["repo", "init"]), &["repo", "init"]);
    all_owned("repo init");
    let segment = stage.cluster.value("SELECT pg_walfile_name(pg_switch_wal())").await.expect("switch");
    let path = stage.cluster.data().join("pg_wal").join(&segment).display().to_string();
    let target = stage.scratch.folder("root-target").expect("make a folder").join("segment").display().to_string();
    for arguments in [
        ["wal", "push", path.as_str()].as_slice(),
        &["backup"],
        &["check"],
        &["info"],
        &["list"],
        &["repo", "info"],
        &["wal", "list"],
        &["wal", "get", segment.as_str(), target.as_str()],
    ] {
        succeeded(&as_root(arguments), arguments);
        all_owned(&arguments.join(" "));
    }
    assert_eq!(std::fs::metadata(&target).expect("look at the file").uid(), user);
    let listed = as_root(&["--output", "json", "list"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let backup =
        listed.pointer("/repositories/0/backups/0/backup_id").and_then(|id| id.as_str()).expect("a backup").to_owned();
    for arguments in [
        ["backup", "hold", backup.as_str(), "--reason", "a drill"].as_slice(),
        &["verify"],
        &["wal", "find", "--before-drop", "nothing"],
        &["expire"],
        &["backup", "release", backup.as_str()],
    ] {
        let output = as_root(arguments);
        // That nothing was dropped is not a success.
        if arguments[0] != "wal" {
            succeeded(&output, arguments);
        }
        all_owned(&arguments.join(" "));
    }

    // A claim makes the repository that it needs.
    let claimed = stage.config_text().replace("by-root/repository", "by-root/claimed");
    let config = stage.write_config("claimed.toml", &claimed);
    let mut command = Command::new(&stage.holdfast);
    command.arg("--config").arg(config).args(["repo", "claim", "--owner", "somebody"]).current_dir("/");
    succeeded(&command.output().expect("run holdfast as root"), &["repo", "claim"]);
    assert!(stage.scratch.path().join("by-root/claimed/holdfast.json").exists());
    all_owned("repo claim");

    // As PostgreSQL's user everything continues, and can be restored.
    stage.cluster.sql("CREATE TABLE said AS SELECT 7 AS n").await.expect("write");
    stage.archive_now().await;
    stage.ok(&["check"]);
    stage.ok(&["backup"]);
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT n FROM said").await.expect("ask"), "7");

    // A record of snapshots, and a recovery in a copy of them: the copy is for PostgreSQL's user.
    let copy = stage.target("copy");
    let request = hot(&stage, "nightly", std::slice::from_ref(&copy)).await;
    let mut command = Command::new(&stage.holdfast);
    command.arg("--config").arg(&stage.config).args(["--output", "json", "snapshot", "record"]).current_dir("/");
    let (code, recorded, said) = run_with_input(command, &request);
    assert_eq!(code, 0, "{said}");
    all_owned("snapshot record");
    let recorded: serde_json::Value = serde_json::from_str(&recorded).expect("JSON");
    let id = recorded["snapshot_id"].as_str().expect("an id");
    stage.cluster.sql("UPDATE said SET n = 8").await.expect("write");
    stage.archive_now().await;
    let (replaced, into) = (copy.join("pg_stat_tmp"), copy.display().to_string());
    std::fs::remove_dir_all(&replaced).expect("remove a directory");
    std::os::unix::fs::symlink("/nowhere", &replaced).expect("make a link");
    let arguments = ["restore", "--snapshot", id, "--pgdata", &into];
    succeeded(&as_root(&arguments), &arguments);
    all_owned("restore --snapshot");
    owned(&copy, "restore --snapshot");
    let restored = stage.start_restored(&copy).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT n FROM said").await.expect("ask"), "8");
    drop(restored);

    // What root restores belongs to root, PostgreSQL refuses it, and the command says so.
    let (target, arguments) = (stage.target("of-root-restored"), ["restore", "--pgdata"]);
    let output = as_root(&[&arguments[..], &[&target.display().to_string()]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains(" belongs to root now") && said.contains("chown -R postgres: "), "{said}");
    assert_eq!(std::fs::metadata(target.join("global/pg_control")).expect("look at a file").uid(), 0);
    all_owned("restore");

    // A directory of root is refused as a repository while it is still empty.
    let roots = stage.scratch.path().join("of-root");
    std::fs::create_dir(&roots).expect("make a folder");
    let text = stage.config_text().replace(&repository.display().to_string(), &roots.display().to_string());
    let config = stage.write_config("roots.toml", &text);
    let output = Command::new(&stage.holdfast).arg("--config").arg(config).args(["repo", "init"]).output();
    let output = output.expect("run holdfast as root");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(10), "{said}");
    assert!(said.contains("belongs to the user with id 0"), "{said}");
    assert_eq!(std::fs::read_dir(&roots).expect("list").count(), 0);
}
