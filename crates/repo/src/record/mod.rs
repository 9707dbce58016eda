//! Records: the small JSON objects of a repository.
//!
//! A record is an envelope around a body: `{"holdfast": "<kind>", "version": 1, "sha256": "<hex>", "body": {...}}`. The
//! digest is over the exact text of the body in the object. So a person can cut the body out and check it with
//! `sha256sum`, and reformatting the file breaks it. In an encrypted repository the same text is the one data frame of
//! a framed object. `holdfast.json` and `keys/*.json` are always plain, because they are read before the key is known.
//!
//! Versions: the version is checked first, and a newer one is refused by number. Within a version fields are only
//! added, so unknown fields are ignored, and the frozen samples in `tests/samples` parse for ever. Fields with a closed
//! set of words ([`RecordBody::CLOSED`]) may get new words. An older release refuses an unknown word by name, as newer
//! and not as damaged ([`RecordError::is_newer`]).
//!
//! ```
//! use holdfast_repo::record::{self, StartRecord};
//!
//! let start = StartRecord {
//!     backup_id: "20260822T101500Z".parse()?,
//!     cluster: "main".parse()?,
//!     claim: "1".parse()?,
//!     system_identifier: "7412345678901234567".parse()?,
//!     host: "db1".to_owned(),
//!     pid: 4711,
//!     pgdata: "/var/lib/postgresql/18/main".to_owned(),
//!     started: "2026-08-22T10:15:00Z".parse()?,
//!     software_version: "0.1.0".to_owned(),
//!     parent: None,
//!     run: None,
//! };
//! let object = record::encode_plain(&start)?;
//! assert_eq!(record::decode_plain::<StartRecord>(&object)?, start);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backup;
mod claim;
mod lease;
mod ledger;
mod mac;
mod repository;
mod snapshot;
mod start;
#[cfg(test)]
mod tests;

pub use backup::{
    BackupRecord, BackupType, ChecksumFailure, ChecksumFailures, DatabaseEntry, MAX_LISTED_CHECKSUM_FAILURES,
    ManifestEntry, TablespaceEntry,
};
pub use claim::ClaimRecord;
pub use lease::{LeasePurpose, LeaseRecord};
pub use ledger::{
    DecidedWal, DrillFound, GapOutcome, KeyChange, LedgerEntry, LedgerRecord, PackRange, PacksRead, RepairedObject,
    VerificationProblem, WalRead,
};
pub use mac::{check_repository_mac, encode_repository};
pub(crate) use repository::check_extent_bytes;
pub use repository::{
    Checksums, ConditionalCreate, EXTENT_SIZE_BYTES, EncryptionKind, FORMAT_VERSION, LOCK_DAYS, LockMode, LockProof,
    LockedUploads, ObjectLock, PACK_SIZE_BYTES, RepositoryRecord, StoreCapabilities, Uploads,
};
pub use snapshot::{SnapshotRecord, SnapshotVolume};
pub use start::{RunIdentity, StartRecord};

use crate::codec::Compression;
use crate::format_error::{Fault, FaultClass, FormatError};
use crate::frame::{FRAME_MAGIC, FrameKind, ObjectType, open_object, seal_object};
use crate::identity::{RepositoryId, RepositoryKey};
use aws_lc_rs::digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;
use thiserror::Error;

/// The version of records that this crate writes, and the newest that it reads.
pub const RECORD_VERSION: u32 = 1;

/// The kind of a record: the `holdfast` field of its envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// [`RepositoryRecord`]
    Repository,
    /// [`KeySlot`](crate::key::KeySlot)
    KeySlot,
    /// [`ClaimRecord`]
    Claim,
    /// [`StartRecord`]
    BackupStart,
    /// [`BackupRecord`]
    Backup,
    /// [`SnapshotRecord`]
    Snapshot,
    /// [`LedgerRecord`]
    Ledger,
    /// [`LeaseRecord`]
    Lease,
}

impl RecordKind {
    /// All kinds.
    const ALL: [Self; 8] = [
        Self::Repository,
        Self::KeySlot,
        Self::Claim,
        Self::BackupStart,
        Self::Backup,
        Self::Snapshot,
        Self::Ledger,
        Self::Lease,
    ];

    /// The word in the envelope.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Repository => "repository",
            Self::KeySlot => "key-slot",
            Self::Claim => "claim",
            Self::BackupStart => "backup-start",
            Self::Backup => "backup",
            Self::Snapshot => "snapshot",
            Self::Ledger => "ledger",
            Self::Lease => "lease",
        }
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The body of a record.
pub trait RecordBody: Serialize + DeserializeOwned {
    /// The kind of the record, in its envelope.
    const KIND: RecordKind;
    /// Whether it is plain in encrypted repositories too, because it is read before the key is known.
    const ALWAYS_PLAIN: bool = false;
    /// The fields whose values are a closed set.
    const CLOSED: &'static [Closed] = &[];

