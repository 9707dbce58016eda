//! Backups of synthetic data directories without a server. They use the engine's own listing, planning, reading,
//! writing and checking, and its own restore.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed set-up fails the test")]

mod block_size;
mod random_changes;
mod references;
mod scale;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_pgtypes::{ControlFile, Lsn, SegmentName, TimelineId, WalFileName, WalSegmentSize};
use holdfast_repo::codec::{Codec, Compression};
use holdfast_repo::name::{self, BackupId, ClaimNumber, ClusterName};
use holdfast_repo::record::{BackupRecord, BackupType, EncryptionKind, TablespaceEntry};
use holdfast_repo::recovery::RecoveryRequest;
use holdfast_repo::wal_object;
use holdfast_store::{MemoryStore, PutMode};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::copy::{Copied, Copier};
use super::encode::Encoding;
use super::incremental::Base;
use super::incremental::lane::ParentLane;
use super::incremental::page_lsn::PageLsns;
use super::listing::Scan;
use super::present::{AskedServer, Catalogs, tablespace_places};
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
use crate::server::DatabasePlace;

/// The minimum part size of an S3 store.
const PART_BYTES: usize = 5 << 20;

/// Extents are short, so that little data has many of them.
const EXTENT_BYTES: u32 = 64 << 10;

/// A repository in memory for the backups of one data directory.
struct Bench {
    repository: Repository,
    cluster: ClusterName,
    crew: Crew,
}

/// A complete backup.
struct Complete {
    record: BackupRecord,
}

/// What a server knows of its databases and tablespaces.
#[derive(Debug, Default)]
struct KnownServer {
    databases: Mutex<Vec<DatabasePlace>>,
    tablespaces: Mutex<HashMap<u32, String>>,
    /// The time within which it drops what has no files.
    dropped_within: Duration,
}

impl Catalogs for KnownServer {
    async fn databases(&self) -> Result<Vec<DatabasePlace>, Error> {
        Ok(self.databases.lock().clone())
    }

    async fn tablespaces(&self) -> Result<HashMap<u32, String>, Error> {
        Ok(self.tablespaces.lock().clone())
    }
}

/// What is backed up, and how.
struct Wanted<'a> {
    pgdata: &'a Path,
    /// The server that is asked what must be there; without it, anything is accepted.
    server: Option<&'a KnownServer>,
    check_pages: bool,
    /// The segment in which the backup starts. It ends in the next one.
    segment: u64,
    parent: Option<&'a Complete>,
}

fn now() -> DateTime<Utc> {
    "2026-11-29T11:00:00Z".parse().unwrap()
}

/// The place in its segment at which a backup starts.
const START_OFFSET: u64 = 0x28;

/// Where a backup starts that starts in this segment.
fn start_in(segment: u64, control: &ControlFile) -> Lsn {
    Lsn::new(segment * control.wal_segment_size.as_u64() + START_OFFSET)
}

/// The id of the backup that starts in this segment.
fn id_of(segment: u64) -> BackupId {
    BackupId::new(now() + TimeDelta::minutes(segment.cast_signed())).unwrap()
}

impl Bench {
    async fn new() -> Self {
        let target = RepositoryTarget { store: Arc::new(MemoryStore::new()), unlock: Unlock::NotEncrypted };
        let repository = init::init(&target, now()).await.unwrap().repository;
        Self { repository, cluster: "main".parse().unwrap(), crew: Crew::new(2) }
    }

