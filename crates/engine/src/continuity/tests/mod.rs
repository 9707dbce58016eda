//! Every kind of finding in an archive in memory, with its words, and what can be healed.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod ends;
mod healing;
mod kinds;
mod ledger;
mod scale;
mod wal;
mod young;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use chrono::TimeDelta;
use holdfast_contract::report::backup::BackupReport;
use holdfast_contract::report::wal_verify::{WalFindingKind, WalFindingWeight};
use holdfast_pgtypes::wal::reader::WalSegment;
use holdfast_pgtypes::wal::scan::SegmentFacts;
use holdfast_pgtypes::{Lsn, PgVersion, SegmentName, WalFileName, WalSegmentSize};
use holdfast_repo::name::{self, BackupId};
use holdfast_repo::record::{BackupRecord, ClaimRecord, LedgerEntry, LedgerRecord, SnapshotRecord, decode_plain};
use holdfast_repo::{Codec, wal_object};
use holdfast_secret::Secret;
use holdfast_store::{MemoryStore, PutMode, Store};

use self::wal::Writer;
use super::*;
use crate::progress::Silent;
use crate::repository::{RepositoryTarget, Unlock, init, object_name};

const SIZE: u32 = 1 << 20;

fn size() -> WalSegmentSize {
    WalSegmentSize::new(SIZE).unwrap()
}

/// Long after the last segment was stored: the store's clock is that of this machine.
fn now() -> DateTime<Utc> {
    "2020-08-22T10:15:00Z".parse().unwrap()
}

/// An archive with segments of a server, and a backup that starts in segment 3 and stops in segment 4.
struct Bench {
    folder: tempfile::TempDir,
    store: MemoryStore,
    target: RepositoryTarget,
    repository: Repository,
    claim: ClaimRecord,
    server: Writer,
    first: BackupId,
    /// Minutes after [`now`]; each verification is later than the one before it.
    minutes: AtomicI64,
}

impl Bench {
    /// With the segments 1 to 12 of timeline 1.
    async fn new() -> Self {
        Self::with(Unlock::NotEncrypted).await
    }

    async fn with(unlock: Unlock) -> Self {
        let store = MemoryStore::new();
        let target = RepositoryTarget { store: Arc::new(store.clone()), unlock };
        let repository = init::init(&target, now()).await.unwrap().repository;
        let claim: ClaimRecord = decode_plain(include_bytes!("../../../../repo/tests/samples/claim.json")).unwrap();
        let claim = ClaimRecord { wal_segment_size: size(), wal_codec: Codec::Zstd, ..claim };
        repository.create_record(&name::claim(&claim.cluster, claim.number), &claim).await.unwrap();
        let mut server = Writer::new(1, size(), claim.system_identifier);
        server.write_into(13);

        let first = "20260801T000000Z".parse().unwrap();
        let bench = Self {
            folder: tempfile::tempdir().unwrap(),
            store,
            target,
            repository,
            claim,
            server,
            first,
            minutes: AtomicI64::new(0),
        };
        for number in 1..=12 {
            bench.archive(&bench.server, number).await;
        }
        bench.backup(first, 3, 4).await;
        bench
    }

    fn object(&self, file: WalFileName) -> String {
        let encrypted = self.repository.is_encrypted();
        name::wal_file(&self.claim.cluster, self.claim.number, &file, Codec::Zstd, encrypted)
    }

    fn segment_object(&self, number: u64) -> String {
        self.object(WalFileName::Segment(named(1, number)))
    }

    async fn put(&self, object: &str, bytes: impl Into<Bytes>) {
        self.store.put(&object_name(object).unwrap(), bytes.into(), PutMode::Overwrite).await.unwrap();
    }

    async fn remove(&self, object: &str) {
        self.store.delete(&[object_name(object).unwrap()]).await.unwrap();
    }

