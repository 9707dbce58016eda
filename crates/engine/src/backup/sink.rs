//! Writes a backup into one repository: frames into packs, file entries into the manifest. Both are uploaded while they
//! are being made.
//!
//! Order in the repository: packs appear as they are finished, and the manifest after the last pack ([`Sink::finish`]).
//! If the store does not compare checksums, each pack is fetched and compared before the manifest is finished. The
//! caller reads the manifest back, and writes `backup.json`. Every repository has its own sink, because places in packs
//! differ with encryption. Data is read and compressed once for all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::digest;
use holdfast_repo::manifest::{Extent, Extents, FileEntry, FileKind, ManifestHeader, ManifestWriter, PackEntry, Patch};
use holdfast_repo::name::{self, BackupId, ClusterName, MAX_PACK_NUMBER};
use holdfast_repo::pack::{PackChunk, PackWriter};
use holdfast_repo::record::ManifestEntry;
use holdfast_repo::{ChunkHash, CompressedFrame, FaultClass, FormatError};
use holdfast_store::Uploads;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::CLEAN_WITHIN;
use super::encode::EncodedChunk;
use super::incremental::lane::{Kept, ParentLane, Places, Shared, not_in_parent};
use super::listing::SourceFile;
use super::pack_list::PackList;
use super::resume::Earlier;
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::budget::Permit;
use crate::pipeline::object_upload::ObjectUpload;
use crate::repository::capabilities::capabilities;
use crate::repository::confirm::confirm_pack;
use crate::repository::{Repository, object_name};

/// If packs are sent in one piece: the number of packs that may be on their way while the next one is filled.
const WHOLE_PACKS_ON_THEIR_WAY: usize = 1;

/// The number of packs that are fetched at the same time, if the store does not compare checksums. Each needs one piece
/// in memory.
const CONFIRMED_AT_ONCE: usize = 2;

/// The minimum size of a pack, even if memory is short.
const SMALLEST_PACK_BYTES: u64 = 4 << 20;

/// One repository's part of a running backup.
pub(super) struct Sink {
    repository: Repository,
    cluster: ClusterName,
    backup: BackupId,
    part_size: usize,
    /// The size at which a pack is full, in bytes.
    pack_size: u64,
    /// Whether the store takes objects only in one piece, so that each is in memory until it is stored.
    whole: bool,
    /// The extent size, which is the same in all repositories.
    extent_bytes: u32,
    pack: Option<OpenPack>,
    /// All packs of the manifest.
    packs: PackList,
    /// The number of packs that this backup has made.
    own_packs: u32,
    /// The number of packs that are reused only from killed runs.
    taken_over: u32,
    /// The killed runs whose packs are reused.
    taken_from: BTreeSet<BackupId>,
    /// The parent of an incremental backup, in this repository.
    parent: Option<Kept>,
    /// Data of killed runs in this repository.
    earlier: Option<EarlierHere>,
    finishing: JoinSet<Result<(), Error>>,
    /// Limits the packs that are fetched at the same time to confirm them.
    confirming: Arc<Semaphore>,
    stored_bytes: u64,
    extents: Vec<Extent>,
    patches: Vec<Patch>,
    manifest: ManifestWriter,
    manifest_upload: ObjectUpload,
    manifest_digest: digest::Context,
    stop: CancellationToken,
}

struct OpenPack {
    number: u32,
    writer: PackWriter,
    upload: ObjectUpload,
}

/// Data of killed runs, and the numbers that their packs have in our manifest, as far as they are needed.
struct EarlierHere {
    earlier: Arc<Earlier>,
    numbers: Vec<Option<u32>>,
}

/// What a finished sink has stored.
#[derive(Debug)]
pub(super) struct Stored {
    /// The manifest, as `backup.json` names it.
    pub manifest: ManifestEntry,
    /// The number of own packs and of reused packs of killed runs.
    pub pack_count: u32,
    /// Bytes of these packs and of the manifest.
    pub size_bytes: u64,
    /// The killed runs whose packs the manifest names.
    pub taken_from: BTreeSet<BackupId>,
}

