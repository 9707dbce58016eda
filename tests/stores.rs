//! Whole stories on stores that differ from S3: programs that people run, and one server with the faults of others.
//!
//! `archive_command`, backup, `restore_command`, restore, start, comparison of rows, and the messages about the store.

use std::path::Path;
use std::time::Duration;

use crate::stage::attack::{Victim, insert_lsn, load, sum};
use crate::stage::{Plan, Seal, Stage, StoreKind, succeeded, wait_promoted};
use holdfast_secret::Secret;
use holdfast_store::{Credentials, Location, Store, StoreConfig};
use holdfast_testkit::proxy::{Effect, Fault, ForwardProxy, HttpFaults, TlsFront, When};
use holdfast_testkit::rows::{Journal, Pace, RowWriter, Target, found};
use holdfast_testkit::s3::S3Server;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::Value;

fn plan(store: StoreKind) -> Plan {
    // More than one part if the data does not compress.
    Plan { store, seal: Seal::KeyFile, compression: "zstd:1", wal_compression: "none", ..Plan::default() }
}

/// Backs up while rows are written.
async fn written(stage: &Stage) -> (Journal, u64) {
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    writer.wait_for_rows(20).await.expect("write rows");
    stage.ok(&["backup"]);
    let committed = writer.journal().rows().len() as u64;
    writer.wait_for_rows(committed + 20).await.expect("write more rows");
    let journal = writer.stop().await.expect("stop the writer");
    let end = insert_lsn(&stage.cluster).await;
    stage.archive_now().await;
    (journal, end)
}

/// Restores, starts and compares the rows.
async fn restored(stage: &Stage, name: &str, journal: &Journal, end: u64, expected: &[Vec<String>]) {
    let restored = stage.restore_and_start(name, &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(sum(&restored).await, expected);
    let rows = found(&restored).await.expect("read the rows");
    journal.check(&Target::Latest(end), &rows).unwrap_or_else(|e| panic!("{e}\n{}", restored.log_text()));
}

/// The findings of `check` about a subject.
fn findings(report: &Value, subject: &str) -> Vec<(String, String)> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let all = report["findings"].as_array().expect("findings");
    all.iter()
        .filter(|finding| finding["subject"] == subject)
        .map(|finding| (text(finding, "verdict"), text(finding, "detail")))
        .collect()
}

async fn story(store: StoreKind, weakness: &str) {
    let Some(stage) = Stage::start(18, plan(store)).await else { return };
    load(&stage.cluster).await;
    let store = findings(&stage.json(&["check"]), "store");
    assert!(
        matches!(&store[..], [(verdict, detail)] if verdict == "warning" && detail.contains(weakness)),
        "{store:?}"
    );
    let expected = sum(&stage.cluster).await;
    let (journal, end) = written(&stage).await;
    restored(&stage, "restored", &journal, end, &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_story_on_rclone() {
    story(StoreKind::Rclone, "multipart uploads do not work").await;
}

/// Every command that reads the configuration from now on goes through this proxy.
fn proxy_before_rclone(stage: &Stage) -> HttpFaults {
    let rclone = stage.foreign.as_ref().expect("a stage on rclone");
    let proxy = HttpFaults::start(rclone.address()).expect("start a proxy");
    let plain = stage.config_text();
    let through = plain.replace(&rclone.endpoint(), &proxy.endpoint());
    assert_ne!(through, plain);
    stage.write_config("holdfast.toml", &through);
    proxy
}

/// rclone keeps no checksum of its own, and repeats the one from the request: only what was read back is acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_changes_on_its_way_to_rclone_is_not_acknowledged() {
    let Some(stage) = Stage::start(18, plan(StoreKind::Rclone)).await else { return };
    let rclone = stage.foreign.as_ref().expect("a stage on rclone");
    let proxy = proxy_before_rclone(&stage);
    load(&stage.cluster).await;
    stage.ok(&["backup"]);
    let expected = sum(&stage.cluster).await;
    stage.archive_now().await;

    proxy.inject(Fault::new(Effect::FlippedRequestBit(9000), When::Always).method("PUT").path_contains("/wal/"));
    stage.cluster.sql("CREATE TABLE last AS SELECT generate_series(1, 10) AS n").await.expect("write");
    let segment = stage.cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await.expect("name the segment");
    stage.cluster.sql("SELECT pg_switch_wal()").await.expect("switch");
    let refused = format!("SELECT failed_count > 0 AND last_failed_wal = '{segment}' FROM pg_stat_archiver");
    stage.cluster.wait_for(&refused, Duration::from_mins(3)).await.unwrap_or_else(|e| panic!("{e}"));
    // The stored object stays: it could be somebody else's complete object, and nothing acknowledged may be removed.
    proxy.clear();
    let path = stage.cluster.data().join("pg_wal").join(&segment).display().to_string();
    let (code, said) = stage.fails(&["wal", "push", &path]);
    assert!((40..=43).contains(&code) && said.contains(&segment), "{code}: {said}");
    let (code, said) = stage.fails(&["wal", "get", &segment, &stage.target("fetched").display().to_string()]);
    assert!(code > 128, "{code}: {said}");

    // PostgreSQL has the file: without the damaged object it is archived again.
    let store = holdfast_store::open(&of_server(&rclone.endpoint(), "us-east-1", rclone.credentials())).await;
    let store = store.expect("open the store");
    let listed = store.list("repository/main/wal/", None).await.expect("list");
    let damaged = listed.into_iter().map(|object| object.name).filter(|name| name.as_ref().contains(&segment));
    store.delete(&damaged.collect::<Vec<_>>()).await.expect("delete the damaged object");
    stage.archive_now().await;
    let copy = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&copy).await;
    assert_eq!(sum(&copy).await, expected);
    assert_eq!(copy.value("SELECT sum(n) FROM last").await.expect("read"), "55");
}

