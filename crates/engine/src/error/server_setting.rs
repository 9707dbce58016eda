//! [`ServerSetting`]: a server that cannot be backed up.

use std::path::PathBuf;

use holdfast_pgtypes as pg;

/// A property of the server that makes a backup impossible.
#[expect(missing_docs, reason = "the texts of the errors say what the fields are")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerSetting {
    /// `wal_level = minimal` writes too little WAL to recover a backup.
    #[error("wal_level is \"minimal\"")]
    WalLevelMinimal,
    /// The connection does not lead to the server of the data directory.
    #[error("the connection leads to a server with system identifier {server}, but {} has {directory_identifier}", directory.display())]
    OtherServer {
        server: pg::SystemIdentifier,
        directory: PathBuf,
        /// The system identifier in the data directory.
        directory_identifier: pg::SystemIdentifier,
    },
    /// The connection leads to a server of the same cluster that uses other files.
    #[error("the connection does not lead to the server of {}: {reason}", directory.display())]
    OtherFiles { directory: PathBuf, reason: String },
}
