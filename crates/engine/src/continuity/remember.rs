//! What a verification writes to the ledger: which gaps are new, and which are over.
//!
//! A segment of a recorded gap is there again only if it was read to its end: a damaged or empty object with its name
//! does not end the gap. It is not needed only if nothing was left out that may need it.

use std::sync::atomic::Ordering;

use chrono::TimeDelta;
use holdfast_contract::report::wal_verify::WalFindingWeight;
use holdfast_pgtypes::{PgVersion, SegmentName, TimelineId, WalFileName};
use holdfast_repo::catalog::WalInventory;
use holdfast_repo::record::{LedgerEntry, VerificationProblem};
use holdfast_retention::NumberRanges;

use super::compare::{Depth, is_of_the_segment};
use super::findings::{Places, add_range};
use super::look::ClaimWal;
use super::record::{Known, entries_due};
use super::run::Run;
use crate::error::Error;
use crate::verify::Level;

/// How many segments of recorded gaps that are listed again are read in one run. The next run reads the next ones.
const MOST_BACK: usize = 256;

impl Run<'_> {
    /// The segments of recorded gaps that are there again, and those about which nothing is known.
    async fn come_back(&mut self) -> Result<(Places, Places), Error> {
        let (mut back, mut in_doubt) = (Places::new(), self.findings.unusable().clone());
        let claims = std::mem::take(&mut self.claims);
        let outcome = self.read_back(&claims, &mut back, &mut in_doubt).await;
        self.claims = claims;
        outcome.map(|()| (back, in_doubt))
    }

    async fn read_back(&mut self, claims: &[ClaimWal], back: &mut Places, doubt: &mut Places) -> Result<(), Error> {
        let mut left = MOST_BACK;
        for wal in claims {
            let (claim, size) = (wal.claim.number, wal.size());
            for ((_, timeline), numbers) in &wal.young {
                numbers.iter().for_each(|(first, last)| add_range(doubt, claim, *timeline, first, last));
            }
            // What a release cannot read stays in doubt: its record of a gap is not closed.
            let version = PgVersion::new(wal.claim.pg_major).ok();
            for place in self.recorded.places().into_iter().filter(|(of, _)| *of == claim) {
                let listed: NumberRanges = present(wal.chains.wal(), place.1);
                let listed = self.recorded.at(place).common(&listed);
                let unusable = doubt.get(&place).cloned().unwrap_or_default();
                let readable = listed.without(&unusable);
                for (first, last) in listed.iter() {
                    add_range(doubt, claim, place.1, first, last);
                }
                let numbers = readable.iter().flat_map(|(first, last)| first..=last).take(left).collect::<Vec<_>>();
                left -= numbers.len();
                for number in numbers {
                    let Some(segment) = SegmentName::from_number(number, place.1, size) else { continue };
                    let Some(version) = version else { continue };
                    match self.reader.ends(&wal.claim, version, segment, Depth::Bytes).await.1 {
                        Ok(ends) if ends.as_ref().is_some_and(|ends| !ends.is_unfinished()) => {
                            add_range(back, claim, place.1, number, number);
                        }
                        Ok(_) => self.notes.push(format!(
                            "{segment} of claim {claim} was recorded as missing. It is there, and PostgreSQL cannot read it \
                             to its end"
                        )),
                        Err(error) if is_of_the_segment(&error) => {
                            self.damaged(wal, &error, Some(WalFileName::Segment(segment))).await?;
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        // What was read to its end is not in doubt.
        for (place, numbers) in back.iter() {
            if let Some(doubtful) = doubt.get_mut(place) {
                *doubtful = doubtful.without(numbers);
            }
        }
        Ok(())
    }

    /// Writes to the ledger which gaps are new, and which are over.
    pub(super) async fn remember(&mut self) -> Result<(), Error> {
        let (back, in_doubt) = self.come_back().await?;
        let is_complete = self.is_complete && !self.findings.may_hide_needs();
        let missing = self.findings.missing();
        let known = Known { missing, back: &back, in_doubt: &in_doubt, is_complete };
        let due = entries_due(&self.recorded, &known, "found by `wal verify`");
        let now = self.now();
        if self.options.remember {
            // Each entry has a name of its own, which is its time.
            let times = (0..).map(|number| now + TimeDelta::microseconds(number));
            for (entry, now) in due.into_iter().zip(times) {
                let (cluster, host) = (&self.options.cluster, &self.options.host);
                // With read-only credentials the verification still works.
                if let Err(error) = self.repository.write_ledger(cluster, host, now, entry).await {
                    self.notes.push(format!("the gaps cannot be recorded in the repository: {}", error.what));
                    break;
                }
            }
        }
        let recorded = &self.recorded;
        let is_new = |claim, timeline, number| {
            recorded.since(claim, timeline, number).or(Some(now).filter(|_| self.options.remember))
        };
        self.findings.note_recorded(is_new);
        Ok(())
    }

    /// Writes to the ledger that all WAL was looked at, and what was found: without it, nobody can tell "no gap" from
    /// "never looked".
    pub(super) async fn record_look(&mut self) {
        if !self.is_complete || !self.options.remember {
            return;
        }
        let losses = self.findings.iter().filter(|finding| finding.weight == WalFindingWeight::Loss);
        let problems = losses
            .map(|finding| VerificationProblem { object: finding.object.clone(), problem: finding.problem.clone() });
        let entry = LedgerEntry::Verification {
            backup: None,
            deep: self.options.level == Level::Deep && self.options.sample.is_none(),
            object_count: self.segment_count,
            size_bytes: self.reader.read_bytes.load(Ordering::Relaxed),
            problems: problems.collect(),
            sample_percent: None,
            passed_over_count: 0,
        };
        let (cluster, host) = (&self.options.cluster, &self.options.host);
        if let Err(error) = self.repository.write_ledger(cluster, host, self.now(), entry).await {
            self.notes.push(format!("this verification cannot be recorded in the repository: {}", error.what));
        }
    }
}

fn present(wal: &WalInventory, timeline: TimelineId) -> NumberRanges {
    let size = wal.segment_size();
    wal.ranges(timeline).iter().map(|range| (range.first.number(size), range.last.number(size))).collect()
}
