//! Opens an encrypted repository: reads its key slots and finds the one that the configured secret opens.
//!
//! Anyone who may write to the store can put objects below `keys/`, also by mistake. So only names of the form
//! `keys/<slot>.json` are read. An object that is not a slot, is damaged, or is of a newer kind is left out if another
//! slot opens. The cost is limited: the number of slots that are read, their size, and the total work of their key
//! derivations. If the configuration names a slot, only that slot and those that can follow it in a rotation are read,
//! and the others only if none of these opens. The named slot is tried first, then the cheap ones, so that a slot that
//! needs gigabytes does not delay the others. Among slots of equal cost, those that begin an epoch come first: a
//! rotation makes such a slot. After an interrupted rotation a secret opens slots of two epochs. Then the later one
//! counts, and a little more work is spent to find it. Only the names show whether there was a later epoch, so neither
//! damage nor any number of other objects can hide it. Otherwise a writer would not notice that its key is an earlier
//! one.

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

/// The most slots that are read; if there are more, those of the first ranks (see [`rank`]). Nobody has nearly as many,
/// and a passphrase is tried on all of them in ten seconds.
const SLOTS_AT_MOST: usize = 64;

/// The maximum number of these slots, in each of two ranks, whose names look like names made by rotations: slots that
/// replaced the hinted slot, and first slots of epochs. More exist only if somebody put them there, and they must leave
/// room for the others.
const OF_ONE_RANK_AT_MOST: usize = 16;

/// A slot has some hundred bytes; a larger object is not a slot.
const SLOT_BYTES_AT_MOST: u64 = 64 << 10;

/// The total work for trying slots, as KiB of memory passed over: one and a half times the most expensive slot that is
/// allowed, about ten seconds. Slots made by `holdfast` cost 192 MiB; this is 64 of them, as many as are read.
const WORK_KIB_AT_MOST: u64 = 12 * MAX_MEMORY_KIB as u64;

/// The same, for slots of a later epoch after one slot has opened: ten slots of the usual cost, under two seconds. Such
/// slots exist only until a rotation is finished, or because somebody put them there.
const LATER_WORK_KIB_AT_MOST: u64 = 2 << 20;

/// Requests in flight.
const AT_ONCE: usize = 16;

/// The slots that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotScope {
    All,
    Following,
}

/// The last [`rank`] of slots that can follow the hinted one: it, the slots that replaced it, first slots of epochs.
const LAST_TO_FOLLOW: usize = 2;

/// The key slots of a repository.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// Slots that can be read.
    pub(crate) sound: Vec<KeySlot>,
    none_there: bool,
    /// Slots that were not read, because the hinted slot or one that follows it probably opens.
    pub(super) unread: Vec<(SlotName, ObjectInfo)>,
    /// Slots that cannot be read.
    pub(crate) unreadable: Vec<Unreadable<SlotName>>,
    /// The slots with a removal mark, also if the slot is gone.
    pub(crate) marked: Vec<SlotName>,
    /// The first slot of the latest epoch, by the names of slots and marks, with its epoch.
    newest: Option<(SlotName, u32)>,
}

/// How a repository was opened.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// The keys; `None` without encryption.
    pub(super) key: Option<RepositoryKey>,
    /// The slot that gave the keys.
    pub(super) by: Option<SlotName>,
    /// A slot of a later epoch, which the secret does not open.
    pub(super) later: Option<(SlotName, u32)>,
    /// Whether the slot begins an epoch and its removal has begun: then another slot has the newest key, or a run that
    /// came too late made this one.
    pub(super) going: bool,
    pub(super) left_out: Vec<Unreadable<SlotName>>,
    /// The slots that were not read.
    pub(super) unread: Vec<(SlotName, ObjectInfo)>,
}

impl Slots {
    /// Reads the slots. If there are very many, `hint` and the slot that replaced it are among those that are read.
    pub(crate) async fn read(store: &Arc<dyn Store>, hint: Option<&SlotName>) -> Result<Self, Error> {
        Self::read_some(store, hint, SlotScope::All).await
    }

    /// Reads the hinted slot and those that can follow it in a rotation; all slots if there are none of these. So with
    /// a hint a command makes as many requests whatever other slots there are. If none of these opens, the caller reads
    /// all of them.
    pub(super) async fn read_following(store: &Arc<dyn Store>, hint: Option<&SlotName>) -> Result<Self, Error> {
        Self::read_some(store, hint, if hint.is_some() { SlotScope::Following } else { SlotScope::All }).await
    }

