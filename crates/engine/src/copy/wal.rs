//! Copies WAL: for each backup the WAL that it needs, before the backup exists in the target, and on request all WAL
//! since the oldest backup.
//!
//! A file whose name is already in the target is not read. But some files show whether two archives come from different
//! servers. Their hashes in the objects are compared: the segments that a backup needs, every history file, and the
//! last segment of each timeline that both archives have. If the content differs, the copy is refused.

use futures::StreamExt as _;
use futures::stream::{self, FuturesUnordered};
use holdfast_contract::report::copy::CopiedWal;
use holdfast_pgtypes::{Lsn, SegmentName, WalFileName};
use holdfast_repo::catalog::WalInventory;
use holdfast_repo::name::{self, ClaimNumber, ObjectPath};
use holdfast_repo::record::{BackupRecord, ClaimRecord, SnapshotRecord};

use super::run::Run;
use crate::archive::{WalFolders, WalScope};
use crate::carry::{CarriedWal, Carrier, WalFile};
use crate::error::{Cause, Error};

/// The maximum number of files that are carried at once, within the memory budget.
const AT_ONCE: usize = 8;

/// The WAL of one claim in both repositories.
pub(super) struct ClaimWal {
    from: ClaimRecord,
    to: ClaimRecord,
    /// The start LSN of the oldest backup.
    oldest: Lsn,
    there: WalInventory,
    here: WalInventory,
    stored: (u64, u64),
    already: u64,
    failed: u64,
    /// The error of the first file that failed.
    pub(super) error: Option<Error>,
}

impl ClaimWal {
    async fn list(run: &Run<'_>, from: &ClaimRecord, to: &ClaimRecord, oldest: Lsn) -> Result<Self, Error> {
        let (there, here) = tokio::try_join!(
            WalFolders::read_and_list(run.from, from, WalScope::From(oldest)),
            WalFolders::read_and_list(run.to, to, WalScope::From(oldest))
        )?;
        Ok(Self {
            from: from.clone(),
            to: to.clone(),
            oldest,
            there: there.inventory().clone(),
            here: here.inventory().clone(),
            stored: (0, 0),
            already: 0,
            failed: 0,
            error: None,
        })
    }

    /// The counts for the report.
    pub(super) fn counted(&self) -> CopiedWal {
        CopiedWal {
            claim: self.from.number,
            to_claim: self.to.number,
            stored_count: self.stored.0,
            stored_bytes: self.stored.1,
            already_there_count: self.already,
            failed_count: self.failed,
        }
    }

    /// The segments that a backup needs, on every timeline from its start to its stop.
    fn needed(&self, record: &BackupRecord) -> Result<Vec<SegmentName>, Error> {
        let size = self.from.wal_segment_size;
        let (start, stop) = (record.start_segment, record.stop_segment);
        let mut needed = Vec::new();
        for number in start.number(size)..=stop.number(size) {
            let before = needed.len();
            let timelines = self.there.timelines();
            let timelines = timelines.filter(|timeline| (start.timeline()..=stop.timeline()).contains(timeline));
            needed.extend(
                timelines
                    .filter_map(|timeline| SegmentName::from_number(number, timeline, size))
                    .filter(|segment| self.there.contains(*segment)),
            );
            if needed.len() == before {
                let missing = SegmentName::from_number(number, start.timeline(), size).unwrap_or(start);
                return Err(Cause::Absent { file: missing.to_string() }.into());
            }
        }
        Ok(needed)
    }

    /// The first segment between start and stop of a snapshot that is not in the target on any of its timelines.
    pub(super) fn missing_of(&self, snapshot: &SnapshotRecord) -> Option<SegmentName> {
        let (size, stop) = (self.from.wal_segment_size, snapshot.stop_segment);
        let start = SegmentName::containing(snapshot.start_lsn, stop.timeline(), size);
        let numbers = start.number(size)..=stop.number(size);
        let mut wanted = numbers.filter_map(|number| SegmentName::from_number(number, stop.timeline(), size));
        wanted.find(|segment| {
            let number = segment.number(size);
            let mut timelines = self.here.timelines().filter(|timeline| *timeline <= stop.timeline());
            !timelines.any(|timeline| {
                SegmentName::from_number(number, timeline, size).is_some_and(|name| self.here.contains(name))
            })
        })
    }

