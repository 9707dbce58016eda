//! Backups that fail. None of them leaves anything that looks like a backup, and the next one cleans up.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::time::Duration;

use holdfast_repo::record::{ClaimRecord, decode_plain, encode_plain};
use holdfast_testkit::disk::SmallDisk;
use holdfast_testkit::postgres::{Cluster, Shutdown};
use holdfast_testkit::user::is_root;

use super::kit::{Damage, files_below, identity, quietly, texts_of};
use crate::stage::{Plan, Seal, Stage, StoreKind};

fn local() -> Plan {
    Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() }
}

/// All objects of backups, of any kind.
fn remains(stage: &Stage) -> Vec<String> {
    let objects = files_below(&stage.repository_folder());
    objects.into_iter().filter(|name| name.contains("/backups/") || name.contains("/packs/")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_backed_up() {
    let Some(mut stage) = Stage::start(18, local()).await else { return };
    let mut texts = texts_of(&stage);
    let config = stage.config_text();
    let data = stage.cluster.data().display().to_string();

    // Another backup of the same directory holds its lock.
    let lock = fs::File::open(stage.cluster.data().join("PG_VERSION")).expect("open PG_VERSION");
    lock.lock().expect("take the lock");
    texts.expect(
        "another backup is running",
        &quietly(&stage, &["backup"]),
        70,
        "error: another backup of $DATA is running\n\
             while: backing up the cluster\n\
             hint:  wait until it has ended, then run this again\n",
    );
    drop(lock);

    if is_root() {
        let path = "CREATE TABLE t (n int); CHECKPOINT; SELECT pg_relation_filepath('t')";
        let path = stage.cluster.sql(path).await.expect("make a table")[0][0].clone();
        let file = stage.cluster.data().join(path);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("close a file");
        chown(&file, Some(0), Some(0)).expect("give a file to root");
        texts.expect(
            "a file that cannot be read",
            &quietly(&stage, &["backup"]),
            31,
            "error: cannot open $DATA/$FILE: Permission denied (os error 13)\n\
                 while: copying the data directory, taking backup $BACKUP\n\
                 hint:  run holdfast as the user that PostgreSQL runs as (sudo -u postgres), and check the owner and \
                 mode of the file\n",
        );
        stage.scratch.user().own(&file).expect("give the file back");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("open the file");
        assert_eq!(remains(&stage), [""; 0], "nothing may be left of a backup that failed");
    }

    let other = Cluster::builder(&stage.installation).wal_segment_mib(1).start().await.expect("start another cluster");
    texts.name("OTHER", other.data().display());
    texts.name("OURS", identity(&stage.cluster).await);
    texts.name("THEIRS", identity(&other).await);
    let before = files_below(&stage.repository_folder());
    stage.write_config("holdfast.toml", &config.replace(&data, &other.data().display().to_string()));
    texts.expect(
        "another cluster's directory",
        &quietly(&stage, &["backup"]),
        12,
        "error: the archive main in $REPO belongs to system identifier $OURS, but the data directory $OTHER \
             has $THEIRS\n\
             while: checking who owns the archive main in $REPO\n\
             hint:  nothing was written: give this cluster a `cluster.name` of its own, or, if it replaces the cluster \
             of this archive (after pg_upgrade or initdb), run `holdfast repo init --new-claim`\n",
    );
    texts.expect(
        "another cluster's directory, init",
        &quietly(&stage, &["repo", "init"]),
        12,
        "error: the archive main in $REPO belongs to system identifier $OURS, but the data directory $OTHER \
             has $THEIRS\n\
             while: checking who owns the archive main in $REPO\n\
             hint:  nothing was written: give this cluster a `cluster.name` of its own, or, if it replaces the cluster \
             of this archive (after pg_upgrade or initdb), run `holdfast repo init --new-claim`\n",
    );
    let line = format!("connection = \"{}\"\n\n[[repo]]", other.connection_string("postgres"));
    stage.write_config("holdfast.toml", &config.replacen("[[repo]]", &line, 1));
    texts.expect(
        "a connection to another server",
        &quietly(&stage, &["backup"]),
        12,
        "error: the connection leads to a server with system identifier $THEIRS, but $DATA has $OURS\n\
             while: backing up the cluster\n\
             hint:  set `cluster.connection` and `cluster.pgdata` to the same server\n",
    );
    assert_eq!(files_below(&stage.repository_folder()), before, "nothing may be written");

    stage.write_config("holdfast.toml", &config.replace(&data, &stage.scratch.path().display().to_string()));
    texts.expect(
        "not a data directory",
        &quietly(&stage, &["backup"]),
        31,
        "error: cannot read $DIR/global/pg_control: No such file or directory (os error 2)\n\
             while: backing up the cluster\n\
             hint:  check the path; for the data directory it is `cluster.pgdata`\n",
    );
    stage.write_config("holdfast.toml", &config);

    let claim = stage.repository_folder().join("main/claims/1.json");
    let damage = Damage::change(&claim, |bytes| {
        let mut record: ClaimRecord = decode_plain(bytes).expect("read the claim");
        record.pg_major = 17;
        *bytes = encode_plain(&record).expect("write the claim");
    });
    texts.expect(
        "another major version",
        &quietly(&stage, &["backup"]),
        13,
        "error: the archive main in $REPO is of PostgreSQL 17, but the data directory $DATA is of PostgreSQL \
             18\n\
             while: checking who owns the archive main in $REPO\n\
             hint:  nothing was written: after pg_upgrade run `holdfast repo init --new-claim`; otherwise \
             correct `cluster.name`\n",
    );
    drop(damage);

    let mut wrong = config.clone();
    wrong = wrong.replacen("[[repo]]", "connection = \"host=/nowhere user=postgres dbname=postgres\"\n\n[[repo]]", 1);
    stage.write_config("holdfast.toml", &wrong);
    texts.expect(
        "a socket that is not there",
        &quietly(&stage, &["backup"]),
        50,
        "error: error connecting to server: No such file or directory (os error 2)\n\
             while: connecting to PostgreSQL (cluster.connection)\n\
             hint:  check that the server runs and that `cluster.connection` leads to it\n",
    );
    let line = format!("connection = \"{}\"\n\n[[repo]]", stage.cluster.connection_string("nothing"));
    stage.write_config("holdfast.toml", &config.replacen("[[repo]]", &line, 1));
    texts.expect(
        "a database that is not there",
        &quietly(&stage, &["backup"]),
        51,
        "error: FATAL: database \"nothing\" does not exist (SQLSTATE 3D000)\n\
             while: connecting to PostgreSQL (cluster.connection)\n\
             hint:  name an existing database in `cluster.connection`, such as dbname=postgres\n",
    );
    let line = line.replace("user=postgres", "user=nobody").replace("dbname=nothing", "dbname=postgres");
    stage.write_config("holdfast.toml", &config.replacen("[[repo]]", &line, 1));
    texts.expect(
        "a role that is not there",
        &quietly(&stage, &["backup"]),
        51,
        "error: FATAL: role \"nobody\" does not exist (SQLSTATE 28000)\n\
             while: connecting to PostgreSQL (cluster.connection)\n\
             hint:  check the user in `cluster.connection` against pg_hba.conf\n",
    );
    stage.write_config("holdfast.toml", &config);

    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
    texts.expect(
        "the server is stopped",
        &quietly(&stage, &["backup"]),
        50,
        "error: no server runs in $DATA: there is no postmaster.pid\n\
             while: backing up the cluster\n\
             hint:  start the server; `cluster.connection` may look like \"host=/var/run/postgresql user=postgres \
             dbname=postgres\"; if it is not set, Holdfast finds the server by the data directory\n",
    );
    assert_eq!(remains(&stage), [""; 0], "nothing may be left of a backup that failed");
    texts.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_server() {
    let settings = vec![("wal_level", "minimal".to_owned()), ("max_wal_senders", "0".to_owned())];
    let Some(mut stage) = Stage::start(18, Plan { archive: false, settings, ..local() }).await else { return };
    let mut texts = texts_of(&stage);
    texts.expect(
        "wal_level = minimal",
        &quietly(&stage, &["backup"]),
        10,
        "error: wal_level is \"minimal\"\n\
             while: backing up the cluster\n\
             hint:  set wal_level = replica in postgresql.conf and restart the server\n",
    );
    stage.cluster.set("wal_level", "replica").expect("set");
    stage.cluster.restart().await.expect("restart");
    texts.expect(
        "archiving is off",
        &quietly(&stage, &["backup"]),
        0,
        "warning: the server does not archive its WAL (archive_mode, archive_command): this backup can be restored to \
         its own end, but not to a later moment\n",
    );
    // The backup itself sends the segments that the archiver does not send, while they are in pg_wal. `check` reports
    // what is wrong.
    stage.cluster.set("archive_mode", "on").expect("set");
    stage.cluster.set("archive_command", "false").expect("set");
    stage.cluster.restart().await.expect("restart");
    stage.cluster.sql("CREATE TABLE fails (n int); SELECT pg_switch_wal()").await.expect("switch");
    let failed = "SELECT last_failed_time IS NOT NULL FROM pg_stat_archiver";
    stage.cluster.wait_for(failed, Duration::from_mins(3)).await.expect("wait for the archiver to fail");
    texts.expect(
        "archive_command fails",
        &quietly(&stage, &["backup"]),
        0,
        "warning: the archiver's last attempt failed, at $SEGMENT: until it succeeds, this backup can be restored to \
         its own end, but not to a later moment; see pg_stat_archiver and the server's log\n",
    );
    let config = stage.config_text().replace("[backup]\n", "[backup]\narchive_timeout = \"2s\"\n");
    stage.write_config("holdfast.toml", &config);
    texts.expect(
        "check with a failing archive_command",
        &quietly(&stage, &["check"]),
        52,
        "error: WAL segment $SEGMENT was not archived within 2s\n\
             while: waiting for WAL segment $SEGMENT to reach every repository\n\
             hint:  check `archive_command` on the primary and the last failure in pg_stat_archiver; an idle primary \
             does not finish its segment: for backups of a standby set `cluster.primary_connection`\n",
    );
    texts.finish();
}

/// A standby cannot finish the segment of the stop LSN, and an idle primary does not: the backup is given up.
#[tokio::test(flavor = "multi_thread")]
async fn wal_that_is_not_archived_in_time() {
    let Some(stage) = Stage::start(18, local()).await else { return };
    stage.archive_now().await;
    let mut standby = Cluster::standby_of(&stage.cluster).await.expect("make a standby");
    standby.start().await.expect("start the standby");
    let write = "CREATE TABLE t (n int); CHECKPOINT; SELECT pg_current_wal_flush_lsn()";
    let written = stage.cluster.sql(write).await.expect("write")[0][0].clone();
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
    standby.wait_for(&replayed, Duration::from_mins(3)).await.expect("replay");
    let data = |cluster: &Cluster| cluster.data().display().to_string();
    let config = stage.config_text().replace(&data(&stage.cluster), &data(&standby));
    stage.write_config("holdfast.toml", &config);
    let mut texts = texts_of(&stage);
    let before = remains(&stage);
    let output = quietly(&stage, &["backup", "--archive-timeout", "2s"]);
    texts.expect(
        "backup of a standby",
        &output,
        52,
        "error: WAL segment $SEGMENT was not archived within 2s\n\
             while: waiting for the WAL of backup $BACKUP ($SEGMENT to $SEGMENT), taking backup $BACKUP\n\
             hint:  check `archive_command` on the primary and the last failure in pg_stat_archiver; an idle primary \
             does not finish its segment: for backups of a standby set `cluster.primary_connection`\n",
    );
    let output = stage.run(&["--output", "json", "backup", "--archive-timeout", "1s"]);
    texts.expect(
        "backup of a standby, as JSON",
        &output,
        52,
        "{\"error\":{\"code\":52,\"hint\":\"check `archive_command` on the primary and the last failure in \
         pg_stat_archiver; an idle primary does not finish its segment: for backups of a standby set \
         `cluster.primary_connection`\",\"message\":\"WAL segment $SEGMENT was not archived within \
         1s\",\"name\":\"wal-not-archived\",\"while\":\"waiting for the WAL of backup $BACKUP ($SEGMENT to $SEGMENT), \
         taking backup $BACKUP\"}}\n",
    );
    assert_eq!(remains(&stage), before, "nothing may be left of a backup that failed");
    assert!(stage.ok(&["list"]).contains("no complete backup"));
    texts.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_repository() {
    let Some(disk) = SmallDisk::or_skip(32 << 20) else { return };
    let Some(stage) = Stage::start(18, local()).await else { return };
    let mut texts = texts_of(&stage);
    texts.name("DISK", disk.path().display());
    let mut config = stage.config_text();
    config = config.replace(
        &stage.scratch.path().join("repository").display().to_string(),
        &format!("{}/r", disk.path().display()),
    );
    stage.write_config("holdfast.toml", &config);
    stage.ok(&["repo", "init"]);
    let filler = disk.path().join("filler");
    let room = |left: u64| {
        let free = disk.free_bytes().expect("ask the disk");
        vec![0; usize::try_from(free - left).expect("a small disk")]
    };
    fs::write(&filler, room(1 << 20)).expect("fill the disk");
    texts.expect(
        "backup",
        &quietly(&stage, &["backup"]),
        30,
        "error: no space left in file://$DISK/r: No space left on device (os error 28)\n\
             while: put main/packs/$BACKUP/000001.pack to file://$DISK/r, storing \
             main/packs/$BACKUP/000001.pack, taking backup $BACKUP\n\
             hint:  free or add space; what is already stored is not lost\n",
    );
    let objects = files_below(&disk.path().join("r"));
    assert!(!objects.iter().any(|name| name.contains("/backups/") || name.contains("/packs/")), "{objects:?}");

    // PostgreSQL keeps WAL that cannot be archived, and archives it when there is room again.
    fs::remove_file(&filler).expect("make room");
    fs::write(&filler, room(16 << 10)).expect("fill the disk");
    let name = stage.cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await.expect("name the segment");
    let noise =
        "CREATE TABLE noise AS SELECT md5(random()::text) FROM generate_series(1, 9000); SELECT pg_switch_wal()";
    stage.cluster.sql(noise).await.expect("write WAL");
    let failed = "SELECT failed_count > 0 FROM pg_stat_archiver";
    stage.cluster.wait_for(failed, Duration::from_mins(3)).await.expect("fail to archive");
    let ready = stage.cluster.data().join(format!("pg_wal/archive_status/{name}.ready"));
    assert!(ready.exists(), "PostgreSQL must keep {name}");
    let segment = stage.cluster.data().join("pg_wal").join(&name).display().to_string();
    texts.expect(
        "wal push",
        &quietly(&stage, &["wal", "push", &segment]),
        30,
        "error: no space left in file://$DISK/r: No space left on device (os error 28)\n\
             while: put main/wal/1/$TIMELINE/$FOLDER/$SEGMENT.zst to file://$DISK/r\n\
             hint:  free or add space; what is already stored is not lost\n",
    );
    fs::remove_file(&filler).expect("make room");
    stage.archive_now().await;
    assert!(!ready.exists(), "{name} is archived now");
    stage.ok(&["backup"]);
    texts.finish();
}
