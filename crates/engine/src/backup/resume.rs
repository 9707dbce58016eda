//! Reuses what killed runs over this data directory have stored, so that it is not compressed and sent again.
//!
//! A killed run leaves packs, but no backup. The next run names in its own manifest what it needs of them: chunk by
//! chunk, by the hash of the content. Changed content has another hash, so it is stored again. The run reads everything
//! that it would read without these packs, and saves the rest of the work. This works for backups of every type, and
//! for a chain of killed runs.
//!
//! The run that seems dead may still be alive, on a host that seemed lost ([`super::runner`]). So:
//! 1. The start record of this run names the dead runs, also those that it only removes.
//! 2. [`take_over`] writes the id of this run into the start record of a dead run. A run whose start record has another
//!    id does not complete, and does not remove its packs. A run that fails marks its backup as ended before it removes
//!    its packs, and such a backup is not taken over. So one of the two runs sees the other.
//! 3. [`Earlier`] reads the content of the packs that are whole. If the store does not compare checksums, each of them
//!    is read to its end ([`killed_pack`]). Packs under a key of an earlier epoch are not used: after a key was rotated
//!    because others know it, nothing new may depend on that key.
//! 4. Before and after `backup.json` is created, the start records of the runs whose packs are named must still have
//!    the id of this run. The checks of a restore must find every pack with its size.
//! 5. [`super::remains::remove_adopted`] removes what no manifest names, the start record last. If the run dies or
//!    fails before that, the next run takes all of them over.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use holdfast_repo::ChunkHash;
use holdfast_repo::frame::{HEAD_FRAME_BYTES, ObjectType};
use holdfast_repo::manifest::{Extent, PackEntry};
use holdfast_repo::name::{self, BackupId, ClusterName};
use holdfast_repo::pack::PackIndex;
use holdfast_repo::record::{RunIdentity, StartRecord};
use tokio_util::sync::CancellationToken;

use super::killed_pack;
use super::remains::is_complete;
use crate::error::Error;
use crate::progress::Progress;
use crate::repository::{Repository, object_name};

/// The number of packs whose indexes are read in parallel. Usual indexes have some kilobytes; how many bytes of larger
/// ones are in memory at once is limited elsewhere (`repository/object_end.rs`).
const PACKS_AT_ONCE: usize = 32;

/// The number of packs that are read to their end in parallel.
const WHOLE_PACKS_AT_ONCE: usize = 2;

/// After this many unreadable packs in a row, the other packs are not read, and their content is stored again.
const MOST_FAILURES: u32 = 5;

/// Smaller chunks are stored again, so that an old pack is not kept for a single page.
const LEAST_BYTES: usize = 8192;

/// The dead runs in one repository, and their data.
#[derive(Debug, Default)]
pub(super) struct TakenOver {
    /// The runs taken over by this one.
    pub(super) adopted: BTreeSet<BackupId>,
    /// The runs that could not be taken over. They are left alone, and the next backup tries again.
    pub(super) left: BTreeSet<BackupId>,
    pub(super) earlier: Earlier,
}

/// Takes over the dead runs that have packs, for the run `by`, and reads the indexes of their packs. The newest are
/// read first, up to `memory_bytes`. A backup does not need this data: if the store fails for a pack, that pack is not
/// reused. After a cancel, all dead runs are left alone.
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

/// Writes the id of this run into the start record of a dead run, if it has packs to reuse.
async fn adopt(
    repository: &Repository,
    cluster: &ClusterName,
    by: &RunIdentity,
    backup: BackupId,
) -> Result<bool, Error> {
    let start_name = name::backup_start(cluster, &backup);
    let start = match repository.read_record::<StartRecord>(&start_name).await {
        Ok(start) => start,
        // Without a readable start record, we could not stop that run from completing.
        Err(error) if error.is_not_found() || error.is_of_one_object() => return Ok(false),
        Err(error) => return Err(error),
    };
    let Some(run) = start.run else { return Ok(false) };
    let packs = repository.store().list_page(&name::packs_folder(cluster, &backup), None, None).await?;
    if packs.objects.is_empty() || has_ended(repository, cluster, backup).await? {
        return Ok(false);
    }
    // From now on it is this process that may die.
    let (boot, pid_namespace) = (by.boot.clone(), by.pid_namespace.clone());
    let run = RunIdentity { id: by.id.clone(), leased: by.leased, boot, pid_namespace, ..run };
    repository.replace_record(&start_name, &StartRecord { run: Some(run), ..start }).await?;
    // If that run is still alive, it may have completed or begun to remove its packs until now. From now on it sees the
    // id.
    Ok(!has_ended(repository, cluster, backup).await? && !is_complete(repository, cluster, backup).await?)
}

