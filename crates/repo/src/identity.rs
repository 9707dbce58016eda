//! The identity of a repository and its key: [`RepositoryId`] and [`RepositoryKey`].
//!
//! The id is public and is in every head frame, so that an object of another repository is refused by name. The key is
//! 32 random bytes that leave the process only when they are wrapped in a key slot. It prints as `***` and is wiped on
//! drop.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::format_error::Fault;

/// 16 random bytes drawn when a repository is initialised; 32 lower-case hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RepositoryId([u8; 16]);

impl RepositoryId {
    /// A new id from the operating system's random numbers.
    ///
    /// # Errors
    /// [`Fault::Cryptography`] if the operating system gives no random bytes.
    pub fn random() -> Result<Self, Fault> {
        let mut bytes = [0; 16];
        fill_random(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// An id read from a repository.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepositoryId({self})")
    }
}

impl FromStr for RepositoryId {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| Fault::InvalidRepositoryId(text.to_owned()))?;
        Ok(Self(bytes))
    }
}

impl From<RepositoryId> for String {
    fn from(id: RepositoryId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for RepositoryId {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

/// The number of the repository's key. There is one key today; a later release may add keys for what is written from then on.
pub(crate) const KEY_EPOCH: u32 = 0;

/// The repository's secret: every object's key is derived from it.
#[derive(Clone)]
pub struct RepositoryKey(Zeroizing<[u8; 32]>);

impl RepositoryKey {
    /// A new key from the operating system's random numbers.
    ///
    /// # Errors
    /// [`Fault::Cryptography`] if the operating system gives no random bytes.
    pub fn random() -> Result<Self, Fault> {
        let mut key = Zeroizing::new([0; 32]);
        fill_random(&mut *key)?;
        Ok(Self(key))
    }

    /// A key unwrapped from a key slot. The caller must wipe its own copy.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret itself, for wrapping it in a key slot and for deriving keys from it.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for RepositoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RepositoryKey(***)")
    }
}

impl fmt::Display for RepositoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Random bytes from the cryptographic library's generator, seeded by the operating system.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), Fault> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| Fault::Cryptography("drawing random bytes"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn ids_round_trip_and_differ() {
        let id = RepositoryId::random().unwrap();
        assert_eq!(id.to_string().parse::<RepositoryId>().unwrap(), id);
        assert_ne!(RepositoryId::random().unwrap(), id);
        assert_eq!("xyz".parse::<RepositoryId>(), Err(Fault::InvalidRepositoryId("xyz".to_owned())));
    }

    #[test]
    fn keys_do_not_print() {
        let key = RepositoryKey::from_bytes([0x41; 32]);
        assert_eq!(format!("{key} {key:?}"), "*** RepositoryKey(***)");
    }
}
