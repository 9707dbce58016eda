#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use std::os::unix::fs::symlink;

use holdfast_pgtypes::WalSegmentSize;
use holdfast_repo::record::TablespaceEntry;

use super::*;

/// A copy, and beside it another data directory, whose server is this process.
struct Case {
    directory: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let case = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["live/global", "live/base/5", "live/pg_replslot/one", "live/pg_tblspc", "livewal", "livespace"] {
            fs::create_dir_all(case.path(name)).unwrap();
        }
        for name in ["copy/global", "copy/base/5", "copy/pg_replslot", "copy/pg_stat_tmp", "copy/pg_tblspc"] {
            fs::create_dir_all(case.path(name)).unwrap();
        }
        fs::create_dir_all(case.path("copy/pg_wal/archive_status")).unwrap();
        case.link("live/pg_wal", "livewal");
        case.link("live/pg_tblspc/16400", "livespace");
        case.write("live/pg_replslot/one/state");
        case.write("copy/postmaster.pid");
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), "x").unwrap();
    }

    /// Replaces whatever is there with a link.
    fn link(&self, name: &str, target: &str) {
        drop(fs::remove_dir_all(self.path(name)));
        symlink(self.path(target), self.path(name)).unwrap();
    }

    fn removal(&self) -> Removal {
        Removal::of(&self.path("copy"), PgVersion::V18).unwrap()
    }

    fn layout(&self, tablespace: Option<&str>) -> Layout {
        let entry = |name| TablespaceEntry {
            oid: 16400,
            name: "16400".to_owned(),
            path: self.path(name).display().to_string(),
        };
        let tablespaces: Vec<TablespaceEntry> = tablespace.map(entry).into_iter().collect();
        Layout::new(&self.path("copy"), &tablespaces, &[]).unwrap()
    }

    fn foreign(&self, tablespace: Option<&str>, places: &[Place]) -> Result<(), String> {
        let live = RunningServer::of_process(std::process::id().cast_signed(), &self.path("live"));
        let looked = refuse_foreign(&self.layout(tablespace), &self.removal(), places, &[live]);
        looked.map_err(|e| e.to_string().replace(self.directory.path().to_str().unwrap(), ""))
    }
}

#[test]
fn a_copy_with_volumes_of_its_own_is_taken() {
    let case = Case::new();
    case.foreign(None, &[]).unwrap();
    fs::create_dir_all(case.path("wal/archive_status")).unwrap();
    case.write("wal/000000010000000000000001");
    case.link("copy/pg_wal", "wal");
    fs::create_dir(case.path("space")).unwrap();
    // The map names another directory, and PostgreSQL makes the link again from it.
    case.link("copy/pg_tblspc/16400", "livespace");
    case.foreign(Some("space"), &[Place::new("the spool", &case.path("spool"))]).unwrap();
    // Links that do not lead to a server, and a link without a target.
    case.link("copy/log", "logs");
    symlink("/etc", case.path("copy/base/5/etc")).unwrap();
    case.foreign(Some("space"), &[]).unwrap();
    assert_eq!(case.removal().run().unwrap(), 3);
    assert!(is_link(&case.path("copy/pg_wal")).unwrap());
    assert_eq!(list(&case.path("wal")).unwrap().len(), 2, "archive_status and summaries");
}

#[test]
fn every_link_to_what_a_living_server_uses_is_refused() {
    for (link, target) in [
        ("pg_wal", "livewal"),
        ("pg_wal", "live/pg_replslot"),
        ("pg_tblspc/16400", "livespace"),
        ("global", "live/global"),
        ("base", "live/base"),
        ("base/5", "live/base/5"),
        ("base/5/16384", "live/base/5/16384"),
        ("pg_xact", "live"),
    ] {
        let case = Case::new();
        case.link(&format!("copy/{link}"), target);
        let error = case.foreign(None, &[]).unwrap_err();
        let expected = format!("/copy/{link} leads to /{target}, which is in use by the PostgreSQL server of /live ");
        assert!(error.contains(&expected), "{link}: {error}");
    }
    // Both have the same directory, as with a bind mount, without a link in the copy.
    for shared in ["pg_replslot", "pg_stat_tmp", "pg_wal"] {
        let case = Case::new();
        case.link(&format!("live/{shared}"), &format!("copy/{shared}"));
        let error = case.foreign(None, &[]).unwrap_err();
        assert!(error.contains("is in use by the PostgreSQL server of /live "), "{shared}: {error}");
    }
    let case = Case::new();
    let error = case.foreign(Some("livespace"), &[]).unwrap_err();
    assert!(error.contains("/livespace is in use by the PostgreSQL server of /live "), "{error}");
    assert!(error.contains("tablespace 16400"), "{error}");
    let case = Case::new();
    fs::create_dir(case.path("space")).unwrap();
    case.link("space/PG_18_202506291", "livespace");
    let error = case.foreign(Some("space"), &[]).unwrap_err();
    assert!(error.contains("/space/PG_18_202506291 leads to /livespace, which is in use"), "{error}");
}

