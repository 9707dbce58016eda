//! `key list`, `key add`, `key rotate` and `key remove`.

use super::answers::{Answer, Answers};
use super::repo::warn_of_short;
use super::unreadable::Remarks;
use super::{Context, key_pair, targets, time};
use crate::args::{KeyCommand, NewSecret, RotateArgs};
use crate::config::repository::{Encryption, KeySource, Repository as Configured, is_open_to_all};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::output::table::{Align, Table};
use holdfast_contract::report::key::{KeyChangeReport, KeyListReport, KeySlotReport, RepositoryKeys};
use holdfast_engine::Error;
use holdfast_engine::keys::KeyOptions;
use holdfast_engine::keys::add::add;
use holdfast_engine::keys::list::{KeyList, ListedSlot, list};
use holdfast_engine::keys::remove::remove;
use holdfast_engine::keys::rotate::{Carried, rotate};
use holdfast_engine::repository::{RepositoryTarget, Unlock};
use holdfast_repo::key::{Argon2Cost, KeySlotKind};
use holdfast_repo::name::SlotName;
use holdfast_repo::record::KeyChange;
use std::fmt::Write as _;
use std::path::Path;

pub(super) async fn run(context: &Context, command: &KeyCommand) -> Result<ExitCode, Failure> {
    match command {
        KeyCommand::List => show(context).await,
        KeyCommand::Add { name, secret, repo } => add_slot(context, name, secret, *repo).await,
        // It reads no configuration, so it has run before.
        KeyCommand::Generate { file } => key_pair::generate(file, context.output),
        KeyCommand::Rotate(args) => rotate_keys(context, args).await,
        KeyCommand::Remove { name, repo } => remove_slot(context, name, *repo).await,
    }
}

fn options() -> KeyOptions {
    KeyOptions { host: time::host(), now: time::now(), cost: Argon2Cost::default() }
}

/// The change is done, so the command succeeds: a repetition would be another change.
fn warn_of_ledger(context: &Context, unrecorded: Option<&Error>) {
    if let Some(error) = unrecorded {
        context.warn(&format!("the change is done, but it is not recorded in every ledger: {error}"));
    }
}

/// The repository whose slots are changed. With several it must be named, because their slots are independent.
async fn target(context: &Context, number: Option<usize>) -> Result<(&Configured, RepositoryTarget), Failure> {
    let all = &context.config.repositories;
    let chosen = match (number, all.as_slice()) {
        (None, [only]) => only,
        (None, _) => {
            return Err(Failure::new(
                ExitCode::Usage,
                format!("{} repositories are configured, and the keys of one are changed at a time", all.len()),
            )
            .hint("say which one with --repo; the first one in the configuration is 1"));
        }
        (Some(number), _) => targets::by_number(&context.config, number)?,
    };
    Ok((chosen, targets::one(chosen, targets::Directory::MustExist, None).await?))
}

/// Reads a secret that the command line names. A warning names files that every user of this machine can read.
fn read(context: &Context, encryption: &Encryption) -> Result<(Unlock, KeySource), Failure> {
    let source = encryption.key_source(targets::variable)?;
    if let Encryption::PassphraseFile(path) | Encryption::KeyFile(path) = encryption
        && is_open_to_all(path)
    {
        context.warn_of_open_secret(path);
    }
    Ok((targets::unlock(source.clone()), source))
}

