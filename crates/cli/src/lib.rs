//! The `holdfast` command: flags, configuration, exit codes, messages, progress.
//!
//! The steps of a command: the command line is parsed ([`args`]); the configuration is read, overridden by flags and
//! validated ([`config`]); the log starts ([`logging`]); the verb runs on a tokio runtime under a cancellation token
//! that signals cancel ([`signals`]). Its result goes to stdout ([`output`]), or its failure, in three parts, to stderr
//! ([`failure`]). The process ends with a code from one table ([`exit_code`]), translated for the caller
//! ([`exit_code::Caller`]).
//!
//! ```
//! use holdfast_cli::exit_code::{Caller, ExitCode};
//!
//! // A store that does not answer is not "the file is not there": recovery must stop, not end.
//! assert_eq!(ExitCode::Unreachable.status(Caller::RestoreCommand, None), 152);
//! assert_eq!(ExitCode::Absent.status(Caller::RestoreCommand, None), 1);
//! ```

#![expect(
    missing_docs,
    reason = "only the program `holdfast` uses this crate; a comment has to say more than the name"
)]

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

/// The table of exit codes, shared with the programs that run this command.
pub use holdfast_contract::exit_code;
pub use run::run;
pub use verbs::Context;
