//! The findings of a run: at most [`MOST`], in order, neighbours with the same fault as one.
//!
//! What is missing and what cannot be used is known in full, as ranges, however many findings there are: the ledger
//! must not record a segment as present, or as not needed, because its finding was left out.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use holdfast_contract::report::wal_verify::{WalFinding, WalFindingKind, WalFindingWeight};
use holdfast_pgtypes::{TimelineId, WalFileName, WalSegmentSize};
use holdfast_repo::name::ClaimNumber;
use holdfast_retention::NumberRanges;

/// The most findings that are kept: more say nothing new, and an archive can have a million segments.
const MOST: usize = 1000;

/// Everything found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    found: Vec<WalFinding>,
    left_out: u64,
    sizes: BTreeMap<ClaimNumber, WalSegmentSize>,
    missing: Places,
    unusable: Places,
    /// Whether something was found that may hide what is needed.
    hides: bool,
}

/// Segment numbers, by claim and timeline.
pub(super) type Places = BTreeMap<(ClaimNumber, TimelineId), NumberRanges>;

/// Adds segments to others.
pub(super) fn add_range(to: &mut Places, claim: ClaimNumber, timeline: TimelineId, first: u64, last: u64) {
    let known = to.entry((claim, timeline)).or_default();
    *known = known.iter().chain([(first, last)]).collect();
}

impl Findings {
    /// Notes the segment size of a claim, which its segment numbers are based on.
    pub(super) fn know(&mut self, claim: ClaimNumber, size: WalSegmentSize) {
        self.sizes.insert(claim, size);
    }

    /// Adds a finding, or extends the last one by its next segment.
    pub(super) fn add(&mut self, finding: WalFinding) {
        use WalFindingKind::{Divergence, Gap, Partial};
        self.hides |= !matches!(finding.kind, Gap | Partial | Divergence);
        let size = self.sizes.get(&finding.claim).copied();
        if let (Some(size), WalFileName::Segment(first)) = (size, finding.file) {
            let number = first.number(size);
            let last = number + finding.count.saturating_sub(1);
            let places = match finding.kind {
                WalFindingKind::Gap => Some(&mut self.missing),
                WalFindingKind::Damaged | WalFindingKind::Newer => Some(&mut self.unusable),
                _ => None,
            };
            if let Some(places) = places {
                add_range(places, finding.claim, first.timeline(), number, last);
            }
        }
        let extended = self.found.last_mut().zip(size).is_some_and(|(last, size)| extend(last, &finding, size));
        if extended {
            return;
        }
        if self.found.len() < MOST {
            self.found.push(finding);
        } else {
            self.left_out += 1;
        }
    }

    /// The findings, for changes.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut WalFinding> {
        self.found.iter_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &WalFinding> {
        self.found.iter()
    }

    /// The segments that are missing.
    pub(super) fn missing(&self) -> &Places {
        &self.missing
    }

    /// Whether a history or a segment is not as it should be, so that it is not known what all is needed.
    pub(super) fn may_hide_needs(&self) -> bool {
        self.hides
    }

    /// The segments that are listed and cannot be read.
    pub(super) fn unusable(&self) -> &Places {
        &self.unusable
    }

    /// Says since when the ledger has a gap.
    pub(super) fn note_recorded(&mut self, since: impl Fn(ClaimNumber, TimelineId, u64) -> Option<DateTime<Utc>>) {
        let sizes = self.sizes.clone();
        for finding in self.iter_mut().filter(|finding| finding.kind == WalFindingKind::Gap) {
            let (WalFileName::Segment(first), Some(size)) = (finding.file, sizes.get(&finding.claim)) else { continue };
            finding.recorded = since(finding.claim, first.timeline(), first.number(*size));
        }
    }

    /// All findings in their order, and a note if there are more.
    pub(super) fn into_parts(mut self) -> (Vec<WalFinding>, Option<String>) {
        self.found.sort_by_key(|finding| (finding.claim, finding.weight, finding.file.timeline(), finding.file));
        let note = (self.left_out > 0).then(|| format!("{} more findings are not listed", self.left_out));
        (self.found, note)
    }
}

/// Adds the next segment with the same fault to a finding.
fn extend(last: &mut WalFinding, next: &WalFinding, size: WalSegmentSize) -> bool {
    let (WalFileName::Segment(first), WalFileName::Segment(after)) = (last.file, next.file) else { return false };
    let follows = last.last.unwrap_or(first).next(size) == Some(after) && next.count == 1;
    let is_same = last.kind == WalFindingKind::Damaged
        && (last.kind, last.claim, last.weight, &last.problem) == (next.kind, next.claim, next.weight, &next.problem)
        && (&last.backups, &last.snapshots, last.lost.len()) == (&next.backups, &next.snapshots, next.lost.len())
        && last.lost.iter().zip(&next.lost).all(|(a, b)| (a.timeline, &a.until) == (b.timeline, &b.until));
    if follows && is_same {
        last.last = Some(after);
        last.count += 1;
    }
    follows && is_same
}

/// A finding about one file, without what it costs.
pub(super) fn finding(
    kind: WalFindingKind,
    weight: WalFindingWeight,
    claim: ClaimNumber,
    file: WalFileName,
    object: String,
    problem: impl Into<String>,
) -> WalFinding {
    WalFinding {
        kind,
        weight,
        claim,
        file,
        last: None,
        count: 1,
        object,
        problem: problem.into(),
        backups: Vec::new(),
        snapshots: Vec::new(),
        lost: Vec::new(),
        advice: String::new(),
        recorded: None,
    }
}
