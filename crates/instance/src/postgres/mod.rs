//! PostgreSQL itself: its programs, its postmaster, and what it says of itself.
//!
//! - [`Programs`]: where the image has them
//! - [`Postmaster`]: the server as a child of the manager
//! - [`Sql`]: the manager's connection, over the Unix socket
//! - [`Facts`]: what the server says of itself; [`Lossy`]: names that are no UTF-8

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