/// Whether the run has failed and is removing what it stored.
async fn has_ended(repository: &Repository, cluster: &ClusterName, backup: BackupId) -> Result<bool, Error> {
    match repository.store().head(&object_name(&name::backup_end(cluster, &backup))?).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == holdfast_store::StoreErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The index of a pack that can be reused, if it has at most `most_raw` bytes: no backup needs such a pack. `None` for
/// a pack under a key of an earlier epoch: that key may have been rotated because others know it.
async fn readable_index(
    repository: &Repository,
    name: &str,
    size_bytes: u64,
    most_raw: u32,
) -> Result<Option<PackIndex>, Error> {
    if repository.key().is_some_and(|key| key.epoch() > 0) {
        let head = repository.store().get_range(&object_name(name)?, 0..HEAD_FRAME_BYTES as u64).await?;
        if repository.is_of_earlier_epoch(&repository.opener(ObjectType::Pack, name, &head)?) {
            return Ok(None);
        }
    }
    let index = repository.pack_index_at_most(name, size_bytes, most_raw).await?;
    if !repository.compares_checksums() {
        killed_pack::check(repository, name, &index).await?;
    }
    Ok(Some(index))
}

/// The chunks that killed runs have stored in one repository.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    packs: Vec<(BackupId, PackEntry)>,
    /// Sorted by hash. [`Extent::pack`] is an index into `packs`.
    chunks: Vec<Extent>,
}

