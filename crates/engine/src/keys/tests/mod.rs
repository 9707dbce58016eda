#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod bench;
mod faults;
mod hostile;
mod steps;
mod two_hosts;
