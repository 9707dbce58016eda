//! The names of features that a program must know to use a repository.

use super::{NameError, is_name_part};
use std::fmt;
use std::str::FromStr;

/// What a program may not do without knowing a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FeatureUse {
    /// Read the repository, or write to it.
    Read,
    /// Write to it.
    Write,
    /// Remove what an earlier run left. Everything else is allowed, so that an archiver that is not upgraded yet does
    /// not stop.
    Remove,
}

/// The features that this release knows; none exist yet.
const KNOWN: &[&str] = &[];

/// Name of a feature, the last part of `features/<read, write or remove>-<name>`: a feature that a later release uses
/// in this repository, and for which an older one must refuse some actions. Only the name of the object counts; its
/// content is not read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureName {
    needed_to: FeatureUse,
    name: String,
}

impl FeatureName {
    /// The use that needs the feature.
    pub fn needed_to(&self) -> FeatureUse {
        self.needed_to
    }

    /// Whether this release knows the feature.
    pub fn is_known(&self) -> bool {
        KNOWN.contains(&self.name.as_str())
    }
}

impl FromStr for FeatureName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parsed = text.split_once('-').and_then(|(word, name)| {
            let needed_to = match word {
                "read" => FeatureUse::Read,
                "write" => FeatureUse::Write,
                "remove" => FeatureUse::Remove,
                _ => return None,
            };
            is_name_part(name).then(|| Self { needed_to, name: name.to_owned() })
        });
        parsed
            .ok_or_else(|| NameError::new("feature name", text, "read-, write- or remove- and the name of the feature"))
    }
}

impl fmt::Display for FeatureName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.needed_to {
            FeatureUse::Read => "read",
            FeatureUse::Write => "write",
            FeatureUse::Remove => "remove",
        };
        write!(formatter, "{word}-{}", self.name)
    }
}
