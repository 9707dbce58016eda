//! [`S3Store`]: any store that speaks S3, through aws-sdk-s3. Each call is one attempt; [`crate::Retry`] repeats.
//!
//! # Writes
//! - Every body carries its CRC-32C (`x-amz-checksum-crc32c`), which the store checks on arrival, and keeps if it can.
//!   If the store refuses the header, the request is repeated once without it, and later requests do not send it.
//! - [`PutMode::Create`] is `If-None-Match: *`, on PUT and on completing a multipart upload; 412 means that the name is
//!   taken; 409 means that another write is under way, and the request is repeated.
//! - With [`ConditionalCreate::Emulated`] a HEAD comes before the PUT, and the condition is sent all the same: the
//!   record is not encrypted and can be changed, and a 412 is always believed. Before an upload is completed there is a
//!   HEAD in either case: some stores know the condition on PUT only.
//! - Over TLS the SDK does not hash the body for its signature: TLS and CRC-32C protect it already, and SHA-256 would
//!   cost more than compression at the fastest level.
//!
//! # Reads
//! - A whole object that was written in one piece is checked against the CRC-32C that the store keeps. Ranges and
//!   objects made of parts are not checked here: the frames in our objects carry their own checksums.
//! - A HEAD has no body, so a 404 cannot say whether the object or the bucket is missing. [`Store::head`] asks again
//!   with a GET of one byte before it says `NotFound`.
//!
//! # After a crash
//! Multipart uploads that were not completed stay in the bucket and do not appear in listings; a lifecycle rule
//! (`AbortIncompleteMultipartUpload`) removes them.

mod client;
mod credentials;
mod delete;
mod dial;
mod errors;
mod http;
mod lock;
mod lock_trials;
mod patience;
mod put;
mod receive;
mod settings;
mod shared;
mod trials;
mod tunnel;
mod unfinished;
mod upload;
mod whole;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_s3::config::http::HttpRequest;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::CommonPrefix;
use bytes::Bytes;

use crate::{
    Checksums, Failure, FolderPage, ListPage, Location, LockTerm, NextUploads, ObjectInfo, ObjectName, Operation,
    PutMode, Store, StoreConfig, StoreError, StoreErrorKind, Trials, UnfinishedPage, UnfinishedUpload, Upload, Uploads,
    check_size,
};
use errors::judge;
use patience::Patience;
use receive::{Unreceived, last, receive, system_time, whole_crc32c, whole_size};
use settings::Settings;
use shared::Shared;
use upload::S3Upload;
use whole::WholeUpload;

/// A bucket. Names are keys; [`crate::Prefixed`] adds the prefix of a repository.
#[derive(Clone, Debug)]
pub struct S3Store {
    shared: Arc<Shared>,
}

impl S3Store {
    /// Builds the client, without a request to the store.
    ///
    /// # Errors
    /// `InvalidConfig` if the location is not S3 or the CA file cannot be used.
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
        let Location::S3 { bucket, prefix } = &config.location else {
            return Err(wrong("the location is not s3://".to_owned()));
        };
        config.proxy().map_err(|error| wrong(error.to_string()))?;
        let (client, proxy) = client::build(config).await.map_err(wrong)?;
        Ok(Self {
            shared: Arc::new(Shared {
                client,
                bucket: bucket.clone(),
                endpoint: config.s3.endpoint.clone(),
                proxy,
                settings: Settings::new(&config.s3),
                folder: prefix.as_ref().map(|prefix| format!("{prefix}/")).unwrap_or_default(),
                capabilities: config.capabilities,
                patience: Patience::new(config.timeouts, config.hurry.clone()),
                no_checksums: AtomicBool::new(false),
                no_delete_objects: AtomicBool::new(false),
                no_condition: AtomicBool::new(false),
                no_condition_by_parts: AtomicBool::new(false),
            }),
        })
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

