//! WAL that is missing on the way to the target: for ever, for a moment, or because its name is not the right one.

use std::time::Duration;

use chrono::Utc;
use holdfast_store::PutMode;

use super::super::*;
use super::sample::Sample;

/// An object that `wal get` does not ask for fills no hole: here the right object is deleted, and a copy has another
/// spelling.
#[tokio::test]
async fn a_segment_under_another_spelling_is_missing() {
    for encrypted in [false, true] {
        let sample = Sample::new(encrypted).await;
        let wal = sample.store.list("main/wal/", None).await.unwrap();
        let second = wal.iter().find(|object| object.name.as_ref().contains("000000010000000000000009")).unwrap();
        let bytes = sample.store.get(&second.name).await.unwrap();
        sample.store.delete(std::slice::from_ref(&second.name)).await.unwrap();
        let stem = second.name.as_ref().split_once('.').unwrap().0;
        for extension in ["raw", "raw.enc", "lz4", "lz4.enc", if encrypted { "zst" } else { "zst.enc" }] {
            let name = format!("{stem}.{extension}").parse().unwrap();
            if name != second.name {
                sample.store.put(&name, bytes.clone(), PutMode::Create).await.unwrap();
            }
        }
        let error = sample.restore().await.unwrap_err();
        assert!(error.what.to_string().contains("segment 000000010000000000000009 is missing"), "{error}");
        assert!(!sample.pgdata().exists());
    }
}

/// Keeps all notes.
#[derive(Default)]
struct Notes(parking_lot::Mutex<Vec<String>>);

impl Progress for Notes {
    fn phase(&self, _name: &str, _total_bytes: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn note(&self, text: &str) {
        self.0.lock().push(text.to_owned());
    }
}

/// Removes segment A; B after it stays.
async fn without_segment_a(sample: &Sample) -> (holdfast_store::ObjectName, bytes::Bytes) {
    let wal = sample.store.list("main/wal/", None).await.unwrap();
    let taken = wal.into_iter().find(|object| object.name.as_ref().contains("00000001000000000000000A")).unwrap().name;
    let bytes = sample.store.get(&taken).await.unwrap();
    sample.store.delete(std::slice::from_ref(&taken)).await.unwrap();
    (taken, bytes)
}

/// The archiver stores segments in parallel, and the second one is there first.
#[tokio::test]
async fn a_segment_that_was_overtaken_is_waited_for() {
    let sample = Sample::new(true).await;
    let (name, bytes) = without_segment_a(&sample).await;
    let store = Arc::clone(&sample.store);
    let comes = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        store.put(&name, bytes, PutMode::Create).await.unwrap();
    });
    let notes = Arc::new(Notes::default());
    let progress: Arc<dyn Progress> = notes.clone();
    let options = RestoreOptions { now: Utc::now(), ..sample.options() };
    let report = restore(&sample.repository, &options, &progress, &CancellationToken::new()).await.unwrap();
    comes.await.unwrap();
    assert_eq!(report.recovery.segment_count, 4);
    sample.check();
    let said = notes.0.lock().clone();
    let waits: Vec<&String> = said.iter().filter(|note| note.starts_with("waiting for segment")).collect();
    assert_eq!(waits, ["waiting for segment 00000001000000000000000A, which is being archived"]);
}

/// A segment that is missing for longer than a moment counts as missing, by either clock.
#[tokio::test]
async fn an_old_hole_is_refused_at_once_and_a_young_one_after_a_while() {
    let sample = Sample::new(false).await;
    without_segment_a(&sample).await;
    let hour = chrono::TimeDelta::hours(1);
    for (now, waits) in [(Utc::now() + hour, 0), (Utc::now() - hour, 0), (Utc::now(), 1)] {
        let notes = Arc::new(Notes::default());
        let progress: Arc<dyn Progress> = notes.clone();
        let options = RestoreOptions { now, ..sample.options() };
        let error = restore(&sample.repository, &options, &progress, &CancellationToken::new()).await.unwrap_err();
        assert!(error.what.to_string().contains("segment 00000001000000000000000A is missing"), "{error}");
        let said = notes.0.lock().clone();
        assert_eq!(said.iter().filter(|note| note.starts_with("waiting for segment")).count(), waits, "{said:?}");
        assert!(!sample.pgdata().exists());
    }
}
