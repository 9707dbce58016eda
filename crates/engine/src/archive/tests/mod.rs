//! The archive against stores in memory, with faults, and synthetic segments with valid headers.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod get;
mod list;
mod marks;
mod push;
mod race;
mod resident;
mod scale;
mod standby;
mod tail;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use holdfast_pgtypes::{PgVersion, SegmentName, SystemIdentifier, TimelineId, WalSegmentSize};
use holdfast_repo::name::ClusterName;
use holdfast_secret::Secret;
use holdfast_store::{FaultRule, Faulty, MemoryStore, Store};
use holdfast_testkit::random::Random;
use tokio_util::sync::CancellationToken;

use super::{GetOptions, GetReport, PushOptions, PushReport, RepositorySetId, Spool};
use crate::error::{Cause, Error};
use crate::pipeline::budget::{ByteBudget, MINIMUM_BYTES};
use crate::pipeline::crew::Crew;
use crate::progress::Silent;
use crate::repository::{Repository, RepositoryTarget, Unlock, init};
use crate::server::sample_control::{TIMELINE_AT, control_with};

pub(super) const SIZE: u32 = 1 << 20;
pub(super) const SYSTEM: u64 = 7_710_912_426_042_727_162;

/// A data directory, a spool and some repositories.
pub(super) struct Bench {
    folder: tempfile::TempDir,
    pub(super) stores: Vec<MemoryStore>,
    pub(super) targets: Vec<RepositoryTarget>,
    pub(super) cluster: ClusterName,
    crew: Crew,
}

pub(super) fn now() -> DateTime<Utc> {
    "2026-08-22T10:15:00Z".parse().unwrap()
}

impl Bench {
    pub(super) async fn new(repositories: usize) -> Self {
        Self::with(repositories, Unlock::NotEncrypted).await
    }

    pub(super) async fn encrypted() -> Self {
        Self::with(1, Unlock::KeyFile(Secret::new(*b"0123456789abcdef0123456789abcdef"))).await
    }

