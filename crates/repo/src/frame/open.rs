//! Opening frames: checksums, decryption, decompression, in that order.
//!
//! [`ObjectOpener`] reads the head once. It refuses the object unless it has the expected type, belongs to this
//! repository, and is encrypted exactly if the repository is. After that frames can be opened in any order and from
//! several threads.

use super::compressed::CompressedFrame;
use super::head::{Encryption, ObjectHead};
use super::header::{FrameHeader, FrameKind, HEADER_BYTES};
use super::split::split_frames;
use crate::cipher::{ObjectCipher, TAG_BYTES};
use crate::codec::{Codec, MAX_FRAME_RAW, check_raw_len, decompress_into};
use crate::format_error::{Fault, FormatError};
use crate::identity::{RepositoryId, RepositoryKey};
use crate::object_type::ObjectType;

/// An opened frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The frame's header.
    pub header: FrameHeader,
    /// The frame's content, decrypted and decompressed.
    pub raw: Vec<u8>,
}

/// Buffers that one thread reuses for frame after frame. They only grow, because filling them with zeros again for each
/// frame would take time.
#[derive(Debug, Default)]
pub struct FrameBuffers {
    plain: Vec<u8>,
    raw: Vec<u8>,
}

impl FrameBuffers {
    /// Frees buffers of more than `bytes` bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        for buffer in [&mut self.plain, &mut self.raw] {
            if buffer.capacity() > bytes {
                *buffer = Vec::new();
            }
        }
    }
}

/// The first bytes of a buffer, which grows if it is shorter.
fn part(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    &mut buffer[..length]
}

/// Room for the raw bytes of a frame. Refuses more than a frame may contain.
fn raw_part(buffer: &mut Vec<u8>, raw_len: u32) -> Result<&mut [u8], Fault> {
    check_raw_len(raw_len)?;
    Ok(part(buffer, raw_len as usize))
}

/// Opens the frames of one object.
#[derive(Debug)]
pub struct ObjectOpener {
    name: String,
    head: ObjectHead,
    cipher: Option<ObjectCipher>,
}

impl ObjectOpener {
    /// Reads the head frame at the beginning of `bytes` ([`HEAD_FRAME_BYTES`](super::HEAD_FRAME_BYTES) are enough).
    /// Refuses an object of another type or of another repository, an unencrypted object in an encrypted repository
    /// (`key` given), and an encrypted object without a key.
    ///
    /// # Errors
    /// [`Fault::WrongRepository`], [`Fault::WrongObjectType`], [`Fault::NotEncrypted`] and [`Fault::KeyNeeded`] for
    /// such an object; [`Fault::UnknownKeyEpoch`] if `key` does not hold the epoch of its key, [`Fault::Cryptography`]
    /// if that key cannot be derived; those of [`ObjectHead::parse`].
    pub fn new(
        object_type: ObjectType,
        name: &str,
        bytes: &[u8],
        repository: RepositoryId,
        key: Option<&RepositoryKey>,
    ) -> Result<Self, FormatError> {
        Self::check(object_type, name, bytes, repository, key).map_err(|fault| fault.of(name))
    }

    fn check(
        object_type: ObjectType,
        name: &str,
        bytes: &[u8],
        repository: RepositoryId,
        key: Option<&RepositoryKey>,
    ) -> Result<Self, Fault> {
        Self::of_head(ObjectHead::parse(bytes)?, object_type, name, repository, key)
    }

    /// The same, for an object whose salt is known from elsewhere: a manifest has the salts of its packs. The head is
    /// not read.
    ///
    /// # Errors
    /// [`Fault::UnknownKeyEpoch`] for the salt of an epoch that `key` does not hold, and the fault of a head with this
    /// salt, if the salt does not fit the encryption of the repository.
    pub fn with_salt(
        object_type: ObjectType,
        name: &str,
        salt: &[u8; 32],
        repository: RepositoryId,
        key: Option<&RepositoryKey>,
    ) -> Result<Self, FormatError> {
        let opener = || {
            let head = ObjectHead { object_type, repository, encryption: Encryption::of_salt(*salt) };
            Self::of_head(head, object_type, name, repository, key)
        };
        opener().map_err(|fault| fault.of(name))
    }

    fn of_head(
        head: ObjectHead,
        object_type: ObjectType,
        name: &str,
        repository: RepositoryId,
        key: Option<&RepositoryKey>,
    ) -> Result<Self, Fault> {
        if head.repository != repository {
            return Err(Fault::WrongRepository { expected: repository, found: head.repository });
        }
        if head.object_type != object_type {
            return Err(Fault::WrongObjectType { expected: object_type, found: head.object_type });
        }
        let cipher = match (head.encryption, key) {
            (Encryption::None, None) => None,
            (Encryption::None, Some(_)) => return Err(Fault::NotEncrypted),
            (Encryption::Aes256Gcm { .. }, None) => return Err(Fault::KeyNeeded),
            (Encryption::Aes256Gcm { salt }, Some(key)) => {
                Some(ObjectCipher::derive(key, &salt, object_type, repository, name)?)
            }
        };
        Ok(Self { name: name.to_owned(), head, cipher })
    }

    /// The object's full name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The content of the head.
    pub fn head(&self) -> &ObjectHead {
        &self.head
    }

