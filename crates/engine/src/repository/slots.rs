//! Opening an encrypted repository: which key slots there are, and the one that the configured secret opens.
//!
//! Everyone who may write to the store can put objects below `keys/`, by mistake too. So only names of the form
//! `keys/<slot>.json` are looked at; what is no slot, damaged, or of a newer kind is left out as long as another slot opens;
//! and what opening costs is bounded: the number of slots that are read, their size, and the sum of what their key derivations
//! ask for. The slot that the configuration names is tried first, then cheap ones, so that one that asks for gigabytes does not
//! delay the others. Of equal cost those that begin an epoch come first: whoever rotates has such a slot. After a rotation that was interrupted a secret opens slots of two epochs: then the later one counts, and a
//! little more is spent on looking for it. Whether there was a later epoch is read from the names alone, so that no number of other
//! objects, and no damage, hides it: who writes under an earlier key does not notice otherwise.

use std::cmp::Reverse;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use holdfast_repo::key::{KeyError, KeySlot, KeySlotKind, MAX_MEMORY_KIB};
use holdfast_repo::name::{self, ObjectPath, SlotName};
use holdfast_repo::record;
use holdfast_repo::{MAX_EPOCHS, RepositoryId, RepositoryKey};
use holdfast_store::{Failure, ObjectInfo, Operation, Store, StoreError, StoreErrorKind};

use super::Unlock;
use super::listed::Unreadable;
use crate::error::{Cause, Error, ResultExt};

/// Slots that are read; of more, those of the first ranks (see [`rank`]). Far above what people have, and few enough that trying
/// a passphrase on all of them takes a second or two.
const SLOTS_AT_MOST: usize = 64;

/// Of those, slots with names that rotations give: one row is for what took the place of the hinted slot, one for the first
/// slots of epochs. There are more only where somebody put them, and they leave room for the others.
const OF_ONE_RANK_AT_MOST: usize = 16;

/// A slot has some hundred bytes; a larger object is not a slot.
const SLOT_BYTES_AT_MOST: u64 = 64 << 10;

/// Memory passed over in all while slots are tried, in KiB: what the single most expensive slot may ask for and half as much,
/// some ten seconds. `holdfast` itself makes slots of 38 MiB, of which this is three hundred.
const WORK_KIB_AT_MOST: u64 = 12 * MAX_MEMORY_KIB as u64;

/// The same for slots of a later epoch once one has opened: thirteen slots of the usual cost. There are such slots only until a
/// rotation is finished, or because somebody put them there.
const LATER_WORK_KIB_AT_MOST: u64 = 512 << 10;

/// Requests in flight.
const AT_ONCE: usize = 16;

/// The key slots of a repository.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Those that can be read.
    pub(crate) sound: Vec<KeySlot>,
    none_there: bool,
    /// Those that cannot.
    pub(crate) unreadable: Vec<Unreadable<SlotName>>,
    /// The slots with a removal mark, those that are gone included.
    pub(crate) marked: Vec<SlotName>,
    /// The last name of a first slot of an epoch, of slots and of marks, with its epoch.
    newest: Option<(SlotName, u32)>,
}

/// What opened a repository.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// The keys; none without encryption.
    pub(super) key: Option<RepositoryKey>,
    /// The slot that gave them.
    pub(super) by: Option<SlotName>,
    /// A slot of a later epoch, which the secret does not open.
    pub(super) later: Option<(SlotName, u32)>,
    /// Whether the slot begins an epoch and its removal has begun: then others have the newest key, or a run that came too late
    /// made it.
    pub(super) going: bool,
    /// The slots that were left out.
    pub(super) left_out: Vec<Unreadable<SlotName>>,
}

