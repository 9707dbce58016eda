//! `key rotate`: a new key for what is written from now on.
//!
//! Order: read all slots and find out whose secrets are given; write the first slot of the new epoch, for the configured secret,
//! and prove it; look whether another run interfered; write a slot for each other secret that stays, and prove it; look again, also
//! for slots that were added meanwhile; put a mark on each slot of earlier epochs, then delete them; write the ledger.
//!
//! The name of the first slot is what one rotation has and no other. It is created where there is none and has no mark, and is not
//! deleted by the run that wrote it, whatever happens then: another host may have used its key already. A run that stood still
//! between its look and that request, until the epoch was over, leaves a slot that no host writes with: its name has a mark, or
//! there is the name of a later epoch ([`Repository::check_newest_key`]). Where the store keeps no conditions nothing of this
//! holds, so there are no rotations.
//!
//! Everything that was written stays readable: each new slot holds the keys of all epochs. Who opened the repository before goes on
//! under the old epoch. After a crash old and new slots stand beside each other. A secret that opens both gets the newer keys; who
//! has only an old slot reads what is of the old epoch, and writes nothing. The same command
//! again begins one more epoch and ends what is left.

use std::collections::BTreeMap;

use holdfast_repo::RepositoryKey;
use holdfast_repo::key::{KeyError, KeySlot, MAX_MEMORY_KIB};
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
    /// Why the ledger of an archive does not say so.
    pub unrecorded: Option<Error>,
}

/// Begins a new epoch. After it the configured secret and those of `carried` open the repository. Slots that none of them opens
/// are removed if they are named in `drop`; if not, the rotation is refused, so that nobody is locked out by mistake.
///
/// # Errors
/// [`Cause::Refused`] if the repository is not encrypted, the store keeps no conditions, the keys were rotated without the configured
/// secret, a secret opens no slot, a slot is neither opened nor named, a slot that a given secret opens is named, and if a slot was
/// added meanwhile: then nothing is removed. [`Cause::AnotherRun`] if another
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
    let mut written = Vec::new();
    let done = write_slots(&session, &slots, &plan, &key, options, &mut written).await;
    done.doing(|| match written.as_slice() {
        [] => "writing the first key slot of the new epoch".to_owned(),
        _ => format!("having written key slot {}, and removed none of those before", joined(&written)),
    })?;
    for slot in &plan.removed {
        session.mark(slot).await?;
    }
    session.delete(&plan.removed.iter().map(name::key_slot).collect::<Vec<_>>()).await?;
    let (removed, epoch) = (plan.removed, key.epoch());
    let entry =
        LedgerEntry::Key { change: KeyChange::Rotate, written: written.clone(), removed: removed.clone(), epoch };
    let unrecorded = session.record(&key, options, &entry).await;
    Ok(Rotated { repository: session.repository.with_key(&key), epoch, written, removed, unrecorded })
}

/// Writes the slots of the new epoch and makes sure that they are all that opens the repository besides those that go.
async fn write_slots(
    session: &Session<'_>,
    slots: &Slots,
    plan: &Plan,
    key: &RepositoryKey,
    options: &KeyOptions,
    written: &mut Vec<SlotName>,
) -> Result<(), Error> {
    let (epoch, own) = (key.epoch(), &session.target.unlock);
    let another =
        || Error::from(Cause::AnotherRun { verb: "key rotate", subject: session.repository.describe(), pid: None });
    let first = named(&format!("epoch-{epoch}"))?;
    let slot = session.make(first.clone(), key, own, options).await?.labelled(&plan.label);
    // Making it took time. What is there now was begun meanwhile, perhaps from other keys.
    if session.slots().await?.later_than(session.key.epoch()).is_some() {
        return Err(another());
    }
    match session.write(&slot, own, key).await {
        Err(error) if error.is_already_exists() => return Err(another()),
        done => done?,
    }
    written.push(first.clone());
    // Nobody may build on ours if another run began an epoch since we looked, or ours was over before we wrote its slot.
    let alone = async |written: &[SlotName]| {
        let now = session.slots().await?;
        let other = now.sound.iter().any(|other| other.epoch() >= epoch && !written.contains(other.slot()));
        let free = !other && now.later_than(epoch).is_none() && !session.is_marked(&first).await?;
        if free { Ok(now) } else { Err(another()) }
    };
    alone(written).await?;
    let taken: Vec<SlotName> = slots.names().chain(&slots.marked).cloned().collect();
    for (secret, label) in &plan.carried {
        let name = replacement(label, epoch, &[written.as_slice(), &taken].concat())?;
        let slot = session.make(name, key, secret, options).await?.labelled(label);
        session.write(&slot, secret, key).await?;
        written.push(slot.slot().clone());
    }
    let now = alone(written).await?;
    let added: Vec<SlotName> =
        now.names().filter(|slot| !written.contains(slot) && !plan.removed.contains(slot)).cloned().collect();
    if !added.is_empty() {
        return Err(Cause::Refused(format!(
            "key slot {} was added during the rotation and has no key of the new epoch: run this again, and give its secret, or \
             name it with --drop",
            joined(&added)
        ))
        .into());
    }
    if session.opens(&first, own, key).await? { Ok(()) } else { Err(another()) }
}

