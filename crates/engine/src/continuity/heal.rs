//! Brings missing files back from folders: `pg_wal` of a server that still has them, or an archive of plain files.
//!
//! A file is stored only if everything says that it is the missing one: its header names this cluster and this segment,
//! PostgreSQL can read it to its end, and it continues the segment before it and is continued by the one after it,
//! where the archive has these. A history file does not name its cluster. So it is taken only from a folder that is
//! proven to be of this cluster, and only if it contradicts no other history.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_contract::report::wal_verify::{HealedFile, UnhealedFile, WalFindingKind as Kind, WalHealing};
use holdfast_pgtypes::wal::reader::WalSegment;
use holdfast_pgtypes::{HistoryFile, Lsn, PgVersion, SegmentName, TimelineId, WalFileName};
use holdfast_repo::name::ClaimNumber;
use holdfast_retention::NumberRanges;
use parking_lot::Mutex;

use super::compare::Look;
use super::ends::{Ends, Joint, joint};
use super::histories::disagreement;
use super::look::ClaimWal;
use super::run::Run;
use crate::archive::{Destination, FolderOwner, archive_judged, owner_of_folder};
use crate::error::{Cause, Error};

/// The files of a folder that are missing in the archive.
struct Found {
    path: PathBuf,
    file: WalFileName,
}

