#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use std::fs;

use holdfast_repo::RepositoryId;
use holdfast_repo::record::TablespaceEntry;

use super::super::resume::VERSION;
use super::*;

const CONTROL: &[u8] = include_bytes!("../../../../pgtypes/tests/fixtures/pg_control.18");
const OTHER_CONTROL: &[u8] = include_bytes!("../../../../pgtypes/tests/fixtures/pg_control.15");

struct Case {
    directory: tempfile::TempDir,
    point: ResumePoint,
    layout: Layout,
    delta: bool,
    reuse: Vec<String>,
    places: Vec<Place>,
    originals: Vec<Place>,
    identifier: SystemIdentifier,
}

impl Case {
    /// A restore into `pgdata`, with a tablespace in `fast`.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fast = directory.path().join("fast").to_str().unwrap().to_owned();
        let tablespaces = [TablespaceEntry { oid: 16400, name: "fast".to_owned(), path: fast }];
        let layout = Layout::new(&directory.path().join("pgdata"), &tablespaces, &[]).unwrap();
        let point = ResumePoint {
            version: VERSION,
            repository: RepositoryId::random().unwrap(),
            cluster: "main".parse().unwrap(),
            backup: "20260822T101500Z".parse().unwrap(),
            tablespaces: layout.tablespaces().to_vec(),
            archiving: Archiving::AsBackedUp,
            host: "db1".to_owned(),
            pid: 1,
            started: "2026-08-22T11:00:00Z".parse().unwrap(),
        };
        let identifier = ControlFile::parse(CONTROL).unwrap().system_identifier;
        let (reuse, places, originals) = (Vec::new(), Vec::new(), Vec::new());
        Self { directory, point, layout, delta: false, reuse, places, originals, identifier }
    }

    fn delta() -> Self {
        Self { delta: true, ..Self::new() }
    }

    fn wanted(&self) -> TargetRequest<'_> {
        TargetRequest {
            point: &self.point,
            system_identifier: self.identifier,
            control: CONTROL,
            delta: self.delta,
            reuse_tablespaces: &self.reuse,
            places: &self.places,
            originals: &self.originals,
            store: "memory://",
        }
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The link of the data directory to its tablespace.
    fn link(&self, to: &str) {
        let links = self.directory.path().join("pgdata/pg_tblspc");
        fs::create_dir_all(&links).unwrap();
        let link = links.join("16400");
        drop(fs::remove_file(&link));
        std::os::unix::fs::symlink(self.directory.path().join(to), link).unwrap();
    }

    fn resume_point(&self, point: &ResumePoint) {
        self.write("pgdata/holdfast.restore", serde_json::to_vec(point).unwrap());
    }

    fn inspect(&self) -> Result<TargetState, String> {
        let place = self.directory.path().to_str().unwrap();
        inspect(&self.layout, &self.wanted()).map_err(|e| e.to_string().replace(place, ""))
    }
}

#[test]
fn absent_and_empty_directories_are_fresh() {
    let case = Case::new();
    assert_eq!(case.inspect(), Ok(TargetState::Fresh));
    fs::create_dir(case.directory.path().join("pgdata")).unwrap();
    fs::create_dir(case.directory.path().join("fast")).unwrap();
    assert_eq!(case.inspect(), Ok(TargetState::Fresh));
    // The state after a restore that died before it wrote anything.
    case.write("pgdata/holdfast.restore", "");
    assert_eq!(case.inspect(), Ok(TargetState::Fresh));
}

#[test]
fn a_parent_that_does_not_exist_is_not_made() {
    let mut case = Case::new();
    case.layout = Layout::new(&case.directory.path().join("no/pgdata"), &[], &[]).unwrap();
    assert_eq!(case.inspect().unwrap_err(), "cannot look at /no: No such file or directory (os error 2)");
}

#[test]
fn directories_that_hold_something_are_refused() {
    let case = Case::new();
    case.write("fast/x", "");
    assert_eq!(case.inspect().unwrap_err(), "tablespace fast would be in /fast, which is not empty");
    case.write("pgdata/PG_VERSION", "18\n");
    assert_eq!(case.inspect().unwrap_err(), "/pgdata is not empty");
}

