//! A test archive in memory: backups with packs and manifests, and the WAL between them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use holdfast_contract::report::expire::RepositoryExpire;
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId, WalFileName, WalSegmentSize};
use holdfast_repo::manifest::{ManifestHeader, ManifestWriter, Origin, PackEntry};
use holdfast_repo::name::{self, BackupId, ClusterName, LedgerKind, ObjectPath};
use holdfast_repo::record::{BackupRecord, ClaimRecord, LedgerEntry, StartRecord, decode_plain};
use holdfast_secret::Secret;
use holdfast_store::{MemoryStore, PutMode, Store};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::expire::{ExpireOptions, Keep, Policy, expire};
use crate::progress::{Progress, Silent};
use crate::repository::{Repository, RepositoryTarget, Unlock, init, object_name};

/// Segments between the starts of two backups.
pub(super) const BETWEEN: u64 = 10;

pub(super) struct Bench {
    pub(super) memory: MemoryStore,
    pub(super) store: Arc<dyn Store>,
    pub(super) target: RepositoryTarget,
    pub(super) repository: Repository,
    pub(super) cluster: ClusterName,
    pub(super) claim: ClaimRecord,
    pub(super) now: DateTime<Utc>,
    began: Instant,
}

/// The segment in which the backup of this day starts.
pub(super) fn first_segment(day: u64) -> u64 {
    day * BETWEEN + 1
}

impl Bench {
    /// An archive without backups, whose WAL begins at segment 1.
    pub(super) async fn new(encrypted: bool) -> Self {
        let memory = MemoryStore::new();
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        let unlock = if encrypted { Unlock::KeyFile(Secret::new(vec![7; 32])) } else { Unlock::NotEncrypted };
        let target = RepositoryTarget { store: Arc::clone(&store), unlock };
        // The store uses the clock of this machine, so the archive must be of today.
        let now = DateTime::from_timestamp(Utc::now().timestamp(), 0).unwrap();
        let repository = init::init(&target, now - TimeDelta::days(60)).await.unwrap().repository;
        let claim: ClaimRecord = decode_plain(include_bytes!("../../../../repo/tests/samples/claim.json")).unwrap();
        let claim = ClaimRecord { since: now - TimeDelta::days(60), ..claim };
        let cluster: ClusterName = "main".parse().unwrap();
        repository.create_record(&name::claim(&cluster, claim.number), &claim).await.unwrap();
        Self { memory, store, target, repository, cluster, claim, now, began: Instant::now() }
    }

    /// As [`Self::new`], with one full backup a day, two packs each, and all WAL up to a few segments after the last
    /// backup.
    pub(super) async fn with_days(encrypted: bool, days: u64) -> Self {
        let bench = Self::new(encrypted).await;
        for day in 0..days {
            bench.backup(day, &[]).await;
        }
        for number in 1..first_segment(days) {
            bench.segment(number).await;
        }
        bench
    }

    /// The backup of a day. Day 0 is 30 days ago.
    pub(super) fn id(&self, day: u64) -> BackupId {
        BackupId::new(self.now - TimeDelta::days(30) + TimeDelta::days(i64::try_from(day).unwrap())).unwrap()
    }

    pub(super) async fn put(&self, name: &str) {
        let body = Bytes::from_static(b"x");
        self.store.put(&object_name(name).unwrap(), body, PutMode::Overwrite).await.unwrap();
    }

    pub(super) async fn remove(&self, name: &str) {
        self.store.delete(&[object_name(name).unwrap()]).await.unwrap();
    }

    fn wal_name(&self, file: WalFileName) -> String {
        name::wal_file(&self.cluster, self.claim.number, &file, self.claim.wal_codec, self.repository.is_encrypted())
    }

    pub(super) async fn segment(&self, number: u64) {
        self.put(&self.wal_of(number)).await;
    }

    pub(super) fn wal_of(&self, number: u64) -> String {
        let segment = SegmentName::from_number(number, TimelineId::FIRST, WalSegmentSize::DEFAULT).unwrap();
        self.wal_name(WalFileName::Segment(segment))
    }

