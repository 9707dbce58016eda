//! `backup hold` and `backup release`: in every repository that has the backup.

use super::{Context, asked, targets, time};
use crate::args::BackupCommand;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use holdfast_contract::report::expire::HoldReport;
use holdfast_engine::Cause;
use holdfast_engine::expire::{HoldOptions, hold, release};

pub(super) async fn run(context: &Context, command: &BackupCommand) -> Result<ExitCode, Failure> {
    let (id, options) = match command {
        BackupCommand::Hold { id, until, reason } => (id, Some((*until, reason))),
        BackupCommand::Release { id } => (id, None),
    };
    let backup = asked::backup(id)?;
    let cluster = &context.config.cluster.name;
    let now = time::now();
    let options = options.map(|(until, reason)| HoldOptions {
        cluster: cluster.clone(),
        backup,
        until: until.map(|until| until.moment(now)),
        reason: reason.clone(),
        host: time::host(),
        now,
    });
    let (mut done, mut absent, mut failed) = (Vec::new(), None, None);
    for (url, opened) in targets::opened(context).await {
        let outcome = match (opened, &options) {
            (Err(failure), _) => Err(failure),
            (Ok(repository), Some(options)) => match hold(&repository, options).await {
                Ok(()) => Ok(true),
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
        reason: options.and_then(|options| options.reason),
        repositories: done,
    };
    context.print(|| text(&report), &report)?;
    // The user must know that one repository may remove the backup.
    failed.map_or(Ok(ExitCode::Ok), Err)
}

fn text(report: &HoldReport) -> String {
    let backup = report.backup_id;
    let places = report.repositories.join(", ");
    match (report.held, report.until, places.is_empty()) {
        (false, _, true) => format!("backup {backup} was not held\n"),
        (false, _, false) => format!("backup {backup} is released in {places}\n"),
        (true, None, _) => format!("backup {backup} is held in {places} until it is released\n"),
        (true, Some(until), _) => format!("backup {backup} is held in {places} until {}\n", time::shown(until)),
    }
}
