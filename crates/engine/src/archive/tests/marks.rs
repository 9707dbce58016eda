//! Marks answer for exactly one file and one set of repositories, once.

use super::{Bench, name, segment};
use crate::archive::{PushOutcome, RepositorySetId, marked_durable};

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

    // From here on no store answers.
    bench.faulty(0, Vec::new()).crash_after(0);
    bench.faulty(1, Vec::new()).crash_after(0);
    let report = bench.push(&paths[1]).await.unwrap();
    assert_eq!(report.outcome, PushOutcome::Marked);
    assert!(marked_durable(&bench.spool(), &bench.cluster, &bench.set(), &paths[2]));
    assert!(!marked_durable(&bench.spool(), &bench.cluster, &bench.set(), &paths[2]), "a mark is used up");
    bench.push(&paths[1]).await.unwrap_err();
    bench.push(&paths[4]).await.unwrap_err();
}

#[tokio::test]
async fn a_mark_does_not_speak_for_a_changed_file_or_other_repositories() {
    let bench = Bench::new(1).await;
    let paths = bench.segments(1, 6);
    let mut options = bench.push_options(&paths[0]);
    options.push_ahead = 5;
    bench.push_with(&options).await.unwrap();
    let (spool, cluster, set) = (bench.spool(), &bench.cluster, bench.set());

    // Recycled: another content under the same name.
    std::fs::write(&paths[1], segment(2, 99)).unwrap();
    assert!(!marked_durable(&spool, cluster, &set, &paths[1]));
    // Renamed over by a file of the same size and content.
    std::fs::write(paths[2].with_extension("new"), segment(3, 1)).unwrap();
    std::fs::rename(paths[2].with_extension("new"), &paths[2]).unwrap();
    assert!(!marked_durable(&spool, cluster, &set, &paths[2]));
    // Another repository, or one more.
    let others = RepositorySetId::new(cluster, ["memory:0", "memory:1"]);
    assert!(!marked_durable(&spool, cluster, &others, &paths[3]));
    // A torn mark.
    let mark = spool.join("main/push").join(format!("{}.durable", name(5)));
    let text = std::fs::read(&mark).unwrap();
    std::fs::write(&mark, &text[..text.len() / 2]).unwrap();
    assert!(!marked_durable(&spool, cluster, &set, &paths[4]));
    assert!(marked_durable(&spool, cluster, &set, &paths[5]));
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
async fn marks_of_files_that_wait_no_more_are_swept() {
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