    /// Checks what the types alone do not ensure, such as limits of numbers.
    ///
    /// # Errors
    /// The fault in words.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// A field with a closed set of values. A later release may write further values, and this release must not guess their
/// meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// The place of the field in the body, as a JSON pointer (RFC 6901).
    pub at: &'static str,
    /// The known values; numbers as their digits.
    pub values: &'static [&'static str],
}

impl Closed {
    /// The value of the field, if it exists and is not a known one.
    fn unknown_in(&self, body: &Value) -> Option<String> {
        let found = match body.pointer(self.at)? {
            Value::String(word) => word.clone(),
            // As if the field were left out: if it is not optional, its type reports it as missing.
            Value::Null => return None,
            other => other.to_string(),
        };
        (!self.values.contains(&found.as_str())).then_some(found)
    }
}

/// The repository that contains a record.
#[derive(Debug, Clone, Copy)]
pub struct RecordSeal<'a> {
    /// The repository's identity.
    pub repository: RepositoryId,
    /// The repository's key; `None` if the repository is not encrypted.
    pub key: Option<&'a RepositoryKey>,
}

/// Why an object is not the expected record.
#[expect(missing_docs, reason = "the texts of the errors say what the fields are")]
#[derive(Debug, Error)]
pub enum RecordError {
    /// The object is not a record at all, or its JSON is damaged.
    #[error("not a {expected} record")]
    Malformed {
        /// The record that the caller needs.
        expected: RecordKind,
        /// The JSON reader's error.
        source: serde_json::Error,
    },
    /// The record has another kind.
    #[error("a {found:?} record is found where a {expected} record should be")]
    WrongKind {
        /// The record that the caller needs.
        expected: RecordKind,
        /// The kind in the envelope.
        found: String,
    },
    /// A later version of the software wrote it.
    #[error("{expected} record of version {found}, this software reads up to version {RECORD_VERSION}")]
    UnsupportedVersion {
        /// The record that the caller needs.
        expected: RecordKind,
        /// The version in the envelope.
        found: u32,
    },
    /// The body contains a value that only a later version of the software knows.
    #[error("{field} {found:?} of the {expected} record is not known here: written by a newer holdfast")]
    UnknownValue {
        /// The record that the caller needs.
        expected: RecordKind,
        /// The field, such as `type`.
        field: String,
        found: String,
    },
    /// The body is sound, but a value in it is outside its limits.
    #[error("the {expected} record cannot be used: {problem}")]
    OutOfBounds {
        /// The record that the caller needs.
        expected: RecordKind,
        /// The value, and its limits.
        problem: String,
    },
    /// The body was changed after it was written.
    #[error("the body of the {expected} record has SHA-256 {found}, its envelope says {recorded}")]
    DigestMismatch {
        /// The record that the caller needs.
        expected: RecordKind,
        /// The digest in the envelope.
        recorded: String,
        /// The digest of the present body.
        found: String,
    },
    /// The record is plain, and it was changed or written without the repository's key.
    #[error("the {expected} record {problem}: it is not the one that was written with the repository's key")]
    Unauthenticated {
        /// The record that the caller needs.
        expected: RecordKind,
        /// What is wrong with its MAC.
        problem: &'static str,
    },
    /// The body is sound but does not fit the record's type.
    #[error("the body of the {expected} record is not valid")]
    InvalidBody {
        /// The record that the caller needs.
        expected: RecordKind,
        /// The JSON reader's error.
        source: serde_json::Error,
    },
    /// The framed object around an encrypted record is damaged, foreign, or does not open.
    #[error("the {expected} record cannot be opened")]
    Sealed {
        /// The record that the caller needs.
        expected: RecordKind,
        /// The fault in the object.
        source: FormatError,
    },
    /// The record could not be encrypted.
    #[error("seal the {kind} record")]
    Seal {
        kind: RecordKind,
        /// The fault during encryption.
        source: FormatError,
    },
    /// The body could not be written as JSON.
    #[error("write the {kind} record as JSON")]
    Encode {
        /// The kind of the record.
        kind: RecordKind,
        /// The JSON writer's error.
        source: serde_json::Error,
    },
}

impl RecordError {
    /// Whether a newer release wrote it: the object is sound, but this release must not guess its meaning.
    pub fn is_newer(&self) -> bool {
        match self {
            Self::UnsupportedVersion { .. } | Self::UnknownValue { .. } => true,
            Self::Sealed { source, .. } => source.class() == FaultClass::Unsupported,
            _ => false,
        }
    }
}

