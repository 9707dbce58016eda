//! Wraps one key under another: AES-256-GCM with a random nonce, bound to the repository and to the purpose of the key.
//!
//! A slot wraps the newest key under the key of its secret. It wraps the keys of earlier epochs under the newest one.
//! So a secret gives every key up to the epoch of its slot and none of a later epoch.

use super::error::KeyError;
use crate::identity::{KeyBytes, RepositoryId};
use crate::name::SlotName;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

/// First part of the associated data of the newest key in a slot.
const OF_SLOT: &[u8] = b"holdfast/1/key-slot";

/// First part of the associated data of an earlier key, and the HKDF info of its wrapping key.
const OF_EARLIER: &[u8] = b"holdfast/1/earlier-key";

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// The associated data of a wrapped key: what the key is bound to.
pub(super) struct Bound(Vec<u8>);

impl Bound {
    /// Binds the newest key of a slot, of this epoch.
    pub(super) fn to_slot(repository: &RepositoryId, epoch: u32, slot: &SlotName) -> Self {
        Self([OF_SLOT, repository.as_bytes().as_slice(), &epoch.to_le_bytes(), slot.as_str().as_bytes()].concat())
    }

    /// Binds the key of an epoch that is wrapped under that of a later one.
    pub(super) fn to_later(repository: &RepositoryId, later: u32, epoch: u32) -> Self {
        Self([OF_EARLIER, repository.as_bytes().as_slice(), &later.to_le_bytes(), &epoch.to_le_bytes()].concat())
    }
}

/// Derives from the newest key the key that wraps those of earlier epochs. The newest key itself is not used, because
/// the keys of objects are derived from it.
pub(super) fn for_earlier(newest: &[u8; 32], repository: &RepositoryId) -> Result<KeyBytes, KeyError> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    Salt::new(HKDF_SHA256, repository.as_bytes())
        .extract(newest)
        .expand(&[OF_EARLIER], HKDF_SHA256)
        .and_then(|output| output.fill(key.as_mut_slice()))
        .map_err(|_| KeyError::Crypto)?;
    Ok(key)
}

/// Nonce, ciphertext and tag in hexadecimal.
pub(super) fn wrap(wrapping: &KeyBytes, key: &[u8; 32], bound: Bound) -> Result<String, KeyError> {
    // A random nonce is safe here: a wrapping key is used for some hundred keys at most.
    let nonce = random::<NONCE_LEN>()?;
    let mut body = Zeroizing::new(Vec::with_capacity(KEY_BYTES + TAG_BYTES));
    body.extend_from_slice(key);
    let tag = cipher(wrapping)?
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound.0), body.as_mut_slice())
        .map_err(|_| KeyError::Crypto)?;
    Ok(format!("{}{}{}", hex::encode(nonce), hex::encode(body.as_slice()), hex::encode(tag.as_ref())))
}

/// Unwraps the key; `wrong` is the error if it does not authenticate.
pub(super) fn unwrap_key(
    wrapping: &KeyBytes,
    wrapped: &str,
    bound: Bound,
    wrong: impl FnOnce() -> KeyError,
) -> Result<KeyBytes, KeyError> {
    let malformed = KeyError::Malformed { problem: "the wrapped key is not 60 bytes of hex" };
    let mut sealed = Zeroizing::new(hex::decode(wrapped).map_err(|_| malformed.clone())?);
    if sealed.len() != NONCE_LEN + KEY_BYTES + TAG_BYTES {
        return Err(malformed);
    }
    let (nonce, body) = sealed.split_at_mut(NONCE_LEN);
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| malformed.clone())?;
    let opened = cipher(wrapping)?.open_in_place(nonce, Aad::from(bound.0), body).map_err(|_| wrong())?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let opened: &[u8] = opened;
    key.copy_from_slice(opened.get(..KEY_BYTES).ok_or(malformed)?);
    Ok(key)
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| KeyError::Crypto)?;
    Ok(bytes)
}

fn cipher(wrapping: &KeyBytes) -> Result<LessSafeKey, KeyError> {
    UnboundKey::new(&AES_256_GCM, wrapping.as_slice()).map(LessSafeKey::new).map_err(|_| KeyError::Crypto)
}
