//! What killed runs over this data directory have stored, so that it is not compressed and sent again.
//!
//! A run that was killed leaves packs, and no backup. The next run names in its own manifest what it needs of them, chunk by
//! chunk, by the hash of the content: what changed since then is another chunk. It reads all that it would read without them,
//! and saves the rest of the work. That holds for backups of every type, and for a chain of killed runs.
//!
//! The dead run may be alive after all, on a host that was taken for lost ([`super::runner`]). So:
//! 1. The start record of this run names the dead ones, as it does for those that it only removes.
//! 2. [`adopt`]: the start record of a dead run gets the id of this one. A run whose start record is not its own does not
//!    complete, and does not remove its packs.
//! 3. [`Earlier::read`]: what is in the packs that are whole.
//! 4. Before and after `backup.json` is created, the adopted start records must still be this run's, and the checks of a
//!    restore find every pack in its size.
//! 5. [`super::remains::remove_adopted`]: what no manifest names goes, the start record last. If the run dies or fails before,
//!    the next one adopts them all.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use holdfast_repo::ChunkHash;
use holdfast_repo::manifest::{Extent, PackEntry};
use holdfast_repo::name::{self, BackupId, ClusterName};
use holdfast_repo::pack::PackIndex;
use holdfast_repo::record::{RunIdentity, StartRecord};

use super::remains::is_complete;
use super::runner::Runner;
use crate::error::{Error, ResultExt as _};
use crate::progress::Progress;
use crate::repository::Repository;

/// How many packs are looked into at once.
const PACKS_AT_ONCE: usize = 8;

/// Takes the dead runs over that have packs: gives them, with what they have stored.
pub(super) async fn take_over(
    repository: &Repository,
    cluster: &ClusterName,
    runner: &Runner,
    dead: &BTreeSet<BackupId>,
    progress: &dyn Progress,
) -> Result<(BTreeSet<BackupId>, Earlier), Error> {
    let adopted = adopt(repository, cluster, runner, dead).await?;
    let earlier = Earlier::read(repository, cluster, &adopted).await?;
    if !adopted.is_empty() {
        let backups: Vec<String> = adopted.iter().map(ToString::to_string).collect();
        progress.note(&format!(
            "going on from backup {}, which was not finished: {} packs of {} MiB are there",
            backups.join(" and "),
            earlier.pack_count(),
            earlier.size_bytes() >> 20
        ));
    }
    Ok((adopted, earlier))
}

/// Writes the id of this run into the start records of dead runs that have packs, and gives those runs.
async fn adopt(
    repository: &Repository,
    cluster: &ClusterName,
    runner: &Runner,
    dead: &BTreeSet<BackupId>,
) -> Result<BTreeSet<BackupId>, Error> {
    let mut adopted = BTreeSet::new();
    for backup in dead {
        let done = adopt_one(repository, cluster, runner, *backup).await;
        if done.doing(|| format!("taking over the unfinished backup {backup} in {}", repository.describe()))? {
            adopted.insert(*backup);
        }
    }
    Ok(adopted)
}

async fn adopt_one(
    repository: &Repository,
    cluster: &ClusterName,
    runner: &Runner,
    backup: BackupId,
) -> Result<bool, Error> {
    let start_name = name::backup_start(cluster, &backup);
    let start = match repository.read_record::<StartRecord>(&start_name).await {
        Ok(start) => start,
        // Without a start record that can be read nothing could keep its run from completing.
        Err(error) if error.is_not_found() || error.is_of_one_object() => return Ok(false),
        Err(error) => return Err(error),
    };
    let Some(run) = start.run.filter(|run| !run.ended) else { return Ok(false) };
    if is_complete(repository, cluster, backup).await? {
        return Ok(false);
    }
    let packs = repository.store().list_page(&name::packs_folder(cluster, &backup), None, None).await?;
    if packs.objects.is_empty() {
        return Ok(false);
    }
    let run = RunIdentity { id: runner.run.clone(), ..run };
    repository.replace_record(&start_name, &StartRecord { run: Some(run), ..start }).await?;
    Ok(true)
}

/// The chunks that killed runs have stored in one repository.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    packs: Vec<PackEntry>,
    /// By their hashes; [`Extent::pack`] is a place in `packs`.
    chunks: Vec<Extent>,
}

impl Earlier {
    /// Reads the indexes of the packs of these runs. A pack that cannot be read counts as one that is not there.
    async fn read(repository: &Repository, cluster: &ClusterName, adopted: &BTreeSet<BackupId>) -> Result<Self, Error> {
        let mut earlier = Self::default();
        for backup in adopted {
            let listed = repository.store().list(&name::packs_folder(cluster, backup), None).await;
            let listed = listed.doing(|| format!("listing the packs of the unfinished backup {backup}"))?;
            let mut read = futures::stream::iter(listed)
                .map(|object| async move {
                    match repository.pack_index(object.name.as_ref(), object.size_bytes).await {
                        Ok(index) => Ok(Some((PackEntry::new(object.name.to_string(), object.size_bytes), index))),
                        Err(error) if error.is_of_one_object() || error.is_not_found() => {
                            tracing::debug!(pack = %object.name, %error, "a pack of an unfinished backup is not used");
                            Ok(None)
                        }
                        Err(error) => Err(error),
                    }
                })
                .buffered(PACKS_AT_ONCE);
            while let Some(pack) = read.try_next().await? {
                if let Some((pack, index)) = pack {
                    earlier.add(pack, &index);
                }
            }
        }
        earlier.chunks.sort_unstable_by_key(|chunk| *chunk.hash.as_bytes());
        earlier.chunks.dedup_by_key(|chunk| *chunk.hash.as_bytes());
        Ok(earlier)
    }

    fn add(&mut self, pack: PackEntry, index: &PackIndex) {
        let number = self.packs.len() as u32;
        self.packs.push(pack);
        self.chunks.extend(index.frames().iter().flat_map(|frame| {
            let chunks = frame.chunks.iter();
            chunks.map(|chunk| Extent::stored(chunk.hash, number, frame.location, chunk.offset, chunk.length))
        }));
    }

    /// Where these bytes are.
    pub(super) fn find(&self, hash: ChunkHash, length: u32) -> Option<Extent> {
        let at = self.chunks.binary_search_by_key(hash.as_bytes(), |chunk| *chunk.hash.as_bytes()).ok()?;
        self.chunks.get(at).copied().filter(|chunk| chunk.length == length)
    }

    /// The pack of a place that [`Self::find`] gave.
    pub(super) fn pack(&self, place: &Extent) -> Option<&PackEntry> {
        self.packs.get(place.pack as usize)
    }

    /// How many packs there are.
    pub(super) fn pack_count(&self) -> usize {
        self.packs.len()
    }

    /// The size of all of them, in bytes.
    fn size_bytes(&self) -> u64 {
        self.packs.iter().map(|pack| pack.size_bytes).sum()
    }
}

/// What killed runs have stored in every repository that takes part: a chunk is read and compressed once for all of them.
#[derive(Debug)]
pub(super) struct Everywhere(Vec<Arc<Earlier>>);

impl Everywhere {
    /// None if there is nothing.
    pub(super) fn new(lanes: Vec<Arc<Earlier>>) -> Option<Self> {
        let any = !lanes.is_empty() && lanes.iter().all(|lane| !lane.chunks.is_empty());
        any.then_some(Self(lanes))
    }

    /// Whether all of them have these bytes.
    pub(super) fn have(&self, hash: ChunkHash, length: usize) -> bool {
        u32::try_from(length).is_ok_and(|length| self.0.iter().all(|lane| lane.find(hash, length).is_some()))
    }
}
