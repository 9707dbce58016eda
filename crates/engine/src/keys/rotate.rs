//! `key rotate`: a new key for what is written from now on.
//!
//! Order: read all slots and find out whose secrets are given; write the first slot of the new epoch, for the configured secret,
//! and prove it; write a slot for each other secret that stays, and prove it; look whether another run interfered; delete the
//! slots of earlier epochs; write the ledger.
//!
//! Everything that was written stays readable: each new slot holds the keys of all epochs. Who opened the repository before goes on
//! under the old epoch. After a crash old and new slots stand beside each other. A secret that opens both gets the newer keys; who
//! has only an old slot reads and writes under the old epoch, and cannot read what is written under the new one. The same command
//! again begins one more epoch and ends what is left.

use std::collections::BTreeSet;

use holdfast_repo::key::{KeySlot, MAX_MEMORY_KIB};
use holdfast_repo::name::{self, SlotName};
use holdfast_repo::record::{KeyChange, LedgerEntry};

use super::KeyOptions;
use super::session::{Session, kind};
use crate::error::{Cause, Error, ResultExt};
use crate::repository::slots::Slots;
use crate::repository::{Repository, RepositoryTarget, Unlock};

/// Memory that is passed over in all to find out which secret opens which slot, in KiB; as much as for opening a repository, for
/// each of five secrets.
const WORK_KIB_AT_MOST: u64 = 60 * MAX_MEMORY_KIB as u64;

/// The longest name of a slot.
const NAME_BYTES_AT_MOST: usize = 63;

/// A secret besides the configured one that opens the repository after the rotation too.
#[derive(Debug, Clone)]
pub struct Carried {
    /// The secret.
    pub secret: Unlock,
    /// What it is, for messages: "the key file /etc/holdfast/key".
    pub what: String,
}

/// What `key rotate` did.
#[derive(Debug)]
pub struct Rotated {
    /// The repository.
    pub repository: Repository,
    /// The new epoch.
    pub epoch: u32,
    /// The new slots; the first is that of the configured secret.
    pub written: Vec<SlotName>,
    /// The slots that are gone.
    pub removed: Vec<SlotName>,
}

/// Begins a new epoch. After it the configured secret and those of `carried` open the repository. Slots that none of them opens
/// are removed if they are named in `drop`; if not, the rotation is refused, so that nobody is locked out by mistake.
///
/// # Errors
/// [`Cause::Refused`] if the repository is not encrypted, the keys were rotated without the configured secret, a secret opens no
/// slot, a slot is neither opened nor named, and if the configured secret's slot is named. [`Cause::AnotherRun`] if another
/// rotation is at work. [`Cause::Key`] if a slot cannot be made. Those of [`Repository::open_to_write`] and
/// [`Repository::check_removable`]; [`Cause::Store`] if the store cannot be asked.
pub async fn rotate(
    target: &RepositoryTarget,
    carried: &[Carried],
    drop: &[SlotName],
    options: &KeyOptions,
) -> Result<Rotated, Error> {
    let url = target.store.describe();
    rotate_inner(target, carried, drop, options).await.doing(|| format!("rotating the keys of {url}"))
}

async fn rotate_inner(
    target: &RepositoryTarget,
    carried: &[Carried],
    drop: &[SlotName],
    options: &KeyOptions,
) -> Result<Rotated, Error> {
    let session = Session::begin(target).await?;
    session.repository.check_removable()?;
    session.check_conditions()?;
    let slots = session.slots().await?;
    session.check_newest(&slots)?;
    let plan = plan(&session, &slots, carried, drop).await?;
    let key = session.key.next_epoch().map_err(|fault| Cause::Refused(format!("no further key: {fault}")))?;
    let epoch = key.epoch();
    let another =
        || Error::from(Cause::AnotherRun { verb: "key rotate", subject: session.repository.describe(), pid: None });

    let first = named(&format!("epoch-{epoch}"))?;
    let own = &target.unlock;
    let slot = session.make(first.clone(), &key, own, options).await?.labelled(&plan.label);
    match session.write(&slot, own, &key).await {
        Err(error) if error.is_already_exists() => return Err(another()),
        written => written?,
    }
    let now = session.slots().await?;
    if now.sound.iter().any(|other| other.epoch() >= epoch && *other.slot() != first) {
        // Another run began an epoch since we looked, perhaps from other keys. Nobody may build on ours.
        session.delete(&[name::key_slot(&first)]).await?;
        return Err(another());
    }
    let mut written = vec![first.clone()];
    for (secret, label) in &plan.carried {
        let name = replacement(label, epoch, &[written.as_slice(), &plan.removed].concat())?;
        let slot = session.make(name, &key, secret, options).await?.labelled(label);
        session.write(&slot, secret, &key).await?;
        written.push(slot.slot().clone());
    }

    let now = session.slots().await?;
    let later = now.sound.iter().any(|other| other.epoch() > epoch);
    if later || !session.opens(&first, own, &key).await? {
        return Err(another());
    }
    let gone = plan.removed.iter().flat_map(|slot| [name::key_slot(slot), name::key_slot_removal(slot)]);
    session.delete(&gone.collect::<Vec<_>>()).await?;
    let removed = plan.removed;
    let entry =
        LedgerEntry::Key { change: KeyChange::Rotate, written: written.clone(), removed: removed.clone(), epoch };
    session.record(&key, options, &entry).await?;
    Ok(Rotated { repository: session.repository.with_key(&key), epoch, written, removed })
}

