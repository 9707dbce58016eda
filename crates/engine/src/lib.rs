//! The verbs of Holdfast.
//!
//! A verb reads the facts, plans (pure), and executes the plan. Bytes go to the store in `backup/` (data directory to
//! packs) and `archive/` (WAL segments to objects) and `receive/` (the same while they are written), and come back in
//! `restore/`. `repository/` is what they all write and read, `server/` is the PostgreSQL server of the data directory,
//! and `pipeline/` moves many bytes at once under one byte budget.
//!
//! Nothing here prints or exits. The caller passes the time and the environment.
//!
//! ```
//! use std::sync::Arc;
//!
//! use holdfast_engine::repository::init::init;
//! use holdfast_engine::repository::{Repository, RepositoryTarget, Unlock};
//! use holdfast_store::MemoryStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let target = RepositoryTarget { store: Arc::new(MemoryStore::new()), unlock: Unlock::NotEncrypted };
//! assert!(init(&target, chrono::Utc::now()).await?.created);
//! let repository = Repository::open(&target).await?;
//! assert!(repository.backups(&"main".parse()?).await?.records.is_empty());
//! # Ok(())
//! # }
//! ```

// A caller decides by the kind of an error, so every public function documents its errors (docs/style.md).
#![warn(clippy::missing_errors_doc)]

pub mod archive;
pub mod backup;
mod carry;
pub mod check;
pub mod continuity;
pub mod copy;
pub mod drill;
pub mod error;
pub mod expire;
pub mod find;
pub mod keys;
pub mod path_overlap;
pub mod pipeline;
pub mod progress;
pub mod receive;
pub mod repository;
pub mod restore;
pub mod server;
pub mod snapshot;
pub mod verify;

pub use error::{Cause, Error, ResultExt};
