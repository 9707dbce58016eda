//! Two writers of one name in a store that ignores conditions: the loser gets an error.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_repo::record::{self, ConditionalCreate, RepositoryRecord, StoreCapabilities};
use holdfast_store::{FolderPage, ListPage, MemoryStore, ObjectInfo, ObjectName, PutMode, Store, StoreError, Upload};
use holdfast_testkit::random::Random;
use parking_lot::Mutex;

use super::{Bench, SYSTEM, header, kind, name, now, segment};
use crate::archive::PushOutcome;
use crate::repository::confirm::WAL_PART_BYTES;
use crate::repository::{RepositoryTarget, Unlock, init};

/// When the rival's object replaces ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Before our object is checked.
    AfterWrite,
    /// After our object was checked and found right.
    AfterLook,
}

/// A store that ignores conditions, and a rival that writes through it at a bad moment.
#[derive(Debug)]
struct Careless {
    inner: MemoryStore,
    rival: Mutex<Option<(Moment, Bytes)>>,
}

impl Careless {
    async fn strike(&self, moment: Moment, name: &ObjectName) -> Result<(), StoreError> {
        if !name.as_str().starts_with("main/wal/") {
            return Ok(());
        }
        let struck = {
            let mut rival = self.rival.lock();
            if rival.as_ref().is_some_and(|(wanted, _)| *wanted == moment) { rival.take() } else { None }
        };
        match struck {
            Some((_, body)) => self.inner.put(name, body, PutMode::Overwrite).await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Store for Careless {
    async fn put(&self, name: &ObjectName, body: Bytes, _: PutMode) -> Result<(), StoreError> {
        self.inner.put(name, body, PutMode::Overwrite).await?;
        self.strike(Moment::AfterWrite, name).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.inner.get(name).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.inner.get_range(name, range).await
    }

    async fn get_tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        self.inner.get_tail(name, bytes).await
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        // The state at the time of the request.
        let info = self.inner.head(name).await?;
        self.strike(Moment::AfterLook, name).await?;
        Ok(info)
    }

    async fn list_page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        next: Option<&str>,
    ) -> Result<ListPage, StoreError> {
        self.inner.list_page(prefix, start_after, next).await
    }

    async fn list_folders_page(&self, prefix: &str, next: Option<&str>) -> Result<FolderPage, StoreError> {
        self.inner.list_folders_page(prefix, next).await
    }

    async fn delete_some(&self, names: &[ObjectName]) -> Result<usize, StoreError> {
        self.inner.delete_some(names).await
    }

    async fn begin_upload(&self, name: &ObjectName, _: PutMode) -> Result<Box<dyn Upload>, StoreError> {
        self.inner.begin_upload(name, PutMode::Overwrite).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// Like Ceph 16: the store refuses a second PUT, but overwrites when a multipart upload is completed.
#[tokio::test]
async fn the_loser_of_a_race_with_an_upload_in_parts_gets_a_divergence() {
    const SIZE: u32 = 64 << 20;
    let mut bench = Bench::new(1).await;
    let store = Arc::new(Careless { inner: MemoryStore::new(), rival: Mutex::default() });
    bench.stores[0] = store.inner.clone();
    let target = RepositoryTarget { store: Arc::new(store.inner.clone()), unlock: Unlock::NotEncrypted };
    init::init(&target, now()).await.unwrap();
    weaken(&store.inner, |record| {
        let store =
            record.store.map(|store| StoreCapabilities { conditional_complete: ConditionalCreate::Emulated, ..store });
        RepositoryRecord { store, ..record }
    })
    .await;
    bench.targets[0].store = Arc::clone(&store) as Arc<dyn Store>;

    // What does not compress is sent in parts.
    let large = |salt: u64| {
        let mut bytes = header(SYSTEM, 1, SIZE);
        let mut random = Random::of_seed(salt);
        bytes.resize_with(SIZE as usize, || random.word() as u8);
        bytes
    };
    let file = "000000010000000000000001";
    let path = bench.wal(file, &large(2));
    bench.push(&path).await.unwrap();
    let object: ObjectName = bench.objects(0, "main/wal/").await.remove(0).parse().unwrap();
    let theirs = store.inner.get(&object).await.unwrap();
    assert!(theirs.len() > WAL_PART_BYTES);
    store.inner.delete(std::slice::from_ref(&object)).await.unwrap();

    bench.wal(file, &large(1));
    *store.rival.lock() = Some((Moment::AfterLook, theirs));
    assert_eq!(kind(&bench.push(&path).await.unwrap_err()), "Divergence");
    assert_eq!(bench.objects(0, "main/ledger/").await.len(), 1);
}

/// Changes what `holdfast.json` says about the store.
async fn weaken(store: &MemoryStore, change: impl FnOnce(RepositoryRecord) -> RepositoryRecord) {
    let name: ObjectName = "holdfast.json".parse().unwrap();
    let record = record::decode_plain(&store.get(&name).await.unwrap()).unwrap();
    let object = record::encode_repository(&change(record), None).unwrap();
    store.put(&name, object.into(), PutMode::Overwrite).await.unwrap();
}

#[tokio::test]
async fn the_loser_of_a_race_gets_a_divergence_and_it_is_in_the_ledger() {
    for moment in [Moment::AfterWrite, Moment::AfterLook] {
        let mut bench = Bench::new(1).await;
        let store = Arc::new(Careless { inner: MemoryStore::new(), rival: Mutex::default() });
        bench.stores[0] = store.inner.clone();
        bench.targets[0].store = Arc::clone(&store) as Arc<dyn Store>;
        init::init(&bench.targets[0], now()).await.unwrap();

        // What the rival stores: another server's segment of the same name.
        let path = bench.wal(&name(1), &segment(1, 2));
        bench.push(&path).await.unwrap();
        let object: ObjectName = bench.objects(0, "main/wal/").await.remove(0).parse().unwrap();
        let theirs = store.inner.get(&object).await.unwrap();
        store.inner.delete(std::slice::from_ref(&object)).await.unwrap();

        bench.wal(&name(1), &segment(1, 1));
        *store.rival.lock() = Some((moment, theirs.clone()));
        assert_eq!(kind(&bench.push(&path).await.unwrap_err()), "Divergence", "{moment:?}");
        assert_eq!(bench.objects(0, "main/ledger/").await.len(), 1, "{moment:?}");
        // The same segment from two servers is not a divergence, whichever object is stored.
        store.inner.delete(std::slice::from_ref(&object)).await.unwrap();
        bench.wal(&name(1), &segment(1, 2));
        *store.rival.lock() = Some((moment, theirs));
        let report = bench.push(&path).await.unwrap();
        assert!(matches!(report.outcome, PushOutcome::Archived(_)), "{moment:?}");
        // Damage is not mistaken for a rival's object.
        store.inner.delete(std::slice::from_ref(&object)).await.unwrap();
        *store.rival.lock() = Some((moment, Bytes::from_static(b"no object of ours")));
        assert_eq!(kind(&bench.push(&path).await.unwrap_err()), "NotReadable", "{moment:?}");
    }
}
