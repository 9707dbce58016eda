//! `key remove`: one slot goes.
//!
//! Order: prove that the configured secret opens another slot that gives the same keys or more; put a mark beside the slot that
//! goes; look for marks of other runs; prove it once more; delete the slot, then the mark; write the ledger. After a crash the slot
//! is there, with or without its mark, or gone. The same command again ends it.
//!
//! Why the second proof: two runs may remove each other's slot. Whichever puts its mark later sees the mark of the other, or finds
//! that the other has ended and its own slot is gone. A run that stands still for an hour between two steps changes nothing in
//! that, because its mark stays.

use bytes::Bytes;
use holdfast_repo::name::{self, SlotName};
use holdfast_repo::record::{KeyChange, LedgerEntry};
use holdfast_store::PutMode;

use super::KeyOptions;
use super::session::{Session, kind};
use crate::error::{Cause, Error, ResultExt};
use crate::repository::slots::Slots;
use crate::repository::{Repository, RepositoryTarget, object_name};

/// What `key remove` did.
#[derive(Debug)]
pub struct Removed {
    /// The repository.
    pub repository: Repository,
    /// Whether it was there. If not, an earlier run had removed it and did not end.
    pub was_there: bool,
    /// The slot that was proved to open the repository still.
    pub opens: SlotName,
    /// The newest epoch whose key that slot gives.
    pub epoch: u32,
}

/// Removes a slot.
///
/// # Errors
/// [`Cause::Refused`] if the repository is not encrypted, if there is no such slot, if it is of a later epoch than the configured
/// secret knows or of a newer release, if the configured secret opens no other slot, and if the removal of that one has begun.
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
    let marks = session.marked().await?;
    let was_there = check_may_go(&session, &slots, slot, marks.contains(slot))?;
    let opens = staying(&session, &slots, slot, &marks).await?;
    let mark = name::key_slot_removal(slot);
    let marked = session.store().put(&object_name(&mark)?, Bytes::new(), PutMode::Create).await.map_err(Error::from);
    let ours = marked.is_ok();
    marked.or_else(|error| if error.is_already_exists() { Ok(()) } else { Err(error) })?;
    let safe = !session.marked().await?.contains(&opens) && session.opens(&opens, &target.unlock, &session.key).await?;
    if !safe {
        if ours {
            session.delete(&[mark]).await?;
        }
        return Err(Cause::AnotherRun { verb: "key remove", subject: format!("key slot {opens}"), pid: None }.into());
    }
    session.delete(&[name::key_slot(slot)]).await?;
    session.delete(&[mark]).await?;
    let epoch = session.key.epoch();
    let entry = LedgerEntry::Key { change: KeyChange::Remove, written: Vec::new(), removed: vec![slot.clone()], epoch };
    session.record(&session.key, options, &entry).await?;
    Ok(Removed { repository: session.repository.clone(), was_there, opens, epoch })
}

/// Refuses what is not there, and what may hold keys that nothing else holds. Says whether the slot is there.
fn check_may_go(session: &Session<'_>, slots: &Slots, slot: &SlotName, marked: bool) -> Result<bool, Error> {
    if let Some(found) = slots.sound.iter().find(|found| found.slot() == slot) {
        if found.epoch() <= session.key.epoch() {
            return Ok(true);
        }
        return session.check_newest(slots).map(|()| true);
    }
    match slots.unreadable.iter().find(|found| found.id == *slot) {
        Some(found) if found.error.is_newer() => Err(Cause::Refused(format!(
            "key slot {slot} was written by a newer holdfast: this release cannot tell which keys it holds"
        ))
        .into()),
        // Damaged: it opens nothing.
        Some(_) => Ok(true),
        None if marked => Ok(false),
        None => {
            let known: Vec<&str> = slots.sound.iter().map(|found| found.slot().as_str()).collect();
            Err(Cause::Refused(format!("there is no key slot {slot}: there are {}", known.join(", "))).into())
        }
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
