//! Claims record which cluster owns an archive. They are checked before anything is written (promise 8).
//!
//! The claim with the highest number is the one in force. It is created conditionally. If two clusters come to an empty
//! archive at the same moment, exactly one gets it, and the error of the other names both.
//!
//! A claim that cannot be read stops every use of it and of older ones ([`Claims::chosen`]): it may have taken the
//! archive over. It does not stop the use of a newer one.

use chrono::{DateTime, Utc};
use holdfast_pgtypes::{ControlFile, PgVersion, SystemIdentifier, WalSegmentSize};
use holdfast_repo::codec::Codec;
use holdfast_repo::name::{self, ClaimNumber, ClusterName, ObjectPath};
use holdfast_repo::record::ClaimRecord;

use super::Repository;
use super::listed::Listed;
use crate::error::{Cause, Error, ResultExt};

/// The claims on an archive, oldest first.
pub type Claims = Listed<ClaimRecord, ClaimNumber>;

impl Claims {
    /// The newest claim for which `wanted` returns true, if there is one.
    ///
    /// # Errors
    /// That of the newest claim that cannot be read, unless the chosen one is newer: the unreadable one may be the
    /// right one, and under a wrong claim there is another cluster's WAL.
    pub fn chosen(mut self, wanted: impl Fn(&ClaimRecord) -> bool) -> Result<Option<ClaimRecord>, Error> {
        let chosen = self.records.into_iter().rfind(wanted);
        match self.unreadable.pop() {
            Some(bad) if chosen.as_ref().is_none_or(|claim| claim.number < bad.id) => Err(bad.error),
            _ => Ok(chosen),
        }
    }
}

/// What identifies a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Made by `initdb`; it never changes.
    pub system_identifier: SystemIdentifier,
    /// The major version of the server.
    pub version: PgVersion,
    /// The size of a WAL segment, set by `initdb --wal-segsize`.
    pub wal_segment_size: WalSegmentSize,
}

impl Identity {
    /// The identity in a control file.
    pub fn of_control_file(control: &ControlFile) -> Self {
        Self {
            system_identifier: control.system_identifier,
            version: control.version,
            wal_segment_size: control.wal_segment_size,
        }
    }
}

/// The cluster that takes a claim, and the facts that are written into it.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// The identity of the cluster.
    pub identity: Identity,
    /// "the data directory /srv/pg", for messages.
    pub here: String,
    /// The owner in the user's words; `None` for no owner.
    pub owner: Option<String>,
    /// The codec of the WAL files of this claim.
    pub wal_codec: Codec,
    /// The name of this host.
    pub host: String,
    /// The time of the claim.
    pub now: DateTime<Utc>,
}

impl Claimant {
    /// The claim that the claimant would take.
    pub(super) fn record(&self, cluster: &ClusterName, number: ClaimNumber) -> ClaimRecord {
        ClaimRecord {
            number,
            cluster: cluster.clone(),
            system_identifier: self.identity.system_identifier,
            pg_major: self.identity.version.major(),
            pg_control_version: self.identity.version.control_version(),
            catalog_version: self.identity.version.catalog_version(),
            wal_segment_size: self.identity.wal_segment_size,
            wal_codec: self.wal_codec,
            since: self.now,
            host: self.host.clone(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            owner: self.owner.clone(),
        }
    }
}

impl Repository {
    /// All claims on an archive, oldest first, and those whose record cannot be read.
    ///
    /// # Errors
    /// [`Cause::Store`] if the claims cannot be listed, or the store cannot be asked for one. The error of a single
    /// record is in [`Listed::unreadable`].
    pub async fn claims(&self, cluster: &ClusterName) -> Result<Claims, Error> {
        let names = self.claim_numbers(cluster).await?.into_iter().map(|number| (number, name::claim(cluster, number)));
        Listed::read(names.collect(), |number| self.claim(cluster, number)).await
    }

    /// The claim with the highest number, if there is one. Only this claim is read: an error in an earlier one does not
    /// matter. An error in this one is returned, because without it the owner of the archive is not known.
    ///
    /// # Errors
    /// [`Cause::Store`] if the claims cannot be listed, [`Cause::Malformed`] if the record is that of another claim;
    /// otherwise as [`Repository::read_record`].
    pub async fn newest_claim(&self, cluster: &ClusterName) -> Result<Option<ClaimRecord>, Error> {
        match self.claim_numbers(cluster).await?.pop() {
            Some(number) => self.claim(cluster, number).await.map(Some),
            None => Ok(None),
        }
    }

    /// The claim in force.
    ///
    /// # Errors
    /// [`Cause::NoClaim`] if nobody has claimed the archive; otherwise as [`Repository::newest_claim`].
    pub async fn current_claim(&self, cluster: &ClusterName) -> Result<ClaimRecord, Error> {
        self.newest_claim(cluster)
            .await?
            .ok_or_else(|| Cause::NoClaim { store: self.describe(), cluster: cluster.to_string() }.into())
    }

