//! Carries one pack.
//!
//! Each frame is opened, and the chunks that the manifest needs from it are hashed with the check of a restore. Then
//! the frame is sealed under the key of the other repository. With the salt of a lost pack, the result has exactly the
//! bytes of that pack. [`Carrier::bring_back`] reads the pack once to compare the checksum with that of the lost pack,
//! and stores the result only in a second reading.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use holdfast_repo::frame::ObjectType;
use holdfast_repo::manifest::{Manifest, PackEntry};
use holdfast_repo::name::{self, BackupId, MAX_PACK_NUMBER, ObjectPath};
use holdfast_repo::pack::{FrameShift, PackCarrier};
use holdfast_repo::{ChunkHash, Fault};

use super::stream::{FrameStream, Placed};
use super::{Carrier, Placing};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::object_upload::ObjectUpload;
use crate::repository::confirm::confirm_pack;
use crate::repository::object_name;
use crate::restore::{FrameWork, open_checked, with_buffers};

/// A pack of the first repository, and the frames that a manifest needs from it.
#[derive(Debug, Clone)]
pub(crate) struct PackWork {
    pub(crate) entry: PackEntry,
    pub(crate) frames: Vec<FrameWork>,
}

/// The frames that a pack becomes, by their hashes.
enum Frames {
    /// Each pack has a new salt, so nothing is compared.
    Unchecked,
    /// Of a first reading.
    Kept(Vec<ChunkHash>),
    /// What a second reading must give.
    Expected(std::vec::IntoIter<ChunkHash>),
}

impl Frames {
    fn expected(self) -> Self {
        match self {
            Self::Kept(frames) => Self::Expected(frames.into_iter()),
            other => other,
        }
    }

    /// Whether the frame may be sent.
    fn accept(&mut self, frame: &[u8]) -> bool {
        match self {
            Self::Unchecked => true,
            Self::Kept(frames) => {
                frames.push(ChunkHash::of(frame));
                true
            }
            Self::Expected(frames) => frames.next() == Some(ChunkHash::of(frame)),
        }
    }
}

/// A pack that is in the second repository.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    pub(crate) entry: PackEntry,
    pub(crate) shift: FrameShift,
    /// Whether this run stored it.
    pub(crate) is_new: bool,
}

impl Carrier {
    /// Makes sure that the second repository has what the manifest needs from a pack. The pack keeps its name. If
    /// another pack has this name, or if the name is in the folder of an unfinished backup, it gets a free number of
    /// `backup`.
    ///
    /// # Errors
    /// What is wrong with the pack, [`Cause::TooManyPacks`] if no number is free, and errors of the stores.
    pub(super) async fn settle(
        &self,
        manifest: &Arc<Manifest>,
        work: &PackWork,
        backup: BackupId,
    ) -> Result<Settled, Error> {
        let own = work.entry.name.clone();
        let stays = self.destination.stays(&own, backup);
        if stays && self.destination.reserve(&own) {
            return self.create(manifest, work, &own).await;
        }
        let index = self.from.pack_index(&own, work.entry.size_bytes).await?;
        if stays && let Some(settled) = self.prove(manifest, work, &index, &own).await? {
            self.means.progress.advance(work.entry.size_bytes);
            return Ok(settled);
        }
        let named: BTreeSet<u32> = manifest
            .packs()
            .iter()
            .filter_map(|pack| match pack.name.parse() {
                Ok(ObjectPath::Pack { backup: of, number, .. }) if of == backup => Some(number),
                _ => None,
            })
            .collect();
        let first = named.last().map_or(1, |last| last + 1);
        for number in first..=MAX_PACK_NUMBER {
            let free = name::pack(self.cluster(), &backup, number);
            if self.destination.reserve(&free) {
                return self.create(manifest, work, &free).await;
            }
            // A killed run may have stored the pack under this name.
            if let Some(settled) = self.prove(manifest, work, &index, &free).await? {
                self.means.progress.advance(work.entry.size_bytes);
                return Ok(settled);
            }
        }
        Err(Cause::TooManyPacks { store: self.to.describe(), most: MAX_PACK_NUMBER }.into())
    }

    /// Stores a pack under a reserved name.
    async fn create(&self, manifest: &Arc<Manifest>, work: &PackWork, name: &str) -> Result<Settled, Error> {
        let upload = self.upload(name, Placing::Create)?;
        match self.carry(manifest, work, name, None, &mut Frames::Unchecked, Some(upload)).await {
            Ok((entry, shift)) => {
                confirm_pack(&self.to, &entry).await?;
                self.destination.stored(&entry);
                Ok(Settled { entry, shift, is_new: true })
            }
            Err(error) => {
                self.destination.give_up(name);
                Err(error)
            }
        }
    }

    /// Brings back a missing or damaged pack of the second repository, with exactly the same bytes. `lost` is its entry
    /// in the manifest. Returns `false` if the pack of the first repository does not give these bytes. Then nothing was
    /// changed.
    ///
    /// # Errors
    /// What is wrong with the pack in the first repository, and errors of the stores.
    pub(crate) async fn bring_back(
        &self,
        manifest: &Arc<Manifest>,
        work: &PackWork,
        lost: &PackEntry,
        placing: Placing,
    ) -> Result<bool, Error> {
        let Some(identity) = lost.identity else { return Ok(false) };
        let salt = Some(identity.salt);
        let is_same = |entry: &PackEntry| {
            (entry.size_bytes, entry.identity) == (lost.size_bytes, Some(identity)) && entry.name == lost.name
        };
        let mut frames = Frames::Kept(Vec::new());
        let (entry, _) = self.carry(manifest, work, &lost.name, salt, &mut frames, None).await?;
        if !is_same(&entry) {
            return Ok(false);
        }
        // The second reading must give the very same frames: other content under this salt would use a nonce twice.
        let mut frames = frames.expected();
        let upload = self.upload(&lost.name, placing)?;
        let (entry, _) = self.carry(manifest, work, &lost.name, salt, &mut frames, Some(upload)).await?;
        confirm_pack(&self.to, &entry).await?;
        self.destination.stored(&entry);
        Ok(true)
    }

