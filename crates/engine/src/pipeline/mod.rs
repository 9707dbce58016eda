//! What the verbs share to move many bytes at once: a byte budget that bounds memory, and a crew of
//! threads for work that keeps a processor busy.
//!
//! Invariant: a buffer on its way through a pipeline holds a [`budget::Permit`] for its bytes, so
//! that the sum of all buffers never passes the budget whatever the number of files, parts or
//! repositories.

pub mod budget;
pub mod crew;
pub(crate) mod object_upload;
mod part_buffer;
