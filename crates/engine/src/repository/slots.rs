//! Opening an encrypted repository: which key slots there are, and the first one that the configured secret opens.
//!
//! Everyone who may write to the store can put objects below `keys/`, by mistake too. So only names of the form
//! `keys/<slot>.json` are looked at; what is no slot, damaged, or of a newer kind is left out as long as another slot opens;
//! and what opening costs is bounded: the number of slots that are read, their size, and the sum of what their key derivations
//! ask for. Cheap slots are tried first, so that one that asks for gigabytes does not delay the others.

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use holdfast_repo::key::{KeyError, KeySlot, KeySlotKind, MAX_MEMORY_KIB};
use holdfast_repo::name::{self, ObjectPath, SlotName};
use holdfast_repo::record;
use holdfast_repo::{RepositoryId, RepositoryKey};
use holdfast_store::{Failure, ObjectInfo, Operation, Store, StoreError, StoreErrorKind};

use super::Unlock;
use super::listed::Unreadable;
use crate::error::{Cause, Error, ResultExt};

/// Slots that are read; of more, the one that `repo init` makes and the first by name. Far above what people have, and few
/// enough that trying a passphrase on all of them takes a second or two.
const SLOTS_AT_MOST: usize = 64;

/// A slot has some hundred bytes; a larger object is not a slot.
const SLOT_BYTES_AT_MOST: u64 = 64 << 10;

/// Memory passed over in all while slots are tried, in KiB: what the single most expensive slot may ask for and half as much,
/// some ten seconds. `holdfast` itself makes slots of 38 MiB, of which this is three hundred.
const WORK_KIB_AT_MOST: u64 = 12 * MAX_MEMORY_KIB as u64;

/// Requests in flight.
const AT_ONCE: usize = 16;

/// The key slots of a repository.
#[derive(Debug, Default)]
pub(super) struct Slots {
    sound: Vec<KeySlot>,
    none_there: bool,
    unreadable: Vec<Unreadable<SlotName>>,
}

impl Slots {
    /// Reads them.
    pub(super) async fn read(store: &Arc<dyn Store>) -> Result<Self, Error> {
        let mut slots = Self::default();
        let listed = store.list(&name::keys_folder(), None).await?;
        let mut named: Vec<(SlotName, ObjectInfo)> = listed
            .into_iter()
            .filter_map(|object| match object.name.as_ref().parse() {
                Ok(ObjectPath::KeySlot(slot)) => Some((slot, object)),
                _ => None,
            })
            .collect();
        slots.none_there = named.is_empty();
        let first = super::first_slot()?;
        named.sort_by_key(|(slot, _)| *slot != first);
        for (slot, object) in named.split_off(named.len().min(SLOTS_AT_MOST)) {
            slots.set_aside(slot, too_much(&object, "there are too many key slots".to_owned()));
        }
        let reads: Vec<_> = named
            .into_iter()
            .map(|(slot, object)| async move {
                let read = read_slot(store, &slot, &object).await;
                (slot, read)
            })
            .collect();
        let mut reads = stream::iter(reads).buffered(AT_ONCE);
        while let Some((slot, read)) = reads.next().await {
            match read {
                Ok(read) => slots.sound.push(read),
                Err(error) if error.is_of_one_object() => slots.set_aside(slot, error),
                Err(error) => return Err(error),
            }
        }
        slots.sound.sort_by_key(KeySlot::work_kib);
        Ok(slots)
    }

    fn set_aside(&mut self, slot: SlotName, error: Error) {
        let object = name::key_slot(&slot);
        self.unreadable.push(Unreadable { id: slot, object, error });
    }

