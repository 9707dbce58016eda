//! `key add`, `rotate`, `remove` and `list`: secrets change while a server archives. Every backup and segment restores,
//! from before and after a rotation, with each secret that should open it and with no other.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use holdfast_testkit::postgres::Cluster;
use holdfast_testkit::random::Random;
use holdfast_testkit::settings;
use holdfast_testkit::user::run_as_postgres;
use serde_json::Value;

use crate::stage::held::SlowStore;
use crate::stage::proof::text;
use crate::stage::{Plan, Seal, Stage, StoreKind, succeeded, wait_promoted};

const NEW: &str = "another horse battery staple";

/// Offset of the key epoch in an object: the last bytes of the head frame.
const EPOCH_AT: usize = 88;

async fn stage(store: StoreKind, seal: Seal) -> Option<Stage> {
    let stage = Stage::start(18, Plan { store, seal, wal_segment_mib: 1, ..Plan::default() }).await?;
    stage.scratch.write_secret("new", format!("{NEW}\n")).expect("write a passphrase");
    stage.scratch.write_secret("vault", "5c".repeat(32)).expect("write a key file");
    stage.cluster.sql("CREATE TABLE t (n int)").await.expect("make a table");
    Some(stage)
}

/// Adds rows with one more statement, and archives their WAL.
async fn rows(stage: &Stage) -> usize {
    stage.cluster.sql("INSERT INTO t SELECT generate_series(1, 1000)").await.expect("insert rows");
    stage.archive_now().await;
    stage.cluster.value("SELECT count(*) FROM t").await.expect("count").parse().expect("a number")
}

fn file(stage: &Stage, name: &str) -> String {
    stage.scratch.path().join(name).display().to_string()
}

/// The stage's configuration with another secret.
fn with_secret(stage: &Stage, name: &str, secret: &str) -> PathBuf {
    let text = stage.config_text();
    let lines = text.lines().map(|line| {
        if line.starts_with("encryption = ") { format!("encryption = {{ {secret} }}\n") } else { format!("{line}\n") }
    });
    let text: String = lines.collect();
    stage.write_config(name, &text)
}

fn run(stage: &Stage, config: &Path, arguments: &[&str]) -> Output {
    stage.command_with(config, arguments).output().expect("run holdfast")
}

fn json(stage: &Stage, config: &Path, arguments: &[&str]) -> Value {
    let mut all = vec!["--output", "json"];
    all.extend_from_slice(arguments);
    serde_json::from_str(&succeeded(&run(stage, config, &all), &all)).expect("a JSON report")
}

fn refused(stage: &Stage, config: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(stage, config, arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The slots with their epochs, and which one opened the repository.
fn slots(stage: &Stage, config: &Path) -> Vec<(String, u64, bool)> {
    let report = json(stage, config, &["key", "list"]);
    let listed = report["repositories"][0]["slots"].as_array().expect("slots").iter().map(|slot| {
        let name = slot["slot"].as_str().expect("a name").to_owned();
        (name, slot["epoch"].as_u64().expect("an epoch"), slot["opened"] == true)
    });
    listed.collect()
}

/// A restore from this backup, or from the newest one, has these rows.
async fn restores(stage: &Stage, config: &Path, name: &str, backup: Option<&str>, expected: usize) {
    let target = stage.target(name);
    let path = target.display().to_string();
    let mut arguments = vec!["restore", "--pgdata", &path];
    if let Some(backup) = backup {
        arguments.extend(["--backup", backup]);
    }
    succeeded(&run(stage, config, &arguments), &arguments);
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT count(*) FROM t").await.expect("count"), expected.to_string(), "{name}");
}

/// The key epochs of all sealed objects below a folder of the repository.
fn epochs(folder: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(epochs(&entry.path()));
        } else {
            let object = std::fs::read(entry.path()).expect("read an object");
            let epoch = object.get(EPOCH_AT..EPOCH_AT + 4).expect("an object with a head");
            found.push(u32::from_le_bytes(epoch.try_into().expect("four bytes")));
        }
    }
    found.sort_unstable();
    found
}

