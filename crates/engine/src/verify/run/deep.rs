//! Reads every byte that a backup needs: packs, and the WAL up to the next backup.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use holdfast_pgtypes::{WalFileName, WalSegmentSize};
use holdfast_repo::catalog::SegmentRange;
use holdfast_repo::name::BackupId;
use holdfast_retention::NumberRanges;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::super::chains::ClaimWal;
use super::super::packs::{KnownChunks, PackWork};
use super::super::{BackupChoice, is_chosen};
use super::{Asked, PACKS_AT_ONCE, Run, read_with_retry};
use crate::error::{Cause, Error};
use crate::restore::{Fetches, Packs, Trial, every_chunk, try_manifest};

impl Run<'_> {
    /// Step 3 for one backup: reads its packs and WAL.
    pub(super) async fn read_deep(&mut self, backup: BackupId) -> Result<(), Error> {
        let Some(record) = self.asked.get(&backup).and_then(|asked| asked.record.clone()) else { return Ok(()) };
        let before = self.reader.read_bytes.load(Ordering::Relaxed);
        self.progress.backup(&backup.to_string());
        let (repository, crew) = (self.repository, self.reader.crew.clone());
        // A damaged pack also harms the backups that need not be read.
        let is_concerned = |asked: &Asked| asked.is_due || self.findings.has_damaged_packs();
        if self.asked.get(&backup).is_some_and(|asked| asked.report.pack_count > 0 && is_concerned(asked)) {
            match read_with_retry(|| try_manifest(repository, &record, &crew)).await {
                Ok(trial) => self.read_packs(backup, &trial).await?,
                Err(error) => {
                    self.findings.take(error, &record.manifest.name, &[backup])?;
                }
            }
        }
        self.read_wal(backup).await?;
        if let Some(asked) = self.asked.get_mut(&backup) {
            asked.read_bytes = self.reader.read_bytes.load(Ordering::Relaxed) - before;
        }
        Ok(())
    }

    async fn read_packs(&mut self, backup: BackupId, trial: &Trial) -> Result<(), Error> {
        let manifest = &trial.manifest;
        let sorting = Arc::clone(manifest);
        let wanted = self.reader.crew.run(move || every_chunk(&sorting)).await?;
        let to_read = manifest.packs().iter().filter(|pack| self.is_read(&pack.name)).map(|pack| pack.size_bytes);
        self.progress.phase("reading packs", Some(to_read.sum()));
        let packs = Arc::new(Packs::new(self.repository.clone(), Arc::clone(manifest)));
        let slots = Arc::new(Semaphore::new(PACKS_AT_ONCE));
        let mut tasks: JoinSet<(PackWork, bool, Result<(), Error>)> = JoinSet::new();
        let mut fetches = Fetches::new(manifest, wanted.into_iter());
        let mut next = fetches.next();
        let mut outcome = Ok(());
        for (number, entry) in manifest.packs().iter().enumerate() {
            let number = number as u32;
            let mut frames = Vec::new();
            while let Some(fetch) = next.take_if(|fetch| fetch.pack == number) {
                frames.extend(fetch.frames);
                next = fetches.next();
            }
            // A pack that is known to be damaged is not read again; the backup that names it is affected.
            if self.findings.harms(&entry.name, backup) || !self.is_read(&entry.name) {
                continue;
            }
            let (is_again, frames) = match self.known.get(&entry.name) {
                None => (false, frames),
                Some(known) => (true, known.unknown(frames)),
            };
            if is_again && frames.is_empty() {
                self.reader.progress.advance(entry.size_bytes);
                self.used(&entry.name);
                continue;
            }
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
            while let Some(done) = tasks.try_join_next() {
                self.settle(backup, &mut outcome, done);
            }
            self.remember_now_and_then().await;
            if outcome.is_err() {
                break;
            }
            let work = PackWork { number, entry: entry.clone(), frames };
            let (reader, manifest, packs) = (self.reader.clone(), Arc::clone(manifest), Arc::clone(&packs));
            tasks.spawn(async move {
                let read = read_with_retry(|| async {
                    if is_again {
                        reader.read_frames(&manifest, &packs, &work).await
                    } else {
                        reader.read_pack(&manifest, &packs, &work).await
                    }
                });
                let read = read.await;
                drop(slot);
                (work, is_again, read)
            });
        }
        while let Some(done) = tasks.join_next().await {
            self.settle(backup, &mut outcome, done);
            self.remember_now_and_then().await;
        }
        outcome
    }

    /// Whether this run reads a pack.
    fn is_read(&self, pack: &str) -> bool {
        self.uses.contains_key(pack) && is_chosen(self.options.sample, pack)
    }

    fn settle(
        &mut self,
        backup: BackupId,
        outcome: &mut Result<(), Error>,
        done: Result<(PackWork, bool, Result<(), Error>), tokio::task::JoinError>,
    ) {
        let failed = match done {
            Ok((work, is_again, Ok(()))) => {
                if !is_again {
                    self.scrub.read_pack(&work.entry.name, self.options.now);
                }
                if is_again {
                    if let Some(known) = self.known.get_mut(&work.entry.name) {
                        known.add(&work.frames);
                    }
                } else if self.uses.get(&work.entry.name).is_some_and(|uses| *uses > 1) {
                    self.known.insert(work.entry.name.clone(), KnownChunks::of(&work.frames));
                }
                self.used(&work.entry.name);
                return;
            }
            Ok((work, _, Err(error))) => match self.findings.take(error, &work.entry.name, &[backup]) {
                Ok(_) => return,
                Err(error) => error,
            },
            Err(error) => Cause::Internal(format!("a task of the verification failed: {error}")).into(),
        };
        if outcome.is_ok() {
            *outcome = Err(failed);
        }
    }

    /// Records that a manifest that names the pack has been read.
    fn used(&mut self, pack: &str) {
        if let Some(uses) = self.uses.get_mut(pack) {
            *uses = uses.saturating_sub(1);
            if *uses == 0 {
                self.known.remove(pack);
            }
        }
    }

    async fn read_wal(&mut self, backup: BackupId) -> Result<(), Error> {
        let to_next = self.options.which == BackupChoice::All;
        let Some(at) = self.claims.iter().position(|claim| claim.has(backup)) else { return Ok(()) };
        let mut claim = self.claims.swap_remove(at);
        let (ranges, not_due) = self.scrub.due(&claim.claim, claim.segments_of(backup, to_next));
        if let Some(asked) = self.asked.get_mut(&backup) {
            asked.passed_over_count += not_due;
        }
        let size = claim.claim.wal_segment_size.as_u64();
        let bytes = ranges.iter().map(|range| range.count * size).sum();
        self.progress.phase("reading WAL", Some(bytes));
        let mut outcome = Ok(());
        for part in in_parts(&ranges, claim.claim.wal_segment_size) {
            outcome = self.read_wal_part(&mut claim, part).await;
            if outcome.is_err() {
                break;
            }
            self.remember_now_and_then().await;
        }
        self.claims.push(claim);
        self.claims.sort_by_key(ClaimWal::number);
        outcome
    }

    async fn read_wal_part(&mut self, claim: &mut ClaimWal, part: SegmentRange) -> Result<(), Error> {
        let read = self.reader.read_segments(&claim.claim, &[part], self.options.sample).await?;
        claim.segments_read += read.count;
        let size = claim.claim.wal_segment_size;
        let faulty: NumberRanges =
            read.faults.iter().map(|(segment, _)| (segment.number(size), segment.number(size))).collect();
        let sound = NumberRanges::of(part.first.number(size), part.last.number(size)).without(&faulty);
        self.scrub.read_wal((claim.claim.number, part.timeline), &sound, self.options.now);
        for (segment, error) in &read.faults {
            let object = claim.object(self.repository, WalFileName::Segment(*segment));
            self.segment_fault(claim, error, Some(&object));
        }
        Ok(())
    }
}

/// Cuts ranges of segments, so that what was read can be remembered in between.
fn in_parts(ranges: &[SegmentRange], size: WalSegmentSize) -> Vec<SegmentRange> {
    let mut parts = Vec::new();
    for range in ranges {
        let (mut first, last) = (range.first.number(size), range.last.number(size));
        while first <= last {
            let end = last.min(first.saturating_add(SEGMENTS_AT_ONCE - 1));
            parts.extend(SegmentRange::new(range.timeline, first, end, size));
            first = end + 1;
        }
    }
    parts
}

/// Segments that are read between two looks at the clock.
const SEGMENTS_AT_ONCE: u64 = 256;
