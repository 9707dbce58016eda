//! One suite for every back-end: memory, directory, `s3s-fs` and `moto`, the last two over real HTTP.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod suite;

use std::sync::Arc;

use holdfast_store::{
    ConditionalCreate, Credentials, DirectoryStore, Encryption, Location, MemoryStore, Prefixed, Secret, Store,
    StoreConfig, open,
};
use holdfast_testkit::s3::{Moto, S3Server};
use suite::Expect;

/// More than one page of S3.
const MANY: usize = 1005;

fn s3_config(endpoint: String, credentials: &holdfast_testkit::s3::Credentials) -> StoreConfig {
    let mut config = StoreConfig::new("s3://holdfast/some/prefix".parse().unwrap());
    config.s3.endpoint = Some(endpoint);
    config.s3.region = Some("us-east-1".to_owned());
    config.s3.path_style = true;
    config.s3.credentials = Credentials::Static {
        access_key: Secret::new(&credentials.access_key),
        secret_key: Secret::new(&credentials.secret_key),
        session_token: None,
    };
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    suite::run(Arc::new(MemoryStore::new()), &Expect::all(MANY)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_under_a_prefix() {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    inner.put(&"a/outside".parse().unwrap(), "x".into(), holdfast_store::PutMode::Create).await.unwrap();
    let prefixed = Prefixed::new(Arc::clone(&inner), &"a/b".parse().unwrap());
    suite::run(Arc::new(prefixed), &Expect::all(MANY)).await;
    assert_eq!(inner.list("", None).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn directory() {
    let folder = tempfile::tempdir().unwrap();
    let store = DirectoryStore::create(&folder.path().join("deep/er")).await.unwrap();
    suite::run(Arc::new(store), &Expect::all(MANY)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_by_the_standard_stack() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig::new(Location::Directory(folder.path().to_owned()));
    suite::run(open(&config).await.unwrap(), &Expect::all(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3s_fs() {
    let server = S3Server::start().unwrap();
    let config = s3_config(server.endpoint(), server.credentials());
    let expect = Expect { exclusive: false, folders_are_absent: false, ..Expect::all(MANY) };
    suite::run(open(&config).await.unwrap(), &expect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3s_fs_without_conditional_writes() {
    let server = S3Server::start().unwrap();
    let mut config = s3_config(server.endpoint(), server.credentials());
    config.conditional_create = ConditionalCreate::Emulated;
    let expect = Expect { exclusive: false, conditional: false, folders_are_absent: false, ..Expect::all(10) };
    suite::run(open(&config).await.unwrap(), &expect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moto() {
    let Some(server) = Moto::or_skip() else { return };
    let mut config = s3_config(server.endpoint(), &server.credentials());
    config.s3.tags = [("team".to_owned(), "data/co+x=1".to_owned())].into();
    config.s3.storage_class = Some("STANDARD_IA".to_owned());
    config.s3.encryption = Encryption::S3;
    suite::run(open(&config).await.unwrap(), &Expect::all(40)).await;
}
