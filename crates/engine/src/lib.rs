//! The verbs of Holdfast.
//!
//! A verb reads what is, plans (pure), and executes. The byte's way down is `backup/` (data directory to packs) and
//! `archive/` (WAL segments to objects), its way up is `restore/`; `repository/` is what they all write to and read
//! from, `server/` the PostgreSQL beside the data directory, `pipeline/` the machinery that moves many bytes at once
//! under one byte budget.
//!
//! Nothing here prints, exits, or reads a clock or an environment variable that its caller could have given.

// A caller decides by the kind of an error, so every public function says which it returns (docs/style.md).
#![warn(clippy::missing_errors_doc)]

pub mod archive;
pub mod backup;
pub mod check;
pub mod drill;
pub mod error;
pub mod expire;
pub mod keys;
pub mod pipeline;
pub mod places;
pub mod progress;
pub mod repository;
pub mod restore;
pub mod server;
pub mod snapshot;
pub mod verify;

pub use error::{Cause, Error, ResultExt};