    /// Whether the object's frames are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.cipher.is_some()
    }

    /// Opens one frame; `bytes` must be exactly the frame.
    ///
    /// # Errors
    /// As [`ObjectOpener::open_frame_into`].
    pub fn open_frame(&self, bytes: &[u8]) -> Result<Frame, FormatError> {
        let mut buffers = FrameBuffers::default();
        let header = self.open_frame_into(bytes, &mut buffers)?.0;
        // The buffer was empty, so it has exactly the bytes of this frame.
        Ok(Frame { header, raw: buffers.raw })
    }

    /// Opens one frame into reused buffers; `bytes` must be exactly the frame.
    ///
    /// # Errors
    /// Those of [`FrameHeader::parse`]. [`Fault::Truncated`] or [`Fault::TrailingBytes`] if `bytes` are not exactly the
    /// frame, [`Fault::BodyChecksum`] if the body is damaged, [`Fault::UnexpectedKind`] for a head.
    /// [`Fault::KeyNeeded`] or [`Fault::NotEncrypted`] if only one of the frame and its object is encrypted,
    /// [`Fault::Authentication`] if the frame was changed or comes from another object. Those of [`decompress_into`].
    pub fn open_frame_into<'b>(
        &self,
        bytes: &[u8],
        buffers: &'b mut FrameBuffers,
    ) -> Result<(FrameHeader, &'b [u8]), FormatError> {
        let header = self.open(bytes, buffers).map_err(|fault| fault.of(&self.name))?;
        Ok((header, buffers.raw.get(..header.raw_len as usize).unwrap_or_default()))
    }

    /// Takes the encryption off one frame and leaves its compression, so that another object can have the frame without
    /// compressing it again. `bytes` must be exactly the frame. What is in it is not looked at.
    ///
    /// # Errors
    /// Those of [`ObjectOpener::open_frame_into`], but for decompression.
    pub fn unseal_frame(&self, bytes: &[u8]) -> Result<CompressedFrame, FormatError> {
        self.unseal(bytes).map_err(|fault| fault.of(&self.name))
    }

    fn unseal(&self, bytes: &[u8]) -> Result<CompressedFrame, Fault> {
        let (header, body) = self.checked(bytes)?;
        let mut buffer = Vec::with_capacity(HEADER_BYTES + body.len() + TAG_BYTES);
        buffer.resize(HEADER_BYTES, 0);
        match &self.cipher {
            None => buffer.extend_from_slice(body),
            Some(cipher) => {
                buffer.resize(HEADER_BYTES + body.len().saturating_sub(TAG_BYTES), 0);
                cipher.open(header.number, &header.authenticated(), body, &mut buffer[HEADER_BYTES..])?;
            }
        }
        Ok(CompressedFrame::from_parts(header.kind, header.codec, header.raw_len, buffer))
    }

    /// The header of a frame and its body, if they belong together and to an object like this one.
    fn checked<'b>(&self, bytes: &'b [u8]) -> Result<(FrameHeader, &'b [u8]), Fault> {
        let header = FrameHeader::parse(bytes, 0)?;
        let body = &bytes[HEADER_BYTES..];
        let stored_len = header.stored_len as usize;
        if body.len() < stored_len {
            return Err(Fault::Truncated { needed: header.frame_bytes(), available: bytes.len() as u64 });
        }
        if body.len() > stored_len {
            return Err(Fault::TrailingBytes { bytes: (body.len() - stored_len) as u64 });
        }
        if crc32c::crc32c(body) != header.body_crc32c {
            return Err(Fault::BodyChecksum { number: header.number });
        }
        // The head is the one frame that is never encrypted, and the constructor has read it. If another head were
        // accepted here, a forger could put their own bytes in place of an encrypted frame.
        if header.kind == FrameKind::Head {
            let (number, found) = (header.number, header.kind);
            return Err(Fault::UnexpectedKind { number, expected: FrameKind::Data, found });
        }
        match &self.cipher {
            None if header.encrypted => Err(Fault::KeyNeeded),
            Some(_) if !header.encrypted => Err(Fault::NotEncrypted),
            _ => Ok((header, body)),
        }
    }

    fn open(&self, bytes: &[u8], buffers: &mut FrameBuffers) -> Result<FrameHeader, Fault> {
        let FrameBuffers { plain, raw } = buffers;
        let (header, body) = self.checked(bytes)?;
        match &self.cipher {
            None => decompress_into(header.codec, body, raw_part(raw, header.raw_len)?)?,
            Some(cipher) if header.codec == Codec::None => {
                cipher.open(header.number, &header.authenticated(), body, raw_part(raw, header.raw_len)?)?;
            }
            Some(cipher) => {
                let plain = part(plain, body.len().saturating_sub(TAG_BYTES));
                cipher.open(header.number, &header.authenticated(), body, plain)?;
                decompress_into(header.codec, plain, raw_part(raw, header.raw_len)?)?;
            }
        }
        Ok(header)
    }
}

/// Opens a small object in memory: all frames after the head, in order. It insists on the head first, consecutive
/// numbers, exactly one last frame at the end and nothing after it. All frames together may have at most
/// [`MAX_FRAME_RAW`] raw bytes, because few bytes can announce very many. Larger objects are opened frame by frame
/// after [`split_frames`].
///
/// # Errors
/// Those of [`ObjectOpener::new`], [`split_frames`] and [`ObjectOpener::open_frame`]; [`Fault::TooLong`] if the frames
/// announce more bytes.
pub fn open_object(
    object_type: ObjectType,
    name: &str,
    bytes: &[u8],
    repository: RepositoryId,
    key: Option<&RepositoryKey>,
) -> Result<Vec<Frame>, FormatError> {
    let opener = ObjectOpener::new(object_type, name, bytes, repository, key)?;
    let spans = split_frames(name, bytes)?;
    let total: u64 = spans.iter().map(|span| u64::from(span.header.raw_len)).sum();
    let limit = u64::from(MAX_FRAME_RAW);
    if total > limit {
        return Err(Fault::TooLong { what: "object", bytes: total, limit }.of(name));
    }
    spans.iter().skip(1).map(|span| opener.open_frame(&bytes[span.range.clone()])).collect()
}
