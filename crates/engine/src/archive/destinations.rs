//! The repositories that an archiver stores into: opened at the same time, each with the claim that the file belongs
//! to.

use holdfast_repo::record::ClaimRecord;

use super::deliver::Destination;
use super::mark::HeldBy;
use super::options::PushOptions;
use crate::error::{Cause, Error};
use crate::repository::claim::{Claimant, Identity};
use crate::repository::{Repository, RepositoryTarget};

/// The repositories with their claims, as a mark keeps them.
pub(super) fn held_by(destinations: &[Destination]) -> HeldBy {
    HeldBy::new(destinations.iter().map(|destination| (destination.repository.id(), destination.claim.number)))
}

/// Opens all repositories at the same time and checks, or takes, the claim in each.
pub(crate) async fn open_all(
    targets: &[RepositoryTarget],
    options: &PushOptions,
    identity: Option<Identity>,
) -> Result<Vec<Destination>, Error> {
    let opening = targets.iter().map(|target| async {
        let repository = Repository::open_to_write(target).await?;
        let claim = claim_in(&repository, options, identity).await?;
        Ok::<_, Error>(Destination { repository, claim })
    });
    let opened = futures::future::join_all(opening).await;
    let destinations = opened.into_iter().collect::<Result<Vec<_>, _>>()?;
    if let Some((first, others)) = destinations.split_first() {
        for other in others {
            if other.claim.system_identifier != first.claim.system_identifier {
                return Err(Cause::WrongCluster {
                    store: other.repository.describe(),
                    cluster: options.cluster.to_string(),
                    claimed: other.claim.system_identifier,
                    here: format!("the archive in {}", first.repository.describe()),
                    found: first.claim.system_identifier,
                }
                .into());
            }
        }
        let kept = first.claim.wal_codec;
        if kept != options.compression.codec() {
            tracing::warn!(
                configured = %options.compression,
                archive = %kept,
                "the archive keeps the compression that it began with; the configured one is used after the next claim"
            );
        }
    }
    Ok(destinations)
}

async fn claim_in(
    repository: &Repository,
    options: &PushOptions,
    identity: Option<Identity>,
) -> Result<ClaimRecord, Error> {
    let Some(identity) = identity else {
        // A history file outside of a data directory does not name its cluster.
        return repository.current_claim(&options.cluster).await;
    };
    let claimant = Claimant {
        identity,
        here: options.path.display().to_string(),
        owner: options.owner.clone(),
        wal_codec: options.compression.codec(),
        host: options.host.clone(),
        now: options.now,
    };
    repository.take_claim(&options.cluster, &claimant).await
}
