//! Archiving: the commands that PostgreSQL calls, and the state of the archive.
//!
//! - [`keep_agent`]: the resident process that does their work
//! - [`command`]: `archive_command` and `restore_command`, which become the engine's verbs
//! - [`pushes`]: ends the commands that run, when PostgreSQL must not wait for them
//! - [`status`]: the archiver, from `pg_stat_archiver` and `archive_status`
//! - [`watch_recoverability`]: what could be restored; the primary looks it up from time to time

mod agent;
mod archived;
pub mod command;
pub mod pushes;
mod recoverability;
mod waiting;

pub use agent::keep as keep_agent;
pub use recoverability::watch as watch_recoverability;
pub use waiting::{Waiting, status};
