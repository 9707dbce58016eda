//! The verb `snapshot record`: after it, a recovery can begin from volume snapshots.
//!
//! The program that takes the snapshots puts the server into backup mode (or stops it), takes them, ends backup mode,
//! and then asks for the record. Steps: check the request by itself; check that this cluster has claimed the archive;
//! wait in every repository for all WAL from the start to the stop LSN, and compare it with the `pg_wal` of the data
//! directory, if that is known; write the record, once and last. So an existing record means that a directory filled
//! from the snapshots can be recovered, as `backup.json` does for a backup.
//!
//! After a crash the same request can be made again: if it was recorded already, its record is found and returned.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
pub use holdfast_contract::report::snapshot::{RecordReport, RecordedSnapshot};
use holdfast_contract::request::SnapshotRequest;
use holdfast_pgtypes::{BackupLabel, Lsn, SystemIdentifier, TablespaceMap, TimelineId};
use holdfast_repo::Compression;
use holdfast_repo::name::{self, BackupId, ClusterName};
use holdfast_repo::record::{ClaimRecord, SnapshotRecord};
use tokio_util::sync::CancellationToken;

use crate::backup::wal_wait::{WalWait, Written};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::{Repository, RepositoryTarget, object_name};

mod wal_path;

#[cfg(test)]
mod tests;

/// The options of `snapshot record` besides the request.
#[derive(Debug, Clone)]
pub struct RecordOptions {
    /// The name of the cluster in the repositories.
    pub cluster: ClusterName,
    /// The owner for whom the archive is claimed.
    pub owner: Option<String>,
    /// The data directory, if there is one.
    pub pgdata: Option<PathBuf>,
    /// How long to wait for the WAL.
    pub archive_timeout: Duration,
    /// Name of this host, for the record.
    pub host: String,
    /// The present time.
    pub now: DateTime<Utc>,
}

/// The start and the end of the snapshots in the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    timeline: TimelineId,
    start_lsn: Lsn,
    stop_lsn: Lsn,
}

/// Checks the request by itself.
fn span_of(request: &SnapshotRequest) -> Result<Span, Error> {
    let refused = |why: &str| -> Error { Cause::Refused(format!("snapshots {}: {why}", request.name)).into() };
    if request.snapshots.is_empty() {
        return Err(refused("no snapshot is named"));
    }
    if request.stopped_at < request.started_at {
        return Err(refused("they ended before they began"));
    }
    if let Some(map) = &request.tablespace_map {
        TablespaceMap::parse(map.as_bytes()).map_err(|e| refused(&e.to_string()))?;
    }
    let span = if request.online {
        let label = request.backup_label.as_ref().ok_or_else(|| {
            refused(
                "the server was running, but backup_label from pg_backup_stop() is missing: nothing could be recovered",
            )
        })?;
        let label = BackupLabel::parse(label.as_bytes()).map_err(|e| refused(&e.to_string()))?;
        let stop_lsn = request.end_lsn.ok_or_else(|| refused("the stop LSN (end_lsn) is missing"))?;
        if request.begin_lsn.is_some_and(|begin| begin != label.start_lsn) {
            return Err(refused(&format!("begin_lsn is not {}, the start LSN of backup_label", label.start_lsn)));
        }
        Span { timeline: label.start_timeline, start_lsn: label.start_lsn, stop_lsn }
    } else {
        if request.backup_label.is_some() {
            return Err(refused("the server was stopped, but there is a backup_label from a running server"));
        }
        let (Some(start_lsn), Some(timeline)) = (request.begin_lsn, request.timeline) else {
            return Err(refused("the server was stopped: begin_lsn and timeline of its last checkpoint are missing"));
        };
        Span { timeline, start_lsn, stop_lsn: request.end_lsn.unwrap_or(start_lsn) }
    };
    if span.stop_lsn < span.start_lsn {
        return Err(refused(&format!("the stop LSN {} is before the start LSN {}", span.stop_lsn, span.start_lsn)));
    }
    Ok(span)
}