impl Sink {
    pub(super) async fn new(
        repository: Repository,
        cluster: &ClusterName,
        backup: BackupId,
        part_size: usize,
        extent_bytes: u32,
        memory_bytes: u64,
        cancel: &CancellationToken,
    ) -> Result<Self, Error> {
        let manifest_name = name::manifest(cluster, &backup);
        let header = ManifestHeader {
            backup: backup.to_string(),
            cluster: cluster.to_string(),
            extent_bytes,
            details: serde_json::Map::default(),
        };
        let (manifest, head) =
            ManifestWriter::new(&manifest_name, repository.id(), repository.key(), &header).map_err(unwritable)?;
        let whole = capabilities(repository.record()).uploads == Uploads::Whole;
        let pack_size = pack_size(repository.record().pack_size_bytes, whole, memory_bytes);
        let stop = cancel.child_token();
        let store = Arc::clone(repository.store());
        let upload = ObjectUpload::new(store, object_name(&manifest_name)?, part_size).with_stop(stop.clone());
        let mut sink = Self {
            repository,
            cluster: cluster.clone(),
            backup,
            part_size,
            pack_size,
            whole,
            extent_bytes,
            pack: None,
            packs: PackList::default(),
            own_packs: 0,
            taken_over: 0,
            taken_from: BTreeSet::new(),
            parent: None,
            earlier: None,
            finishing: JoinSet::new(),
            confirming: Arc::new(Semaphore::new(CONFIRMED_AT_ONCE)),
            stored_bytes: 0,
            extents: Vec::new(),
            patches: Vec::new(),
            manifest,
            manifest_upload: upload,
            manifest_digest: digest::Context::new(&digest::SHA256),
            stop,
        };
        sink.push_manifest(&head).await?;
        Ok(sink)
    }

    /// Makes it the sink of an incremental backup, with the parent's manifest in this repository.
    pub(super) fn with_parent(self, parent: Option<ParentLane>) -> Self {
        Self { parent: parent.map(Kept::new), ..self }
    }

    /// Makes it reuse what killed runs have stored in this repository.
    pub(super) fn with_earlier(self, earlier: Option<Arc<Earlier>>) -> Self {
        let earlier = earlier.map(|earlier| EarlierHere { numbers: vec![None; earlier.pack_count()], earlier });
        Self { earlier, ..self }
    }

    /// Stores a frame; gives its pack and its place in it. The chunks must be in the order of their files, and the
    /// caller calls [`Self::finish_file`] between the chunks of two files.
    pub(super) async fn frame(
        &mut self,
        frame: CompressedFrame,
        chunks: &[EncodedChunk],
        files: &[SourceFile],
        permit: Permit,
    ) -> Result<(u32, holdfast_repo::FrameLocation), Error> {
        let extent_size = u64::from(self.extent_bytes);
        let in_frame: Vec<PackChunk> = chunks
            .iter()
            .filter_map(|chunk| {
                Some(PackChunk {
                    offset: chunk.offset_in_frame?,
                    length: chunk.piece.length as u32,
                    hash: chunk.hash,
                    path: files.get(chunk.piece.file)?.path.to_vec(),
                    extent: chunk.piece.offset / extent_size,
                })
            })
            .collect();
        let pack_size = self.pack_size;
        let pack = self.open_pack().await?;
        let number = pack.number;
        let (location, bytes) = pack.writer.append(frame, &in_frame).map_err(unwritable)?;
        pack.upload.push(&bytes, Some(permit)).await?;
        if pack.writer.is_full(pack_size) {
            self.close_pack().await?;
        }
        Ok((number, location))
    }

    /// Adds an extent to the current file.
    pub(super) fn extent(&mut self, extent: Extent) {
        self.extents.push(extent);
    }

    /// Adds a patch over the last extent. Patches of the parent that it covers are removed.
    pub(super) fn patch(&mut self, patch: Patch) {
        let new = patch.range();
        let mut at = self.patches.partition_point(|old| old.extent < patch.extent);
        while let Some(old) = self.patches.get(at).map(Patch::range) {
            if new.start <= old.start && old.end <= new.end {
                self.patches.remove(at);
            } else {
                at += 1;
            }
        }
        self.patches.push(patch);
    }

