//! How instances speak PostgreSQL to each other: over TLS with certificates, or, where the image's PostgreSQL was built
//! without TLS, with a password. Pure but for reading the key.
//!
//! A PostgreSQL without TLS can offer it to nobody, clients included. The manager says so as a warning and goes on: the
//! password is derived from the replication user's private key, which every instance of the cluster has and nobody else,
//! so it needs no Secret of its own and changes with the key. SCRAM never sends it; what is replicated travels in the clear.

use crate::error::{Error, Result};
use crate::identity::Places;
use aws_lc_rs::hmac;
use holdfast_secret::Secret;

/// What the password is derived for, so that the key serves nothing else by accident.
const PURPOSE: &[u8] = b"holdfast replication password 1";

/// How instances speak PostgreSQL to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    /// TLS, with a certificate on both sides.
    Tls,
    /// This password.
    Password(Secret),
}

impl Wire {
    /// The way for a PostgreSQL that was built with TLS, or without.
    ///
    /// # Errors
    /// When the key cannot be read.
    pub fn choose(has_tls: bool, places: &Places) -> Result<Self> {
        if has_tls {
            return Ok(Self::Tls);
        }
        let path = places.replication_certificates.join("tls.key");
        let key: Secret<Vec<u8>> =
            std::fs::read(&path).map(Secret::new).map_err(|error| Error::file("read", &path, &error))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        Ok(Self::Password(Secret::new(hex::encode(hmac::sign(&key, PURPOSE)))))
    }
}
