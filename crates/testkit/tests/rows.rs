//! The journal's rules are PostgreSQL's: recoveries to every kind of target, with `cp` as the archive.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holdfast_testkit::postgres::{Cluster, Installation};
use holdfast_testkit::rows::{self, Bound, Pace, RowWriter, Target, time_text};
use holdfast_testkit::user::run_as_postgres;

fn copy(from: &Path, to: &Path) {
    let mut cp = Command::new("cp");
    cp.arg("-a").arg(from).arg(to);
    assert!(run_as_postgres(&mut cp).unwrap().status().unwrap().success());
}

async fn recover(primary: &Cluster, base: &Path, name: &str, settings: &[(&str, String)]) -> Vec<u64> {
    let data = primary.scratch().path().join(name);
    copy(base, &data);
    let mut restored = Cluster::adopt(primary.installation(), &data).unwrap();
    restored.override_setting("archive_mode", "off");
    let archive = primary.scratch().path().join("archive");
    restored.set("restore_command", &format!("cp {}/%f %p", archive.display())).unwrap();
    restored.set("recovery_target_action", "promote").unwrap();
    for (name, value) in settings {
        restored.set(name, value).unwrap();
    }
    restored.signal("recovery.signal").unwrap();
    restored.start().await.unwrap();
    restored.wait_promoted(Duration::from_secs(30)).await.unwrap();
    rows::found(&restored).await.unwrap()
}

#[tokio::test]
async fn recoveries_have_the_rows_that_the_journal_allows() {
    let Some(installation) = Installation::or_skip(18) else { return };
    let primary = Cluster::builder(&installation).archive_command("cp %p ../archive/%f").create().await.unwrap();
    primary.scratch().folder("archive").unwrap();
    let mut primary = primary;
    primary.start().await.unwrap();

    let writer = RowWriter::start(&primary, Pace::default()).await.unwrap();
    writer.wait_for_rows(20).await.unwrap();
    let base = primary.scratch().path().join("base");
    primary
        .tool("pg_basebackup", &["-D", base.to_str().unwrap(), "-c", "fast", "-X", "none", "--no-sync"])
        .await
        .unwrap();
    let after_backup = writer.journal().rows().len() as u64;
    writer.wait_for_rows(after_backup + 40).await.unwrap();
    writer.restore_point("here").await.unwrap();
    writer.wait_for_rows(after_backup + 100).await.unwrap();
    let journal = writer.stop().await.unwrap();
    assert!(!journal.in_doubt());

    let segment = primary.value("select pg_walfile_name(pg_switch_wal())").await.unwrap();
    let archived = format!("select last_archived_wal >= '{segment}' from pg_stat_archiver");
    primary.wait_for(&archived, Duration::from_secs(30)).await.unwrap();

    let row = &journal.rows()[after_backup as usize + 60];
    let lsn = |lsn: u64| format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF);
    let all = journal.rows().last().unwrap().lsn_after;
    let mut cases = vec![
        (Target::Name("here".to_owned()), vec![("recovery_target_name", "here".to_owned())]),
        (Target::Latest(all), vec![]),
    ];
    for (bound, inclusive) in [(Bound::Inclusive, "on"), (Bound::Exclusive, "off")] {
        let inclusive = ("recovery_target_inclusive", inclusive.to_owned());
        cases.extend([
            (
                Target::Time(row.commit_micros, bound),
                vec![("recovery_target_time", row.commit_time()), inclusive.clone()],
            ),
            (
                Target::Time(row.commit_micros + 1, bound),
                vec![("recovery_target_time", time_text(row.commit_micros + 1)), inclusive.clone()],
            ),
            (Target::Xid(row.xid, bound), vec![("recovery_target_xid", row.xid.to_string()), inclusive.clone()]),
            (Target::Lsn(row.lsn_before, bound), vec![("recovery_target_lsn", lsn(row.lsn_before)), inclusive.clone()]),
            (Target::Lsn(row.lsn_after, bound), vec![("recovery_target_lsn", lsn(row.lsn_after)), inclusive]),
        ]);
    }
    for (number, (target, settings)) in cases.iter().enumerate() {
        let found = recover(&primary, &base, &format!("restored{number}"), settings).await;
        journal.check(target, &found).unwrap();
    }
}

#[tokio::test]
async fn the_journal_continues_after_a_promotion() {
    let Some(installation) = Installation::or_skip(15) else { return };
    let mut primary = Cluster::builder(&installation).start().await.unwrap();
    let mut standby = Cluster::standby_of(&primary).await.unwrap();
    standby.start().await.unwrap();
    let writer = RowWriter::start(&primary, Pace::default()).await.unwrap();
    writer.wait_for_rows(20).await.unwrap();
    primary.kill9().await.unwrap();
    let old = writer.stop().await.unwrap();
    standby.promote().await.unwrap();

    let writer = RowWriter::continue_from(&standby, Pace::default(), &old).await.unwrap();
    let kept = writer.journal().rows().len() as u64;
    writer.wait_for_rows(kept + 20).await.unwrap();
    let new = writer.stop().await.unwrap();
    let all = new.rows().last().unwrap().lsn_after;
    new.check(&Target::Latest(all), &rows::found(&standby).await.unwrap()).unwrap();
}
