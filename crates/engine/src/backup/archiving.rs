//! Checks that the server's archiving works. A backup sends the WAL that it needs by itself. So nobody would notice an
//! `archive_command` that stores nothing here (`/bin/true`, another tool, a wrong configuration) until a restore needs
//! WAL from after the backup.

use std::collections::BTreeSet;
use std::path::Path;

use holdfast_pgtypes::{Ancestry, Lsn, SegmentName, TimelineId, WalSegmentSize};
use holdfast_repo::catalog::BackupCatalog;
use holdfast_repo::name::{self, ClusterName};
use holdfast_repo::record::{BackupRecord, ClaimRecord};

use super::timelines::{history_in, is_on_the_way};
use crate::error::Error;
use crate::repository::Repository;
use crate::{archive, restore};

/// The number of newest backups that are searched for the previous one in the history of this server. Others can be on
/// other timelines, or cannot be read.
const LOOKED_AT: usize = 16;

/// The warning about segments that the server counts as archived but that this backup had to send.
pub(super) fn sent_in_its_place(counted: &BTreeSet<SegmentName>) -> Option<String> {
    let first = counted.first()?;
    Some(format!(
        "the server counts {} WAL segment(s) of this backup as archived, but they were not in the repository, the \
         first one {first}: its archive_command (or archive_library) reports success without storing them there. This \
         backup has stored its own WAL. Later moments cannot be restored until this is repaired: run `holdfast check`",
        counted.len()
    ))
}

/// The warning about missing WAL between the previous backup and this one, whose first segment is `first`.
pub(super) async fn gap_before(
    repository: &Repository,
    cluster: &ClusterName,
    claim: &ClaimRecord,
    first: SegmentName,
    pgdata: &Path,
) -> Option<String> {
    match gap_before_inner(repository, cluster, claim, first, pgdata).await {
        Ok(warning) => warning,
        // The check is about earlier backups. This one is sound.
        Err(error) => Some(format!("the WAL since the previous backup could not be checked: {error}")),
    }
}

async fn gap_before_inner(
    repository: &Repository,
    cluster: &ClusterName,
    claim: &ClaimRecord,
    first: SegmentName,
    pgdata: &Path,
) -> Result<Option<String>, Error> {
    let ancestry = history(repository, claim, first.timeline(), pgdata).await;
    let Some(before) = backup_before(repository, cluster, claim, first, &ancestry).await? else { return Ok(None) };
    let mut missing = Vec::new();
    for (from, to) in ranges(&ancestry, before.stop_segment, first, claim.wal_segment_size) {
        missing.extend(archive::missing_segments(repository, cluster, claim, from, to).await?);
    }
    // A segment that the archiver still has to send is late, but not missing.
    let status = pgdata.join("pg_wal/archive_status");
    missing.retain(|segment| !status.join(format!("{segment}.ready")).exists());
    let Some(first_missing) = missing.first() else { return Ok(None) };
    Ok(Some(format!(
        "{} WAL segment(s) between backup {} and this one are not in {}, the first one {first_missing}: no moment \
         between that segment and this backup can be restored; see archive_command and `holdfast wal list`",
        missing.len(),
        before.backup_id,
        repository.describe()
    )))
}

/// How this server came to its timeline: from its own history file, or the one in the archive. If there is neither,
/// only backups of the same timeline count as earlier.
async fn history(repository: &Repository, claim: &ClaimRecord, timeline: TimelineId, pgdata: &Path) -> Ancestry {
    if timeline == TimelineId::FIRST {
        return Ancestry::alone(timeline);
    }
    if let Ok(ancestry) = history_in(pgdata, timeline) {
        return ancestry;
    }
    match restore::read_history(repository, claim, timeline).await {
        Ok(history) => Ancestry::from_history(&history),
        Err(error) => {
            tracing::debug!(%timeline, %error, "the history of this timeline is not known");
            Ancestry::alone(timeline)
        }
    }
}

