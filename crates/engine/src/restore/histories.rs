//! The history files of an archive.

use std::collections::BTreeMap;

use holdfast_pgtypes::{HistoryFile, TimelineId, WalFileName};
use holdfast_repo::catalog::WalInventory;
use holdfast_repo::record::ClaimRecord;
use holdfast_repo::{name, wal_object};

use crate::error::{Cause, Error, ResultExt};
use crate::repository::listed::{Listed, Unreadable};
use crate::repository::{Repository, object_name};

/// The histories, and separately those that cannot be read: most recoveries need one history or none.
pub(super) async fn read_histories(
    repository: &Repository,
    claim: &ClaimRecord,
    wal: &WalInventory,
) -> Result<(BTreeMap<TimelineId, HistoryFile>, Vec<Unreadable<TimelineId>>), Error> {
    let object = |timeline| {
        let file = WalFileName::History(timeline);
        name::wal_file(&claim.cluster, claim.number, &file, claim.wal_codec, repository.is_encrypted())
    };
    let names = wal.histories().map(|timeline| (timeline, object(timeline)));
    let listed = Listed::read(names.collect(), |timeline| async move {
        Ok((timeline, read_history(repository, claim, timeline).await?))
    });
    let Listed { records, unreadable } = listed.await?;
    Ok((records.into_iter().collect(), unreadable))
}

/// The history file of a timeline in the archive.
pub(crate) async fn read_history(
    repository: &Repository,
    claim: &ClaimRecord,
    timeline: TimelineId,
) -> Result<HistoryFile, Error> {
    let file = WalFileName::History(timeline);
    let object = name::wal_file(&claim.cluster, claim.number, &file, claim.wal_codec, repository.is_encrypted());
    let reading = || format!("reading the history of timeline {timeline}");
    let most = wal_object::Bounds::TEXT;
    let bytes = repository.store().get_at_most(&object_name(&object)?, most.object_bytes()).await.doing(reading)?;
    let (raw, _) =
        wal_object::decode_within(most, &object, &bytes, repository.id(), repository.key()).doing(reading)?;
    HistoryFile::parse(timeline, &raw).map_err(|e| Cause::Malformed { name: object, reason: e.to_string() }.into())
}
