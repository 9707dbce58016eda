//! Trials that only S3's own requests can make: see [`crate::probe`].
//!
//! The requests are sent without the checks and repetitions of normal work. Everything is written below the folder of
//! the probe and deleted at the end, also after a failure.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::delete::delete_one;
use super::errors::judge;
use super::lock_trials;
use super::shared::Shared;
use super::upload::S3Upload;
use crate::{
    Checksums, ConditionalCreate, Dropped, ObjectName, Operation, PutMode, StoreError, StoreErrorKind, Trials, Upload,
    Uploads,
};

const BODY: &[u8] = b"written by holdfast to try this store";

/// How long a slow body waits after both have begun: by then the server has the heads of both requests.
const OVERLAP: Duration = Duration::from_millis(300);
/// How often and how many times a slow body looks for the other one; a connection takes no longer.
const MEET_AGAIN_AFTER: Duration = Duration::from_millis(50);
const MEETINGS: u32 = 100;
/// Rounds of quick creates in parallel, for a store that does not accept slow bodies.
const ROUNDS: u32 = 3;

/// Runs all trials below `scratch`.
pub(super) async fn run(shared: &Arc<Shared>, scratch: &ObjectName) -> Result<Trials, StoreError> {
    let mut names = Vec::new();
    for part in ["settings", "checksum", "overlap", "condition"] {
        let name = ObjectName::new(format!("{scratch}/{part}"));
        names.push(name.map_err(|error| {
            let detail = error.to_string();
            shared.fail(Operation::Put, scratch.as_str(), StoreErrorKind::InvalidConfig, detail)
        })?);
    }
    let [settings, checksum, overlap, condition] = &names[..] else { return Ok(Trials::default()) };
    // An earlier attempt may have been interrupted.
    one_by_one(shared, &names).await?;
    let tried = async {
        let mut trials = Trials { dropped: dropped(shared, settings).await?, ..Trials::default() };
        trials.checksums = checksums(shared, checksum).await?;
        trials.overlapping = overlapping(shared, overlap).await?;
        by_parts(shared, condition, &mut trials).await?;
        lock_trials::run(shared, scratch, &mut trials).await?;
        Ok(trials)
    };
    let tried = tried.await;
    let cleaned = one_by_one(shared, &names).await;
    let tried = tried?;
    cleaned?;
    Ok(tried)
}

async fn one_by_one(shared: &Arc<Shared>, names: &[ObjectName]) -> Result<(), StoreError> {
    for name in names {
        delete_one(shared, name).await?;
    }
    Ok(())
}

/// Compares what the store says about an object with the settings of its write.
async fn dropped(shared: &Arc<Shared>, name: &ObjectName) -> Result<Vec<Dropped>, StoreError> {
    let settings = &shared.settings;
    let mut dropped = Vec::new();
    let failed = |error| shared.error(Operation::Put, name.as_str(), error);
    let output = shared
        .send_put(name, Bytes::from_static(BODY).into(), PutMode::Overwrite, None, false)
        .await
        .map_err(failed)?;
    if settings.server_side_encryption.is_some()
        && output.server_side_encryption() != settings.server_side_encryption.as_ref()
    {
        dropped.push(Dropped { setting: "sse", seen: "its answer to a write does not repeat it" });
    }
    if settings.customer_algorithm().is_some() {
        // An object that is encrypted with our key cannot be read without it.
        let without = shared.client.get_object().bucket(&shared.bucket).key(name.as_str()).send().await;
        if without.is_ok() {
            dropped.push(Dropped { setting: "sse", seen: "an object can be read without the key" });
        }
    }
    if storage_class_is_another(shared, name).await? {
        dropped.push(Dropped { setting: "storage_class", seen: "an object that was written with it has another" });
    }
    if tags_are_missing(shared, name).await {
        dropped.push(Dropped { setting: "tags", seen: "an object that was written with them has others" });
    }
    Ok(dropped)
}

/// Compares the settings of an object that was uploaded in parts: stores get them with the request that begins the
/// upload, not with a PUT.
async fn dropped_by_parts(
    shared: &Arc<Shared>,
    name: &ObjectName,
    dropped: &mut Vec<Dropped>,
) -> Result<(), StoreError> {
    let settings = &shared.settings;
    let is_known = |dropped: &[Dropped], setting| dropped.iter().any(|dropped| dropped.setting == setting);
    let mut not_encrypted = false;
    if !is_known(dropped, "sse") {
        not_encrypted = !is_encrypted(shared, name).await?;
        let without = || shared.client.get_object().bucket(&shared.bucket).key(name.as_str()).send();
        if settings.customer_algorithm().is_some() && without().await.is_ok() {
            dropped.push(Dropped {
                setting: "sse",
                seen: "an object that was uploaded in parts can be read without the key",
            });
        }
    }
    if !is_known(dropped, "storage_class") && storage_class_is_another(shared, name).await? {
        dropped.push(Dropped { setting: "storage_class", seen: "an object that was uploaded in parts has another" });
    }
    if !is_known(dropped, "tags") && tags_are_missing(shared, name).await {
        dropped.push(Dropped { setting: "tags", seen: "an object that was uploaded in parts has others" });
    }
    // Some servers never say how an object is encrypted. Then the missing header says nothing about this object.
    if not_encrypted {
        let failed = |error| shared.error(Operation::Put, name.as_str(), error);
        let body = Bytes::from_static(BODY).into();
        shared.send_put(name, body, PutMode::Overwrite, None, false).await.map_err(failed)?;
        if is_encrypted(shared, name).await? {
            dropped
                .push(Dropped { setting: "sse", seen: "an object that was uploaded in parts is not encrypted by it" });
        }
    }
    Ok(())
}

