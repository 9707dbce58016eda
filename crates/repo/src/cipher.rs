//! AES-256-GCM over the frames of one object.
//!
//! Every object has its own key: HKDF-SHA256 over the repository key of its epoch, the salt of the object's head
//! (random bytes and the epoch), the object's type and the repository id. Under that key a frame's number is its nonce.
//! No writer uses a number twice, because numbers only count up. The associated data binds each frame to the object's
//! name and to its header. So a frame that is moved to another object, to another place or under another header does
//! not authenticate.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

use crate::format_error::Fault;
use crate::identity::{RepositoryId, RepositoryKey};
use crate::object_type::ObjectType;
use crate::salt::epoch;

/// Length of the authentication tag at the end of every encrypted body, in bytes.
pub(crate) const TAG_BYTES: usize = 16;

/// The part of the frame header that is authenticated: bytes 8 to 24.
pub(crate) type AuthenticatedHeader = [u8; 16];

/// The key of one object, and the name its frames are bound to.
pub(crate) struct ObjectCipher {
    key: LessSafeKey,
    /// The beginning of all associated data of this object: the length of the name as u32 little-endian, then the name.
    bound_name: Vec<u8>,
}

impl fmt::Debug for ObjectCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectCipher(***)")
    }
}

impl ObjectCipher {
    /// Fails with [`Fault::UnknownKeyEpoch`] if the salt names an epoch that `key` does not hold.
    pub(crate) fn derive(
        key: &RepositoryKey,
        salt: &[u8; 32],
        object_type: ObjectType,
        repository: RepositoryId,
        name: &str,
    ) -> Result<Self, Fault> {
        const STEP: Fault = Fault::Cryptography("deriving an object key");
        let epoch = epoch(salt);
        let key = key.of_epoch(epoch).ok_or(Fault::UnknownKeyEpoch(epoch))?;
        let pseudorandom = Salt::new(HKDF_SHA256, salt).extract(key);
        let info: [&[u8]; 3] = [b"holdfast/1/object", &[object_type.to_byte()], repository.as_bytes()];
        let key = pseudorandom.expand(&info, &AES_256_GCM).map(UnboundKey::from).map_err(|_| STEP)?;
        let length = u32::try_from(name.len()).map_err(|_| STEP)?;
        let mut bound_name = Vec::with_capacity(4 + name.len());
        bound_name.extend_from_slice(&length.to_le_bytes());
        bound_name.extend_from_slice(name.as_bytes());
        Ok(Self { key: LessSafeKey::new(key), bound_name })
    }

    /// Encrypts in place and returns the tag.
    pub(crate) fn seal(
        &self,
        number: u32,
        header: &AuthenticatedHeader,
        in_out: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], Fault> {
        const STEP: Fault = Fault::Cryptography("encrypting a frame");
        let tag =
            self.key.seal_in_place_separate_tag(nonce(number), self.associated(header), in_out).map_err(|_| STEP)?;
        tag.as_ref().try_into().map_err(|_| STEP)
    }

    /// Decrypts `stored` (ciphertext and tag) into `plain`, which must have exactly the ciphertext's length. After a
    /// failure the content of `plain` is unspecified.
    pub(crate) fn open(
        &self,
        number: u32,
        header: &AuthenticatedHeader,
        stored: &[u8],
        plain: &mut [u8],
    ) -> Result<(), Fault> {
        let (ciphertext, tag) = stored
            .split_last_chunk::<TAG_BYTES>()
            .ok_or(Fault::Truncated { needed: TAG_BYTES as u64, available: stored.len() as u64 })?;
        self.key
            .open_separate_gather(nonce(number), self.associated(header), ciphertext, tag, plain)
            .map_err(|_| Fault::Authentication { number })
    }

    fn associated(&self, header: &AuthenticatedHeader) -> Aad<Vec<u8>> {
        let mut associated = Vec::with_capacity(self.bound_name.len() + header.len());
        associated.extend_from_slice(&self.bound_name);
        associated.extend_from_slice(header);
        Aad::from(associated)
    }
}

fn nonce(number: u32) -> Nonce {
    let mut nonce = [0; 12];
    nonce[8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}
