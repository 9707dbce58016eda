//! A mark is valid for exactly one file and one set of repositories, once.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Bench, name, now, segment};
use crate::archive::{PushOutcome, RepositorySetId, Spool, marked_durable};
use crate::repository::init;

#[tokio::test]
async fn neighbours_are_marked_and_answered_once_without_the_network() {
    let mut bench = Bench::new(2).await;
    let paths = bench.segments(1, 5);
    let mut options = bench.push_options(&paths[0]);
    options.push_ahead = 3;
    let report = bench.push_with(&options).await.unwrap();
    assert!(matches!(report.outcome, PushOutcome::Archived(_)));
    assert_eq!(report.neighbours.len(), 3);
    assert_eq!(bench.spooled().len(), 3);
    for store in 0..2 {
        assert_eq!(bench.objects(store, "main/wal/").await.len(), 4);
    }

    // From now on no store answers.
    bench.faulty(0, Vec::new()).crash_after(0);
    bench.faulty(1, Vec::new()).crash_after(0);
    let report = bench.push(&paths[1]).await.unwrap();
    assert_eq!(report.outcome, PushOutcome::Marked);
    assert!(marked_durable(&bench.opened_spool(), &bench.set(), &paths[2]));
    assert!(!marked_durable(&bench.opened_spool(), &bench.set(), &paths[2]), "a mark is used up");
    bench.push(&paths[1]).await.unwrap_err();
    bench.push(&paths[4]).await.unwrap_err();
}

#[tokio::test]
async fn a_mark_is_not_valid_for_a_changed_file_or_other_repositories() {
    let bench = Bench::new(1).await;
    let paths = bench.segments(1, 6);
    let mut options = bench.push_options(&paths[0]);
    options.push_ahead = 5;
    bench.push_with(&options).await.unwrap();
    let (spool, set) = (bench.opened_spool(), bench.set());

    // Recycled: another content under the same name.
    std::fs::write(&paths[1], segment(2, 99)).unwrap();
    assert!(!marked_durable(&spool, &set, &paths[1]));
    // Replaced by a file of the same size and content.
    std::fs::write(paths[2].with_extension("new"), segment(3, 1)).unwrap();
    std::fs::rename(paths[2].with_extension("new"), &paths[2]).unwrap();
    assert!(!marked_durable(&spool, &set, &paths[2]));
    // Another repository, or a second one.
    let others = RepositorySetId::new(&bench.cluster, ["memory:0", "memory:1"]);
    assert!(!marked_durable(&spool, &others, &paths[3]));
    // A torn mark.
    let mark = bench.spool().join("main/push").join(format!("{}.durable", name(5)));
    let text = std::fs::read(&mark).unwrap();
    std::fs::write(&mark, &text[..text.len() / 2]).unwrap();
    assert!(!marked_durable(&spool, &set, &paths[4]));
    assert!(marked_durable(&spool, &set, &paths[5]));
}

#[test]
fn a_set_is_its_descriptions_in_any_order() {
    let cluster = "main".parse().unwrap();
    let set = |names: &[&str]| RepositorySetId::new(&cluster, names.iter().copied());
    assert_eq!(set(&["a", "b"]), set(&["b", "a"]));
    assert_ne!(set(&["a", "b"]), set(&["ab"]));
    assert_ne!(set(&["a"]), RepositorySetId::new(&"other".parse().unwrap(), ["a"]));
}

#[tokio::test]
async fn marks_of_files_that_no_longer_wait_are_swept() {
    let bench = Bench::new(1).await;
    let paths = bench.segments(1, 3);
    let mut options = bench.push_options(&paths[0]);
    options.push_ahead = 2;
    bench.push_with(&options).await.unwrap();
    std::fs::remove_file(bench.pgdata().join("pg_wal/archive_status").join(format!("{}.ready", name(2)))).unwrap();
    let path = bench.segments(7, 7).remove(0);
    bench.push(&path).await.unwrap();
    assert_eq!(bench.spooled(), [format!("{}.durable", name(3))]);
}