async fn add_slot(
    context: &Context,
    slot: &SlotName,
    secret: &NewSecret,
    number: Option<usize>,
) -> Result<ExitCode, Failure> {
    let NewSecret { passphrase_file, passphrase_variable, key_file, recipient } = secret.clone();
    let given = passphrase_file
        .map(Encryption::PassphraseFile)
        .or(passphrase_variable.map(Encryption::PassphraseVariable))
        .or(key_file.map(Encryption::KeyFile));
    let (configured, target) = target(context, number).await?;
    let (unlock, source) = match (given, recipient) {
        (Some(given), _) => read(context, &given)?,
        (None, Some(recipient)) => (Unlock::Recipient(key_pair::recipient(&recipient)?), KeySource::None),
        (None, None) => return Err(Failure::internal("a new secret is required and was not given")),
    };
    let added = add(&target, slot, &unlock, &options()).await?;
    warn_of_ledger(context, added.unrecorded.as_ref());
    if added.made
        && let KeySource::Passphrase(passphrase) = &source
    {
        let what = format!("the new passphrase of {}", configured.location());
        warn_of_short(context, &what, passphrase, "replace it by a key file (`openssl rand -hex 32`)");
    }
    let report = KeyChangeReport {
        repository: added.repository.describe(),
        change: KeyChange::Add,
        epoch: added.epoch,
        written: if added.made { vec![slot.clone()] } else { Vec::new() },
        removed: Vec::new(),
        opens: slot.clone(),
    };
    context.print(
        || {
            if let Unlock::Recipient(recipient) = &unlock {
                return format!(
                    "{}: key slot {slot} is added for {recipient}, and was read back; only its private key can prove that \
                     it opens the repository: try it with `key_file` on another machine (`holdfast list`)\n",
                    report.repository
                );
            }
            let there = if added.made { "is added" } else { "is there already, with this secret" };
            format!("{}: key slot {slot} {there}, and was proved to open the repository\n", report.repository)
        },
        &report,
    )?;
    Ok(ExitCode::Ok)
}

async fn rotate_keys(context: &Context, args: &RotateArgs) -> Result<ExitCode, Failure> {
    let RotateArgs { passphrase_files, passphrase_variables, key_files, recipients, drop, repo } = args;
    let (_, target) = target(context, *repo).await?;
    let what = |kind: &str, path: &Path| format!("the {kind} {}", path.display());
    let files = passphrase_files
        .iter()
        .map(|path| (Encryption::PassphraseFile(path.clone()), what("passphrase in", path)))
        .chain(key_files.iter().map(|path| (Encryption::KeyFile(path.clone()), what("key file", path))));
    let variables = passphrase_variables
        .iter()
        .map(|name| (Encryption::PassphraseVariable(name.clone()), format!("the passphrase in ${name}")));
    let mut carried = Vec::new();
    for (encryption, what) in files.chain(variables) {
        carried.push(Carried { secret: read(context, &encryption)?.0, what });
    }
    for recipient in recipients {
        let recipient = key_pair::recipient(recipient)?;
        carried.push(Carried { secret: Unlock::Recipient(recipient), what: format!("the public key {recipient}") });
    }
    let done = rotate(&target, &carried, drop, &options()).await?;
    warn_of_ledger(context, done.unrecorded.as_ref());
    let opens = done.written.first().ok_or_else(|| Failure::internal("a rotation wrote no key slot"))?.clone();
    let report = KeyChangeReport {
        repository: done.repository.describe(),
        change: KeyChange::Rotate,
        epoch: done.epoch,
        written: done.written,
        removed: done.removed,
        opens,
    };
    context.print(
        || {
            format!(
                "{}: key epoch {} for new data\n  opened by           {}\n  removed             {}\n\
                 current runs finish under the earlier key, and what it encrypted stays readable with every slot; \
                 anybody with a removed secret and a copy of its slot can still read the older data\n",
                report.repository,
                report.epoch,
                names(&report.written),
                names(&report.removed),
            )
        },
        &report,
    )?;
    Ok(ExitCode::Ok)
}