#[test]
fn links_at_emptied_directories_are_not_followed() {
    let case = Case::new();
    case.link("copy/pg_replslot", "live/pg_replslot");
    case.link("copy/pg_stat_tmp", "nowhere");
    case.foreign(None, &[]).unwrap();
    let removal = case.removal();
    let notes = removal.notes();
    assert!(notes.iter().any(|note| note.starts_with("pg_replslot was a link to ")), "{notes:?}");
    removal.run().unwrap();
    assert!(case.path("live/pg_replslot/one/state").exists());
    for name in ["copy/pg_replslot", "copy/pg_stat_tmp"] {
        assert!(fs::symlink_metadata(case.path(name)).unwrap().is_dir());
        assert_eq!(list(&case.path(name)).unwrap().len(), 0);
    }
}

#[test]
fn what_holdfast_needs_and_what_is_in_the_way_is_refused() {
    let case = Case::new();
    fs::create_dir(case.path("wal")).unwrap();
    case.link("copy/pg_wal", "wal");
    let refused = |case: &Case, place: &str, words: &str| {
        let error = case.foreign(None, &[Place::new("the key file", &case.path(place))]).unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    refused(&case, "wal/key", "the key file /wal/key is inside the directory to which /copy/pg_wal leads, /wal");
    refused(&case, "", "the directory to restore into, /copy is inside the key file /");
    refused(&case, "copy/key", "the key file /copy/key is inside the directory to restore into, /copy");
    // To empty it would remove the copy's own data.
    case.link("copy/pg_tblspc/16400", "wal/space");
    fs::create_dir(case.path("wal/space")).unwrap();
    let error = case.foreign(None, &[]).unwrap_err();
    assert!(error.contains("the directory to which /copy/pg_wal leads, /wal"), "{error}");
    for (file, found) in [
        ("wal/deep/holdfast.json", "a Holdfast repository, /copy/pg_wal/deep"),
        ("wal/old/global/pg_control", "another data directory, /copy/pg_wal/old"),
        ("global/pg_control", "a link to the WAL of another data directory, "),
    ] {
        let case = Case::new();
        fs::create_dir(case.path("wal")).unwrap();
        case.link("copy/pg_wal", "wal");
        case.write(file);
        let error = case.foreign(None, &[]).unwrap_err();
        assert!(error.contains(found), "{error}");
    }
}

/// No server runs there; it may be started again.
#[test]
fn links_to_files_of_another_data_directory_are_refused() {
    for name in ["base", "pg_xact", "base/5", "log"] {
        let case = Case::new();
        case.write("stopped/global/pg_control");
        fs::create_dir_all(case.path("stopped").join(name)).unwrap();
        case.link(&format!("copy/{name}"), &format!("stopped/{name}"));
        let error = case.foreign(None, &[]).unwrap_err();
        let found = format!("/copy/{name}, a link to files of another data directory, ");
        assert!(error.contains(&found) && error.contains("/stopped"), "{error}");
    }
    // Inside the copy itself a link leads nowhere else.
    let case = Case::new();
    case.write("copy/global/pg_control");
    fs::create_dir_all(case.path("copy/base/6")).unwrap();
    case.link("copy/base/5", "copy/base/6");
    case.foreign(None, &[]).unwrap();
}

#[test]
fn only_wal_that_the_archive_has_is_removed() {
    let listed = include_str!("../../../../contract/tests/samples/snapshot-list.json");
    let listed: serde_json::Value = serde_json::from_str(listed).unwrap();
    let mut record: SnapshotRecord = serde_json::from_value(listed["repositories"][0]["snapshots"][0].clone()).unwrap();
    record.wal_segment_size = WalSegmentSize::new(16 << 20).unwrap();
    record.stop_segment = "000000020000000000000008".parse().unwrap();
    let names = ["000000020000000000000009", "00000003000000000000000A", "00000003.history"];
    let stored = WalInventory::from_files(record.wal_segment_size, names.map(|name| name.parse().unwrap()));
    let lost =
        |case: &Case, discard| refuse_lost_wal(&case.removal(), &record, &stored, discard).map_err(|e| e.to_string());
    let case = Case::new();
    let put = |name: &str, mark: bool| {
        case.write(&format!("copy/pg_wal/{name}"));
        if mark {
            case.write(&format!("copy/pg_wal/archive_status/{name}.ready"));
        }
    };
    // Of the copy itself, or stored, or not meant for the archive.
    for name in ["000000010000000000000007", "000000020000000000000008", "00000002.history"].iter().chain(&names) {
        put(name, true);
    }
    put("000000020000000000000008.00000028.backup", true);
    put("00000002000000000000000B", false);
    case.write("copy/pg_wal/archive_status/00000002000000000000000C.ready");
    lost(&case, false).unwrap();
    for name in ["00000002000000000000000D", "00000004.history", "00000003000000000000000B.partial"] {
        put(name, true);
    }
    let error = lost(&case, false).unwrap_err();
    let words = "holds WAL that was not archived: 3 files, 00000002000000000000000D to 00000004.history";
    assert!(error.contains(words), "{error}");
    lost(&case, true).unwrap();

    let segment = include_bytes!("../../../../pgtypes/tests/fixtures/segment-0A.18");
    fs::write(case.path("copy/pg_wal/00000002000000000000000B"), segment).unwrap();
    let error = lost(&case, true).unwrap_err();
    assert!(error.contains("holds WAL of another cluster (system identifier "), "{error}");
}
