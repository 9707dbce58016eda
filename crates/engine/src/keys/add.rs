//! `key add`: one more secret that opens the repository.
//!
//! Order: write the slot, read it back and open it with the new secret, check that the keys were not rotated meanwhile,
//! write the ledger. After a crash, the slot opens or does not exist. The same command finds it or makes it.

use holdfast_repo::name::{self, SlotName};
use holdfast_repo::record::{KeyChange, LedgerEntry};

use super::KeyOptions;
use super::session::{Session, is_stored};
use crate::error::{Cause, Error, ResultExt};
use crate::repository::{Repository, RepositoryTarget, Unlock};

/// What `key add` did.
#[derive(Debug)]
pub struct Added {
    /// The repository, opened with the configured secret.
    pub repository: Repository,
    /// The newest epoch whose key the slot gives.
    pub epoch: u32,
    /// `true` if this run made the slot, `false` if the slot was there and opens with this secret.
    pub made: bool,
    /// The error, if the ledger of an archive could not be written. The slot is there.
    pub unrecorded: Option<Error>,
}

/// Adds a slot for `secret`, which gives all keys that the configured secret gives.
///
/// # Errors
/// [`Cause::Refused`] if the repository is not encrypted, the name is taken or reserved for rotations, or the keys were
/// rotated without the configured secret. [`Cause::Key`] if the secret is too weak. [`Cause::AnotherRun`] if a rotation
/// runs at this moment. As [`Repository::open_to_write`]; [`Cause::Store`] if a request fails.
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
            "the name {slot} is reserved for rotations: choose one that does not begin with epoch-"
        )));
    }
    let session = Session::begin(target).await?;
    let slots = session.slots().await?;
    session.check_newest(&slots)?;
    if session.is_marked(slot).await? {
        return Err(refused(format!(
            "a key slot {slot} was removed, or its removal has begun, and a name is never used again: choose another \
             one"
        )));
    }
    let (key, repository) = (&session.key, &session.repository);
    let taken = slots.sound.iter().any(|known| known.slot() == slot)
        || slots.unreadable.iter().any(|known| known.id == *slot)
        // The slot may be stored without having been read above.
        || is_stored(session.store(), &name::key_slot(slot)).await?;
    if taken && matches!(secret.secret(), Unlock::Recipient(_)) {
        return Err(refused(format!(
            "there is a key slot {slot} already, and only the private key can show whether it opens it: choose another \
             name, or give the file with the private key"
        )));
    }
    let opens = match session.opens(slot, secret, key).await {
        Ok(opens) => opens,
        // The slot is damaged, or a newer release wrote it.
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
            // The new slot would open only data from before the rotation. Nobody uses it yet.
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

/// Whether the name is reserved for the first slot of an epoch.
fn is_of_rotation(slot: &SlotName) -> bool {
    slot.as_str().starts_with("epoch-")
}