/// The same for everything that makes a backup, and a backup can be made as soon as the fault has passed.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_a_bit_that_changes_on_its_way_to_rclone_is_not_complete() {
    let Some(stage) = Stage::start(18, plan(StoreKind::Rclone)).await else { return };
    let proxy = proxy_before_rclone(&stage);
    load(&stage.cluster).await;
    let ids = || {
        let listed = stage.json(&["list"]);
        let backups = listed["repositories"][0]["backups"].as_array().expect("backups").clone();
        backups.iter().map(|backup| backup["backup_id"].to_string()).collect::<Vec<_>>()
    };
    for (part, position) in [("/packs/", 9000), ("/manifest", 300), ("/start.json", 300), ("/backup.json", 300)] {
        let flip = Effect::FlippedRequestBit(position);
        proxy.inject(Fault::new(flip, When::Always).method("PUT").path_contains(part));
        let (code, said) = stage.fails(&["backup"]);
        assert!((40..=43).contains(&code) && said.contains(part), "{part} {code}: {said}");
        proxy.clear();
        assert_eq!(ids(), [""; 0], "{part}");
    }
    stage.ok(&["backup"]);
    assert_eq!(ids().len(), 1);
    let expected = sum(&stage.cluster).await;
    stage.archive_now().await;
    let copy = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&copy).await;
    assert_eq!(sum(&copy).await, expected);
}

