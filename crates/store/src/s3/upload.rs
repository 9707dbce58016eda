//! [`S3Upload`]: a multipart upload.
//!
//! The request that begins the upload asks for checksums. The answer repeats what the store understood: then parts
//! carry their CRC-32C, and the request to complete carries the CRC-32C of the whole object, which the store checks and
//! keeps. If the answer repeats nothing, that request carries neither. Each part is still sent with its checksum unless
//! the store refuses the header.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use parking_lot::Mutex;

use super::lock::Lock;
use super::shared::Shared;
use crate::parts::total_size;
use crate::{ObjectName, Operation, PutMode, StoreError, StoreErrorKind, Upload};

#[derive(Debug)]
pub(super) struct S3Upload {
    shared: Arc<Shared>,
    name: ObjectName,
    mode: PutMode,
    id: String,
    checksums: Checksums,
    parts: Mutex<BTreeMap<u32, Part>>,
}

/// What the store understood of our request for checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksums {
    None,
    /// Checksums of the parts; the object's is made from them.
    Parts,
    /// Checksums of the parts and of the whole object.
    Whole,
}

#[derive(Clone, Debug)]
struct Part {
    size_bytes: usize,
    crc32c: u32,
    etag: Option<String>,
}

impl S3Upload {
    pub(super) async fn begin(shared: Arc<Shared>, name: &ObjectName, mode: PutMode) -> Result<Self, StoreError> {
        let lock = shared.lock_of(name);
        Self::begin_locked(shared, name, mode, lock).await
    }

    /// As [`Self::begin`], with this lock.
    pub(super) async fn begin_locked(
        shared: Arc<Shared>,
        name: &ObjectName,
        mode: PutMode,
        lock: Option<Lock>,
    ) -> Result<Self, StoreError> {
        let refused = shared.no_checksums.load(Ordering::Relaxed);
        let (id, checksums) = match Self::create(&shared, name, !refused, lock).await {
            Err(error) if !refused && shared.may_refuse_checksums(&error) => {
                let created = Self::create(&shared, name, false, lock).await.map_err(|_| error)?;
                shared.remember_no_checksums();
                created
            }
            result => result?,
        };
        Ok(Self { shared, name: name.clone(), mode, id, checksums, parts: Mutex::default() })
    }

    async fn create(
        shared: &Shared,
        name: &ObjectName,
        checksums: bool,
        lock: Option<Lock>,
    ) -> Result<(String, Checksums), StoreError> {
        let settings = &shared.settings;
        let output = shared
            .client
            .create_multipart_upload()
            .bucket(&shared.bucket)
            .key(name.as_str())
            .set_checksum_algorithm(checksums.then_some(ChecksumAlgorithm::Crc32C))
            .set_checksum_type(checksums.then_some(ChecksumType::FullObject))
            .set_storage_class(settings.storage_class.clone())
            .set_tagging(settings.tagging.clone())
            .set_server_side_encryption(settings.server_side_encryption.clone())
            .set_ssekms_key_id(settings.kms_key_id.clone())
            .set_sse_customer_algorithm(settings.customer_algorithm())
            .set_sse_customer_key(settings.customer_key())
            .set_sse_customer_key_md5(settings.customer_key_md5())
            .set_object_lock_mode(lock.map(Lock::mode))
            .set_object_lock_retain_until_date(lock.map(Lock::end))
            .send()
            .await
            .map_err(|error| shared.error(Operation::BeginUpload, name.as_str(), error))?;
        let understood = match (output.checksum_algorithm(), output.checksum_type()) {
            (Some(ChecksumAlgorithm::Crc32C), Some(ChecksumType::FullObject)) => Checksums::Whole,
            (Some(ChecksumAlgorithm::Crc32C), _) => Checksums::Parts,
            _ => Checksums::None,
        };
        match output.upload_id() {
            Some(id) => Ok((id.to_owned(), understood)),
            None => Err(shared.fail(
                Operation::BeginUpload,
                name.as_str(),
                StoreErrorKind::Other,
                "the answer has no upload id".to_owned(),
            )),
        }
    }

    /// Completes without a HEAD: only the condition protects an existing object.
    pub(super) async fn complete_without_looking(&self) -> Result<(), StoreError> {
        let shared = &self.shared;
        let refused = &shared.no_condition_by_parts;
        match self.complete_once(Shared::if_none_match(self.mode, refused)).await {
            Err(error) if shared.may_refuse_condition(&error, self.mode, refused) => {
                // If the condition was not the reason, this fails as well, and the first error is returned.
                self.complete_once(None).await.map_err(|_| error)?;
                refused.store(true, Ordering::Relaxed);
                Ok(())
            }
            result => result,
        }
    }

