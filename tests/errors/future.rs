//! A PostgreSQL of a later major than this release knows: every verb refuses it with the same two lines and code 13,
//! and writes nothing. Nobody is sent to look for a fault of the disk.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use holdfast_repo::record::{ClaimRecord, decode_plain, encode_plain};

use super::kit::{Damage, files_below};
use crate::stage::{Plan, Seal, Stage, StoreKind};

const ADVICE: &str = "hint:  nothing was written: use a release of Holdfast that supports this PostgreSQL, as its \
                      changelog says, or a released PostgreSQL of 13 to 19\n";

/// Gives a data directory the numbers of a PostgreSQL that does not exist yet. Its server continues to run: it reads
/// neither file again.
fn make_it_of(pgdata: &Path, major: &str) -> [Damage; 2] {
    let control = Damage::change(&pgdata.join("global/pg_control"), |bytes| {
        let numbers = [2001_u32.to_le_bytes(), 202_710_061_u32.to_le_bytes()].concat();
        bytes[8..16].copy_from_slice(&numbers);
    });
    [control, Damage::change(&pgdata.join("PG_VERSION"), |bytes| *bytes = format!("{major}\n").into_bytes())]
}

/// A file in `pg_wal` with the WAL of that PostgreSQL.
fn wal_of_the_future(stage: &Stage, segment: &str) -> String {
    let folder = stage.cluster.data().join("pg_wal");
    let path = folder.join(segment);
    let newest = fs::read_dir(&folder).expect("list").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let some = newest.filter(|name| name.len() == 24).max().expect("a segment");
    fs::copy(folder.join(some), &path).expect("copy a segment");
    let file = fs::OpenOptions::new().write(true).open(&path).expect("open the segment");
    file.write_all_at(&0xD130_u16.to_le_bytes(), 0).expect("write the magic");
    stage.scratch.user().own(&path).expect("give the segment to PostgreSQL's user");
    path.display().to_string()
}

fn plan() -> Plan {
    Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, archive: false, ..Plan::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_major_is_refused_in_the_same_words_everywhere() {
    let Some(stage) = Stage::start(18, plan()).await else { return };
    let segment = "0000000100000000000000F0";
    let path = wal_of_the_future(&stage, segment);
    let new = stage.config_text().replace("/repository\"", "/another\"");
    let new = stage.write_config("new.toml", &new);
    let before = files_below(&stage.repository_folder());
    for (major, what) in [
        ("20", "PostgreSQL 20 is not supported: 13 to 19 are"),
        (
            "19",
            "this build of PostgreSQL 19 is not supported: the released ones of 13 to 19 are, on 64-bit little-endian \
             machines",
        ),
    ] {
        let _numbers = make_it_of(stage.cluster.data(), major);
        for arguments in
            [&["repo", "init"][..], &["repo", "init", "--new-claim"], &["check"], &["backup"], &["wal", "push", &path]]
        {
            let (code, text) = stage.fails(arguments);
            assert_eq!(code, 13, "{arguments:?}: {text}");
            assert!(text.contains(&format!("error: {what}\nwhile: ")), "{arguments:?}: {text}");
            assert!(text.ends_with(ADVICE), "{arguments:?}: {text}");
            assert!(!text.contains("disk"), "{arguments:?}: {text}");
        }
        let output = stage.command_with(&new, &["repo", "init"]).output().expect("run holdfast");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(13), "{text}");
        assert!(text.contains(&format!("error: {what}\n")) && text.ends_with(ADVICE), "{text}");
    }
    assert_eq!(files_below(&stage.repository_folder()), before, "something was stored");
    assert!(!stage.scratch.path().join("another").exists(), "something was stored");

    // In a folder that is no data directory, only the magic is known.
    let elsewhere = stage.scratch.folder("elsewhere").expect("make a folder").join(segment);
    fs::copy(&path, &elsewhere).expect("copy the segment");
    stage.scratch.user().own(&elsewhere).expect("give it away");
    let (code, text) = stage.fails(&["wal", "push", &elsewhere.display().to_string()]);
    let expected = "error: PostgreSQL with D130 at the beginning of its WAL pages is not supported: 13 to 19 are\n";
    assert!(code == 13 && text.starts_with(expected) && text.ends_with(ADVICE), "{code} {text}");
    fs::remove_file(&path).expect("remove the segment");
}

/// The archive was claimed by a later release, for a PostgreSQL that only it knows.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_an_unknown_major_is_refused() {
    let Some(stage) = Stage::start(18, Plan { archive: true, ..plan() }).await else { return };
    stage.archive_now().await;
    let name = stage.cluster.value("SELECT last_archived_wal FROM pg_stat_archiver").await.expect("ask");
    let _claim = Damage::change(&stage.repository_folder().join("main/claims/1.json"), |bytes| {
        let mut record: ClaimRecord = decode_plain(bytes).expect("read the claim");
        record.pg_major = 20;
        *bytes = encode_plain(&record).expect("write the claim");
    });
    let target = stage.target("wal-file").display().to_string();
    let recovery = ["wal", "get", &name, &target];
    let standby = ["wal", "get", "--standby", &name, &target];
    for (arguments, expected) in [(&recovery[..], 128 + 13), (&standby, 13)] {
        let (code, text) = stage.fails(arguments);
        assert_eq!(code, expected, "{text}");
        assert!(
            text.contains("error: claim 1 of the archive main: PostgreSQL 20 is not supported: 13 to 19 are\nwhile: "),
            "{text}"
        );
        assert!(text.ends_with(ADVICE), "{text}");
    }
    assert!(!Path::new(&target).exists());
}
