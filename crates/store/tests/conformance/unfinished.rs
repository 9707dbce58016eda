//! Unfinished uploads: listed and aborted if the store can list them, and no error if it cannot.

use std::sync::Arc;

use holdfast_store::{DirectoryStore, MemoryStore, PutMode, Store, open};
use holdfast_testkit::proxy::{Effect, Fault, HttpFaults, When};
use holdfast_testkit::s3::{ForeignS3, Moto, Program, S3Server};

use super::s3_config;

/// Begins uploads, leaves them, and aborts those that the store lists. Returns their number.
async fn unfinished_uploads(store: Arc<dyn Store>) -> Option<usize> {
    let name = "a/b/unfinished".parse().unwrap();
    for _ in 0..3 {
        let upload = store.begin_upload(&name, PutMode::Create).await.unwrap();
        upload.part(1, "part".into()).await.unwrap();
    }
    store.begin_upload(&"a/bc".parse().unwrap(), PutMode::Create).await.unwrap();
    let listed = store.unfinished_uploads("a/b/").await.unwrap()?;
    assert!(listed.iter().all(|upload| upload.name == name), "{listed:?}");
    assert!(listed.iter().all(|upload| upload.begun.is_some()), "{listed:?}");
    for upload in &listed {
        store.abort_unfinished(upload).await.unwrap();
        store.abort_unfinished(upload).await.unwrap();
    }
    assert_eq!(store.unfinished_uploads("a/b/").await.unwrap(), Some(Vec::new()));
    assert!(store.unfinished_uploads("").await.unwrap().is_some_and(|left| left.len() == 1));
    Some(listed.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_uploads_are_listed_and_aborted() {
    assert_eq!(unfinished_uploads(Arc::new(MemoryStore::new())).await, Some(3));
    if let Some(server) = Moto::or_skip() {
        let store = open(&s3_config(server.endpoint(), &server.credentials())).await.unwrap();
        assert_eq!(unfinished_uploads(store).await, Some(3));
    }
}

/// It is not an error if the store cannot list them, or if a policy forbids it.
#[tokio::test(flavor = "multi_thread")]
async fn unfinished_uploads_that_are_not_listed_are_not_an_error() {
    let server = S3Server::start().unwrap();
    let store = open(&s3_config(server.endpoint(), server.credentials())).await.unwrap();
    assert_eq!(unfinished_uploads(store).await, None);
    let faults = HttpFaults::start(server.address()).unwrap();
    faults.inject(Fault::new(Effect::Status(403, "AccessDenied"), When::Always).path_contains("uploads"));
    let store = open(&s3_config(faults.endpoint(), server.credentials())).await.unwrap();
    assert_eq!(store.unfinished_uploads("").await.unwrap(), None);
    let folder = tempfile::tempdir().unwrap();
    let directory = DirectoryStore::open(folder.path()).await.unwrap();
    assert_eq!(directory.unfinished_uploads("").await.unwrap(), Some(Vec::new()));
    for program in [Program::Rclone, Program::JuiceFs] {
        let Some(server) = ForeignS3::or_skip(program) else { continue };
        let store = open(&s3_config(server.endpoint(), server.credentials())).await.unwrap();
        let listed = store.unfinished_uploads("a/b/").await.unwrap();
        assert!(listed.is_none_or(|listed| listed.is_empty()), "{program:?}");
    }
}
