//! Begins the archive of a cluster that is about to exist. So its owner is known before `initdb` or a recovery fills a
//! volume, and not only at the first segment.
//!
//! There are two steps, and the cluster is made between them. [`prepare`] checks that the archive is free or already
//! the owner's; [`Repository::claim_for_owner`] takes it for the system identifier of the new cluster.
//!
//! Invariant: an archive without a claim is taken only while it is empty, also of objects of other software. If two
//! come at the same moment, one gets the claim (conditional create), and the error of the other names the owner.
//!
//! After a crash both steps can be repeated. If `initdb` was repeated, the owner's claim names a system identifier that
//! no longer exists. If nothing was archived under it, the next claim follows it.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use holdfast_repo::name::{self, ClaimNumber, ClusterName};
use holdfast_repo::record::ClaimRecord;
use holdfast_store::Store;

use super::claim::Claimant;
use super::{Repository, RepositoryTarget, init};
use crate::error::{Cause, Error, ResultExt};

/// Folders by which archives of other software are recognised.
const FOREIGN: [(&[&str], &str); 3] = [
    (&["base", "wals"], "which looks like an archive of Barman"),
    (&["basebackups_005", "wal_005"], "which looks like an archive of WAL-G"),
    (&["archive", "backup"], "which looks like a repository of pgBackRest"),
];

/// The most names in a message: a few show what it is, and a bucket can have thousands.
const NAMED_AT_MOST: usize = 5;

/// An archive that the owner may begin or has begun.
#[derive(Debug)]
pub struct Prepared {
    /// The open repository.
    pub repository: Repository,
    /// Whether this call made the repository.
    pub made: bool,
    /// The owner's claim; `None` while the archive is empty.
    pub claim: Option<ClaimRecord>,
}

/// Checks that the archive is empty or the owner's, and makes the repository if there is none. `here` is for the
/// message of a refusal: "the data directory /srv/pg". Nothing is written before the archive was checked.
///
/// # Errors
/// [`Cause::ArchiveNotEmpty`] if the archive holds objects and no claim, [`Cause::WrongOwner`] if it is claimed for
/// another owner. Those of [`Repository::open`] and [`Repository::newest_claim`], and of [`init::init`] if there is no
/// repository.
pub async fn prepare(
    target: &RepositoryTarget,
    cluster: &ClusterName,
    here: &str,
    owner: &str,
    now: DateTime<Utc>,
) -> Result<Prepared, Error> {
    let phrase = || format!("checking that the archive {cluster} in {} is free", target.store.describe());
    prepare_inner(target, cluster, here, owner, now).await.doing(phrase)
}

async fn prepare_inner(
    target: &RepositoryTarget,
    cluster: &ClusterName,
    here: &str,
    owner: &str,
    now: DateTime<Utc>,
) -> Result<Prepared, Error> {
    let (repository, made) = match Repository::open_to_write(target).await {
        Ok(repository) => (repository, false),
        Err(error) if matches!(*error.what, Cause::NotInitialised { .. }) => {
            check_empty(&*target.store, cluster, here, owner).await?;
            let made = init::init(target, now).await?;
            (made.repository, made.created)
        }
        Err(error) => return Err(error),
    };
    // In this order, so that a claim that another takes meanwhile does not look like a foreign object.
    let empty = check_empty(&**repository.store(), cluster, here, owner).await;
    let claim = repository.newest_claim(cluster).await?;
    match &claim {
        None => empty?,
        Some(claim) if claim.owner.as_deref() == Some(owner) => {}
        Some(claim) => return Err(repository.wrong_owner(claim, here, owner)),
    }
    Ok(Prepared { repository, made, claim })
}