#[derive(Deserialize)]
struct EnvelopeHead {
    holdfast: String,
    version: u32,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    sha256: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// The JSON text of a record.
///
/// # Errors
/// [`RecordError::Encode`] if the body cannot be written as JSON, which no record of this crate causes.
pub fn encode_plain<T: RecordBody>(body: &T) -> Result<Vec<u8>, RecordError> {
    let body = serde_json::to_string_pretty(body).map_err(|source| RecordError::Encode { kind: T::KIND, source })?;
    let kind = T::KIND;
    let digest = sha256_hex(body.as_bytes());
    let text = format!(
        "{{\n\"holdfast\": \"{kind}\",\n\"version\": {RECORD_VERSION},\n\"sha256\": \"{digest}\",\n\"body\": {body}\n}}\n"
    );
    Ok(text.into_bytes())
}

/// Reads a record from its JSON text, checking kind, version, digest and closed values in this order.
///
/// # Errors
/// See [`RecordError`].
pub fn decode_plain<T: RecordBody>(object: &[u8]) -> Result<T, RecordError> {
    let expected = T::KIND;
    let malformed = |source| RecordError::Malformed { expected, source };
    // The head alone first: the envelope of a later version may contain anything else.
    let head: EnvelopeHead = serde_json::from_slice(object).map_err(malformed)?;
    if head.holdfast != expected.as_str() {
        let known = RecordKind::ALL.iter().any(|kind| kind.as_str() == head.holdfast);
        return Err(if known {
            RecordError::WrongKind { expected, found: head.holdfast }
        } else {
            RecordError::UnknownValue { expected, field: "kind".to_owned(), found: head.holdfast }
        });
    }
    if head.version == 0 || head.version > RECORD_VERSION {
        return Err(RecordError::UnsupportedVersion { expected, found: head.version });
    }
    let envelope: Envelope<'_> = serde_json::from_slice(object).map_err(malformed)?;
    let body = envelope.body.get();
    let found = sha256_hex(body.as_bytes());
    if found != envelope.sha256 {
        return Err(RecordError::DigestMismatch { expected, recorded: envelope.sha256, found });
    }
    let invalid = |source| RecordError::InvalidBody { expected, source };
    // This comes before the types check the values: they treat an unknown word like any other fault.
    let values: Value = serde_json::from_str(body).map_err(invalid)?;
    for closed in T::CLOSED {
        if let Some(found) = closed.unknown_in(&values) {
            let field = closed.at.trim_start_matches('/').replace('/', ".");
            return Err(RecordError::UnknownValue { expected, field, found });
        }
    }
    let read: T = serde_json::from_str(body).map_err(invalid)?;
    read.check().map_err(|problem| RecordError::OutOfBounds { expected, problem })?;
    Ok(read)
}

/// The object of a record as it is stored under `name`: plain, or sealed in an encrypted repository.
///
/// # Errors
/// [`RecordError::Encode`] and [`RecordError::Seal`], which mean that the system fails (no random numbers).
pub fn encode<T: RecordBody>(name: &str, seal: RecordSeal<'_>, body: &T) -> Result<Vec<u8>, RecordError> {
    let text = encode_plain(body)?;
    let key = match seal.key {
        Some(key) if !T::ALWAYS_PLAIN => key,
        _ => return Ok(text),
    };
    seal_object(ObjectType::Record, name, seal.repository, Some(key), Compression::default(), &text)
        .map_err(|source| RecordError::Seal { kind: T::KIND, source })
}

/// Reads a record from the object stored under `name`. A plain object in an encrypted repository is refused, and so is
/// the reverse. So nobody can add a forged record to the sealed ones.
///
/// # Errors
/// See [`RecordError`].
pub fn decode<T: RecordBody>(name: &str, seal: RecordSeal<'_>, object: &[u8]) -> Result<T, RecordError> {
    let expected = T::KIND;
    let sealed = |source| RecordError::Sealed { expected, source };
    let is_framed = object.starts_with(&FRAME_MAGIC.to_le_bytes());
    let key = if T::ALWAYS_PLAIN { None } else { seal.key };
    match key {
        None if is_framed => Err(sealed(Fault::KeyNeeded.of(name))),
        None => decode_plain(object),
        Some(_) if !is_framed && decode_plain::<T>(object).is_ok() => Err(sealed(Fault::NotEncrypted.of(name))),
        Some(key) => {
            let frames = open_object(ObjectType::Record, name, object, seal.repository, Some(key)).map_err(sealed)?;
            match frames.as_slice() {
                [frame] if frame.header.kind == FrameKind::Data => decode_plain(&frame.raw),
                frames => Err(sealed(
                    Fault::Malformed { what: "record", problem: format!("{} frames instead of one", frames.len()) }
                        .of(name),
                )),
            }
        }
    }
}

/// SHA-256 as 64 lower-case hex digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}
