//! Backups of synthetic data directories without a server. They use the engine's own listing, planning, reading,
//! writing and checking, and its own restore.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed set-up fails the test")]

mod block_size;
mod random_changes;
mod references;
mod scale;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use holdfast_pgtypes::{ControlFile, Lsn, SegmentName, TimelineId, WalFileName};
use holdfast_repo::codec::{Codec, Compression};
use holdfast_repo::name::{self, BackupId, ClaimNumber, ClusterName};
use holdfast_repo::record::{BackupRecord, BackupType, EncryptionKind, TablespaceEntry};
use holdfast_repo::recovery::RecoveryRequest;
use holdfast_repo::wal_object;
use holdfast_store::{MemoryStore, PutMode};
use tokio_util::sync::CancellationToken;

use super::copy::Copier;
use super::encode::Encoding;
use super::present::tablespace_places;
use super::run::{copy_listed, last_files, page_checks};
use super::scan::scan;
use super::sink::{Sink, Stored};
use super::sinks::Sinks;
use crate::error::Error;
use crate::pipeline::budget::ByteBudget;
use crate::pipeline::crew::Crew;
use crate::progress::Silent;
use crate::repository::claim::{Claimant, Identity};
use crate::repository::{Repository, RepositoryTarget, Unlock, init, object_name};
use crate::restore::{self, Archiving, RestoreOptions, TablespaceMapping};

/// A control file of PostgreSQL 18.
const CONTROL: &[u8] = include_bytes!("../../../../pgtypes/tests/fixtures/pg_control.18");

/// The minimum part size of an S3 store.
const PART_BYTES: usize = 5 << 20;

/// Extents are short, so that little data has many of them.
const EXTENT_BYTES: u32 = 64 << 10;

/// A repository in memory for one backup of one data directory.
struct Bench {
    repository: Repository,
    cluster: ClusterName,
    backup: BackupId,
    crew: Crew,
}

/// A complete backup.
struct Complete {
    record: BackupRecord,
}

fn now() -> DateTime<Utc> {
    "2026-11-29T11:00:00Z".parse().unwrap()
}

impl Bench {
    async fn new() -> Self {
        let target = RepositoryTarget { store: Arc::new(MemoryStore::new()), unlock: Unlock::NotEncrypted };
        let repository = init::init(&target, now()).await.unwrap().repository;
        let backup = BackupId::new(now()).unwrap();
        Self { repository, cluster: "main".parse().unwrap(), backup, crew: Crew::new(2) }
    }

    /// Everything that a backup does between the start call and its record, with the checks of a restore.
    async fn backup(&self, pgdata: &Path, check_pages: bool) -> Result<Complete, Error> {
        let control = crate::server::read_control_file(pgdata)?;
        let cancel = CancellationToken::new();
        let size = control.wal_segment_size;
        let segment = |number| SegmentName::from_number(number, TimelineId::FIRST, size).unwrap();
        let start_lsn = Lsn::new(8 * size.as_u64() + 0x28);
        let (place, checks, token) = (pgdata.to_owned(), page_checks(&control, check_pages), cancel.clone());
        let listed =
            tokio::task::spawn_blocking(move || scan(&place, &control, checks, &token).map(|scan| (scan, control)));
        let (scan, control) = listed.await.unwrap()?;
        let tablespaces: Vec<TablespaceEntry> = tablespace_places(&scan)
            .into_iter()
            .map(|(oid, path)| {
                let path = String::from_utf8(path.to_vec()).unwrap();
                TablespaceEntry { oid, name: format!("space-{oid}"), path }
            })
            .collect();
        let (repository, cluster) = (self.repository.clone(), &self.cluster);
        let sink = Sink::new(repository, cluster, self.backup, PART_BYTES, EXTENT_BYTES, 32 << 20, &cancel);
        let mut sinks = Sinks::new(&Silent, cancel.clone());
        sinks.add(self.repository.describe(), sink.await);
        sinks.check_any()?;
        let copier = Copier {
            pgdata: pgdata.to_owned(),
            encoding: Encoding {
                compression: "zstd:1".parse().unwrap(),
                extent_size_bytes: EXTENT_BYTES,
                base: None,
                earlier: None,
            },
            crew: self.crew.clone(),
            budget: ByteBudget::new(32 << 20),
            start_lsn,
            progress: &Silent,
            cancel,
        };
        let totals = copy_listed(&copier, scan, None, &mut sinks).await?;
        let control_bytes = crate::server::read_control_bytes(pgdata)?;
        let label = format!(
            "START WAL LOCATION: {start_lsn} (file {})\nCHECKPOINT LOCATION: {start_lsn}\nBACKUP METHOD: streamed\n\
             BACKUP FROM: primary\nSTART TIME: 2026-11-29 11:00:00 UTC\nLABEL: x\nSTART TIMELINE: 1\n",
            segment(8)
        );
        let outside = tablespaces.iter().filter(|found| Path::new(&found.path).is_absolute());
        let map: Vec<String> = outside.map(|found| format!("{} {}\n", found.oid, found.path)).collect();
        let last = last_files(label.into_bytes(), map.concat().into_bytes(), control_bytes, 0o600, 0);
        copier.copy_from_memory(last, &mut sinks).await?;
        let Stored { manifest, pack_count, size_bytes, .. } = sinks.finish().await?.pop().flatten().unwrap();
        let record = BackupRecord {
            backup_id: self.backup,
            label: "x".to_owned(),
            cluster: self.cluster.clone(),
            claim: ClaimNumber::FIRST,
            backup_type: BackupType::Full,
            parent: None,
            system_identifier: control.system_identifier,
            pg_version: "18.1".to_owned(),
            pg_major: 18,
            catalog_version: control.catalog_version,
            wal_segment_size: size,
            timeline: TimelineId::FIRST,
            start_lsn,
            stop_lsn: segment(9).start_lsn(size).saturating_add(0x100),
            start_segment: segment(8),
            stop_segment: segment(9),
            start_time: now(),
            stop_time: now(),
            duration_milliseconds: 0,
            from_standby: false,
            data_checksums: control.has_data_checksums(),
            checksum_failures: totals.bad_pages.settle(start_lsn),
            file_count: totals.file_count,
            removed_file_count: totals.removed_count,
            size_bytes: totals.size_bytes,
            stored_bytes: size_bytes,
            pack_count,
            tablespaces,
            databases: Vec::new(),
            compression: "zstd:1".to_owned(),
            encryption: EncryptionKind::None,
            manifest,
            next_xid: 800,
            host: "db1".to_owned(),
            software_version: "0.1.0".to_owned(),
            warnings: Vec::new(),
            annotations: std::collections::BTreeMap::new(),
        };
        restore::would_take(&self.repository, &record, &self.crew).await?;
        self.archive(&control, [segment(8), segment(9)]).await;
        self.repository.create_record(&name::backup_summary(&self.cluster, &self.backup), &record).await?;
        Ok(Complete { record })
    }

