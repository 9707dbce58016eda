//! Restores that are refused before the first byte: unreachable targets, and places that are not free.

use std::fs;
use std::time::Duration;

use holdfast_testkit::disk::SmallDisk;
use holdfast_testkit::postgres::Cluster;

use super::kit::{Texts, files_below, quietly, texts_of};
use crate::stage::{Plan, Stage, StoreKind};

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_cannot_be_reached() {
    let plan = Plan { store: StoreKind::Directory, wal_segment_mib: 1, ..Plan::default() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    stage.ok(&["backup"]);
    stage.cluster.sql("CREATE TABLE t (n int)").await.expect("write");
    stage.archive_now().await;
    let before = "2026-01-01 00:00:00+00";
    let mut texts = texts_of(&stage);
    let target = stage.target("target");
    let path = target.display().to_string();
    for (case, flags, status, expected) in [
        (
            "a time in the future",
            &["--target-time", "2099-01-01 00:00:00+00"][..],
            61,
            "error: time $TIME is beyond the archived WAL, which ends at $LSN\n\
                 while: choosing a backup of main for time $TIME, restoring main into $DIR/target\n\
                 hint:  what can be restored: $LSN ($TIME) to $LSN ($TIME) on timeline 1\n",
        ),
        (
            "a time before the first backup",
            &["--target-time", before],
            61,
            "error: time $TIME is before the end of the oldest backup\n\
                 while: choosing a backup of main for time $TIME, restoring main into $DIR/target\n\
                 hint:  what can be restored: $LSN ($TIME) to $LSN ($TIME) on timeline 1\n",
        ),
        (
            "an LSN beyond",
            &["--target-lsn", "7F/0"],
            61,
            "error: LSN 7F/0 is beyond the archived WAL, which ends at $LSN\n\
                 while: choosing a backup of main for LSN 7F/0, restoring main into $DIR/target\n\
                 hint:  what can be restored: $LSN ($TIME) to $LSN on timeline 1\n",
        ),
        (
            "an LSN before the first backup",
            &["--target-lsn", "0/100"],
            61,
            "error: LSN 0/100 is before the end of the oldest backup\n\
                 while: choosing a backup of main for LSN 0/100, restoring main into $DIR/target\n\
                 hint:  what can be restored: $LSN ($TIME) to $LSN on timeline 1\n",
        ),
        (
            "an unknown restore point",
            &["--target-name", "before the release"],
            61,
            "error: restore point \"before the release\" is not in the archived WAL\n\
                 while: choosing a backup of main for restore point \"before the release\", restoring main into \
                 $DIR/target\n\
                 hint:  what can be restored: $LSN ($TIME) to $LSN on timeline 1\n",
        ),
        (
            "an unknown transaction",
            &["--target-xid", "4000000"],
            61,
            "error: transaction 4000000 is not in the archived WAL\n\
                 while: choosing a backup of main for transaction 4000000, restoring main into $DIR/target\n\
                 hint:  what can be restored: $LSN ($TIME) to $LSN on timeline 1\n",
        ),
        (
            "an unknown timeline",
            &["--target-timeline", "7"],
            61,
            "error: timeline 7 is not in the archive\n\
                 while: choosing a backup of main for the end of the archived WAL, restoring main into \
                 $DIR/target\n\
                 hint:  timelines in the archive: 1\n",
        ),
        (
            "an unknown backup",
            &["--backup", "20260101T000000Z"],
            60,
            "error: there is no complete backup $BACKUP of cluster main\n\
                 while: choosing a backup of main for the end of the archived WAL, restoring main into \
                 $DIR/target\n\
                 hint:  `holdfast list` shows the complete backups\n",
        ),
        (
            "no id of a backup",
            &["--backup", "latest"],
            2,
            "error: \"latest\" is not the id of a backup\n\
                 while: restoring the cluster\n\
                 hint:  an id looks like $BACKUP; `holdfast list` shows them\n",
        ),
        (
            "an unknown repository",
            &["--repo", "2"],
            2,
            "error: there is no repository 2\n\
                 while: restoring the cluster\n\
                 hint:  --repo counts from 1, and the configuration has 1\n",
        ),
        (
            "a time without a zone",
            &["--target-time", "2099-01-01 00:00:00"],
            2,
            "error: invalid value '2099-01-01 00:00:00' for '--target-time <TIME>': the time zone is \
                 missing: write it as an offset from UTC, such as +00, +02:00 or Z\n\
                 while: reading the command line\n\
                 hint:  add --help to see the options and their values\n",
        ),
        (
            "two targets",
            &["--target-xid", "5", "--target-lsn", "0/1"],
            2,
            "error: the argument '--target-xid <XID>' cannot be used with '--target-lsn <LSN>'\n\
                 while: reading the command line\n\
                 hint:  usage: holdfast restore --pgdata <DIR> --target-xid <XID>\n",
        ),
        (
            "an unknown tablespace",
            &["--tablespace", "fast=/tmp/fast"],
            2,
            "error: the backup has no tablespace fast (tablespaces of the backup: none)\n\
                 while: restoring main into $DIR/target\n\
                 hint:  change what the message names, then run this again\n",
        ),
    ] {
        for plan in [false, true] {
            let mut all = vec!["restore", "--pgdata", &path];
            all.extend_from_slice(flags);
            if plan {
                all.push("--plan");
            }
            let output = quietly(&stage, &all);
            if !plan {
                texts.expect(case, &output, status, expected);
            }
            assert_eq!(output.status.code(), Some(status), "{case}, --plan: {plan}");
            assert!(!target.exists(), "{case}: the directory was created");
        }
    }
    let mut all = vec!["--output", "json", "restore", "--pgdata", &path];
    all.extend(["--target-time", "2099-01-01 00:00:00+00"]);
    texts.expect(
        "a time in the future, as JSON",
        &quietly(&stage, &all),
        61,
        "{\"error\":{\"code\":61,\"hint\":\"what can be restored: $LSN ($TIME) to $LSN ($TIME) on timeline \
             1\",\"message\":\"time $TIME is beyond the archived WAL, which ends at \
             $LSN\",\"name\":\"target-unreachable\",\"while\":\"choosing a backup of main for time $TIME, \
             restoring main into $DIR/target\"}}\n",
    );
    texts.finish();

    // Every command that names a backup says the same of one that is not there.
    let drills = stage.scratch.folder("drills").expect("make a folder").display().to_string();
    let unknown = "20260101T000000Z";
    for command in [
        &["restore", "--pgdata", &path, "--backup", unknown][..],
        &["drill", "--directory", &drills, "--backup", unknown],
        &["verify", "--backup", unknown],
        &["backup", "hold", unknown],
    ] {
        let (code, said) = stage.fails(command);
        assert_eq!(code, 60, "{command:?}: {said}");
        for line in [
            "error: there is no complete backup 20260101T000000Z of cluster main",
            "hint:  `holdfast list` shows the complete backups",
        ] {
            assert!(said.lines().any(|said| said == line), "{command:?}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn places_that_are_taken() {
    let plan = Plan { store: StoreKind::Directory, wal_segment_mib: 1, ..Plan::default() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    stage.ok(&["backup"]);
    let mut texts = texts_of(&stage);
    let data = stage.cluster.data().display().to_string();
    let before = files_below(&stage.cluster.data().join("base"));
    texts.expect(
        "the running server's own",
        &quietly(&stage, &["restore", "--pgdata", &data]),
        63,
        "error: a PostgreSQL server is running in $DATA (process $PID)\n\
             while: looking at the directory $DATA, restoring main into $DATA\n\
             hint:  restore into another directory; to overwrite this one, stop the server first (pg_ctl -D $DATA \
             stop)\n",
    );
    texts.expect(
        "the running server's own, --delta",
        &quietly(&stage, &["restore", "--delta", "--pgdata", &data]),
        63,
        "error: a PostgreSQL server is running in $DATA (process $PID)\n\
             while: looking at the directory $DATA, restoring main into $DATA\n\
             hint:  restore into another directory; to overwrite this one, stop the server first (pg_ctl -D $DATA \
             stop)\n",
    );
    assert_eq!(files_below(&stage.cluster.data().join("base")), before, "nothing may be touched");
    assert_eq!(stage.cluster.value("SELECT 1").await.expect("ask the server"), "1");

    let taken = stage.scratch.folder("taken").expect("make a folder");
    let path = taken.display().to_string();
    fs::write(taken.join("letters"), "dear").expect("write a file");
    texts.expect(
        "a folder with files",
        &quietly(&stage, &["restore", "--pgdata", &path]),
        62,
        "error: $DIR/taken is not empty\n\
             while: looking at the directory $DIR/taken, restoring main into $DIR/taken\n\
             hint:  name another directory; if this is an old data directory of this cluster that nobody needs any \
             more, add --delta, which removes everything that is not in the backup\n",
    );
    texts.expect(
        "a folder with files, --delta",
        &quietly(&stage, &["restore", "--delta", "--pgdata", &path]),
        2,
        "error: $DIR/taken is neither a data directory (it has no PG_VERSION) nor an interrupted restore\n\
             while: looking at the directory $DIR/taken, restoring main into $DIR/taken\n\
             hint:  change what the message names, then run this again\n",
    );
    assert_eq!(files_below(&taken), ["letters"]);

    let other = Cluster::builder(&stage.installation).wal_segment_mib(1).create().await.expect("make another cluster");
    texts.name("OTHER", other.data().display());
    let path = other.data().display().to_string();
    let output = quietly(&stage, &["restore", "--delta", "--pgdata", &path]);
    texts.expect(
        "another cluster's, --delta",
        &output,
        12,
        "error: the archive main in $REPO belongs to system identifier $SYSTEM, but the data directory \
             $OTHER has $SYSTEM\n\
             while: looking at the directory $OTHER, restoring main into $OTHER\n\
             hint:  nothing was changed: name another directory with --pgdata\n",
    );
    assert!(other.data().join("global/pg_control").exists());

    let file = stage.scratch.write("file", "x").expect("write a file").display().to_string();
    texts.expect(
        "a file",
        &quietly(&stage, &["restore", "--pgdata", &file]),
        31,
        "error: cannot list $DIR/file: Not a directory (os error 20)\n\
             while: looking at the directory $DIR/file, restoring main into $DIR/file\n\
             hint:  check the path: it must be a directory, but it is a file\n",
    );
    let output = quietly(&stage, &["restore", "--pgdata", "/proc/holdfast"]);
    texts.expect(
        "a place where nothing can be made",
        &output,
        32,
        "error: cannot create /proc/holdfast: No such file or directory (os error 2)\n\
             while: preparing the directory, restoring main into /proc/holdfast\n\
             hint:  check the path: the directory above it must exist\n",
    );
    full_disk(&stage, &mut texts).await;
    texts.finish();
}

/// The restore ends with its own code, nothing can start from the remains, and the same command continues it.
async fn full_disk(stage: &Stage, texts: &mut Texts) {
    let Some(disk) = SmallDisk::or_skip(96 << 20) else { return };
    texts.name("DISK", disk.path().display());
    let filler = disk.path().join("filler");
    let room = usize::try_from(disk.free_bytes().expect("ask the disk")).expect("a small disk");
    fs::write(&filler, vec![0; room - (8 << 20)]).expect("fill the disk");
    let target = disk.path().join("data");
    let path = target.display().to_string();
    texts.expect(
        "a disk that is too small",
        &quietly(stage, &["restore", "--pgdata", &path]),
        30,
        "error: cannot write $DISK/data/$FILE: No space left on device (os error 28)\n\
             while: restoring the files of backup $BACKUP, restoring main into $DISK/data\n\
             hint:  make room on the file system of $DISK/data/$FILE, then run this again\n",
    );
    assert!(!target.join("global/pg_control").exists(), "a server could start from the remains");
    fs::remove_file(filler).expect("make room");
    stage.ok(&["restore", "--pgdata", &path]);
    let mut restored = stage.start_restored(&target).await;
    crate::stage::wait_promoted(&restored).await;
    tokio::time::timeout(Duration::from_mins(1), restored.stop(holdfast_testkit::postgres::Shutdown::Immediate))
        .await
        .expect("in time")
        .expect("stop the restored server");
}
