//! The head frame: the object's type, its repository and its encryption.
//!
//! The body has 60 bytes: `HOLDFAST`, u16 format version, u8 object type, u8 encryption, 16 bytes repository id, 32
//! bytes salt: 28 random bytes and the epoch of the key (all zero if not encrypted). It is never encrypted and never
//! compressed. Type, repository and salt are inputs of the object key, so a changed head cannot open the frames after
//! it.

use super::header::{FrameHeader, FrameKind, HEADER_BYTES, Transform};
use crate::codec::Codec;
use crate::format_error::Fault;
use crate::identity::RepositoryId;
use crate::object_type::ObjectType;

/// The version of frames, packs, WAL objects and manifests that this program writes, and the newest that it reads.
pub const FORMAT_VERSION: u16 = 1;

/// Length of a head frame: 32 bytes header, 60 bytes body.
pub const HEAD_FRAME_BYTES: usize = HEADER_BYTES + HEAD_BODY_BYTES;

const HEAD_BODY_BYTES: usize = 60;

const SIGNATURE: &[u8; 8] = b"HOLDFAST";

/// The encryption of the frames after the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encryption {
    /// No encryption.
    None,
    /// AES-256-GCM under a key derived with the salt.
    Aes256Gcm {
        /// Random, new for each object; the last four bytes are the epoch of the repository's key.
        salt: [u8; 32],
    },
}

impl Encryption {
    /// The encryption of an object, by its salt: only encrypted objects have one.
    pub(crate) fn of_salt(salt: [u8; 32]) -> Self {
        if salt == [0; 32] { Self::None } else { Self::Aes256Gcm { salt } }
    }

    /// The salt; zeros without encryption.
    pub fn salt(&self) -> [u8; 32] {
        match self {
            Self::None => [0; 32],
            Self::Aes256Gcm { salt } => *salt,
        }
    }

    /// The epoch of the repository's key under which the object was written; 0 without encryption.
    pub fn epoch(&self) -> u32 {
        crate::salt::epoch(&self.salt())
    }
}

/// The content of a head frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectHead {
    /// The type of the object.
    pub object_type: ObjectType,
    /// The repository for which the object was written.
    pub repository: RepositoryId,
    /// The encryption of the other frames.
    pub encryption: Encryption,
}

impl ObjectHead {
    /// The bytes of the whole head frame.
    pub fn encode(&self) -> [u8; HEAD_FRAME_BYTES] {
        let (encryption, salt) = match self.encryption {
            Encryption::None => (0, [0; 32]),
            Encryption::Aes256Gcm { salt } => (1, salt),
        };
        let mut frame = [0; HEAD_FRAME_BYTES];
        let body = &mut frame[HEADER_BYTES..];
        body[0..8].copy_from_slice(SIGNATURE);
        body[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        body[10] = self.object_type.to_byte();
        body[11] = encryption;
        body[12..28].copy_from_slice(self.repository.as_bytes());
        body[28..60].copy_from_slice(&salt);
        let header = FrameHeader {
            kind: FrameKind::Head,
            codec: Codec::None,
            transform: Transform::None,
            last: false,
            encrypted: false,
            number: 0,
            raw_len: HEAD_BODY_BYTES as u32,
            stored_len: HEAD_BODY_BYTES as u32,
            body_crc32c: crc32c::crc32c(body),
        };
        frame[..HEADER_BYTES].copy_from_slice(&header.encode());
        frame
    }

    /// Reads the head frame at the beginning of `bytes`; more bytes may follow.
    ///
    /// # Errors
    /// Those of [`FrameHeader::parse`]. [`Fault::UnexpectedKind`] or [`Fault::FrameOrder`] if the frame is not the
    /// head, [`Fault::Truncated`] or [`Fault::BodyChecksum`] if its body is damaged. [`Fault::UnsupportedVersion`],
    /// [`Fault::UnknownObjectType`] and [`Fault::UnknownEncryption`] for a head that a newer program wrote.
    /// [`Fault::Malformed`] if the head contradicts itself.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let header = FrameHeader::parse(bytes, 0)?;
        if header.kind != FrameKind::Head {
            return Err(Fault::UnexpectedKind { number: header.number, expected: FrameKind::Head, found: header.kind });
        }
        if header.number != 0 {
            return Err(Fault::FrameOrder { expected: 0, found: header.number });
        }
        // The version is checked before the rest of the head, which a later version may have changed.
        let body_len = header.stored_len as usize;
        let body = bytes[HEADER_BYTES..]
            .get(..body_len)
            .ok_or(Fault::Truncated { needed: header.frame_bytes(), available: bytes.len() as u64 })?;
        if crc32c::crc32c(body) != header.body_crc32c {
            return Err(Fault::BodyChecksum { number: 0 });
        }
        if !body.starts_with(SIGNATURE) || body_len < 10 {
            return Err(wrong("the signature HOLDFAST is missing"));
        }
        let version = u16::from_le_bytes([body[8], body[9]]);
        if version != FORMAT_VERSION {
            return Err(Fault::UnsupportedVersion { found: version, supported: FORMAT_VERSION });
        }
        if header.codec != Codec::None || header.encrypted || header.last {
            return Err(wrong("compressed, encrypted or marked as the last frame"));
        }
        let body: &[u8; HEAD_BODY_BYTES] = body.try_into().map_err(|_| wrong("not 60 bytes long"))?;
        let object_type = ObjectType::ALL
            .into_iter()
            .find(|object_type| object_type.to_byte() == body[10])
            .ok_or(Fault::UnknownObjectType(body[10]))?;
        let mut repository = [0; 16];
        repository.copy_from_slice(&body[12..28]);
        let mut salt = [0; 32];
        salt.copy_from_slice(&body[28..60]);
        let encryption = match body[11] {
            0 if salt == [0; 32] => Encryption::None,
            0 => return Err(wrong("a salt without encryption")),
            1 => Encryption::Aes256Gcm { salt },
            other => return Err(Fault::UnknownEncryption(other)),
        };
        Ok(Self { object_type, repository: RepositoryId::from_bytes(repository), encryption })
    }
}

fn wrong(problem: &str) -> Fault {
    Fault::malformed("head frame", problem)
}
