//! Object Lock on moto, which refuses to delete the version of a locked object: what stays keeps its lock, what is
//! locked is not removed, and a bucket in which everything was overwritten and deleted still has every byte.
//!
//! Moto lets everybody shorten a lock, as S3 does not: that is how these tests let time pass.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SubsecRound as _, Utc};
use holdfast_repo::name::is_locked;
use holdfast_secret::Secret;
use holdfast_store::{Credentials, LockMode, LockTerm, ObjectLock, ObjectName, Store, StoreConfig};
use holdfast_testkit::s3::Moto;
use serde_json::Value;

use crate::stage::proof::text;
use crate::stage::{LOCKING_BUCKET, Plan, Seal, Stage, StoreKind, succeeded, wait_promoted};

const DAY: Duration = Duration::from_hours(24);

async fn stage() -> Option<Stage> {
    let plan = Plan { store: StoreKind::Locking, seal: Seal::KeyFile, wal_segment_mib: 1, ..Plan::default() };
    let stage = Stage::start(18, plan).await?;
    stage.cluster.sql("CREATE TABLE t (n int)").await.expect("make a table");
    Some(stage)
}

fn moto(stage: &Stage) -> &Moto {
    stage.moto.as_ref().expect("a stage on moto")
}

/// The repository, beside `holdfast`.
async fn store(stage: &Stage) -> Arc<dyn Store> {
    let mut config = StoreConfig::new(format!("s3://{LOCKING_BUCKET}/repository").parse().expect("a URL"));
    config.s3.endpoint = Some(moto(stage).endpoint());
    config.s3.region = Some("us-east-1".to_owned());
    config.s3.path_style = true;
    let credentials = moto(stage).credentials();
    config.s3.credentials = Credentials::Static {
        access_key: Secret::new(credentials.access_key),
        secret_key: Secret::new(credentials.secret_key),
        session_token: None,
    };
    let term = LockTerm { mode: LockMode::Governance, days: 30 };
    config.s3.lock = Some(ObjectLock { term, covers: is_locked });
    holdfast_store::open(&config).await.expect("open the store")
}

async fn back_up(stage: &Stage) -> String {
    stage.cluster.sql("INSERT INTO t SELECT generate_series(1, 1000)").await.expect("insert rows");
    let id = text(&stage.json(&["backup", "--type", "full"]), "backup_id").to_owned();
    stage.archive_now().await;
    id
}

fn keeping_one(stage: &Stage) -> PathBuf {
    let retention = "\n[retention]\nkeep = { last = 1 }\ngrace = \"0\"\n";
    stage.write_config("keeping-one.toml", &(stage.config_text() + retention))
}

fn json(stage: &Stage, config: &std::path::Path, arguments: &[&str]) -> Value {
    let mut all = vec!["--output", "json"];
    all.extend_from_slice(arguments);
    let output = stage.command_with(config, &all).output().expect("run holdfast");
    let report: Value = serde_json::from_str(&succeeded(&output, &all)).expect("a JSON report");
    report["repositories"][0].clone()
}

/// Every object that the repository shows, with the days that are left of its lock.
async fn days_left(store: &dyn Store) -> BTreeMap<String, Option<i64>> {
    let mut left = BTreeMap::new();
    for object in store.list("", None).await.expect("list") {
        let end = store.locked_until(&object.name).await.expect("ask for a lock");
        let days = end.map(|end| (DateTime::<Utc>::from(end) - Utc::now()).num_hours() / 24);
        left.insert(object.name.to_string(), days);
    }
    left
}

/// Makes the locks of some objects end after this time, or before now.
async fn let_time_pass(store: &dyn Store, names: impl Iterator<Item = &String>, end: SystemTime) {
    for name in names {
        store.lock_until(&name.parse().expect("a name"), end).await.expect("set a lock back");
    }
}

