//! `info` on an archive that is too long to be checked completely each time. The server jumps ahead, and the names of
//! the segments in between are invented: `info` lists them and never reads them.

use serde_json::Value;

use crate::stage::attack::{objects, wal_object};
use crate::stage::{Plan, Seal, Stage, StoreKind};
use holdfast_testkit::postgres::Shutdown;

/// Segments of 1 MiB in a folder of 4 GiB.
const PER_LOG: u64 = 4096;

/// The log in which the server continues.
const LATER: u64 = 20;

fn name(number: u64) -> String {
    format!("00000001{:08X}{:08X}", number / PER_LOG, number % PER_LOG)
}

fn number(name: &str) -> u64 {
    let part = |range| u64::from_str_radix(name.get(range).expect("a segment's name"), 16).expect("hexadecimal digits");
    part(8..16) * PER_LOG + part(16..24)
}

fn claim(info: &Value) -> &Value {
    &info["repositories"][0]["claims"][0]
}

/// The backups at the beginning of each window.
fn windows(info: &Value) -> Vec<&str> {
    let windows = claim(info)["reach"][0]["windows"].as_array().map(Vec::as_slice).unwrap_or_default();
    windows.iter().filter_map(|window| window["first_backup"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn info_reports_what_it_did_not_check() {
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() };
    let Some(mut stage) = Stage::start(18, plan).await else { return };
    let backup = |stage: &Stage| {
        let report = stage.json(&["backup", "--type", "full"]);
        report["repositories"][0]["backup"]["backup_id"].as_str().expect("an id").to_owned()
    };
    let first = backup(&stage);
    stage.cluster.sql("CREATE TABLE t AS SELECT 1 AS n").await.expect("write");
    stage.archive_now().await;
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let jump = name(LATER * PER_LOG + 1);
    let data = stage.cluster.data().display().to_string();
    stage.cluster.tool("pg_resetwal", &["-l", &jump, &data]).await.expect("jump ahead");
    stage.cluster.start().await.expect("start");
    stage.archive_now().await;
    let second = backup(&stage);
    stage.cluster.sql("INSERT INTO t VALUES (2)").await.expect("write");
    stage.archive_now().await;

    // All segments in between except the first one, which is a gap.
    let of_first_log = |name: &String| name.contains("/wal/") && name.contains("/0000000100000000/");
    let segment = |name: &String| name.rsplit('/').next().and_then(|file| file.get(..24)).map(number);
    let last = objects(&stage).keys().filter(|name| of_first_log(name)).filter_map(segment).max().expect("WAL");
    let (object, _) = wal_object(&stage, &jump).expect("the first segment after the jump");
    let (folder, extension) = object.split_once(&format!("/{}/{jump}", &jump[..16])).expect("a log's folder");
    let folder = stage.repository_folder().join(folder);
    for number in last + 2..=LATER * PER_LOG {
        let name = name(number);
        let log = folder.join(&name[..16]);
        if !log.exists() {
            std::fs::create_dir(&log).expect("make a folder");
        }
        let path = log.join(format!("{name}{extension}"));
        if !path.exists() {
            std::fs::write(&path, [0; 64]).expect("write an object");
        }
    }

    let info = stage.json(&["info"]);
    let not_seen = &claim(&info)["not_looked_at"];
    assert_eq!((&not_seen["backups"], &not_seen["snapshots"]), (&1.into(), &0.into()), "{not_seen}");
    assert_eq!(not_seen["before"], claim(&info)["wal"]["listed_from"]);
    assert_eq!(
        (windows(&info), claim(&info)["reach"][0]["unusable"].to_string()),
        (vec![second.as_str()], "[]".into())
    );
    assert_eq!(claim(&info)["backups"]["complete"], 2);
    let text = stage.ok(&["info"]);
    assert!(text.contains("    NOT SEEN  WAL before LSN ") && text.contains("(backups: 1, snapshots: 0); "), "{text}");
    assert!(!text.contains("GAP "), "{text}");

    let all = stage.json(&["info", "--all-wal"]);
    assert_eq!(claim(&all)["not_looked_at"], Value::Null);
    assert_eq!(windows(&all), [first.as_str(), second.as_str()]);
    assert_eq!(claim(&all)["wal"]["timelines"][0]["gaps"][0]["first"], name(last + 1).as_str());
    let text = stage.ok(&["info", "--all-wal"]);
    assert!(text.contains("GAP ") && !text.contains("NOT SEEN"), "{text}");

    // A monitor with a cache sees the rest the next time.
    let cache = stage.scratch.path().join("cache.json").display().to_string();
    let monitored = stage.json(&["info", "--wal-cache", &cache]);
    assert_eq!(claim(&monitored)["not_looked_at"], *not_seen);
    let monitored = stage.json(&["info", "--wal-cache", &cache]);
    for part in ["not_looked_at", "reach", "wal"] {
        assert_eq!(claim(&monitored)[part], claim(&all)[part], "{part}");
    }
}