    /// The body of an answer, under the time limits of its size.
    async fn body(
        &self,
        operation: Operation,
        name: &ObjectName,
        output: GetObjectOutput,
    ) -> Result<Bytes, StoreError> {
        self.body_at_most(operation, name, output, u64::MAX).await
    }

    /// As [`Self::body`], but stops soon after `most` bytes.
    async fn body_at_most(
        &self,
        operation: Operation,
        name: &ObjectName,
        output: GetObjectOutput,
        most: u64,
    ) -> Result<Bytes, StoreError> {
        let fail = |kind, detail| self.shared.fail(operation, name.as_str(), kind, detail);
        let length = output.content_length().and_then(|length| usize::try_from(length).ok());
        let patience = &self.shared.patience;
        let limit = patience.limit(length.unwrap_or(0) as u64);
        match tokio::time::timeout(limit, receive(output.body, length, most, patience.silence())).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(Unreceived::Broken(error))) => Err(fail(StoreErrorKind::Unreachable, error)),
            Ok(Err(Unreceived::Still)) => {
                Err(fail(StoreErrorKind::Timeout, format!("no byte of the body came for {:?}", patience.silence())))
            }
            Err(_) => Err(fail(StoreErrorKind::Timeout, format!("the body did not come within {limit:?}"))),
        }
    }

    /// One page of a listing, and the token for the next one.
    async fn page(
        &self,
        operation: Operation,
        prefix: &str,
        start_after: Option<&str>,
        delimiter: Option<&str>,
        token: Option<&str>,
    ) -> Result<(ListObjectsV2Output, Option<String>), StoreError> {
        let page = self
            .shared
            .client
            .list_objects_v2()
            .bucket(&self.shared.bucket)
            .prefix(prefix)
            .set_start_after(start_after.map(str::to_owned))
            .set_delimiter(delimiter.map(str::to_owned))
            .set_continuation_token(token.map(str::to_owned))
            .send()
            .await
            .map_err(|error| self.shared.error(operation, prefix, error))?;
        if !page.is_truncated().unwrap_or(false) {
            return Ok((page, None));
        }
        let next = page.next_continuation_token().map(str::to_owned);
        // A listing that does not advance would silently miss objects.
        if next.is_none() || next.as_deref() == token {
            return Err(self.shared.fail(
                operation,
                prefix,
                StoreErrorKind::Other,
                "the listing is incomplete and names no next page".to_owned(),
            ));
        }
        Ok((page, next))
    }
}

/// Whether no name can begin with this prefix; MinIO answers such a listing with an error.
fn can_hold_nothing(prefix: &str) -> bool {
    prefix.rsplit('/').skip(1).any(|part| part == "." || part == "..")
}

/// Asks for the checksum without the SDK's own check of it, which would report a mismatch as a broken connection.
fn ask_for_checksum(request: &mut HttpRequest) {
    request.headers_mut().insert("x-amz-checksum-mode", "ENABLED");
}

