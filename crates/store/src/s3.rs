//! [`S3Store`]: any store that speaks S3, through aws-sdk-s3. One attempt a call; [`crate::Retry`] repeats.
//!
//! # Writes
//! - Every body carries its CRC-32C (`x-amz-checksum-crc32c`), which the store checks on arrival, and keeps where it can.
//!   A store that refuses the header is asked again without it, once, and from then on not bothered.
//! - [`PutMode::Create`] is `If-None-Match: *`, on PUT and on completing a multipart upload; 412 means that the name is
//!   taken, 409 that another write is under way and that the request should be repeated.
//! - With [`ConditionalCreate::Emulated`] a HEAD comes before the PUT. Uploads are looked at before they are completed in
//!   either case: some stores know the condition on PUT only.
//! - Over TLS the SDK does not hash the body for its signature: TLS and CRC-32C protect it already, and SHA-256 would cost
//!   more than the compression of the fastest level.
//!
//! # Reads
//! - Whole objects that were written in one piece are checked against the CRC-32C that the store keeps for them. Ranges and
//!   objects made of parts are not: the frames in our objects carry their own.
//! - A HEAD has no body, so a 404 cannot say whether the object or the bucket is missing. [`Store::head`] asks again with a
//!   GET of one byte before it says `NotFound`.
//!
//! # After a crash
//! Multipart uploads that were begun and not completed stay in the bucket, invisible in listings; a lifecycle rule
//! (`AbortIncompleteMultipartUpload`) removes them.

mod client;
mod errors;
mod settings;
mod upload;

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::{AggregatedBytes, ByteStream, DateTime};
use aws_sdk_s3::types::{ChecksumMode, ChecksumType, Delete, ObjectIdentifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::future::try_join_all;
use md5::Digest;

use crate::{
    Buffer, ConditionalCreate, Failure, Location, ObjectInfo, ObjectName, Operation, PutMode, Store, StoreConfig,
    StoreError, StoreErrorKind, Upload,
};
use errors::{Answer, Judged, judge, judge_answer};
use settings::Settings;
use upload::S3Upload;

/// S3's limit for one DeleteObjects.
const DELETE_BATCH: usize = 1000;

/// An announced length beyond this is not believed before the bytes are there.
const MAX_RECEIVED_BYTES: usize = 1 << 30;

/// How many single deletes run at once where DeleteObjects is not to be had.
const DELETE_PARALLEL: usize = 8;

/// A bucket. Names are keys; the prefix of a repository is [`crate::Prefixed`]'s business.
#[derive(Clone, Debug)]
pub struct S3Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    bucket: String,
    /// For messages; AWS's own has none.
    endpoint: Option<String>,
    settings: Settings,
    conditional_create: ConditionalCreate,
    attempt_timeout: std::time::Duration,
    /// The store refused our checksum headers once.
    no_checksums: AtomicBool,
    /// The store refused DeleteObjects once.
    no_delete_objects: AtomicBool,
}

impl S3Store {
    /// Builds the client. Makes no request to the store.
    ///
    /// # Errors
    /// `InvalidConfig` when the location is not S3, or the CA file cannot be used.
    pub async fn new(config: &StoreConfig) -> Result<Self, StoreError> {
        let wrong = |detail: String| {
            StoreError::new(
                StoreErrorKind::InvalidConfig,
                Failure {
                    store: config.location.to_string(),
                    name: String::new(),
                    operation: Operation::Open,
                    detail,
                    source: None,
                },
            )
        };
        let Location::S3 { bucket, .. } = &config.location else {
            return Err(wrong("the location is not s3://".to_owned()));
        };
        let client = client::build(config).await.map_err(wrong)?;
        Ok(Self {
            shared: Arc::new(Shared {
                client,
                bucket: bucket.clone(),
                endpoint: config.s3.endpoint.clone(),
                settings: Settings::new(&config.s3),
                conditional_create: config.conditional_create,
                attempt_timeout: config.timeouts.attempt,
                no_checksums: AtomicBool::new(false),
                no_delete_objects: AtomicBool::new(false),
            }),
        })
    }