/// Makes a mark as old as if PostgreSQL had asked late.
fn age(bench: &Bench, number: u64) {
    let mark = std::fs::File::open(bench.spool().join("main/push").join(format!("{}.durable", name(number)))).unwrap();
    mark.set_modified(SystemTime::now() - Duration::from_hours(1)).unwrap();
}

#[tokio::test]
async fn an_old_mark_is_believed_only_for_the_same_repository() {
    let mut bench = Bench::new(1).await;
    let paths = bench.segments(1, 4);
    let mut options = bench.push_options(&paths[0]);
    options.push_ahead = 3;
    bench.push_with(&options).await.unwrap();
    for number in 2..=4 {
        age(&bench, number);
    }
    let (spool, set) = (bench.opened_spool(), bench.set());
    assert!(!marked_durable(&spool, &set, &paths[1]), "nobody has looked which repository is there now");
    assert_eq!(bench.push(&paths[1]).await.unwrap().outcome, PushOutcome::Marked);

    // Wiped and made again from another host, which does not know the marks on this one.
    bench.stores[0] = holdfast_store::MemoryStore::new();
    bench.targets[0].store = std::sync::Arc::new(bench.stores[0].clone());
    init::init(&bench.targets[0], now()).await.unwrap();
    let mut options = bench.push_options(&paths[2]);
    options.push_ahead = 3;
    let report = bench.push_with(&options).await.unwrap();
    assert!(matches!(report.outcome, PushOutcome::Archived(_)), "{report:?}");
    // The neighbour's mark does not prevent this run from storing it again.
    assert_eq!(report.neighbours.iter().map(|done| done.file.to_string()).collect::<Vec<_>>(), [name(4)]);
    assert_eq!(bench.objects(0, "main/wal/").await.len(), 2);
}

#[tokio::test]
async fn a_mark_of_an_older_release_does_not_count() {
    let bench = Bench::new(1).await;
    let paths = bench.segments(1, 2);
    let mut options = bench.push_options(&paths[0]);
    options.push_ahead = 1;
    bench.push_with(&options).await.unwrap();
    let mark = bench.spool().join("main/push").join(format!("{}.durable", name(2)));
    let text = std::fs::read_to_string(&mark).unwrap();
    let held = text.lines().find(|line| line.starts_with("held by ")).unwrap();
    std::fs::write(&mark, text.replace("mark 2", "mark 1").replace(&format!("{held}\n"), "")).unwrap();
    assert!(!marked_durable(&bench.opened_spool(), &bench.set(), &paths[1]));
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_spool_is_closed_and_what_others_could_have_put_there_is_thrown_away() {
    let (folder, cluster) = (tempfile::tempdir().unwrap(), "main".parse().unwrap());
    let (root, own) = (folder.path().join("spool"), folder.path().join("spool/main"));
    assert!(Spool::existing(&root, &cluster).is_none());
    Spool::open(&root, &cluster).unwrap();
    assert_eq!((mode(&root), mode(&own)), (0o700, 0o700));
    let kept = own.join("push");
    for (wider, stays) in [(0o755, true), (0o750, true), (0o770, false), (0o777, false), (0o702, false)] {
        std::fs::create_dir_all(&kept).unwrap();
        std::fs::write(kept.join("mark"), b"").unwrap();
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(wider)).unwrap();
        assert!(Spool::existing(&root, &cluster).is_some());
        assert_eq!((mode(&own), kept.exists()), (0o700, stays), "{wider:o}");
    }
    // A container's volume is open to all, but the folder below it is not.
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(Spool::existing(&root, &cluster).is_some());
    // A link could lead outside of the spool.
    std::fs::rename(&own, folder.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &own).unwrap();
    assert!(Spool::existing(&root, &cluster).is_none());
    Spool::open(&root, &cluster).unwrap_err();
}