    async fn lose(&self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.remove(&self.segment_object(number)).await;
        }
    }

    /// Stores a file as the archiver does.
    async fn store_file(&self, file: WalFileName, raw: &[u8]) {
        let facts = match file {
            WalFileName::Segment(name) => serde_json::to_value(SegmentFacts::scan(WalSegment {
                bytes: raw,
                name,
                size: size(),
                version: PgVersion::V18,
            }))
            .unwrap(),
            _ => serde_json::json!({}),
        };
        self.store_with(file, raw, facts).await;
    }

    async fn store_with(&self, file: WalFileName, raw: &[u8], facts: serde_json::Value) {
        let (object, compression) = (self.object(file), "zstd:1".parse().unwrap());
        let (id, key) = (self.repository.id(), self.repository.key());
        let bytes = wal_object::encode(&object, &file.to_string(), raw, compression, id, key, facts).unwrap();
        self.put(&object, bytes).await;
    }

    async fn archive(&self, server: &Writer, number: u64) {
        self.store_file(WalFileName::Segment(server.name(number)), &server.segment(number)).await;
    }

    /// Timeline 2, which begins in segment 9, with its history and its segments 9 to 12.
    async fn promote(&mut self) -> Writer {
        let mut second = Writer::new(1, size(), self.claim.system_identifier);
        second.write_into(9);
        let switch = second.lsn();
        second.promote(2);
        second.write_into(13);
        self.history(2, &format!("1\t{switch}\tno recovery target specified\n")).await;
        for number in 9..=12 {
            self.archive(&second, number).await;
        }
        self.lose(10..=12).await;
        second
    }

    async fn history(&self, timeline: u32, text: &str) {
        self.store_file(WalFileName::History(timeline.to_string().parse().unwrap()), text.as_bytes()).await;
    }

    /// A backup that starts and stops in these segments.
    async fn backup(&self, id: BackupId, start: u64, stop: u64) {
        self.backup_on(1, id, start, stop).await;
    }

    async fn backup_on(&self, timeline: u32, id: BackupId, start: u64, stop: u64) {
        let report: BackupReport =
            serde_json::from_str(include_str!("../../../../contract/tests/samples/backup-2.json")).unwrap();
        let lsn = |number: u64, offset: u64| Lsn::new(number * u64::from(SIZE) + offset);
        let stop_time = "2026-08-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap();
        let record = BackupRecord {
            backup_id: id,
            cluster: self.claim.cluster.clone(),
            claim: self.claim.number,
            parent: None,
            system_identifier: self.claim.system_identifier,
            wal_segment_size: size(),
            timeline: timeline.to_string().parse().unwrap(),
            start_lsn: lsn(start, 0x28),
            stop_lsn: lsn(stop, 0x1000),
            start_segment: named(timeline, start),
            stop_segment: named(timeline, stop),
            stop_time: stop_time + TimeDelta::minutes(i64::try_from(stop).unwrap()),
            ..report.repositories[0].backup.clone()
        };
        let cluster = &self.claim.cluster;
        self.repository.create_record(&name::backup_summary(cluster, &id), &record).await.unwrap();
        self.put(&name::backup_start(cluster, &id), "x").await;
        self.put(&name::manifest(cluster, &id), "x").await;
    }

    /// A recorded snapshot that starts and stops in these segments.
    async fn snapshot(&self, id: BackupId, start: u64, stop: u64) {
        let sample: SnapshotRecord =
            decode_plain(include_bytes!("../../../../repo/tests/samples/snapshot.json")).unwrap();
        let lsn = |number: u64, offset: u64| Lsn::new(number * u64::from(SIZE) + offset);
        let record = SnapshotRecord {
            snapshot_id: id,
            cluster: self.claim.cluster.clone(),
            claim: self.claim.number,
            system_identifier: self.claim.system_identifier,
            wal_segment_size: size(),
            timeline: "1".parse().unwrap(),
            start_lsn: lsn(start, 0x28),
            stop_lsn: lsn(stop, 0x1000),
            start_segment: named(1, start),
            stop_segment: named(1, stop),
            stop_time: "2026-08-01T00:00:00Z".parse().unwrap(),
            ..sample
        };
        self.repository.create_record(&name::snapshot(&self.claim.cluster, &id), &record).await.unwrap();
    }

    fn options(&self) -> WalVerifyOptions {
        WalVerifyOptions {
            cluster: self.claim.cluster.clone(),
            timeline: None,
            level: Level::Shallow,
            sample: None,
            heal_from: Vec::new(),
            compression: "zstd:1".parse().unwrap(),
            remember: true,
            jobs: 2,
            memory_bytes: 64 << 20,
            host: "db1".to_owned(),
            now: now() + TimeDelta::minutes(self.minutes.fetch_add(1, Ordering::Relaxed)),
        }
    }

    async fn verify_with(&self, options: &WalVerifyOptions) -> Result<WalVerification, Error> {
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        wal_verify(&self.repository, options, &progress, &CancellationToken::new()).await
    }

    async fn verify(&self, level: Level) -> WalVerification {
        let found = self.verify_with(&WalVerifyOptions { level, ..self.options() }).await.unwrap();
        assert!(found.interrupted.is_none(), "{:?}", found.interrupted);
        found
    }

    /// The entries about gaps in the ledger, oldest first.
    async fn ledger(&self) -> Vec<String> {
        let listed = self.store.list(&name::ledger_folder(&self.claim.cluster), None).await.unwrap();
        let mut entries = Vec::new();
        for object in listed.iter().filter(|object| object.name.as_ref().contains("-gap")) {
            let record: LedgerRecord = self.repository.read_record(object.name.as_ref()).await.unwrap();
            entries.push(match record.entry {
                LedgerEntry::Gap { first, last, count, reason, .. } => format!("gap {first} {last} {count} {reason}"),
                LedgerEntry::GapClosed { first, last, count, outcome, .. } => {
                    format!("closed {first} {last} {count} {outcome:?}")
                }
                other => panic!("{other:?}"),
            });
        }
        entries
    }
}