    async fn with(repositories: usize, unlock: Unlock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("data/pg_wal/archive_status")).unwrap();
        let stores: Vec<MemoryStore> = (0..repositories).map(|_| MemoryStore::new()).collect();
        let mut targets = Vec::new();
        for store in &stores {
            let target = RepositoryTarget { store: Arc::new(store.clone()), unlock: unlock.clone() };
            init::init(&target, now()).await.unwrap();
            targets.push(target);
        }
        let (cluster, crew) = ("main".parse().unwrap(), Crew::new(2));
        Self { folder, stores, targets, cluster, crew }
    }

    /// Puts a layer with faults in front of one of the stores.
    pub(super) fn faulty(&mut self, repository: usize, rules: Vec<FaultRule>) -> Faulty {
        let faulty = Faulty::new(Arc::new(self.stores[repository].clone()), 7, rules);
        self.targets[repository].store = Arc::new(faulty.clone());
        faulty
    }

    pub(super) fn pgdata(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Makes the control file of a server that has reached this timeline.
    pub(super) fn on_timeline(&self, timeline: u32) {
        let control = control_with(&[(TIMELINE_AT, &timeline.to_le_bytes())]);
        std::fs::create_dir_all(self.pgdata().join("global")).unwrap();
        std::fs::write(self.pgdata().join("global/pg_control"), control).unwrap();
    }

    pub(super) fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    pub(super) fn opened_spool(&self) -> Spool {
        Spool::open(&self.spool(), &self.cluster).unwrap()
    }

    pub(super) fn destination(&self) -> PathBuf {
        self.folder.path().join("RECOVERYXLOG")
    }

    pub(super) fn set(&self) -> RepositorySetId {
        let names: Vec<String> = (0..self.targets.len()).map(|n| format!("memory:{n}")).collect();
        RepositorySetId::new(&self.cluster, names.iter().map(String::as_str))
    }

    /// Makes a file in `pg_wal` that waits to be archived.
    pub(super) fn wal(&self, name: &str, content: &[u8]) -> PathBuf {
        let folder = self.pgdata().join("pg_wal");
        std::fs::write(folder.join("archive_status").join(format!("{name}.ready")), b"").unwrap();
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The segments `first` to `last` of timeline 1, waiting.
    pub(super) fn segments(&self, first: u64, last: u64) -> Vec<PathBuf> {
        (first..=last).map(|number| self.wal(&name(number), &segment(number, 1))).collect()
    }

    pub(super) fn push_options(&self, path: &Path) -> PushOptions {
        PushOptions {
            owner: None,
            cluster: self.cluster.clone(),
            path: path.to_owned(),
            compression: "zstd:1".parse().unwrap(),
            push_ahead: 0,
            spool: Some(self.opened_spool()),
            repository_set: self.set(),
            crew: self.crew.clone(),
            budget: ByteBudget::new(MINIMUM_BYTES),
            host: "db1".to_owned(),
            now: now(),
        }
    }

    pub(super) async fn push_with(&self, options: &PushOptions) -> Result<PushReport, Error> {
        super::push(&self.targets, options, &Silent, &CancellationToken::new()).await
    }

    pub(super) async fn push(&self, path: &Path) -> Result<PushReport, Error> {
        self.push_with(&self.push_options(path)).await
    }

    pub(super) fn get_options(&self, name: &str) -> GetOptions {
        GetOptions {
            cluster: self.cluster.clone(),
            name: name.parse().unwrap(),
            destination: self.destination(),
            last_ahead: None,
            prefetch: 0,
            spool: Some(self.opened_spool()),
            repository_set: self.set(),
            system_identifier: Some(SystemIdentifier::new(SYSTEM)),
            tails: Vec::new(),
            crew: self.crew.clone(),
            budget: ByteBudget::new(MINIMUM_BYTES),
            now: Utc::now(),
        }
    }

    pub(super) async fn get_with(&self, options: &GetOptions) -> Result<GetReport, Error> {
        super::get(&self.targets, options, &CancellationToken::new()).await
    }

    pub(super) async fn get(&self, name: &str) -> Result<GetReport, Error> {
        self.get_with(&self.get_options(name)).await
    }

    pub(super) async fn open(&self, repository: usize) -> Repository {
        Repository::open(&self.targets[repository]).await.unwrap()
    }

    /// The names of the objects in a store that begin with `prefix`.
    pub(super) async fn objects(&self, repository: usize, prefix: &str) -> Vec<String> {
        let listed = self.stores[repository].list(prefix, None).await.unwrap();
        listed.into_iter().map(|object| object.name.to_string()).collect()
    }

    /// Files below the spool.
    pub(super) fn spooled(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.spool()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    found.push(entry.file_name().into_string().unwrap());
                }
            }
        }
        found.sort();
        found
    }
}

/// The name of a segment of timeline 1.
pub(super) fn name(number: u64) -> String {
    let size = WalSegmentSize::new(SIZE).unwrap();
    SegmentName::from_number(number, TimelineId::FIRST, size).unwrap().to_string()
}

/// A segment of timeline 1 with a valid header; `salt` changes the bytes after it.
pub(super) fn segment(number: u64, salt: u64) -> Vec<u8> {
    segment_of(SYSTEM, number, salt, SIZE)
}

pub(super) fn segment_of(system_identifier: u64, number: u64, salt: u64, size: u32) -> Vec<u8> {
    let mut bytes = header(system_identifier, number, size);
    let mut random = Random::of_seed(number.wrapping_mul(31).wrapping_add(salt));
    while bytes.len() < size as usize {
        bytes.extend_from_slice(&(random.word() & 0x0F0F_0F0F_0F0F_0F0F).to_le_bytes());
    }
    bytes
}

pub(super) fn header(system_identifier: u64, number: u64, size: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(PgVersion::V18.wal_page_magic().to_le_bytes());
    bytes.extend(2_u16.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend((number * u64::from(size)).to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(system_identifier.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend(8192_u32.to_le_bytes());
    bytes
}

/// The variant of an error, for a comparison in one line.
pub(super) fn kind(error: &Error) -> String {
    let debug = format!("{:?}", error.what);
    debug.split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}

pub(super) fn is_absent(error: &Error) -> bool {
    matches!(&*error.what, Cause::Absent { .. })
}
