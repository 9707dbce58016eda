//! Packs: many chunks in one object, which explains itself by the index at its end.
//!
//! Order of a pack: head, data frames, index frame, tail. A data frame holds one chunk, or several small ones
//! one behind the other. [`PackWriter`] is pure: it gives the bytes to be stored behind each other and keeps
//! only the index in memory. A pack whose upload was cut off has no tail, and nothing refers to it.

mod index;
mod write;

pub use index::{PackChunk, PackFrame, PackIndex};
pub use write::{MAX_PACK_BYTES, PackWriter};

#[cfg(test)]
mod tests;
