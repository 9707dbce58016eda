//! The PostgreSQL server of a data directory: the one connection that a backup keeps open, the facts read over it, and
//! the proof that it is this data directory's server.
//!
//! - [`connect`]: opens the connection and prepares its session; [`libpq`] reads the connection parameters as libpq
//!   would, and [`tls`] encrypts.
//! - [`postmaster`]: what a running server writes into its data directory.
//! - [`identity`], [`temporary_file`]: whether the server that answers is the one whose files are read.
//! - [`facts`]: what a backup must know; [`text`]: names that are not UTF-8.
//! - [`replication`]: the other kind of connection, over which a server streams its WAL.

mod connect;
mod control;
mod facts;
mod identity;
mod libpq;
mod postmaster;
pub(crate) mod replication;
pub(crate) mod running;
#[cfg(test)]
pub(crate) mod sample_control;
mod temporary_file;
mod text;
mod tls;

pub use connect::{Connection, ConnectionSettings};
pub use control::read_control_file;
pub(crate) use control::{read_control_bytes, refused_control_file, unsupported_version};
pub use facts::{Database, DatabasePlace, ServerFacts};
pub use identity::{prove_same, prove_started, prove_timeline};
pub use libpq::Environment;
pub use postmaster::PostmasterPid;
pub use text::RawText;