/// Waits for the WAL and writes the record.
///
/// # Errors
/// [`Cause::Refused`] if the request contradicts itself or the data directory, or lacks needed facts.
/// [`Cause::NoClaim`], [`Cause::WrongCluster`] or [`Cause::WrongOwner`] if the archive is not this cluster's,
/// [`Cause::ServerSetting`] if the data directory is not that of the snapshots. [`Cause::File`], [`Cause::ControlFile`]
/// or [`Cause::Malformed`] if the control file or a timeline's history cannot be read. [`Cause::NotArchived`] if the
/// WAL does not arrive in time, [`Cause::Divergence`] if the archive has WAL of another history, [`Cause::AnotherRun`]
/// if every id that is tried is taken, [`Cause::Cancelled`]. Those of [`Repository::open`] and
/// [`Repository::create_record`]. After an error some of the repositories may have the record: the same request again
/// completes it.
pub async fn record(
    targets: &[RepositoryTarget],
    request: &SnapshotRequest,
    options: &RecordOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<RecordReport, Error> {
    let recording = record_inner(targets, request, options, progress, cancel);
    let recorded = tokio::select! {
        recorded = recording => recorded,
        () = cancel.cancelled() => Err(Cause::Cancelled.into()),
    };
    recorded.doing(|| format!("recording the snapshots {} of {}", request.name, options.cluster))
}

async fn record_inner(
    targets: &[RepositoryTarget],
    request: &SnapshotRequest,
    options: &RecordOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<RecordReport, Error> {
    let span = span_of(request)?;
    let system_identifier = wal_path::system_identifier(request, options)?;
    progress.phase("opening", None);
    let mut repositories = Vec::new();
    for target in targets {
        let repository = Repository::open_to_write(target).await?;
        let claim = repository.current_claim(&options.cluster).await?;
        check_claim(&repository, &claim, system_identifier, request, options)?;
        repositories.push((repository, claim));
    }
    if let Some(report) = recorded_before(&repositories, request, span, options).await? {
        return Ok(report);
    }
    let control = wal_path::compare(span, options).await?;
    let Some((repository, claim)) = repositories.first() else {
        return Err(Cause::Refused("there is no repository to record in".to_owned()).into());
    };
    let size = claim.wal_segment_size;
    let wal_path = wal_path::wal_path(request, span, options, control.as_ref(), (repository, claim)).await?;
    let first = wal_path.first(size);
    // For a stopped server, recovery reads the checkpoint record itself, which begins at the stop LSN.
    let is_one_checkpoint = span.stop_lsn == span.start_lsn;
    let last = if is_one_checkpoint { first } else { wal_path.last(size) };
    let wait = WalWait {
        repositories: repositories.iter().map(|(repository, claim)| (repository, claim)).collect(),
        cluster: &options.cluster,
        ranges: if is_one_checkpoint { vec![(first, last)] } else { wal_path.ranges(size) },
        history: wal_path.history_file(),
        pg_wal: PathBuf::new(),
        // The cluster's archiver sends the WAL, perhaps on another machine. This command sends nothing.
        finished: None,
        archives: true,
        compression: Compression::default(),
        crew: Crew::new(1),
        timeout: options.archive_timeout,
        backup: request.name.clone(),
        own: options.pgdata.as_ref().map(|pgdata| Written {
            pg_wal: pgdata.join("pg_wal"),
            end: span.stop_lsn,
            timeline: wal_path.timeline(),
            archives: !wal_path::is_of_standby(request),
        }),
    };
    wait.run(progress, cancel).await?;
    let snapshot_id = free_id(&repositories, options).await?;
    let mut recorded = Vec::new();
    for (repository, claim) in &repositories {
        let snapshot = SnapshotRecord {
            snapshot_id,
            label: request.name.clone(),
            cluster: options.cluster.clone(),
            claim: claim.number,
            system_identifier: claim.system_identifier,
            pg_major: claim.pg_major,
            wal_segment_size: size,
            timeline: span.timeline,
            online: request.online,
            start_lsn: span.start_lsn,
            stop_lsn: span.stop_lsn,
            start_segment: first,
            stop_segment: last,
            start_time: request.started_at,
            stop_time: request.stopped_at,
            backup_label: request.backup_label.clone(),
            tablespace_map: request.tablespace_map.clone().filter(|map| !map.is_empty()),
            snapshots: request.snapshots.clone(),
            owner: options.owner.clone(),
            created: options.now,
            host: options.host.clone(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            annotations: request.annotations.clone(),
        };
        repository.create_record(&name::snapshot(&options.cluster, &snapshot_id), &snapshot).await?;
        recorded.push(RecordedSnapshot { repository: repository.describe(), snapshot });
    }
    Ok(RecordReport { snapshot_id, recorded_now: true, repositories: recorded })
}

fn check_claim(
    repository: &Repository,
    claim: &ClaimRecord,
    system_identifier: Option<SystemIdentifier>,
    request: &SnapshotRequest,
    options: &RecordOptions,
) -> Result<(), Error> {
    let found = system_identifier.ok_or_else(|| {
        Cause::Refused(format!(
            "the cluster of the snapshots {} is not known: give system_identifier, or set cluster.pgdata",
            request.name
        ))
    })?;
    let here = format!("the cluster of the snapshots {}", request.name);
    if claim.system_identifier != found {
        return Err(Cause::WrongCluster {
            store: repository.describe(),
            cluster: claim.cluster.to_string(),
            claimed: claim.system_identifier,
            here,
            found,
        }
        .into());
    }
    repository.check_owner(claim, &here, options.owner.as_deref())
}

/// The record of an earlier run of the same request. If it reached only some repositories, it is completed.
async fn recorded_before(
    repositories: &[(Repository, ClaimRecord)],
    request: &SnapshotRequest,
    span: Span,
    options: &RecordOptions,
) -> Result<Option<RecordReport>, Error> {
    let is_it = |record: &SnapshotRecord| {
        (&record.label, record.start_lsn, record.stop_lsn, &record.snapshots)
            == (&request.name, span.start_lsn, span.stop_lsn, &request.snapshots)
    };
    let mut found: Vec<Option<SnapshotRecord>> = Vec::new();
    for (repository, claim) in repositories {
        // If it cannot be read, the snapshots are recorded again, under another id.
        let snapshots = repository.snapshots(&options.cluster).await?.records;
        found.push(snapshots.into_iter().rev().find(|record| record.claim == claim.number && is_it(record)));
    }
    let Some(known) = found.iter().flatten().next().cloned() else { return Ok(None) };
    let mut recorded = Vec::new();
    for ((repository, claim), snapshot) in repositories.iter().zip(found) {
        let snapshot = if let Some(snapshot) = snapshot {
            snapshot
        } else {
            let snapshot = SnapshotRecord { claim: claim.number, ..known.clone() };
            let name = name::snapshot(&options.cluster, &known.snapshot_id);
            repository.create_record(&name, &snapshot).await?;
            snapshot
        };
        recorded.push(RecordedSnapshot { repository: repository.describe(), snapshot });
    }
    Ok(Some(RecordReport { snapshot_id: known.snapshot_id, recorded_now: false, repositories: recorded }))
}

/// An id that neither a backup nor another snapshot has, in any repository.
async fn free_id(repositories: &[(Repository, ClaimRecord)], options: &RecordOptions) -> Result<BackupId, Error> {
    let mut time = options.now.trunc_subsecs(0);
    'ids: for _ in 0..60 {
        let id = BackupId::new(time).map_err(|e| Cause::Internal(e.to_string()))?;
        time += chrono::TimeDelta::seconds(1);
        for (repository, _) in repositories {
            let cluster = &options.cluster;
            for name in [name::snapshot(cluster, &id), name::backup_start(cluster, &id)] {
                match repository.store().head(&object_name(&name)?).await {
                    Ok(_) => continue 'ids,
                    Err(error) if error.kind() == holdfast_store::StoreErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        return Ok(id);
    }
    Err(Cause::AnotherRun { verb: "snapshot record", subject: options.cluster.to_string(), pid: None }.into())
}
