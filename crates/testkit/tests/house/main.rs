//! The rules of `docs/style.md` that a program can check, checked on the sources of this project.
//!
//! Every failure names the file and the rule. `measures` prints the table of `docs/architecture.md`.

#![expect(clippy::expect_used, clippy::panic, reason = "a source that cannot be read fails the test")]
#![expect(clippy::print_stdout, reason = "the measures are printed")]

mod benches;
mod circles;
mod comments;
mod crate_order;
mod documents;
mod exit_codes;
mod measures;
mod modules;
mod purity;
mod repeated_names;
mod sources;
mod units;
mod widths;
