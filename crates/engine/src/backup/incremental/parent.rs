//! The parent of an incremental backup: the newest backup that every repository has and that this server's data
//! descends from, with its manifest in each repository.
//!
//! A backup cannot be a parent if WAL or pages would not show everything that changed since it, or if its own content
//! is in doubt. Each reason is a text for people: the run reports why it takes a full backup.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use holdfast_pgtypes::checksum::PAGE_SIZE;
use holdfast_pgtypes::{Ancestry, ControlFile, TimelineId};
use holdfast_repo::manifest::Manifest;
use holdfast_repo::name::{BackupId, ClusterName, LedgerKind};
use holdfast_repo::record::{BackupRecord, ClaimRecord, LedgerEntry};

use super::super::timelines::{history_in, is_on_the_way};
use super::lane::ParentLane;
use crate::error::Error;
use crate::pipeline::crew::Crew;
use crate::repository::Repository;
use crate::repository::damaged::KnownDamage;
use crate::restore::{self, PathIndex, Trial};

#[derive(Debug, Clone)]
pub(in super::super) struct Parent {
    /// Its record, from one of the repositories.
    pub record: BackupRecord,
    /// Its manifest in each repository, in their order; `None` for a repository that is left out. The first one is the
    /// base.
    pub lanes: Vec<Option<ParentLane>>,
    /// The index of the paths of the base.
    pub index: Arc<PathIndex>,
}

/// One repository of the run with its claim; `None` for a repository that is left out.
pub(in super::super) type Lane<'a> = Option<(&'a Repository, &'a ClaimRecord)>;