impl Slots {
    /// Reads them; of very many, `hint` and what took its place are among those that are read.
    pub(crate) async fn read(store: &Arc<dyn Store>, hint: Option<&SlotName>) -> Result<Self, Error> {
        let mut slots = Self::default();
        let listed = store.list(&name::keys_folder(), None).await?;
        let mut named: Vec<(SlotName, ObjectInfo)> = Vec::new();
        for object in listed {
            match object.name.as_ref().parse() {
                Ok(ObjectPath::KeySlot(slot)) => named.push((slot, object)),
                Ok(ObjectPath::KeySlotRemoval(slot)) => slots.marked.push(slot),
                _ => {}
            }
        }
        slots.none_there = named.is_empty();
        let all = named.iter().map(|(slot, _)| slot).chain(&slots.marked);
        slots.newest = all.filter_map(|slot| Some((slot.clone(), begins_epoch(slot)?))).max_by_key(|(_, epoch)| *epoch);
        let mut named = most_probable_first(named, hint)?;
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

    /// Tries the slots of the configured kind, and gives the keys with the slots that were left out. Blocking, since a
    /// passphrase is slow to check by design.
    pub(super) fn unlock(mut self, unlock: &Unlock, repository: RepositoryId, store: &str) -> Result<Opened, Error> {
        let (kind, wanted) = match unlock.secret() {
            Unlock::Passphrase(_) => ("passphrase", KeySlotKind::Passphrase),
            Unlock::KeyFile(_) => ("key-file", KeySlotKind::KeyFile),
            Unlock::NotEncrypted | Unlock::Hinted { .. } => return Ok(Opened::default()),
        };
        let mut wrong: Option<KeyError> = None;
        let mut found: Option<(RepositoryKey, SlotName)> = None;
        let (mut work_kib, mut most_kib) = (0, WORK_KIB_AT_MOST);
        let sound = self.take_in_order(unlock.hint());
        for slot in sound.iter().filter(|slot| slot.kind() == wanted) {
            if found.as_ref().is_some_and(|(key, _)| slot.epoch() <= key.epoch()) {
                continue;
            }
            work_kib = slot.work_kib().saturating_add(work_kib);
            if work_kib > most_kib {
                if found.is_none() {
                    let reason = "the key slots need too much work in total".to_owned();
                    let what = Cause::Malformed { name: name::key_slot(slot.slot()), reason };
                    self.set_aside(slot.slot().clone(), what.into());
                }
                continue;
            }
            match unlock.open(slot, repository) {
                Ok(key) => {
                    found = Some((key, slot.slot().clone()));
                    (work_kib, most_kib) = (0, LATER_WORK_KIB_AT_MOST);
                }
                Err(error @ (KeyError::WrongPassphrase { .. } | KeyError::WrongKeyFile { .. })) => {
                    wrong.get_or_insert(error);
                }
                Err(error @ KeyError::Crypto) => return Err(error.into()),
                Err(error) => self.set_aside(slot.slot().clone(), error.into()),
            }
        }
        let Some((key, by)) = found else { return Err(self.none_opens(wrong, kind, store)) };
        self.sound = sound;
        let later = self.later_than(key.epoch());
        let going = self.is_going(&by);
        Ok(Opened { key: Some(key), by: Some(by), later, going, left_out: self.unreadable })
    }

    /// The slots in the order in which they are tried.
    fn take_in_order(&mut self, hint: Option<&SlotName>) -> Vec<KeySlot> {
        let mut sound = std::mem::take(&mut self.sound);
        sound.sort_by_key(|slot| {
            let begins = begins_epoch(slot.slot()).is_some();
            (self.is_going(slot.slot()), !is_hinted(slot, hint), slot.work_kib(), !begins, Reverse(slot.epoch()))
        });
        sound
    }

    /// The latest slot of an epoch after this one, by names first, since nothing hides what a name says.
    pub(crate) fn later_than(&self, epoch: u32) -> Option<(SlotName, u32)> {
        let named = self.newest.clone().filter(|(_, named)| *named > epoch);
        named.or_else(|| {
            let later = self.sound.iter().filter(|slot| slot.epoch() > epoch);
            let latest = later.min_by_key(|slot| (Reverse(slot.epoch()), slot.slot()));
            latest.map(|slot| (slot.slot().clone(), slot.epoch()))
        })
    }

    /// The names of all slots, whether or not they can be read.
    pub(crate) fn names(&self) -> impl Iterator<Item = &SlotName> {
        self.sound.iter().map(KeySlot::slot).chain(self.unreadable.iter().map(|bad| &bad.id))
    }

    /// Whether a slot begins an epoch and is being removed. It is tried last: others give the same keys, or later ones.
    fn is_going(&self, slot: &SlotName) -> bool {
        begins_epoch(slot).is_some() && self.marked.contains(slot)
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

/// The epoch that the slot of this name begins: that of `epoch-5` is 5.
pub(crate) fn begins_epoch(slot: &SlotName) -> Option<u32> {
    number(slot.as_str().strip_prefix("epoch-")?)
}

/// The number of an epoch that a rotation may have begun, in its only spelling.
fn number(digits: &str) -> Option<u32> {
    let number: u32 = digits.parse().ok()?;
    (number > 0 && (number as usize) < MAX_EPOCHS && number.to_string() == digits).then_some(number)
}

/// How probable it is that a slot is wanted, by its name, the least first: the hinted one, what took its place in a rotation, the
/// first slots of epochs, the one that `repo init` makes, all others. Of each rank the latest epoch comes first.
fn rank(slot: &SlotName, hint: Option<&SlotName>, first: &SlotName) -> (usize, Reverse<u32>) {
    let took_its_place = |hint: &SlotName| number(slot.as_str().strip_prefix(hint.as_str())?.strip_prefix('.')?);
    if Some(slot) == hint {
        (0, Reverse(0))
    } else if let Some(epoch) = hint.and_then(took_its_place) {
        (1, Reverse(epoch))
    } else if let Some(epoch) = begins_epoch(slot) {
        (2, Reverse(epoch))
    } else {
        (if slot == first { 3 } else { 4 }, Reverse(0))
    }
}

/// Slots by rank. What a rank has above its share comes after all others.
fn most_probable_first(
    mut named: Vec<(SlotName, ObjectInfo)>,
    hint: Option<&SlotName>,
) -> Result<Vec<(SlotName, ObjectInfo)>, Error> {
    let first = super::first_slot()?;
    named.sort_by_key(|(slot, _)| rank(slot, hint, &first));
    let mut of_rotations = [0, 0];
    let (mut probable, others): (Vec<_>, Vec<_>) = named.into_iter().partition(|(slot, _)| {
        let (rank, _) = rank(slot, hint, &first);
        let counted = rank.checked_sub(1).and_then(|row| of_rotations.get_mut(row));
        counted.is_none_or(|count| {
            *count += 1;
            *count <= OF_ONE_RANK_AT_MOST
        })
    });
    probable.extend(others);
    Ok(probable)
}

/// Whether a slot is the one that the configuration names, or the one that took its place.
fn is_hinted(slot: &KeySlot, hint: Option<&SlotName>) -> bool {
    hint.is_some_and(|hint| slot.slot() == hint || slot.label() == hint)
}

/// Reads the slot of this name.
pub(crate) async fn read_one(store: &Arc<dyn Store>, slot: &SlotName) -> Result<KeySlot, Error> {
    let object = store.head(&super::object_name(&name::key_slot(slot))?).await?;
    read_slot(store, slot, &object).await
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
