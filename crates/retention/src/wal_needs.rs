//! Which WAL is needed, and why.
//!
//! A backup from which every moment must be restorable needs all WAL from its start on, on every timeline to which it
//! leads. That includes WAL of an old timeline after the switch, since recovery along the old timeline is possible. Any
//! other kept backup needs the WAL from its own start to its own stop. A segment in which the timeline switches is
//! needed under both names: recovery reads the newer one, and falls back to the older one.

use crate::catalog::Backup;
use crate::judge::Judged;
use crate::lines::{Lines, number_containing};
use crate::packs::blocked;
use crate::setting::Setting;
use crate::verdict::{PackKept, WalKept};
use holdfast_pgtypes::{Lsn, TimelineId};
use holdfast_repo::name::ClaimNumber;
use std::collections::{BTreeMap, BTreeSet};

/// Needed segments: the numbers of the first and the last, and the reason.
pub(crate) type Need = (u64, u64, WalKept);

/// The needed WAL of one claim.
#[derive(Default)]
pub(crate) struct Needs {
    /// Segments that are needed on every timeline.
    pub(crate) everywhere: Vec<Need>,
    /// Segments that are needed on one timeline.
    pub(crate) on: BTreeMap<TimelineId, Vec<Need>>,
    /// Timelines to which a kept backup leads.
    pub(crate) reached: BTreeSet<TimelineId>,
}

pub(crate) fn of_claim(setting: &Setting<'_>, judged: &Judged, claim: ClaimNumber, lines: &Lines<'_>) -> Needs {
    let mut needs = Needs::default();
    of_doubt(setting, claim, lines, &mut needs);
    let kept: Vec<&Backup> =
        setting.catalog.backups.iter().filter(|backup| backup.claim == claim && judged.is_kept(backup.id)).collect();
    let continuous: Vec<&Backup> =
        kept.iter().copied().filter(|backup| judged.continuous.contains(&backup.id)).collect();
    for backup in &kept {
        let (first, last) = lines.own_segments(backup);
        for timeline in lines.own_timelines(backup) {
            needs.reached.insert(timeline);
            needs.on.entry(timeline).or_default().push((first, last, WalKept::ConsistencyOf(backup.id)));
        }
        for timeline in lines.unknown() {
            needs.on.entry(timeline).or_default().push((first, last, WalKept::UnknownHistory(backup.id)));
        }
    }
    for (timeline, ancestry) in &lines.ancestries {
        let leading = |backup: &&&Backup| ancestry.is_none() || lines.leads(backup, *timeline);
        if kept.iter().any(|backup| leading(&backup)) {
            needs.reached.insert(*timeline);
        }
        // Along one path, the need of the earliest start contains the others.
        let Some(earliest) = continuous.iter().filter(leading).min_by_key(|backup| (backup.start_lsn, backup.id))
        else {
            continue;
        };
        let (start, _) = lines.own_segments(earliest);
        let own_span = ancestry.as_ref().and_then(|path| path.span(*timeline));
        let begin = own_span.map_or(Lsn::INVALID, |span| span.start);
        let reason = if ancestry.is_some() { WalKept::EveryMomentSince } else { WalKept::UnknownHistory };
        // The loop also visits its parents: a backup that leads to this timeline also leads to them.
        let first = number_containing(begin, lines.wal.segment_size).max(start);
        needs.on.entry(*timeline).or_default().push((first, u64::MAX, reason(earliest.id)));
    }
    needs
}

/// WAL that is kept because of a doubt.
fn of_doubt(setting: &Setting<'_>, claim: ClaimNumber, lines: &Lines<'_>, needs: &mut Needs) {
    let catalog = setting.catalog;
    let mut all = |reason| needs.everywhere.push((0, u64::MAX, reason));
    if setting.policy.is_empty() {
        all(WalKept::NoPolicy);
    }
    if catalog.claims.get(&claim).is_none_or(|claim| claim.since.is_none()) {
        all(WalKept::UnknownClaim);
    }
    if setting.has_unknown_restore() {
        all(WalKept::UnknownRestore);
    }
    if setting.current_claim() == Some(claim) && !catalog.backups.iter().any(|backup| backup.claim == claim) {
        all(WalKept::NoBackupYet);
    }
    let here = |of: Option<ClaimNumber>| of.is_none_or(|of| of == claim);
    // This is for every claim: while no manifest is read, it is not known which backup is the last sound one.
    if let Some(PackKept::MayBeNamedBy(id)) = blocked(setting) {
        all(WalKept::MayBeNeededBy(id));
    }
    for running in setting.may_run().filter(|running| here(running.claim)) {
        let first = running.start_lsn.map_or(0, |start| number_containing(start, lines.wal.segment_size));
        needs.everywhere.push((first, u64::MAX, WalKept::RunningBackup(running.id)));
    }
}
