//! Operations in which a system call does not return.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use futures::future::join_all;

use super::*;
use crate::{Retry, RetryPolicy};

/// A generous limit for what must not hang.
const SOON: Duration = Duration::from_mins(1);

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

async fn opened(root: &Path, limit: Duration) -> DirectoryStore {
    DirectoryStore::open_within(root, limit, Hurry::default()).await.unwrap()
}

/// A FIFO in the place of an object: opening it waits for a writer, as every call waits for a server that is gone.
struct Fifo(std::path::PathBuf);

impl Fifo {
    fn new(path: std::path::PathBuf) -> Self {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        Self(path)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        // A writer: the threads that wait return, and the runtime can end.
        drop(std::fs::OpenOptions::new().read(true).write(true).open(&self.0));
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_operation_that_never_returns_is_a_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(folder.path(), Duration::from_millis(300)).await;
    let fifo = Fifo::new(folder.path().join("a"));
    let retry = Retry::new(Arc::new(store.clone()), RetryPolicy { max_attempts: 2, ..RetryPolicy::default() });
    let all = async {
        for result in [
            store.get(&name("a")).await.map(drop),
            store.get_at_most(&name("a"), 9).await.map(drop),
            store.get_range(&name("a"), 0..1).await.map(drop),
            store.get_tail(&name("a"), 1).await.map(drop),
            retry.get(&name("a")).await.map(drop),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Timeout, "{error}");
            let expected =
                format!("file://{} did not answer in time: the file system has not", folder.path().display());
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
        // Others still work.
        store.put(&name("b"), "x".into(), PutMode::Create).await.unwrap();
        assert_eq!(store.get(&name("b")).await.unwrap(), "x");
    };
    let ended = tokio::time::timeout(SOON, all).await;
    drop(fifo);
    ended.unwrap();
}

#[tokio::test]
async fn a_hurry_gives_up_sooner_what_does_not_move() {
    let folder = tempfile::tempdir().unwrap();
    let hurry = Hurry::default();
    let store = DirectoryStore::open_within(folder.path(), Duration::from_hours(1), hurry.clone()).await.unwrap();
    let fifo = Fifo::new(folder.path().join("a"));
    hurry.begin();
    let got = tokio::time::timeout(SOON, store.get(&name("a"))).await;
    // What moves is not given up, however long it takes.
    let moving = store.run(Operation::Get, "b", |_, watch| {
        for _ in 0..14 {
            std::thread::sleep(Duration::from_millis(500));
            watch.check()?;
        }
        Ok(())
    });
    moving.await.unwrap();
    store.put(&name("c"), vec![7; 1 << 20].into(), PutMode::Create).await.unwrap();
    drop(fifo);
    assert_eq!(got.unwrap().unwrap_err().kind(), StoreErrorKind::Timeout);
}

#[tokio::test]
async fn an_operation_that_moves_may_take_longer_than_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(folder.path(), Duration::from_secs(2)).await;
    let begun = Instant::now();
    let moving = store.run(Operation::Put, "a", |_, watch| {
        for _ in 0..25 {
            std::thread::sleep(Duration::from_millis(150));
            watch.moved();
        }
        Ok(())
    });
    moving.await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(3));
    // A sync is one step. It has time for the size of its file.
    let syncing = store.run(Operation::Put, "a", |_, watch| {
        watch.syncs(128 << 20);
        std::thread::sleep(Duration::from_secs(4));
        Ok(())
    });
    syncing.await.unwrap();
}

/// The write hangs before its object has a name, and continues after its caller got a timeout.
#[tokio::test]
async fn a_write_that_was_given_up_does_not_come_later() {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(folder.path(), Duration::from_millis(300)).await;
    let (release, released) = mpsc::sync_channel::<()>(1);
    let written = store.run(Operation::Put, "late", move |files, watch| {
        let temporary = files.temporary()?;
        temporary.write(b"x", 0, watch)?;
        // The sync of a mount whose server is gone.
        released.recv().ok();
        files.publish(&temporary, &name("late"), PutMode::Create, watch)
    });
    assert_eq!(written.await.unwrap_err().kind(), StoreErrorKind::Timeout);
    // The name is still free for the next attempt.
    store.put(&name("late"), "y".into(), PutMode::Create).await.unwrap();
    store.put(&name("kept"), "z".into(), PutMode::Create).await.unwrap();
    let (release_delete, released) = mpsc::sync_channel::<()>(1);
    let deleted = store.run(Operation::Delete, "kept", move |files, watch| {
        released.recv().ok();
        files.delete(&[name("kept")], watch)
    });
    assert_eq!(deleted.await.unwrap_err().kind(), StoreErrorKind::Timeout);
    release.send(()).unwrap();
    release_delete.send(()).unwrap();
    let temporary = folder.path().join(files::TEMPORARY);
    until("the temporary file is removed", || std::fs::read_dir(&temporary).unwrap().next().is_none()).await;
    until("nothing hangs", || watch::stuck(folder.path()) == 0).await;
    assert_eq!(store.get(&name("late")).await.unwrap(), "y");
    assert_eq!(store.get(&name("kept")).await.unwrap(), "z");
}

/// Opens a gate, also when a test fails.
struct OpensAtTheEnd(Arc<AtomicBool>);

impl Drop for OpensAtTheEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn operations_that_hang_do_not_take_all_threads() {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(folder.path(), Duration::from_millis(100)).await;
    let gate = Arc::new(AtomicBool::new(false));
    let open_at_the_end = OpensAtTheEnd(Arc::clone(&gate));
    let hang = || {
        let gate = Arc::clone(&gate);
        store.run(Operation::Get, "a", move |_, _| {
            while !gate.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        })
    };
    let errors = join_all((0..watch::MOST_STUCK).map(|_| hang())).await;
    assert!(errors.into_iter().all(|result| result.unwrap_err().kind() == StoreErrorKind::Timeout));
    let refused = hang().await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Timeout);
    assert!(refused.to_string().ends_with("64 earlier requests to this directory have not ended"), "{refused}");
    // A store of the same root that is opened again does not begin from zero.
    assert!(DirectoryStore::open(folder.path()).await.is_err());
    drop(open_at_the_end);
    until("nothing hangs", || watch::stuck(folder.path()) == 0).await;
    hang().await.unwrap();
}
