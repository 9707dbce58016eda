//! Reads the end of a manifest, which lists the objects that its backup needs. The manifest of a 10 TB cluster has
//! hundreds of megabytes, its end has a few.

use holdfast_repo::frame::{HEAD_FRAME_BYTES, TailPart};
use holdfast_repo::manifest::ManifestEnd;
use holdfast_repo::{Fault, ObjectType};

use super::{Repository, object_name};
use crate::error::{Error, ResultExt};

/// The size of the first read: the lists of some thousand packs.
const FIRST_BYTES: u64 = 256 << 10;

impl Repository {
    /// Reads the end of a manifest.
    pub(crate) async fn manifest_end(&self, name: &str) -> Result<ManifestEnd, Error> {
        self.manifest_end_inner(name).await.doing(|| format!("reading the end of {name}"))
    }

    async fn manifest_end_inner(&self, name: &str) -> Result<ManifestEnd, Error> {
        let object = object_name(name)?;
        let size_bytes = self.store().head(&object).await?.size_bytes;
        let truncated = || Fault::Truncated { needed: HEAD_FRAME_BYTES as u64, available: size_bytes }.of(name);
        if size_bytes < HEAD_FRAME_BYTES as u64 {
            return Err(truncated().into());
        }
        let mut range = size_bytes.saturating_sub(FIRST_BYTES)..size_bytes;
        let (head, mut end) = tokio::try_join!(
            self.store().get_range(&object, 0..HEAD_FRAME_BYTES as u64),
            self.store().get_range(&object, range)
        )?;
        let opener = self.opener(ObjectType::Manifest, name, &head)?;
        // The second request is for the whole end.
        for _ in 0..2 {
            match ManifestEnd::from_end(&opener, &end, size_bytes)? {
                TailPart::Complete(found) => return Ok(found),
                TailPart::Fetch(all) => range = all,
            }
            end = self.store().get_range(&object, range).await?;
        }
        Err(truncated().into())
    }
}