fn joined(slots: &[SlotName]) -> String {
    slots.iter().map(SlotName::as_str).collect::<Vec<_>>().join(" and ")
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
    let refused = |why: String| -> Error { Cause::Refused(why).into() };
    let own = &session.target.unlock;
    let mut label = None;
    let mut stays: Vec<Option<&KeySlot>> = vec![None; carried.len()];
    let mut unknown = BTreeMap::new();
    let mut work_kib: u64 = 0;
    // The newest first: a secret that opens several slots is known by the last of them.
    let mut newest_first: Vec<&KeySlot> = slots.sound.iter().collect();
    newest_first.sort_by_key(|slot| (*slot.slot() != session.by, std::cmp::Reverse(slot.epoch()), slot.work_kib()));
    for slot in newest_first {
        let name = slot.slot();
        let mut opened = false;
        let mut why_not = None;
        let secrets = [own].into_iter().chain(carried.iter().map(|carried| &carried.secret));
        for (index, secret) in secrets.enumerate().filter(|(_, secret)| kind(secret) == Some(slot.kind())) {
            work_kib = work_kib.saturating_add(slot.work_kib());
            if work_kib > WORK_KIB_AT_MOST {
                work_kib = work_kib.saturating_sub(slot.work_kib());
                why_not = Some("it needs too much work".to_owned());
                continue;
            }
            let key = match session.attempt(slot.clone(), secret).await? {
                Ok(key) => key,
                Err(KeyError::WrongPassphrase { .. } | KeyError::WrongKeyFile { .. }) => continue,
                Err(fault) => {
                    // It cost nothing, or as good as that.
                    work_kib = work_kib.saturating_sub(slot.work_kib());
                    why_not = Some(fault.to_string());
                    continue;
                }
            };
            if !session.key.holds(&key) {
                let by = &session.by;
                return Err(refused(format!(
                    "key slot {name} gives other keys than {by}: two rotations did not know of each other"
                )));
            }
            let of_carried = index.checked_sub(1).and_then(|index| carried.get(index).zip(stays.get_mut(index)));
            match of_carried {
                None if drop.contains(name) => {
                    return Err(refused(format!(
                        "the configured secret opens key slot {name}, which is to be dropped: configure the secret that stays"
                    )));
                }
                // A secret that stays under one name has not gone by another.
                Some((Carried { what, .. }, _)) if drop.contains(name) => {
                    return Err(refused(format!("{what} opens key slot {name}, which is to be dropped")));
                }
                None => {
                    label.get_or_insert_with(|| slot.label().clone());
                }
                Some((_, stays)) => {
                    stays.get_or_insert(slot);
                }
            }
            opened = true;
            break;
        }
        if !opened && !drop.contains(name) {
            unknown.insert(name, why_not);
        }
    }
    let unreadable = slots.unreadable.iter().filter(|bad| !drop.contains(&bad.id));
    unknown.extend(unreadable.map(|bad| (&bad.id, Some(bad.error.what.to_string()))));
    if !unknown.is_empty() {
        let unknown: Vec<String> = unknown
            .into_iter()
            .map(|(slot, why)| why.map_or_else(|| slot.to_string(), |why| format!("{slot} ({why})")))
            .collect();
        return Err(refused(format!(
            "no given secret opens key slot {}: give the secret of each one that should stay, and name each one that should go \
             with --drop",
            unknown.join(" and ")
        )));
    }
    let mut others = Vec::new();
    for (Carried { secret, what }, slot) in carried.iter().zip(stays) {
        let Some(slot) = slot else {
            return Err(refused(format!("{what} opens no other key slot: add it with `holdfast key add`")));
        };
        others.push((secret.clone(), slot.label().clone()));
    }
    Ok(Plan {
        label: label.unwrap_or_else(|| session.by.clone()),
        carried: others,
        removed: slots.names().cloned().collect(),
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