    /// Tries every slot of the configured kind, and gives the key with the slots that were left out. Blocking, since a
    /// passphrase is slow to check by design.
    pub(super) fn unlock(
        mut self,
        unlock: &Unlock,
        repository: RepositoryId,
        store: &str,
    ) -> Result<(Option<RepositoryKey>, Vec<Unreadable<SlotName>>), Error> {
        let (kind, wanted) = match unlock {
            Unlock::NotEncrypted => return Ok((None, Vec::new())),
            Unlock::Passphrase(_) => ("passphrase", KeySlotKind::Passphrase),
            Unlock::KeyFile(_) => ("key-file", KeySlotKind::KeyFile),
        };
        let mut wrong: Option<KeyError> = None;
        let mut work_kib = 0;
        for slot in std::mem::take(&mut self.sound).into_iter().filter(|slot| slot.kind() == wanted) {
            work_kib = slot.work_kib().saturating_add(work_kib);
            if work_kib > WORK_KIB_AT_MOST {
                let reason = "the key slots need too much work in total".to_owned();
                let what = Cause::Malformed { name: name::key_slot(slot.slot()), reason };
                self.set_aside(slot.slot().clone(), what.into());
                continue;
            }
            let opened = match unlock {
                Unlock::NotEncrypted => return Ok((None, Vec::new())),
                Unlock::Passphrase(secret) => slot.unlock_passphrase(&repository, secret),
                Unlock::KeyFile(secret) => slot.unlock_key_file(&repository, secret),
            };
            match opened {
                Ok(key) => return Ok((Some(key), self.unreadable)),
                Err(error @ (KeyError::WrongPassphrase { .. } | KeyError::WrongKeyFile { .. })) => {
                    wrong.get_or_insert(error);
                }
                Err(error @ KeyError::Crypto) => return Err(error.into()),
                Err(error) => self.set_aside(slot.slot().clone(), error.into()),
            }
        }
        Err(self.none_opens(wrong, kind, store))
    }

    /// Why not one slot opened the repository. What was left out could have been the one, and is named.
    fn none_opens(self, wrong: Option<KeyError>, kind: &'static str, store: &str) -> Error {
        let left_out: Vec<String> = self.unreadable.iter().map(|bad| bad.object.clone()).collect();
        // A damaged slot is more probably the one that is wanted than one of a newer kind.
        let mut unreadable = self.unreadable;
        unreadable.sort_by_key(|bad| bad.error.is_newer());
        match (wrong, unreadable.into_iter().next()) {
            (Some(wrong), None) => wrong.into(),
            (Some(wrong), Some(_)) => {
                Error::from(wrong).doing(format!("leaving out {}, which cannot be read", left_out.join(", ")))
            }
            (None, Some(bad)) => bad.error,
            (None, None) if self.none_there => no_slot(store),
            (None, None) => Cause::NoKeySlot { store: store.to_owned(), kind }.into(),
        }
    }
}

async fn read_slot(store: &Arc<dyn Store>, slot: &SlotName, object: &ObjectInfo) -> Result<KeySlot, Error> {
    let reading = || format!("reading {}", object.name);
    if object.size_bytes > SLOT_BYTES_AT_MOST {
        return Err(too_much(object, format!("it has {} bytes, and no key slot has so many", object.size_bytes)))
            .doing(reading);
    }
    let body = store.get_at_most(&object.name, SLOT_BYTES_AT_MOST).await?;
    let read: KeySlot = record::decode_plain(&body).doing(reading)?;
    if read.slot() != slot {
        let reason = format!("it is the key slot {}", read.slot());
        return Err(Error::from(Cause::Malformed { name: object.name.to_string(), reason })).doing(reading);
    }
    Ok(read)
}

fn too_much(object: &ObjectInfo, reason: String) -> Error {
    Cause::Malformed { name: object.name.to_string(), reason }.into()
}

fn no_slot(store: &str) -> Error {
    let (name, operation) = (name::keys_folder(), Operation::List);
    let detail = "there is no key slot, and without one the repository cannot be opened".to_owned();
    let failure = Failure { store: store.to_owned(), name, operation, detail, source: None };
    StoreError::new(StoreErrorKind::NotFound, failure).into()
}

#[cfg(test)]
mod tests;