async fn restores(stage: &Stage, config: &std::path::Path, name: &str, rows: usize) {
    let target = stage.target(name);
    let path = target.display().to_string();
    let arguments = ["restore", "--pgdata", &path];
    succeeded(&stage.command_with(config, &arguments).output().expect("restore"), &arguments);
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT count(*) FROM t").await.expect("count"), rows.to_string(), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_keeps_its_lock_and_what_is_locked_stays() {
    let Some(stage) = stage().await else { return };
    let info = stage.ok(&["repo", "info"]);
    assert!(
        info.contains(
            "object lock         governance, 30 days: the store refused to delete a locked object; objects uploaded \
             in parts are locked after their upload"
        ),
        "{info}"
    );
    let (old, new) = (back_up(&stage).await, back_up(&stage).await);
    let store = store(&stage).await;
    let names = days_left(&*store).await;
    assert!(names.keys().any(|name| name.contains("/packs/")) && names.keys().any(|name| name.contains("/wal/")));
    for (name, left) in &names {
        let expected = is_locked(name).then_some(29);
        assert_eq!(*left, expected, "{name}");
    }
    let checked = stage.json(&["check"]);
    let lock = checked["findings"].as_array().expect("findings").iter().find(|one| one["subject"] == "object lock");
    assert_eq!(lock.expect("a finding")["verdict"], "ok", "{checked}");

    // Nothing of the old backup can be removed now.
    let config = keeping_one(&stage);
    let planned = json(&stage, &config, &["expire", "--plan"]);
    assert_eq!(planned["locks"]["waiting"]["backups"], serde_json::json!([old]), "{planned}");
    assert_eq!(planned["locks"]["due"], 0, "{planned}");
    let shown = stage.command_with(&config, &["expire", "--plan"]).output().expect("plan");
    let shown = succeeded(&shown, &["expire", "--plan"]);
    assert!(shown.contains("; locked until ") && shown.contains("still locked, and left to a later run: 1 backups"));
    let first = json(&stage, &config, &["expire"]);
    assert_eq!(first["removed"]["packs"], 0, "{first}");
    assert_eq!(first["removed"]["wal_files"], 0, "{first}");
    assert!(first["backups"][0]["locked_until"].is_string() && first["backups"][1]["locked_until"].is_null());
    let shown: Vec<_> = days_left(&*store).await.into_keys().filter(|name| is_locked(name)).collect();
    assert!(names.keys().filter(|name| is_locked(name)).all(|name| shown.contains(name)), "all of it is still shown");

    // Later, what stays gets a whole term from now, and what goes does not.
    let of_old = |name: &&String| name.contains(&old);
    let locked: Vec<String> = shown.clone();
    let_time_pass(&*store, locked.iter(), SystemTime::now() + 5 * DAY).await;
    let second = json(&stage, &config, &["expire"]);
    assert!(second["locks"]["extended"].as_u64() > Some(0), "{second}");
    assert_eq!(second["locks"]["waiting"]["backups"], serde_json::json!([old]), "{second}");
    let left = days_left(&*store).await;
    for name in ["holdfast.json", "keys/default.json", "main/claims/1.json"] {
        assert_eq!(left[name], Some(29), "{name}");
    }
    assert!(left.iter().filter(|(name, _)| name.contains(&new) && is_locked(name)).all(|(_, left)| *left == Some(29)));
    assert!(left.iter().filter(|(name, _)| of_old(name) && is_locked(name)).all(|(_, left)| *left == Some(4)));

    // Without any lock left it goes, and only it.
    let going: Vec<String> = left.iter().filter(|(_, left)| **left == Some(4)).map(|(name, _)| name.clone()).collect();
    let_time_pass(&*store, going.iter(), SystemTime::now() - DAY).await;
    let third = json(&stage, &config, &["expire"]);
    assert_eq!(third["removed"]["backups"], serde_json::json!([old]), "{third}");
    assert_eq!(third["locks"]["waiting"]["packs"], 0, "{third}");
    let shown = days_left(&*store).await;
    assert!(going.iter().all(|name| !shown.contains_key(name)), "{shown:?}");
    restores(&stage, &stage.config, "kept", 2000).await;

    // A host whose configuration says nothing about locks obeys the record of the repository.
    let plain: String =
        stage.config_text().lines().filter(|line| !line.starts_with("lock = ")).flat_map(|line| [line, "\n"]).collect();
    assert_ne!(plain, stage.config_text());
    let plain = stage.write_config("plain.toml", &plain);
    let report = json(&stage, &plain, &["backup", "--type", "full"]);
    let third = text(&report, "backup_id").to_owned();
    let left = days_left(&*store).await;
    assert_eq!(left[&format!("main/backups/{third}/backup.json")], Some(29));
    let packs = left.iter().filter(|(name, _)| name.starts_with(&format!("main/packs/{third}/")));
    let packs: Vec<_> = packs.map(|(_, left)| *left).collect();
    assert!(!packs.is_empty() && packs.iter().all(|left| *left == Some(29)), "{packs:?}");
}

/// A version of an object, or a marker that hides it.
#[derive(Debug)]
struct Version {
    name: String,
    id: String,
    written: DateTime<Utc>,
    is_marker: bool,
}