#[test]
fn delta_takes_a_data_directory_of_the_same_cluster_only() {
    let case = Case::delta();
    case.write("pgdata/notes.txt", "");
    assert_eq!(
        case.inspect().unwrap_err(),
        "/pgdata is neither a data directory (it has no PG_VERSION) nor an interrupted restore"
    );
    case.write("pgdata/PG_VERSION", "18\n");
    assert_eq!(case.inspect(), Ok(TargetState::Delta));
    case.write("pgdata/global/pg_control", CONTROL);
    case.write("fast/x", "");
    case.link("fast");
    assert_eq!(case.inspect(), Ok(TargetState::Delta));
    case.write("pgdata/global/pg_control", OTHER_CONTROL);
    let other = ControlFile::parse(OTHER_CONTROL).unwrap().system_identifier;
    assert_eq!(
        case.inspect().unwrap_err(),
        format!(
            "the archive main in memory:// belongs to system identifier {}, but the data directory /pgdata has {other}",
            case.identifier
        )
    );
    case.write("pgdata/global/pg_control", "junk");
    assert!(case.inspect().unwrap_err().starts_with("/pgdata/global/pg_control: "));
}

/// A fresh data directory does not show who uses the tablespace. A directory whose links lead elsewhere does not
/// either.
#[test]
fn delta_alone_never_takes_a_tablespace_that_its_data_directory_does_not_lead_to() {
    let case = Case::delta();
    let taken = "tablespace fast would be in /fast, which is not empty";
    case.write("fast/x", "");
    assert_eq!(case.inspect().unwrap_err(), taken);
    case.write("pgdata/PG_VERSION", "18\n");
    case.link("fast");
    // Without a control file it is not known whose links these are.
    assert_eq!(case.inspect().unwrap_err(), taken);
    case.write("pgdata/global/pg_control", CONTROL);
    assert_eq!(case.inspect(), Ok(TargetState::Delta));
    // A copy of the cluster whose tablespace is elsewhere: the given one belongs to another server.
    case.write("drill/x", "");
    case.link("drill");
    assert_eq!(case.inspect().unwrap_err(), taken);
    // Through a symbolic link it is the same place.
    std::os::unix::fs::symlink(case.directory.path().join("fast"), case.directory.path().join("way")).unwrap();
    case.link("way");
    assert_eq!(case.inspect(), Ok(TargetState::Delta));
    assert_eq!(fs::read(case.directory.path().join("fast/x")).unwrap(), b"");
}

/// `cp -a` of a data directory copies its links.
#[test]
fn delta_never_takes_the_tablespace_of_the_original_of_a_copy() {
    let case = Case::delta();
    case.write("pgdata/PG_VERSION", "18\n");
    case.write("pgdata/global/pg_control", CONTROL);
    case.write("fast/x", "");
    case.link("fast");
    let fast = Place::new("the tablespace in", &case.directory.path().join("fast"));
    let mut case = Case { originals: vec![fast], ..case };
    let refused = "the directory of tablespace fast /fast is inside the tablespace in /fast";
    assert_eq!(case.inspect().unwrap_err(), refused);
    assert_eq!(fs::read(case.directory.path().join("fast/x")).unwrap(), b"");
    // The user says that nobody needs the original.
    case.reuse = vec!["fast".to_owned()];
    assert_eq!(case.inspect(), Ok(TargetState::Delta));
}

#[test]
fn a_tablespace_whose_data_directory_was_lost_is_taken_when_it_is_named() {
    let named = |name: &str| Case { reuse: vec![name.to_owned()], ..Case::new() };
    for name in ["fast", "16400"] {
        let case = named(name);
        case.write("fast/x", "");
        assert_eq!(case.inspect(), Ok(TargetState::Delta), "{name}");
    }
    assert_eq!(
        named("slow").inspect().unwrap_err(),
        "the backup has no tablespace slow (tablespaces of the backup: fast)"
    );
    // Naming a tablespace does not permit the use of the data directory.
    let case = named("fast");
    case.write("pgdata/PG_VERSION", "18\n");
    assert_eq!(case.inspect().unwrap_err(), "/pgdata is not empty");
}

#[test]
fn what_the_restore_needs_is_refused_in_and_around_its_directories() {
    for (place, refused) in [("pgdata/repository", true), ("fast/key", true), ("", true), ("repository", false)] {
        let case = Case::new();
        let places = vec![Place::new("the repository", &case.directory.path().join(place))];
        let case = Case { places, ..case };
        assert_eq!(case.inspect().is_err(), refused, "{place}");
        assert!(!case.layout.pgdata().exists());
    }
}

#[test]
fn a_lock_file_that_names_no_process_is_not_ignored() {
    let case = Case::delta();
    case.write("pgdata/PG_VERSION", "18\n");
    for content in [&b""[..], b"\xff\xfe\0", b"not a number\n"] {
        case.write("pgdata/postmaster.pid", content);
        assert_eq!(
            case.inspect().unwrap_err(),
            "/pgdata/postmaster.pid contains no process id, so it is not known whether a server runs there"
        );
    }
}

