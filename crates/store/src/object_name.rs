//! [`ObjectName`]: a checked name that every back-end can keep.
//!
//! The rules make a name safe both as a path and as an S3 key: relative, '/' between the parts, no empty part, neither
//! "." nor "..", no control characters (XML listings cannot carry them), at most 1024 bytes (S3) in parts of at most
//! 255 bytes (file systems). So a name from a listing or a manifest can never lead out of a directory.

use std::fmt;
use std::str::FromStr;

/// S3's limit for a key; the prefix of the repository counts too and is checked again by the store.
const MAX_BYTES: usize = 1024;
/// `NAME_MAX` of the usual file systems.
const MAX_PART_BYTES: usize = 255;

/// The name of an object, relative to its store: `main/wal/1/00000001/...`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

/// Why a string is not an object name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid object name {name:?}: {reason}")]
pub struct ObjectNameError {
    /// The string as given.
    pub name: String,
    /// The rule that the name breaks, as text for people.
    pub reason: &'static str,
}

impl std::borrow::Borrow<str> for ObjectName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl ObjectName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// If the string breaks a rule of this module.
    pub fn new(name: impl Into<String>) -> Result<Self, ObjectNameError> {
        let name = name.into();
        match fault_of(&name) {
            None => Ok(Self(name)),
            Some(reason) => Err(ObjectNameError { name, reason }),
        }
    }

    /// The name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name `tail` below this one.
    ///
    /// # Errors
    /// If the result is not a valid name.
    pub fn join(&self, tail: &str) -> Result<Self, ObjectNameError> {
        Self::new(format!("{}/{tail}", self.0))
    }

    /// The part after the last '/'.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

fn fault_of(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("it is empty");
    }
    if name.len() > MAX_BYTES {
        return Some("it is longer than 1024 bytes");
    }
    if name.chars().any(char::is_control) {
        return Some("it holds a control character");
    }
    for part in name.split('/') {
        match part {
            "" => return Some("a part between slashes is empty"),
            "." | ".." => return Some("a part is \".\" or \"..\""),
            _ if part.len() > MAX_PART_BYTES => return Some("a part is longer than 255 bytes"),
            _ => {}
        }
    }
    None
}

impl FromStr for ObjectName {
    type Err = ObjectNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl TryFrom<String> for ObjectName {
    type Error = ObjectNameError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(name)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ObjectName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn good_names_round_trip() {
        for name in ["a", "a/b", "holdfast.json", "a b/ü+%/..c", "...", ".hidden"] {
            assert_eq!(name.parse::<ObjectName>().unwrap().to_string(), name);
        }
        assert_eq!(ObjectName::new("a/b").unwrap().join("c/d").unwrap().file_name(), "d");
    }

    #[test]
    fn bad_names_are_refused_with_the_input_in_the_message() {
        let long_part = "x".repeat(256);
        let long = "abc/".repeat(300) + "x";
        for name in ["", "/", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/.", "a\0b", "a\nb", &long_part, &long] {
            let error = ObjectName::new(name).unwrap_err();
            assert_eq!(error.name, name);
            assert!(error.to_string().starts_with("invalid object name "));
        }
    }
}
