//! Archiving: what PostgreSQL calls, and how it goes.
//!
//! - [`command`]: `archive_command` and `restore_command`, which become the engine's verbs
//! - [`status`]: the archiver, from `pg_stat_archiver` and `archive_status`
//! - [`watch_recoverability`]: what could be restored, looked up by the primary from time to time

mod archived;
pub mod command;
mod recoverability;
mod waiting;

pub use recoverability::watch as watch_recoverability;
pub use waiting::status;
