//! Object Lock: an object that is kept stays locked, and one that goes is removed only after its lock has ended.
//!
//! The store knows the end of each lock, so `expire` asks it: one request for each object that can be locked. If less
//! than half of the term is left to an object that stays, its lock is extended to a whole term from now. No lock is
//! ever shortened. What goes and is still locked stays visible, and a later run removes it: a delete would only hide
//! it, and nobody would see what is still there.
//!
//! A backup whose record or manifest is locked stays restorable, with everything that it needs.
//!
//! Locks are extended before anything is removed. If that fails, the run ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};
use futures::stream::{self, StreamExt};
use holdfast_contract::report::expire::{Amount, LockFate};
use holdfast_pgtypes::{TimelineId, WalFileName};
use holdfast_repo::name::{BackupId, ClaimNumber, ClusterName, ObjectPath, PackId, REPOSITORY_OBJECT};
use holdfast_repo::record::{ClaimRecord, LockMode};
use holdfast_retention as planner;
use holdfast_store::{LockTerm, ObjectInfo, ObjectName, StoreErrorKind};

use crate::error::{Error, ResultExt};
use crate::repository::leases::Lease;
use crate::repository::{Repository, object_name};

/// The number of requests in flight. The configuration of the store limits them further.
const AT_ONCE: usize = 64;

/// A lock is extended when less than this part of its term is left.
const SHARE: i32 = 2;

/// What is to be removed, by its names.
pub(super) struct Going<'a> {
    backups: &'a BTreeSet<BackupId>,
    packs: &'a BTreeSet<PackId>,
    manifests: BTreeSet<BackupId>,
    wal: BTreeMap<(ClaimNumber, TimelineId), planner::NumberRanges>,
    claims: &'a BTreeMap<ClaimNumber, ClaimRecord>,
}

impl<'a> Going<'a> {
    pub(super) fn of_decision(
        decision: &'a planner::Decision,
        plan: &planner::Plan,
        claims: &'a BTreeMap<ClaimNumber, ClaimRecord>,
    ) -> Self {
        let planner::Decision { backups, packs, wal, .. } = decision;
        Self { backups, packs, manifests: plan.manifests_going(backups, packs), wal: numbers(wal), claims }
    }

    pub(super) fn of_removal(removal: &'a planner::Removal, claims: &'a BTreeMap<ClaimNumber, ClaimRecord>) -> Self {
        let planner::Removal { backups, packs, manifests, wal, .. } = removal;
        Self { backups, packs, manifests: manifests.clone(), wal: numbers(wal), claims }
    }

    fn has(&self, path: &ObjectPath) -> bool {
        match path {
            ObjectPath::Pack { backup, number, .. } => {
                self.packs.contains(&PackId { backup: *backup, number: *number })
            }
            ObjectPath::BackupSummary { backup, .. } => self.backups.contains(backup),
            ObjectPath::Manifest { backup, .. } => self.manifests.contains(backup),
            ObjectPath::WalFile { claim, file, .. } => self
                .number(*claim, file)
                .is_some_and(|(of, number)| self.wal.get(&of).is_some_and(|wal| wal.holding(number).is_some())),
            _ => false,
        }
    }

    fn number(&self, claim: ClaimNumber, file: &WalFileName) -> Option<((ClaimNumber, TimelineId), u64)> {
        let (WalFileName::Segment(segment)
        | WalFileName::Partial(segment)
        | WalFileName::BackupHistory { segment, .. }) = file
        else {
            return None;
        };
        let size = self.claims.get(&claim)?.wal_segment_size;
        Some(((claim, segment.timeline()), segment.number(size)))
    }
}

fn numbers(wal: &[planner::WalRange]) -> BTreeMap<(ClaimNumber, TimelineId), planner::NumberRanges> {
    let mut lists: BTreeMap<_, Vec<(u64, u64)>> = BTreeMap::new();
    for range in wal {
        lists.entry((range.claim, range.timeline)).or_default().push((range.first, range.last));
    }
    lists.into_iter().map(|(of, list)| (of, list.into_iter().collect())).collect()
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Backups to remove whose record or manifest is locked, and until when.
    pub(super) backups: BTreeMap<BackupId, DateTime<Utc>>,
    packs: BTreeSet<PackId>,
    wal: BTreeMap<(ClaimNumber, TimelineId), Vec<(u64, u64)>>,
    wal_files: u64,
    size_bytes: u64,
    free_from: Option<DateTime<Utc>>,
    /// Objects that stay and have too little of their term left.
    due: Vec<ObjectName>,
}