    /// Everything that a backup does between the start call and its record, with the checks of a restore.
    async fn backup(&self, wanted: &Wanted<'_>) -> Result<Complete, Error> {
        let Wanted { pgdata, server, check_pages, .. } = *wanted;
        let control = crate::server::read_control_file(pgdata)?;
        let cancel = CancellationToken::new();
        let (start_lsn, version) = (start_in(wanted.segment, &control), control.version);
        let parent = match wanted.parent {
            Some(parent) => Some(restore::try_manifest(&self.repository, &parent.record, &self.crew).await?),
            None => None,
        };
        let asked = match server {
            Some(server) => {
                let asked = AskedServer::before_listing(server, pgdata, version).await?;
                Some(asked.dropped_within(server.dropped_within))
            }
            None => None,
        };
        let (place, checks, token) = (pgdata.to_owned(), page_checks(&control, check_pages), cancel.clone());
        let listed =
            tokio::task::spawn_blocking(move || scan(&place, &control, checks, &token).map(|scan| (scan, control)));
        let (scan, control) = listed.await.unwrap()?;
        let looked_up = match &asked {
            Some(asked) => Some((asked, asked.check_databases(&scan).await?)),
            None => None,
        };
        let tablespaces = match &asked {
            Some(asked) => asked.tablespaces(&scan).await?,
            None => listed_tablespaces(&scan),
        };
        let lane = parent.as_ref().map(|parent| ParentLane::of_base(Arc::clone(&parent.manifest)));
        let base = wanted.parent.zip(parent).map(|(of, restore::Trial { manifest, index })| {
            let lsns = PageLsns::new(of.record.start_lsn, &control, &scan.files, &manifest, &index);
            Arc::new(Base::new(manifest, Arc::new(index), Some(lsns), 64))
        });
        let id = id_of(wanted.segment);
        let (repository, cluster) = (self.repository.clone(), &self.cluster);
        let sink = Sink::new(repository, cluster, id, PART_BYTES, EXTENT_BYTES, 32 << 20, &cancel).await;
        let mut sinks = Sinks::new(&Silent, cancel.clone());
        sinks.add(self.repository.describe(), sink.map(|sink| sink.with_parent(lane)));
        sinks.check_any()?;
        let copier = Copier {
            pgdata: pgdata.to_owned(),
            encoding: Encoding {
                compression: "zstd:1".parse().unwrap(),
                extent_size_bytes: EXTENT_BYTES,
                base,
                earlier: None,
            },
            crew: self.crew.clone(),
            budget: ByteBudget::new(32 << 20),
            start_lsn,
            progress: &Silent,
            cancel,
        };
        let mut totals = copy_listed(&copier, scan, None, &mut sinks).await?;
        if let Some((asked, listed)) = looked_up {
            asked.check_copied(listed, std::mem::take(&mut totals.missing), &tablespaces).await?;
        }
        let label = label(start_lsn, control.wal_segment_size);
        let outside = tablespaces.iter().filter(|found| Path::new(&found.path).is_absolute());
        let map: Vec<String> = outside.map(|found| format!("{} {}\n", found.oid, found.path)).collect();
        let control_bytes = crate::server::read_control_bytes(pgdata)?;
        let last = last_files(label.into_bytes(), map.concat().into_bytes(), control_bytes, 0o600, 0);
        copier.copy_from_memory(last, &mut sinks).await?;
        let stored = sinks.finish().await?.pop().flatten().unwrap();
        let record = self.record(wanted, &control, &stored, &totals, tablespaces);
        restore::would_take(&self.repository, &record, &self.crew).await?;
        self.archive(&control, [record.start_segment, record.stop_segment]).await;
        self.repository.create_record(&name::backup_summary(&self.cluster, &id), &record).await?;
        Ok(Complete { record })
    }

    fn record(
        &self,
        wanted: &Wanted<'_>,
        control: &ControlFile,
        stored: &Stored,
        totals: &Copied,
        tablespaces: Vec<TablespaceEntry>,
    ) -> BackupRecord {
        let (size, parent) = (control.wal_segment_size, wanted.parent.map(|parent| parent.record.backup_id));
        let segment = |number| SegmentName::from_number(number, TimelineId::FIRST, size).unwrap();
        let start_lsn = start_in(wanted.segment, control);
        BackupRecord {
            backup_id: id_of(wanted.segment),
            label: "x".to_owned(),
            cluster: self.cluster.clone(),
            claim: ClaimNumber::FIRST,
            backup_type: if parent.is_some() { BackupType::Incremental } else { BackupType::Full },
            parent,
            system_identifier: control.system_identifier,
            pg_version: "18.1".to_owned(),
            pg_major: 18,
            catalog_version: control.catalog_version,
            wal_segment_size: size,
            timeline: TimelineId::FIRST,
            start_lsn,
            stop_lsn: segment(wanted.segment + 1).start_lsn(size).saturating_add(0x100),
            start_segment: segment(wanted.segment),
            stop_segment: segment(wanted.segment + 1),
            start_time: now(),
            stop_time: now(),
            duration_milliseconds: 0,
            from_standby: false,
            data_checksums: control.has_data_checksums(),
            checksum_failures: totals.bad_pages.settle(start_lsn),
            file_count: totals.file_count,
            removed_file_count: totals.removed_count,
            size_bytes: totals.size_bytes,
            stored_bytes: stored.size_bytes,
            pack_count: stored.pack_count,
            tablespaces,
            databases: Vec::new(),
            compression: "zstd:1".to_owned(),
            encryption: EncryptionKind::None,
            manifest: stored.manifest.clone(),
            next_xid: 800,
            host: "db1".to_owned(),
            software_version: "0.1.0".to_owned(),
            warnings: Vec::new(),
            annotations: std::collections::BTreeMap::new(),
        }
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

/// A `backup_label` as the server writes it.
fn label(start_lsn: Lsn, size: WalSegmentSize) -> String {
    let segment = SegmentName::containing(start_lsn, TimelineId::FIRST, size);
    format!(
        "START WAL LOCATION: {start_lsn} (file {segment})\nCHECKPOINT LOCATION: {start_lsn}\nBACKUP METHOD: \
         streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-29 11:00:00 UTC\nLABEL: x\nSTART TIMELINE: 1\n"
    )
}

/// The tablespaces of a listing.
fn listed_tablespaces(scan: &Scan) -> Vec<TablespaceEntry> {
    let entry = |(oid, path): (u32, &[u8])| TablespaceEntry {
        oid,
        name: format!("space-{oid}"),
        path: String::from_utf8(path.to_vec()).unwrap(),
    };
    tablespace_places(scan).into_iter().map(entry).collect()
}

/// The folder of a tablespace beside a restored data directory.
fn space_beside(pgdata: &Path, oid: u32) -> PathBuf {
    let name = format!("{}-space-{oid}", pgdata.file_name().unwrap().to_str().unwrap());
    pgdata.with_file_name(name)
}
