//! Pairs the claims of two repositories. The two claims of a pair belong to the same cluster.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_repo::codec::Codec;
use holdfast_repo::name::{self, ClaimNumber, ClusterName};
use holdfast_repo::record::ClaimRecord;

use crate::error::{Cause, Error, ResultExt};
use crate::repository::Repository;

/// The pairs of claims that belong to the same cluster, by their numbers in the first repository.
#[derive(Debug, Default)]
pub(crate) struct ClaimPairs(BTreeMap<ClaimNumber, (ClaimRecord, ClaimRecord)>);

/// What a claim that is taken in the second repository gets: its WAL codec, and the host that takes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taker<'a> {
    pub(crate) wal_codec: Codec,
    pub(crate) host: &'a str,
}

fn are_one(one: &ClaimRecord, two: &ClaimRecord) -> bool {
    (one.system_identifier, one.pg_major, one.wal_segment_size)
        == (two.system_identifier, two.pg_major, two.wal_segment_size)
}

impl ClaimPairs {
    /// The claims that both repositories have.
    ///
    /// # Errors
    /// [`Cause::Store`] if claims cannot be listed. A claim that cannot be read is left out.
    pub(crate) async fn of_both(from: &Repository, to: &Repository, cluster: &ClusterName) -> Result<Self, Error> {
        let (from, to) = tokio::try_join!(from.claims(cluster), to.claims(cluster))?;
        let mut pairs = BTreeMap::new();
        for claim in from.records {
            if let Some(same) = to.records.iter().rfind(|there| are_one(&claim, there)) {
                pairs.insert(claim.number, (claim, same.clone()));
            }
        }
        Ok(Self(pairs))
    }

    /// As [`Self::of_both`], but also takes the `needed` claims of the first repository that the second one does not
    /// have.
    ///
    /// # Errors
    /// [`Cause::WrongCluster`] if the second archive belongs to another cluster, [`Cause::WrongOwner`] if it has
    /// another owner, [`Cause::Refused`] if an earlier claim would come after a later one, [`Cause::AnotherRun`] if
    /// another run takes the claim at the same time; the error of a claim that cannot be read; those of
    /// [`Repository::create_record`].
    pub(crate) async fn take(
        from: &Repository,
        to: &Repository,
        cluster: &ClusterName,
        needed: &BTreeSet<ClaimNumber>,
        taker: Taker<'_>,
    ) -> Result<Self, Error> {
        let taking =
            || format!("comparing whose the archives {cluster} in {} and {} are", from.describe(), to.describe());
        let (ours, theirs) = tokio::try_join!(from.claims(cluster), to.claims(cluster)).doing(taking)?;
        if let Some(bad) = theirs.unreadable.into_iter().next() {
            return Err(bad.error).doing(taking);
        }
        if let Some(bad) = ours.unreadable.into_iter().find(|bad| needed.contains(&bad.id)) {
            return Err(bad.error).doing(taking);
        }
        let mut there = theirs.records;
        let stranger = there.iter().find(|there| !ours.records.iter().any(|claim| are_one(claim, there)));
        if let (Some(stranger), Some(claim)) = (stranger, ours.records.last()) {
            let wrong = Cause::WrongCluster {
                store: to.describe(),
                cluster: cluster.to_string(),
                claimed: stranger.system_identifier,
                here: format!("the archive in {}", from.describe()),
                found: claim.system_identifier,
            };
            return Err(wrong).doing(taking);
        }
        let mut pairs = BTreeMap::new();
        let place = |claim: &ClaimRecord| ours.records.iter().position(|other| are_one(other, claim));
        for claim in &ours.records {
            if let Some(same) = there.iter().rfind(|there| are_one(claim, there)) {
                let here = format!("the archive in {}", from.describe());
                to.check_owner(same, &here, claim.owner.as_deref()).doing(taking)?;
                pairs.insert(claim.number, (claim.clone(), same.clone()));
                continue;
            }
            if !needed.contains(&claim.number) {
                continue;
            }
            let last = there.last();
            if last.is_some_and(|last| place(last) > place(claim)) {
                return Err(Cause::Refused(format!(
                    "{} has a later claim of the archive {cluster} than claim {} of {}, and the newest claim is the one in \
                     force: what belongs to the earlier one cannot come after it",
                    to.describe(),
                    claim.number,
                    from.describe()
                )))
                .doing(taking);
            }
            let number = match last {
                None => ClaimNumber::FIRST,
                Some(last) => last.number.next().ok_or_else(|| Cause::Internal("too many claims".to_owned()))?,
            };
            let new_claim = ClaimRecord {
                number,
                wal_codec: taker.wal_codec,
                host: taker.host.to_owned(),
                software_version: env!("CARGO_PKG_VERSION").to_owned(),
                ..claim.clone()
            };
            match to.create_record(&name::claim(cluster, number), &new_claim).await {
                Ok(()) => {}
                Err(error) if error.is_already_exists() => {
                    let subject = format!("the archive {cluster}");
                    return Err(Cause::AnotherRun { verb: "claim", subject, pid: None }).doing(taking);
                }
                Err(error) => return Err(error).doing(taking),
            }
            pairs.insert(claim.number, (claim.clone(), new_claim.clone()));
            there.push(new_claim);
        }
        Ok(Self(pairs))
    }

    /// The claim with this number in the first repository, and its counterpart.
    pub(crate) fn of_first(&self, number: ClaimNumber) -> Option<(&ClaimRecord, &ClaimRecord)> {
        self.0.get(&number).map(|(from, to)| (from, to))
    }

    /// The same, by the number in the second repository.
    pub(crate) fn of_second(&self, number: ClaimNumber) -> Option<(&ClaimRecord, &ClaimRecord)> {
        self.0.values().find(|(_, to)| to.number == number).map(|(from, to)| (from, to))
    }
}
