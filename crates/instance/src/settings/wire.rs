//! How instances connect to PostgreSQL on each other: over TLS with certificates, or, if the image's PostgreSQL was
//! built without TLS, with a password. Pure but for reading the key.
//!
//! A PostgreSQL without TLS cannot offer TLS to clients either. The manager logs a warning and continues. The password
//! is derived from the replication user's private key, which only the instances of the cluster have. So it needs no
//! Secret of its own, and changes with the key. SCRAM never sends the password, but replicated data is not encrypted.

use crate::error::{Error, Result};
use crate::identity::Paths;
use aws_lc_rs::hmac;
use holdfast_secret::Secret;

/// The purpose of the derivation, so that the same key gives no other password by accident.
const PURPOSE: &[u8] = b"holdfast replication password 1";

/// How instances connect to PostgreSQL on each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    /// TLS, with a certificate on both sides.
    Tls,
    /// A password, without TLS.
    Password(Secret),
}

impl Wire {
    /// The way that this build of PostgreSQL allows.
    ///
    /// # Errors
    /// When the key cannot be read.
    pub fn choose(has_tls: bool, paths: &Paths) -> Result<Self> {
        if has_tls {
            return Ok(Self::Tls);
        }
        let path = paths.replication_certificates.join("tls.key");
        let key: Secret<Vec<u8>> =
            std::fs::read(&path).map(Secret::new).map_err(|error| Error::file("read", &path, &error))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        Ok(Self::Password(Secret::new(hex::encode(hmac::sign(&key, PURPOSE)))))
    }
}