impl Run<'_> {
    /// Archives every missing file that one of the folders has.
    pub(super) async fn heal(&mut self) -> Result<WalHealing, Error> {
        self.reader.progress.phase("healing WAL", None);
        let mut healing = WalHealing::default();
        let mut refused: BTreeMap<(ClaimNumber, WalFileName), String> = BTreeMap::new();
        let missing = self.findings.missing();
        for folder in &self.options.heal_from {
            let owner = owner_of_folder(folder).await?;
            self.refuse_foreign(folder, owner)?;
            for wal in &self.claims {
                let healed: BTreeSet<WalFileName> = healing.healed.iter().map(|healed| healed.file).collect();
                let mut ends: BTreeMap<SegmentName, Ends> = BTreeMap::new();
                let mut waiting = self.wanted_files(folder, owner, wal, &missing, &healed)?;
                // A segment is proven by a neighbour, which may come back after it.
                loop {
                    let (now, later): (Vec<Found>, Vec<Found>) =
                        waiting.into_iter().partition(|found| has_neighbour(wal, found.file, &ends));
                    waiting = later;
                    if now.is_empty() {
                        break;
                    }
                    for found in now {
                        self.heal_one(wal, found, &mut ends, &mut healing, &mut refused).await?;
                    }
                }
                for Found { path, file } in waiting {
                    let reason = "neither the segment before it nor the one after it is in the archive, so nothing \
                                  shows that it is of the same history";
                    refused.insert((wal.claim.number, file), format!("{}: {reason}", path.display()));
                }
            }
        }
        healing.healed.sort_by_key(|healed| (healed.claim, healed.file));
        healing.left = self.left(&healing, &refused);
        Ok(healing)
    }

    async fn heal_one(
        &self,
        wal: &ClaimWal,
        Found { path, file }: Found,
        ends: &mut BTreeMap<SegmentName, Ends>,
        healing: &mut WalHealing,
        refused: &mut BTreeMap<(ClaimNumber, WalFileName), String>,
    ) -> Result<(), Error> {
        self.cancelled()?;
        let claim = wal.claim.number;
        let healed = match file {
            WalFileName::Segment(segment) => self.heal_segment(wal, segment, &path, ends).await,
            _ => self.heal_history(wal, &path).await,
        };
        match healed {
            Ok(()) => {
                refused.remove(&(claim, file));
                healing.healed.push(HealedFile { claim, file, from: path.display().to_string() });
            }
            Err(error) if is_of_the_file(&error) => {
                refused.insert((claim, file), format!("{}: {}", path.display(), error.what));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn cancelled(&self) -> Result<(), Error> {
        if self.reader.cancel.is_cancelled() { Err(Cause::Cancelled.into()) } else { Ok(()) }
    }

    /// Refuses a folder whose data directory is of a cluster that has no claim here.
    fn refuse_foreign(&self, folder: &Path, owner: FolderOwner) -> Result<(), Error> {
        let FolderOwner::Cluster(found) = owner else { return Ok(()) };
        let Some(newest) = self.claims.last().map(|wal| wal.claim.system_identifier) else { return Ok(()) };
        if self.claims.iter().any(|wal| wal.claim.system_identifier == found) {
            return Ok(());
        }
        Err(Cause::WrongCluster {
            store: self.repository.describe(),
            cluster: self.options.cluster.to_string(),
            claimed: newest,
            here: format!("the folder {}", folder.display()),
            found,
        }
        .into())
    }

    /// The missing files of a claim that a folder has, oldest first.
    fn wanted_files(
        &self,
        folder: &Path,
        owner: FolderOwner,
        wal: &ClaimWal,
        missing: &BTreeMap<(ClaimNumber, TimelineId), NumberRanges>,
        healed: &BTreeSet<WalFileName>,
    ) -> Result<Vec<Found>, Error> {
        let (claim, size) = (wal.claim.number, wal.size());
        let is_own = owner == FolderOwner::Cluster(wal.claim.system_identifier);
        if matches!(owner, FolderOwner::Cluster(_)) && !is_own {
            return Ok(Vec::new());
        }
        let histories: BTreeSet<WalFileName> = self
            .findings
            .iter()
            .filter(|found| found.kind == Kind::HistoryMissing && found.claim == claim)
            .map(|found| found.file)
            .collect();
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|e| Error::file("list", folder, e))? {
            let entry = entry.map_err(|e| Error::file("list", folder, e))?;
            let Some(Ok(file)) = entry.file_name().to_str().map(str::parse::<WalFileName>) else { continue };
            let is_missing = match file {
                WalFileName::Segment(segment) => missing
                    .get(&(claim, segment.timeline()))
                    .is_some_and(|ranges| segment.is_valid_for(size) && ranges.holding(segment.number(size)).is_some()),
                WalFileName::History(_) => is_own && histories.contains(&file),
                WalFileName::Partial(_) | WalFileName::BackupHistory { .. } => false,
            };
            if is_missing && !healed.contains(&file) {
                found.push(Found { path: entry.path(), file });
            }
        }
        found.sort_by_key(|found| found.file);
        Ok(found)
    }

    /// Archives one missing segment. `healed` has the ends of those that were archived before.
    async fn heal_segment(
        &self,
        wal: &ClaimWal,
        segment: SegmentName,
        path: &Path,
        healed: &mut BTreeMap<SegmentName, Ends>,
    ) -> Result<(), Error> {
        let version = PgVersion::new(wal.claim.pg_major)
            .map_err(|e| Cause::Refused(format!("the archive {}: {e}", wal.claim.cluster)))?;
        let size = wal.size();
        let mut neighbours = Vec::new();
        for (step, is_before) in [(-1_i64, true), (1, false)] {
            let Some(number) = segment.number(size).checked_add_signed(step) else { continue };
            let Some(name) = neighbour(wal, segment, number) else { continue };
            let ends = match healed.get(&name) {
                Some(ends) => Some(ends.clone()),
                None if wal.chains.wal().contains(name) => {
                    self.reader.ends(&wal.claim, version, name, Look::Bytes).await.1?
                }
                None => None,
            };
            neighbours.extend(ends.map(|ends| (is_before, ends)));
        }
        let own: Arc<Mutex<Option<Ends>>> = Arc::default();
        let (kept, shown) = (Arc::clone(&own), path.display().to_string());
        let judge = move |bytes: &[u8]| {
            let ends = Ends::scan(WalSegment { bytes, name: segment, size, version });
            if ends.is_unfinished() {
                let reason = "PostgreSQL cannot read it to its end: it was received or written in part only";
                return Err(Cause::Refused(format!("{shown} is not whole: {reason}")).into());
            }
            let mut is_proven = false;
            for (is_before, neighbour) in &neighbours {
                let (before, after) = if *is_before { (neighbour, &ends) } else { (&ends, neighbour) };
                match joint(before, after, size) {
                    Joint::Other(reason) => {
                        let what = format!("{} does not continue {}: {reason}", after.name, before.name);
                        return Err(Cause::Refused(format!("{shown} is of another history: {what}")).into());
                    }
                    Joint::Joined => is_proven = true,
                    Joint::Unfinished | Joint::NeedsBytes | Joint::Unknown => {}
                }
            }
            if !is_proven {
                let reason = "the segment before it cannot be read to its end, so nothing shows its history";
                return Err(Cause::Refused(format!("{shown} cannot be compared: {reason}")).into());
            }
            *kept.lock() = Some(ends);
            Ok(())
        };
        self.archive(wal, path, judge).await?;
        healed.extend(own.lock().take().map(|ends| (segment, ends)));
        Ok(())
    }

    /// Archives a missing history file of a folder that is of this cluster.
    async fn heal_history(&self, wal: &ClaimWal, path: &Path) -> Result<(), Error> {
        let others: Vec<HistoryFile> = wal.chains.histories().values().cloned().collect();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let Some(WalFileName::History(timeline)) = name else { return Ok(()) };
        let shown = path.display().to_string();
        let judge = move |bytes: &[u8]| {
            let history = HistoryFile::parse(timeline, bytes)
                .map_err(|e| Cause::Malformed { name: shown.clone(), reason: e.to_string() })?;
            let against = |other: &HistoryFile| disagreement(&history, other).or_else(|| disagreement(other, &history));
            match others.iter().find_map(against) {
                Some(reason) => Err(Cause::Refused(format!("{shown} is of another history: {reason}")).into()),
                None => Ok(()),
            }
        };
        self.archive(wal, path, judge).await
    }

    async fn archive(
        &self,
        wal: &ClaimWal,
        path: &Path,
        judge: impl FnOnce(&[u8]) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let destination = Destination { repository: self.repository.clone(), claim: wal.claim.clone() };
        let (crew, cancel) = (&self.reader.crew, &self.reader.cancel);
        let archived = archive_judged(&destination, path, self.options.compression, crew, cancel, judge).await?;
        self.reader.progress.note(&format!("{} is in the archive again", archived.file));
        Ok(())
    }

    /// What is still missing, with the reasons.
    fn left(&self, healing: &WalHealing, refused: &BTreeMap<(ClaimNumber, WalFileName), String>) -> Vec<UnhealedFile> {
        let mut left: Vec<UnhealedFile> = refused
            .iter()
            .map(|((claim, file), reason)| UnhealedFile {
                claim: *claim,
                file: *file,
                count: 1,
                reason: reason.clone(),
            })
            .collect();
        for found in self.findings.iter() {
            let (WalFileName::Segment(first), Kind::Gap) = (found.file, found.kind) else {
                let is_settled = healing.healed.iter().any(|healed| healed.file == found.file)
                    || refused.contains_key(&(found.claim, found.file));
                if found.kind == Kind::HistoryMissing && !is_settled {
                    let reason = "no folder of a server of this cluster has it".to_owned();
                    left.push(UnhealedFile { claim: found.claim, file: found.file, count: 1, reason });
                }
                continue;
            };
            let Some(wal) = self.claims.iter().find(|wal| wal.claim.number == found.claim) else { continue };
            let (size, timeline) = (wal.size(), first.timeline());
            let range = NumberRanges::of(first.number(size), first.number(size) + found.count.saturating_sub(1));
            let healed = healing.healed.iter().filter(|healed| healed.claim == found.claim).map(|healed| healed.file);
            let refused = refused.keys().filter(|(claim, _)| *claim == found.claim).map(|(_, file)| *file);
            let settled = healed.chain(refused).filter_map(WalFileName::segment);
            let settled = settled.filter(|segment| segment.timeline() == timeline).map(|segment| segment.number(size));
            let settled: NumberRanges = settled.map(|number| (number, number)).collect();
            for (first, last) in range.without(&settled).iter() {
                if let Some(name) = SegmentName::from_number(first, timeline, size) {
                    let (claim, file, count) = (found.claim, WalFileName::Segment(name), last - first + 1);
                    left.push(UnhealedFile { claim, file, count, reason: "no folder has it".to_owned() });
                }
            }
        }
        left.sort_by_key(|left| (left.claim, left.file));
        left
    }
}

/// Whether a neighbour of a segment is in the archive, or was healed before. Other files need none.
fn has_neighbour(wal: &ClaimWal, file: WalFileName, healed: &BTreeMap<SegmentName, Ends>) -> bool {
    let WalFileName::Segment(segment) = file else { return true };
    let number = segment.number(wal.size());
    let numbers = [number.checked_sub(1), number.checked_add(1)].into_iter().flatten();
    let mut names = numbers.filter_map(|number| neighbour(wal, segment, number));
    names.any(|name| wal.chains.wal().contains(name) || healed.contains_key(&name))
}

/// The name of a neighbour of a missing segment, on a path that needs that segment.
fn neighbour(wal: &ClaimWal, segment: SegmentName, number: u64) -> Option<SegmentName> {
    let size = wal.size();
    let lsn = Lsn::new(number.checked_mul(size.as_u64())?);
    let paths = wal.lines.iter().map(|line| &line.ancestry);
    let mut paths = paths.filter(|path| path.segment_containing(segment.start_lsn(size), size) == segment);
    paths.next().map(|path| path.segment_containing(lsn, size))
}

/// Whether an error is about the file in the folder, and not about the store or this run.
fn is_of_the_file(error: &Error) -> bool {
    matches!(
        &*error.what,
        Cause::Refused(_)
            | Cause::Malformed { .. }
            | Cause::SegmentMismatch { .. }
            | Cause::SegmentSize { .. }
            | Cause::File { .. }
            | Cause::Divergence { .. }
    )
}