    pub(super) async fn remove_segment(&self, number: u64) {
        self.remove(&self.wal_of(number)).await;
    }

    pub(super) async fn backup_history(&self, number: u64) {
        let segment = SegmentName::from_number(number, TimelineId::FIRST, WalSegmentSize::DEFAULT).unwrap();
        self.put(&self.wal_name(WalFileName::BackupHistory { segment, offset: 0x28 })).await;
    }

    pub(super) fn start(&self, id: BackupId) -> StartRecord {
        StartRecord {
            backup_id: id,
            cluster: self.cluster.clone(),
            claim: self.claim.number,
            system_identifier: self.claim.system_identifier,
            host: "db1".to_owned(),
            pid: 4711,
            pgdata: "/data".to_owned(),
            started: id.time(),
            software_version: "0.1.0".to_owned(),
            parent: None,
            run: None,
        }
    }

    /// A backup that needs its own two packs and those of `others`, whose manifests it refers to.
    pub(super) async fn backup(&self, day: u64, others: &[(u64, u32)]) {
        let id = self.id(day);
        self.repository.create_record(&name::backup_start(&self.cluster, &id), &self.start(id)).await.unwrap();
        let mut packs: Vec<String> =
            others.iter().map(|(day, number)| name::pack(&self.cluster, &self.id(*day), *number)).collect();
        for number in 1..=2 {
            let pack = name::pack(&self.cluster, &id, number);
            self.put(&pack).await;
            packs.push(pack);
        }
        let origins: BTreeSet<String> =
            others.iter().map(|(day, _)| name::manifest(&self.cluster, &self.id(*day))).collect();
        self.manifest(id, &packs, origins).await;
        let record = self.record(day);
        self.repository.create_record(&name::backup_summary(&self.cluster, &id), &record).await.unwrap();
    }

    pub(super) fn record(&self, day: u64) -> BackupRecord {
        let sample: BackupRecord = decode_plain(include_bytes!("../../../../repo/tests/samples/backup.json")).unwrap();
        let (id, first) = (self.id(day), first_segment(day));
        let segment = |number| SegmentName::from_number(number, TimelineId::FIRST, WalSegmentSize::DEFAULT).unwrap();
        BackupRecord {
            backup_id: id,
            claim: self.claim.number,
            timeline: TimelineId::FIRST,
            start_lsn: Lsn::new((first << 24) + 0x28),
            stop_lsn: Lsn::new(((first + 1) << 24) + 0x100),
            start_segment: segment(first),
            stop_segment: segment(first + 1),
            start_time: id.time(),
            stop_time: id.time() + TimeDelta::minutes(5),
            ..sample
        }
    }

    pub(super) async fn manifest(&self, id: BackupId, packs: &[String], origins: BTreeSet<String>) {
        let name = name::manifest(&self.cluster, &id);
        let header = ManifestHeader {
            backup: id.to_string(),
            cluster: self.cluster.to_string(),
            extent_bytes: 1 << 20,
            details: serde_json::Map::new(),
        };
        let origins = origins.into_iter().map(|name| Origin { name, size_bytes: 1, salt: [0; 32], packs: Vec::new() });
        let (id, key) = (self.repository.id(), self.repository.key());
        let (mut writer, start) = ManifestWriter::new(&name, id, key, &header).unwrap();
        let listed = writer.list_origins(origins.collect()).unwrap();
        let mut packs = packs.to_vec();
        packs.sort();
        let packs: Vec<PackEntry> = packs.into_iter().map(|pack| PackEntry::new(pack, 1)).collect();
        let object = [&start[..], &listed, &writer.finish(&packs).unwrap()].concat();
        self.store.put(&object_name(&name).unwrap(), object.into(), PutMode::Create).await.unwrap();
    }

    /// Options that keep the newest `last` backups, without a grace time.
    pub(super) fn last(&self, last: u32) -> ExpireOptions {
        ExpireOptions {
            cluster: self.cluster.clone(),
            policy: Policy { keep: Keep { last, ..Keep::default() }, ..Policy::default() },
            grace: Duration::ZERO,
            host: "db1".to_owned(),
            // Time passes from run to run, so that no decision of an earlier run is in the future.
            now: self.now + TimeDelta::from_std(self.began.elapsed()).unwrap(),
        }
    }