    /// One PUT, with or without our checksum.
    async fn put_once(
        &self,
        name: &ObjectName,
        body: Bytes,
        mode: PutMode,
        checksum: Option<String>,
    ) -> Result<(), StoreError> {
        let shared = &self.shared;
        let settings = &shared.settings;
        let request = shared
            .client
            .put_object()
            .bucket(&shared.bucket)
            .key(name.as_str())
            .set_checksum_crc32_c(checksum)
            .set_if_none_match(shared.if_none_match(mode))
            .set_storage_class(settings.storage_class.clone())
            .set_tagging(settings.tagging.clone())
            .set_server_side_encryption(settings.server_side_encryption.clone())
            .set_ssekms_key_id(settings.kms_key_id.clone())
            .set_sse_customer_algorithm(settings.customer_algorithm())
            .set_sse_customer_key(settings.customer_key())
            .set_sse_customer_key_md5(settings.customer_key_md5())
            .body(ByteStream::from(body))
            .customize();
        let request = if settings.tls { request.disable_payload_signing() } else { request };
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(shared.error(Operation::Put, name.as_str(), error)),
        }
    }

    fn get_request(&self, name: &ObjectName) -> GetObjectFluentBuilder {
        let settings = &self.shared.settings;
        self.shared
            .client
            .get_object()
            .bucket(&self.shared.bucket)
            .key(name.as_str())
            .set_sse_customer_algorithm(settings.customer_algorithm())
            .set_sse_customer_key(settings.customer_key())
            .set_sse_customer_key_md5(settings.customer_key_md5())
    }

    /// The body of an answer, under the time limit of one attempt.
    async fn body(
        &self,
        operation: Operation,
        name: &ObjectName,
        output: GetObjectOutput,
    ) -> Result<Bytes, StoreError> {
        let fail = |kind, detail| self.shared.fail(operation, name.as_str(), kind, detail);
        let length = output.content_length().and_then(|length| usize::try_from(length).ok());
        let received = tokio::time::timeout(self.shared.attempt_timeout, receive(output.body, length));
        match received.await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(fail(StoreErrorKind::Unreachable, error)),
            Err(_) => Err(fail(
                StoreErrorKind::Timeout,
                format!("the body did not come within {:?}", self.shared.attempt_timeout),
            )),
        }
    }

    /// One page after the other of a listing.
    async fn pages(
        &self,
        operation: Operation,
        prefix: &str,
        start_after: Option<&str>,
        delimiter: Option<&str>,
        mut on_page: impl FnMut(aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output) + Send,
    ) -> Result<(), StoreError> {
        let mut token: Option<String> = None;
        loop {
            let page = self
                .shared
                .client
                .list_objects_v2()
                .bucket(&self.shared.bucket)
                .prefix(prefix)
                .set_start_after(start_after.map(str::to_owned))
                .set_delimiter(delimiter.map(str::to_owned))
                .set_continuation_token(token.clone())
                .send()
                .await
                .map_err(|error| self.shared.error(operation, prefix, error))?;
            let next = page.next_continuation_token().map(str::to_owned);
            let truncated = page.is_truncated().unwrap_or(false);
            on_page(page);
            if !truncated {
                return Ok(());
            }
            // A listing that does not move on would silently miss objects.
            if next.is_none() || next == token {
                return Err(self.shared.fail(
                    operation,
                    prefix,
                    StoreErrorKind::Other,
                    "the listing is incomplete and names no next page".to_owned(),
                ));
            }
            token = next;
        }
    }

    async fn delete_one(&self, name: &ObjectName) -> Result<(), StoreError> {
        let request = self.shared.client.delete_object().bucket(&self.shared.bucket).key(name.as_str());
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => match self.shared.error(Operation::Delete, name.as_str(), error) {
                error if error.kind() == StoreErrorKind::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }

    async fn delete_batch(&self, names: &[ObjectName]) -> Result<(), BatchError> {
        let shared = &self.shared;
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
}

/// How a DeleteObjects failed.
enum BatchError {
    /// The store does not take the request at all: delete one by one.
    Refused,
    Failed(StoreError),
}

impl From<StoreError> for BatchError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl Shared {
    fn describe(&self) -> String {
        format!("s3://{}", self.bucket)
    }

    fn fail(&self, operation: Operation, name: &str, kind: StoreErrorKind, detail: String) -> StoreError {
        let store = self.describe();
        let name = name.to_owned();
        StoreError::new(kind, Failure { store, name, operation, detail, source: None })
    }

    fn judged(
        &self,
        operation: Operation,
        name: &str,
        judged: Judged,
        source: Option<Box<dyn Error + Send + Sync>>,
    ) -> StoreError {
        let detail = match (&self.endpoint, judged.kind) {
            // Who does not answer is the first thing to know.
            (Some(endpoint), StoreErrorKind::Unreachable | StoreErrorKind::Timeout) => {
                format!("{endpoint}: {}", judged.detail)
            }
            _ => judged.detail,
        };
        let mut error = self.fail(operation, name, judged.kind, detail);
        error.failure_mut().source = source;
        error
    }

    fn error<E>(&self, operation: Operation, name: &str, error: SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let judged = judge(operation, &error);
        self.judged(operation, name, judged, Some(error.into()))
    }

    fn invalid(&self, names: &[ObjectName], error: &dyn Error) -> StoreError {
        let first = names.first().map_or("", ObjectName::as_str);
        self.fail(Operation::Delete, first, StoreErrorKind::InvalidConfig, error.to_string())
    }

    fn if_none_match(&self, mode: PutMode) -> Option<String> {
        (mode == PutMode::Create && self.conditional_create == ConditionalCreate::Native).then(|| "*".to_owned())
    }

    /// The value of our checksum header, unless the store does not want it.
    fn checksum(&self, crc32c: u32) -> Option<String> {
        (!self.no_checksums.load(Ordering::Relaxed)).then(|| BASE64.encode(crc32c.to_be_bytes()))
    }

    /// Whether a refusal may be about the checksum header, which stores older than 2022 do not know.
    fn may_refuse_checksums(&self, error: &StoreError) -> bool {
        matches!(error.kind(), StoreErrorKind::InvalidConfig | StoreErrorKind::Unsupported)
            && !self.no_checksums.load(Ordering::Relaxed)
    }

    fn remember_no_checksums(&self) {
        if !self.no_checksums.swap(true, Ordering::Relaxed) {
            tracing::warn!(store = %self.describe(), "the store refuses CRC-32C headers; writing without them");
        }
    }

    /// HEAD as it comes: a 404 may mean a missing bucket.
    async fn head_once(&self, operation: Operation, name: &ObjectName) -> Result<HeadObjectOutput, StoreError> {
        self.client
            .head_object()
            .bucket(&self.bucket)
            .key(name.as_str())
            .checksum_mode(ChecksumMode::Enabled)
            .set_sse_customer_algorithm(self.settings.customer_algorithm())
            .set_sse_customer_key(self.settings.customer_key())
            .set_sse_customer_key_md5(self.settings.customer_key_md5())
            .send()
            .await
            .map_err(|error| {
                let mut judged = judge(Operation::Head, &error);
                if judged.kind == StoreErrorKind::InvalidConfig && judged.code.is_empty() {
                    judged.detail.push_str(" (to HEAD, which has no message)");
                }
                self.judged(operation, name.as_str(), judged, Some(error.into()))
            })
    }

    /// `AlreadyExists` when the object is there. A missing bucket shows in the write that follows.
    async fn must_be_absent(&self, operation: Operation, name: &ObjectName) -> Result<(), StoreError> {
        match self.head_once(operation, name).await {
            Ok(_) => Err(self.fail(operation, name.as_str(), StoreErrorKind::AlreadyExists, String::new())),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// `Content-MD5` over the body: stores that predate the flexible checksums refuse DeleteObjects without it.
fn add_content_md5(request: &mut HttpRequest) {
    let Some(body) = request.body().bytes() else { return };
    let digest = BASE64.encode(md5::Md5::digest(body));
    request.headers_mut().insert("content-md5", digest);
}

/// Asks for the checksum without the SDK's own check of it, which would hide a mismatch among broken connections.
fn ask_for_checksum(request: &mut HttpRequest) {
    request.headers_mut().insert("x-amz-checksum-mode", "ENABLED");
}

/// CRC-32C of an object that was written in one piece.
///
/// Objects made of parts may have a checksum of the parts' checksums instead. Some stores mark that with "...-3", some with
/// the type, and some (moto 5) call it the checksum of the whole. A wrong guess would call a sound object corrupt, so
/// whatever was made of parts, which its ETag tells, counts as having none.
fn whole_crc32c(header: Option<&str>, kind: Option<&ChecksumType>, etag: Option<&str>) -> Option<u32> {
    if kind == Some(&ChecksumType::Composite) || etag.is_none_or(|etag| etag.contains('-')) {
        return None;
    }
    let bytes = BASE64.decode(header?).ok()?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Receives a body whose length was announced into memory of its own, without holding it twice. A shorter one is judged by
/// the caller.
async fn receive(mut body: ByteStream, length: Option<usize>) -> Result<Bytes, String> {
    let Some(length) = length.filter(|length| *length <= MAX_RECEIVED_BYTES) else {
        return body.collect().await.map(AggregatedBytes::into_bytes).map_err(|error| errors::chain(&error));
    };
    let mut buffer = Buffer::zeroed(length).map_err(|error| error.to_string())?;
    let mut filled = 0;
    while let Some(piece) = body.try_next().await.map_err(|error| errors::chain(&error))? {
        let place = buffer.get_mut(filled..filled + piece.len());
        place
            .ok_or_else(|| format!("the body is longer than the {length} bytes of its header"))?
            .copy_from_slice(&piece);
        filled += piece.len();
    }
    Ok(buffer.freeze(filled))
}

/// The size of the whole object out of `bytes 0-9/1234`.
fn whole_size(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.parse().ok()
}

fn system_time(time: Option<&DateTime>) -> Option<SystemTime> {
    SystemTime::try_from(*time?).ok()
}

#[async_trait]
impl Store for S3Store {
    async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let shared = &self.shared;
        if mode == PutMode::Create && shared.conditional_create == ConditionalCreate::Emulated {
            shared.must_be_absent(Operation::Put, name).await?;
        }
        let checksum = shared.checksum(crc32c::crc32c(&body));
        let with_checksum = checksum.is_some();
        match self.put_once(name, body.clone(), mode, checksum).await {
            Err(error) if with_checksum && shared.may_refuse_checksums(&error) => {
                // Only if the checksum was the reason does leaving it out help.
                self.put_once(name, body, mode, None).await.map_err(|_| error)?;
                shared.remember_no_checksums();
                Ok(())
            }
            result => result,
        }
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        let output = self
            .get_request(name)
            .customize()
            .mutate_request(ask_for_checksum)
            .send()
            .await
            .map_err(|error| self.shared.error(Operation::Get, name.as_str(), error))?;
        let expected = whole_crc32c(output.checksum_crc32_c(), output.checksum_type(), output.e_tag());
        let bytes = self.body(Operation::Get, name, output).await?;
        match expected {
            Some(expected) if crc32c::crc32c(&bytes) != expected => {
                let found = crc32c::crc32c(&bytes);
                Err(self.shared.fail(
                    Operation::Get,
                    name.as_str(),
                    StoreErrorKind::Corrupt,
                    format!("CRC-32C {found:08x} instead of {expected:08x}"),
                ))
            }
            _ => Ok(bytes),
        }
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let operation = Operation::GetRange;
        let wanted = range.end.saturating_sub(range.start);
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let fail = |kind, detail| self.shared.fail(operation, name.as_str(), kind, detail);
        let output = self
            .get_request(name)
            .range(format!("bytes={}-{}", range.start, range.end - 1))
            .send()
            .await
            .map_err(|error| self.shared.error(operation, name.as_str(), error))?;
        let Some(content_range) = output.content_range() else {
            return Err(fail(StoreErrorKind::Unsupported, "the store ignores ranges".to_owned()));
        };
        let size = whole_size(content_range);
        let bytes = self.body(operation, name, output).await?;
        if bytes.len() as u64 == wanted {
            return Ok(bytes);
        }
        let detail = format!("{} bytes of {}..{}", bytes.len(), range.start, range.end);
        match size {
            Some(size) if size >= range.end => Err(fail(StoreErrorKind::Unreachable, detail)),
            _ => Err(fail(StoreErrorKind::Truncated, detail)),
        }
    }

    async fn get_tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        let operation = Operation::GetTail;
        if bytes == 0 {
            let info = self.head(name).await?;
            return Ok((Bytes::new(), info.size_bytes));
        }
        let output = match self.get_request(name).range(format!("bytes=-{bytes}")).send().await {
            Ok(output) => output,
            Err(error) => match self.shared.error(operation, name.as_str(), error) {
                // An empty object has no last byte, and some stores fail over a suffix longer than the object, even with a
                // 500. A look at the size tells whether that was it.
                error
                    if matches!(
                        error.kind(),
                        StoreErrorKind::Truncated | StoreErrorKind::Unreachable | StoreErrorKind::InvalidConfig
                    ) =>
                {
                    let size = match self.head(name).await {
                        Ok(info) if info.size_bytes <= bytes => info.size_bytes,
                        _ => return Err(error),
                    };
                    let whole = self.get_range(name, 0..size).await?;
                    return Ok((whole, size));
                }
                error => return Err(error),
            },
        };
        let size = output.content_range().and_then(whole_size);
        let body = self.body(operation, name, output).await?;
        // Without Content-Range the store sent everything.
        let size = size.unwrap_or(body.len() as u64);
        let tail = last(&body, bytes);
        if tail.len() as u64 == bytes.min(size) {
            return Ok((tail, size));
        }
        let detail = format!("{} bytes came instead of {}", tail.len(), bytes.min(size));
        Err(self.shared.fail(operation, name.as_str(), StoreErrorKind::Unreachable, detail))
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        let output = match self.shared.head_once(Operation::Head, name).await {
            Err(error) if error.kind() == StoreErrorKind::NotFound => {
                let confirm = self.get_request(name).range("bytes=0-0").send().await;
                return Err(match confirm {
                    // Judged as the GET it was: only a named key is an absence.
                    Err(error) => {
                        let judged = judge(Operation::Get, &error);
                        self.shared.judged(Operation::Head, name.as_str(), judged, Some(error.into()))
                    }
                    Ok(_) => self.shared.fail(
                        Operation::Head,
                        name.as_str(),
                        StoreErrorKind::Unreachable,
                        "the object appeared while it was looked at".to_owned(),
                    ),
                });
            }
            result => result?,
        };
        let size_bytes = output.content_length().and_then(|size| u64::try_from(size).ok());
        let Some(size_bytes) = size_bytes else {
            let detail = "the answer has no size".to_owned();
            return Err(self.shared.fail(Operation::Head, name.as_str(), StoreErrorKind::Other, detail));
        };
        Ok(ObjectInfo {
            name: name.clone(),
            size_bytes,
            crc32c: whole_crc32c(output.checksum_crc32_c(), output.checksum_type(), output.e_tag()),
            modified: system_time(output.last_modified()),
        })
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<ObjectInfo>, StoreError> {
        let mut found = Vec::new();
        self.pages(Operation::List, prefix, start_after, None, |page| {
            for object in page.contents() {
                let Some(key) = object.key() else { continue };
                match ObjectName::new(key) {
                    Ok(name) => found.push(ObjectInfo {
                        name,
                        size_bytes: object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                        crc32c: None,
                        modified: system_time(object.last_modified()),
                    }),
                    // Folder markers of consoles and other people's objects: never ours.
                    Err(error) => tracing::debug!(%error, "skipping a foreign object"),
                }
            }
        })
        .await?;
        if let Some(start_after) = start_after {
            found.retain(|info| info.name.as_str() > start_after);
        }
        found.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(found)
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut found = Vec::new();
        self.pages(Operation::ListFolders, prefix, None, Some("/"), |page| {
            for folder in page.common_prefixes() {
                let name = folder
                    .prefix()
                    .and_then(|folder| folder.strip_prefix(prefix))
                    .and_then(|folder| folder.strip_suffix('/'));
                match name {
                    Some(name) if !name.is_empty() => found.push(name.to_owned()),
                    _ => {}
                }
            }
        })
        .await?;
        found.sort();
        found.dedup();
        Ok(found)
    }

    async fn delete(&self, names: &[ObjectName]) -> Result<(), StoreError> {
        if let [name] = names {
            return self.delete_one(name).await;
        }
        for batch in names.chunks(DELETE_BATCH) {
            if !self.shared.no_delete_objects.load(Ordering::Relaxed) {
                match self.delete_batch(batch).await {
                    Ok(()) => continue,
                    Err(BatchError::Failed(error)) => return Err(error),
                    Err(BatchError::Refused) => {
                        tracing::debug!(store = %self.describe(), "the store refuses DeleteObjects, deleting one by one");
                        self.shared.no_delete_objects.store(true, Ordering::Relaxed);
                    }
                }
            }
            for group in batch.chunks(DELETE_PARALLEL) {
                try_join_all(group.iter().map(|name| self.delete_one(name))).await?;
            }
        }
        Ok(())
    }

    async fn begin_upload(&self, name: &ObjectName, mode: PutMode) -> Result<Box<dyn Upload>, StoreError> {
        Ok(Box::new(S3Upload::begin(self.clone(), name, mode).await?))
    }

    fn describe(&self) -> String {
        self.shared.describe()
    }
}

/// The last bytes of a buffer, without a copy.
fn last(whole: &Bytes, bytes: u64) -> Bytes {
    let keep = usize::try_from(bytes).unwrap_or(usize::MAX).min(whole.len());
    whole.slice(whole.len() - keep..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_nonsense_is_not() {
        assert_eq!(whole_size("bytes 0-9/1234"), Some(1234));
        assert_eq!(whole_size("bytes 0-9/*"), None);
        assert_eq!(whole_size("nonsense"), None);
        let full = Some(&ChecksumType::FullObject);
        let composite = Some(&ChecksumType::Composite);
        let (plain, of_parts) = (Some("\"abc\""), Some("\"abc-3\""));
        assert_eq!(whole_crc32c(Some("AAAAAQ=="), full, plain), Some(1));
        assert_eq!(whole_crc32c(Some("AAAAAQ=="), full, of_parts), None);
        assert_eq!(whole_crc32c(Some("AAAAAQ=="), None, plain), Some(1));
        assert_eq!(whole_crc32c(Some("AAAAAQ=="), None, of_parts), None);
        assert_eq!(whole_crc32c(Some("AAAAAQ=="), None, None), None);
        assert_eq!(whole_crc32c(Some("AAAAAQ=="), composite, plain), None);
        assert_eq!(whole_crc32c(Some("AAAAAQ==-3"), full, plain), None);
        assert_eq!(whole_crc32c(Some("AAAA"), full, plain), None);
        assert_eq!(whole_crc32c(None, full, plain), None);
        assert_eq!(last(&Bytes::from_static(b"abc"), 2), "bc");
        assert_eq!(last(&Bytes::from_static(b"abc"), u64::MAX), "abc");
    }

    #[test]
    fn the_content_md5_is_that_of_the_body() {
        let mut request = HttpRequest::new(aws_sdk_s3::primitives::SdkBody::from("Check Integrity!"));
        add_content_md5(&mut request);
        assert_eq!(request.headers().get("content-md5"), Some("nwqq6b6ua/tTDk7B5M184w=="));
    }
}
