//! What the end of an object says, without the rest of it: the index of a pack, the packs that a manifest names, the
//! facts of a WAL file. A manifest of 10 TB has hundreds of megabytes, its end a few.
//!
//! The head, which every frame needs to be opened, and an end of a usual size are fetched at the same time. If the part
//! begins before that end, all of it is fetched, once.

use holdfast_repo::frame::{HEAD_FRAME_BYTES, TailPart};
use holdfast_repo::manifest::ManifestEnd;
use holdfast_repo::pack::PackIndex;
use holdfast_repo::wal_object::{WalObjectFacts, facts_from_end};
use holdfast_repo::{Fault, FormatError, ObjectOpener, ObjectType};

use super::{Repository, object_name};
use crate::error::{Error, ResultExt};

/// The index of a usual pack.
const INDEX_BYTES: u64 = 64 << 10;

/// The lists of some thousand packs.
const MANIFEST_END_BYTES: u64 = 256 << 10;

/// The facts of nearly every segment.
const FACTS_BYTES: u64 = 4096;

/// Finds a part in the bytes of an end, given the size of the whole object, or says which bytes it needs.
type Find<T> = fn(&ObjectOpener, &[u8], u64) -> Result<TailPart<T>, FormatError>;

impl Repository {
    /// Reads the index of a pack of this size in bytes.
    pub(crate) async fn pack_index(&self, name: &str, size_bytes: u64) -> Result<PackIndex, Error> {
        let index = self.last_part(ObjectType::Pack, name, Some(size_bytes), INDEX_BYTES, PackIndex::from_end).await;
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

    /// Reads the last part of an object, of which `usual_bytes` are fetched first.
    async fn last_part<T>(
        &self,
        object_type: ObjectType,
        name: &str,
        size_bytes: Option<u64>,
        usual_bytes: u64,
        find: Find<T>,
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
        // The second answer is to a request for all of it.
        for _ in 0..2 {
            let range = match find(&opener, &end, size_bytes)? {
                TailPart::Complete(part) => return Ok(part),
                TailPart::Fetch(all) => all,
            };
            end = self.store().get_range(&object, range).await?;
        }
        Err(truncated(size_bytes).into())
    }
}
