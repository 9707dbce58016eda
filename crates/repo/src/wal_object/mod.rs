//! WAL objects: one file of the WAL archive as one object.
//!
//! Order: head, data frames of 4 MiB raw each, facts frame, tail. The file may be a segment, a partial segment, a
//! history or a backup history file. The facts contain the file's name, length and BLAKE3 hash, and what the archiver
//! learnt while it had the bytes. They can be read from the object's end alone.
//!
//! [`WalObjectPlan`] cuts a file so that its pieces can be compressed in parallel; [`encode`] does all of it in one
//! thread. [`decode`] returns the file only if every frame, the length, the hash and the name agree. [`Bounds`] limits
//! how much a reader accepts before it knows that.

mod bounds;
mod facts;
mod read;
mod write;

pub use bounds::{Bounds, FACTS_BYTES};
pub use facts::WalObjectFacts;
pub use read::{decode, decode_within, facts_from_end};
pub use write::{PIECE_BYTES, WalObjectPlan, assemble, encode};

#[cfg(test)]
mod tests;
