//! The name of a key slot.

use super::{NameError, is_name_part};
use std::fmt;
use std::str::FromStr;

/// Name of a key slot, the `<slot>` of `keys/<slot>.json`: 1 to 63 of `[A-Za-z0-9._-]`, not starting with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName(String);

impl SlotName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SlotName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_name_part(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::new(
                "key slot name",
                text,
                "1 to 63 letters, digits, dots, underscores and hyphens, not starting with a dot",
            ))
        }
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

super::serde_as_text!(SlotName);
