//! Archiving: the commands that PostgreSQL calls, and the state of the archive.
//!
//! - [`command`]: `archive_command` and `restore_command`, which become the engine's verbs
//! - [`status`]: the archiver, from `pg_stat_archiver` and `archive_status`
//! - [`watch_recoverability`]: what could be restored; the primary looks it up from time to time

mod archived;
pub mod command;
mod recoverability;
mod waiting;

pub use recoverability::watch as watch_recoverability;
pub use waiting::status;