    fn settle(&mut self, file: WalFileName, carried: CarriedWal) {
        match carried {
            CarriedWal::Stored(bytes) => {
                self.stored = (self.stored.0 + 1, self.stored.1 + bytes);
                self.here.add(file);
            }
            CarriedWal::AlreadyThere => {
                self.already += 1;
                self.here.add(file);
            }
            // It was removed from the source meanwhile.
            CarriedWal::Absent => {}
        }
    }

    /// Carries files. With `continues`, a file that cannot be read in the source is only counted, and the others are
    /// carried.
    async fn carry(&mut self, run: &Carrying<'_>, files: Vec<WalFileName>, continues: bool) -> Result<(), Error> {
        let (from, to) = (self.from.clone(), self.to.clone());
        let (mut work, mut files) = (FuturesUnordered::new(), files.into_iter());
        loop {
            let ahead = files.by_ref().take(AT_ONCE - work.len());
            work.extend(ahead.map(|file| {
                let wal = WalFile { file, from: &from, to: &to };
                async move { (file, run.carrier.carry_wal(wal, run.host, run.now).await) }
            }));
            let Some((file, carried)) = work.next().await else { return Ok(()) };
            match carried {
                Ok(carried) => {
                    if let CarriedWal::Stored(bytes) = carried {
                        run.progress.advance(bytes);
                    }
                    self.settle(file, carried);
                }
                Err(error) if continues && error.is_of_one_object() => {
                    run.progress.note(&format!("{file} is not copied: {error}"));
                    self.failed += 1;
                    self.error.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Compares files that both repositories have.
    async fn compare(&self, carrier: &Carrier, files: Vec<WalFileName>) -> Result<(), Error> {
        let compares =
            files.into_iter().map(|file| carrier.compare_wal(WalFile { file, from: &self.from, to: &self.to }));
        let mut compares = stream::iter(compares.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        while let Some(compared) = compares.next().await {
            compared?;
        }
        Ok(())
    }
}

/// The parts of the run that carrying a file needs.
struct Carrying<'a> {
    carrier: &'a Carrier,
    host: &'a str,
    now: chrono::DateTime<chrono::Utc>,
    progress: &'a dyn crate::progress::Progress,
}

impl Run<'_> {
    /// Lists the WAL of each claim that has something to copy.
    pub(super) async fn list_wal(&mut self) -> Result<(), Error> {
        let mut oldest: std::collections::BTreeMap<ClaimNumber, Lsn> = std::collections::BTreeMap::new();
        for record in &self.records {
            let known = oldest.entry(record.claim).or_insert(record.start_lsn);
            *known = record.start_lsn.min(*known);
        }
        for snapshot in &self.snapshots {
            let known = oldest.entry(snapshot.claim).or_insert(snapshot.start_lsn);
            *known = snapshot.start_lsn.min(*known);
        }
        for (claim, oldest) in oldest {
            let Some((from, to)) = self.pairs.of_first(claim) else { continue };
            let listed = ClaimWal::list(self, from, to, oldest).await?;
            self.wal.insert(claim, listed);
        }
        Ok(())
    }

    /// Copies the WAL that a backup needs to become consistent.
    pub(super) async fn copy_wal_of(&mut self, record: &BackupRecord) -> Result<Vec<SegmentName>, Error> {
        let Some(mut wal) = self.wal.remove(&record.claim) else {
            return Err(Cause::Internal("the WAL of a claim was not listed".to_owned()).into());
        };
        self.progress.phase("copying WAL", None);
        let copied = async {
            let needed = wal.needed(record)?;
            let histories: Vec<WalFileName> = wal.there.histories().map(WalFileName::History).collect();
            let files = needed.iter().copied().map(WalFileName::Segment).chain(histories.iter().copied());
            let (there, missing): (Vec<WalFileName>, Vec<WalFileName>) = files.partition(|file| has(&wal.here, *file));
            wal.compare(&self.carrier, there).await?;
            wal.carry(&self.carrying(), missing, false).await?;
            Ok(needed)
        };
        let copied = copied.await;
        self.wal.insert(record.claim, wal);
        copied
    }

    /// Copies all WAL since the oldest backup, with partial segments and backup history files.
    pub(super) async fn copy_all_wal(&mut self) -> Result<(), Error> {
        self.progress.phase("copying WAL", None);
        for (claim, mut wal) in std::mem::take(&mut self.wal) {
            let copied = self.copy_wal(&mut wal).await;
            self.wal.insert(claim, wal);
            copied?;
        }
        Ok(())
    }

    async fn copy_wal(&self, wal: &mut ClaimWal) -> Result<(), Error> {
        let size = wal.from.wal_segment_size;
        let (there, here) = (wal.there.clone(), wal.here.clone());
        let oldest = wal.oldest;
        let first = |timeline| SegmentName::containing(oldest, timeline, size).number(size);
        let mut last_common = Vec::new();
        for timeline in there.timelines() {
            let ranges = there.ranges(timeline).into_iter().rev();
            let mut numbers = ranges.flat_map(|range| (range.first.number(size)..=range.last.number(size)).rev());
            let common = numbers.find_map(|number| {
                SegmentName::from_number(number, timeline, size).filter(|segment| here.contains(*segment))
            });
            last_common.extend(common.map(WalFileName::Segment));
        }
        let histories = there.histories().filter(|timeline| here.histories().any(|known| known == *timeline));
        last_common.extend(histories.map(WalFileName::History));
        wal.compare(&self.carrier, last_common).await?;
        let histories = there.histories().map(WalFileName::History);
        let is_wanted = |segment: &SegmentName| segment.number(size) >= first(segment.timeline());
        let partials = there.partials().filter(is_wanted).map(WalFileName::Partial);
        let mut files: Vec<WalFileName> = histories.chain(partials).collect();
        for segment in
            there.backup_histories().filter(is_wanted).filter(|known| !here.backup_histories().any(|it| it == *known))
        {
            files.extend(self.backup_histories(&wal.from, segment).await?);
        }
        files.extend(segments_since(&there, oldest));
        files.retain(|file| !has(&here, *file));
        wal.carry(&self.carrying(), files, true).await
    }

    /// The backup history files of a segment. Their names also have an offset, so they are listed.
    async fn backup_histories(&self, claim: &ClaimRecord, segment: SegmentName) -> Result<Vec<WalFileName>, Error> {
        let folder = name::wal_log_folder(&claim.cluster, claim.number, &WalFileName::Segment(segment));
        let listed = self.from.store().list(&format!("{folder}{segment}."), None).await?;
        let files = listed.iter().filter_map(|object| match object.name.as_ref().parse() {
            Ok(ObjectPath::WalFile { file: file @ WalFileName::BackupHistory { .. }, .. }) => Some(file),
            _ => None,
        });
        Ok(files.collect())
    }

    fn carrying(&self) -> Carrying<'_> {
        Carrying {
            carrier: &self.carrier,
            host: &self.options.host,
            now: self.clock.now(),
            progress: self.progress.as_ref(),
        }
    }
}

/// The listed segments, beginning with the one that contains this LSN.
fn segments_since(inventory: &WalInventory, oldest: Lsn) -> Vec<WalFileName> {
    let (size, mut segments) = (inventory.segment_size(), Vec::new());
    for timeline in inventory.timelines() {
        let first = SegmentName::containing(oldest, timeline, size).number(size);
        for range in inventory.ranges(timeline) {
            let numbers = range.first.number(size).max(first)..=range.last.number(size);
            segments.extend(numbers.filter_map(|number| SegmentName::from_number(number, timeline, size)));
        }
    }
    segments.into_iter().map(WalFileName::Segment).collect()
}

fn has(inventory: &WalInventory, file: WalFileName) -> bool {
    match file {
        WalFileName::Segment(segment) => inventory.contains(segment),
        WalFileName::Partial(segment) => inventory.partials().any(|known| known == segment),
        WalFileName::History(timeline) => inventory.histories().any(|known| known == timeline),
        WalFileName::BackupHistory { segment, .. } => inventory.backup_histories().any(|known| known == segment),
    }
}
