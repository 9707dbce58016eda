//! Recovery to every kind of target on a real Kubernetes: one source, one backup, one small cluster for each target,
//! and the rows that each must have.

use crate::stage::Stage;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(5);
/// How many recoveries run at the same time.
const AT_ONCE: usize = 2;

/// What the source wrote, in this order: a row in each transaction, and the values that identify the positions.
struct Marks {
    /// Id of the one backup, taken after row 1.
    backup: String,
    /// A time between row 2 and row 3, in UTC, and the same with an offset of five and a half hours.
    time: String,
    time_in_india: String,
    /// The transaction of row 3.
    xid: String,
    /// The start of the record after row 4.
    lsn: String,
}

/// After row 5 comes the restore point `milestone`, and then row 6.
fn write(stage: &Stage) -> Marks {
    let primary = stage.primary("main");
    let psql = |statement: &str| stage.psql(&primary, statement);
    stage.sql("main", "CREATE TABLE numbers (n bigint PRIMARY KEY)");
    let row = |n: u32| stage.value("main", &format!("INSERT INTO numbers VALUES ({n}) RETURNING pg_current_xact_id()"));
    row(1);
    let backup = stage.back_up("main", "base", "");
    row(2);
    std::thread::sleep(Duration::from_millis(1100));
    let clock = |zone: &str| format!("to_char(m AT TIME ZONE '{zone}', 'YYYY-MM-DD HH24:MI:SS.US')");
    let moments = psql(&format!(
        "SELECT {} || '|' || {} FROM (SELECT clock_timestamp() AS m) c",
        clock("UTC"),
        clock("Asia/Kolkata")
    ));
    let (time, time_in_india) = moments.split_once('|').expect("two moments");
    std::thread::sleep(Duration::from_millis(1100));
    let xid = row(3);
    row(4);
    let lsn = psql("SELECT pg_current_wal_insert_lsn()");
    row(5);
    psql("SELECT pg_create_restore_point('milestone')");
    row(6);
    stage.archive_wal("main", LIMIT);
    Marks {
        backup: backup["status"]["backupId"].as_str().expect("its id").to_owned(),
        time: time.to_owned(),
        time_in_india: time_in_india.to_owned(),
        xid,
        lsn,
    }
}

/// The lines below `recoveryTarget`, and the last row that must be there.
fn table(marks: &Marks) -> Vec<(&'static str, String, u64)> {
    let Marks { backup, time, time_in_india, xid, lsn } = marks;
    let rfc = format!("{}Z", time.replace(' ', "T"));
    vec![
        ("time-rfc3339", format!("targetTime: \"{rfc}\""), 2),
        ("time-with-zone", format!("targetTime: \"{time_in_india}+05:30\"\nexclusive: true"), 2),
        ("time-without-zone", format!("targetTime: \"{time}\""), 2),
        ("xid", format!("targetXID: \"{xid}\""), 3),
        // A number without quotes is accepted too.
        ("xid-exclusive", format!("targetXID: {xid}\nexclusive: true"), 2),
        ("lsn", format!("targetLSN: {lsn}"), 4),
        ("lsn-exclusive", format!("targetLSN: {lsn}\nexclusive: true\ntargetTLI: current"), 4),
        ("name", format!("targetName: milestone\nbackupID: {backup}"), 5),
        ("immediate", "targetImmediate: true".to_owned(), 1),
        ("timeline-and-backup", format!("targetTLI: \"1\"\nbackupID: {backup}"), 6),
        ("timeline-latest", "targetTLI: latest".to_owned(), 6),
    ]
}

/// A cluster of one instance that reads the archive of `main`. `how` is written below `recovery`.
fn recovered(stage: &Stage, name: &str, how: &str) -> String {
    let how = how.lines().fold(String::new(), |all, line| all + "      " + line + "\n");
    Stage::cluster(
        name,
        1,
        &format!(
            "  bootstrap:\n    recovery:\n      database: app\n      owner: app\n{how}  externalClusters:\n  - name: main\n    barmanObjectStore:\n{}",
            stage.object_store(6)
        ),
    )
}

fn target(lines: &str) -> String {
    lines.lines().fold("source: main\nrecoveryTarget:\n".to_owned(), |all, line| all + "  " + line + "\n")
}

/// Waits until a recovery has stopped with an error that contains these words. Returns it with its hint.
fn refusal(stage: &Stage, name: &str, words: &str) -> String {
    stage.wait("clusters.holdfast.dev", name, &format!("the refusal: {words}"), LIMIT, |object| {
        let blocked = &object["status"]["blockedBy"];
        let what = blocked["what"].as_str().filter(|what| what.starts_with(&format!("{name}-1: ")))?;
        what.contains(words).then(|| format!("{what}; {}", blocked["hint"].as_str().unwrap_or_default()))
    })
}

