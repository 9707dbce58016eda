//! Reads only the end of an object: the index of a pack, the packs that a manifest names, or the facts of a WAL file.
//! The manifest of a 10 TB backup has hundreds of megabytes; its end has a few.
//!
//! Two parts are fetched at the same time: the head, without which no frame can be opened, and an end of the usual
//! size. If the wanted part begins before that end, the whole part is fetched once.
//!
//! Anyone who may write to the store can put an object there whose last part has 64 MiB. Many of them may be asked for
//! at the same time, so all parts that are larger than usual share one budget of the repository.

use holdfast_repo::frame::{HEAD_FRAME_BYTES, TailPart};
use holdfast_repo::manifest::ManifestEnd;
use holdfast_repo::pack::PackIndex;
use holdfast_repo::wal_object::{WalObjectFacts, facts_from_end};
use holdfast_repo::{Fault, FormatError, ObjectOpener, ObjectType};

use super::{Repository, object_name};
use crate::error::{Error, ResultExt};

/// The size of a usual pack's index, in bytes.
const INDEX_BYTES: u64 = 64 << 10;

/// The size of the lists of some thousand packs, in bytes.
const MANIFEST_END_BYTES: u64 = 256 << 10;

/// The size of the facts of nearly every segment, in bytes.
const FACTS_BYTES: u64 = 4096;

impl Repository {
    /// Reads the index of a pack of this size in bytes.
    pub(crate) async fn pack_index(&self, name: &str, size_bytes: u64) -> Result<PackIndex, Error> {
        let index = self.last_part(ObjectType::Pack, name, Some(size_bytes), INDEX_BYTES, PackIndex::from_end).await;
        index.doing(|| format!("reading the index of {name}"))
    }

    /// The same, but an index of more than `most_raw` bytes is an error.
    pub(crate) async fn pack_index_at_most(
        &self,
        name: &str,
        size_bytes: u64,
        most_raw: u32,
    ) -> Result<PackIndex, Error> {
        let find = |opener: &ObjectOpener, end: &[u8], size| PackIndex::from_end_at_most(opener, end, size, most_raw);
        let index = self.last_part(ObjectType::Pack, name, Some(size_bytes), INDEX_BYTES, find).await;
        index.doing(|| format!("reading the index of {name}"))
    }

    /// Reads the end of a manifest.
    pub(crate) async fn manifest_end(&self, name: &str) -> Result<ManifestEnd, Error> {
        let read = async {
            let size_bytes = self.store().head(&object_name(name)?).await?.size_bytes;
            let find = ManifestEnd::from_end;
            self.last_part(ObjectType::Manifest, name, Some(size_bytes), MANIFEST_END_BYTES, find).await
        };
        read.await.doing(|| format!("reading the end of {name}"))
    }

    /// Reads the facts that the archiver stored about a WAL file.
    pub(crate) async fn wal_facts(&self, name: &str) -> Result<WalObjectFacts, Error> {
        let facts = self.last_part(ObjectType::Wal, name, None, FACTS_BYTES, facts_from_end).await;
        facts.doing(|| format!("reading the facts of {name} in {}", self.describe()))
    }

    /// Reads the last part of an object. The last `usual_bytes` of the object are fetched first. `find` finds the part
    /// in the bytes of an end, given the size of the whole object, or says which bytes it needs.
    async fn last_part<T>(
        &self,
        object_type: ObjectType,
        name: &str,
        size_bytes: Option<u64>,
        usual_bytes: u64,
        find: impl Fn(&ObjectOpener, &[u8], u64) -> Result<TailPart<T>, FormatError>,
    ) -> Result<T, Error> {
        let object = object_name(name)?;
        let truncated = |available| Fault::Truncated { needed: HEAD_FRAME_BYTES as u64, available }.of(name);
        if let Some(size_bytes) = size_bytes.filter(|size_bytes| *size_bytes < HEAD_FRAME_BYTES as u64) {
            return Err(truncated(size_bytes).into());
        }
        let end = async {
            match size_bytes {
                Some(size_bytes) => {
                    let range = size_bytes.saturating_sub(usual_bytes)..size_bytes;
                    Ok((self.store().get_range(&object, range).await?, size_bytes))
                }
                None => self.store().get_tail(&object, usual_bytes).await,
            }
        };
        let head = self.store().get_range(&object, 0..HEAD_FRAME_BYTES as u64);
        let (head, (mut end, size_bytes)) = tokio::try_join!(head, end)?;
        let opener = self.opener(object_type, name, &head)?;
        // In the second round, `end` is the answer to a request for the whole part.
        let mut permit = None;
        for _ in 0..2 {
            let range = match find(&opener, &end, size_bytes)? {
                TailPart::Complete(part) => return Ok(part),
                TailPart::Fetch(all) => all,
            };
            drop(std::mem::take(&mut end));
            permit = Some(self.inner.large_parts.acquire(range.end - range.start).await);
            end = self.store().get_range(&object, range).await?;
        }
        drop(permit);
        Err(truncated(size_bytes).into())
    }
}