    /// The numbers of all claims by their names, in ascending order.
    async fn claim_numbers(&self, cluster: &ClusterName) -> Result<Vec<ClaimNumber>, Error> {
        let listed = self
            .store()
            .list(&name::claims_folder(cluster), None)
            .await
            .doing(|| format!("looking for the claims on {cluster} in {}", self.describe()))?;
        let numbers = listed.iter().filter_map(|object| match object.name.as_ref().parse() {
            Ok(ObjectPath::Claim { claim, .. }) => Some(claim),
            _ => None,
        });
        let mut numbers: Vec<ClaimNumber> = numbers.collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn claim(&self, cluster: &ClusterName, number: ClaimNumber) -> Result<ClaimRecord, Error> {
        let name = name::claim(cluster, number);
        let claim: ClaimRecord = self.read_record(&name).await?;
        // Without encryption only this check binds a record to its name.
        if claim.number != number || claim.cluster != *cluster {
            let reason = format!("it is claim {} on {}", claim.number, claim.cluster);
            return Err(Cause::Malformed { name, reason }.into());
        }
        Ok(claim)
    }

    /// Checks that the archive is `claimant`'s, or takes it if nobody has claimed it.
    ///
    /// # Errors
    /// That of [`Repository::check_claim`] if the archive is not `claimant`'s. [`Cause::AnotherRun`] if others take the
    /// claim twice meanwhile. Those of [`Repository::newest_claim`] and [`Repository::create_record`].
    pub async fn take_claim(&self, cluster: &ClusterName, claimant: &Claimant) -> Result<ClaimRecord, Error> {
        let phrase = || format!("checking who owns the archive {cluster} in {}", self.describe());
        self.take_claim_inner(cluster, claimant, false).await.doing(phrase)
    }

    /// Takes the archive over for a cluster with another identity, as after `pg_upgrade`; the WAL of the earlier claim
    /// stays where it is.
    ///
    /// # Errors
    /// [`Cause::AnotherRun`] if others take the next number twice meanwhile, [`Cause::Internal`] if no number is left.
    /// Those of [`Repository::newest_claim`] and [`Repository::create_record`].
    pub async fn take_next_claim(&self, cluster: &ClusterName, claimant: &Claimant) -> Result<ClaimRecord, Error> {
        let phrase = || format!("taking a new claim on the archive {cluster} in {}", self.describe());
        self.take_claim_inner(cluster, claimant, true).await.doing(phrase)
    }

    async fn take_claim_inner(
        &self,
        cluster: &ClusterName,
        claimant: &Claimant,
        succeed: bool,
    ) -> Result<ClaimRecord, Error> {
        // It tries a second time if another writer took the same number in between.
        for _ in 0..2 {
            let current = self.newest_claim(cluster).await?;
            let number = match &current {
                None => ClaimNumber::FIRST,
                Some(claim) => match self.check_claim(claim, claimant) {
                    Ok(()) => return Ok(claim.clone()),
                    Err(error) if !succeed => return Err(error),
                    Err(_) => {
                        claim.number.next().ok_or_else(|| Cause::Internal("there are too many claims".to_owned()))?
                    }
                },
            };
            let claim = claimant.record(cluster, number);
            match self.create_record(&name::claim(cluster, number), &claim).await {
                Ok(()) => return Ok(claim),
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Cause::AnotherRun { verb: "claim", subject: format!("the archive {cluster}"), pid: None }.into())
    }

    /// Checks that the claim is that of `claimant`.
    ///
    /// # Errors
    /// The first that applies: [`Cause::WrongCluster`], [`Cause::WrongVersion`], [`Cause::Refused`] for another size of
    /// the WAL segments, [`Cause::WrongOwner`].
    pub fn check_claim(&self, claim: &ClaimRecord, claimant: &Claimant) -> Result<(), Error> {
        let identity = &claimant.identity;
        if claim.system_identifier != identity.system_identifier {
            return Err(Cause::WrongCluster {
                store: self.describe(),
                cluster: claim.cluster.to_string(),
                claimed: claim.system_identifier,
                here: claimant.here.clone(),
                found: identity.system_identifier,
            }
            .into());
        }
        if claim.pg_major != identity.version.major() {
            return Err(Cause::WrongVersion {
                store: self.describe(),
                cluster: claim.cluster.to_string(),
                claimed: claim.pg_major,
                here: claimant.here.clone(),
                found: identity.version.major(),
            }
            .into());
        }
        if claim.wal_segment_size != identity.wal_segment_size {
            return Err(Cause::Refused(format!(
                "the archive {} in {} has WAL segments of {} bytes, but {} has {}",
                claim.cluster,
                self.describe(),
                claim.wal_segment_size.bytes(),
                claimant.here,
                identity.wal_segment_size.bytes()
            ))
            .into());
        }
        self.check_owner(claim, &claimant.here, claimant.owner.as_deref())
    }

    /// Checks that the claim is `owner`'s. A claim without an owner accepts every owner: it was made before there were
    /// owners, or by a user who needs none.
    pub(crate) fn check_owner(&self, claim: &ClaimRecord, here: &str, owner: Option<&str>) -> Result<(), Error> {
        match (&claim.owner, owner) {
            (Some(claimed), Some(owner)) if claimed != owner => Err(self.wrong_owner(claim, here, owner)),
            _ => Ok(()),
        }
    }

    pub(super) fn wrong_owner(&self, claim: &ClaimRecord, here: &str, owner: &str) -> Error {
        Cause::WrongOwner {
            store: self.describe(),
            cluster: claim.cluster.to_string(),
            claimed: claim.owner.clone(),
            system_identifier: claim.system_identifier,
            here: here.to_owned(),
            owner: owner.to_owned(),
        }
        .into()
    }
}
