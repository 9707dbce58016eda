//! `key list`, `add`, `rotate` and `remove`: who can open an encrypted repository.
//!
//! - `session`: an opened repository whose key slots are changed; writing a slot, and proving that it opens.
//! - [`list`]: the slots as they are.
//! - [`add`]: one more secret that opens the repository.
//! - [`rotate`]: a new key for what is written from now on, in new slots for the secrets that stay; the old slots go.
//! - [`remove`]: one slot goes.
//!
//! Invariants, at every request, beside other runs on other hosts, and after a crash anywhere:
//!
//! - A slot is removed only when another one that gives the same keys or more was read back from the store and opened, by the
//!   run that removes, with the secret that it was given. So nobody can lock out themselves, and the last slot cannot go.
//! - Of two runs that remove each other's slot at least one gives up: each first puts a mark beside the slot that it removes,
//!   then looks for the other's mark, then opens its own slot once more. This needs no conditional writes and no clock.
//! - There is one key for each epoch. The slot that begins epoch 5 is called `epoch-5` whoever writes it, and it is created
//!   only where there is none: so of two rotations one gives up. The run that wrote it never deletes it, since its key may be in
//!   use. This needs conditional writes.
//! - The name of a slot is used once: its mark stays.
//! - Slots are never written over. What a crash leaves is slots beside each other that all open; the same command again ends it.
//!
//! A run that opened the repository before keeps its keys in memory: it ends under the epoch that it began with, and whoever
//! opens the repository by a new slot reads that too.

pub mod add;
pub mod list;
pub mod remove;
pub mod rotate;
mod session;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use holdfast_repo::key::Argon2Cost;

/// What all changes of key slots need to know.
#[derive(Debug, Clone)]
pub struct KeyOptions {
    /// This host, for the ledger.
    pub host: String,
    /// Now.
    pub now: DateTime<Utc>,
    /// What trying one passphrase costs in new slots.
    pub cost: Argon2Cost,
}
