//! `key list`: the key slots of a repository.

use chrono::{DateTime, Utc};
use holdfast_repo::key::{KeySlotKind, Recipient};
use holdfast_repo::name::SlotName;

use crate::error::{Error, ResultExt};
use crate::repository::listed::Unreadable;
use crate::repository::slots::Slots;
use crate::repository::{Repository, RepositoryTarget};

/// What `key list` shows of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSlot {
    /// The name of the slot, as in `keys/<slot>.json`.
    pub slot: SlotName,
    /// The name of the slot that it replaces, or its own name.
    pub label: SlotName,
    /// The kind of secret that opens it.
    pub kind: KeySlotKind,
    /// For a slot of a public key, that key, as the slot says.
    pub recipient: Option<Recipient>,
    /// The newest epoch whose key it gives.
    pub epoch: u32,
    /// When the slot was made, by the clock of its host.
    pub created: DateTime<Utc>,
    /// Whether the configured secret opened the repository with this slot.
    pub opened: bool,
    /// Whether a removal of the slot has begun and is not finished.
    pub removal_begun: bool,
}

/// The key slots of a repository.
#[derive(Debug)]
pub struct KeyList {
    /// The newest epoch whose key the configured secret gives; `None` without encryption.
    pub epoch: Option<u32>,
    /// The readable slots, sorted by epoch and name.
    pub slots: Vec<ListedSlot>,
    /// The slots that cannot be read, each with its error.
    pub unreadable: Vec<Unreadable<SlotName>>,
}

/// Lists the key slots.
///
/// # Errors
/// As [`Repository::open`]; [`Cause::Store`](crate::Cause::Store) if the slots cannot be listed.
pub async fn list(target: &RepositoryTarget) -> Result<(Repository, KeyList), Error> {
    let repository = Repository::open(target).await?;
    let Some(key) = repository.key() else {
        return Ok((repository, KeyList { epoch: None, slots: Vec::new(), unreadable: Vec::new() }));
    };
    let epoch = key.epoch();
    let read = Slots::read(repository.store(), target.unlock.hint()).await;
    let slots = read.doing(|| format!("listing the key slots of {}", repository.describe()))?;
    let mut listed: Vec<ListedSlot> = slots
        .sound
        .iter()
        .map(|slot| ListedSlot {
            slot: slot.slot().clone(),
            label: slot.label().clone(),
            kind: slot.kind(),
            recipient: slot.recipient(),
            epoch: slot.epoch(),
            created: slot.created(),
            opened: repository.opened_by() == Some(slot.slot()),
            removal_begun: slots.marked.contains(slot.slot()),
        })
        .collect();
    listed.sort_by(|one, two| (one.epoch, &one.slot).cmp(&(two.epoch, &two.slot)));
    Ok((repository, KeyList { epoch: Some(epoch), slots: listed, unreadable: slots.unreadable }))
}
