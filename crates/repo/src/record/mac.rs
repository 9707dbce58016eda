//! The MAC over `holdfast.json` of an encrypted repository.
//!
//! The record is plain, because it is needed to open the repository. Its values decide how objects are created and cut,
//! so a holder of the key checks that they are those of `repo init`. The record is never written again, so its MAC is
//! under the key of the first epoch.

use super::{RecordError, RecordKind, RepositoryRecord, encode_plain};
use crate::identity::{RepositoryId, RepositoryKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::hmac;
use serde::Deserialize;
use serde_json::value::RawValue;

const EXPECTED: RecordKind = RecordKind::Repository;

#[derive(Deserialize)]
struct Sealed<'a> {
    #[serde(default)]
    mac: Option<String>,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// The JSON text of `holdfast.json`, with its MAC in an encrypted repository.
///
/// # Errors
/// As [`encode_plain`]; and [`RecordError::Unauthenticated`] if the cryptographic library fails.
pub fn encode_repository(record: &RepositoryRecord, key: Option<&RepositoryKey>) -> Result<Vec<u8>, RecordError> {
    let text = encode_plain(record)?;
    let Some(key) = key else { return Ok(text) };
    let malformed = |source| RecordError::Malformed { expected: EXPECTED, source };
    let sealed: Sealed<'_> = serde_json::from_slice(&text).map_err(malformed)?;
    let mac = hmac::sign(&mac_key(record.repository_id, key)?, sealed.body.get().as_bytes());
    let line = format!("\"mac\": \"{}\",\n\"body\"", hex::encode(mac.as_ref()));
    Ok(String::from_utf8_lossy(&text).replacen("\"body\"", &line, 1).into_bytes())
}

/// Fails unless the holder of this key wrote `holdfast.json`.
///
/// # Errors
/// [`RecordError::Unauthenticated`].
pub fn check_repository_mac(object: &[u8], id: RepositoryId, key: &RepositoryKey) -> Result<(), RecordError> {
    let malformed = |source| RecordError::Malformed { expected: EXPECTED, source };
    let sealed: Sealed<'_> = serde_json::from_slice(object).map_err(malformed)?;
    let wrong = |problem| RecordError::Unauthenticated { expected: EXPECTED, problem };
    let mac = sealed.mac.ok_or_else(|| wrong("has no MAC"))?;
    let mac = hex::decode(mac).map_err(|_| wrong("has a MAC that is not hexadecimal"))?;
    hmac::verify(&mac_key(id, key)?, sealed.body.get().as_bytes(), &mac).map_err(|_| wrong("has another MAC"))
}

fn mac_key(id: RepositoryId, key: &RepositoryKey) -> Result<hmac::Key, RecordError> {
    let pseudorandom = Salt::new(HKDF_SHA256, id.as_bytes()).extract(key.first());
    let derived = pseudorandom.expand(&[b"holdfast/1/repository-record"], hmac::HMAC_SHA256).map(hmac::Key::from);
    derived.map_err(|_| RecordError::Unauthenticated { expected: EXPECTED, problem: "cannot be checked" })
}
