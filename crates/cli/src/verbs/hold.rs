//! `backup hold` and `backup release`: in every repository that has the backup.

use super::{Context, requested, targets, time};
use crate::args::BackupCommand;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use holdfast_contract::report::expire::HoldReport;
use holdfast_engine::Cause;
use holdfast_engine::expire::{HoldOptions, hold, release};
use std::fmt::Write;

pub(super) async fn run(context: &Context, command: &BackupCommand) -> Result<ExitCode, Failure> {
    let (id, options) = match command {
        BackupCommand::Hold { id, until, with_wal, reason } => (id, Some((*until, *with_wal, reason))),
        BackupCommand::Release { id } => (id, None),
    };
    let backup = requested::backup(id)?;
    let cluster = &context.config.cluster.name;
    let now = time::now();
    let options = options.map(|(until, with_wal, reason)| HoldOptions {
        cluster: cluster.clone(),
        backup,
        until: until.map(|until| until.moment(now)),
        with_wal,
        reason: reason.clone(),
        host: time::host(),
        now,
    });
    if let Some(until) = options.as_ref().and_then(|options| options.until).filter(|until| *until <= now) {
        let what = format!("a hold until {} would hold nothing: that is past", time::shown(until));
        return Err(Failure::new(ExitCode::Usage, what)
            .hint("nothing was changed: name a later time; to end a hold, run `holdfast backup release`"));
    }
    let (mut done, mut absent, mut failed) = (Vec::new(), None, None);
    let mut notes = Vec::new();
    for (url, opened) in targets::opened(context).await {
        let outcome = match (opened, &options) {
            (Err(failure), _) => Err(failure),
            (Ok(repository), Some(options)) => match hold(&repository, options).await {
                Ok(said) => {
                    notes.extend(said.into_iter().map(|note| format!("{url}: {note}")));
                    Ok(true)
                }
                Err(error) if matches!(*error.what, Cause::NoSuchBackup { .. }) => {
                    absent.get_or_insert(Failure::from(error));
                    Ok(false)
                }
                Err(error) => Err(error.into()),
            },
            (Ok(repository), None) => release(&repository, cluster, backup).await.map_err(Failure::from),
        };
        match outcome {
            Ok(true) => done.push(url),
            Ok(false) => {}
            Err(failure) => {
                failed.get_or_insert(failure);
            }
        }
    }
    if done.is_empty()
        && let Some(failure) = failed.take().or(absent)
    {
        return Err(failure);
    }
    let report = HoldReport {
        cluster: cluster.clone(),
        backup_id: backup,
        held: options.is_some(),
        until: options.as_ref().and_then(|options| options.until),
        with_wal: options.as_ref().is_some_and(|options| options.with_wal),
        reason: options.and_then(|options| options.reason),
        repositories: done,
        notes,
    };
    context.print(|| text(&report), &report)?;
    // The user must know that one repository may remove the backup.
    failed.map_or(Ok(ExitCode::Ok), Err)
}

fn text(report: &HoldReport) -> String {
    let backup = report.backup_id;
    let places = report.repositories.join(", ");
    let wal = if report.with_wal { ", with all WAL after it," } else { "" };
    let mut text = match (report.held, report.until, places.is_empty()) {
        (false, _, true) => format!("backup {backup} was not held\n"),
        (false, _, false) => format!("backup {backup} is released in {places}\n"),
        (true, None, _) => format!("backup {backup}{wal} is held in {places} until it is released\n"),
        (true, Some(until), _) => format!("backup {backup}{wal} is held in {places} until {}\n", time::shown(until)),
    };
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}
