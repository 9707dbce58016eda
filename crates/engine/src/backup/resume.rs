//! What killed runs over this data directory have stored, so that it is not compressed and sent again.
//!
//! A run that was killed leaves packs, and no backup. The next run names in its own manifest what it needs of them, chunk by
//! chunk, by the hash of the content: what changed since then is another chunk. It reads all that it would read without them,
//! and saves the rest of the work. That holds for backups of every type, and for a chain of killed runs.
//!
//! The dead run may be alive after all, on a host that was taken for lost ([`super::runner`]). So:
//! 1. The start record of this run names the dead ones, as it does for those that it only removes.
//! 2. [`take_over`]: the start record of a dead run gets the id of this one. A run whose start record is not its own does not
//!    complete, and does not remove its packs. One that fails marks its backup as ended before it removes them, and such a
//!    backup is not taken over: of both, one sees the other.
//! 3. [`Earlier`]: what is in the packs that are whole.
//! 4. Before and after `backup.json` is created, the start records of the runs whose packs are named must still be this run's,
//!    and the checks of a restore find every pack in its size.
//! 5. [`super::remains::remove_adopted`]: what no manifest names goes, the start record last. If the run dies or fails before,
//!    the next one takes them all over.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use holdfast_repo::ChunkHash;
use holdfast_repo::manifest::{Extent, PackEntry};
use holdfast_repo::name::{self, BackupId, ClusterName};
use holdfast_repo::pack::PackIndex;
use holdfast_repo::record::{RunIdentity, StartRecord};
use tokio_util::sync::CancellationToken;

use super::remains::is_complete;
use crate::error::Error;
use crate::progress::Progress;
use crate::repository::{Repository, object_name};

/// How many packs are looked into at once.
const PACKS_AT_ONCE: usize = 32;

/// After so many packs that cannot be read one after the other, the rest is not looked into: what is there is stored again.
const MOST_FAILURES: u32 = 5;

/// Smaller chunks are stored again: an old pack is not kept for the sake of a page.
const LEAST_BYTES: usize = 8192;

/// What one repository has of dead runs.
#[derive(Debug, Default)]
pub(super) struct TakenOver {
    /// The runs that are this one's now.
    pub(super) adopted: BTreeSet<BackupId>,
    /// Those that could not be taken over: they are left alone, and the next backup looks at them.
    pub(super) left: BTreeSet<BackupId>,
    pub(super) earlier: Earlier,
}

/// Takes the dead runs over that have packs, for the run `by`, and reads what they have stored, the newest first, as far as it
/// takes `memory_bytes`. None of it is needed for a backup: a failure of the store costs what it names. After a cancel all dead
/// runs are left alone, and the run ends where it cleans up.
pub(super) async fn take_over(
    repository: &Repository,
    cluster: &ClusterName,
    by: &RunIdentity,
    dead: &BTreeSet<BackupId>,
    memory_bytes: u64,
    cancel: &CancellationToken,
) -> TakenOver {
    let work = async {
        let mut taken = TakenOver::default();
        for backup in dead {
            match adopt(repository, cluster, by, *backup).await {
                Ok(true) => drop(taken.adopted.insert(*backup)),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%backup, %error, "this unfinished backup is not continued");
                    taken.left.insert(*backup);
                }
            }
        }
        taken.earlier = Earlier::read(repository, cluster, &taken.adopted, memory_bytes).await;
        taken
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => TakenOver { left: dead.clone(), ..TakenOver::default() },
        taken = work => taken,
    }
}

/// Writes the id of this run into the start record of a dead run, if there is anything to go on from.
async fn adopt(
    repository: &Repository,
    cluster: &ClusterName,
    by: &RunIdentity,
    backup: BackupId,
) -> Result<bool, Error> {
    let start_name = name::backup_start(cluster, &backup);
    let start = match repository.read_record::<StartRecord>(&start_name).await {
        Ok(start) => start,
        // Without a start record that can be read nothing could keep its run from completing.
        Err(error) if error.is_not_found() || error.is_of_one_object() => return Ok(false),
        Err(error) => return Err(error),
    };
    let Some(run) = start.run else { return Ok(false) };
    let packs = repository.store().list_page(&name::packs_folder(cluster, &backup), None, None).await?;
    if packs.objects.is_empty() || has_ended(repository, cluster, backup).await? {
        return Ok(false);
    }
    let run = RunIdentity { id: by.id.clone(), leased: by.leased, ..run };
    repository.replace_record(&start_name, &StartRecord { run: Some(run), ..start }).await?;
    // Of a run that is alive after all: it may have completed, or begun to remove its packs, until now. Later it sees the id.
    Ok(!has_ended(repository, cluster, backup).await? && !is_complete(repository, cluster, backup).await?)
}

/// Whether its run has failed and removes what it stored.
async fn has_ended(repository: &Repository, cluster: &ClusterName, backup: BackupId) -> Result<bool, Error> {
    match repository.store().head(&object_name(&name::backup_end(cluster, &backup))?).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == holdfast_store::StoreErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The chunks that killed runs have stored in one repository.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    packs: Vec<(BackupId, PackEntry)>,
    /// By their hashes; [`Extent::pack`] is a place in `packs`.
    chunks: Vec<Extent>,
}