impl Repository {
    /// Takes the archive for the claimant and its owner; returns the claim, and whether it is new. If the same owner
    /// and system identifier already have it, that is a success. A claim of the same owner for another system
    /// identifier is followed by a new one only if nothing was archived under it.
    ///
    /// # Errors
    /// [`Cause::ArchiveNotEmpty`] if the archive holds objects and no claim, [`Cause::WrongOwner`] if it is claimed for
    /// another owner. That of [`Repository::check_claim`] if the owner's claim is of another cluster and something is
    /// archived. [`Cause::AnotherRun`] if others take the claim twice meanwhile. Those of [`Repository::newest_claim`]
    /// and [`Repository::create_record`].
    pub async fn claim_for_owner(
        &self,
        cluster: &ClusterName,
        claimant: &Claimant,
        owner: &str,
    ) -> Result<(ClaimRecord, bool), Error> {
        let phrase = || format!("claiming the archive {cluster} in {}", self.describe());
        self.claim_for_owner_inner(cluster, claimant, owner).await.doing(phrase)
    }

    async fn claim_for_owner_inner(
        &self,
        cluster: &ClusterName,
        claimant: &Claimant,
        owner: &str,
    ) -> Result<(ClaimRecord, bool), Error> {
        let claimant = Claimant { owner: Some(owner.to_owned()), ..claimant.clone() };
        // It tries a second time if another writer took the same number in between.
        for _ in 0..2 {
            let empty = check_empty(&**self.store(), cluster, &claimant.here, owner).await;
            let number = match self.newest_claim(cluster).await? {
                None => empty.map(|()| ClaimNumber::FIRST)?,
                Some(claim) if claim.owner.as_deref() != Some(owner) => {
                    return Err(self.wrong_owner(&claim, &claimant.here, owner));
                }
                Some(claim) => match self.check_claim(&claim, &claimant) {
                    Ok(()) => return Ok((claim, false)),
                    Err(error) if self.has_archived(cluster, claim.number).await? => return Err(error),
                    Err(_) => {
                        claim.number.next().ok_or_else(|| Cause::Internal("there are too many claims".to_owned()))?
                    }
                },
            };
            let claim = claimant.record(cluster, number);
            match self.create_record(&name::claim(cluster, number), &claim).await {
                Ok(()) => return Ok((claim, true)),
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Cause::AnotherRun { verb: "claim", subject: format!("the archive {cluster}"), pid: None }.into())
    }

    /// Whether there is any WAL of a claim, in whole segments or in pieces, or any backup of the cluster.
    async fn has_archived(&self, cluster: &ClusterName, claim: ClaimNumber) -> Result<bool, Error> {
        let wal = [name::wal_claim_folder(cluster, claim), name::wal_tail_claim_folder(cluster, claim)];
        for folder in wal.into_iter().chain([name::backups_folder(cluster)]) {
            if !self.store().list_folders(&folder).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Refuses if the folder with the cluster's name holds anything.
async fn check_empty(store: &dyn Store, cluster: &ClusterName, here: &str, owner: &str) -> Result<(), Error> {
    let folder = format!("{cluster}/");
    // Folders first: there are few of them, however many objects exist.
    let mut names: Vec<String> =
        store.list_folders(&folder).await?.into_iter().map(|name| name.trim_end_matches('/').to_owned()).collect();
    let foreign = FOREIGN.iter().find(|(folders, _)| folders.iter().all(|folder| names.iter().any(|n| n == folder)));
    for name in &mut names {
        name.push('/');
    }
    if names.is_empty() {
        let objects = store.list(&folder, None).await?;
        names.extend(objects.iter().map(|object| object.name.as_ref().trim_start_matches(&folder).to_owned()));
    }
    if names.is_empty() {
        return Ok(());
    }
    let more = names.len().saturating_sub(NAMED_AT_MOST);
    names.truncate(NAMED_AT_MOST);
    let mut found = names.join(", ");
    if more > 0 {
        let _ = write!(found, " and {more} more");
    }
    if let Some((_, what)) = foreign {
        found.push_str(", ");
        found.push_str(what);
    }
    Err(Cause::ArchiveNotEmpty {
        store: store.describe(),
        cluster: cluster.to_string(),
        found,
        here: here.to_owned(),
        owner: owner.to_owned(),
    }
    .into())
}

#[cfg(test)]
mod tests;
