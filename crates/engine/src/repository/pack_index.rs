//! Reads the index at the end of a pack, without the frames.

use holdfast_repo::frame::{HEAD_FRAME_BYTES, TailPart};
use holdfast_repo::pack::PackIndex;
use holdfast_repo::{Fault, ObjectType};

use super::{Repository, object_name};
use crate::error::{Error, ResultExt};

/// The size of the first read: the index of a usual pack.
const FIRST_BYTES: u64 = 64 << 10;

impl Repository {
    /// Reads the index of a pack of this size in bytes.
    pub(crate) async fn pack_index(&self, name: &str, size_bytes: u64) -> Result<PackIndex, Error> {
        self.pack_index_inner(name, size_bytes).await.doing(|| format!("reading the index of {name}"))
    }

    async fn pack_index_inner(&self, name: &str, size_bytes: u64) -> Result<PackIndex, Error> {
        let object = object_name(name)?;
        let truncated = || Fault::Truncated { needed: HEAD_FRAME_BYTES as u64, available: size_bytes }.of(name);
        if size_bytes < HEAD_FRAME_BYTES as u64 {
            return Err(truncated().into());
        }
        let mut range = size_bytes.saturating_sub(FIRST_BYTES)..size_bytes;
        let (head, mut end) = tokio::try_join!(
            self.store().get_range(&object, 0..HEAD_FRAME_BYTES as u64),
            self.store().get_range(&object, range)
        )?;
        let opener = self.opener(ObjectType::Pack, name, &head)?;
        // The second request is for the whole index.
        for _ in 0..2 {
            match PackIndex::from_end(&opener, &end, size_bytes)? {
                TailPart::Complete(index) => return Ok(index),
                TailPart::Fetch(all) => range = all,
            }
            end = self.store().get_range(&object, range).await?;
        }
        Err(truncated().into())
    }
}
