//! Deletes with DeleteObjects, or with single deletes if the store does not support that.

use std::sync::atomic::Ordering;

use aws_sdk_s3::config::http::HttpRequest;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::future::try_join_all;
use md5::Digest;

use super::errors::{Answer, judge, judge_answer};
use super::shared::Shared;
use crate::{MOST_DELETED, ObjectName, Operation, StoreError, StoreErrorKind};

/// How many single deletes run at once if the store does not support DeleteObjects.
const DELETE_PARALLEL: usize = 8;

/// How a DeleteObjects failed.
enum BatchError {
    /// The store does not support the request: delete one by one.
    Refused,
    Failed(StoreError),
}

impl From<StoreError> for BatchError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// Deletes the first objects in one request, or the first few one by one if the store does not support that. Returns
/// how many.
pub(super) async fn delete_some(shared: &Shared, names: &[ObjectName]) -> Result<usize, StoreError> {
    if let [name] = names {
        delete_one(shared, name).await?;
        return Ok(1);
    }
    if !shared.no_delete_objects.load(Ordering::Relaxed) {
        let batch = &names[..names.len().min(MOST_DELETED)];
        match delete_batch(shared, batch).await {
            Ok(()) => return Ok(batch.len()),
            Err(BatchError::Failed(error)) => return Err(error),
            Err(BatchError::Refused) => {
                tracing::debug!(store = %shared.describe(), "the store refuses DeleteObjects, deleting one by one");
                shared.no_delete_objects.store(true, Ordering::Relaxed);
            }
        }
    }
    let group = &names[..names.len().min(DELETE_PARALLEL)];
    try_join_all(group.iter().map(|name| delete_one(shared, name))).await?;
    Ok(group.len())
}

pub(super) async fn delete_one(shared: &Shared, name: &ObjectName) -> Result<(), StoreError> {
    let request = shared.client.delete_object().bucket(&shared.bucket).key(name.as_str());
    match request.send().await {
        Ok(_) => Ok(()),
        Err(error) => match shared.error(Operation::Delete, name.as_str(), error) {
            error if error.kind() == StoreErrorKind::NotFound => Ok(()),
            error => Err(error),
        },
    }
}

async fn delete_batch(shared: &Shared, names: &[ObjectName]) -> Result<(), BatchError> {
    let mut delete = Delete::builder().quiet(true);
    for name in names {
        let object = ObjectIdentifier::builder().key(name.as_str()).build();
        delete = delete.objects(object.map_err(|error| shared.invalid(names, &error))?);
    }
    let delete = delete.build().map_err(|error| shared.invalid(names, &error))?;
    let request = shared.client.delete_objects().bucket(&shared.bucket).delete(delete);
    let first = names.first().map_or("", ObjectName::as_str);
    let output = match request.customize().mutate_request(add_content_md5).send().await {
        Ok(output) => output,
        Err(error) => {
            let judged = judge(Operation::Delete, &error);
            let refused = judged.kind == StoreErrorKind::Unsupported
                || ["MissingContentMD5", "InvalidRequest", "InvalidArgument", "MalformedXML"]
                    .contains(&judged.code.as_str());
            let error = shared.judged(Operation::Delete, first, judged, Some(error.into()));
            return Err(if refused { BatchError::Refused } else { BatchError::Failed(error) });
        }
    };
    for error in output.errors() {
        let answer = Answer {
            operation: Operation::Delete,
            status: 200,
            code: error.code().unwrap_or_default(),
            message: error.message().unwrap_or_default(),
            region: None,
            endpoint: None,
        };
        let judged = judge_answer(&answer);
        if judged.kind != StoreErrorKind::NotFound {
            let key = error.key().unwrap_or_default();
            return Err(BatchError::Failed(shared.judged(Operation::Delete, key, judged, None)));
        }
    }
    Ok(())
}

/// `Content-MD5` over the body: stores older than the flexible checksums refuse DeleteObjects without it.
pub(super) fn add_content_md5(request: &mut HttpRequest) {
    let Some(body) = request.body().bytes() else { return };
    let digest = BASE64.encode(md5::Md5::digest(body));
    request.headers_mut().insert("content-md5", digest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_md5_is_that_of_the_body() {
        let mut request = HttpRequest::new(aws_sdk_s3::primitives::SdkBody::from("Check Integrity!"));
        add_content_md5(&mut request);
        assert_eq!(request.headers().get("content-md5"), Some("nwqq6b6ua/tTDk7B5M184w=="));
    }
}
