//! Manifests as people write them: YAML with several documents, comments and mistakes.
//!
//! - [`read`]: turns text into documents, with the line of every key and all duplicate keys
//! - [`write()`]: writes a value as YAML that every reader understands in the same way
//! - [`check`]: finds the mistakes in the documents of a file, and corrects them

mod check;
mod fix;
mod read;

pub use crate::yaml::{WriteError, write};
pub use check::{Checked, Level, Located, Verdict, check};
pub use read::{Document, Duplicate, ReadError, read};