    /// Adds the parent's extent `number` of the file at `position` of the base, with the patches over it.
    pub(super) fn kept_extent(&mut self, position: u32, number: u32) -> Result<(), Error> {
        let parent = self.parent.as_mut().ok_or_else(not_in_parent)?;
        let extent = parent.extent(position, number, &mut self.packs, &mut self.patches)?;
        self.extents.push(extent);
        Ok(())
    }

    /// Writes the entry of a file with the content of the file at `position` of the base, up to its own length.
    pub(super) async fn kept_file(&mut self, file: &SourceFile, position: u32) -> Result<(), Error> {
        let parent = self.parent.as_mut().ok_or_else(not_in_parent)?;
        if parent.note_kept(position, file.size_bytes, file.mode, file.mtime_seconds()) {
            return Ok(());
        }
        let crc32c = parent.crc32c(position, file.size_bytes)?;
        for number in 0..file.size_bytes.div_ceil(u64::from(self.extent_bytes)) {
            self.kept_extent(position, number as u32)?;
        }
        self.finish_file(file, file.size_bytes, crc32c, None).await
    }

    /// Takes over all files that have not changed since the parent: frames of earlier manifests by reference where that
    /// pays, and the other files as entries. After this, only files come that change at every backup.
    pub(super) async fn unchanged_files(&mut self) -> Result<(), Error> {
        if let Some(mut parent) = self.parent.take() {
            let mut places = Places::default();
            let Shared { origins, frames, written } = parent.share(&mut self.packs)?;
            if !origins.is_empty() {
                let listed = self.manifest.list_origins(origins).map_err(unwritable)?;
                self.push_manifest(&listed).await?;
            }
            for (reference, frame) in frames {
                for position in frame.files {
                    let entry = parent.entry(position, &mut self.packs, &mut places)?;
                    self.manifest.note_referred(&entry).map_err(unwritable)?;
                }
                if let Some(full) = self.manifest.refer(reference, frame.raw_bytes).map_err(unwritable)? {
                    self.push_manifest(&full).await?;
                }
            }
            self.end_group().await?;
            for position in written {
                let entry = parent.entry(position, &mut self.packs, &mut places)?;
                if let Some(full) = self.manifest.push(&entry).map_err(unwritable)? {
                    self.push_manifest(&full).await?;
                }
            }
        }
        self.end_group().await
    }

    /// Ends a group of entries, as [`ManifestWriter::end_group`].
    pub(super) async fn end_group(&mut self) -> Result<(), Error> {
        match self.manifest.end_group().map_err(unwritable)? {
            Some(full) => self.push_manifest(&full).await,
            None => Ok(()),
        }
    }

    /// The place of bytes that a killed run has stored.
    pub(super) fn stored_earlier(&mut self, hash: ChunkHash, length: u32) -> Result<Extent, Error> {
        let unknown = || Cause::Internal("a chunk should be in a pack of a killed run and is not".to_owned());
        let EarlierHere { earlier, numbers } = self.earlier.as_mut().ok_or_else(unknown)?;
        let place = earlier.find(hash, length).ok_or_else(unknown)?;
        let number = numbers.get_mut(place.pack as usize).ok_or_else(unknown)?;
        if let Some(number) = *number {
            return Ok(Extent { pack: number, ..place });
        }
        let (backup, pack) = earlier.pack(&place).ok_or_else(unknown)?;
        self.taken_from.insert(backup);
        if self.packs.known(&pack.name).is_none() {
            self.taken_over += 1;
            self.stored_bytes += pack.size_bytes;
        }
        let new = self.packs.number(pack);
        *number = Some(new);
        Ok(Extent { pack: new, ..place })
    }

    /// Drops the extents of the current file, because it was removed meanwhile.
    pub(super) fn drop_file(&mut self) {
        self.extents.clear();
        self.patches.clear();
    }

