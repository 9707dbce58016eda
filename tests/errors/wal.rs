//! WAL files that are not archived and stay with PostgreSQL.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_testkit::disk::SmallDisk;
use holdfast_testkit::postgres::Cluster;

use super::kit::{files_below, identity, quietly, texts_of};
use crate::stage::{Plan, Stage, StoreKind};

fn local() -> Plan {
    Plan { store: StoreKind::Directory, wal_segment_mib: 1, ..Plan::default() }
}

/// The name and the path of the last finished segment.
async fn finished_segment(stage: &Stage) -> (String, PathBuf) {
    let name = stage.cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await.expect("name the segment");
    stage.archive_now().await;
    let path = stage.cluster.data().join("pg_wal").join(&name);
    (name, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_what_they_are_called() {
    let Some(stage) = Stage::start(18, local()).await else { return };
    let mut texts = texts_of(&stage);
    let (name, path) = finished_segment(&stage).await;
    let content = fs::read(&path).expect("read a segment");
    let folder = stage.scratch.folder("elsewhere").expect("make a folder");
    let before = files_below(&stage.repository_folder());
    let later = format!("{}FF", &name[..22]);
    texts.name("LATER", &later);
    texts.name("NAME", &name);
    let whole = |bytes: &[u8], change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.to_vec();
        change(&mut bytes);
        bytes
    };
    for (case, file, bytes, status, expected) in [
        (
            "half a segment",
            name.as_str(),
            whole(&content, &|bytes| bytes.truncate(512 << 10)),
            31,
            "error: $DIR/elsewhere/$NAME has $SIZE bytes, the cluster's WAL segments have 1048576\n\
                 while: pushing $DIR/elsewhere/$NAME\n\
                 hint:  PostgreSQL's segments are always complete: look for a full disk, or for a program that copied \
                 only a part of the file\n",
        ),
        (
            "an empty file",
            name.as_str(),
            Vec::new(),
            31,
            "error: $DIR/elsewhere/$NAME cannot be understood: it has $SIZE bytes, less than a WAL page \
                 header\n\
                 while: pushing $DIR/elsewhere/$NAME\n\
                 hint:  nothing was stored: the content of the file does not match its name; check the disk and the \
                 program that wrote it\n",
        ),
        (
            "another segment's name",
            later.as_str(),
            content.clone(),
            31,
            "error: $DIR/elsewhere/$LATER: WAL segment $LATER begins at $LSN, but should begin at $LSN\n\
                 while: pushing $DIR/elsewhere/$LATER\n\
                 hint:  nothing was stored: the content of the file does not match its name; check the disk and the \
                 program that wrote it\n",
        ),
        (
            "zeros",
            name.as_str(),
            vec![0; 1 << 20],
            31,
            "error: $DIR/elsewhere/$NAME cannot be understood: it begins with 0000, but WAL of PostgreSQL 13 to 19 \
                 never does\n\
                 while: pushing $DIR/elsewhere/$NAME\n\
                 hint:  nothing was stored: the content of the file does not match its name; check the disk and the \
                 program that wrote it\n",
        ),
        (
            "no segment",
            "notes.txt",
            b"x".to_vec(),
            2,
            "error: $DIR/elsewhere/notes.txt is not the name of a WAL segment, history or backup history \
                 file\n\
                 while: pushing $DIR/elsewhere/notes.txt\n\
                 hint:  change what the message names, then run this again\n",
        ),
        (
            "no history",
            "00000002.history",
            b"hello".to_vec(),
            31,
            "error: $DIR/elsewhere/00000002.history cannot be understood: history file of timeline 2 has a line that \
                 is not an entry: \"hello\"\n\
                 while: archiving 00000002.history, pushing $DIR/elsewhere/00000002.history\n\
                 hint:  nothing was stored: the content of the file does not match its name; check the disk and the \
                 program that wrote it\n",
        ),
        (
            "other content",
            name.as_str(),
            whole(&content, &|bytes| bytes[(1 << 20) - 1] ^= 1),
            44,
            "error: main/wal/1/$TIMELINE/$FOLDER/$NAME.zst.enc is already stored in $REPO, with other \
                 content\n\
                 while: archiving $NAME, pushing $DIR/elsewhere/$NAME\n\
                 hint:  nothing was overwritten: two servers write into one archive, a server was restored or \
                 promoted twice and both copies continued, or a data volume was rolled back; find out which server \
                 should continue. If it is the other one, stop this one and create it again from the other. If it is this one, or both, give this one a \
                 `cluster.name` of its own (in the configuration of its archive_command), then run `holdfast backup`: \
                 it begins a new archive, and PostgreSQL has kept all WAL for it. If no other server ever wrote there, \
                 the object is damaged, or somebody put it there: docs/operations.md (\"Two servers in one archive\") \
                 says how to compare it, keep it, and move it away\n",
        ),
    ] {
        let file = stage.scratch.write(&format!("elsewhere/{file}"), bytes).expect("write a file");
        let output = quietly(&stage, &["wal", "push", &file.display().to_string()]);
        texts.expect(case, &output, status, expected);
        fs::remove_file(file).expect("remove the file");
    }
    let absent = folder.join(&later).display().to_string();
    texts.expect(
        "no file",
        &quietly(&stage, &["wal", "push", &absent]),
        31,
        "error: cannot open $DIR/elsewhere/$LATER: No such file or directory (os error 2)\n\
             while: pushing $DIR/elsewhere/$LATER\n\
             hint:  check the path; for the data directory it is `cluster.pgdata`\n",
    );
    let after: Vec<String> =
        files_below(&stage.repository_folder()).into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(after.len(), 1, "only the divergence may be noted: {after:?}");
    assert!(after[0].contains("/ledger/") && after[0].ends_with("divergence.json"), "{after:?}");
    // The correct one still works.
    stage.ok(&["wal", "push", &path.display().to_string()]);

    let nowhere = stage.scratch.path().join("nowhere/RECOVERYXLOG").display().to_string();
    texts.expect(
        "no place to put it",
        &quietly(&stage, &["wal", "get", &name, &nowhere]),
        160,
        "error: cannot write $DIR/nowhere/$TEMPORARY: No such file or directory (os error 2)\n\
             while: fetching $NAME from the archive\n\
             hint:  check the path: the directory above it must exist\n",
    );
    let here = stage.scratch.path().join("RECOVERYXLOG").display().to_string();
    texts.expect(
        "not in the archive",
        &quietly(&stage, &["wal", "get", &later, &here]),
        1,
        "error: $LATER is not in the archive\n",
    );
    texts.expect(
        "as JSON",
        &quietly(&stage, &["--output", "json", "wal", "get", &later, &here]),
        1,
        "{\"error\":{\"code\":1,\"hint\":null,\"message\":\"$LATER is not in the \
             archive\",\"name\":\"absent\",\"while\":null}}\n",
    );
    texts.finish();
}

/// A full disk under the file that recovery wants means "unknown", not "absent". A full disk of the spool only costs
/// speed.
#[tokio::test(flavor = "multi_thread")]
async fn full_disks_of_recovery() {
    let Some(disk) = SmallDisk::or_skip(256 << 10) else { return };
    let Some(stage) = Stage::start(18, local()).await else { return };
    let mut texts = texts_of(&stage);
    texts.name("DISK", disk.path().display());
    let (name, path) = finished_segment(&stage).await;
    texts.name("NAME", &name);
    let destination = disk.path().join("RECOVERYXLOG").display().to_string();
    texts.expect(
        "no room for the segment",
        &quietly(&stage, &["wal", "get", &name, &destination]),
        158,
        "error: cannot write $DISK/$TEMPORARY: No space left on device (os error 28)\n\
         while: fetching $NAME from the archive\n\
         hint:  make room on the file system of $DISK/$TEMPORARY, then run this again\n",
    );
    assert!(files_below(disk.path()).is_empty(), "half a segment may not be left: {:?}", files_below(disk.path()));

    let config = stage.config_text().replace("/spool\"", "/spool-that-is-full\"");
    std::os::unix::fs::symlink(disk.path(), stage.scratch.path().join("spool-that-is-full")).expect("link");
    stage.write_config("holdfast.toml", &config);
    fs::write(disk.path().join("filler"), vec![0; 256 << 10]).expect("fill the disk");
    let here = stage.scratch.path().join("RECOVERYXLOG");
    texts.expect("no room in the spool", &quietly(&stage, &["wal", "get", &name, &here.display().to_string()]), 0, "");
    assert_eq!(fs::read(&here).expect("read the segment"), fs::read(&path).expect("read the segment"));
    texts.expect("no room in the spool, push", &quietly(&stage, &["wal", "push", &path.display().to_string()]), 0, "");
    texts.finish();
}

/// A disk that is not mounted must not look like an empty archive. PostgreSQL keeps its WAL until the disk is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_away_for_a_while() {
    let Some(stage) = Stage::start(18, local()).await else { return };
    stage.archive_now().await;
    let mut texts = texts_of(&stage);
    let (here, away) = (stage.repository_folder(), stage.scratch.path().join("away"));
    fs::rename(&here, &away).expect("take the repository away");
    let name = stage.cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await.expect("name the segment");
    stage.cluster.sql("SELECT pg_create_restore_point('x'); SELECT pg_switch_wal()").await.expect("switch");
    let failed = "SELECT failed_count > 0 FROM pg_stat_archiver";
    stage.cluster.wait_for(failed, Duration::from_mins(3)).await.expect("fail to archive");
    let ready = stage.cluster.data().join(format!("pg_wal/archive_status/{name}.ready"));
    assert!(ready.exists(), "PostgreSQL must keep {name}");
    let segment = stage.cluster.data().join("pg_wal").join(&name).display().to_string();
    texts.expect(
        "wal push",
        &quietly(&stage, &["wal", "push", &segment]),
        20,
        "error: $REPO does not exist\n\
         while: open $REPO\n\
         hint:  mount the disk it is on, or correct `url`; `holdfast repo init` creates a new repository\n",
    );
    let destination = stage.scratch.path().join("RECOVERYXLOG").display().to_string();
    texts.expect(
        "wal get",
        &quietly(&stage, &["wal", "get", &name, &destination]),
        148,
        "error: $REPO does not exist\n\
         while: open $REPO\n\
         hint:  mount the disk it is on, or correct `url`; `holdfast repo init` creates a new repository\n",
    );
    texts.expect(
        "backup",
        &quietly(&stage, &["backup"]),
        20,
        "error: $REPO does not exist\n\
         while: open $REPO\n\
         hint:  mount the disk it is on, or correct `url`; `holdfast repo init` creates a new repository\n",
    );
    assert!(!here.exists(), "nothing may be created in its place");
    fs::rename(&away, &here).expect("bring the repository back");
    stage.archive_now().await;
    assert!(!ready.exists(), "{name} is archived now");
    texts.finish();
}