async fn remove_slot(context: &Context, slot: &SlotName, number: Option<usize>) -> Result<ExitCode, Failure> {
    let (_, target) = target(context, number).await?;
    let done = remove(&target, slot, &options()).await?;
    warn_of_ledger(context, done.unrecorded.as_ref());
    if done.was_there && !done.compared {
        context.warn(&format!(
            "the configured secret does not open key slot {slot}, so whether its keys are those of {} could not be compared",
            done.opens
        ));
    }
    let report = KeyChangeReport {
        repository: done.repository.describe(),
        change: KeyChange::Remove,
        epoch: done.epoch,
        written: Vec::new(),
        removed: if done.was_there { vec![slot.clone()] } else { Vec::new() },
        opens: done.opens,
    };
    // What else opens the repository; the removal itself is done.
    let left = list(&target).await.map(|(_, found)| found.slots).unwrap_or_default();
    context.print(
        || {
            let mut text = format!(
                "{}: key slot {slot} is removed; {} was proved to open the repository\n",
                report.repository, report.opens
            );
            let others: Vec<SlotName> =
                left.iter().map(|found| found.slot.clone()).filter(|found| *found != report.opens).collect();
            if !others.is_empty() {
                let _ = writeln!(text, "besides it there are {}", names(&others));
            }
            text.push_str(
                "anybody with its secret and a copy of the slot still has the key: `holdfast key rotate` encrypts new \
                 data under another one\n",
            );
            text
        },
        &report,
    )?;
    Ok(ExitCode::Ok)
}

fn names(slots: &[SlotName]) -> String {
    slots.iter().map(SlotName::as_str).collect::<Vec<_>>().join(", ")
}

/// Shows the slots of every repository. If one cannot be opened, the command fails after the others were shown.
async fn show(context: &Context) -> Result<ExitCode, Failure> {
    let mut answers = Answers::new();
    for configured in &context.config.repositories {
        answers.add("", configured.location().to_string(), keys_of(configured).await);
    }
    answers.print(context, |repositories| KeyListReport { repositories })
}

async fn keys_of(configured: &Configured) -> Answer<RepositoryKeys> {
    let target = targets::one(configured, targets::Directory::MustExist, None).await?;
    let (repository, found) = list(&target).await?;
    let mut remarks = Remarks::default();
    remarks.note("key slot", &found.unreadable);
    let text = shown(&repository.describe(), &found, &remarks);
    let report = RepositoryKeys {
        repository: repository.describe(),
        encryption: repository.record().encryption,
        epoch: found.epoch,
        slots: found.slots.into_iter().map(reported).collect(),
        unreadable: remarks.records(),
    };
    Ok((text, report, None))
}

fn shown(url: &str, found: &KeyList, remarks: &Remarks) -> String {
    let Some(epoch) = found.epoch else { return format!("{url}\nnot encrypted: it has no key slots\n") };
    let mut table = Table::new([
        ("SLOT", Align::Left),
        ("OF", Align::Left),
        ("KIND", Align::Left),
        ("EPOCH", Align::Right),
        ("CREATED", Align::Left),
        ("", Align::Left),
    ]);
    for slot in &found.slots {
        let recipient = slot.recipient.map(|recipient| recipient.to_string());
        let remark = match (slot.opened, slot.removal_begun) {
            (true, _) => "opened by the configured secret",
            (false, true) => "its removal has begun",
            (false, false) => recipient.as_deref().unwrap_or_default(),
        };
        table.row([
            slot.slot.to_string(),
            slot.label.to_string(),
            match slot.kind {
                KeySlotKind::Passphrase => "passphrase",
                KeySlotKind::KeyFile => "key file",
                KeySlotKind::X25519 => "public key",
            }
            .to_owned(),
            slot.epoch.to_string(),
            time::shown(slot.created),
            remark.to_owned(),
        ]);
    }
    let mut text = format!("{url}\n{}{}", table.render(), remarks.text(""));
    if found.slots.iter().any(|slot| slot.epoch > epoch) {
        let _ = writeln!(
            text,
            "the keys were rotated without the configured secret: it gives the keys up to epoch {epoch}, and cannot read \
             what is written under a later one; while a slot of a later epoch exists, nothing is written with it"
        );
    } else if found.slots.iter().any(|slot| slot.epoch < epoch) {
        text.push_str(
            "slots of an earlier epoch do not open new data: a rotation was interrupted, and `holdfast key rotate` \
             finishes it\n",
        );
    }
    text
}

fn reported(slot: ListedSlot) -> KeySlotReport {
    let ListedSlot { slot, label, kind, recipient, epoch, created, opened, removal_begun } = slot;
    let recipient = recipient.map(|recipient| recipient.to_string());
    KeySlotReport { slot, label, kind, epoch, created, opened, removal_begun, recipient }
}
