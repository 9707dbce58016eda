//! Tests of the planner: each test begins with a small archive and changes one thing.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::panic, reason = "a panic is a failed test")]

mod archive;
mod calendar;
mod clocks;
mod doubt;
mod grace;
mod packs;
mod timelines;
mod upgrade;
mod users;
mod window;
mod words;
