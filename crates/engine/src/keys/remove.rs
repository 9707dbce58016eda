//! `key remove`: removes one slot.
//!
//! Order: prove that the configured secret opens another slot that gives at least the same keys; put a mark beside the
//! slot to remove; look for another run's mark on the slot that stays; prove that slot again; delete the slot; write
//! the ledger. The mark stays, so that no name is used twice. After a crash, the slot is there, with or without its
//! mark, or it is gone. The same command finishes the removal.
//!
//! Why the second proof: two runs may remove each other's slot. The run that writes its mark later sees the other run's
//! mark, or it finds that the other run has ended and its own slot is gone. This is true even if a run pauses for an
//! hour between two steps, because its mark stays.

use holdfast_repo::key::KeySlot;
use holdfast_repo::name::{self, SlotName};
use holdfast_repo::record::{KeyChange, LedgerEntry};

use super::KeyOptions;
use super::session::{Session, is_stored, kind};
use crate::error::{Cause, Error, ResultExt};
use crate::repository::slots::{Slots, begins_epoch, read_one};
use crate::repository::{Repository, RepositoryTarget};

/// What `key remove` did.
#[derive(Debug)]
pub struct Removed {
    /// The repository, opened with the configured secret.
    pub repository: Repository,
    /// Whether the slot was there. If not, an earlier run has removed it.
    pub was_there: bool,
    /// Whether its keys were compared with those of the slot that stays. `false` if the configured secret did not open
    /// it, or if it was damaged.
    pub compared: bool,
    /// The slot that was proved to open the repository after the removal.
    pub opens: SlotName,
    /// The newest epoch whose key that slot gives.
    pub epoch: u32,
    /// The error, if the ledger of an archive could not be written. The slot is removed.
    pub unrecorded: Option<Error>,
}

/// Removes a slot. The configured secret must open another slot.
///
/// # Errors
/// [`Cause::Refused`] if the repository is not encrypted, there is no such slot, a newer release wrote it, it gives
/// keys that the configured secret does not give, the keys were rotated without the configured secret, or the
/// configured secret opens no other slot whose removal has not begun. [`Cause::AnotherRun`] if another run removes the
/// slot that should stay. As [`Repository::open_to_write`] and [`Repository::check_removable`]; [`Cause::Store`] if a
/// request fails.
pub async fn remove(target: &RepositoryTarget, slot: &SlotName, options: &KeyOptions) -> Result<Removed, Error> {
    let url = target.store.describe();
    remove_inner(target, slot, options).await.doing(|| format!("removing key slot {slot} of {url}"))
}

async fn remove_inner(target: &RepositoryTarget, slot: &SlotName, options: &KeyOptions) -> Result<Removed, Error> {
    let session = Session::begin(target).await?;
    session.repository.check_removable()?;
    let slots = session.slots().await?;
    session.check_newest(&slots)?;
    let found = check_may_go(&session, &slots, slot).await?;
    let opens = staying(&session, &slots, slot, &slots.marked).await?;
    let ours = session.mark(slot).await?;
    let safe = !session.is_marked(&opens).await? && session.opens(&opens, &target.unlock, &session.key).await?;
    if !safe {
        // While the slot exists, its name is still in use, so our mark can go.
        if ours && is_stored(session.store(), &name::key_slot(slot)).await? {
            session.delete(&[name::key_slot_removal(slot)]).await?;
        }
        return Err(Cause::AnotherRun { verb: "key remove", subject: format!("key slot {opens}"), pid: None }.into());
    }
    session.check_newest(&session.slots().await?)?;
    session.delete(&[name::key_slot(slot)]).await?;
    // Another run that removed the same slot and gave up has deleted the mark.
    session.mark(slot).await?;
    let epoch = session.key.epoch();
    let entry = LedgerEntry::Key { change: KeyChange::Remove, written: Vec::new(), removed: vec![slot.clone()], epoch };
    let unrecorded = session.record(&session.key, options, &entry).await;
    let (was_there, compared) = (found != SlotState::Gone, found == SlotState::Compared);
    Ok(Removed { repository: session.repository.clone(), was_there, compared, opens, epoch, unrecorded })
}

/// What is known about the slot to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    /// The slot that stays also gives its keys.
    Compared,
    /// Its keys are not known: the configured secret does not open it, or it is damaged.
    NotCompared,
    /// An earlier run removed it.
    Gone,
}

/// Refuses a slot that does not exist, or that may hold keys that no other slot has. Reads the slot again if the
/// listing could not read it or had no room for it.
async fn check_may_go(session: &Session<'_>, slots: &Slots, slot: &SlotName) -> Result<SlotState, Error> {
    let refused = |why: String| -> Error { Cause::Refused(why).into() };
    let read: Result<KeySlot, Error> = match slots.sound.iter().find(|found| found.slot() == slot) {
        Some(found) => Ok(found.clone()),
        None => read_one(session.store(), slot).await,
    };
    let ours = session.key.epoch();
    let found = match read {
        Ok(found) => found,
        Err(error) if error.is_not_found() && session.is_marked(slot).await? => return Ok(SlotState::Gone),
        Err(error) if error.is_not_found() => {
            let known: Vec<&str> = slots.sound.iter().map(|found| found.slot().as_str()).collect();
            return Err(refused(format!("there is no key slot {slot}: the slots are {}", known.join(", "))));
        }
        Err(error) if error.is_newer() => {
            return Err(refused(format!(
                "key slot {slot} was written by a newer holdfast: this release cannot tell which keys it holds"
            )));
        }
        // A damaged slot opens nothing. But the damage may have happened on the way here, so its name counts too.
        Err(error) if error.is_of_one_object() && begins_epoch(slot).is_none_or(|epoch| epoch <= ours) => {
            return Ok(SlotState::NotCompared);
        }
        Err(error) => return Err(error),
    };
    if found.epoch().max(begins_epoch(slot).unwrap_or(0)) > ours {
        return Err(session.rotated_since(slot, found.epoch()));
    }
    match session.try_on(found, &session.target.unlock).await? {
        Some(keys) if session.key.holds(&keys) => Ok(SlotState::Compared),
        Some(_) => Err(refused(format!(
            "key slot {slot} gives other keys than {}: data that was written with them needs this slot",
            session.by
        ))),
        None => Ok(SlotState::NotCompared),
    }
}

/// Another slot that the configured secret opens and that gives all keys that we have.
async fn staying(session: &Session<'_>, slots: &Slots, slot: &SlotName, marks: &[SlotName]) -> Result<SlotName, Error> {
    let secret = &session.target.unlock;
    let others = || slots.sound.iter().filter(|other| other.slot() != slot && Some(other.kind()) == kind(secret));
    let mut going = None;
    // First the slot that opened the repository: it is the most likely one.
    let candidates = others().filter(|other| *other.slot() == session.by).chain(others());
    for other in candidates.filter(|other| other.epoch() >= session.key.epoch()) {
        if marks.contains(other.slot()) {
            going.get_or_insert(other.slot());
        } else if session.opens(other.slot(), secret, &session.key).await? {
            return Ok(other.slot().clone());
        }
    }
    let why = match going {
        Some(going) => {
            format!("a removal of key slot {going} has begun, and the configured secret opens no other slot")
        }
        None if *slot == session.by => format!(
            "key slot {slot} is the only one that the configured secret opens: configure another secret first, and add \
             it with `holdfast key add` if there is none"
        ),
        None => "the configured secret opens no other slot that holds all keys".to_owned(),
    };
    Err(Cause::Refused(why).into())
}
