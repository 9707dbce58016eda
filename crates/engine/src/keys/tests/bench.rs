//! A repository in memory, the secrets of several people, and records that each of them writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use holdfast_repo::key::{Argon2Cost, MIN_MEMORY_KIB};
use holdfast_repo::name::{self, ClusterName, LedgerKind, SlotName};
use holdfast_repo::record::{ClaimRecord, KeyChange, LedgerEntry, decode_plain, sha256_hex};
use holdfast_secret::Secret;
use holdfast_store::{MemoryStore, PutMode, Store};

use crate::error::Error;
use crate::keys::KeyOptions;
use crate::keys::add::{Added, add};
use crate::keys::list::list;
use crate::keys::remove::{Removed, remove};
use crate::keys::rotate::{Carried, Rotated, rotate};
use crate::repository::{Repository, RepositoryTarget, Unlock, init};

/// Anna made the repository. The vault and Ben have secrets too.
pub(super) const ANNA: u8 = 1;
pub(super) const VAULT: u8 = 2;
pub(super) const BEN: u8 = 3;

pub(super) struct Bench {
    pub(super) store: Arc<dyn Store>,
    records: AtomicU32,
}

pub(super) fn now() -> DateTime<Utc> {
    "2026-11-30T10:00:00Z".parse().unwrap()
}

pub(super) fn slot(name: &str) -> SlotName {
    name.parse().unwrap()
}

pub(super) fn secret(who: u8) -> Unlock {
    Unlock::KeyFile(Secret::new([who; 32]))
}

pub(super) fn options() -> KeyOptions {
    let cost = Argon2Cost { memory_kib: MIN_MEMORY_KIB, iterations: 1, parallelism: 1 };
    KeyOptions { host: "db1".to_owned(), now: now(), cost }
}

pub(super) fn cluster(number: u32) -> ClusterName {
    format!("c{number}").parse().unwrap()
}

/// The repository in this store, with the secret of `who`.
pub(super) fn through(store: Arc<dyn Store>, who: u8) -> RepositoryTarget {
    RepositoryTarget { store, unlock: secret(who) }
}

pub(super) async fn add_to(target: &RepositoryTarget, name: &str, who: u8) -> Result<Added, Error> {
    add(target, &slot(name), &secret(who), &options()).await
}

pub(super) async fn remove_from(target: &RepositoryTarget, name: &str) -> Result<Removed, Error> {
    remove(target, &slot(name), &options()).await
}

pub(super) async fn rotate_in(target: &RepositoryTarget, stay: &[u8], drop: &[&str]) -> Result<Rotated, Error> {
    let carried: Vec<Carried> =
        stay.iter().map(|who| Carried { secret: secret(*who), what: format!("the secret {who}") }).collect();
    let drop: Vec<SlotName> = drop.iter().map(|name| slot(name)).collect();
    rotate(target, &carried, &drop, &options()).await
}

impl Bench {
    /// Anna's repository with the archive `c0`.
    pub(super) async fn new() -> Self {
        let bench = Self { store: Arc::new(MemoryStore::new()), records: AtomicU32::new(0) };
        init::init(&bench.target(ANNA), now()).await.unwrap();
        bench.write(ANNA).await.unwrap();
        bench
    }

    /// As [`Self::new`], with a slot for the vault and one for Ben.
    pub(super) async fn shared() -> Self {
        let bench = Self::new().await;
        add_to(&bench.target(ANNA), "vault", VAULT).await.unwrap();
        add_to(&bench.target(ANNA), "ben", BEN).await.unwrap();
        bench
    }

    pub(super) fn target(&self, who: u8) -> RepositoryTarget {
        through(Arc::clone(&self.store), who)
    }

    pub(super) async fn open(&self, who: u8) -> Result<Repository, Error> {
        Repository::open(&self.target(who)).await
    }

    /// Writes one more record, encrypted with the newest key that this secret gives.
    pub(super) async fn write(&self, who: u8) -> Result<(), Error> {
        let repository = Repository::open_to_write(&self.target(who)).await?;
        self.write_with(&repository).await;
        Ok(())
    }

