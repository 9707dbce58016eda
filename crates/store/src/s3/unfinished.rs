//! Lists uploads that were begun and neither completed nor aborted.
//!
//! Not every store lists them: some do not support the request, MinIO supports it only for a whole key, and a policy
//! may forbid it. Then they are unknown. This is not an error: a lifecycle rule removes them later.

use super::receive::system_time;
use super::shared::Shared;
use crate::{NextUploads, ObjectName, Operation, StoreError, UnfinishedPage, UnfinishedUpload};

/// One page of the uploads whose keys start with `prefix`, in the order of the keys.
pub(super) async fn page(
    shared: &Shared,
    prefix: &str,
    next: Option<&NextUploads>,
) -> Result<Option<UnfinishedPage>, StoreError> {
    let page = shared
        .client
        .list_multipart_uploads()
        .bucket(&shared.bucket)
        .prefix(prefix)
        .set_key_marker(next.map(|next| next.key.clone()))
        .set_upload_id_marker(next.and_then(|next| next.id.clone()))
        .send()
        .await
        .map_err(|error| shared.error(Operation::List, prefix, error));
    let page = match page {
        Ok(page) => page,
        Err(error) if error.is_retryable() => return Err(error),
        Err(error) => {
            tracing::debug!(%error, "the store does not list unfinished uploads");
            return Ok(None);
        }
    };
    let mut uploads = Vec::new();
    for upload in page.uploads() {
        // Some stores ignore the prefix.
        let Some(key) = upload.key().filter(|key| key.starts_with(prefix)) else { continue };
        if let (Ok(name), Some(id)) = (ObjectName::new(key), upload.upload_id()) {
            uploads.push(UnfinishedUpload { name, id: id.to_owned(), begun: system_time(upload.initiated()) });
        }
    }
    let truncated = page.is_truncated().unwrap_or(false);
    let place = page
        .next_key_marker()
        .filter(|_| truncated)
        .map(|key| NextUploads { key: key.to_owned(), id: page.next_upload_id_marker().map(str::to_owned) });
    // A listing that does not advance has no end.
    let advanced = place.filter(|place| Some(place) != next);
    Ok(Some(UnfinishedPage { uploads, next: advanced }))
}
