//! Checks whether a stored pack has what a manifest of the other repository needs.
//!
//! The indexes of both packs are compared: they must have the same frames with the same chunks, by their BLAKE3. If a
//! manifest of this repository vouches for the pack, with its size and checksum, that is enough: whether the disk still
//! holds those bytes is checked by `verify --deep`. Otherwise the whole pack is read, for example if a killed run left
//! it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_repo::FrameBuffers;
use holdfast_repo::frame::{HEAD_FRAME_BYTES, ObjectOpener, ObjectType};
use holdfast_repo::manifest::{Manifest, PackEntry, PackIdentity};
use holdfast_repo::pack::{FrameShift, PackIndex};

use super::pack::{PackWork, Settled};
use super::stream::FrameStream;
use super::{Carrier, of_object};
use crate::error::Error;
use crate::repository::confirm::agrees;
use crate::repository::object_name;
use crate::restore::{FrameWork, open_checked};

impl Carrier {
    /// The pack with this name, if it has the same content as the pack of the first repository with this index.
    pub(super) async fn prove(
        &self,
        manifest: &Arc<Manifest>,
        work: &PackWork,
        index: &PackIndex,
        name: &str,
    ) -> Result<Option<Settled>, Error> {
        let Some(size_bytes) = self.destination.size_of(name) else { return Ok(None) };
        let Some(here) = of_object(self.to.pack_index(name, size_bytes).await)? else { return Ok(None) };
        let (from, to) = (self.from.is_encrypted(), self.to.is_encrypted());
        if !index.has_frames_of(from, &here, to) {
            return Ok(None);
        }
        let shift = FrameShift::of_index(index, from, to);
        let vouched = self.destination.vouched(name);
        // The store may keep a checksum, and say that it has other bytes.
        if let Some(entry) = &vouched
            && of_object(agrees(&self.to, entry).await)?.is_none()
        {
            return Ok(None);
        }
        if let Some(entry) = &vouched
            && are_named(index, &work.frames)
        {
            return Ok(Some(Settled { entry: entry.clone(), shift, is_new: false }));
        }
        // After a key was rotated because others know it, nothing new may depend on that key.
        if vouched.is_none() && of_object(self.is_of_earlier_epoch(name).await)?.unwrap_or(true) {
            return Ok(None);
        }
        let read = self.read_here(manifest, work, &shift, name, size_bytes).await;
        let Some(entry) = of_object(read)?.flatten() else { return Ok(None) };
        if vouched.is_some_and(|vouched| vouched.identity != entry.identity) {
            return Ok(None);
        }
        self.destination.proved(&entry);
        Ok(Some(Settled { entry, shift, is_new: false }))
    }

    /// Whether a pack of the second repository was written under a key of an earlier epoch.
    async fn is_of_earlier_epoch(&self, name: &str) -> Result<bool, Error> {
        if self.to.key().is_none_or(|key| key.epoch() == 0) {
            return Ok(false);
        }
        let head = self.to.store().get_range(&object_name(name)?, 0..HEAD_FRAME_BYTES as u64).await?;
        Ok(self.to.is_of_earlier_epoch(&self.to.opener(ObjectType::Pack, name, &head)?))
    }

    /// Whether a pack of the second repository has the checksum in its manifest entry. Reads the whole pack.
    pub(crate) async fn is_sound(&self, entry: &PackEntry) -> Result<bool, Error> {
        let Some(identity) = entry.identity else { return Ok(false) };
        let read = async {
            let mut stream = FrameStream::new(&self.to, &entry.name, entry.size_bytes)?;
            while stream.next().await?.is_some() {
                self.check_cancelled()?;
            }
            Ok(stream.crc32c())
        };
        Ok(of_object(read.await)? == Some(identity.crc32c))
    }

    /// Reads a whole pack of the second repository; `None` if it lacks a frame.
    async fn read_here(
        &self,
        manifest: &Arc<Manifest>,
        work: &PackWork,
        shift: &FrameShift,
        name: &str,
        size_bytes: u64,
    ) -> Result<Option<PackEntry>, Error> {
        let mut wanted: HashMap<u64, FrameWork> = HashMap::new();
        for frame in &work.frames {
            let Some(place) = shift.place(frame.location) else { return Ok(None) };
            wanted.insert(u64::from(place.offset), frame.clone());
        }
        let mut stream = FrameStream::new(&self.to, name, size_bytes)?;
        let mut opener: Option<Arc<ObjectOpener>> = None;
        while let Some(frames) = stream.next().await? {
            self.check_cancelled()?;
            let mut frames = frames.into_iter();
            let with = match opener.take() {
                Some(opener) => opener,
                None => match frames.next() {
                    Some((_, head)) => Arc::new(self.to.opener(ObjectType::Pack, name, &head)?),
                    None => break,
                },
            };
            let frames: Vec<(Bytes, Option<FrameWork>)> =
                frames.map(|(at, frame)| (frame, wanted.remove(&at))).collect();
            let (manifest, opening) = (Arc::clone(manifest), Arc::clone(&with));
            let job = self.means.crew.run(move || {
                let mut buffers = FrameBuffers::default();
                for (frame, work) in frames {
                    match work {
                        Some(work) => drop(open_checked(&opening, &frame, &work, &manifest, &mut buffers)?),
                        None => drop(opening.open_frame_into(&frame, &mut buffers)?),
                    }
                }
                Ok::<_, Error>(())
            });
            job.await??;
            opener = Some(with);
        }
        let Some(opener) = opener.filter(|_| wanted.is_empty()) else { return Ok(None) };
        let identity = PackIdentity { salt: opener.head().encryption.salt(), crc32c: stream.crc32c() };
        Ok(Some(PackEntry { identity: Some(identity), ..PackEntry::new(name.to_owned(), size_bytes) }))
    }
}

/// Whether the index has every wanted chunk with the wanted hash.
fn are_named(index: &PackIndex, frames: &[FrameWork]) -> bool {
    frames.iter().all(|frame| {
        frame.pieces.iter().all(|piece| {
            let chunk = index.chunk(frame.location, piece.offset, piece.length);
            chunk.is_some_and(|chunk| chunk.hash == piece.hash)
        })
    })
}