    pub(super) async fn write_with(&self, repository: &Repository) {
        let cluster = cluster(self.records.fetch_add(1, Ordering::SeqCst));
        let claim: ClaimRecord = decode_plain(include_bytes!("../../../../repo/tests/samples/claim.json")).unwrap();
        let claim = ClaimRecord { cluster: cluster.clone(), ..claim };
        repository.create_record(&name::claim(&cluster, claim.number), &claim).await.unwrap();
    }

    /// The number of records that this secret can read; `None` if it does not open the repository.
    pub(super) async fn read(&self, who: u8) -> Option<u32> {
        let repository = self.open(who).await.ok()?;
        let mut read = 0;
        for number in 0..self.records.load(Ordering::SeqCst) {
            let cluster = cluster(number);
            let found: Result<ClaimRecord, _> =
                repository.read_record(&name::claim(&cluster, "1".parse().unwrap())).await;
            read += u32::from(found.is_ok_and(|found| found.cluster == cluster));
        }
        Some(read)
    }

    /// Whether this secret reads every record, no matter who wrote it.
    pub(super) async fn reads_all(&self, who: u8) -> bool {
        self.read(who).await == Some(self.records.load(Ordering::SeqCst))
    }

    /// The names of all slots below `keys/`.
    pub(super) async fn keys(&self) -> Vec<String> {
        self.below_keys().await.into_iter().filter(|name| !name.ends_with(".removing")).collect()
    }

    /// The names with a removal mark, whether or not the slot is gone.
    pub(super) async fn marks(&self) -> Vec<String> {
        let all = self.below_keys().await;
        all.iter().filter_map(|name| Some(name.strip_suffix(".removing")?.to_owned())).collect()
    }

    async fn below_keys(&self) -> Vec<String> {
        let listed = self.store.list("keys/", None).await.unwrap();
        listed.iter().map(|object| object.name.as_ref().trim_start_matches("keys/").to_owned()).collect()
    }

    pub(super) async fn put(&self, name: &str, content: impl Into<Bytes>) {
        self.store.put(&name.parse().unwrap(), content.into(), PutMode::Overwrite).await.unwrap();
    }

    /// Makes a slot from another one by changing its text. It is readable, and no secret opens it.
    pub(super) async fn plant(&self, like: &str, name: &str, change: impl FnOnce(&mut serde_json::Value)) {
        let text = self.store.get(&format!("keys/{like}.json").parse().unwrap()).await.unwrap();
        let mut record: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let body = record.get_mut("body").unwrap();
        body["slot"] = name.into();
        change(body);
        let (body, digest) = (body.to_string(), sha256_hex(body.to_string().as_bytes()));
        let text = format!(r#"{{"holdfast":"key-slot","version":1,"sha256":"{digest}","body":{body}}}"#);
        self.put(&format!("keys/{name}.json"), text).await;
    }

    /// The slots with their labels and epochs.
    pub(super) async fn slots(&self, who: u8) -> Vec<(String, String, u32)> {
        let (_, found) = list(&self.target(who)).await.unwrap();
        found.slots.iter().map(|slot| (slot.slot.to_string(), slot.label.to_string(), slot.epoch)).collect()
    }

    /// The entries about keys in the ledger of an archive, oldest first.
    pub(super) async fn ledger(&self, who: u8, number: u32) -> Vec<(KeyChange, Vec<SlotName>, Vec<SlotName>, u32)> {
        let repository = self.open(who).await.unwrap();
        let entries = repository.ledger(&cluster(number), LedgerKind::Key).await.unwrap();
        assert!(entries.unreadable.is_empty());
        let entries = entries.records.into_iter().filter_map(|(_, record)| match record.entry {
            LedgerEntry::Key { change, written, removed, epoch } => Some((change, written, removed, epoch)),
            _ => None,
        });
        entries.collect()
    }
}