/// The configuration of this server's bucket, for a look at it beside `holdfast`.
fn of_server(endpoint: &str, region: &str, credentials: &holdfast_testkit::s3::Credentials) -> StoreConfig {
    let mut config = StoreConfig::new(Location::S3 { bucket: "holdfast".to_owned(), prefix: None });
    config.s3.endpoint = Some(endpoint.to_owned());
    config.s3.region = Some(region.to_owned());
    config.s3.path_style = true;
    config.s3.credentials = Credentials::Static {
        access_key: Secret::new(credentials.access_key.clone()),
        secret_key: Secret::new(credentials.secret_key.clone()),
        session_token: None,
    };
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_story_on_juicefs() {
    story(StoreKind::JuiceFs, "ignores or refuses conditional writes").await;
}

/// A certificate as `openssl req -x509 -subj /CN=store -addext subjectAltName=...` makes it, and its key.
fn own_certificate(host: &str) -> (String, String) {
    let key = KeyPair::generate().expect("make a key");
    let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a sound name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.self_signed(&key).expect("sign").pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_story_on_a_server_with_its_own_authority() {
    let Some(stage) = Stage::start(18, plan(StoreKind::S3)).await else { return };
    let s3 = stage.s3.as_ref().expect("a stage on S3");
    let (certificate, key) = own_certificate("127.0.0.1");
    let front = TlsFront::start(s3.address(), &certificate, &key).expect("start a TLS front");
    let write = |name: &str, content: &str| stage.scratch.write(name, content).expect("write a file");
    let (listed, other) = (write("ca.pem", &certificate), write("other.pem", &own_certificate("127.0.0.1").0));
    let endpoint = format!("\"https://{}\"\nca_file = \"{}\"", front.address(), listed.display());
    let plain = stage.config_text();
    let encrypted =
        plain.replace(&format!("\"{}\"", s3.endpoint()), &endpoint).replace("/repository\"", "/encrypted\"");
    assert!(encrypted.contains(&endpoint) && encrypted.contains("/encrypted\""), "{encrypted}");
    stage.write_config("holdfast.toml", &encrypted);
    stage.ok(&["repo", "init"]);

    load(&stage.cluster).await;
    let expected = sum(&stage.cluster).await;
    let (journal, end) = written(&stage).await;
    restored(&stage, "restored", &journal, end, &expected).await;

    let mistaken = encrypted.replace(&listed.display().to_string(), &other.display().to_string());
    let config = stage.write_config("other.toml", &mistaken);
    let output = stage.command_with(&config, &["repo", "info"]).output().expect("run holdfast");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(10), "{text}");
    assert!(text.contains("is not trusted") && text.contains("not in `ca_file`: add it there"), "{text}");
}

/// As Ceph 16: a condition is respected on a PUT and ignored when an upload is completed. WAL segments of 64 MiB are
/// sent in parts.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_that_only_a_put_respects() {
    let Some(stage) = Stage::start(18, Plan { wal_segment_mib: 64, ..plan(StoreKind::S3Parts) }).await else { return };
    let info = stage.ok(&["repo", "info"]);
    for line in ["conditional writes  native", "multipart uploads   conditional writes emulated"] {
        assert!(info.contains(line), "{info}");
    }
    let store = findings(&stage.json(&["check"]), "store");
    let weakness = "ignores the condition of a multipart upload";
    assert!(
        matches!(&store[..], [(verdict, detail)] if verdict == "warning" && detail.contains(weakness)),
        "{store:?}"
    );
    load(&stage.cluster).await;
    let expected = sum(&stage.cluster).await;
    let (journal, end) = written(&stage).await;

    // Other content under the name of an archived segment is refused, and the stored content stays.
    let archived = stage.cluster.value("SELECT last_archived_wal FROM pg_stat_archiver").await.expect("ask");
    let segment = archived.split('.').next().unwrap_or_default();
    let elsewhere = stage.scratch.folder("elsewhere").expect("make a folder").join(segment);
    let path = elsewhere.display().to_string();
    stage.ok(&["wal", "get", segment, &path]);
    let original = std::fs::read(&elsewhere).expect("read the segment");
    assert_eq!(original.len(), 64 << 20);
    let mut other = original.clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    stage.scratch.write(&format!("elsewhere/{segment}"), &other).expect("write the other segment");
    let (code, text) = stage.fails(&["wal", "push", &path]);
    assert_eq!(code, 44, "{text}");
    let again = stage.scratch.path().join("again");
    stage.ok(&["wal", "get", segment, &again.display().to_string()]);
    assert!(std::fs::read(again).expect("read it again") == original, "the first content stays");

    restored(&stage, "restored", &journal, end, &expected).await;
}

