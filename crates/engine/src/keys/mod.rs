//! `key list`, `add`, `rotate` and `remove`: who can open an encrypted repository.
//!
//! - `session`: an opened repository whose key slots are changed; writing a slot, and proving that it opens.
//! - [`list`]: the slots as they are.
//! - [`add`]: one more secret that opens the repository.
//! - [`rotate`]: a new key for new data, in new slots for the secrets that stay. The old slots are removed.
//! - [`remove`]: removes one slot.
//!
//! These invariants hold before and after every request, while other hosts run, and after a crash at any point:
//!
//! - A run removes a slot only after it has read another slot back from the store and opened it with its own secret.
//!   That other slot gives the same keys or more. So no user can lock themselves out, and nobody can remove the last
//!   slot.
//! - If two runs remove each other's slot, at least one gives up. Each run puts a mark beside the slot that it removes,
//!   then looks for the other run's mark, then opens its own slot again. This needs no conditional writes and no clock.
//! - Each epoch has one key. The first slot of epoch 5 is always called `epoch-5`, and it is created only if there is
//!   no such object, so one of two rotations gives up. The run that wrote it never deletes it, because its key may be
//!   in use. This needs conditional writes.
//! - The name of a slot is used only once: its mark stays.
//! - Slots are never overwritten. A crash leaves old and new slots that all open. The same command finishes the change.
//!
//! A run that has opened the repository before a rotation keeps its keys in memory and ends under its old epoch. The
//! new slots can read what it writes.

pub mod add;
pub mod list;
pub mod remove;
pub mod rotate;
mod session;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use holdfast_repo::key::Argon2Cost;

/// The options of all commands that change key slots.
#[derive(Debug, Clone)]
pub struct KeyOptions {
    /// The name of this host, for the ledger.
    pub host: String,
    /// The time of the change, for new slots and the ledger.
    pub now: DateTime<Utc>,
    /// The cost of trying one passphrase on a new slot.
    pub cost: Argon2Cost,
}