impl Earlier {
    /// Reads the indexes of the packs of these runs. A pack that cannot be read counts as one that is not there.
    async fn read(
        repository: &Repository,
        cluster: &ClusterName,
        adopted: &BTreeSet<BackupId>,
        memory_bytes: u64,
    ) -> Self {
        let mut earlier = Self::default();
        let most = usize::try_from(memory_bytes).unwrap_or(usize::MAX) / size_of::<Extent>();
        let mut failures = 0;
        for backup in adopted.iter().rev() {
            let listed = match repository.store().list(&name::packs_folder(cluster, backup), None).await {
                Ok(listed) => listed,
                Err(error) => {
                    tracing::warn!(%backup, %error, "the packs of this unfinished backup are not used");
                    continue;
                }
            };
            let mut read = futures::stream::iter(listed)
                .map(|object| async move {
                    let index = repository.pack_index(object.name.as_ref(), object.size_bytes).await;
                    (PackEntry::new(object.name.to_string(), object.size_bytes), index)
                })
                .buffered(PACKS_AT_ONCE);
            while let Some((pack, index)) = read.next().await {
                if earlier.chunks.len() >= most || failures >= MOST_FAILURES {
                    break;
                }
                match index {
                    Ok(index) => {
                        failures = 0;
                        earlier.add(*backup, pack, &index);
                    }
                    Err(error) => {
                        failures += 1;
                        tracing::warn!(pack = pack.name, %error, "this pack of an unfinished backup is not used");
                    }
                }
            }
        }
        earlier.chunks.truncate(most);
        earlier.chunks.sort_unstable_by_key(|chunk| *chunk.hash.as_bytes());
        earlier.chunks.dedup_by_key(|chunk| *chunk.hash.as_bytes());
        earlier
    }

    fn add(&mut self, backup: BackupId, pack: PackEntry, index: &PackIndex) {
        let number = self.packs.len() as u32;
        self.packs.push((backup, pack));
        self.chunks.extend(index.frames().iter().flat_map(|frame| {
            let chunks = frame.chunks.iter().filter(|chunk| chunk.length as usize >= LEAST_BYTES);
            chunks.map(|chunk| Extent::stored(chunk.hash, number, frame.location, chunk.offset, chunk.length))
        }));
    }

    /// Where these bytes are.
    pub(super) fn find(&self, hash: ChunkHash, length: u32) -> Option<Extent> {
        let at = self.chunks.binary_search_by_key(hash.as_bytes(), |chunk| *chunk.hash.as_bytes()).ok()?;
        self.chunks.get(at).copied().filter(|chunk| chunk.length == length)
    }

    /// The pack of a place that [`Self::find`] gave, and the backup that it was stored for.
    pub(super) fn pack(&self, place: &Extent) -> Option<(BackupId, &PackEntry)> {
        self.packs.get(place.pack as usize).map(|(backup, pack)| (*backup, pack))
    }

    /// How many packs there are.
    pub(super) fn pack_count(&self) -> usize {
        self.packs.len()
    }
}

/// What killed runs have stored in every repository that takes part: a chunk is read and compressed once for all of them.
#[derive(Debug)]
pub(super) struct Everywhere {
    /// Of each repository, in their order; none where the run does not take part.
    lanes: Vec<Option<Arc<Earlier>>>,
}

impl Everywhere {
    /// None if there is nothing.
    pub(super) fn new(lanes: Vec<Option<Arc<Earlier>>>) -> Option<Arc<Self>> {
        let any = lanes.iter().any(Option::is_some) && lanes.iter().flatten().all(|lane| !lane.chunks.is_empty());
        any.then(|| Arc::new(Self { lanes }))
    }

    /// What there is in the repository at this place.
    pub(super) fn lane(&self, index: usize) -> Option<Arc<Earlier>> {
        self.lanes.get(index)?.clone()
    }

    /// Whether all of them have these bytes.
    pub(super) fn have(&self, hash: ChunkHash, length: usize) -> bool {
        let lanes = || self.lanes.iter().flatten();
        length >= LEAST_BYTES
            && u32::try_from(length).is_ok_and(|length| lanes().all(|lane| lane.find(hash, length).is_some()))
    }

    /// Says what there is to go on from.
    pub(super) fn announce(&self, progress: &dyn Progress) {
        let Some(lane) = self.lanes.iter().flatten().next() else { return };
        let backups: BTreeSet<String> = lane.packs.iter().map(|(backup, _)| backup.to_string()).collect();
        progress.note(&format!(
            "going on from backup {}, which was not finished: {} packs with {} MiB are there",
            backups.into_iter().collect::<Vec<_>>().join(" and "),
            lane.packs.len(),
            lane.packs.iter().map(|(_, pack)| pack.size_bytes).sum::<u64>() >> 20
        ));
    }
}
