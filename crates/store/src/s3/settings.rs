//! The headers of every write (storage class, tags, encryption), and the SSE-C headers, which reads need as well.

use std::collections::BTreeMap;

use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::Digest;

use holdfast_secret::Secret;

use crate::{Encryption, ObjectLock, S3Config};

/// The settings of the requests, prepared once for a store.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) storage_class: Option<StorageClass>,
    pub(super) tagging: Option<String>,
    /// The tags as configured.
    pub(super) tags: BTreeMap<String, String>,
    pub(super) server_side_encryption: Option<ServerSideEncryption>,
    pub(super) kms_key_id: Option<String>,
    /// Whether requests travel over TLS.
    pub(super) tls: bool,
    /// Locks of new objects.
    pub(super) lock: Option<ObjectLock>,
    customer: Option<CustomerKey>,
}

/// An SSE-C key in the form of its headers.
#[derive(Debug)]
struct CustomerKey {
    key: Secret,
    md5: String,
}

impl Settings {
    pub(super) fn new(config: &S3Config) -> Self {
        let (server_side_encryption, kms_key_id, customer) = match &config.encryption {
            Encryption::None => (None, None, None),
            Encryption::S3 => (Some(ServerSideEncryption::Aes256), None, None),
            Encryption::Kms { key_id } => (Some(ServerSideEncryption::AwsKms), key_id.clone(), None),
            Encryption::Customer { key } => {
                let customer = CustomerKey {
                    key: Secret::new(BASE64.encode(key.expose())),
                    md5: BASE64.encode(md5::Md5::digest(key.expose())),
                };
                (None, None, Some(customer))
            }
        };
        let pairs: Vec<String> = config
            .tags
            .iter()
            .map(|(key, value)| format!("{}={}", percent_encoded(key), percent_encoded(value)))
            .collect();
        Self {
            storage_class: config.storage_class.as_deref().map(StorageClass::from),
            tags: config.tags.clone(),
            tagging: (!pairs.is_empty()).then(|| pairs.join("&")),
            server_side_encryption,
            kms_key_id,
            tls: !config.endpoint.as_deref().is_some_and(|url| url.starts_with("http://")),
            lock: config.lock,
            customer,
        }
    }

    /// Whether writes carry any setting.
    pub(super) fn any(&self) -> bool {
        self.storage_class.is_some()
            || !self.tags.is_empty()
            || self.server_side_encryption.is_some()
            || self.customer.is_some()
    }

    pub(super) fn customer_algorithm(&self) -> Option<String> {
        self.customer.as_ref().map(|_| "AES256".to_owned())
    }

    pub(super) fn customer_key(&self) -> Option<String> {
        self.customer.as_ref().map(|customer| customer.key.expose().to_owned())
    }

    pub(super) fn customer_key_md5(&self) -> Option<String> {
        self.customer.as_ref().map(|customer| customer.md5.clone())
    }
}

/// Percent-encodes by RFC 3986: `x-amz-tagging` is a query string.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for nibble in [byte >> 4, byte & 15] {
                encoded.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_encoded_as_a_query() {
        let config = S3Config {
            tags: [("team", "data & co"), ("ü", "a=b")].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..S3Config::default()
        };
        assert_eq!(Settings::new(&config).tagging.as_deref(), Some("team=data%20%26%20co&%C3%BC=a%3Db"));
        assert_eq!(Settings::new(&S3Config::default()).tagging, None);
    }

    #[test]
    fn customer_keys_become_three_headers_and_do_not_print() {
        let config = S3Config { encryption: Encryption::Customer { key: Secret::new([0; 32]) }, ..S3Config::default() };
        let settings = Settings::new(&config);
        assert_eq!(settings.customer_algorithm().as_deref(), Some("AES256"));
        assert_eq!(settings.customer_key().as_deref(), Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="));
        assert_eq!(settings.customer_key_md5().as_deref(), Some("cLyPS3KoaSFGi/joRB3OUQ=="));
        assert!(!format!("{settings:?}").contains("AAAAAAAA"));
    }
}