    async fn complete_once(&self, condition: Option<String>) -> Result<(), StoreError> {
        let shared = &self.shared;
        let name = self.name.as_str();
        let parts = self.parts.lock().clone();
        let sizes = parts.iter().map(|(number, part)| (*number, part.size_bytes as u64)).collect();
        let total = total_size(&sizes)
            .map_err(|detail| shared.fail(Operation::Complete, name, StoreErrorKind::InvalidConfig, detail))?;
        if parts.is_empty() {
            return self.put_empty().await;
        }
        let mut list = CompletedMultipartUpload::builder();
        let mut whole = 0;
        for (number, part) in &parts {
            whole = crc32c::crc32c_combine(whole, part.crc32c, part.size_bytes);
            let checksum = (self.checksums != Checksums::None).then(|| BASE64.encode(part.crc32c.to_be_bytes()));
            list = list.parts(
                CompletedPart::builder()
                    .set_part_number(i32::try_from(*number).ok())
                    .set_e_tag(part.etag.clone())
                    .set_checksum_crc32_c(checksum)
                    .build(),
            );
        }
        let mut request = shared
            .client
            .complete_multipart_upload()
            .bucket(&shared.bucket)
            .key(name)
            .upload_id(&self.id)
            .multipart_upload(list.build())
            .set_if_none_match(condition)
            .set_sse_customer_algorithm(shared.settings.customer_algorithm())
            .set_sse_customer_key(shared.settings.customer_key())
            .set_sse_customer_key_md5(shared.settings.customer_key_md5());
        if self.checksums == Checksums::Whole {
            request = request
                .checksum_type(ChecksumType::FullObject)
                .checksum_crc32_c(BASE64.encode(whole.to_be_bytes()))
                .set_mpu_object_size(i64::try_from(total).ok());
        }
        match request.send().await {
            Ok(_) => shared.lock_completed(&self.name).await,
            Err(error) => Err(shared.error(Operation::Complete, name, error)),
        }
    }

    /// An upload without parts cannot be completed: S3 wants at least one.
    async fn put_empty(&self) -> Result<(), StoreError> {
        self.shared.put(&self.name, Bytes::new(), self.mode).await?;
        // The object is stored; an upload that remains does no harm.
        if let Err(error) = self.try_abort().await {
            tracing::debug!(%error, name = %self.name, "an empty upload could not be removed");
        }
        Ok(())
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn part(&self, number: u32, body: Bytes) -> Result<(), StoreError> {
        let shared = &self.shared;
        let settings = &shared.settings;
        let crc32c = crc32c::crc32c(&body);
        let size_bytes = body.len();
        let fail = |kind, detail: &str| shared.fail(Operation::Part, self.name.as_str(), kind, detail.to_owned());
        let part_number =
            i32::try_from(number).map_err(|_| fail(StoreErrorKind::InvalidConfig, "the part's number is too large"))?;
        let request = shared
            .client
            .upload_part()
            .bucket(&shared.bucket)
            .key(self.name.as_str())
            .upload_id(&self.id)
            .part_number(part_number)
            .set_checksum_crc32_c(shared.checksum(crc32c))
            .set_sse_customer_algorithm(settings.customer_algorithm())
            .set_sse_customer_key(settings.customer_key())
            .set_sse_customer_key_md5(settings.customer_key_md5())
            .body(ByteStream::from(body))
            .customize()
            .config_override(shared.patience.sending(size_bytes as u64))
            .mutate_request(Shared::name_checksum);
        let request = if settings.tls { request.disable_payload_signing() } else { request };
        let Some(output) = shared.patience.while_moving(request.send()).await else {
            return Err(shared.still(Operation::Part, self.name.as_str()));
        };
        let output = output.map_err(|error| shared.error(Operation::Part, self.name.as_str(), error))?;
        let part = Part { size_bytes, crc32c, etag: output.e_tag().map(str::to_owned) };
        self.parts.lock().insert(number, part);
        Ok(())
    }

    async fn try_complete(&self) -> Result<(), StoreError> {
        let is_empty = self.parts.lock().is_empty();
        if self.mode == PutMode::Create && !is_empty {
            self.shared.must_be_absent(Operation::Complete, &self.name).await?;
        }
        self.complete_without_looking().await
    }

    async fn try_abort(&self) -> Result<(), StoreError> {
        self.shared.abort_upload(self.name.as_str(), &self.id).await
    }
}
