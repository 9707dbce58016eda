//! Every PostgreSQL of this machine starts, answers, is broken and recovers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use holdfast_testkit::KitError;
use holdfast_testkit::postgres::{Cluster, Installation, Shutdown};

async fn starts_answers_stops(major: u16) {
    let Some(installation) = Installation::or_skip(major) else { return };
    let mut cluster = Cluster::builder(&installation).start().await.unwrap();
    assert!(cluster.is_running());
    let version: u16 = cluster
        .value("show server_version_num")
        .await
        .unwrap()
        .parse::<u32>()
        .unwrap()
        .div_euclid(10_000)
        .try_into()
        .unwrap();
    assert_eq!(version, major);
    assert_eq!(cluster.value("show data_checksums").await.unwrap(), "on");
    let rows =
        cluster.sql("create table t as select g from generate_series(1, 3) g; select g, null from t").await.unwrap();
    assert_eq!(rows, [["1", ""], ["2", ""], ["3", ""]]);

    cluster.kill9().await.unwrap();
    assert!(!cluster.is_running());
    cluster.start().await.unwrap();
    assert_eq!(cluster.value("select count(*) from t").await.unwrap(), "3");

    cluster.stop(Shutdown::Fast).await.unwrap();
    assert!(!cluster.is_running());
    assert!(!cluster.data().join("postmaster.pid").exists());
    assert!(cluster.log_text().contains("database system is shut down"));
}

macro_rules! each_major {
    ($($name:ident $major:literal)*) => {$(
        #[tokio::test]
        async fn $name() {
            starts_answers_stops($major).await;
        }
    )*};
}
each_major! { postgresql_13 13 postgresql_14 14 postgresql_15 15 postgresql_16 16 postgresql_17 17 postgresql_18 18 postgresql_19 19 }

#[tokio::test]
async fn a_cluster_without_checksums_and_with_small_segments() {
    for major in [15, 18] {
        let Some(installation) = Installation::or_skip(major) else { return };
        let cluster = Cluster::builder(&installation).checksums(false).wal_segment_mib(1).start().await.unwrap();
        assert_eq!(cluster.value("show data_checksums").await.unwrap(), "off");
        assert_eq!(cluster.value("show wal_segment_size").await.unwrap(), "1MB");
    }
}

#[tokio::test]
async fn a_standby_streams_and_is_promoted() {
    // 15 has its own pg_basebackup, 16 borrows the one of 18.
    for major in [15, 16] {
        let Some(installation) = Installation::or_skip(major) else { return };
        let primary = Cluster::builder(&installation).start().await.unwrap();
        let mut standby = Cluster::standby_of(&primary).await.unwrap();
        standby.start().await.unwrap();
        primary.sql("create table t (n int)").await.unwrap();
        let limit = Duration::from_secs(30);
        standby.wait_for("select to_regclass('t') is not null", limit).await.unwrap();
        standby.promote().await.unwrap();
        standby.sql("insert into t values (1)").await.unwrap();
        assert_eq!(primary.value("select count(*) from t").await.unwrap(), "0");
    }
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let Some(installation) = Installation::or_skip(15) else { return };
    let mut cluster = Cluster::builder(&installation).setting("shared_buffers", "no size").create().await.unwrap();
    let error = cluster.start().await.unwrap_err();
    assert!(matches!(error, KitError::StartFailed { .. }), "{error}");
    assert!(error.to_string().contains("shared_buffers"), "{error}");
}

#[tokio::test]
async fn archive_command_runs_as_the_owner_of_the_cluster() {
    let Some(installation) = Installation::or_skip(15) else { return };
    let cluster = Cluster::builder(&installation).archive_command("cp %p ../%f").start().await.unwrap();
    let segment = cluster.value("select pg_walfile_name(pg_switch_wal())").await.unwrap();
    let archived = cluster.scratch().path().join(&segment);
    cluster
        .wait_for(&format!("select last_archived_wal >= '{segment}' from pg_stat_archiver"), Duration::from_secs(30))
        .await
        .unwrap();
    assert!(archived.exists());
}

#[tokio::test]
async fn an_adopted_directory_listens_elsewhere_than_its_original() {
    let Some(installation) = Installation::or_skip(15) else { return };
    let mut original = Cluster::builder(&installation).start().await.unwrap();
    original.sql("create table t as select 1 as n").await.unwrap();
    original.stop(Shutdown::Fast).await.unwrap();
    let copy = original.scratch().path().join("copy");
    let mut cp = std::process::Command::new("cp");
    cp.arg("-a").arg(original.data()).arg(&copy);
    assert!(cp.status().unwrap().success());

    original.start().await.unwrap();
    let mut adopted = Cluster::adopt(&installation, &copy).unwrap();
    adopted.override_setting("archive_mode", "off");
    adopted.start().await.unwrap();
    assert_ne!(adopted.port(), original.port());
    assert_eq!(adopted.value("select n from t").await.unwrap(), "1");
    drop(adopted);
    assert!(copy.join("PG_VERSION").exists());
}

#[tokio::test]
async fn a_dropped_cluster_leaves_no_server_and_no_folder() {
    let Some(installation) = Installation::or_skip(18) else { return };
    let cluster = Cluster::builder(&installation).start().await.unwrap();
    let (pid, folder) = (cluster.pid().unwrap(), cluster.scratch().path().to_path_buf());
    drop(cluster);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!folder.exists());
}