    /// Stores the claim and the WAL of the backup. The WAL has no changes.
    async fn archive(&self, control: &ControlFile, segments: [SegmentName; 2]) {
        let claimant = Claimant {
            identity: Identity::of_control_file(control),
            here: "a test".to_owned(),
            owner: None,
            wal_codec: Codec::Zstd,
            host: "db1".to_owned(),
            now: now(),
        };
        self.repository.take_claim(&self.cluster, &claimant).await.unwrap();
        for segment in segments {
            let file = WalFileName::Segment(segment);
            let object = name::wal_file(&self.cluster, ClaimNumber::FIRST, &file, Codec::Zstd, false);
            let facts = serde_json::json!({ "first_record_lsn": segment.start_lsn(control.wal_segment_size) });
            let compression = Compression::of(Codec::Zstd);
            let id = self.repository.id();
            let bytes = wal_object::encode(&object, &file.to_string(), b"WAL", compression, id, None, facts).unwrap();
            self.repository.store().put(&object_name(&object).unwrap(), bytes, PutMode::Create).await.unwrap();
        }
    }

    /// Restores into a new folder, and the tablespaces into folders beside it.
    async fn restore(&self, complete: &Complete, pgdata: &Path) -> Result<(), Error> {
        let outside = complete.record.tablespaces.iter().filter(|found| Path::new(&found.path).is_absolute());
        let options = RestoreOptions {
            cluster: self.cluster.clone(),
            pgdata: pgdata.to_owned(),
            request: RecoveryRequest::default(),
            target_action: None,
            delta: false,
            tablespaces: outside
                .map(|found| TablespaceMapping {
                    tablespace: found.name.clone(),
                    directory: space_beside(pgdata, found.oid),
                })
                .collect(),
            tablespace_root: None,
            reuse_tablespaces: Vec::new(),
            discard_wal: false,
            places: Vec::new(),
            originals: Vec::new(),
            archiving: Archiving::AsBackedUp,
            standby: false,
            jobs: 2,
            memory_bytes: 32 << 20,
            restore_command: "holdfast wal get %f %p".to_owned(),
            tail_command: None,
            retention: None,
            host: "db2".to_owned(),
            now: now(),
        };
        let progress: Arc<dyn crate::progress::Progress> = Arc::new(Silent);
        restore::restore(&self.repository, &options, &progress, &CancellationToken::new()).await.map(drop)
    }
}

/// The folder of a tablespace beside a restored data directory.
fn space_beside(pgdata: &Path, oid: u32) -> PathBuf {
    let name = format!("{}-space-{oid}", pgdata.file_name().unwrap().to_str().unwrap());
    pgdata.with_file_name(name)
}