impl Found {
    /// Notes an object that goes and is locked.
    fn locked(&mut self, path: &ObjectPath, going: &Going<'_>, size_bytes: u64, end: DateTime<Utc>) {
        match path {
            ObjectPath::Pack { backup, number, .. } => {
                self.packs.insert(PackId { backup: *backup, number: *number });
            }
            ObjectPath::BackupSummary { backup, .. } | ObjectPath::Manifest { backup, .. } => {
                let known = self.backups.entry(*backup).or_insert(end);
                *known = end.max(*known);
            }
            ObjectPath::WalFile { claim, file, .. } => {
                let Some((of, number)) = going.number(*claim, file) else { return };
                self.wal.entry(of).or_default().push((number, number));
                self.wal_files += 1;
            }
            _ => return,
        }
        self.size_bytes += size_bytes;
        self.free_from = Some(self.free_from.map_or(end, |known| known.min(end)));
    }

    /// Takes what is locked out of a removal. `manifests_going` gives the backups whose manifest goes with what is left
    /// of it ([`planner::Plan::manifests_going`]).
    pub(super) fn leave(
        self,
        removal: &mut planner::Removal,
        manifests_going: impl Fn(&BTreeSet<BackupId>, &BTreeSet<PackId>) -> BTreeSet<BackupId>,
    ) {
        removal.backups.retain(|id| !self.backups.contains_key(id));
        removal.packs.retain(|id| !self.packs.contains(id));
        removal.manifests = manifests_going(&removal.backups, &removal.packs);
        let locked: BTreeMap<_, planner::NumberRanges> =
            self.wal.into_iter().map(|(of, list)| (of, list.into_iter().collect())).collect();
        let nothing = planner::NumberRanges::nothing();
        let free = |range: &planner::WalRange| {
            let taken = locked.get(&(range.claim, range.timeline)).unwrap_or(&nothing);
            let left = planner::NumberRanges::of(range.first, range.last).without(taken);
            left.iter().map(|(first, last)| planner::WalRange { first, last, ..*range }).collect::<Vec<_>>()
        };
        removal.wal = removal.wal.iter().flat_map(free).collect();
    }

    pub(super) fn report(&self, term: LockTerm) -> LockFate {
        LockFate {
            mode: match term.mode {
                holdfast_store::LockMode::Governance => LockMode::Governance,
                holdfast_store::LockMode::Compliance => LockMode::Compliance,
            },
            days: term.days,
            waiting: Amount {
                backups: self.backups.keys().copied().collect(),
                packs: self.packs.len() as u64,
                wal_files: self.wal_files,
                size_bytes: self.size_bytes,
                uploads: 0,
            },
            free_from: self.free_from,
            due: self.due.len() as u64,
            extended: 0,
        }
    }
}

/// Asks for the locks of everything of a cluster, and of what all clusters share.
pub(super) async fn of_all(
    repository: &Repository,
    cluster: &ClusterName,
    going: &Going<'_>,
    term: LockTerm,
    now: DateTime<Utc>,
) -> Result<Found, Error> {
    let mut found = Found::default();
    let own = vec![(object_name(REPOSITORY_OBJECT)?, 0)];
    let question = Question { repository, going, term, now };
    question.ask(own, &mut found).await?;
    for prefix in ["keys/".to_owned(), "features/".to_owned(), format!("{cluster}/")] {
        question.list(&prefix, |_| true, &mut found).await?;
    }
    Ok(found)
}

/// Asks for the locks of what goes.
pub(super) async fn of_going(
    repository: &Repository,
    cluster: &ClusterName,
    going: &Going<'_>,
    term: LockTerm,
    now: DateTime<Utc>,
) -> Result<Found, Error> {
    let mut found = Found::default();
    let question = Question { repository, going, term, now };
    question.list(&format!("{cluster}/"), |path| going.has(path), &mut found).await?;
    Ok(found)
}

/// Extends the locks that are due. Gives how many.
pub(super) async fn extend(
    repository: &Repository,
    lease: &Lease,
    found: &Found,
    term: LockTerm,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    let end = term.end(SystemTime::from(now));
    let requests = found.due.iter().map(|name| async move {
        lease.check()?;
        match repository.store().lock_until(name, end).await {
            Ok(()) => Ok(1),
            // It was removed meanwhile.
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(0),
            Err(error) => Err(Error::from(error)),
        }
    });
    let mut requests = stream::iter(requests.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
    let mut extended = 0;
    while let Some(done) = requests.next().await {
        extended += done.doing(|| {
            format!(
                "extending the locks of what is kept in {} ({extended} of {} are extended)",
                repository.describe(),
                found.due.len()
            )
        })?;
    }
    Ok(extended)
}

struct Question<'a> {
    repository: &'a Repository,
    going: &'a Going<'a>,
    term: LockTerm,
    now: DateTime<Utc>,
}

