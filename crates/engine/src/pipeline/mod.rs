//! The parts that all verbs use to move many bytes at once: a byte budget that limits memory, and a crew of threads for
//! work that keeps a processor busy.
//!
//! Invariant: a buffer in a pipeline holds a [`budget::Permit`] for its bytes. So the sum of all buffers never exceeds
//! the budget, whatever the number of files, parts or repositories.

pub mod budget;
pub mod crew;
pub(crate) mod object_upload;
mod part_buffer;