impl Parent {
    /// Finds the parent, or gives the reason why there is none. An unreadable object in a repository is also such a
    /// reason, because a full backup does not need it. `extent_bytes` is the length of extents in this run, in all
    /// repositories.
    pub(in super::super) async fn find(
        lanes: &[Lane<'_>],
        wanted: &ChildBackup<'_>,
        extent_bytes: u32,
        crew: &Crew,
        now: DateTime<Utc>,
    ) -> Result<Self, String> {
        let ChildBackup { cluster, control, .. } = *wanted;
        if control.block_size != PAGE_SIZE as u32 {
            return Err(format!("the cluster has pages of {} bytes", control.block_size));
        }
        let mut lists = Vec::new();
        let mut known = Vec::new();
        let (mut going, mut damaged, mut other_history) = (BTreeSet::new(), BTreeSet::new(), None);
        for (repository, claim) in lanes.iter().flatten() {
            let (listed, decided, diverged) = tokio::try_join!(
                repository.backups(cluster),
                repository.decided_backups(cluster),
                diverged_at(repository, cluster, claim)
            )
            .map_err(|error| error.to_string())?;
            let read = KnownDamage::read(repository, cluster, &listed.records, now).await;
            let of_lane = read.map_err(|error| error.to_string())?;
            going.extend(decided);
            other_history = other_history.max(diverged);
            let of_claim = listed.records.into_iter().filter(|record| record.claim == claim.number);
            let list: Vec<BackupRecord> = of_claim.collect();
            damaged.extend(of_lane.in_doubt(&list));
            known.push(of_lane);
            lists.push(list);
        }
        let first = lists.first().cloned().unwrap_or_default();
        let mut reason = None;
        for record in first.iter().rev() {
            let id = record.backup_id;
            let is_everywhere = lists.iter().all(|list| list.iter().any(|other| other.backup_id == id));
            let refused = if !is_everywhere {
                Some("not all repositories have it".to_owned())
            } else if going.contains(&id) {
                Some("its removal is decided".to_owned())
            } else if other_history.is_some_and(|at| record.stop_time < at) {
                Some("since then the archive was offered WAL of another history".to_owned())
            } else if damaged.contains(&id) {
                Some(
                    "`holdfast verify` found it damaged, or `holdfast drill` could not restore it or a backup that it is \
                     built on"
                        .to_owned(),
                )
            } else {
                unfit(record, wanted)
            };
            let refused = match refused {
                Some(why) => why,
                None => match load(record, lanes, &lists, &known, extent_bytes, crew).await {
                    Ok(parent) => return Ok(parent),
                    Err(why) => why,
                },
            };
            // Report the reason for the newest backup: that is the one that the user can fix.
            reason.get_or_insert_with(|| format!("backup {id} cannot be its parent: {refused}"));
        }
        Err(reason.unwrap_or_else(|| "there is no earlier backup".to_owned()))
    }

    pub(in super::super) fn id(&self) -> BackupId {
        self.record.backup_id
    }
}

/// When the archive was last sent other content for a segment that it has. A data volume that was rolled back and
/// started without recovery has another history on the same timeline, and neither LSN nor timeline shows that.
async fn diverged_at(
    repository: &Repository,
    cluster: &ClusterName,
    claim: &ClaimRecord,
) -> Result<Option<DateTime<Utc>>, Error> {
    let entries = repository.ledger(cluster, LedgerKind::Divergence).await?.records.into_iter();
    let of_claim = entries.filter_map(|(_, record)| match record.entry {
        LedgerEntry::Divergence { claim: of, .. } if of == claim.number => Some(record.time),
        _ => None,
    });
    Ok(of_claim.max())
}

/// Whether a parent is still there and stays. This must be called after the start record that names it was created:
/// from then on, `expire` keeps the parent.
pub(in super::super) async fn is_still_there(lanes: &[Lane<'_>], cluster: &ClusterName, parent: BackupId) -> bool {
    for (repository, _) in lanes.iter().flatten() {
        let going = repository.decided_backups(cluster).await;
        if !going.is_ok_and(|going| !going.contains(&parent)) || repository.backup(cluster, parent).await.is_err() {
            return false;
        }
    }
    true
}

/// The history of the data directory's current timeline. A standby may be on a later timeline than that of its last
/// restartpoint.
pub(in super::super) fn ancestry_of(pgdata: &Path, control: &ControlFile) -> Result<Ancestry, Error> {
    let timeline = control.reached_timeline();
    if timeline == TimelineId::FIRST { Ok(Ancestry::alone(timeline)) } else { history_in(pgdata, timeline) }
}

/// The backup that needs a parent.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct ChildBackup<'a> {
    pub cluster: &'a ClusterName,
    pub control: &'a ControlFile,
    pub ancestry: &'a Ancestry,
    pub in_recovery: bool,
    /// Whether `control` was read after the start of this backup. On a standby, the start makes a restartpoint, which
    /// changes the control file.
    pub has_started: bool,
}

/// Why a backup cannot be the parent of one that is taken now.
pub(in super::super) fn unfit(parent: &BackupRecord, wanted: &ChildBackup<'_>) -> Option<String> {
    let ChildBackup { control, ancestry, in_recovery, .. } = *wanted;
    if parent.system_identifier != control.system_identifier {
        return Some("it is of another cluster".to_owned());
    }
    if parent.data_checksums != control.has_data_checksums() {
        return Some("data checksums were switched on or off since then".to_owned());
    }
    if parent.checksum_failures.count > 0 {
        return Some("it has pages with a wrong checksum".to_owned());
    }
    if !is_on_the_way(parent, ancestry) {
        let timeline = parent.stop_segment.timeline();
        return Some(format!(
            "it ends at {} on timeline {timeline}, which is not in the history of timeline {} of this server",
            parent.stop_lsn,
            ancestry.timeline()
        ));
    }
    if in_recovery && !wanted.has_started {
        return None;
    }
    if control.redo < parent.start_lsn {
        return Some(format!(
            "it starts at {}, after the last checkpoint of this server at {}",
            parent.start_lsn, control.redo
        ));
    }
    // A page of the parent may have changes up to the parent's end, and the standby may not have replayed them yet.
    let replayed = control.min_recovery_point.filter(|_| in_recovery);
    if in_recovery && replayed.is_none_or(|replayed| replayed < parent.stop_lsn) {
        return Some(format!(
            "this standby has not yet replayed WAL up to the end of that backup, {}",
            parent.stop_lsn
        ));
    }
    None
}

async fn load(
    parent: &BackupRecord,
    lanes: &[Lane<'_>],
    lists: &[Vec<BackupRecord>],
    known: &[KnownDamage],
    extent_bytes: u32,
    crew: &Crew,
) -> Result<Parent, String> {
    let mut lists = lists.iter().zip(known);
    let mut loaded: Vec<Option<ParentLane>> = Vec::new();
    let mut first: Option<(Arc<Manifest>, PathIndex)> = None;
    for lane in lanes {
        let Some((repository, _)) = lane else {
            loaded.push(None);
            continue;
        };
        let (records, damage) = lists.next().ok_or_else(|| "no list of backups".to_owned())?;
        let record = records.iter().find(|record| record.backup_id == parent.backup_id);
        let record = record.ok_or_else(|| format!("it is not in {}", repository.describe()))?;
        let Trial { manifest, index } =
            restore::try_manifest(repository, record, crew).await.map_err(|error| error.to_string())?;
        if manifest.header().extent_bytes != extent_bytes {
            return Err(format!("its extents do not have {extent_bytes} bytes"));
        }
        let packs = manifest.packs().iter().map(|pack| pack.name.as_str());
        let needed = packs.chain(manifest.origins().iter().map(|origin| origin.name.as_str()));
        if let Some(object) = damage.harming(parent.backup_id, needed) {
            return Err(format!("it needs {object}, which `holdfast verify` or `holdfast drill` found damaged"));
        }
        // Otherwise, a missing pack would be noticed only after the copy.
        restore::check_packs(repository, &manifest).await.map_err(|error| error.to_string())?;
        if let Some((base, _)) = &first {
            let lane = ParentLane::beside(base, &manifest, &index);
            loaded.push(Some(lane.ok_or_else(|| "it is not the same in all repositories".to_owned())?));
        } else {
            loaded.push(Some(ParentLane::of_base(Arc::clone(&manifest))));
            first = Some((manifest, index));
        }
    }
    let (_, index) = first.ok_or_else(|| "no repository".to_owned())?;
    Ok(Parent { record: parent.clone(), lanes: loaded, index: Arc::new(index) })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use holdfast_contract::report::backup::BackupReport;
    use holdfast_pgtypes::{Lsn, SegmentName, WalSegmentSize};
    use holdfast_repo::record::ChecksumFailures;

    use super::*;

    const CONTROL: &[u8] = include_bytes!("../../../../pgtypes/tests/fixtures/pg_control.18");

    const REPORT: &str = include_str!("../../../../contract/tests/samples/backup-2.json");

    /// Why a standby that has replayed to `0/3000000` on timeline 2 cannot use a backup that ended at `stop_lsn` on
    /// timeline
    /// 1. Its last restartpoint is still on timeline 1.
    fn refused(stop_lsn: &str, switch_lsn: &str) -> Option<String> {
        let pgdata = tempfile::tempdir().unwrap();
        std::fs::create_dir(pgdata.path().join("pg_wal")).unwrap();
        let history = format!("1\t{switch_lsn}\tno recovery target specified\n");
        std::fs::write(pgdata.path().join("pg_wal/00000002.history"), history).unwrap();
        let report: BackupReport = serde_json::from_str(REPORT).unwrap();
        let stop_lsn: Lsn = stop_lsn.parse().unwrap();
        let size = WalSegmentSize::new(1 << 20).unwrap();
        let sample = ControlFile::parse(CONTROL).unwrap();
        let parent = BackupRecord {
            system_identifier: sample.system_identifier,
            data_checksums: sample.has_data_checksums(),
            checksum_failures: ChecksumFailures::default(),
            timeline: TimelineId::FIRST,
            start_lsn: "0/1000000".parse().unwrap(),
            stop_lsn,
            stop_segment: SegmentName::ending_at(stop_lsn, TimelineId::FIRST, size),
            ..report.repositories[0].backup.clone()
        };
        let control = ControlFile {
            timeline: TimelineId::FIRST,
            redo: parent.start_lsn,
            min_recovery_point: Some("0/3000000".parse().unwrap()),
            min_recovery_timeline: TimelineId::new(2),
            ..sample
        };
        let ancestry = ancestry_of(pgdata.path(), &control).unwrap();
        let cluster = &parent.cluster;
        let wanted =
            ChildBackup { cluster, control: &control, ancestry: &ancestry, in_recovery: true, has_started: true };
        unfit(&parent, &wanted)
    }

    /// Otherwise, pages from the lost end of timeline 1 would stay.
    #[test]
    fn a_standby_does_not_build_on_a_backup_after_the_timeline_switch() {
        assert_eq!(refused("0/1800000", "0/2000000"), None);
        let refused = refused("0/2800000", "0/2000000").unwrap();
        assert!(refused.contains("0/2800000 on timeline 1, which is not in the history of timeline 2"), "{refused}");
    }
}
