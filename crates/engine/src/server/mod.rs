//! The PostgreSQL server beside its data directory: the one connection a backup keeps open, the facts read over it, and
//! the proof that it is this data directory's server.
//!
//! - [`connect`]: opens the connection and prepares its session; [`libpq`] says what the connection parameters are, as
//!   libpq would read them, and [`tls`] encrypts.
//! - [`postmaster`]: what a running server writes into its data directory.
//! - [`facts`]: what a backup must know.

mod connect;
mod facts;
mod libpq;
mod postmaster;
mod tls;

pub use connect::{Connection, ConnectionSettings};
pub use facts::{Database, ServerFacts};
pub use libpq::Environment;
pub use postmaster::PostmasterPid;
