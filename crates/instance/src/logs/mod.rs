//! The log: one JSON object a line on stdout, from PostgreSQL's stderr and from the manager itself.
//!
//! PostgreSQL writes a message as several lines: the message, its further lines after a tab, and `DETAIL`, `HINT`,
//! `STATEMENT` and the like with their own prefix. [`Parser`] joins them by the prefix that
//! [`LOG_LINE_PREFIX`](crate::settings::postgresql::LOG_LINE_PREFIX) makes. Lines without it come from programs that
//! PostgreSQL calls, ours among them. Their three-part errors are joined too, and the last error of `archive_command`
//! is kept for the status port ([`Errors`]).

mod own;
mod parser;
mod stream;

pub use own::start as start_own;
pub use parser::{Parser, Record};
pub use stream::{Errors, follow};
