//! What each verb reports with `--output json`: a file for each verb.
//!
//! `engine` creates these values, `cli` prints them, `instance` reads them. The rules of the format
//! (`docs/json-output.md`): unknown fields are ignored on reading; a new field is optional (`#[serde(default)]`); no
//! field is renamed, removed or given another meaning. Records of the repository are contained as they are stored.
//!
//! Verbs for several repositories report each of them, even one that cannot be read: [`PerRepository`].

#![expect(
    missing_docs,
    reason = "docs/json-output.md describes the reports; here is what a name and its type do not say"
)]

pub mod backup;
pub mod check;
pub mod copy;
pub mod drill;
pub mod expire;
pub mod info;
pub mod key;
pub mod list;
pub mod manifest;
pub mod repo;
pub mod restore;
pub mod snapshot;
pub mod verify;
pub mod wal;
pub mod wal_find;
pub mod wal_receive;
pub mod wal_verify;

use crate::problem::BriefError;
use chrono::{DateTime, Utc};
use holdfast_repo::identity::RepositoryId;
use holdfast_repo::record::{ConditionalCreate, EncryptionKind, RepositoryRecord, StoreCapabilities};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The report about one repository, or why it could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PerRepository<T> {
    /// The report.
    Read(T),
    /// An object with the field `error`.
    Unreadable(UnreadableRepository),
}

impl<T> PerRepository<T> {
    /// The report, if the repository could be read.
    pub fn read(&self) -> Option<&T> {
        match self {
            Self::Read(report) => Some(report),
            Self::Unreadable(_) => None,
        }
    }
}

/// Written by hand: with the derived form, every error would read "data did not match any variant".
impl<'de, T: DeserializeOwned> Deserialize<'de> for PerRepository<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let read = match value.get("error") {
            None | Some(Value::Null) => T::deserialize(value).map(Self::Read),
            Some(_) => UnreadableRepository::deserialize(value).map(Self::Unreadable),
        };
        read.map_err(D::Error::custom)
    }
}

/// A repository that could not be opened or listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadableRepository {
    /// The redacted URL.
    pub repository: String,
    /// The reason.
    pub error: BriefError,
}

/// The properties of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryDescription {
    /// The redacted URL.
    pub repository: String,
    pub id: RepositoryId,
    pub format_version: u32,
    /// When it was created.
    pub created: DateTime<Utc>,
    /// How its objects are encrypted.
    pub encryption: EncryptionKind,
    /// How an object is created only if none exists.
    pub conditional_create: ConditionalCreate,
    /// The other known properties of its store; `None` if they were never tested.
    pub store: Option<StoreCapabilities>,
}

impl RepositoryDescription {
    /// The description of the repository at this redacted URL.
    pub fn of(url: String, record: &RepositoryRecord) -> Self {
        Self {
            repository: url,
            id: record.repository_id,
            format_version: record.format_version,
            created: record.created,
            encryption: record.encryption,
            conditional_create: record.conditional_create,
            store: record.store,
        }
    }
}

/// A record that a repository names but that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadableRecord {
    /// The kind of the record, such as `backup`.
    pub kind: String,
    /// The id in the name of the record.
    pub id: String,
    /// The name of its object.
    pub object: String,
    /// The reason.
    pub error: BriefError,
}
