//! Reads from packs: one opener for each pack, ranged requests, single files into memory.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_repo::frame::{FrameLocation, HEAD_FRAME_BYTES, ObjectOpener, ObjectType};
use holdfast_repo::manifest::{FileEntry, FileKind, Manifest, PackEntry};
use holdfast_repo::{ChunkHash, Fault};
use tokio::sync::OnceCell;

use crate::error::{Cause, Error, ResultExt};
use crate::repository::{Repository, object_name};

/// The most bytes of a file that is held in memory (`backup_label`, `postgresql.auto.conf`, `pg_control`): real ones
/// are far smaller.
const MAX_HELD_BYTES: u64 = 16 << 20;

/// The packs of a manifest.
#[derive(Debug)]
pub(crate) struct Packs {
    repository: Repository,
    manifest: Arc<Manifest>,
    openers: Vec<OnceCell<Arc<ObjectOpener>>>,
}

impl Packs {
    /// Makes the reader; reads nothing yet.
    pub(crate) fn new(repository: Repository, manifest: Arc<Manifest>) -> Self {
        let openers = manifest.packs().iter().map(|_| OnceCell::new()).collect();
        Self { repository, manifest, openers }
    }

    /// The manifest's entry of a pack.
    pub(crate) fn entry(&self, pack: u32) -> Result<&PackEntry, Error> {
        self.manifest
            .packs()
            .get(pack as usize)
            .ok_or_else(|| Cause::Internal(format!("pack number {pack} is not in the manifest")).into())
    }

    /// The opener for the frames of a pack. The manifest usually has the salt of the pack; if not, the head of the pack
    /// is read once.
    pub(crate) async fn opener(&self, pack: u32) -> Result<Arc<ObjectOpener>, Error> {
        let entry = self.entry(pack)?;
        let cell = self
            .openers
            .get(pack as usize)
            .ok_or_else(|| Cause::Internal(format!("pack number {pack} is not in the manifest")))?;
        let read = || async {
            if let Some(identity) = &entry.identity {
                return self.repository.opener_by_salt(ObjectType::Pack, &entry.name, &identity.salt).map(Arc::new);
            }
            let head = self.bytes(pack, 0..HEAD_FRAME_BYTES as u64).await?;
            self.repository.opener(ObjectType::Pack, &entry.name, &head).map(Arc::new)
        };
        cell.get_or_try_init(read).await.cloned()
    }

    /// Reads bytes of a pack. A shorter or longer answer of the store is an error.
    pub(crate) async fn bytes(&self, pack: u32, range: std::ops::Range<u64>) -> Result<Bytes, Error> {
        let name = object_name(&self.entry(pack)?.name)?;
        let reading = || format!("reading bytes {} to {} of {name}", range.start, range.end);
        let bytes = self.repository.store().get_range(&name, range.clone()).await.doing(reading)?;
        if bytes.len() as u64 == range.end - range.start {
            return Ok(bytes);
        }
        let truncated = Fault::Truncated { needed: range.end - range.start, available: bytes.len() as u64 };
        Err(truncated.of(name.to_string())).doing(reading)
    }

    /// A small file in memory, checked against its hashes and its CRC-32C.
    pub(crate) async fn file(&self, entry: &FileEntry<'_>) -> Result<Vec<u8>, Error> {
        let path = String::from_utf8_lossy(entry.path).into_owned();
        self.file_inner(entry, &path).await.doing(|| format!("reading {path} of the backup"))
    }

    async fn file_inner(&self, entry: &FileEntry<'_>, path: &str) -> Result<Vec<u8>, Error> {
        let FileKind::File { crc32c, .. } = entry.kind else {
            return Err(Cause::Malformed {
                name: format!("the manifest of backup {}", self.manifest.header().backup),
                reason: format!("{path} is not a file"),
            }
            .into());
        };
        if entry.size_bytes > MAX_HELD_BYTES {
            return Err(Cause::Refused(format!(
                "{path} of the backup has {} bytes, more than the {MAX_HELD_BYTES} that it can have",
                entry.size_bytes
            ))
            .into());
        }
        let mut content = vec![0; entry.size_bytes as usize];
        let extent_bytes = self.manifest.header().extent_bytes;
        // In this order, so that a patch is written over the extent that it covers.
        for source in (0..entry.source_count()).filter_map(|number| entry.source(number, extent_bytes)) {
            let (extent, start) = (source.place, source.file_offset as usize);
            let within = content.get_mut(start..start + extent.length as usize);
            let Some(within) = within else {
                return Err(
                    Cause::Malformed { name: path.to_owned(), reason: "its parts do not fit".to_owned() }.into()
                );
            };
            if extent.is_hole() {
                within.fill(0);
                continue;
            }
            let opener = self.opener(extent.pack).await?;
            let location: FrameLocation = extent.frame();
            let frame = opener.open_frame(&self.bytes(extent.pack, location.range()).await?)?;
            let piece = piece(&frame.raw, extent.offset, extent.length, extent.hash)
                .map_err(|fault| fault.of(opener.name()))?;
            within.copy_from_slice(piece);
        }
        if crc32c.is_some_and(|expected| crc32c::crc32c(&content) != expected) {
            return Err(Cause::Malformed {
                name: path.to_owned(),
                reason: "its CRC-32C is not the one in the manifest".to_owned(),
            }
            .into());
        }
        Ok(content)
    }
}

/// A chunk in the raw bytes of a frame, checked against its hash.
pub(super) fn piece(raw: &[u8], offset: u32, length: u32, hash: ChunkHash) -> Result<&[u8], Fault> {
    let start = offset as usize;
    let end = start.saturating_add(length as usize);
    let piece = raw.get(start..end).ok_or(Fault::RawLength { expected: end as u64, found: raw.len() as u64 })?;
    hash.verify(piece)?;
    Ok(piece)
}