/// Who stays and what goes.
struct Plan {
    /// What people know the slot of the configured secret by.
    label: SlotName,
    /// The other secrets that stay, with what people know their slots by.
    carried: Vec<(Unlock, SlotName)>,
    /// The slots of earlier epochs: all that were there.
    removed: Vec<SlotName>,
}

async fn plan(session: &Session<'_>, slots: &Slots, carried: &[Carried], drop: &[SlotName]) -> Result<Plan, Error> {
    let own = &session.target.unlock;
    let mut label = None;
    let mut stays: Vec<Option<&KeySlot>> = vec![None; carried.len()];
    let mut unknown = BTreeSet::new();
    let mut work_kib: u64 = 0;
    // The newest first: a secret that opens several slots is known by the last of them.
    let mut newest_first: Vec<&KeySlot> = slots.sound.iter().collect();
    newest_first.sort_by_key(|slot| (*slot.slot() != session.by, std::cmp::Reverse(slot.epoch()), slot.work_kib()));
    for slot in newest_first {
        let mut opened = false;
        let secrets = [own].into_iter().chain(carried.iter().map(|carried| &carried.secret));
        for (index, secret) in secrets.enumerate().filter(|(_, secret)| kind(secret) == Some(slot.kind())) {
            work_kib = work_kib.saturating_add(slot.work_kib());
            if work_kib > WORK_KIB_AT_MOST {
                continue;
            }
            let Some(key) = session.try_on(slot.clone(), secret).await? else { continue };
            if !session.key.holds(&key) {
                return Err(Cause::Refused(format!(
                    "key slot {} gives other keys than {}: two rotations did not know of each other",
                    slot.slot(),
                    session.by
                ))
                .into());
            }
            match index.checked_sub(1).and_then(|index| stays.get_mut(index)) {
                None if drop.contains(slot.slot()) => {
                    return Err(Cause::Refused(format!(
                        "the configured secret opens key slot {}, which is to be dropped: configure the secret that stays",
                        slot.slot()
                    ))
                    .into());
                }
                None => {
                    label.get_or_insert_with(|| slot.label().clone());
                }
                Some(stays) => {
                    stays.get_or_insert(slot);
                }
            }
            opened = true;
            break;
        }
        if !opened && !drop.contains(slot.slot()) {
            unknown.insert(slot.slot().as_str());
        }
    }
    unknown.extend(slots.unreadable.iter().filter(|bad| !drop.contains(&bad.id)).map(|bad| bad.id.as_str()));
    if !unknown.is_empty() {
        let unknown: Vec<&str> = unknown.into_iter().collect();
        return Err(Cause::Refused(format!(
            "no given secret opens key slot {}: give the secret of each one that should stay, and name each one that should go \
             with --drop",
            unknown.join(" and ")
        ))
        .into());
    }
    let mut others = Vec::new();
    for (Carried { secret, what }, slot) in carried.iter().zip(stays) {
        let Some(slot) = slot else {
            return Err(
                Cause::Refused(format!("{what} opens no other key slot: add it with `holdfast key add`")).into()
            );
        };
        if drop.contains(slot.slot()) {
            let slot = slot.slot();
            return Err(Cause::Refused(format!("{what} opens key slot {slot}, which is to be dropped")).into());
        }
        others.push((secret.clone(), slot.label().clone()));
    }
    let removed = slots.sound.iter().map(KeySlot::slot).chain(slots.unreadable.iter().map(|bad| &bad.id));
    Ok(Plan {
        label: label.unwrap_or_else(|| session.by.clone()),
        carried: others,
        removed: removed.cloned().collect(),
    })
}

/// The name of the slot that takes another one's place. Two slots may have one label: somebody added a slot under a name whose
/// first slot was replaced.
fn replacement(label: &SlotName, epoch: u32, taken: &[SlotName]) -> Result<SlotName, Error> {
    let mut end = format!(".{epoch}");
    for number in 2.. {
        let begin: String = label.as_str().chars().take(NAME_BYTES_AT_MOST - end.len()).collect();
        let name = named(&(begin + &end))?;
        if !taken.contains(&name) {
            return Ok(name);
        }
        end = format!("-{number}.{epoch}");
    }
    Err(Cause::Internal("no free name for a key slot".to_owned()).into())
}

fn named(name: &str) -> Result<SlotName, Error> {
    name.parse().map_err(|e| Cause::Internal(format!("key slot name: {e}")).into())
}