    /// Writes the entry of the current file. `parent` is its position in the base, if it is there. An entry that is the
    /// parent's to the last place is only noted ([`Self::unchanged_files`]).
    pub(super) async fn finish_file(
        &mut self,
        file: &SourceFile,
        size_bytes: u64,
        crc32c: Option<u32>,
        parent: Option<u32>,
    ) -> Result<(), Error> {
        let (extents, patches) = (std::mem::take(&mut self.extents), std::mem::take(&mut self.patches));
        let entry = FileEntry {
            path: &file.path,
            kind: FileKind::File { crc32c, extents: Extents::of(&extents), patches: &patches },
            mode: file.mode,
            size_bytes,
            mtime_seconds: file.mtime_seconds(),
        };
        let in_parent = parent.and_then(|position| Some((position, self.parent.as_mut()?)));
        if !in_parent.is_some_and(|(position, parent)| parent.note_same(position, &entry)) {
            self.entry(&entry).await?;
        }
        (self.extents, self.patches) = (extents, patches);
        self.drop_file();
        Ok(())
    }

    /// Writes any other entry.
    pub(super) async fn entry(&mut self, entry: &FileEntry<'_>) -> Result<(), Error> {
        if let Some(frame) = self.manifest.push(entry).map_err(unwritable)? {
            self.push_manifest(&frame).await?;
        }
        Ok(())
    }

    /// Closes the last pack, waits for all packs, then finishes the manifest. After a failure, all uploads are aborted.
    pub(super) async fn finish(mut self) -> Result<Stored, Error> {
        if let Err(error) = self.finish_packs().await {
            self.abort().await;
            return Err(error);
        }
        let Self {
            manifest,
            mut manifest_upload,
            mut manifest_digest,
            packs,
            own_packs,
            taken_over,
            taken_from,
            stored_bytes,
            ..
        } = self;
        let packs = packs.into_packs();
        let end = manifest.finish(&packs).map_err(unwritable)?;
        manifest_digest.update(&end);
        manifest_upload.push(&end, None).await?;
        let size_bytes = manifest_upload.finish().await.doing(|| "storing the manifest".to_owned())?;
        let folder = name::packs_folder(&self.cluster, &self.backup);
        let own = packs.into_iter().filter(|pack| pack.name.starts_with(&folder)).collect::<Vec<_>>();
        look_at(&self.repository, &folder, &own).await?;
        let manifest = PackEntry::new(name::manifest(&self.cluster, &self.backup), size_bytes);
        look_at(&self.repository, &manifest.name, std::slice::from_ref(&manifest)).await?;
        Ok(Stored {
            manifest: ManifestEntry {
                name: name::manifest(&self.cluster, &self.backup),
                size_bytes,
                sha256: hex::encode(manifest_digest.finish()),
            },
            pack_count: own_packs + taken_over,
            size_bytes: stored_bytes + size_bytes,
            taken_from,
        })
    }

    async fn finish_packs(&mut self) -> Result<(), Error> {
        if self.pack.is_some() {
            self.close_pack().await?;
        }
        self.reap(true).await
    }

    /// Aborts all uploads, as far as that is possible within [`CLEAN_WITHIN`].
    pub(super) async fn abort(self) {
        let backup = self.backup;
        if tokio::time::timeout(CLEAN_WITHIN, self.abort_uploads()).await.is_err() {
            tracing::debug!(%backup, "unfinished uploads could not be removed in time");
        }
    }

    async fn abort_uploads(mut self) {
        // The tasks that finish packs end by the token. If they were dropped, their uploads would stay unfinished.
        self.stop.cancel();
        while self.finishing.join_next().await.is_some() {}
        if let Some(pack) = self.pack.take() {
            pack.upload.abort().await;
        }
        self.manifest_upload.abort().await;
    }

    async fn open_pack(&mut self) -> Result<&mut OpenPack, Error> {
        if self.pack.is_none() {
            let own_number = self.own_packs + 1;
            if own_number > MAX_PACK_NUMBER {
                let store = self.repository.describe();
                return Err(Cause::TooManyPacks { store, most: MAX_PACK_NUMBER }.into());
            }
            let pack_name = name::pack(&self.cluster, &self.backup, own_number);
            let (writer, head) =
                PackWriter::new(&pack_name, self.repository.id(), self.repository.key()).map_err(unwritable)?;
            let store = Arc::clone(self.repository.store());
            let upload = ObjectUpload::new(store, object_name(&pack_name)?, self.part_size);
            let mut upload = upload.with_stop(self.stop.clone());
            upload.push(&head, None).await?;
            let number = self.packs.begin();
            self.own_packs = own_number;
            self.pack = Some(OpenPack { number, writer, upload });
        }
        self.pack.as_mut().ok_or_else(|| Cause::Internal("no pack is open".to_owned()).into())
    }