impl Question<'_> {
    async fn list(&self, prefix: &str, wanted: impl Fn(&ObjectPath) -> bool, found: &mut Found) -> Result<(), Error> {
        let asked = |object: &ObjectInfo| {
            object.name.as_ref().parse().is_ok_and(|path: ObjectPath| path.is_locked() && wanted(&path))
        };
        let mut next = None;
        loop {
            let page = self.repository.store().list_page(prefix, None, next.as_deref()).await;
            let page = page.doing(|| format!("listing {prefix} in {}", self.repository.describe()))?;
            let objects = page.objects.into_iter().filter(asked);
            self.ask(objects.map(|object| (object.name, object.size_bytes)).collect(), found).await?;
            next = page.next;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Asks for the locks of these objects, each with its size in bytes.
    async fn ask(&self, objects: Vec<(ObjectName, u64)>, found: &mut Found) -> Result<(), Error> {
        let store = self.repository.store();
        let requests = objects.into_iter().map(|(name, size_bytes)| async move {
            let end = store.locked_until(&name).await;
            (name, size_bytes, end)
        });
        let mut requests = stream::iter(requests.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        while let Some((name, size_bytes, end)) = requests.next().await {
            let end = match end {
                Err(error) if error.kind() == StoreErrorKind::NotFound => continue,
                end => end.doing(|| format!("asking for the lock of {name} in {}", self.repository.describe()))?,
            };
            let Ok(path) = name.as_ref().parse::<ObjectPath>() else { continue };
            let end = end.map(DateTime::<Utc>::from);
            match (self.going.has(&path), end.filter(|end| *end > self.now)) {
                (true, Some(end)) => found.locked(&path, self.going, size_bytes, end),
                (false, end) if is_due(end, self.now, self.term) => found.due.push(name),
                (true | false, _) => {}
            }
        }
        Ok(())
    }
}

/// Whether the lock of an object that stays is to be extended.
fn is_due(end: Option<DateTime<Utc>>, now: DateTime<Utc>, term: LockTerm) -> bool {
    let least = TimeDelta::days(i64::from(term.days)) / SHARE;
    end.is_none_or(|end| end - now < least)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_lock_is_extended_in_the_second_half_of_its_term() {
        let term = LockTerm { mode: holdfast_store::LockMode::Governance, days: 30 };
        let now: DateTime<Utc> = "2026-11-30T00:00:00Z".parse().unwrap();
        for (end, due) in [
            (None, true),
            (Some("2026-11-01T00:00:00Z"), true),
            (Some("2026-12-14T23:59:59Z"), true),
            (Some("2026-12-15T00:00:00Z"), false),
            (Some("2027-12-15T00:00:00Z"), false),
        ] {
            assert_eq!(is_due(end.map(|end| end.parse().unwrap()), now, term), due, "{end:?}");
        }
    }

    #[test]
    fn what_is_locked_is_left_and_the_rest_is_removed() {
        let claim: ClaimNumber = "1".parse().unwrap();
        let timeline = TimelineId::new(1).unwrap();
        let (old, older): (BackupId, BackupId) =
            ("20260822T101500Z".parse().unwrap(), "20260821T101500Z".parse().unwrap());
        let pack = |number| PackId { backup: old, number };
        let end = "2026-12-15T00:00:00Z".parse().unwrap();
        let found = Found {
            backups: [(old, end)].into(),
            packs: [pack(2)].into(),
            wal: [((claim, timeline), vec![(7, 7), (5, 5)])].into(),
            ..Found::default()
        };
        let range = |first, last| planner::WalRange { claim, timeline, first, last };
        let mut removal = planner::Removal {
            backups: [older, old].into(),
            packs: [pack(1), pack(2)].into(),
            manifests: [older, old].into(),
            wal: vec![range(3, 9), range(20, 21)],
            waiting: BTreeSet::new(),
        };
        found.leave(&mut removal, |backups, _| backups.clone());
        assert_eq!(removal.backups, [older].into());
        assert_eq!(removal.manifests, [older].into());
        assert_eq!(removal.packs, [pack(1)].into());
        assert_eq!(removal.wal, [range(3, 4), range(6, 6), range(8, 9), range(20, 21)]);
    }
}