/// Whether the store says that an object is encrypted as the settings ask, or they ask for nothing.
async fn is_encrypted(shared: &Arc<Shared>, name: &ObjectName) -> Result<bool, StoreError> {
    let Some(wanted) = &shared.settings.server_side_encryption else { return Ok(true) };
    Ok(shared.head_once(Operation::Head, name).await?.server_side_encryption() == Some(wanted))
}

/// Whether the settings ask for a storage class and the object has another.
async fn storage_class_is_another(shared: &Arc<Shared>, name: &ObjectName) -> Result<bool, StoreError> {
    let wanted = shared.settings.storage_class.as_ref().filter(|wanted| wanted.as_str() != "STANDARD");
    let Some(wanted) = wanted else { return Ok(false) };
    Ok(shared.head_once(Operation::Head, name).await?.storage_class() != Some(wanted))
}

/// Whether the settings ask for tags and the object has others. False if we may not read tags.
async fn tags_are_missing(shared: &Arc<Shared>, name: &ObjectName) -> bool {
    let wanted = &shared.settings.tags;
    if wanted.is_empty() {
        return false;
    }
    match shared.client.get_object_tagging().bucket(&shared.bucket).key(name.as_str()).send().await {
        Ok(answer) => {
            let found = answer.tag_set().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned()));
            found.collect::<std::collections::BTreeMap<_, _>>() != *wanted
        }
        Err(_) => false,
    }
}

/// A wrong checksum must be refused, and the checksum of the stored bytes must be returned.
async fn checksums(shared: &Arc<Shared>, name: &ObjectName) -> Result<Checksums, StoreError> {
    let right = crc32c::crc32c(BODY);
    let put = |crc32c: u32| {
        let checksum = super::shared::encoded(crc32c);
        shared.send_put(name, Bytes::from_static(BODY).into(), PutMode::Overwrite, Some(checksum), false)
    };
    let failed = |error| shared.error(Operation::Put, name.as_str(), error);
    match put(right).await {
        Ok(_) => {}
        Err(error) if is_refusal(&error) => return Ok(Checksums::NotCompared),
        Err(error) => return Err(failed(error)),
    }
    if Shared::head_crc32c(&shared.head_once(Operation::Head, name).await?) != Some(right) {
        return Ok(Checksums::NotCompared);
    }
    match put(right ^ 1).await {
        Ok(_) => Ok(Checksums::NotCompared),
        Err(error) if is_refusal(&error) => Ok(Checksums::Kept),
        Err(error) => Err(failed(error)),
    }
}

/// Whether the store read the request and refused it. A failure of network or server is not a refusal.
fn is_refusal(error: &SdkError<PutObjectError, HttpResponse>) -> bool {
    let SdkError::ServiceError(service) = error else { return false };
    let status = service.raw().status().as_u16();
    (400..500).contains(&status) && ![401, 403, 404, 408, 429].contains(&status) || status == 501
}

/// Two creates of one name, both under way at the same time: one must be refused.
async fn overlapping(shared: &Arc<Shared>, name: &ObjectName) -> Result<ConditionalCreate, StoreError> {
    let arrived = Arc::new(AtomicUsize::new(0));
    let slow = || {
        let body = ByteStream::new(SdkBody::from_body_1_x(SlowBody::new(Arc::clone(&arrived))));
        shared.send_put(name, body, PutMode::Create, None, true)
    };
    let (left, right) = tokio::join!(slow(), slow());
    match both(shared, name, left, right) {
        Ok(found) => return Ok(found),
        // A store that requires signed bodies does not accept these.
        Err(error) if error.is_retryable() => return Err(error),
        Err(error) => tracing::debug!(%error, "the store does not accept a slow body"),
    }
    for _ in 0..ROUNDS {
        one_by_one(shared, std::slice::from_ref(name)).await?;
        let quick = || shared.send_put(name, Bytes::from_static(BODY).into(), PutMode::Create, None, false);
        let (left, right) = tokio::join!(quick(), quick());
        match both(shared, name, left, right) {
            Ok(ConditionalCreate::Native) => {}
            Err(error) if error.is_retryable() => return Err(error),
            // Both were stored, or the condition itself is refused.
            Ok(ConditionalCreate::Emulated) | Err(_) => return Ok(ConditionalCreate::Emulated),
        }
    }
    Ok(ConditionalCreate::Native)
}

