//! Where a backup goes: to several repositories at the same time, and to an S3 store with every feature in use.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;

use holdfast_testkit::rows::{Pace, RowWriter};
use holdfast_testkit::s3::Moto;

use super::kit::{SUM, local, wait_for};
use crate::stage::proof::{bulk, find, finish, holds_all, number, text, verify_backup};
use crate::stage::{Plan, Stage, wait_promoted};

/// Adds a second repository, in a directory, to the configuration and creates it.
fn with_second_repository(stage: &Stage) -> PathBuf {
    let second = stage.scratch.path().join("second");
    let block = format!("[[repo]]\nurl = \"file://{}\"\nencryption = \"none\"\n\n[backup]", second.display());
    stage.write_config("holdfast.toml", &stage.config_text().replacen("[backup]", &block, 1));
    stage.ok(&["repo", "init"]);
    second
}

/// A wrong name begins another archive, and nothing else would show it.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_that_it_has_begun_an_archive() {
    let Some(stage) = Stage::start(18, local()).await else { return };
    let config = stage.write_config("mian.toml", &stage.config_text().replace("name = \"main\"", "name = \"mian\""));
    for (number, begins) in [(1, true), (2, false)] {
        let output = stage.command_with(&config, &["check"]).output().expect("check");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("belongs to this cluster"), "{number}: {said}");
        assert_eq!(said.contains("has begun this archive now"), begins, "{number}: {said}");
    }
}

/// One backup goes to an encrypted repository in S3 and to an unencrypted one in a directory. WAL is acknowledged when
/// both have it.
#[tokio::test(flavor = "multi_thread")]
async fn two_repositories_are_fed_at_once() {
    let Some(stage) = Stage::start(18, Plan { wal_segment_mib: 1, ..Plan::default() }).await else { return };
    let second = with_second_repository(&stage);
    let cluster = &stage.cluster;
    bulk(cluster, "load", 3).await;
    let writer = RowWriter::start(cluster, Pace::default()).await.expect("start the writer");
    writer.wait_for_rows(20).await.expect("write rows");
    let report = stage.json(&["backup"]);
    let stored = report["repositories"].as_array().expect("repositories");
    assert_eq!(stored.len(), 2, "{report}");
    let [first, other] = [&stored[0]["backup"], &stored[1]["backup"]];
    for key in ["backup_id", "start_lsn", "stop_lsn", "size_bytes", "file_count"] {
        assert_eq!(first[key], other[key], "{key}");
    }
    assert_eq!((text(first, "encryption"), text(other, "encryption")), ("aes-256-gcm", "none"));

    // The second repository fails, because its archive folder is a file. Nothing is acknowledged, and nothing is lost.
    let wal_folder = second.join("main/wal");
    let aside = stage.scratch.path().join("aside");
    fs::rename(&wal_folder, &aside).expect("take the folder away");
    fs::write(&wal_folder, b"").expect("put a file there");
    let before = cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await.expect("name the segment");
    cluster.sql("SELECT pg_create_restore_point('broken'); SELECT pg_switch_wal()").await.expect("switch");
    wait_for(cluster, "SELECT failed_count > 1 FROM pg_stat_archiver").await;
    for _ in 0..3 {
        cluster.sql("SELECT pg_create_restore_point('more'); SELECT pg_switch_wal()").await.expect("switch");
    }
    let late = format!("SELECT coalesce(last_archived_wal < '{before}', true) FROM pg_stat_archiver");
    assert_eq!(
        cluster.value(&late).await.expect("ask"),
        "t",
        "a segment was acknowledged that only one repository has"
    );
    assert!(cluster.data().join("pg_wal").join(&before).exists(), "PostgreSQL keeps the segment");
    let pushed = stage.command(&["wal", "push", &format!("pg_wal/{before}")]).current_dir(cluster.data()).output();
    let code = pushed.expect("run wal push").status.code().expect("an exit code");
    assert!((1..=125).contains(&code), "exit code {code}");
    let (code, message) = stage.fails(&["backup", "--archive-timeout", "1s"]);
    assert!(code != 0 && !message.is_empty());

    fs::remove_file(&wal_folder).expect("remove the file");
    fs::rename(&aside, &wal_folder).expect("put the folder back");
    let (journal, end) = finish(writer, cluster).await;
    let sum = cluster.sql(&format!("{SUM}load")).await.expect("sum up");
    stage.archive_now().await;
    let listed = stage.json(&["wal", "list"]);
    let [one, two] = [&listed["repositories"][0], &listed["repositories"][1]];
    assert!(number(one, "segments") >= 4, "{listed}");
    for key in ["ranges", "gaps"] {
        assert_eq!(find(one, key), find(two, key), "{listed}");
    }
    assert_eq!(find(one, "gaps"), Some(&serde_json::json!([])), "{listed}");
    for number in ["1", "2"] {
        let target = stage.target(&format!("from-{number}"));
        stage.ok(&["restore", "--repo", number, "--pgdata", &target.display().to_string()]);
        verify_backup(&stage, &target);
        let restored = stage.start_restored(&target).await;
        wait_promoted(&restored).await;
        assert_eq!(restored.sql(&format!("{SUM}load")).await.expect("sum up"), sum);
        holds_all(&restored, &journal, end).await;
    }
    // One of the repositories is enough for a restore, and for the WAL of a restore.
    fs::rename(stage.repository_folder(), stage.scratch.path().join("lost")).expect("lose a repository");
    let target = stage.target("from-what-is-left");
    stage.ok(&["restore", "--repo", "2", "--pgdata", &target.display().to_string()]);
}