/// Like s3rver: folders are missing when the store lists with a delimiter. The repository was created while the store
/// worked; then a faulty store takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_leaves_out_folders() {
    let Some(stage) = Stage::start(18, plan(StoreKind::S3)).await else { return };
    load(&stage.cluster).await;
    let expected = sum(&stage.cluster).await;
    let good = stage.s3.as_ref().expect("a stage on S3");
    let text = stage.config_text();
    let worse = |builder: holdfast_testkit::s3::S3ServerBuilder| builder.root(good.root()).start().expect("start it");
    let servers = [
        ("none", worse(S3Server::builder().without_folders())),
        ("first", worse(S3Server::builder().with_first_folder_only())),
    ];
    for (name, server) in &servers {
        let other = text.replace(&good.endpoint(), &server.endpoint());
        // A new repository is refused, and nothing of it remains.
        let new = stage.write_config(&format!("{name}.toml"), &other.replace("/repository\"", "/new\""));
        let output = stage.command_with(&new, &["repo", "init"]).output().expect("run holdfast");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(25), "{said}");
        assert!(said.contains("leaves out a folder that was just written when it lists with a delimiter"), "{said}");
        assert!(!has_files(&good.object_path(good.bucket(), "new")), "{name}: something is left");

        // The old repository: a check reports the fault. What is archived and backed up meanwhile is complete.
        stage.write_config("holdfast.toml", &other);
        let (code, said) = stage.fails(&["check"]);
        assert!(code == 25 && said.contains("leaves out a folder"), "{code}: {said}");
    }
    let (journal, end) = written(&stage).await;

    // If a restore does not see what it needs, it says so.
    for (name, server) in &servers {
        stage.write_config("holdfast.toml", &text.replace(&good.endpoint(), &server.endpoint()));
        let target = stage.target(name);
        let output = stage.run(&["restore", "--pgdata", &target.display().to_string()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // All WAL of this cluster is in one folder, which the second server lists.
        let code = if *name == "none" { 61 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{name}: {said}");
        assert_eq!(target.join("global/pg_control").exists(), code == 0, "{name}: {said}");
    }
    stage.write_config("holdfast.toml", &text);
    restored(&stage, "restored", &journal, end, &expected).await;
}

/// This command sees proxies that the server's `archive_command` does not see.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_which_proxy_is_in_use() {
    let Some(stage) = Stage::start(18, plan(StoreKind::S3)).await else { return };
    let proxy = ForwardProxy::start(stage.s3.as_ref().expect("a stage on S3").address()).expect("start a proxy");
    let url = format!("http://me:hush@{}", proxy.address());
    let arguments = ["--output", "json", "check"];
    let output = stage.command(&arguments).env("http_proxy", url).output().expect("run holdfast");
    let report: Value = serde_json::from_str(&succeeded(&output, &arguments)).expect("a report");
    let expected = format!("s3://holdfast/repository is reached through http://{} (http_proxy)", proxy.address());
    assert_eq!(findings(&report, "proxy"), [("ok".to_owned(), expected)]);
    assert!(!proxy.seen().is_empty());
    assert_eq!(findings(&stage.json(&["check"]), "proxy"), []);
}

fn has_files(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| entry.path().is_file() || has_files(&entry.path()))
}

/// A backup is killed during a multipart upload. The next backup removes the parts.
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_killed_backup_are_removed_by_the_next_one() {
    let Some(stage) = Stage::start(18, plan(StoreKind::Moto)).await else { return };
    load(&stage.cluster).await;
    let expected = sum(&stage.cluster).await;
    let moto = stage.moto.as_ref().expect("a stage on moto");
    let config = of_server(&moto.endpoint(), moto.region(), &moto.credentials());
    let store = holdfast_store::open(&config).await.expect("open the store");
    let unfinished = async |store: &dyn Store| {
        let listed = store.unfinished_uploads("repository/").await.expect("list").expect("moto lists uploads");
        listed.into_iter().map(|upload| upload.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(unfinished(&*store).await, [""; 0]);

    // No upload is completed through this proxy.
    let faults = HttpFaults::start(moto.address()).expect("start a proxy");
    let stuck = Effect::Delay(std::time::Duration::from_mins(10));
    faults.inject(Fault::new(stuck, When::Always).method("PUT").path_contains("uploadId="));
    let text = stage.config_text();
    let config = stage.write_config("stuck.toml", &text.replace(&moto.endpoint(), &faults.endpoint()));
    let mut victim = Victim::of(stage.command_with(&config, &["backup"]));
    let begun = || faults.seen().iter().any(|seen| seen.effect.is_some());
    assert!(victim.runs_until(begun).await, "it ended before it began an upload");
    victim.kill();
    drop(faults);
    let left = unfinished(&*store).await;
    assert!(!left.is_empty() && left.iter().all(|name| name.contains("/packs/")), "{left:?}");
    // Meanwhile somebody else's `wal push` is at work.
    let living = "repository/main/wal/1/00000001/0000000000000000/0000000100000000000000AA".parse().expect("a name");
    let upload = store.begin_upload(&living, holdfast_store::PutMode::Create).await.expect("begin");
    upload.part(1, "part".into()).await.expect("send a part");

    let (journal, end) = written(&stage).await;
    assert_eq!(unfinished(&*store).await, [living.to_string()]);
    upload.abort().await.expect("abort");
    restored(&stage, "restored", &journal, end, &expected).await;
}