#[async_trait]
impl Store for S3Store {
    async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        self.shared.put(name, body, mode).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.get_at_most(name, u64::MAX).await
    }

    async fn get_at_most(&self, name: &ObjectName, most: u64) -> Result<Bytes, StoreError> {
        let output = self
            .get_request(name)
            .customize()
            .mutate_request(ask_for_checksum)
            .send()
            .await
            .map_err(|error| self.shared.error(Operation::Get, name.as_str(), error))?;
        let expected = whole_crc32c(output.checksum_crc32_c(), output.checksum_type(), output.e_tag());
        let announced = output.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or_default();
        check_size(&self.describe(), name, announced, most)?;
        let bytes = self.body_at_most(Operation::Get, name, output, most).await?;
        check_size(&self.describe(), name, bytes.len() as u64, most)?;
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
                // An empty object has no last byte, and some stores refuse a suffix longer than the object, even with a
                // 500. The size shows whether that was the reason.
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
                    // The error is judged as that of a GET: the object is absent only if the store names the key.
                    Err(error) => {
                        let judged = judge(Operation::Get, &error);
                        self.shared.judged(Operation::Head, name.as_str(), judged, Some(error.into()))
                    }
                    Ok(_) => self.shared.fail(
                        Operation::Head,
                        name.as_str(),
                        StoreErrorKind::Unreachable,
                        "the object was created while it was being read".to_owned(),
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
            crc32c: match self.shared.capabilities.checksums {
                Checksums::Kept => Shared::head_crc32c(&output),
                Checksums::NotCompared => None,
            },
            modified: system_time(output.last_modified()),
        })
    }

    async fn list_page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        next: Option<&str>,
    ) -> Result<ListPage, StoreError> {
        if can_hold_nothing(prefix) {
            return Ok(ListPage::default());
        }
        // MinIO refuses a start that does not begin with the prefix; such a start is before all names or after all
        // names.
        let inside = start_after.filter(|after| after.starts_with(prefix));
        if inside.is_none() && start_after.is_some_and(|after| after > prefix) {
            return Ok(ListPage::default());
        }
        let (page, next) = self.page(Operation::List, prefix, inside, None, next).await?;
        let mut objects = Vec::new();
        for object in page.contents() {
            let Some(key) = object.key() else { continue };
            // Not every store supports `start-after`.
            if start_after.is_some_and(|after| key <= after) {
                continue;
            }
            match ObjectName::new(key) {
                Ok(name) => objects.push(ObjectInfo {
                    name,
                    size_bytes: object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                    crc32c: None,
                    modified: system_time(object.last_modified()),
                }),
                // Folder markers of consoles, and objects that are not ours.
                Err(error) => tracing::debug!(%error, "skipping a foreign object"),
            }
        }
        Ok(ListPage { objects, next })
    }

    async fn list_folders_page(&self, prefix: &str, next: Option<&str>) -> Result<FolderPage, StoreError> {
        if can_hold_nothing(prefix) {
            return Ok(FolderPage::default());
        }
        let (page, next) = self.page(Operation::ListFolders, prefix, None, Some("/"), next).await?;
        let name = |folder: &CommonPrefix| {
            let name = folder.prefix()?.strip_prefix(prefix)?.strip_suffix('/')?;
            (!name.is_empty()).then(|| name.to_owned())
        };
        Ok(FolderPage { folders: page.common_prefixes().iter().filter_map(name).collect(), next })
    }

    async fn delete_some(&self, names: &[ObjectName]) -> Result<usize, StoreError> {
        delete::delete_some(&self.shared, names).await
    }

    async fn begin_upload(&self, name: &ObjectName, mode: PutMode) -> Result<Box<dyn Upload>, StoreError> {
        match self.shared.capabilities.uploads {
            Uploads::Parts => Ok(Box::new(S3Upload::begin(Arc::clone(&self.shared), name, mode).await?)),
            Uploads::Whole => Ok(Box::new(WholeUpload::new(Arc::clone(&self.shared), name, mode))),
        }
    }

    async fn trials(&self, scratch: &ObjectName) -> Result<Trials, StoreError> {
        trials::run(&self.shared, scratch).await
    }

    async fn unfinished_page(
        &self,
        prefix: &str,
        next: Option<&NextUploads>,
    ) -> Result<Option<UnfinishedPage>, StoreError> {
        unfinished::page(&self.shared, prefix, next).await
    }

    async fn abort_unfinished(&self, upload: &UnfinishedUpload) -> Result<(), StoreError> {
        self.shared.abort_upload(upload.name.as_str(), &upload.id).await
    }

    fn lock(&self) -> Option<LockTerm> {
        self.shared.settings.lock.map(|lock| lock.term)
    }

    async fn locked_until(&self, name: &ObjectName) -> Result<Option<SystemTime>, StoreError> {
        self.shared.locked_until(name).await
    }

    async fn lock_until(&self, name: &ObjectName, end: SystemTime) -> Result<(), StoreError> {
        self.shared.lock_until(name, end).await
    }

    fn describe(&self) -> String {
        self.shared.describe()
    }
}
