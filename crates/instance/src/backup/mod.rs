//! Backups into the object store: `holdfast backup` runs in parallel to PostgreSQL, one at a time.
//!
//! The run is a child process with lower priority than the server. It is ended in order when the pod stops. The
//! operator begins it again when it sees that the new manager does not know the run. The status port reports the
//! child's progress lines and its final report: a backup is complete when the engine has reported so.

mod result;
mod routes;
mod run;

pub use routes::{delete, get, put};
