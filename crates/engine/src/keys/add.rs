//! `key add`: one more secret that opens the repository.
//!
//! Order: write the slot, read it back and open it with the new secret, look whether the keys were rotated meanwhile, write the
//! ledger. After a crash the slot is there and opens, or it is not there; the same command again says so, or makes it.

use holdfast_repo::name::{self, SlotName};
use holdfast_repo::record::{KeyChange, LedgerEntry};

use super::KeyOptions;
use super::session::{Session, is_stored};
use crate::error::{Cause, Error, ResultExt};
use crate::repository::{Repository, RepositoryTarget, Unlock};

/// What `key add` did.
#[derive(Debug)]
pub struct Added {
    /// The repository.
    pub repository: Repository,
    /// The newest epoch whose key the slot gives.
    pub epoch: u32,
    /// Whether the slot was made now, or was there and opens with this secret.
    pub made: bool,
    /// Why the ledger of an archive does not say so.
    pub unrecorded: Option<Error>,
}

/// Adds a slot for `secret`, which gives all keys that the configured secret gives.
///
/// # Errors
/// [`Cause::Refused`] if the repository is not encrypted, the name is one of those that rotations use or is taken, or the keys
/// were rotated without the configured secret. [`Cause::Key`] if the secret is too weak. [`Cause::AnotherRun`] if the keys are
/// rotated at this moment. Those of [`Repository::open_to_write`]; [`Cause::Store`] if the store cannot be asked.
pub async fn add(
    target: &RepositoryTarget,
    slot: &SlotName,
    secret: &Unlock,
    options: &KeyOptions,
) -> Result<Added, Error> {
    let url = target.store.describe();
    add_inner(target, slot, secret, options).await.doing(|| format!("adding key slot {slot} to {url}"))
}

async fn add_inner(
    target: &RepositoryTarget,
    slot: &SlotName,
    secret: &Unlock,
    options: &KeyOptions,
) -> Result<Added, Error> {
    let refused = |why: String| -> Error { Cause::Refused(why).into() };
    if is_of_rotation(slot) {
        return Err(refused(format!(
            "the name {slot} is kept for rotations: choose one that does not begin with epoch-"
        )));
    }
    let session = Session::begin(target).await?;
    let slots = session.slots().await?;
    session.check_newest(&slots)?;
    if session.is_marked(slot).await? {
        return Err(refused(format!(
            "a key slot {slot} was removed, or its removal has begun, and no name is used twice: choose another one"
        )));
    }
    let (key, repository) = (&session.key, &session.repository);
    let taken = slots.sound.iter().any(|known| known.slot() == slot)
        || slots.unreadable.iter().any(|known| known.id == *slot)
        // Also where it was not among those that were read.
        || is_stored(session.store(), &name::key_slot(slot)).await?;
    let opens = match session.opens(slot, secret, key).await {
        Ok(opens) => opens,
        // Damaged, or of a newer release.
        Err(error) if taken && error.is_of_one_object() => false,
        Err(error) => return Err(error),
    };
    if taken && !opens {
        return Err(refused(format!("there is a key slot {slot} already, and this secret does not open it")));
    }
    if !taken {
        let made = session.make(slot.clone(), key, secret, options).await?;
        session.write(&made, secret, key).await?;
        let now = session.slots().await?;
        if now.later_than(key.epoch()).is_some() {
            // It would open only what was written before the rotation. Nobody uses it yet.
            session.mark(slot).await?;
            session.delete(&[name::key_slot(slot)]).await?;
            return Err(Cause::AnotherRun { verb: "key rotate", subject: repository.describe(), pid: None }.into());
        }
    }
    let entry = LedgerEntry::Key {
        change: KeyChange::Add,
        written: vec![slot.clone()],
        removed: Vec::new(),
        epoch: key.epoch(),
    };
    let unrecorded = session.record(key, options, &entry).await;
    Ok(Added { repository: repository.clone(), epoch: key.epoch(), made: !taken, unrecorded })
}

/// Whether a name is one that a rotation gives to the first slot of an epoch.
fn is_of_rotation(slot: &SlotName) -> bool {
    slot.as_str().starts_with("epoch-")
}
