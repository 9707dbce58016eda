#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod bench;
mod clocks;
mod doubt;
mod drilled;
mod faults;
mod holds;
mod remains;
mod scale;
mod steps;
mod users;
