//! The `holdfast` command: flags, configuration, exit codes, wording, progress.
//!
//! The way of a command: the words are parsed ([`args`]); the configuration is read, overlaid and given its meaning
//! ([`config`]); the log is started ([`logging`]); the verb runs on a tokio runtime under a cancellation token that signals
//! trip ([`signals`]); its result goes to stdout ([`output`]) or its failure, in three parts, to stderr ([`failure`]); the
//! process ends with the code of one table ([`exit_code`]), translated for whoever called ([`exit_code::Caller`]).
//!
//! ```
//! use holdfast_cli::exit_code::{Caller, ExitCode};
//!
//! // A store that does not answer is not "the file is not there": recovery must stop, not end.
//! assert_eq!(ExitCode::Unreachable.status(Caller::RestoreCommand, None), 152);
//! assert_eq!(ExitCode::Absent.status(Caller::RestoreCommand, None), 1);
//! ```

pub mod args;
pub mod config;
pub mod failure;
pub mod logging;
pub mod output;
mod resident;
mod run;
pub mod signals;
pub mod style;
mod verbs;

/// The table of exit codes, which whoever runs this command shares with it.
pub use holdfast_contract::exit_code;
pub use run::run;
pub use verbs::Context;
