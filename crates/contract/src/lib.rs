//! What the programs of Holdfast agree on.
//!
//! People, PostgreSQL, schedulers and Holdfast's own instance manager run the command `holdfast`. The types of its
//! output are here, in one place, below the crates that write it and the crates that read it:
//!
//! | Module | What it holds |
//! |---|---|
//! | [`amount`] | sizes, rates and durations for people |
//! | [`agent`] | what `wal push` and `wal get` ask the agent |
//! | [`exit_code`] | how a command ended, and whether somebody has to act |
//! | [`problem`] | an error in three parts, as text and as JSON |
//! | [`progress`] | what a command says while it runs |
//! | [`report`] | what each verb reports |
//! | [`request`] | what a verb reads from stdin |
//!
//! The JSON is a format (`docs/json-output.md`): unknown fields are ignored when it is read, a new field is optional,
//! and a field never changes its name or meaning. `tests/samples/` holds a frozen sample of each, which has to parse
//! for ever.
//!
//! ```
//! use holdfast_contract::exit_code::ExitCode;
//! use holdfast_contract::problem::{ErrorLine, Problem};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let problem = Problem::new("the store did not answer").doing("opening s3://b/p").hint("check the network");
//! assert_eq!(problem.to_string(), "error: the store did not answer\nwhile: opening s3://b/p\nhint:  check the network");
//!
//! let line = ErrorLine::new(ExitCode::Unreachable, problem.clone()).to_string();
//! let read: ErrorLine = serde_json::from_str(&line)?;
//! assert_eq!(read.error.exit_code(), Some(ExitCode::Unreachable));
//! assert!(!ExitCode::Unreachable.is_stuck());
//! assert_eq!(read.error.problem, problem);
//! # Ok(())
//! # }
//! ```

// A caller decides by the kind of an error, so every public function documents its errors (docs/style.md).
#![warn(clippy::missing_errors_doc)]

pub mod agent;
pub mod amount;
pub mod exit_code;
pub mod problem;
pub mod progress;
pub mod report;
pub mod request;