fn versions(moto: &Moto, bucket: &str) -> Vec<Version> {
    let listed = moto.request("GET", &format!("/{bucket}?versions&max-keys=100000"), &[], b"").expect("list versions");
    let listed = String::from_utf8(listed).expect("XML");
    assert!(listed.contains("<IsTruncated>false</IsTruncated>"), "{listed}");
    let element = |part: &str, tag: &str| {
        let (_, rest) = part.split_once(&format!("<{tag}>")).expect("an element");
        rest.split_once('<').expect("its end").0.to_owned()
    };
    let of = |tag: &str, is_marker: bool| {
        let tag = format!("<{tag}>");
        let parts = listed.split(&tag).skip(1).map(|part| Version {
            name: element(part, "Key"),
            id: element(part, "VersionId"),
            written: element(part, "LastModified").parse().expect("a time"),
            is_marker,
        });
        parts.collect::<Vec<_>>()
    };
    of("Version", false).into_iter().chain(of("DeleteMarker", true)).collect()
}

/// Somebody has the store's credentials of the host, and overwrites and deletes everything. Its owner copies the
/// versions from before that into another bucket, and restores.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_attacker_overwrites_and_deletes_is_restored_from_old_versions() {
    let Some(stage) = stage().await else { return };
    back_up(&stage).await;
    stage.cluster.sql("INSERT INTO t SELECT generate_series(1, 234)").await.expect("insert rows");
    stage.archive_now().await;
    let moto = moto(&stage);
    tokio::time::sleep(Duration::from_secs(2)).await;
    // The store lists times in whole seconds.
    let attacked = Utc::now().trunc_subsecs(0);

    let before = versions(moto, LOCKING_BUCKET);
    let mut refused = 0;
    for version in before.iter().filter(|version| !version.is_marker) {
        let target = format!("/{LOCKING_BUCKET}/{}", version.name);
        let inside = version.name.strip_prefix("repository/").expect("an object of the repository");
        let deleted = moto.request("DELETE", &format!("{target}?versionId={}", version.id), &[], b"");
        assert_eq!(deleted.is_err(), is_locked(inside) || inside.contains("lock-"), "{}", version.name);
        refused += u32::from(deleted.is_err());
        moto.request("PUT", &target, &[], b"pay us").expect("overwrite");
        moto.request("DELETE", &target, &[], b"").expect("delete");
    }
    assert!(refused > 10, "{refused}");
    let (code, said) = stage.fails(&["restore", "--pgdata", &stage.target("gone").display().to_string()]);
    assert!(code != 0 && said.contains("there is no Holdfast repository"), "{code}: {said}");

    moto.create_bucket("holdfast-rescued").expect("make a bucket");
    let mut newest: BTreeMap<String, Version> = BTreeMap::new();
    for version in versions(moto, LOCKING_BUCKET) {
        let is_newer = newest.get(&version.name).is_none_or(|known| known.written < version.written);
        if version.written < attacked && is_newer {
            newest.insert(version.name.clone(), version);
        }
    }
    for (name, version) in newest.iter().filter(|(_, version)| !version.is_marker) {
        let target = format!("/{LOCKING_BUCKET}/{name}?versionId={}", version.id);
        let body = moto.request("GET", &target, &[], b"").expect("read an old version");
        moto.request("PUT", &format!("/holdfast-rescued/{name}"), &[], &body).expect("copy it");
    }
    let text = stage.config_text().replace(LOCKING_BUCKET, "holdfast-rescued");
    let lines = text.lines().filter(|line| !line.starts_with("lock = "));
    let rescued: String = lines.flat_map(|line| [line, "\n"]).collect();
    // The record asks for locks, which this bucket cannot give; a restore takes a lease, which gets none.
    let rescued = stage.write_config("rescued.toml", &rescued);
    restores(&stage, &rescued, "rescued", 1234).await;
}

/// Names of the store's errors reach the user, and nothing is made.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_cannot_lock_is_refused() {
    let Some(stage) = stage().await else { return };
    let wrong = stage.config_text().replace(LOCKING_BUCKET, "holdfast");
    let wrong = stage.write_config("wrong.toml", &wrong);
    let output = stage.command_with(&wrong, &["repo", "init"]).output().expect("run holdfast");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(25), "{said}");
    assert!(
        said.contains("`lock` is configured, and the store refuses a write with a lock")
            && said.contains("use a bucket that was created with Object Lock"),
        "{said}"
    );
    let left = moto(&stage).request("GET", "/holdfast?list-type=2", &[], b"").expect("list");
    let left = String::from_utf8_lossy(&left).into_owned();
    assert!(!left.contains("holdfast.json") && !left.contains("keys/"), "{left}");
    let name: ObjectName = "holdfast.json".parse().expect("a name");
    assert!(store(&stage).await.head(&name).await.is_ok(), "the right bucket is as it was");
}