/// The answer to a request without a body: head and body as text.
fn ask_moto(moto: &Moto, request: &str) -> String {
    let mut socket = TcpStream::connect(moto.address()).expect("connect");
    let request = format!(
        "{request} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\nAuthorization: AWS4-HMAC-SHA256 \
         Credential=testkit/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n",
        moto.address()
    );
    socket.write_all(request.as_bytes()).expect("ask");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("listen");
    String::from_utf8_lossy(&answer).to_lowercase()
}

/// Tags, storage class and encryption by the server on every object, and parts of multipart uploads.
#[tokio::test(flavor = "multi_thread")]
async fn every_feature_of_s3_at_once() {
    let Some(moto) = Moto::or_skip() else { return };
    let Some(mut stage) = Stage::start(18, Plan { archive: false, ..local() }).await else { return };
    let block = format!(
        "[[repo]]\nurl = \"s3://holdfast/some/prefix\"\nendpoint = \"{}\"\nregion = \"{}\"\npath_style = true\n\
         access_key_id = \"{}\"\nsecret_access_key = \"{}\"\nstorage_class = \"STANDARD_IA\"\nsse = \"s3\"\n\
         tags = {{ team = \"db\", \"cost centre\" = \"a+b/c=d\" }}\npart_size = \"5MiB\"\n\
         encryption = {{ key_file = \"{}\" }}\n",
        moto.endpoint(),
        moto.region(),
        moto.credentials().access_key,
        moto.credentials().secret_key,
        stage.scratch.path().join("key").display(),
    );
    let config = stage.config_text();
    let start = config.find("[[repo]]").expect("a repository");
    let end = config.find("[backup]").expect("a section");
    stage.write_config("holdfast.toml", &format!("{}{block}\n{}", &config[..start], &config[end..]));
    stage.ok(&["repo", "init"]);
    let command = format!("{} --config {} wal push %p", stage.holdfast.display(), stage.config.display());
    stage.cluster.set("archive_mode", "on").expect("configure");
    stage.cluster.set("archive_command", &command).expect("configure");
    stage.cluster.restart().await.expect("restart");
    bulk(&stage.cluster, "load", 12).await;
    let report = stage.json(&["backup", "--compression", "none"]);
    let sum = stage.cluster.sql(&format!("{SUM}load")).await.expect("sum up");
    stage.archive_now().await;

    let id = text(&report, "backup_id").to_owned();
    let listing = ask_moto(&moto, "GET /holdfast?list-type=2");
    let keys: Vec<String> =
        listing.split("<key>").skip(1).filter_map(|rest| Some(rest.split_once('<')?.0.to_owned())).collect();
    assert!(keys.iter().any(|key| key.contains("/packs/")) && keys.iter().any(|key| key.contains("/wal/")), "{keys:?}");
    for key in &keys {
        // Names are in lower case above. Only hexadecimal numbers and ids in them have upper case letters.
        let key = key.replace(&id.to_lowercase(), &id);
        let key = capitals_of_wal(&key);
        let head = ask_moto(&moto, &format!("HEAD /holdfast/{key}"));
        assert!(head.starts_with("http/1.1 200"), "{key}: {head}");
        assert!(head.contains("x-amz-storage-class: standard_ia"), "{key}: {head}");
        assert!(head.contains("x-amz-server-side-encryption: aes256"), "{key}: {head}");
        let tags = ask_moto(&moto, &format!("GET /holdfast/{key}?tagging"));
        assert!(tags.contains("<key>team</key><value>db</value>"), "{key}: {tags}");
        assert!(tags.contains("<key>cost centre</key><value>a+b/c=d</value>"), "{key}: {tags}");
    }
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.sql(&format!("{SUM}load")).await.expect("sum up"), sum);
}

/// The name of a WAL object with its hexadecimal digits in upper case.
fn capitals_of_wal(key: &str) -> String {
    let Some((folder, rest)) = key.split_once("/wal/") else { return key.to_owned() };
    let parts: Vec<String> = rest
        .split('/')
        .map(|part| match part.split_once('.') {
            Some((name, end)) => format!("{}.{end}", name.to_uppercase()),
            None => part.to_uppercase(),
        })
        .collect();
    format!("{folder}/wal/{}", parts.join("/"))
}
