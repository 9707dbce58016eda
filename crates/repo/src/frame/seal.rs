//! Finishing frames: number, encryption, checksums.
//!
//! A [`CompressedFrame`] is made on any thread, and its buffer has free space for the header before the body. Sealing
//! happens where the frame's place in the object is known, because the number is part of nonce and associated data. It
//! encrypts in place, fills in the header, and copies nothing.

use super::compressed::CompressedFrame;
use super::compressor::Compressor;
use super::head::{Encryption, HEAD_FRAME_BYTES, ObjectHead};
use super::header::{FrameHeader, FrameKind, HEADER_BYTES, Transform};
use crate::cipher::{ObjectCipher, TAG_BYTES};
use crate::codec::Compression;
use crate::format_error::{Fault, FormatError};
use crate::identity::{RepositoryId, RepositoryKey};
use crate::object_type::ObjectType;
use crate::salt::new_salt;

/// Seals the frames of one object. Threads share it; the caller uses every number once.
#[derive(Debug)]
pub struct ObjectSealer {
    name: String,
    cipher: Option<ObjectCipher>,
    salt: [u8; 32],
}

impl ObjectSealer {
    /// Begins an object with this full name. Returns the sealer and the head frame, which is frame 0 and already
    /// finished. With a key, a new random salt gives the object a key of its own.
    ///
    /// # Errors
    /// [`Fault::Cryptography`] if there are no random bytes for the salt, or the object's key cannot be derived.
    /// Without a key it does not fail.
    pub fn new(
        object_type: ObjectType,
        name: &str,
        repository: RepositoryId,
        key: Option<&RepositoryKey>,
    ) -> Result<(Self, Vec<u8>), FormatError> {
        let key = match key {
            None => None,
            Some(key) => Some((key, new_salt(key).map_err(|fault| fault.of(name))?)),
        };
        let (sealer, head) = Self::with_salt(object_type, name, repository, key)?;
        Ok((sealer, head.to_vec()))
    }

    /// Seals an object again with the salt of its first sealing, so that the bytes are identical. Other content under
    /// the same salt would have the keystream of the first: what comes out must not leave this process before its
    /// checksum is known to be that of the first.
    ///
    /// # Errors
    /// [`Fault::UnknownKeyEpoch`] for the salt of an epoch that `key` does not hold, and those of
    /// [`ObjectSealer::new`].
    pub fn seal_again(
        object_type: ObjectType,
        name: &str,
        repository: RepositoryId,
        key: Option<&RepositoryKey>,
        salt: [u8; 32],
    ) -> Result<(Self, Vec<u8>), FormatError> {
        let (sealer, head) = Self::with_salt(object_type, name, repository, key.map(|key| (key, salt)))?;
        Ok((sealer, head.to_vec()))
    }

    pub(crate) fn with_salt(
        object_type: ObjectType,
        name: &str,
        repository: RepositoryId,
        key: Option<(&RepositoryKey, [u8; 32])>,
    ) -> Result<(Self, [u8; HEAD_FRAME_BYTES]), FormatError> {
        let (cipher, encryption) = match key {
            None => (None, Encryption::None),
            Some((key, salt)) => (
                Some(ObjectCipher::derive(key, &salt, object_type, repository, name).map_err(|fault| fault.of(name))?),
                Encryption::Aes256Gcm { salt },
            ),
        };
        let head = ObjectHead { object_type, repository, encryption }.encode();
        Ok((Self { name: name.to_owned(), cipher, salt: encryption.salt() }, head))
    }

    /// The object's full name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The salt in the object's head; zeros without encryption.
    pub fn salt(&self) -> [u8; 32] {
        self.salt
    }

    /// Whether frames are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.cipher.is_some()
    }

    /// Finishes a frame and returns the bytes to store. Do not use a number for two frames of one object.
    ///
    /// # Errors
    /// [`Fault::TooLong`] for a body of more than [`MAX_FRAME_STORED`](crate::codec::MAX_FRAME_STORED) bytes,
    /// [`Fault::Cryptography`] if it cannot be encrypted.
    pub fn seal(&self, number: u32, last: bool, frame: CompressedFrame) -> Result<Vec<u8>, FormatError> {
        self.seal_frame(number, last, frame).map_err(|fault| fault.of(&self.name))
    }

    fn seal_frame(&self, number: u32, last: bool, frame: CompressedFrame) -> Result<Vec<u8>, Fault> {
        let CompressedFrame { kind, codec, raw_len, mut buffer } = frame;
        let tag_bytes = if self.cipher.is_some() { TAG_BYTES } else { 0 };
        let stored_len = buffer.len() - HEADER_BYTES + tag_bytes;
        let limit = crate::codec::MAX_FRAME_STORED;
        let stored_len = u32::try_from(stored_len).ok().filter(|length| *length <= limit).ok_or(Fault::TooLong {
            what: "frame body",
            bytes: stored_len as u64,
            limit: u64::from(limit),
        })?;
        let mut header = FrameHeader {
            kind,
            codec,
            transform: Transform::None,
            last,
            encrypted: self.cipher.is_some(),
            number,
            raw_len,
            stored_len,
            body_crc32c: 0,
        };
        if let Some(cipher) = &self.cipher {
            let tag = cipher.seal(number, &header.authenticated(), &mut buffer[HEADER_BYTES..])?;
            buffer.extend_from_slice(&tag);
        }
        header.body_crc32c = crc32c::crc32c(&buffer[HEADER_BYTES..]);
        buffer[..HEADER_BYTES].copy_from_slice(&header.encode());
        Ok(buffer)
    }
}

/// Makes a small object in one call: the head and one data frame, marked as the last. Encrypted records have this form.
///
/// # Errors
/// Those of [`ObjectSealer::new`], [`Compressor::new`], [`Compressor::compress`] and [`ObjectSealer::seal`].
pub fn seal_object(
    object_type: ObjectType,
    name: &str,
    repository: RepositoryId,
    key: Option<&RepositoryKey>,
    compression: Compression,
    raw: &[u8],
) -> Result<Vec<u8>, FormatError> {
    let (sealer, mut object) = ObjectSealer::new(object_type, name, repository, key)?;
    let frame = Compressor::new(compression)
        .and_then(|mut compressor| compressor.compress(FrameKind::Data, raw))
        .map_err(|fault| fault.of(name))?;
    object.extend_from_slice(&sealer.seal(1, true, frame)?);
    Ok(object)
}
