//! The salt of an encrypted object: 28 random bytes, then the epoch of the key that it needs, as u32 little-endian.

use crate::format_error::Fault;
use crate::identity::{RepositoryKey, fill_random};

/// Random bytes of a salt: more than can ever occur twice.
const RANDOM_BYTES: usize = 28;

/// A new salt, with the epoch of the newest key.
pub(crate) fn new_salt(key: &RepositoryKey) -> Result<[u8; 32], Fault> {
    let mut salt = [0; 32];
    let (random, epoch) = salt.split_at_mut(RANDOM_BYTES);
    fill_random(random)?;
    epoch.copy_from_slice(&key.epoch().to_le_bytes());
    Ok(salt)
}

/// The epoch that a salt names.
pub(crate) fn epoch(salt: &[u8; 32]) -> u32 {
    salt.last_chunk().map_or(0, |epoch| u32::from_le_bytes(*epoch))
}