impl Earlier {
    /// Reads the indexes of the packs of these runs. An unreadable pack is ignored.
    async fn read(
        repository: &Repository,
        cluster: &ClusterName,
        adopted: &BTreeSet<BackupId>,
        memory_bytes: u64,
    ) -> Self {
        let mut earlier = Self::default();
        let most = usize::try_from(memory_bytes).unwrap_or(usize::MAX) / size_of::<Extent>();
        let most_raw = u32::try_from(memory_bytes).unwrap_or(u32::MAX);
        let mut failures = 0;
        for backup in adopted.iter().rev() {
            let listed = match repository.store().list(&name::packs_folder(cluster, backup), None).await {
                Ok(listed) => listed,
                Err(error) => {
                    tracing::warn!(%backup, %error, "the packs of this unfinished backup are not used");
                    continue;
                }
            };
            let at_once = if repository.compares_checksums() { PACKS_AT_ONCE } else { WHOLE_PACKS_AT_ONCE };
            // Not in their order: an index that has been read would wait in memory for all those before it.
            let mut read = futures::stream::iter(listed)
                .map(|object| async move {
                    let index = readable_index(repository, object.name.as_ref(), object.size_bytes, most_raw).await;
                    (PackEntry::new(object.name.to_string(), object.size_bytes), index)
                })
                .buffer_unordered(at_once);
            while let Some((pack, index)) = read.next().await {
                if earlier.chunks.len() >= most || failures >= MOST_FAILURES {
                    break;
                }
                match index {
                    Ok(index) => {
                        failures = 0;
                        if let Some(index) = index {
                            earlier.add(*backup, pack, &index);
                        }
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

    /// The place of these bytes, if a killed run has stored them.
    pub(super) fn find(&self, hash: ChunkHash, length: u32) -> Option<Extent> {
        let at = self.chunks.binary_search_by_key(hash.as_bytes(), |chunk| *chunk.hash.as_bytes()).ok()?;
        self.chunks.get(at).copied().filter(|chunk| chunk.length == length)
    }

    /// The pack of a place from [`Self::find`], and the backup for which it was stored.
    pub(super) fn pack(&self, place: &Extent) -> Option<(BackupId, &PackEntry)> {
        self.packs.get(place.pack as usize).map(|(backup, pack)| (*backup, pack))
    }

    /// The number of readable packs.
    pub(super) fn pack_count(&self) -> usize {
        self.packs.len()
    }
}

/// Data of killed runs in all repositories. A chunk is compressed once for all of them, so it is reused only if every
/// repository that takes part has it.
#[derive(Debug)]
pub(super) struct Everywhere {
    /// The data in each repository, in their order; `None` for a repository that is left out.
    lanes: Vec<Option<Arc<Earlier>>>,
}

impl Everywhere {
    /// `None` if there is no data that all repositories have.
    pub(super) fn new(lanes: Vec<Option<Arc<Earlier>>>) -> Option<Arc<Self>> {
        let any = lanes.iter().any(Option::is_some) && lanes.iter().flatten().all(|lane| !lane.chunks.is_empty());
        any.then(|| Arc::new(Self { lanes }))
    }

    /// The data in the repository at this index.
    pub(super) fn lane(&self, index: usize) -> Option<Arc<Earlier>> {
        self.lanes.get(index)?.clone()
    }

    /// Whether all repositories have these bytes.
    pub(super) fn have(&self, hash: ChunkHash, length: usize) -> bool {
        let lanes = || self.lanes.iter().flatten();
        length >= LEAST_BYTES
            && u32::try_from(length).is_ok_and(|length| lanes().all(|lane| lane.find(hash, length).is_some()))
    }

    /// Tells the user which unfinished backups are reused.
    pub(super) fn announce(&self, progress: &dyn Progress) {
        let Some(lane) = self.lanes.iter().flatten().next() else { return };
        let backups: BTreeSet<String> = lane.packs.iter().map(|(backup, _)| backup.to_string()).collect();
        progress.note(&format!(
            "continuing from backup {}, which was not finished: it has {} packs with {} MiB",
            backups.into_iter().collect::<Vec<_>>().join(" and "),
            lane.packs.len(),
            lane.packs.iter().map(|(_, pack)| pack.size_bytes).sum::<u64>() >> 20
        ));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use holdfast_repo::pack::{PackChunk, PackWriter};
    use holdfast_repo::{Compressor, FrameKind};
    use holdfast_store::{MemoryStore, PutMode};

    use super::*;
    use crate::repository::confirm::not_compared;
    use crate::repository::{RepositoryTarget, Unlock, init};

    const BACKUP: &str = "20261122T100000Z";

    async fn repository() -> Repository {
        let target = RepositoryTarget { store: Arc::new(MemoryStore::new()), unlock: Unlock::NotEncrypted };
        init::init(&target, "2026-11-22T09:00:00Z".parse().unwrap()).await.unwrap().repository
    }

    /// Stores a pack of a killed run, with one chunk for this path. The byte at `damaged` is changed.
    async fn put_pack(repository: &Repository, number: u32, path: Vec<u8>, damaged: Option<usize>) {
        let name = name::pack(&"main".parse().unwrap(), &BACKUP.parse().unwrap(), number);
        let (mut writer, head) = PackWriter::new(&name, repository.id(), repository.key()).unwrap();
        // These bytes do not compress, so the frame is as long as they are.
        let content: Vec<u8> = (0..5000_u64).flat_map(|at| *blake3::hash(&at.to_le_bytes()).as_bytes()).collect();
        let frame = Compressor::new("none".parse().unwrap()).unwrap().compress(FrameKind::Data, &content).unwrap();
        let chunk =
            PackChunk { offset: 0, length: content.len() as u32, hash: ChunkHash::of(&content), path, extent: 0 };
        let (_, frame) = writer.append(frame, &[chunk]).unwrap();
        let (end, _) = writer.finish().unwrap();
        let mut object = [&head[..], &frame, &end].concat();
        if let Some(at) = damaged {
            object[at] ^= 1;
        }
        repository.store().put(&object_name(&name).unwrap(), object.into(), PutMode::Create).await.unwrap();
    }

    /// How many packs are reused, with this memory.
    async fn reused(repository: &Repository, memory_bytes: u64) -> usize {
        let adopted = BTreeSet::from([BACKUP.parse().unwrap()]);
        Earlier::read(repository, &"main".parse().unwrap(), &adopted, memory_bytes).await.pack_count()
    }

    /// After a rotation because of a leak, the next backup must not name data under the leaked key.
    #[tokio::test]
    async fn packs_of_an_earlier_key_epoch_are_not_reused() {
        let target = RepositoryTarget {
            store: Arc::new(MemoryStore::new()),
            unlock: Unlock::KeyFile(holdfast_secret::Secret::new(vec![7; 32])),
        };
        let kept = init::init(&target, "2026-11-22T09:00:00Z".parse().unwrap()).await.unwrap().repository;
        put_pack(&kept, 1, b"base/5/16384".to_vec(), None).await;
        assert_eq!(reused(&kept, 1 << 20).await, 1);
        let rotated = kept.with_key(&kept.key().unwrap().next_epoch().unwrap());
        put_pack(&rotated, 2, b"base/5/16384".to_vec(), None).await;
        assert_eq!(reused(&rotated, 1 << 20).await, 1);
    }

    /// A run may have died before it confirmed a pack, and nothing says which packs it had confirmed.
    #[tokio::test]
    async fn a_killed_runs_pack_is_read_where_checksums_are_not_compared() {
        let kept = repository().await;
        let path = || b"base/5/16384".to_vec();
        put_pack(&kept, 1, path(), None).await;
        put_pack(&kept, 2, path(), Some(100_000)).await;
        assert_eq!(reused(&not_compared(&kept), 1 << 20).await, 1);
        // This store would have refused a changed pack, so only the index is read.
        assert_eq!(reused(&kept, 1 << 20).await, 2);
    }

    /// Anyone who may write to the store can put packs there whose indexes have 64 MiB.
    #[tokio::test]
    async fn a_planted_index_that_needs_more_than_the_memory_is_not_read() {
        let repository = repository().await;
        put_pack(&repository, 1, b"base/5/16384".to_vec(), None).await;
        for number in 2..=4 {
            put_pack(&repository, number, vec![b'x'; 3 << 20], None).await;
        }
        assert_eq!(reused(&repository, 2 << 20).await, 1);
        assert_eq!(reused(&repository, 16 << 20).await, 4);
    }
}