    pub(super) async fn expire(&self, options: &ExpireOptions) -> Result<RepositoryExpire, Error> {
        self.expire_through(&self.repository, options, &Silent).await
    }

    pub(super) async fn expire_through(
        &self,
        repository: &Repository,
        options: &ExpireOptions,
        progress: &dyn Progress,
    ) -> Result<RepositoryExpire, Error> {
        expire(repository, options, progress, &CancellationToken::new()).await
    }

    /// The names of the objects in a folder of the cluster.
    pub(super) async fn names(&self, folder: &str) -> Vec<String> {
        let listed = self.store.list(&format!("main/{folder}"), None).await.unwrap();
        listed.iter().map(|object| object.name.to_string()).collect()
    }

    /// The days of the complete backups. Checks that each has its manifest, all its packs, and the WAL that it needs.
    pub(super) async fn sound_days(&self) -> Vec<u64> {
        let mut days = Vec::new();
        let (packs, segments) = (self.names("packs/").await, self.segments().await);
        for day in 0..30 {
            let id = self.id(day);
            let listed = self.names(&format!("backups/{id}/")).await;
            if !listed.contains(&name::backup_summary(&self.cluster, &id)) {
                continue;
            }
            self.repository.backup(&self.cluster, id).await.unwrap();
            let end = self.repository.manifest_end(&name::manifest(&self.cluster, &id)).await.unwrap();
            for pack in &end.packs {
                assert!(packs.contains(&pack.name), "backup {id} is in pieces: {} is gone", pack.name);
            }
            for origin in &end.origins {
                assert!(self.names("backups/").await.contains(origin), "backup {id} is in pieces: {origin} is gone");
            }
            for number in first_segment(day)..=first_segment(day) + 1 {
                assert!(segments.contains(&number), "backup {id} is in pieces: segment {number} is gone");
            }
            days.push(day);
        }
        days
    }

    /// The numbers of the archived segments.
    pub(super) async fn segments(&self) -> BTreeSet<u64> {
        let names = self.names("wal/").await;
        let numbers = names.iter().filter_map(|name| match name.parse() {
            Ok(ObjectPath::WalFile { file: WalFileName::Segment(segment), .. }) => {
                Some(segment.number(WalSegmentSize::DEFAULT))
            }
            _ => None,
        });
        numbers.collect()
    }

    /// Everything that the ledger records as removed: backups, packs and WAL.
    pub(super) async fn recorded_removed(&self) -> (Vec<BackupId>, u64, u64) {
        let mut removed = (Vec::new(), 0, 0);
        let listed = self.repository.ledger(&self.cluster, LedgerKind::Removal).await.unwrap();
        assert!(listed.unreadable.is_empty());
        for (_, record) in listed.records {
            let LedgerEntry::Removal { backups, pack_count, wal_file_count, .. } = record.entry else { continue };
            removed.0.extend(backups);
            removed.1 += pack_count;
            removed.2 += wal_file_count;
        }
        removed.0.sort();
        removed
    }

    /// The segments of timeline 1 that the ledger names as removed.
    pub(super) async fn recorded_wal(&self) -> BTreeSet<u64> {
        let listed = self.repository.ledger(&self.cluster, LedgerKind::Removal).await.unwrap();
        let wal = listed.records.into_iter().filter_map(|(_, record)| match record.entry {
            LedgerEntry::Removal { wal, .. } => Some(wal),
            _ => None,
        });
        let size = WalSegmentSize::DEFAULT;
        wal.flatten().flat_map(|range| range.first.number(size)..=range.last.number(size)).collect()
    }

    /// The number of ledger entries of a kind.
    pub(super) async fn ledger(&self, kind: &str) -> usize {
        self.names("ledger/").await.iter().filter(|name| name.ends_with(&format!("-{kind}.json"))).count()
    }
}