/// Another cluster archives to the same place: that is refused, nothing is written, and its server keeps its WAL.
#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_at_the_same_place() {
    let Some(stage) = Stage::start(18, local()).await else { return };
    stage.archive_now().await;
    let mut texts = texts_of(&stage);
    let before = files_below(&stage.repository_folder());
    let config = stage.config_text();
    let other = Cluster::builder(&stage.installation).wal_segment_mib(1);
    let path = stage.scratch.path().join("other.toml");
    let command = format!("{} --config {} wal push %p", stage.holdfast.display(), path.display());
    let other = other.archive_command(&command).start().await.expect("start another cluster");
    texts.name("OTHER", other.data().display());
    texts.name("OURS", identity(&stage.cluster).await);
    texts.name("THEIRS", identity(&other).await);
    let config = config
        .replace(&stage.cluster.data().display().to_string(), &other.data().display().to_string())
        .replace("/spool\"", "/other-spool\"");
    stage.write_config("other.toml", &config);
    let name = other.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await.expect("name the segment");
    other.sql("SELECT pg_create_restore_point('x'); SELECT pg_switch_wal()").await.expect("switch");
    let failed = "SELECT failed_count > 0 FROM pg_stat_archiver";
    other.wait_for(failed, Duration::from_mins(3)).await.expect("fail to archive");
    assert!(other.data().join(format!("pg_wal/archive_status/{name}.ready")).exists(), "PostgreSQL must keep {name}");
    let segment = other.data().join("pg_wal").join(&name).display().to_string();
    let output = stage.command_with(&path, &["wal", "push", &segment]).output().expect("run holdfast");
    texts.expect(
        "wal push",
        &output,
        12,
        "error: the archive main in $REPO belongs to system identifier $OURS, but $OTHER/pg_wal/$SEGMENT has \
             $THEIRS\n\
             while: checking who owns the archive main in $REPO, pushing $OTHER/pg_wal/$SEGMENT\n\
             hint:  nothing was written: give this cluster a `cluster.name` of its own, or, if it replaces the cluster \
             of this archive (after pg_upgrade or initdb), run `holdfast repo init --new-claim`\n",
    );
    let output = stage.command_with(&path, &["--output", "json", "wal", "push", &segment]).output();
    texts.expect(
        "wal push, as JSON",
        &output.expect("run holdfast"),
        12,
        "{\"error\":{\"code\":12,\"hint\":\"nothing was written: give this cluster a `cluster.name` of its own, or, if \
         it replaces the cluster of this archive (after pg_upgrade or initdb), run `holdfast repo init \
         --new-claim`\",\"message\":\"the archive main in $REPO belongs to system identifier $OURS, but \
         $OTHER/pg_wal/$SEGMENT has $THEIRS\",\"name\":\"wrong-cluster\",\"while\":\"checking who owns the archive \
         main in $REPO, pushing $OTHER/pg_wal/$SEGMENT\"}}\n",
    );
    let destination = other.data().join("pg_wal/RECOVERYXLOG").display().to_string();
    let output = stage.command_with(&path, &["wal", "get", &name, &destination]).output().expect("run holdfast");
    texts.expect(
        "wal get",
        &output,
        140,
        "error: the archive main in $REPO belongs to system identifier $OURS, but the cluster being \
             recovered has $THEIRS\n\
             while: fetching $SEGMENT from the archive\n\
             hint:  nothing was handed over: `cluster.name` in the configuration of restore_command must be the name \
             of the archive from which this data directory was restored\n",
    );
    let output = stage.command_with(&path, &["--no-progress", "check"]).output().expect("run holdfast");
    texts.expect(
        "check",
        &output,
        12,
        "error: the archive main in $REPO belongs to system identifier $OURS, but the data directory $OTHER \
             has $THEIRS\n\
             while: checking who owns the archive main in $REPO\n\
             hint:  nothing was written: give this cluster a `cluster.name` of its own, or, if it replaces the cluster \
             of this archive (after pg_upgrade or initdb), run `holdfast repo init --new-claim`\n",
    );
    assert_eq!(files_below(&stage.repository_folder()), before, "nothing may be written");
    texts.finish();
}
