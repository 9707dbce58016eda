//! Manifests as people write them: YAML with several documents, comments and mistakes.
//!
//! - [`read`]: text into documents, with the line of every key and all keys that are written twice
//! - [`write()`]: a value as YAML that every reader understands in the same way
//! - [`check`]: what is wrong with the documents of a file, and what they become when it is put right

mod check;
mod fix;
mod read;
mod write;

pub use check::{Checked, Level, Located, Verdict, check};
pub use read::{Document, Duplicate, ReadError, read};
pub use write::{WriteError, write};