    fn upload(&self, name: &str, placing: Placing) -> Result<ObjectUpload, Error> {
        let store = Arc::clone(self.to.store());
        let upload = ObjectUpload::new(store, object_name(name)?, self.means.part_size_bytes);
        Ok(upload.with_mode(placing.into()).with_stop(self.means.cancel.child_token()))
    }

    /// Begins the upload of a manifest.
    pub(super) fn manifest_upload(&self, name: &str, placing: Placing) -> Result<ObjectUpload, Error> {
        self.upload(name, placing)
    }

    /// Reads a whole pack and seals it again. Sends the result if there is an upload.
    async fn carry(
        &self,
        manifest: &Arc<Manifest>,
        work: &PackWork,
        name: &str,
        salt: Option<[u8; 32]>,
        sealed: &mut Frames,
        mut upload: Option<ObjectUpload>,
    ) -> Result<(PackEntry, FrameShift), Error> {
        let carried = self.carry_frames(manifest, work, name, salt, sealed, &mut upload).await;
        match (carried, upload) {
            (Ok(carried), None) => Ok(carried),
            (Ok(carried), Some(upload)) => upload.finish().await.map(|_| carried),
            (Err(error), None) => Err(error),
            (Err(error), Some(upload)) => {
                upload.abort().await;
                Err(error)
            }
        }
        .doing(|| format!("carrying {} from {}", work.entry.name, self.from.describe()))
    }

    async fn carry_frames(
        &self,
        manifest: &Arc<Manifest>,
        work: &PackWork,
        name: &str,
        salt: Option<[u8; 32]>,
        known: &mut Frames,
        upload: &mut Option<ObjectUpload>,
    ) -> Result<(PackEntry, FrameShift), Error> {
        let entry = &work.entry;
        let mut wanted: HashMap<u64, FrameWork> =
            work.frames.iter().map(|frame| (u64::from(frame.location.offset), frame.clone())).collect();
        let mut stream = FrameStream::new(&self.from, &entry.name, entry.size_bytes)?;
        let mut pack: Option<PackCarrier> = None;
        while let Some(frames) = stream.next().await? {
            self.check_cancelled()?;
            let bytes: u64 = frames.iter().map(|(_, frame)| frame.len() as u64).sum();
            let mut frames = frames.into_iter();
            let at_work = if let Some(pack) = pack.take() {
                pack
            } else {
                let Some((_, head)) = frames.next() else { break };
                let (pack, new_head) = self.begin(entry, &head, name, salt)?;
                send(upload, &new_head).await?;
                pack
            };
            let frames: Vec<(Bytes, Option<FrameWork>)> =
                frames.map(|(at, frame): Placed| (frame, wanted.remove(&at))).collect();
            let manifest = Arc::clone(manifest);
            let job = self.means.crew.run(move || {
                let (mut pack, mut sealed) = (at_work, Vec::with_capacity(frames.len()));
                for (frame, work) in frames {
                    if let Some(work) = work {
                        with_buffers(|buffers| {
                            open_checked(pack.opener(), &frame, &work, &manifest, buffers).map(drop)
                        })?;
                    }
                    sealed.push(pack.carry(&frame)?);
                }
                Ok::<_, Error>((pack, sealed))
            });
            let (carried, sealed) = job.await??;
            for frame in &sealed {
                if !known.accept(frame) {
                    let (store, name) = (self.from.describe(), entry.name.clone());
                    let reason = "its second reading gave other bytes than the first".to_owned();
                    return Err(Cause::NotReadable { store, name, reason }.into());
                }
                send(upload, frame).await?;
            }
            pack = Some(carried);
            self.means.progress.advance(bytes);
        }
        let found = stream.crc32c();
        if let Some(expected) = entry.identity.map(|identity| identity.crc32c).filter(|expected| *expected != found) {
            let reason = format!("its CRC-32C is {found:08x}, the manifest says {expected:08x}");
            return Err(Cause::NotReadable { store: self.from.describe(), name: entry.name.clone(), reason }.into());
        }
        if let Some(frame) = wanted.into_values().next() {
            let problem = format!("the manifest names a frame at {}, and none begins there", frame.location.offset);
            return Err(Fault::Malformed { what: "pack", problem }.of(&entry.name).into());
        }
        let pack = pack.ok_or_else(|| Fault::Truncated { needed: 1, available: 0 }.of(&entry.name))?;
        Ok(pack.finish()?)
    }

    fn begin(
        &self,
        entry: &PackEntry,
        head: &[u8],
        name: &str,
        salt: Option<[u8; 32]>,
    ) -> Result<(PackCarrier, Bytes), Error> {
        let opener = self.from.opener(ObjectType::Pack, &entry.name, head)?;
        if entry.identity.is_some_and(|identity| identity.salt != opener.head().encryption.salt()) {
            let problem = "another salt than the manifest says".to_owned();
            return Err(Fault::Malformed { what: "head frame", problem }.of(&entry.name).into());
        }
        Ok(PackCarrier::new(opener, name, self.to.id(), self.to.key(), salt)?)
    }
}

async fn send(upload: &mut Option<ObjectUpload>, bytes: &[u8]) -> Result<(), Error> {
    match upload {
        Some(upload) => upload.push(bytes, None).await,
        None => Ok(()),
    }
}