#[test]
fn every_target_brings_its_rows_and_no_more() {
    let stage = Stage::new("targets");
    stage.apply(&stage.archived_cluster("main", 1, ""));
    stage.wait_ready("main", 1, LIMIT);
    let marks = write(&stage);

    // Each recovery is checked and deleted before the next one begins.
    let todo: Mutex<VecDeque<_>> = Mutex::new(table(&marks).into());
    let wrong: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((name, lines, last)) = todo.lock().pop_front() else { return };
                    stage.apply(&recovered(&stage, name, &target(&lines)));
                    stage.wait_ready(name, 1, LIMIT);
                    let (found, expected) = (stage.numbers(name), (1..=last).collect::<Vec<_>>());
                    if found != expected {
                        wrong.lock().push(format!("{name}: {found:?}, expected {expected:?}"));
                    }
                    stage.kubectl(&["delete", "clusters.holdfast.dev", name, "--wait=false"]);
                }
            });
        }
    });
    let wrong = wrong.into_inner();
    assert!(wrong.is_empty(), "{wrong:#?}");

    // A target that does not exist is refused at once. The recovery does not search the whole archive for it and then
    // pass it over.
    for (name, lines, expected) in [
        (
            "no-such-name",
            "targetName: milestones".to_owned(),
            "restore point \"milestones\" is not in the archived WAL",
        ),
        ("no-such-xid", "targetXID: \"4000000\"".to_owned(), "transaction 4000000 is not in the archived WAL"),
        ("no-such-timeline", "targetTLI: \"7\"".to_owned(), "timeline 7 is not in the archive"),
        ("no-such-backup", "backupID: 20010101T000000Z".to_owned(), "there is no complete backup 20010101T000000Z"),
        ("beyond", "targetLSN: 7/0".to_owned(), "LSN 7/0 is beyond the archived WAL"),
    ] {
        stage.apply(&recovered(&stage, name, &target(&lines)));
        let error = refusal(&stage, name, expected);
        if name == "no-such-name" {
            assert!(error.contains("what can be restored: "), "the window is named: {error}");
        }
        stage.kubectl(&["delete", "clusters.holdfast.dev", name, "--wait=false"]);
    }

    // One more backup, so that the newest is not the named one.
    stage.back_up("main", "later", "");
    stage.apply(&recovered(
        &stage,
        "named",
        "source: main\nbackup:\n  name: base\nrecoveryTarget:\n  targetImmediate: true\n",
    ));
    stage.wait_ready("named", 1, LIMIT);
    assert_eq!(stage.numbers("named"), [1], "the named backup is the one that is restored, not the newest");
    stage.apply(&recovered(
        &stage,
        "contradiction",
        &format!("source: main\nbackup:\n  name: later\nrecoveryTarget:\n  backupID: {}\n", marks.backup),
    ));
    refusal(&stage, "contradiction", &format!("recoveryTarget.backupID is {}", marks.backup));

    // Two targets in one manifest are invalid.
    let two = recovered(&stage, "two", &target("targetName: milestone\ntargetImmediate: true"));
    let output = stage.try_apply(&two);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected = "recovery stops at one target";
    if output.status.success() {
        let condition = stage.wait("clusters.holdfast.dev", "two", "the refusal", LIMIT, |object| {
            let conditions = object["status"]["conditions"].as_array()?;
            let spec = conditions.iter().find(|condition| condition["type"] == "SpecAccepted")?;
            (spec["status"] == "False").then(|| spec["message"].as_str().unwrap_or_default().to_owned())
        });
        assert!(condition.contains(expected), "{condition}");
        assert!(stage.find("pvc", "two-1").is_none(), "nothing is created for it");
    } else {
        assert!(said.contains(expected), "{said}");
    }

    // A Backup that does not exist here creates no volume.
    stage.apply(&recovered(&stage, "missing", "backup:\n  name: of-another-namespace\n"));
    let what = format!("Backup of-another-namespace does not exist in namespace {}", stage.namespace);
    stage.wait("clusters.holdfast.dev", "missing", &format!("{what:?}"), LIMIT, |object| {
        (object["status"]["blockedBy"]["what"] == what.as_str()).then_some(())
    });
    assert!(stage.find("pvc", "missing-1").is_none(), "nothing is created for it");
}
