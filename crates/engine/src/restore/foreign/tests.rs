#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use std::fs;
use std::os::unix::net::UnixListener;

use holdfast_repo::manifest::{FileEntry, FileKind, ManifestHeader};

use super::super::layout::check;
use super::*;

struct Case {
    directory: tempfile::TempDir,
    layout: Layout,
    manifest: Manifest,
    index: PathIndex,
}

impl Case {
    /// A backup of `base`, `base/5` and `PG_VERSION`, over `pgdata`.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(&directory.path().join("pgdata"), &[], &[]).unwrap();
        let header = ManifestHeader {
            backup: "20260822T101500Z".to_owned(),
            cluster: "main".to_owned(),
            extent_bytes: 1 << 20,
            details: serde_json::Map::new(),
        };
        let mut manifest = Manifest::new(header);
        let file = FileKind::file(0, &[]);
        for (path, kind) in [
            ("", FileKind::Directory),
            ("base", FileKind::Directory),
            ("base/5", FileKind::Directory),
            ("PG_VERSION", file),
        ] {
            let entry = FileEntry { path: path.as_bytes(), kind, mode: 0o700, size_bytes: 0, mtime_seconds: 0 };
            manifest.push(&entry).unwrap();
        }
        let index = check(&manifest, &layout).unwrap();
        let case = Self { directory, layout, manifest, index };
        case.write("pgdata/PG_VERSION");
        case.write("pgdata/base/5/PG_VERSION");
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), "x").unwrap();
    }

    fn contents(&self, places: &[Place]) -> Result<(), String> {
        let found = refuse_contents(&self.layout, &self.manifest, &self.index, "PG_18_202506291", places);
        found.map_err(|e| e.to_string().replace(self.directory.path().to_str().unwrap(), ""))
    }
}

#[test]
fn what_only_an_old_data_directory_has_may_go() {
    let case = Case::new();
    case.write("pgdata/base/5/16400");
    case.write("pgdata/base/6/PG_VERSION");
    case.write("pgdata/pg_replslot/one/state");
    case.write("pgdata/dump.sql");
    // A socket left by a server that has ended.
    drop(UnixListener::bind(case.path("pgdata/.s.PGSQL.5432")).unwrap());
    std::os::unix::fs::symlink("/etc", case.path("pgdata/link")).unwrap();
    assert_eq!(case.contents(&[]), Ok(()));
}

#[test]
fn what_is_not_of_this_data_directory_is_refused_at_any_depth() {
    for (below, file, found) in [
        ("", "old/global/pg_control", "another data directory, /pgdata/old"),
        ("base/", "copies/monday/global/pg_control", "another data directory, /pgdata/base/copies/monday"),
        ("", "backups/holdfast.json", "a Holdfast repository, /pgdata/backups"),
        ("base/5/", "deep/down/holdfast.json", "a Holdfast repository, /pgdata/base/5/deep/down"),
    ] {
        let case = Case::new();
        case.write(&format!("pgdata/{below}{file}"));
        let expected = format!("/pgdata holds {found}, which this restore would remove");
        assert_eq!(case.contents(&[]).unwrap_err(), expected);
    }
    let case = Case::new();
    let _listener = UnixListener::bind(case.path("pgdata/.s.PGSQL.5432")).unwrap();
    assert_eq!(
        case.contents(&[]).unwrap_err(),
        "/pgdata holds the socket /pgdata/.s.PGSQL.5432, on which a program listens, which this restore would remove"
    );
}

#[test]
fn what_the_restore_needs_is_found_whatever_its_name() {
    let case = Case::new();
    case.write("pgdata/base/needed/key");
    // As with a bind mount: the directory has another name here, so a comparison of paths does not find it.
    let key = Place::new("the key file", &case.path("pgdata/base/needed/key"));
    assert!(
        case.contents(std::slice::from_ref(&key))
            .unwrap_err()
            .contains("something that this restore needs, /pgdata/base/needed")
    );
    let error = refuse_places(&case.layout, &[key]).unwrap_err().to_string();
    assert!(error.contains("/pgdata/base/needed/key is inside the directory to restore into, "), "{error}");
}

#[test]
fn mount_points_are_read_with_their_blanks() {
    assert_eq!(plain(br"/srv/my\040disk\134x"), Path::new(r"/srv/my disk\x"));
    assert!(mounts().unwrap().contains(Path::new("/proc")));
}

#[test]
fn a_link_to_the_wal_is_noted() {
    let case = Case::new();
    fs::create_dir_all(case.path("wal")).unwrap();
    std::os::unix::fs::symlink(case.path("wal"), case.path("pgdata/pg_wal")).unwrap();
    assert!(notes(&case.layout, SystemIdentifier::new(1))[0].starts_with("pg_wal was a link to "));
}

#[test]
fn tablespaces_of_a_running_server_that_replay_would_make_again_are_noted() {
    let case = Case::new();
    fs::create_dir_all(case.path("live/global")).unwrap();
    fs::create_dir_all(case.path("live/pg_tblspc")).unwrap();
    let control = include_bytes!("../../../../pgtypes/tests/fixtures/pg_control.18");
    fs::write(case.path("live/global/pg_control"), control).unwrap();
    std::os::unix::fs::symlink("/srv/old", case.path("live/pg_tblspc/16400")).unwrap();
    std::os::unix::fs::symlink("/srv/other", case.path("live/pg_tblspc/not-a-tablespace")).unwrap();
    let of = ControlFile::parse(control).unwrap().system_identifier;
    let live = || RunningServer::of_process(std::process::id().cast_signed(), &case.path("live"));
    let known = ["16400".into()];
    assert_eq!(replay_notes(&known, of, &[live()]), Vec::<String>::new());
    std::os::unix::fs::symlink("/srv/new", case.path("live/pg_tblspc/16500")).unwrap();
    let notes = replay_notes(&known, of, &[live()]);
    assert!(notes[0].contains("live has tablespaces that are not in this backup, in /srv/new: "), "{notes:?}");
    assert_eq!(replay_notes(&known, SystemIdentifier::new(1), &[live()]), Vec::<String>::new());

    // If the recovery certainly passes the creation, it is refused.
    let refused = |known: &[OsString], of, target| refuse_replay(known, of, &target, &[live()]).is_err();
    let now = chrono::Utc::now();
    let (before, after) = (now - chrono::TimeDelta::hours(1), now + chrono::TimeDelta::hours(1));
    assert!(refused(&known, of, RecoveryTarget::Latest));
    assert!(refused(&known, of, RecoveryTarget::Time(after)));
    assert!(!refused(&known, of, RecoveryTarget::Time(before)));
    assert!(!refused(&known, of, RecoveryTarget::Immediate));
    assert!(!refused(&known, SystemIdentifier::new(1), RecoveryTarget::Latest));
    let all = ["16400".into(), "16500".into()];
    assert!(!refused(&all, of, RecoveryTarget::Latest));
}
