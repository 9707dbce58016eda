//! PUT: one request, with the checksum and the condition as far as the store accepts them.

use std::sync::atomic::Ordering;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::put_object::{PutObjectError, PutObjectOutput};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::delete::add_content_md5;
use super::lock::Lock;
use super::shared::Shared;
use crate::{ConditionalCreate, ObjectName, Operation, PutMode, StoreError};

impl Shared {
    /// Stores an object. With [`PutMode::Create`] an object that is there is not overwritten, also where the store
    /// refuses the condition.
    pub(super) async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        if mode == PutMode::Create && self.capabilities.create == ConditionalCreate::Emulated {
            self.must_be_absent(Operation::Put, name).await?;
        }
        match self.put_checked(name, body.clone(), mode).await {
            Err(error) if self.may_refuse_condition(&error, mode, &self.no_condition) => {
                // If the condition was not the reason, this fails as well. An object that came meanwhile is not
                // overwritten.
                self.must_be_absent(Operation::Put, name).await?;
                self.put_checked(name, body, PutMode::Overwrite).await.map_err(|_| error)?;
                self.no_condition.store(true, Ordering::Relaxed);
                Ok(())
            }
            result => result,
        }
    }

    /// A PUT with our checksum; without it if the store refuses that header.
    async fn put_checked(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let checksum = self.checksum(crc32c::crc32c(&body));
        let with_checksum = checksum.is_some();
        match self.put_once(name, body.clone(), mode, checksum).await {
            Err(error) if with_checksum && self.may_refuse_checksums(&error) => {
                // If the checksum was not the reason, this fails as well, and the first error is returned.
                self.put_once(name, body, mode, None).await.map_err(|_| error)?;
                self.remember_no_checksums();
                Ok(())
            }
            result => result,
        }
    }

    /// One PUT, with or without our checksum.
    async fn put_once(
        &self,
        name: &ObjectName,
        body: Bytes,
        mode: PutMode,
        checksum: Option<String>,
    ) -> Result<(), StoreError> {
        match self.patience.while_moving(self.send_put(name, body.into(), mode, checksum, false)).await {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(self.error(Operation::Put, name.as_str(), error)),
            None => Err(self.still(Operation::Put, name.as_str())),
        }
    }

    /// One PUT with the SDK's own result. `unsigned` leaves the body out of the signature, also without TLS.
    pub(super) async fn send_put(
        &self,
        name: &ObjectName,
        body: ByteStream,
        mode: PutMode,
        checksum: Option<String>,
        unsigned: bool,
    ) -> Result<PutObjectOutput, SdkError<PutObjectError, HttpResponse>> {
        let settings = &self.settings;
        let lock = self.lock_of(name);
        let without_checksum = lock.is_some() && checksum.is_none();
        let limits = self.patience.sending(body.size_hint().0);
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(name.as_str())
            .set_checksum_crc32_c(checksum)
            .set_if_none_match(Shared::if_none_match(mode, &self.no_condition))
            .set_storage_class(settings.storage_class.clone())
            .set_tagging(settings.tagging.clone())
            .set_server_side_encryption(settings.server_side_encryption.clone())
            .set_ssekms_key_id(settings.kms_key_id.clone())
            .set_sse_customer_algorithm(settings.customer_algorithm())
            .set_sse_customer_key(settings.customer_key())
            .set_sse_customer_key_md5(settings.customer_key_md5())
            .set_object_lock_mode(lock.map(Lock::mode))
            .set_object_lock_retain_until_date(lock.map(Lock::end))
            .body(body)
            .customize()
            .config_override(limits)
            .mutate_request(Shared::name_checksum);
        let request = if settings.tls || unsigned { request.disable_payload_signing() } else { request };
        // A locked object must come with a checksum of some kind.
        let request = if without_checksum { request.mutate_request(add_content_md5) } else { request };
        request.send().await
    }
}
