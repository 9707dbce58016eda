//! What all requests to one bucket share: the client, the settings, and how an answer becomes an error.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::ChecksumMode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::errors::{Judged, judge, judged};
use super::patience::Patience;
use super::receive::whole_crc32c;
use super::settings::Settings;
use crate::error::NO_CREDENTIALS_CAME;
use crate::{Capabilities, ConditionalCreate, Failure, ObjectName, Operation, PutMode, StoreError, StoreErrorKind};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) bucket: String,
    /// For messages; `None` for AWS.
    pub(super) endpoint: Option<String>,
    /// For messages: the proxy that requests used, and its variable.
    pub(super) proxy: Arc<OnceLock<String>>,
    pub(super) settings: Settings,
    /// The folder in the bucket that the caller's names do not have; it ends in '/' unless it is empty.
    pub(super) folder: String,
    /// What is known about the store.
    pub(super) capabilities: Capabilities,
    pub(super) patience: Patience,
    /// Set after the store refused our checksum headers.
    pub(super) no_checksums: AtomicBool,
    /// Set after the store refused DeleteObjects.
    pub(super) no_delete_objects: AtomicBool,
    /// Set after a store whose record says that it ignores conditions refused the header: here on a PUT, below on
    /// completing an upload.
    pub(super) no_condition: AtomicBool,
    pub(super) no_condition_by_parts: AtomicBool,
}

impl Shared {
    pub(super) fn describe(&self) -> String {
        format!("s3://{}", self.bucket)
    }

    pub(super) fn fail(&self, operation: Operation, name: &str, kind: StoreErrorKind, detail: String) -> StoreError {
        let store = self.describe();
        let name = name.to_owned();
        StoreError::new(kind, Failure { store, name, operation, detail, source: None })
    }

    pub(super) fn judged(
        &self,
        operation: Operation,
        name: &str,
        judged: Judged,
        source: Option<Box<dyn Error + Send + Sync>>,
    ) -> StoreError {
        use StoreErrorKind as Kind;
        // The store was not asked.
        let of_store = !judged.detail.starts_with(NO_CREDENTIALS_CAME);
        let mut detail = match (&self.endpoint, judged.kind) {
            // The reader must first know which server does not answer.
            (Some(endpoint), Kind::Unreachable | Kind::Timeout) if of_store => {
                format!("{endpoint}: {}", judged.detail)
            }
            _ => judged.detail,
        };
        let may_be_of_proxy = match judged.kind {
            Kind::Unreachable | Kind::Timeout | Kind::Other | Kind::ProxyRefused => of_store,
            // A store names its reason by an S3 code; a proxy has no such codes.
            Kind::PermissionDenied => judged.code.is_empty(),
            _ => false,
        };
        if let Some(proxy) = self.proxy.get().filter(|_| may_be_of_proxy) {
            detail.push_str(proxy);
        }
        let mut error = self.fail(operation, name, judged.kind, detail);
        error.failure_mut().source = source;
        error
    }

    /// A request was given up because no byte moved.
    pub(super) fn still(&self, operation: Operation, name: &str) -> StoreError {
        let detail = format!("no byte came or went for {:?}", self.patience.silence());
        self.judged(operation, name, judged(StoreErrorKind::Timeout, detail), None)
    }

    pub(super) fn error<E>(&self, operation: Operation, name: &str, error: SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let judged = judge(operation, &error);
        self.judged(operation, name, judged, Some(error.into()))
    }

    pub(super) fn invalid(&self, names: &[ObjectName], error: &dyn Error) -> StoreError {
        let first = names.first().map_or("", ObjectName::as_str);
        self.fail(Operation::Delete, first, StoreErrorKind::InvalidConfig, error.to_string())
    }

    /// The condition of a write. It is also sent to a store whose record says that it ignores conditions: the record
    /// can be changed by anyone who may write to the bucket, and a store that knows conditions still refuses to
    /// overwrite. A store that ignores them loses nothing, and a store that refuses the header gets it only once
    /// ([`Self::may_refuse_condition`]).
    pub(super) fn if_none_match(mode: PutMode, refused: &AtomicBool) -> Option<String> {
        (mode == PutMode::Create && !refused.load(Ordering::Relaxed)).then(|| "*".to_owned())
    }

    /// Whether the condition may be the reason for a refusal, on a store that was seen to ignore it. On any other store
    /// the refusal is final.
    pub(super) fn may_refuse_condition(&self, error: &StoreError, mode: PutMode, refused: &AtomicBool) -> bool {
        mode == PutMode::Create
            && self.capabilities.create == ConditionalCreate::Emulated
            && matches!(
                error.kind(),
                StoreErrorKind::InvalidConfig | StoreErrorKind::Unsupported | StoreErrorKind::Other
            )
            && !refused.load(Ordering::Relaxed)
    }

    /// The value of our checksum header, unless the store refuses it.
    pub(super) fn checksum(&self, crc32c: u32) -> Option<String> {
        (!self.no_checksums.load(Ordering::Relaxed)).then(|| encoded(crc32c))
    }

    /// Names the algorithm of the checksum in another header: without it, Ceph 20 ignores the checksum.
    pub(super) fn name_checksum(request: &mut HttpRequest) {
        if request.headers().get("x-amz-checksum-crc32c").is_some() {
            request.headers_mut().insert("x-amz-sdk-checksum-algorithm", "CRC32C");
        }
    }

    /// Whether the checksum header may be the reason for a refusal, which stores older than 2022 do not know.
    pub(super) fn may_refuse_checksums(&self, error: &StoreError) -> bool {
        matches!(error.kind(), StoreErrorKind::InvalidConfig | StoreErrorKind::Unsupported)
            && !self.no_checksums.load(Ordering::Relaxed)
    }

    pub(super) fn remember_no_checksums(&self) {
        if !self.no_checksums.swap(true, Ordering::Relaxed) {
            tracing::warn!(store = %self.describe(), "the store refuses CRC-32C headers; writing without them");
        }
    }

    /// The checksum that the store returns for an object.
    pub(super) fn head_crc32c(head: &HeadObjectOutput) -> Option<u32> {
        whole_crc32c(head.checksum_crc32_c(), head.checksum_type(), head.e_tag())
    }

    /// One HEAD with the SDK's own result: a 404 may mean a missing bucket.
    pub(super) async fn head_once(
        &self,
        operation: Operation,
        name: &ObjectName,
    ) -> Result<HeadObjectOutput, StoreError> {
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

    /// `AlreadyExists` if the object is there. If the bucket is missing, the write that follows says so.
    pub(super) async fn must_be_absent(&self, operation: Operation, name: &ObjectName) -> Result<(), StoreError> {
        match self.head_once(operation, name).await {
            Ok(_) => Err(self.fail(operation, name.as_str(), StoreErrorKind::AlreadyExists, String::new())),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes the parts of an upload.
    pub(super) async fn abort_upload(&self, name: &str, id: &str) -> Result<(), StoreError> {
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(name).upload_id(id);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => match self.error(Operation::Abort, name, error) {
                error if error.kind() == StoreErrorKind::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }
}

/// A CRC-32C in the form of its header.
pub(super) fn encoded(crc32c: u32) -> String {
    BASE64.encode(crc32c.to_be_bytes())
}
