//! An `archive_command` that reports success and stores nothing. The backup contains its own WAL, and warns that the
//! WAL after it is not stored anywhere. `check` reports the fault before anything is lost.

use std::time::Duration;

use crate::stage::attack::age;
use crate::stage::{Plan, Seal, Stage, StoreKind};

const LIMIT: Duration = Duration::from_mins(3);

fn warnings(stage: &Stage) -> Vec<String> {
    let report = stage.json(&["backup"]);
    let list = report["warnings"].as_array().expect("a list of warnings");
    list.iter().map(|warning| warning.as_str().expect("a text").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_command_that_stores_nothing_is_named() {
    let settings = vec![("archive_mode", "on".to_owned()), ("archive_command", "/bin/true".to_owned())];
    let plan = Plan {
        store: StoreKind::Directory,
        seal: Seal::None,
        wal_segment_mib: 1,
        archive: false,
        settings,
        ..Plan::default()
    };
    let Some(stage) = Stage::start(18, plan).await else { return };
    stage.cluster.sql("CREATE TABLE t AS SELECT 1 AS n").await.expect("make a table");
    let first = warnings(&stage);
    assert!(
        first.len() == 1 && first[0].contains("of this backup as archived, but they were not in the repository"),
        "{first:?}"
    );

    for _ in 0..3 {
        stage.cluster.sql("INSERT INTO t SELECT max(n) + 1 FROM t").await.expect("write");
        stage.cluster.sql("SELECT pg_switch_wal()").await.expect("switch");
    }
    let done = "SELECT NOT EXISTS (SELECT FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready')";
    stage.cluster.wait_for(done, LIMIT).await.expect("archive");
    let second = warnings(&stage);
    assert!(
        second.len() == 2 && second[0].contains("of this backup as archived, but they were not in the repository"),
        "{second:?}"
    );
    assert!(
        second[1].contains("WAL segment(s) between backup ")
            && second[1].contains("no moment between that segment and this backup"),
        "{second:?}"
    );

    let output = stage.run(&["check"]);
    let (found, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(3), "{found}{error}");
    assert!(found.contains("as archived, but it is not in file://"), "{found}");
    assert!(found.contains("/bin/true reports success without storing it there"), "{found}");

    // After the command is repaired, the missing WAL is reported once more, and then not again.
    let command = format!("{} --config {} wal push %p", stage.holdfast.display(), stage.config.display());
    stage.cluster.sql(&format!("ALTER SYSTEM SET archive_command = '{command}'")).await.expect("set");
    stage.cluster.reload().await.expect("reload");
    let mended = "SELECT current_setting('archive_command') <> '/bin/true'";
    stage.cluster.wait_for(mended, LIMIT).await.expect("reload");
    stage.archive_now().await;
    // Otherwise the missing segments may still be on their way.
    age(&stage);
    let (code, found) = {
        let output = stage.run(&["check"]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert!(code == Some(3) && found.contains("until the next backup: run `holdfast backup` now"), "{found}");
    let third = warnings(&stage);
    assert!(third.len() == 1 && third[0].contains("WAL segment(s) between backup "), "{third:?}");
    stage.ok(&["check"]);
    assert_eq!(warnings(&stage), [""; 0]);

    let restored = stage.restore_and_start("restored", &[]).await;
    crate::stage::wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT count(*) FROM t").await.expect("count"), "4");
}
