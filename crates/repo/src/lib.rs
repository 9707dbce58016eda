//! What Holdfast stores: the repository format, without any input or output.
//!
//! Everything here turns values into bytes and bytes into values; the engine and its store fetch and store them. The
//! pages in `docs/format/` specify the format. An independent reader is written from these pages and tested against
//! this code, so the code and the pages change together.
//!
//! The binary half, lowest first:
//!
//! - [`identity`]: [`RepositoryId`], [`RepositoryKey`]
//! - [`codec`]: [`Compression`], [`Compressor`], [`decompress_into`](codec::decompress_into)
//! - [`frame`]: the 32-byte header, sealing and opening, the head and the tail of an object
//! - [`pack`]: many chunks in one object with an index at its end
//! - [`wal_object`]: one WAL, history, backup-history or partial file as one object
//! - [`manifest`]: where every extent of every file of a backup is
//!
//! Names, records, keys and planning:
//!
//! - [`name`]: [`ClusterName`], [`BackupId`], and the name of every object
//! - [`record`]: the JSON records, plain and sealed: [`RepositoryRecord`], [`ClaimRecord`], [`BackupRecord`] and others
//! - [`key`]: [`KeySlot`], which wraps the repository key under a passphrase or a key file
//! - [`catalog`]: what a listing shows: [`WalInventory`], [`BackupCatalog`]
//! - [`recovery`]: from a request to a backup and its WAL: [`RecoveryPath`], [`RecoveryPlan`], [`Unreachable`]
//!
//! No parser here panics or allocates without bound on hostile bytes. Every [`FormatError`] names the object.
//!
//! ```
//! use holdfast_repo::{Compression, Compressor, FrameKind, PackIndex, PackWriter, RepositoryId, RepositoryKey};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let repository = RepositoryId::random()?;
//! let key = RepositoryKey::random()?;
//! let mut compressor = Compressor::new("zstd:3".parse::<Compression>()?)?;
//!
//! let (mut pack, head) = PackWriter::new("main/packs/20260822T101500Z/000001.pack", repository, Some(&key))?;
//! let frame = compressor.compress(FrameKind::Data, b"one extent of one file")?;
//! let (location, sealed) = pack.append(frame, &[])?;
//! let (end, entry) = pack.finish()?;
//!
//! let object = [head, sealed, end].concat();
//! assert_eq!(entry.size_bytes, object.len() as u64);
//! let index = PackIndex::parse("main/packs/20260822T101500Z/000001.pack", &object, repository, Some(&key))?;
//! assert_eq!(index.frames()[0].location, location);
//! # Ok(())
//! # }
//! ```

// A caller decides by the kind of an error, so every public function documents its errors (docs/style.md).
#![warn(clippy::missing_errors_doc)]

pub mod catalog;
pub mod chunk;
pub mod codec;
pub mod format_error;
pub mod frame;
pub mod identity;
pub mod key;
pub mod manifest;
pub mod name;
pub mod pack;
pub mod record;
pub mod recovery;
pub mod wal_object;
pub mod wal_tail;

mod cipher;
mod object_type;
mod salt;
mod varint;

pub use catalog::{BackupCatalog, SegmentRange, WalInventory};
pub use chunk::ChunkHash;
pub use codec::{Codec, Compression, CompressionParseError, Compressor};
pub use format_error::{Fault, FaultClass, FormatError};
pub use frame::{
    CompressedFrame, Encryption, Frame, FrameBuffers, FrameHeader, FrameKind, FrameLocation, ObjectHead, ObjectOpener,
    ObjectSealer, ObjectType,
};
pub use identity::{FIRST_EPOCH, MAX_EPOCHS, RepositoryId, RepositoryKey};
pub use key::{KeyError, KeySlot};
pub use manifest::{
    Extent, FileEntry, FileKind, Manifest, ManifestHeader, ManifestReader, ManifestWriter, PackEntry, PackIdentity,
    Patch,
};
pub use name::{BackupId, ClaimNumber, ClusterName, NameError, ObjectPath, SlotName};
pub use pack::{FrameShift, PackCarrier, PackChunk, PackFrame, PackIndex, PackWriter};
pub use record::{
    BackupRecord, ClaimRecord, LeaseRecord, LedgerRecord, RecordError, RecordSeal, RepositoryRecord, SnapshotRecord,
    StartRecord,
};
pub use recovery::{RecoveryPath, RecoveryPlan, RecoveryRequest, RecoveryWorld, Unreachable};
pub use wal_object::{WalObjectFacts, WalObjectPlan};
