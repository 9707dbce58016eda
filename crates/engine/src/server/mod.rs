//! The PostgreSQL server beside its data directory: the one connection a backup keeps open, and the
//! facts read over it.
//!
//! The connection is made without TLS: it goes over the Unix socket of the same host, or over a
//! network that the user trusts; a connection string that insists on TLS is refused by name.

mod connect;
mod facts;

pub use connect::{Connection, ConnectionSettings, PostmasterPid};
pub use facts::{Database, ServerFacts};