impl Bench {
    /// A folder with segments of a server, in a data directory without a control file.
    fn folder_of(&self, server: &Writer, numbers: impl IntoIterator<Item = u64>) -> PathBuf {
        let folder = self.folder.path().join("archive");
        std::fs::create_dir_all(&folder).unwrap();
        for number in numbers {
            std::fs::write(folder.join(server.name(number).to_string()), server.segment(number)).unwrap();
        }
        folder
    }
}

fn named(timeline: u32, number: u64) -> SegmentName {
    SegmentName::from_number(number, timeline.to_string().parse().unwrap(), size()).unwrap()
}

/// A finding in one line: weight, kind, file, count, problem.
fn line(found: &WalFinding) -> String {
    let weight = if found.weight == WalFindingWeight::Loss { "loss" } else { "remark" };
    format!("{weight} {}: {} ({}): {}", found.kind.words(), found.file, found.count, found.problem)
}

fn lines(found: &WalVerification) -> Vec<String> {
    found.findings.iter().map(line).collect()
}

fn lost(found: &WalFinding) -> Vec<String> {
    found.lost.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_whole_archive_has_no_findings() {
    for unlock in [Unlock::NotEncrypted, Unlock::KeyFile(Secret::new(vec![7; 32]))] {
        for promoted in [false, true] {
            let mut bench = Bench::with(unlock.clone()).await;
            if promoted {
                bench.promote().await;
            }
            for level in [Level::Shallow, Level::Deep] {
                let found = bench.verify(level).await;
                assert_eq!((lines(&found), &found.notes), (Vec::new(), &Vec::new()), "{promoted} {level}");
                let timelines: Vec<(u32, u64)> =
                    found.claims[0].timelines.iter().map(|of| (of.timeline.get(), of.segment_count)).collect();
                // Timeline 1 has 3 to 9 after the promotion: its later segments were lost with its server.
                let expected = if promoted { vec![(1, 7), (2, 10)] } else { vec![(1, 10)] };
                assert_eq!(timelines, expected);
                // From segment 3 on: the backup begins there. Both timelines share 3 to 8.
                assert_eq!(found.compared_count, if promoted { 6 + 4 } else { 9 }, "{promoted} {level}");
                let read = if promoted { 11 } else { 10 };
                // Where the timelines part, one segment is read for both.
                let read = if promoted { read + 1 } else { read };
                assert_eq!(found.read_bytes, if level == Level::Deep { read << 20 } else { 0 }, "{promoted} {level}");
            }
            assert_eq!(bench.ledger().await, [""; 0]);
        }
    }
}