/// The whole story: add, roll out, rotate, remove; with an incremental backup over the rotation.
async fn secrets_change(store: StoreKind, seal: Seal) {
    let Some(stage) = stage(store, seal).await else { return };
    rows(&stage).await;
    let full = text(&stage.json(&["backup", "--type", "full"]), "backup_id").to_owned();
    rows(&stage).await;
    let old = with_secret(&stage, "old.toml", stage_secret(&stage, seal).as_str());
    let new =
        with_secret(&stage, "new.toml", &format!("passphrase_file = \"{}\", slot = \"office\"", file(&stage, "new")));
    let vault = with_secret(&stage, "vault.toml", &format!("key_file = \"{}\"", file(&stage, "vault")));
    let before =
        std::fs::read(stage.repository_folder().join("keys/default.json")).expect("keep a copy of the old slot");

    let (code, error) = refused(&stage, &new, &["list"]);
    assert_eq!(code, Some(11), "{error}");
    for (name, kind, path) in [("office", "--new-passphrase-file", "new"), ("vault", "--new-key-file", "vault")] {
        let said = stage.ok(&["key", "add", name, kind, &file(&stage, path)]);
        assert!(said.contains(&format!("key slot {name} is added")), "{said}");
    }
    let named = |name: &str, epoch, opened| (name.to_owned(), epoch, opened);
    assert_eq!(slots(&stage, &new), [named("default", 0, false), named("office", 0, true), named("vault", 0, false)]);
    // The new secret is rolled out before the old one is removed: archiving does not stop.
    std::fs::copy(&new, &stage.config).expect("change the configuration of the server");
    rows(&stage).await;
    let (code, error) = refused(&stage, &new, &["key", "rotate", "--key-file", &file(&stage, "vault")]);
    assert!(code == Some(2) && error.contains("no given secret opens key slot default"), "{code:?}: {error}");
    let done = json(&stage, &new, &["key", "rotate", "--key-file", &file(&stage, "vault"), "--drop", "default"]);
    assert_eq!((done["epoch"].as_u64(), done["opens"].as_str()), (Some(1), Some("epoch-1")), "{done}");
    assert_eq!(slots(&stage, &vault), [named("epoch-1", 1, false), named("vault.1", 1, true)]);
    let (code, error) = refused(&stage, &old, &["list"]);
    assert!(code == Some(11) && error.contains("if the keys were rotated"), "{code:?}: {error}");

    rows(&stage).await;
    let incremental = text(&stage.json(&["backup", "--type", "incremental"]), "backup_id").to_owned();
    let expected = rows(&stage).await;
    let main = stage.repository_folder().join("main");
    let wal = epochs(&main.join("wal"));
    assert!(wal.starts_with(&[0]) && wal.ends_with(&[1]), "{wal:?}");
    assert!(epochs(&main.join("packs").join(&full)).iter().all(|epoch| *epoch == 0));
    assert!(epochs(&main.join("packs").join(&incremental)).iter().all(|epoch| *epoch == 1));

    for (name, config) in [("new", &new), ("vault", &vault)] {
        restores(&stage, config, &format!("{name}-full"), Some(&full), expected).await;
        restores(&stage, config, &format!("{name}-incremental"), Some(&incremental), expected).await;
    }
    let verified = json(&stage, &vault, &["verify", "--deep"]);
    assert_eq!(verified["repositories"][0]["damage"].as_array().map(Vec::len), Some(0), "{verified}");
    reader_restores(&stage, &["--passphrase-file", &file(&stage, "new")], "reader-new", expected).await;
    reader_restores(&stage, &["--key-file", &file(&stage, "vault")], "reader-vault", expected).await;

    // With a copy of the old slot one can still read what was written before, and nothing newer.
    let kept = stage.repository_folder().join("keys/default.json");
    std::fs::write(&kept, before).expect("put the old slot back");
    stage.scratch.user().own(&kept).expect("give it to PostgreSQL's user");
    let (code, error) =
        refused(&stage, &old, &["restore", "--pgdata", &file(&stage, "never"), "--backup", &incremental]);
    assert!(code != Some(0) && error.contains("key epoch 1"), "{code:?}: {error}");
    let shown = succeeded(&run(&stage, &old, &["key", "list"]), &["key", "list"]);
    assert!(shown.contains("the keys were rotated without the configured secret"), "{shown}");
    let checked = run(&stage, &old, &["check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(said.contains("the keys were rotated, and key slot epoch-1 is of epoch 1"), "{said}");
    assert!(said.contains("nothing is written: the keys of") && !checked.status.success(), "{said}");
    let (code, error) = refused(&stage, &old, &["backup", "--type", "full"]);
    assert!(code == Some(11) && error.contains("there is or was a key slot epoch-1"), "{code:?}: {error}");
    let (code, error) = refused(&stage, &old, &["key", "remove", "epoch-1"]);
    assert!(code == Some(11) && error.contains("since the rotation"), "{code:?}: {error}");

    succeeded(&run(&stage, &new, &["key", "remove", "default"]), &["key", "remove"]);
    let (code, error) = refused(&stage, &new, &["key", "remove", "epoch-1"]);
    assert!(code == Some(2) && error.contains("is the only one that the configured secret opens"), "{code:?}: {error}");
    let said = succeeded(&run(&stage, &new, &["key", "remove", "vault.1"]), &["key", "remove"]);
    assert!(said.contains("vault.1 is removed; epoch-1 was proved to open the repository"), "{said}");
    assert_eq!(slots(&stage, &new), [named("epoch-1", 1, true)]);
    let ledger = std::fs::read_dir(main.join("ledger")).expect("list the ledger");
    let changes = ledger.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with("-key.json")).count();
    assert_eq!(changes, 5, "two added, one rotation, two removed");
}

/// The secret with which the stage's repository was created.
fn stage_secret(stage: &Stage, seal: Seal) -> String {
    match seal {
        Seal::KeyFile => format!("key_file = \"{}\"", file(stage, "key")),
        Seal::Passphrase | Seal::None => format!("passphrase_file = \"{}\"", file(stage, "passphrase")),
    }
}

/// The independent reader restores the newest backup with this secret, and the WAL after it.
async fn reader_restores(stage: &Stage, secret: &[&str], name: &str, expected: usize) {
    let Some(python) = settings::get("HOLDFAST_PYTHON") else {
        settings::skip("there is no HOLDFAST_PYTHON; scripts/provision makes it");
        return;
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format/reader.py");
    let program = std::fs::read_to_string(source).expect("read the reader");
    let reader = stage.scratch.write("reader.py", program).expect("copy the reader");
    // A bucket is copied into a directory first.
    let copy = stage.scratch.path().join(format!("{name}-repository"));
    let status = Command::new("cp").arg("-R").arg(stage.repository_folder()).arg(&copy).status().expect("run cp");
    assert!(status.success(), "cannot copy the repository");
    stage.scratch.user().own_tree(&copy).expect("give the copy to PostgreSQL's user");
    let (target, wal) = (stage.target(name), stage.target(&format!("{name}-wal")));
    let read = |arguments: &[&std::ffi::OsStr]| {
        let mut command = Command::new(&python);
        command.arg(&reader).arg(&copy).args(arguments).args(secret);
        let output =
            run_as_postgres(&mut command).expect("drop to PostgreSQL's user").output().expect("run the reader");
        assert!(output.status.success(), "reader.py: {}", String::from_utf8_lossy(&output.stderr));
    };
    read(&["restore".as_ref(), "main".as_ref(), "--to".as_ref(), target.as_os_str()]);
    read(&["wal-all".as_ref(), "main".as_ref(), wal.as_os_str()]);
    let command = format!("restore_command = 'cp {}/%f \"%p\"'\n", wal.display());
    std::fs::write(target.join("postgresql.auto.conf"), command).expect("write the settings");
    std::fs::write(target.join("recovery.signal"), "").expect("ask for recovery");
    let mut restored = Cluster::adopt(&stage.installation, &target).expect("take over the restored folder");
    restored.override_setting("archive_mode", "off");
    restored.start().await.unwrap_or_else(|e| panic!("{e}\n{}", restored.log_text()));
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT count(*) FROM t").await.expect("count"), expected.to_string(), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_change_and_everything_restores_from_s3() {
    secrets_change(StoreKind::S3, Seal::Passphrase).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_change_and_everything_restores_from_a_directory() {
    secrets_change(StoreKind::Directory, Seal::KeyFile).await;
}

/// The owner of a private key is let in by the public key alone, also into a new epoch, and shut out again.
#[tokio::test(flavor = "multi_thread")]
async fn public_keys_let_their_owners_in() {
    let Some(stage) = stage(StoreKind::Directory, Seal::Passphrase).await else { return };
    rows(&stage).await;
    let full = text(&stage.json(&["backup", "--type", "full"]), "backup_id").to_owned();
    let pair = |name: &str| {
        let made = stage.json(&["key", "generate", &file(&stage, name)]);
        let public = made["recipient"].as_str().expect("a public key").to_owned();
        stage.scratch.write(&format!("{name}.pub"), format!("# {name}\n{public}\n")).expect("write a public key");
        (with_secret(&stage, &format!("{name}.toml"), &format!("key_file = \"{}\"", file(&stage, name))), public)
    };
    let ((safe, safe_public), (auditor, _), (stranger, _)) = (pair("safe"), pair("auditor"), pair("stranger"));
    let (code, error) = stage.fails(&["key", "generate", &file(&stage, "safe")]);
    assert!(code != 0 && error.contains("cannot write the private key"), "an existing key is not replaced: {error}");
    assert_eq!(refused(&stage, &safe, &["list"]).0, Some(11));

    let said = stage.ok(&["key", "add", "safe", "--recipient", &safe_public]);
    assert!(said.contains(&format!("key slot safe is added for {safe_public}, and was read back")), "{said}");
    stage.ok(&["key", "add", "auditor", "--recipient", &file(&stage, "auditor.pub")]);
    let (code, error) = stage.fails(&["key", "add", "safe", "--recipient", &safe_public]);
    assert!(code == 2 && error.contains("there is a key slot safe already"), "{error}");
    let private = std::fs::read_to_string(file(&stage, "safe")).expect("read a private key");
    let private = private.lines().last().expect("a line");
    for wrong in [private, "age1nothing"] {
        let (code, error) = stage.fails(&["key", "add", "wrong", "--recipient", wrong]);
        assert_eq!(code, 2, "{error}");
    }
    let (code, error) = refused(&stage, &stranger, &["list"]);
    assert!(code == Some(11) && error.contains("the private key does not open key slot"), "{error}");
    let expected = rows(&stage).await;
    restores(&stage, &safe, "by-the-safe", Some(&full), expected).await;
    let shown = stage.ok(&["key", "list"]);
    assert!(shown.contains("public key") && shown.contains(&safe_public), "{shown}");

    // The person who rotates needs the public keys, from a trusted place, and no private key.
    let (code, error) = stage.fails(&["key", "rotate", "--recipient", &safe_public]);
    assert!(code == 2 && error.contains("no given secret opens key slot auditor"), "{error}");
    let stays = ["key", "rotate", "--recipient", &safe_public, "--recipient", &file(&stage, "auditor.pub")];
    stage.ok(&stays);
    let incremental = text(&stage.json(&["backup", "--type", "incremental"]), "backup_id").to_owned();
    let expected = rows(&stage).await;
    restores(&stage, &safe, "by-the-safe-later", Some(&incremental), expected).await;
    restores(&stage, &auditor, "by-the-auditor", Some(&full), expected).await;
    reader_restores(&stage, &["--key-file", &file(&stage, "safe")], "reader-safe", expected).await;
    let of = |name: &str, epoch, opened| (name.to_owned(), epoch, opened);
    let all = [of("auditor.1", 1, false), of("epoch-1", 1, false), of("safe.1", 1, true)];
    assert_eq!(slots(&stage, &safe), all);

    // The auditor leaves.
    stage.ok(&["key", "rotate", "--recipient", &safe_public, "--drop", "auditor.1"]);
    let newest = text(&stage.json(&["backup", "--type", "full"]), "backup_id").to_owned();
    let expected = rows(&stage).await;
    assert_eq!(refused(&stage, &auditor, &["list"]).0, Some(11));
    // A private key does everything that a passphrase does: it rotates, removes, and never removes the last slot.
    std::fs::copy(&safe, &stage.config).expect("change the configuration of the server");
    succeeded(&run(&stage, &safe, &["key", "remove", "epoch-2"]), &["key", "remove"]);
    let (code, error) = refused(&stage, &safe, &["key", "remove", "safe.2"]);
    assert!(code == Some(2) && error.contains("is the only one that the configured secret opens"), "{error}");
    succeeded(&run(&stage, &safe, &["key", "rotate"]), &["key", "rotate"]);
    restores(&stage, &safe, "alone", Some(&newest), expected).await;

    // A repository of a private key only.
    let elsewhere = std::fs::read_to_string(&safe).expect("read").replace("/repository\"", "/elsewhere\"");
    let elsewhere = stage.write_config("elsewhere.toml", &elsewhere);
    succeeded(&run(&stage, &elsewhere, &["repo", "init"]), &["repo", "init"]);
    assert_eq!(slots(&stage, &elsewhere), [of("default", 0, true)]);
}

/// A backup that began before the rotation, and whose secret is removed while it copies, ends under its own epoch.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_outlives_the_secret_that_it_began_with() {
    let Some(stage) = stage(StoreKind::S3, Seal::Passphrase).await else { return };
    stage
        .cluster
        .sql("CREATE TABLE big AS SELECT repeat(md5(g::text), 30) FROM generate_series(1, 20000) g")
        .await
        .expect("rows");
    rows(&stage).await;
    let slow = SlowStore::of(&stage);
    let new = with_secret(&stage, "new.toml", &format!("passphrase_file = \"{}\"", file(&stage, "new")));
    stage.ok(&["key", "add", "office", "--new-passphrase-file", &file(&stage, "new")]);
    let backup = slow.hold(&stage, &["backup", "--type", "full"]).await;
    succeeded(&run(&stage, &new, &["key", "rotate", "--drop", "default"]), &["key", "rotate"]);
    std::fs::copy(&new, &stage.config).expect("change the configuration of the server");
    slow.let_go();
    let output = backup.wait_with_output().expect("wait for the backup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let packs = epochs(&stage.repository_folder().join("main/packs"));
    assert!(!packs.is_empty() && packs.iter().all(|epoch| *epoch == 0), "{packs:?}");
    let expected = rows(&stage).await;
    restores(&stage, &new, "after", None, expected).await;
}

/// Killed at any moment, a rotation leaves a repository that opens, archives and restores; the same command finishes
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rotation_leaves_everything_readable() {
    let Some(stage) = stage(StoreKind::Directory, Seal::KeyFile).await else { return };
    rows(&stage).await;
    let full = text(&stage.json(&["backup", "--type", "full"]), "backup_id").to_owned();
    stage.ok(&["key", "add", "vault", "--new-key-file", &file(&stage, "vault")]);
    stage.ok(&["key", "add", "office", "--new-passphrase-file", &file(&stage, "new")]);
    let vault = with_secret(&stage, "vault.toml", &format!("key_file = \"{}\"", file(&stage, "vault")));
    let rotate = ["key", "rotate", "--key-file", &file(&stage, "vault"), "--passphrase-file", &file(&stage, "new")];
    let mut random = Random::of_this_run();
    for _ in 0..12 {
        let mut child = stage.spawn(&rotate);
        tokio::time::sleep(Duration::from_micros(random.below(250_000))).await;
        // It may have ended before.
        let _ = child.kill();
        child.wait().expect("wait for the killed rotation");
        stage.ok(&["list"]);
        rows(&stage).await;
    }
    stage.ok(&rotate);
    let expected = rows(&stage).await;
    let left = slots(&stage, &vault);
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.iter().all(|(_, epoch, _)| *epoch == left[0].1 && *epoch > 0), "{left:?}");
    restores(&stage, &vault, "by-the-vault", Some(&full), expected).await;
    restores(&stage, &stage.config, "by-its-own", None, expected).await;
    let verified = json(&stage, &vault, &["verify", "--deep"]);
    assert_eq!(verified["repositories"][0]["damage"].as_array().map(Vec::len), Some(0), "{verified}");
}

/// The message when the command cannot do what was requested, without any secret in it.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_to_do_and_contain_no_secret() {
    let Some(stage) = Stage::start(18, Plan { store: StoreKind::Directory, archive: false, ..Plan::default() }).await
    else {
        return;
    };
    let open = stage.scratch.write("short", "hunter2\n").expect("write a passphrase");
    let url = format!("file://{}", stage.repository_folder().display());
    let output = stage.run(&["key", "add", "short", "--new-passphrase-file", &open.display().to_string()]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    assert!(error.contains("has 7 characters") && !error.contains("hunter2"), "{error}");
    let (code, error) = stage.fails(&["key", "remove", "default"]);
    assert_eq!(code, 2);
    assert_eq!(
        error,
        format!(
            "error: key slot default is the only one that the configured secret opens: configure another secret first, and add it \
             with `holdfast key add` if there is none\n\
             while: removing key slot default of {url}\n\
             hint:  change what the message names, then run this again\n"
        )
    );
    let (code, error) = stage.fails(&["key", "add", "none", "--new-key-file", &file(&stage, "nowhere")]);
    assert!(code == 10 && error.contains("cannot use the key file"), "{code}: {error}");
    let (code, error) = stage.fails(&["key", "list", "--repo", "2"]);
    assert_eq!(code, 2, "{error}");
    let (code, error) = stage.fails(&["key", "remove", "short", "--repo", "2"]);
    assert_eq!(
        (code, error.as_str()),
        (
            2,
            "error: there is no repository 2\n\
             while: removing a key slot\n\
             hint:  --repo counts from 1, and the configuration has 1\n"
        )
    );
}