/// The newest complete backup of this claim that ends before the segment, in the history of this server.
async fn backup_before(
    repository: &Repository,
    cluster: &ClusterName,
    claim: &ClaimRecord,
    first: SegmentName,
    ancestry: &Ancestry,
) -> Result<Option<BackupRecord>, Error> {
    let size = claim.wal_segment_size;
    let objects = repository.store().list(&name::backups_folder(cluster), None).await?;
    let listed = BackupCatalog::from_listing(cluster, objects.iter().map(|object| object.name.as_ref()));
    let complete: Vec<_> = listed.complete().collect();
    for backup in complete.into_iter().rev().take(LOOKED_AT) {
        let record = match repository.backup(cluster, backup).await {
            Ok(record) => record,
            // One damaged backup must not hide a gap. The gap is then named from the backup before it.
            Err(error) if error.is_not_found() || error.is_of_one_object() => {
                tracing::debug!(%backup, %error, "this backup is not the one before");
                continue;
            }
            Err(error) => return Err(error),
        };
        let is_earlier = record.stop_segment.number(size) <= first.number(size);
        if record.claim == claim.number && is_on_the_way(&record, ancestry) && is_earlier {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// The names under which recovery reads the segments from the end of a backup to `first`, a range for each timeline.
fn ranges(
    ancestry: &Ancestry,
    after: SegmentName,
    first: SegmentName,
    size: WalSegmentSize,
) -> Vec<(SegmentName, SegmentName)> {
    let mut ranges: Vec<(SegmentName, SegmentName)> = Vec::new();
    for number in after.number(size)..=first.number(size) {
        let name = ancestry.segment_containing(Lsn::new(number.saturating_mul(size.as_u64())), size);
        match ranges.last_mut() {
            Some((_, last)) if last.timeline() == name.timeline() => *last = name,
            _ => ranges.push((name, name)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use std::sync::Arc;

    use bytes::Bytes;
    use holdfast_contract::report::backup::BackupReport;
    use holdfast_pgtypes::{SystemIdentifier, WalFileName};
    use holdfast_repo::codec::Codec;
    use holdfast_repo::name::ClaimNumber;
    use holdfast_store::{MemoryStore, PutMode};

    use super::*;
    use crate::archive::wal_object_name;
    use crate::repository::{RepositoryTarget, Unlock, init, object_name};

    const REPORT: &str = include_str!("../../../contract/tests/samples/backup-2.json");

    struct Bench {
        repository: Repository,
        claim: ClaimRecord,
        pgdata: tempfile::TempDir,
    }

    impl Bench {
        async fn new() -> Self {
            let target = RepositoryTarget { store: Arc::new(MemoryStore::new()), unlock: Unlock::NotEncrypted };
            let now = "2026-11-30T11:00:00Z".parse().unwrap();
            let repository = init::init(&target, now).await.unwrap().repository;
            let claim = ClaimRecord {
                cluster: "main".parse().unwrap(),
                number: ClaimNumber::FIRST,
                system_identifier: SystemIdentifier::new(7),
                pg_major: 18,
                pg_control_version: 1800,
                catalog_version: 202_506_291,
                wal_segment_size: WalSegmentSize::new(1 << 20).unwrap(),
                wal_codec: Codec::Zstd,
                since: now,
                host: "db1".to_owned(),
                software_version: "0.1.0".to_owned(),
                owner: None,
            };
            let pgdata = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(pgdata.path().join("pg_wal/archive_status")).unwrap();
            Self { repository, claim, pgdata }
        }

        async fn put(&self, name: &str, content: &[u8]) {
            let name = object_name(name).unwrap();
            let content = Bytes::copy_from_slice(content);
            self.repository.store().put(&name, content, PutMode::Overwrite).await.unwrap();
        }

        async fn archived(&self, segments: &[&str]) {
            for segment in segments {
                let file = WalFileName::Segment(segment.parse().unwrap());
                self.put(&wal_object_name(&self.repository, &self.claim.cluster, &self.claim, &file), &[b'x'; 128])
                    .await;
            }
        }

        /// A complete backup from one LSN to another of this timeline, as far as this check looks at it.
        async fn backup(&self, id: &str, timeline: u32, start: &str, stop: &str) {
            let report: BackupReport = serde_json::from_str(REPORT).unwrap();
            let (timeline, size) = (TimelineId::new(timeline).unwrap(), self.claim.wal_segment_size);
            let (start, stop): (Lsn, Lsn) = (start.parse().unwrap(), stop.parse().unwrap());
            let record = BackupRecord {
                backup_id: id.parse().unwrap(),
                cluster: self.claim.cluster.clone(),
                claim: self.claim.number,
                wal_segment_size: size,
                timeline,
                start_lsn: start,
                stop_lsn: stop,
                start_segment: SegmentName::containing(start, timeline, size),
                stop_segment: SegmentName::ending_at(stop, timeline, size),
                ..report.repositories[0].backup.clone()
            };
            let name = name::backup_summary(&record.cluster, &record.backup_id);
            self.repository.create_record(&name, &record).await.unwrap();
            self.put(&name::manifest(&record.cluster, &record.backup_id), b"x").await;
            self.put(&name::pack(&record.cluster, &record.backup_id, 1), b"x").await;
        }

        async fn warning(&self, first: &str) -> String {
            let (cluster, first) = (&self.claim.cluster, first.parse().unwrap());
            let found = gap_before(&self.repository, cluster, &self.claim, first, self.pgdata.path()).await;
            found.unwrap_or_default()
        }
    }

    fn named(count: u32, backup: &str, first: &str) -> String {
        format!(
            "{count} WAL segment(s) between backup {backup} and this one are not in memory:, the first one {first}: no \
             moment between that segment and this backup can be restored; see archive_command and `holdfast wal list`"
        )
    }

    #[tokio::test]
    async fn a_damaged_newest_backup_does_not_hide_a_gap() {
        let bench = Bench::new().await;
        bench.backup("20261128T100000Z", 1, "0/300028", "0/300100").await;
        bench.archived(&["000000010000000000000003", "000000010000000000000005"]).await;
        let expected = named(1, "20261128T100000Z", "000000010000000000000004");
        assert_eq!(bench.warning("000000010000000000000005").await, expected);
        bench.put("main/backups/20261129T100000Z/backup.json", b"damaged").await;
        assert_eq!(bench.warning("000000010000000000000005").await, expected);
        // A segment that waits for the archiver is late.
        std::fs::write(bench.pgdata.path().join("pg_wal/archive_status/000000010000000000000004.ready"), "").unwrap();
        assert_eq!(bench.warning("000000010000000000000005").await, "");
    }

    /// The previous backup is of timeline 1, which ended at 0/500200. Recovery reads segment 5 under its new name.
    #[tokio::test]
    async fn a_gap_across_a_fork_of_timelines_is_named() {
        let bench = Bench::new().await;
        bench.backup("20261128T100000Z", 1, "0/300028", "0/300100").await;
        // Of the primary that was left behind.
        bench.backup("20261129T100000Z", 1, "0/600028", "0/600100").await;
        bench.archived(&["000000010000000000000003", "000000010000000000000006", "000000020000000000000007"]).await;
        let history = bench.pgdata.path().join("pg_wal/00000002.history");
        std::fs::write(&history, "1\t0/500200\tno recovery target specified\n").unwrap();
        let expected = named(3, "20261128T100000Z", "000000010000000000000004");
        assert_eq!(bench.warning("000000020000000000000007").await, expected);
        bench.archived(&["000000010000000000000004", "000000020000000000000006"]).await;
        let expected = named(1, "20261128T100000Z", "000000020000000000000005");
        assert_eq!(bench.warning("000000020000000000000007").await, expected);
        bench.archived(&["000000020000000000000005"]).await;
        assert_eq!(bench.warning("000000020000000000000007").await, "");
        // Without the history nothing is known of timeline 1.
        std::fs::remove_file(&history).unwrap();
        assert_eq!(bench.warning("000000020000000000000007").await, "");
    }
}
