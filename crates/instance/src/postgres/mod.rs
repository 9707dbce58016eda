//! PostgreSQL itself: its programs, its postmaster, and what it reports.
//!
//! - [`Programs`]: the paths of its programs
//! - [`Postmaster`]: the server as a child of the manager
//! - [`Sql`]: the manager's connection, over the Unix socket
//! - [`Facts`]: what the server reports about itself; [`Lossy`]: names that are not valid UTF-8

mod facts;
mod lossy;
mod postmaster;
mod programs;
mod sql;
mod stale;

pub use facts::{Facts, read as read_facts};
pub use lossy::Lossy;
pub use postmaster::{Exit, Postmaster, StopMode};
pub use programs::Programs;
pub use sql::Sql;
pub(crate) use sql::of_server as postgres_error;
pub use stale::end_leftover;