type Put = Result<aws_sdk_s3::operation::put_object::PutObjectOutput, SdkError<PutObjectError, HttpResponse>>;

fn both(shared: &Arc<Shared>, name: &ObjectName, left: Put, right: Put) -> Result<ConditionalCreate, StoreError> {
    let mut stored = 0;
    for put in [left, right] {
        match put {
            Ok(_) => stored += 1,
            Err(error) => {
                let judged = judge(Operation::Put, &error);
                let conflict = ["ConditionalRequestConflict", "OperationAborted"].contains(&judged.code.as_str());
                if judged.kind != StoreErrorKind::AlreadyExists && !conflict {
                    return Err(shared.judged(Operation::Put, name.as_str(), judged, Some(error.into())));
                }
            }
        }
    }
    Ok(if stored < 2 { ConditionalCreate::Native } else { ConditionalCreate::Emulated })
}

/// A multipart upload over a name that is taken, with the condition and without the HEAD before it.
async fn by_parts(shared: &Arc<Shared>, name: &ObjectName, trials: &mut Trials) -> Result<(), StoreError> {
    shared.put(name, Bytes::from_static(b"taken"), PutMode::Overwrite).await?;
    match complete(shared, name, PutMode::Create).await {
        Ok(()) => trials.create_by_parts = ConditionalCreate::Emulated,
        // Nothing was stored, so an upload without the condition shows what happens to the settings.
        Err(error) if error.kind() == StoreErrorKind::AlreadyExists => {
            if shared.settings.any() {
                complete(shared, name, PutMode::Overwrite).await?;
            }
        }
        Err(error) if error.is_retryable() => return Err(error),
        Err(error) if does_not_work(&error) => {
            // The store may refuse the condition itself.
            trials.create_by_parts = ConditionalCreate::Emulated;
            trials.uploads = Uploads::Whole;
            trials.uploads_fault = Some(error.to_string());
            if trials.overlapping == ConditionalCreate::Emulated
                && complete(shared, name, PutMode::Overwrite).await.is_ok()
            {
                trials.uploads = Uploads::Parts;
                trials.uploads_fault = None;
            }
        }
        Err(error) => return Err(error),
    }
    if trials.uploads == Uploads::Parts {
        dropped_by_parts(shared, name, &mut trials.dropped).await?;
    }
    Ok(())
}

async fn complete(shared: &Arc<Shared>, name: &ObjectName, mode: PutMode) -> Result<(), StoreError> {
    let upload = S3Upload::begin(Arc::clone(shared), name, mode).await?;
    let completed = async {
        upload.part(1, Bytes::from_static(BODY)).await?;
        upload.complete_without_looking().await
    };
    let completed = completed.await;
    if completed.is_err()
        && let Err(error) = upload.try_abort().await
    {
        tracing::debug!(%error, "an upload of the probe could not be removed");
    }
    completed
}

fn does_not_work(error: &StoreError) -> bool {
    matches!(
        error.kind(),
        StoreErrorKind::Unsupported | StoreErrorKind::InvalidConfig | StoreErrorKind::Other | StoreErrorKind::NotFound
    )
}

/// A body that ends only some time after another slow body has begun.
struct SlowBody {
    arrived: Arc<AtomicUsize>,
    meetings: u32,
    waiting: Option<Pin<Box<Sleep>>>,
    together: bool,
    left: Bytes,
    begun: bool,
}

impl SlowBody {
    fn new(arrived: Arc<AtomicUsize>) -> Self {
        let left = Bytes::from_static(BODY);
        Self { arrived, meetings: 0, waiting: None, together: false, left, begun: false }
    }
}

impl Body for SlowBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let body = self.get_mut();
        if !body.begun {
            body.begun = true;
            body.arrived.fetch_add(1, Ordering::SeqCst);
            body.waiting = Some(Box::pin(tokio::time::sleep(MEET_AGAIN_AFTER)));
            return Poll::Ready(Some(Ok(Frame::data(body.left.split_to(1)))));
        }
        while let Some(waiting) = &mut body.waiting {
            ready!(waiting.as_mut().poll(context));
            body.meetings += 1;
            body.waiting = if body.together {
                None
            } else if body.arrived.load(Ordering::SeqCst) > 1 || body.meetings >= MEETINGS {
                body.together = true;
                Some(Box::pin(tokio::time::sleep(OVERLAP)))
            } else {
                Some(Box::pin(tokio::time::sleep(MEET_AGAIN_AFTER)))
            };
        }
        let rest = std::mem::take(&mut body.left);
        Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }
}