    async fn close_pack(&mut self) -> Result<(), Error> {
        let Some(OpenPack { number, writer, mut upload }) = self.pack.take() else { return Ok(()) };
        let (end, entry) = writer.finish().map_err(unwritable)?;
        upload.push(&end, None).await?;
        debug_assert_eq!(entry.size_bytes, upload.size_bytes());
        self.packs.set(number, entry.clone());
        self.stored_bytes += upload.size_bytes();
        // The next pack does not have to wait for the last parts of this one.
        let (repository, confirming, stop) = (self.repository.clone(), Arc::clone(&self.confirming), self.stop.clone());
        self.finishing.spawn(async move {
            upload.finish().await?;
            if repository.compares_checksums() {
                return Ok(());
            }
            let confirmed = async {
                let _one_of_few = confirming.acquire().await;
                confirm_pack(&repository, &entry).await
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => Err(Cause::Cancelled.into()),
                confirmed = confirmed => confirmed,
            }
        });
        while self.whole && self.finishing.len() > WHOLE_PACKS_ON_THEIR_WAY {
            self.reap_one().await?;
        }
        self.reap(false).await
    }

    async fn reap_one(&mut self) -> Result<(), Error> {
        match self.finishing.join_next().await {
            None => Ok(()),
            Some(done) => done.map_err(|e| Cause::Internal(format!("an upload task failed: {e}")))?,
        }
    }

    /// Collects finished packs, so that a failed pack ends the backup soon.
    async fn reap(&mut self, all: bool) -> Result<(), Error> {
        loop {
            let next = if all { self.finishing.join_next().await } else { self.finishing.try_join_next() };
            match next {
                None => return Ok(()),
                Some(done) => {
                    done.map_err(|e| Cause::Internal(format!("an upload task failed: {e}")))??;
                }
            }
        }
    }

    async fn push_manifest(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.manifest_digest.update(bytes);
        self.manifest_upload.push(bytes, None).await
    }
}

/// The error for data that our format cannot hold. It is not an error of one repository: no repository could hold the
/// data.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn unwritable(error: FormatError) -> Error {
    let text = error.to_string();
    match error.class() {
        FaultClass::Limit => Cause::Refused(text).into(),
        _ => Cause::Internal(text).into(),
    }
}

/// The size at which a pack is full: as recorded in the repository. If objects are sent in one piece, the pack that is
/// being filled and the packs on their way (each twice while it is sent) should fit into the backup's memory.
fn pack_size(recorded: u64, whole: bool, memory_bytes: u64) -> u64 {
    let held = 1 + 2 * (WHOLE_PACKS_ON_THEIR_WAY as u64 + 1);
    if whole { recorded.min((memory_bytes / held).max(SMALLEST_PACK_BYTES)) } else { recorded }
}

/// Compares what the store lists with what was sent. A successful upload alone is not enough to call a backup complete.
async fn look_at(repository: &Repository, prefix: &str, sent: &[PackEntry]) -> Result<(), Error> {
    let listed =
        repository.store().list(prefix, None).await.doing(|| format!("checking the stored objects {prefix}"))?;
    let found: BTreeMap<&str, u64> = listed.iter().map(|object| (object.name.as_ref(), object.size_bytes)).collect();
    for object in sent {
        let reason = match found.get(object.name.as_str()) {
            Some(size) if *size == object.size_bytes => continue,
            Some(size) => format!("{size} bytes are listed, but {} were sent", object.size_bytes),
            None => "it is not listed".to_owned(),
        };
        return Err(Cause::NotReadable { store: repository.describe(), name: object.name.clone(), reason }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
