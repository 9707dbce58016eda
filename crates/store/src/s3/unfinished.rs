//! Lists uploads that were begun and neither completed nor aborted.
//!
//! Not every store lists them: some do not support the request, MinIO supports it only for a whole key, and a policy
//! may forbid it. Then they are unknown. This is not an error: a lifecycle rule removes them later.

use super::receive::system_time;
use super::shared::Shared;
use crate::{MOST_UNFINISHED, ObjectName, Operation, StoreError, UnfinishedUpload};

/// The uploads whose keys start with `prefix`, in the order of the keys.
pub(super) async fn list(shared: &Shared, prefix: &str) -> Result<Option<Vec<UnfinishedUpload>>, StoreError> {
    let (mut found, mut key_marker, mut id_marker) = (Vec::new(), None, None);
    loop {
        let page = shared
            .client
            .list_multipart_uploads()
            .bucket(&shared.bucket)
            .prefix(prefix)
            .set_key_marker(key_marker.clone())
            .set_upload_id_marker(id_marker.clone())
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
        for upload in page.uploads() {
            // Some stores ignore the prefix.
            let Some(key) = upload.key().filter(|key| key.starts_with(prefix)) else { continue };
            if let (Ok(name), Some(id)) = (ObjectName::new(key), upload.upload_id()) {
                found.push(UnfinishedUpload { name, id: id.to_owned(), begun: system_time(upload.initiated()) });
            }
        }
        let next = (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
        let goes_on = page.is_truncated().unwrap_or(false) && next != (key_marker, id_marker) && next.0.is_some();
        if !goes_on || found.len() >= MOST_UNFINISHED {
            found.truncate(MOST_UNFINISHED);
            return Ok(Some(found));
        }
        (key_marker, id_marker) = next;
    }
}
