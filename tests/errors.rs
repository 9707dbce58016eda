//! Everything that can be wrong around a backup tool, provoked for real, with the whole message compared: what happened,
//! what was being done, what to do about it, and the exit code that a script would see.
//!
//! Each case is one line of the table in `docs/exit-codes.md` as a user meets it. What varies from run to run stands as a
//! placeholder in the expected text, see [`kit::Texts`].

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a failed set-up fails the test")]

mod stage;

#[path = "errors/backups.rs"]
mod backups;
#[path = "errors/configuration.rs"]
mod configuration;
#[path = "errors/damage.rs"]
mod damage;
#[path = "errors/foreign.rs"]
mod foreign;
#[path = "errors/kit.rs"]
mod kit;
#[path = "errors/opening.rs"]
mod opening;
#[path = "errors/proxies.rs"]
mod proxies;
#[path = "errors/s3.rs"]
mod s3;
#[path = "errors/strays.rs"]
mod strays;
#[path = "errors/targets.rs"]
mod targets;
#[path = "errors/wal.rs"]
mod wal;
