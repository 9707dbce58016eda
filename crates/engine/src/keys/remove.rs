//! `key remove`: one slot goes.
//!
//! Order: prove that the configured secret opens another slot that gives the same keys or more; put a mark beside the slot that
//! goes; look for the mark of another run at the slot that stays; prove it once more; delete the slot; write the ledger. The mark
//! stays, so that no name is used twice. After a crash the slot is there, with or without its mark, or gone. The same command
//! again ends it.
//!
//! Why the second proof: two runs may remove each other's slot. Whichever puts its mark later sees the mark of the other, or finds
//! that the other has ended and its own slot is gone. A run that stands still for an hour between two steps changes nothing in
//! that, because its mark stays.

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
    /// The repository.
    pub repository: Repository,
    /// Whether it was there. If not, an earlier run had removed it.
    pub was_there: bool,
    /// Whether its keys were compared with those that stay. If not, the configured secret did not open it, or it was damaged.
    pub compared: bool,
    /// The slot that was proved to open the repository still.
    pub opens: SlotName,
    /// The newest epoch whose key that slot gives.
    pub epoch: u32,
    /// Why the ledger of an archive does not say so.
    pub unrecorded: Option<Error>,
}

/// Removes a slot.
///
/// # Errors
/// [`Cause::Refused`] if the repository is not encrypted, if there is no such slot, if it is of a newer release or gives keys that
/// the configured secret does not, if the keys were rotated without that, if the configured secret opens no other slot, and if the removal of that one has begun.
/// [`Cause::AnotherRun`] if another run removes the slot that should stay. Those of [`Repository::open_to_write`] and
/// [`Repository::check_removable`]; [`Cause::Store`] if the store cannot be asked.
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
        // As long as the slot is there, its name was not used up.
        if ours && is_stored(session.store(), &name::key_slot(slot)).await? {
            session.delete(&[name::key_slot_removal(slot)]).await?;
        }
        return Err(Cause::AnotherRun { verb: "key remove", subject: format!("key slot {opens}"), pid: None }.into());
    }
    session.check_newest(&session.slots().await?)?;
    session.delete(&[name::key_slot(slot)]).await?;
    // Another run that removed the same slot and gave up has taken its mark with it.
    session.mark(slot).await?;
    let epoch = session.key.epoch();
    let entry = LedgerEntry::Key { change: KeyChange::Remove, written: Vec::new(), removed: vec![slot.clone()], epoch };
    let unrecorded = session.record(&session.key, options, &entry).await;
    let (was_there, compared) = (found != Found::Gone, found == Found::Compared);
    Ok(Removed { repository: session.repository.clone(), was_there, compared, opens, epoch, unrecorded })
}

/// What is known of a slot that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The slot that stays gives its keys too.
    Compared,
    /// The configured secret does not open it, or nothing does: so its keys are not known.
    NotCompared,
    /// An earlier run removed it.
    Gone,
}

/// Refuses what is not there, and what may hold keys that nothing else holds. What the listing could not read, or had no room for,
/// is read once more.
async fn check_may_go(session: &Session<'_>, slots: &Slots, slot: &SlotName) -> Result<Found, Error> {
    let refused = |why: String| -> Error { Cause::Refused(why).into() };
    let read: Result<KeySlot, Error> = match slots.sound.iter().find(|found| found.slot() == slot) {
        Some(found) => Ok(found.clone()),
        None => read_one(session.store(), slot).await,
    };
    let ours = session.key.epoch();
    let found = match read {
        Ok(found) => found,
        Err(error) if error.is_not_found() && session.is_marked(slot).await? => return Ok(Found::Gone),
        Err(error) if error.is_not_found() => {
            let known: Vec<&str> = slots.sound.iter().map(|found| found.slot().as_str()).collect();
            return Err(refused(format!("there is no key slot {slot}: there are {}", known.join(", "))));
        }
        Err(error) if error.is_newer() => {
            return Err(refused(format!(
                "key slot {slot} was written by a newer holdfast: this release cannot tell which keys it holds"
            )));
        }
        // Damaged: it opens nothing. But the damage may be on the way here, and the name says what it was.
        Err(error) if error.is_of_one_object() && begins_epoch(slot).is_none_or(|epoch| epoch <= ours) => {
            return Ok(Found::NotCompared);
        }
        Err(error) => return Err(error),
    };
    if found.epoch().max(begins_epoch(slot).unwrap_or(0)) > ours {
        return Err(session.rotated_since(slot, found.epoch()));
    }
    match session.try_on(found, &session.target.unlock).await? {
        Some(keys) if session.key.holds(&keys) => Ok(Found::Compared),
        Some(_) => Err(refused(format!(
            "key slot {slot} gives other keys than {}: what was written under them needs it",
            session.by
        ))),
        None => Ok(Found::NotCompared),
    }
}

/// Another slot that the configured secret opens, and that gives all keys that we know.
async fn staying(session: &Session<'_>, slots: &Slots, slot: &SlotName, marks: &[SlotName]) -> Result<SlotName, Error> {
    let secret = &session.target.unlock;
    let others = || slots.sound.iter().filter(|other| other.slot() != slot && Some(other.kind()) == kind(secret));
    let mut going = None;
    // The one that opened the repository is the most probable.
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
            "key slot {slot} is the only one that the configured secret opens: configure another secret first, and add it with \
             `holdfast key add` if there is none"
        ),
        None => "the configured secret opens no other slot that holds all keys".to_owned(),
    };
    Err(Cause::Refused(why).into())
}
