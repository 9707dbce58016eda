//! The identity of a repository and its key: [`RepositoryId`] and [`RepositoryKey`].
//!
//! The id is public and is in every head frame, so that an object of another repository is refused by name. The key of
//! an epoch is 32 random bytes that leave the process only when they are wrapped in a key slot. It prints as `***` and
//! is wiped on drop.
//!
//! Epochs count from 0 without a gap: [`RepositoryKey::next_epoch`] makes the next one, and the holder of an epoch's
//! key has the keys of all earlier epochs. The key of an epoch gives no key of a later one: keys of different epochs
//! are independent random numbers.

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

/// The key epoch of a new repository.
pub const FIRST_EPOCH: u32 = 0;

/// The most epochs of a repository: a key slot holds the key of each. One rotation a day for half a year, or one a
/// month for 21 years.
pub const MAX_EPOCHS: usize = 256;

/// The bytes of the key of one epoch.
pub(crate) type KeyBytes = Zeroizing<[u8; 32]>;

/// The repository's secret: every object's key is derived from it. It holds the key of each epoch up to its own; new
/// objects are written under the newest, and each object says which one it needs.
#[derive(Clone)]
pub struct RepositoryKey {
    newest: KeyBytes,
    /// The keys of the epochs before the newest, from 0.
    earlier: Vec<KeyBytes>,
}

impl RepositoryKey {
    /// A new key of the first epoch, from the operating system's random numbers.
    ///
    /// # Errors
    /// [`Fault::Cryptography`] if the operating system gives no random bytes.
    pub fn random() -> Result<Self, Fault> {
        Ok(Self { newest: random_key()?, earlier: Vec::new() })
    }

    /// A key of the first epoch. The caller must wipe its own copy.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self { newest: Zeroizing::new(bytes), earlier: Vec::new() }
    }

    /// Keys unwrapped from a key slot.
    pub(crate) fn of_slot(newest: KeyBytes, earlier: Vec<KeyBytes>) -> Self {
        Self { newest, earlier }
    }

    /// These keys and a new one of the epoch after them.
    ///
    /// # Errors
    /// [`Fault::Cryptography`] if the operating system gives no random bytes, [`Fault::TooLong`] if there are already
    /// [`MAX_EPOCHS`].
    pub fn next_epoch(&self) -> Result<Self, Fault> {
        let mut earlier = self.earlier.clone();
        earlier.push(self.newest.clone());
        if earlier.len() >= MAX_EPOCHS {
            let (bytes, limit) = (earlier.len() as u64 + 1, MAX_EPOCHS as u64);
            return Err(Fault::TooLong { what: "list of key epochs", bytes, limit });
        }
        Ok(Self { newest: random_key()?, earlier })
    }

    /// The newest epoch, to which new objects belong.
    pub fn epoch(&self) -> u32 {
        // There are at most `MAX_EPOCHS`.
        u32::try_from(self.earlier.len()).unwrap_or(u32::MAX)
    }

    /// The key of one epoch, for deriving keys from it; `None` for an epoch after the newest.
    pub(crate) fn of_epoch(&self, epoch: u32) -> Option<&[u8; 32]> {
        let keys = || self.earlier.iter().chain([&self.newest]);
        usize::try_from(epoch).ok().and_then(|epoch| keys().nth(epoch)).map(|key| &**key)
    }

    /// The key of the first epoch itself.
    pub(crate) fn first(&self) -> &[u8; 32] {
        self.earlier.first().unwrap_or(&self.newest)
    }

    /// The newest key itself, for wrapping it in a key slot.
    pub fn expose(&self) -> &[u8; 32] {
        &self.newest
    }

    /// The keys before the newest, oldest first.
    pub(crate) fn earlier(&self) -> &[KeyBytes] {
        &self.earlier
    }

    /// Whether these are the keys of `other`, perhaps with later ones. It checks that a slot gives the keys that were
    /// put into it.
    pub fn holds(&self, other: &Self) -> bool {
        other.earlier.len() <= self.earlier.len()
            && (0..)
                .zip(other.earlier.iter().chain([&other.newest]))
                .all(|(epoch, key)| self.of_epoch(epoch) == Some(key))
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

fn random_key() -> Result<KeyBytes, Fault> {
    let mut key = Zeroizing::new([0; 32]);
    fill_random(&mut *key)?;
    Ok(key)
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
    fn an_epoch_holds_the_keys_of_those_before_it() {
        let first = RepositoryKey::from_bytes([0x41; 32]);
        assert_eq!((first.epoch(), first.of_epoch(0), first.of_epoch(1)), (0, Some(&[0x41; 32]), None));
        let third = first.next_epoch().unwrap().next_epoch().unwrap();
        assert_eq!((third.epoch(), third.of_epoch(0), third.first()), (2, Some(&[0x41; 32]), &[0x41; 32]));
        assert_eq!(third.of_epoch(2), Some(third.expose()));
        assert_ne!(third.of_epoch(1), third.of_epoch(2));
        assert_eq!((third.of_epoch(3), third.of_epoch(u32::MAX)), (None, None));
        assert!(third.holds(&third.clone()) && third.holds(&first) && !first.holds(&third));
        assert!(!third.holds(&first.next_epoch().unwrap()));
    }

    #[test]
    fn epochs_are_bounded() {
        let mut key = RepositoryKey::from_bytes([1; 32]);
        while let Ok(next) = key.next_epoch() {
            key = next;
        }
        assert_eq!(key.epoch() as usize + 1, MAX_EPOCHS);
    }

    #[test]
    fn keys_do_not_print() {
        let key = RepositoryKey::from_bytes([0x41; 32]);
        assert_eq!(format!("{key} {key:?}"), "*** RepositoryKey(***)");
    }
}
