#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use holdfast_engine::keys::KeyOptions;
use holdfast_engine::keys::add::add;
use holdfast_engine::keys::rotate::rotate;
use holdfast_engine::repository::init::init;
use holdfast_repo::key::Argon2Cost;
use holdfast_repo::record::ConditionalCreate as Recorded;
use holdfast_store::{Failure as StoreFailure, Location, Operation};
use std::path::Path;

/// What a store without conditional writes does with a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    /// Refuses it as unknown.
    Refuses,
    /// Overwrites what exists.
    Ignores,
}

#[derive(Debug)]
struct Unconditional(Arc<dyn Store>, Without);

#[async_trait]
impl Store for Unconditional {
    async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        match (mode, self.1) {
            (PutMode::Create, Without::Refuses) => Err(StoreError::new(
                StoreErrorKind::Unsupported,
                StoreFailure {
                    store: self.describe(),
                    name: name.to_string(),
                    operation: Operation::Put,
                    detail: "501 NotImplemented".to_owned(),
                    source: None,
                },
            )),
            _ => self.0.put(name, body, PutMode::Overwrite).await,
        }
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.0.get(name).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.0.get_range(name, range).await
    }

    async fn get_tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        self.0.get_tail(name, bytes).await
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        self.0.head(name).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        next: Option<&str>,
    ) -> Result<ListPage, StoreError> {
        self.0.list_page(prefix, start_after, next).await
    }

    async fn list_folders_page(&self, prefix: &str, next: Option<&str>) -> Result<FolderPage, StoreError> {
        self.0.list_folders_page(prefix, next).await
    }

    async fn delete_some(&self, names: &[ObjectName]) -> Result<usize, StoreError> {
        self.0.delete_some(names).await
    }

    async fn begin_upload(&self, name: &ObjectName, mode: PutMode) -> Result<Box<dyn Upload>, StoreError> {
        self.0.begin_upload(name, mode).await
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

/// A store whose native writes know no condition; the emulated ones are the directory store's own.
async fn target(directory: &Path, without: Without) -> (RepositoryTarget, Arc<AsRecorded>) {
    let config = StoreConfig::new(Location::Directory(directory.to_owned()));
    let native = Arc::new(Unconditional(holdfast_store::open(&config).await.unwrap(), without));
    let store = Arc::new(AsRecorded { native, config, adopted: Mutex::default() });
    let unlock = Unlock::Passphrase(Secret::from("correct horse"));
    (RepositoryTarget { store: Arc::clone(&store) as Arc<dyn Store>, unlock }, store)
}

#[tokio::test]
async fn a_store_without_conditional_writes_is_found_and_remembered() {
    for without in [Without::Refuses, Without::Ignores] {
        let directory = tempfile::tempdir().unwrap();
        let (first, store) = target(directory.path(), without).await;
        let made = init(&first, super::super::time::now()).await.unwrap();
        assert_eq!(made.repository.record().conditional_create, Recorded::Emulated, "{without:?}");
        assert!(store.adopted().is_some(), "{without:?}");
        // Another process learns it from the record before it writes.
        let (again, store) = target(directory.path(), without).await;
        assert!(store.adopted().is_none());
        let repository = Repository::open(&again).await.unwrap();
        assert!(store.adopted().is_some(), "{without:?}");
        let name: ObjectName = "main/claims/1.json".parse().unwrap();
        repository.store().put(&name, "one".into(), PutMode::Create).await.unwrap();
        let taken = repository.store().put(&name, "two".into(), PutMode::Create).await.unwrap_err();
        assert_eq!(taken.kind(), StoreErrorKind::AlreadyExists, "{without:?}");
    }
}

#[tokio::test]
async fn a_store_with_conditional_writes_is_used_natively() {
    let directory = tempfile::tempdir().unwrap();
    let config = StoreConfig::new(Location::Directory(directory.path().to_owned()));
    let native = holdfast_store::open(&config).await.unwrap();
    let store = Arc::new(AsRecorded { native, config, adopted: Mutex::default() });
    let target = RepositoryTarget { store: Arc::clone(&store) as Arc<dyn Store>, unlock: Unlock::NotEncrypted };
    let made = init(&target, super::super::time::now()).await.unwrap();
    assert_eq!(made.repository.record().conditional_create, Recorded::Native);
    assert!(store.adopted().is_none());
}

/// The key of old backups exists, but `holdfast.json` is gone: the store would overwrite the key without an error.
#[tokio::test]
async fn a_store_that_ignores_conditions_does_not_lose_its_key_slot() {
    for without in [Without::Refuses, Without::Ignores] {
        let directory = tempfile::tempdir().unwrap();
        let (first, _) = target(directory.path(), without).await;
        init(&first, super::super::time::now()).await.unwrap();
        let record = directory.path().join(REPOSITORY_OBJECT);
        let lost = std::fs::read(&record).unwrap();
        std::fs::remove_file(&record).unwrap();
        let keys = || std::fs::read_dir(directory.path().join("keys")).unwrap();
        let slots: Vec<_> = keys().map(|slot| std::fs::read(slot.unwrap().path()).unwrap()).collect();

        let (again, _) = target(directory.path(), without).await;
        let error = init(&again, super::super::time::now()).await.unwrap_err();
        assert!(error.what.to_string().contains("without holdfast.json"), "{without:?}: {error}");
        let left: Vec<_> = keys().map(|slot| std::fs::read(slot.unwrap().path()).unwrap()).collect();
        assert_eq!(left, slots, "{without:?}");
        assert!(!record.exists());
        // After the record is brought back, it opens with its key as before.
        std::fs::write(&record, lost).unwrap();
        let (opened, _) = target(directory.path(), without).await;
        Repository::open(&opened).await.unwrap();
    }
}

#[tokio::test]
async fn of_many_simultaneous_inits_every_one_opens_the_same_repository() {
    for without in [Without::Refuses, Without::Ignores] {
        let directory = tempfile::tempdir().unwrap();
        let mut targets = Vec::new();
        for _ in 0..4 {
            targets.push(target(directory.path(), without).await.0);
        }
        let racing = targets.iter().map(|target| init(target, super::super::time::now()));
        let made = futures::future::join_all(racing).await;
        let ids: Vec<_> = made.into_iter().map(|made| made.unwrap().repository.id()).collect();
        let (last, _) = target(directory.path(), without).await;
        let stored = Repository::open(&last).await.unwrap();
        assert!(ids.iter().all(|id| *id == stored.id()), "{without:?}: {ids:?}, stored {}", stored.id());
    }
}

/// A request that arrives late would overwrite the only copy of a key in use.
#[tokio::test]
async fn keys_are_not_rotated_if_the_store_ignores_conditions() {
    for without in [Without::Refuses, Without::Ignores] {
        let directory = tempfile::tempdir().unwrap();
        let (first, _) = target(directory.path(), without).await;
        init(&first, super::super::time::now()).await.unwrap();
        let options =
            KeyOptions { host: "db1".to_owned(), now: super::super::time::now(), cost: Argon2Cost::default() };
        let error = rotate(&first, &[], &[], &options).await.unwrap_err();
        assert!(
            error.what.to_string().contains("is a store without conditional writes, so its keys cannot"),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(directory.path().join("keys")).unwrap().count(), 1, "{without:?}");
        // Secrets can be changed as elsewhere.
        let other = Unlock::Passphrase(Secret::from("battery staple"));
        add(&first, &"office".parse().unwrap(), &other, &options).await.unwrap();
        let (mut second, _) = target(directory.path(), without).await;
        second.unlock = other;
        Repository::open_to_write(&second).await.unwrap();
    }
}
