//! The id of a run.

use super::{NameError, is_name_part};
use std::fmt;
use std::str::FromStr;

/// Id of one run of a verb, random text: 1 to 63 of `[A-Za-z0-9._-]`, not starting with a dot. It names the leases of
/// the run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(String);

impl RunId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_name_part(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::new(
                "run id",
                text,
                "1 to 63 letters, digits, dots, underscores and hyphens, not starting with a dot",
            ))
        }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

super::serde_as_text!(RunId);
