//! Backups into the object store: `holdfast backup`, beside PostgreSQL, one at a time.
//!
//! The run is a child process that gives way to the server. It is ended in order when the pod stops, and begun again by
//! the operator, which sees that this manager knows nothing of it. What the status port tells comes from the child's
//! progress lines and from its own last answer: a backup is complete when the engine said so.

mod result;
mod routes;
mod run;

pub use routes::{delete, get, put};