#[test]
fn a_running_server_is_refused_even_with_delta() {
    let case = Case::delta();
    case.write("pgdata/PG_VERSION", "18\n");
    // The parent of this process lives.
    let parent = rustix::process::getppid().unwrap().as_raw_nonzero();
    case.write("pgdata/postmaster.pid", format!("{parent}\n"));
    assert_eq!(case.inspect().unwrap_err(), format!("a PostgreSQL server is running in /pgdata (process {parent})"));
    // No process has this number.
    case.write("pgdata/postmaster.pid", "999999999\n");
    if crate::server::running::sees_all_processes() {
        assert_eq!(case.inspect(), Ok(TargetState::Delta));
    } else {
        assert!(case.inspect().unwrap_err().contains("(process 999999999), and a container does not show"));
    }
}

#[test]
fn an_interrupted_restore_is_resumed_by_the_same_restore_only() {
    let case = Case::new();
    case.resume_point(&case.point);
    case.write("fast/x", "");
    assert_eq!(case.inspect(), Ok(TargetState::Resumed));
    // It died between writing the control file and removing the resume point.
    case.write("pgdata/global/pg_control", CONTROL);
    assert_eq!(case.inspect(), Ok(TargetState::Resumed));
    // A server ran here since.
    case.write("pgdata/global/pg_control", OTHER_CONTROL);
    assert_eq!(
        case.inspect().unwrap_err(),
        "/pgdata holds a control file and an interrupted restore, and a server may have written there since: restore \
         into an empty directory, or pass --delta to replace what is there with the state of backup 20260822T101500Z"
    );
    fs::remove_file(case.directory.path().join("pgdata/global/pg_control")).unwrap();
    case.resume_point(&ResumePoint { backup: "20260101T000000Z".parse().unwrap(), ..case.point.clone() });
    assert_eq!(
        case.inspect().unwrap_err(),
        "/pgdata holds an interrupted restore of backup 20260101T000000Z of main, but backup 20260822T101500Z of main \
         would be restored now: pass --backup 20260101T000000Z to continue it, --delta to use what is there, or \
         restore into an empty directory"
    );
    case.resume_point(&ResumePoint { tablespaces: Vec::new(), ..case.point.clone() });
    assert_eq!(
        case.inspect().unwrap_err(),
        "/pgdata holds an interrupted restore of backup 20260822T101500Z with other directories for its tablespaces: \
         to continue it, give the same directories, or restore into an empty directory"
    );
    case.resume_point(&ResumePoint { archiving: Archiving::Off, ..case.point.clone() });
    assert_eq!(
        case.inspect().unwrap_err(),
        "/pgdata holds an interrupted restore of backup 20260822T101500Z that was begun with --no-archiving: to \
         continue it, begin it the same way, or restore into an empty directory"
    );
    // An interrupted restore of this cluster says where its tablespace is; one of another cluster does not.
    let case = Case { delta: true, ..case };
    assert_eq!(case.inspect(), Ok(TargetState::Delta));
    case.resume_point(&ResumePoint { cluster: "other".parse().unwrap(), ..case.point.clone() });
    assert_eq!(case.inspect().unwrap_err(), "tablespace fast would be in /fast, which is not empty");
}

#[test]
fn taking_a_directory_removes_the_control_file_and_keeps_others_out() {
    let case = Case::delta();
    case.write("pgdata/PG_VERSION", "18\n");
    case.write("pgdata/global/pg_control", CONTROL);
    let Taken { state, lock, .. } = acquire(&case.layout, &case.wanted()).unwrap();
    assert_eq!(state, TargetState::Delta);
    assert!(!case.directory.path().join("pgdata/global/pg_control").exists());
    assert!(case.directory.path().join("fast").is_dir());
    assert_eq!(ResumePoint::read(case.layout.pgdata()).unwrap(), Some(case.point.clone()));
    let error = acquire(&case.layout, &case.wanted()).unwrap_err();
    assert!(matches!(*error.what, Cause::AnotherRun { verb: "restore", pid: Some(1), .. }));
    drop(lock);
    assert_eq!(acquire(&case.layout, &case.wanted()).unwrap().state, TargetState::Resumed);
}

#[test]
fn a_new_data_directory_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let case = Case::new();
    acquire(&case.layout, &case.wanted()).unwrap();
    for name in ["pgdata", "fast"] {
        let metadata = fs::metadata(case.directory.path().join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o700);
    }
}
