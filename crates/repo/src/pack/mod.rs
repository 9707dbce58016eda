//! Packs: many chunks in one object, with an index at its end that describes them.
//!
//! Order of a pack: head, data frames, index frame, tail. A data frame contains one chunk, or several small ones one
//! after the other. [`PackWriter`] is pure: it returns the bytes to store, in order, and keeps only the index in
//! memory. A pack whose upload was interrupted has no tail, and nothing refers to it.

mod carry;
mod index;
mod write;

pub use carry::{FrameShift, PackCarrier};
pub use index::{PackChunk, PackFrame, PackIndex};
pub use write::{MAX_PACK_BYTES, PackWriter};

#[cfg(test)]
mod tests;
