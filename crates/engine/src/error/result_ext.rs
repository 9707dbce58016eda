//! From what happened to an [`Error`], and what was being done, for a failed result.

use super::{Cause, Error};

impl<T: Into<Cause>> From<T> for Error {
    fn from(what: T) -> Self {
        Self { what: Box::new(what.into()), doing: Vec::new() }
    }
}

/// Adds what was being done to a failed result.
pub trait ResultExt<T> {
    /// `phrase` completes "while …", in the present tense.
    ///
    /// # Errors
    /// The failure itself, with the phrase.
    fn doing(self, phrase: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<Error>> ResultExt<T> for Result<T, E> {
    fn doing(self, phrase: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|e| e.into().doing(phrase()))
    }
}