    async fn read_some(store: &Arc<dyn Store>, hint: Option<&SlotName>, which: SlotScope) -> Result<Self, Error> {
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
        if which == SlotScope::Following {
            let first = super::first_slot()?;
            let (following, others) =
                named.into_iter().partition(|(slot, _)| rank(slot, hint, &first).0 <= LAST_TO_FOLLOW);
            (named, slots.unread) = (following, others);
            if named.is_empty() {
                std::mem::swap(&mut named, &mut slots.unread);
            }
        }
        for (slot, object) in named.split_off(named.len().min(SLOTS_AT_MOST)) {
            slots.set_aside(slot, too_much(&object, "there are too many key slots".to_owned()));
        }
        slots.read_named(store, named).await?;
        Ok(slots)
    }

    async fn read_named(&mut self, store: &Arc<dyn Store>, named: Vec<(SlotName, ObjectInfo)>) -> Result<(), Error> {
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
                Ok(read) => self.sound.push(read),
                Err(error) if error.is_of_one_object() => self.set_aside(slot, error),
                Err(error) => return Err(error),
            }
        }
        self.sound.sort_by_key(KeySlot::work_kib);
        Ok(())
    }

    /// Of slots that were not read, those that cannot be read.
    pub(super) async fn unreadable_of(
        store: &Arc<dyn Store>,
        unread: &[(SlotName, ObjectInfo)],
    ) -> Result<Vec<Unreadable<SlotName>>, Error> {
        let mut slots = Self::default();
        slots.read_named(store, unread.iter().take(SLOTS_AT_MOST).cloned().collect()).await?;
        Ok(slots.unreadable)
    }

    fn set_aside(&mut self, slot: SlotName, error: Error) {
        let object = name::key_slot(&slot);
        self.unreadable.push(Unreadable { id: slot, object, error });
    }

    /// Tries the slots of the configured kind; returns the keys and the slots that were left out. Blocking: checking a
    /// passphrase is slow by design.
    pub(super) fn unlock(mut self, unlock: &Unlock, repository: RepositoryId, store: &str) -> Result<Opened, Error> {
        let (kind, wanted) = match unlock.secret() {
            Unlock::Passphrase(_) => ("passphrase", KeySlotKind::Passphrase),
            Unlock::KeyFile(_) => ("key-file", KeySlotKind::KeyFile),
            Unlock::PrivateKey(_) => ("x25519", KeySlotKind::X25519),
            Unlock::NotEncrypted | Unlock::Recipient(_) | Unlock::Hinted { .. } => return Ok(Opened::default()),
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
                Err(
                    error @ (KeyError::WrongPassphrase { .. }
                    | KeyError::WrongKeyFile { .. }
                    | KeyError::WrongPrivateKey { .. }),
                ) => {
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
        Ok(Opened { key: Some(key), by: Some(by), later, going, left_out: self.unreadable, unread: self.unread })
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

    /// The latest slot of an epoch after this one. Names are checked first, because nothing can hide a name.
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

    /// Whether a slot begins an epoch and is being removed. Such a slot is tried last: others give the same keys or
    /// later ones.
    fn is_going(&self, slot: &SlotName) -> bool {
        begins_epoch(slot).is_some() && self.marked.contains(slot)
    }

    /// Why no slot opened the repository. It names the slots that were left out, because one of them may be the right
    /// one.
    fn none_opens(self, wrong: Option<KeyError>, kind: &'static str, store: &str) -> Error {
        let left_out: Vec<String> = self.unreadable.iter().map(|bad| bad.object.clone()).collect();
        // A damaged slot is more likely the right one than a slot of a newer kind.
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

/// The epoch that a slot with this name begins: 5 for `epoch-5`.
pub(crate) fn begins_epoch(slot: &SlotName) -> Option<u32> {
    number(slot.as_str().strip_prefix("epoch-")?)
}

/// The number of an epoch that a rotation may have begun, in its only spelling.
fn number(digits: &str) -> Option<u32> {
    let number: u32 = digits.parse().ok()?;
    (number > 0 && (number as usize) < MAX_EPOCHS && number.to_string() == digits).then_some(number)
}

/// The rank of a slot by its name; the lowest is the most likely: the hinted slot, the slot that replaced it in a
/// rotation, first slots of epochs, the slot of `repo init`, all others. Within a rank the latest epoch comes first.
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

/// Slots by rank. Slots above the share of a rank come after all others.
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

/// Whether a slot is the one that the configuration names, or the one that replaced it.
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
        return Err(too_much(object, format!("it has {} bytes, more than a key slot can have", object.size_bytes)))
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
