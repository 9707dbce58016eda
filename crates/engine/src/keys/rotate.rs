//! `key rotate`: a new key for new data.
//!
//! Order:
//!
//! 1. Read all slots and find out which given secret opens which slot.
//! 2. Write the first slot of the new epoch, for the configured secret, and prove it. Check that no other run
//!    interfered.
//! 3. Write a slot for each other secret that stays, and prove it. Check again, also for slots that were added
//!    meanwhile.
//! 4. Put a mark on each slot of earlier epochs, then delete these slots. Write the ledger.
//!
//! Only one rotation can own the name of the first slot. The slot is created only if there is no such object and no
//! mark. The run that wrote it never deletes it, because another host may already use its key. A run may pause between
//! its check and the write until its epoch is over. Then no host writes with its slot: the name has a mark, or a later
//! epoch has begun ([`Repository::check_newest_key`]). Without conditional writes none of this is certain, so such a
//! store has no rotations.
//!
//! All data stays readable: each new slot holds the keys of all epochs. A process that already has the repository open
//! continues with the old epoch. After a crash there are old and new slots. A secret that opens both kinds gets the
//! newer keys. A secret that opens only an old slot reads data of the old epochs, and writes nothing. The same command
//! begins one more epoch and finishes the rotation.

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

/// A limit for the work of finding which secret opens which slot: the sum of the memory of all tries, in KiB. It is
/// five times the limit for opening a repository, enough for five secrets.
const WORK_KIB_AT_MOST: u64 = 60 * MAX_MEMORY_KIB as u64;

/// The maximum length of a slot name.
const NAME_BYTES_AT_MOST: usize = 63;

/// A secret besides the configured one that will also open the repository after the rotation.
#[derive(Debug, Clone)]
pub struct Carried {
    /// A passphrase, key file or private key that opens a slot now, or the public key of a slot.
    pub secret: Unlock,
    /// Its name in messages, such as "the key file /etc/holdfast/key".
    pub what: String,
}

/// What `key rotate` did.
#[derive(Debug)]
pub struct Rotated {
    /// The repository, opened with the new key.
    pub repository: Repository,
    /// The new epoch.
    pub epoch: u32,
    /// The new slots. The first one is for the configured secret.
    pub written: Vec<SlotName>,
    /// The slots that were removed.
    pub removed: Vec<SlotName>,
    /// The error, if the ledger of an archive could not be written. The rotation is done.
    pub unrecorded: Option<Error>,
}

/// Begins a new epoch. After that, the configured secret and those of `carried` open the repository. A slot that none
/// of them opens is removed if `drop` names it. If not, the rotation is refused, so that nobody is locked out by
/// mistake.
///
/// # Errors
/// [`Cause::Refused`], and nothing is removed, if the repository is not encrypted, the store has no conditional writes,
/// the keys were rotated without the configured secret, a secret opens no slot, a slot is neither opened nor in `drop`,
/// a given secret opens a slot in `drop`, or a slot was added meanwhile. [`Cause::AnotherRun`] if another rotation is
/// running. [`Cause::Key`] if a slot cannot be made. As [`Repository::open_to_write`] and
/// [`Repository::check_removable`]; [`Cause::Store`] if a request fails.
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
        _ => format!("having written key slot {}, before removing the earlier ones", joined(&written)),
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

/// Writes the slots of the new epoch. Makes sure that all other slots are among those to remove.
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
    // Making the slot took time. Another epoch that is there now was begun meanwhile, perhaps from other keys.
    if session.slots().await?.later_than(session.key.epoch()).is_some() {
        return Err(another());
    }
    match session.write(&slot, own, key).await {
        Err(error) if error.is_already_exists() => return Err(another()),
        done => done?,
    }
    written.push(first.clone());
    // Our epoch must not be used if another run began one since our check, or if ours was over before we wrote its
    // slot.
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
            "key slot {} was added during the rotation and has no key of the new epoch: run this again, and give its \
             secret, or name it with --drop",
            joined(&added)
        ))
        .into());
    }
    if session.opens(&first, own, key).await? { Ok(()) } else { Err(another()) }
}

fn joined(slots: &[SlotName]) -> String {
    slots.iter().map(SlotName::as_str).collect::<Vec<_>>().join(" and ")
}

/// The secrets that stay and the slots to remove.
struct Plan {
    /// The label of the configured secret's slot: the name that people know.
    label: SlotName,
    /// The other secrets that stay, with the labels of their slots.
    carried: Vec<(Unlock, SlotName)>,
    /// All slots that were there before the rotation.
    removed: Vec<SlotName>,
}

async fn plan(session: &Session<'_>, slots: &Slots, carried: &[Carried], drop: &[SlotName]) -> Result<Plan, Error> {
    let refused = |why: String| -> Error { Cause::Refused(why).into() };
    let own = &session.target.unlock;
    let mut label = None;
    let mut stays: Vec<Option<&KeySlot>> = vec![None; carried.len()];
    let mut unknown = BTreeMap::new();
    let mut work_kib: u64 = 0;
    // The newest first: if a secret opens several slots, the label of the newest is used.
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
            let tried = match secret.secret() {
                // A public key opens nothing. The slot's own word is enough: the new slot is made for the given key.
                Unlock::Recipient(recipient) if slot.recipient() != Some(*recipient) => continue,
                Unlock::Recipient(_) => Ok(session.key.clone()),
                _ => session.attempt(slot.clone(), secret).await?,
            };
            let key = match tried {
                Ok(key) => key,
                Err(
                    KeyError::WrongPassphrase { .. } | KeyError::WrongKeyFile { .. } | KeyError::WrongPrivateKey { .. },
                ) => continue,
                Err(fault) => {
                    // The try failed before the expensive part.
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
                        "the configured secret opens key slot {name}, which is to be dropped: configure the secret \
                         that stays"
                    )));
                }
                // A secret that stays must not be dropped under another slot name.
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
            "no given secret opens key slot {}: give the secret of each slot that should stay, and name each slot to \
             remove with --drop",
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

/// The name of the slot that replaces another one. Two slots can have the same label: the first slot was replaced, and
/// then somebody added a slot with its old name.
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
