//! Names: the name of every object of a repository, and the meaning of a listed name.
//!
//! All names are relative to the repository's prefix and `/`-separated. [`ObjectPath`] is the typed form: its `Display`
//! prints the one name that an object may have, and its `FromStr` reads a name from a listing. The functions
//! [`wal_file`], [`pack`], [`manifest`] and so on are a short way to the same names, and the `*_folder` functions
//! return the prefixes to list.
//!
//! Invariant: parsing is canonical. A name parses only if printing the result gives the same bytes again. So two
//! spellings of one object cannot exist, and a stray object in the bucket is never mistaken for one of Holdfast's own.
//!
//! ```
//! use holdfast_repo::name::{self, BackupId, ClusterName, ObjectPath};
//!
//! let cluster: ClusterName = "main".parse()?;
//! let backup: BackupId = "20260822T101500Z".parse()?;
//! let pack = name::pack(&cluster, &backup, 7);
//! assert_eq!(pack, "main/packs/20260822T101500Z/000007.pack");
//! assert_eq!(pack.parse::<ObjectPath>()?.cluster(), Some(&cluster));
//! # Ok::<(), holdfast_repo::name::NameError>(())
//! ```

mod backup_id;
mod claim;
mod cluster;
mod feature;
mod ledger;
mod locked;
mod object;
mod pack_id;
mod run_id;
mod slot;
mod tail;
#[cfg(test)]
mod tests;

pub use backup_id::BackupId;
pub use claim::ClaimNumber;
pub use cluster::ClusterName;
pub use feature::{FeatureName, FeatureUse};
pub use ledger::{LedgerKind, LedgerTime};
pub use locked::is_locked;
pub use object::{
    MAX_PACK_NUMBER, ObjectPath, REPOSITORY_OBJECT, backup_end, backup_folder, backup_start, backup_summary,
    backups_folder, claim, claims_folder, drill, features_folder, key_slot, key_slot_removal, keys_folder, lease,
    leases_folder, ledger, ledger_folder, manifest, pack, packs_folder, snapshot, snapshots_folder, verification,
    wal_claim_folder, wal_codec, wal_file, wal_log_folder, wal_tail, wal_tail_claim_folder, wal_tail_folder,
    wal_tail_timeline_folder, wal_timeline_folder,
};
pub use pack_id::PackId;
pub use run_id::RunId;
pub use slot::SlotName;
pub use tail::TailRange;

use thiserror::Error;

/// A text that is not a valid name of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{input:?} is not a {what}: {rule}")]
pub struct NameError {
    /// What was expected, as a noun: "cluster name", "backup id".
    pub what: &'static str,
    /// The text that was read.
    pub input: String,
    /// The rule that the text breaks.
    pub rule: &'static str,
}

impl NameError {
    fn new(what: &'static str, input: &str, rule: &'static str) -> Self {
        Self { what, input: input.to_owned(), rule }
    }
}

/// Whether `text` is safe as one part of an object name on every store and file system: 1 to 63 of `[A-Za-z0-9._-]`,
/// without a leading dot (hidden files, `.` and `..`).
fn is_name_part(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Gives a text type with `FromStr` and `Display` the same form in JSON.
macro_rules! serde_as_text {
    ($name:ty) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
use serde_as_text;
