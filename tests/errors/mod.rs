//! Everything that can go wrong around a backup tool, provoked for real, with the whole message compared: what
//! happened, what was being done, what to do about it, and the exit code that a script would see.
//!
//! Each case is one line of the table in `docs/exit-codes.md`, as a user meets it. Values that vary from run to run are
//! placeholders in the expected text, see [`kit::Texts`].

mod backups;
mod configuration;
mod credentials;
mod damage;
mod foreign;
mod future;
mod kit;
mod opening;
mod proxies;
mod s3;
mod strays;
mod targets;
mod wal;
