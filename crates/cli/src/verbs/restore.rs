//! `restore`: the flags as a request, the plan or the report as text, and the next step.

use super::{Context, command_line, expire, places, requested, targets, time};
use crate::args::RestoreArgs;
use crate::exit_code::ExitCode;
use crate::failure::{Explain, Failure};
use crate::output::progress::Progress;
use holdfast_contract::amount::{duration, rate, size};
use holdfast_engine::Error;
use holdfast_engine::repository::Repository;
use holdfast_engine::restore::{
    Archiving, RestoreOptions, RestorePlan, RestoreReport, SnapshotRestoreReport, TablespaceMapping, TablespacePlace,
    TargetState, plan, plan_snapshot, restore, restore_snapshot,
};
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetAction};
use holdfast_repo::record::SnapshotRecord;
use holdfast_repo::recovery::RecoveryPlan;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

pub(super) async fn run(context: &Context, args: &RestoreArgs) -> Result<ExitCode, Failure> {
    let options = options(context, args)?;
    let repository = targets::open(targets::by_number(&context.config, args.repo)?).await?;
    let show = Arc::new(Progress::new(context.show));
    let progress: Arc<dyn holdfast_engine::progress::Progress> = Arc::clone(&show) as _;
    if args.snapshot.is_some() || args.snapshot_record.is_some() {
        let record = snapshot_record(context, args, &repository).await?;
        let recovering = if args.plan {
            plan_snapshot(&repository, &options, &record, &progress, &context.cancellation).await
        } else {
            restore_snapshot(&repository, &options, &record, &progress, &context.cancellation).await
        };
        let report = recovering.map_err(|error| refused(&error))?;
        show.finish();
        context.print(|| snapshot_text(&report, &record, args), &report)?;
    } else if args.plan {
        let plan =
            plan(&repository, &options, &progress, &context.cancellation).await.map_err(|error| refused(&error))?;
        show.finish();
        context.print(|| plan_text(&plan, &repository), &plan)?;
    } else {
        let restored = restore(&repository, &options, &progress, &context.cancellation).await;
        let mut report = restored.map_err(|error| refused(&error))?;
        show.finish();
        if !context.variables.is_empty() {
            report.notes.push(format!(
                "restore_command takes part of its configuration from the environment: start the server with {} set",
                context.variables.join(", ")
            ));
        }
        let root = rustix::process::geteuid().is_root();
        if root {
            context.warn(&format!(
                "{} belongs to root now, and PostgreSQL refuses to run as root: `chown -R postgres: {}`, or run the restore \
                 with sudo -u postgres",
                report.pgdata.display(),
                report.pgdata.display()
            ));
        }
        context.print(|| report_text(&report, &repository, root, args), &report)?;
    }
    Ok(ExitCode::Ok)
}

/// The record of the snapshots from which the directory was filled.
async fn snapshot_record(
    context: &Context,
    args: &RestoreArgs,
    repository: &Repository,
) -> Result<SnapshotRecord, Failure> {
    if let Some(path) = &args.snapshot_record {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(ExitCode::UnreadableFile, format!("cannot read {}: {error}", path.display()))
                .hint("the file holds one record as `holdfast snapshot list --output json` shows it")
        };
        let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
        return serde_json::from_slice(&bytes).map_err(|error| failed(&error));
    }
    let id = args.snapshot.as_deref().unwrap_or_default();
    let id = id.parse().map_err(|_| {
        Failure::new(ExitCode::Usage, format!("{id:?} is not the id of a snapshot"))
            .hint("an id looks like 20260822T101500Z; `holdfast snapshot list` shows them")
    })?;
    Ok(repository.snapshot(&context.config.cluster.name, id).await?)
}

fn snapshot_text(report: &SnapshotRestoreReport, record: &SnapshotRecord, args: &RestoreArgs) -> String {
    let would = if args.plan { "would be prepared" } else { "is ready" };
    let mut text = format!(
        "{} {would} to recover {} from snapshot {} ({})\n",
        report.pgdata.display(),
        report.cluster,
        report.snapshot,
        record.label
    );
    recovery_text(&mut text, &report.recovery, &report.tablespaces);
    let _ = writeln!(text, "  writes      {} and, into postgresql.auto.conf:", report.signal_file);
    for line in &report.auto_conf_lines {
        let _ = writeln!(text, "              {line}");
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    if args.plan {
        text.push_str("nothing was written\n");
    } else {
        let _ = writeln!(text, "next: {}", report.next);
    }
    text
}

/// Here the usual hint, a new claim, would be wrong: another cluster's directory would be overwritten.
fn refused(error: &Error) -> Failure {
    let mut failure = error.explain();
    if failure.code == ExitCode::WrongCluster {
        failure.hint = Some("nothing was changed: name another directory with --pgdata".to_owned());
    }
    failure
}

fn options(context: &Context, args: &RestoreArgs) -> Result<RestoreOptions, Failure> {
    let config = &context.config;
    let words = if args.standby { "wal get --standby %f \"%p\"" } else { "wal get %f \"%p\"" };
    Ok(RestoreOptions {
        cluster: config.cluster.name.clone(),
        pgdata: args.pgdata.clone(),
        request: requested::recovery(&args.to, args.backup.as_deref())?,
        target_action: args.target_action,
        delta: args.delta,
        tablespaces: args
            .tablespaces
            .iter()
            .map(|(tablespace, directory)| TablespaceMapping {
                tablespace: tablespace.clone(),
                directory: directory.clone(),
            })
            .collect(),
        tablespace_root: None,
        reuse_tablespaces: args.reuse_tablespaces.clone(),
        discard_wal: args.discard_wal,
        places: places::needed(context),
        originals: places::of_original(context, &args.pgdata),
        archiving: if args.no_archiving { Archiving::Off } else { Archiving::AsBackedUp },
        standby: args.standby,
        jobs: config.restore.jobs.get(),
        memory_bytes: config.backup.restore_memory_bytes,
        restore_command: command_line::of_self(context, words)?,
        tail_command: if args.standby {
            None
        } else {
            Some((command_line::of_self(context, "wal get --tail ")?, " %f \"%p\"".to_owned()))
        },
        retention: Some(expire::policy_of(context, args.repo.saturating_sub(1))),
        host: time::host(),
        now: time::now(),
    })
}

/// The lines that a plan and a report share.
fn recovery_text(text: &mut String, recovery: &RecoveryPlan, tablespaces: &[TablespacePlace]) {
    let _ = writeln!(
        text,
        "  timeline    {} (the backup is of timeline {}){}",
        recovery.timeline,
        recovery.backup_timeline,
        match recovery.history_files.as_slice() {
            [] => String::new(),
            files => format!(
                ", by the history files of {}",
                files.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
        }
    );
    let _ = writeln!(
        text,
        "  WAL         from {}, consistent at {}{}: {} segments, {}",
        recovery.start_lsn,
        recovery.consistent_lsn,
        recovery.target_lsn.map(|lsn| format!(", target at {lsn}")).unwrap_or_default(),
        recovery.segment_count,
        size(recovery.wal_bytes)
    );
    for range in &recovery.segments {
        let _ = writeln!(text, "              {} to {} ({})", range.first, range.last, range.count);
    }
    let _ = writeln!(text, "  window      {}", recovery.window);
    for place in tablespaces {
        let _ = writeln!(
            text,
            "  tablespace  {} ({}) from {} to {}",
            place.name,
            place.oid,
            place.original,
            place.location.display()
        );
    }
}

fn state_text(state: TargetState) -> &'static str {
    match state {
        TargetState::Fresh => "empty",
        TargetState::Resumed => "an interrupted restore of this backup, which is continued",
        TargetState::Delta => "a data directory, brought to the state of the backup",
    }
}

fn plan_text(plan: &RestorePlan, repository: &Repository) -> String {
    let mut text =
        format!("would restore backup {} of {} from {}\n", plan.recovery.backup, plan.cluster, repository.describe());
    let _ = writeln!(text, "  into        {}: {}", plan.pgdata.display(), state_text(plan.target_state));
    let at_most = if plan.target_state == TargetState::Fresh { "" } else { "at most " };
    let _ = writeln!(
        text,
        "  files       {}: {at_most}{} to fetch, {at_most}{} to write, {} of holes",
        plan.file_count,
        size(plan.fetch_bytes),
        size(plan.write_bytes),
        size(plan.hole_bytes)
    );
    recovery_text(&mut text, &plan.recovery, &plan.tablespaces);
    let _ = writeln!(text, "  writes      {} and, into postgresql.auto.conf:", plan.signal_file);
    for line in &plan.auto_conf_lines {
        let _ = writeln!(text, "              {line}");
    }
    for note in &plan.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text.push_str("nothing was written\n");
    text
}

fn report_text(report: &RestoreReport, repository: &Repository, root: bool, args: &RestoreArgs) -> String {
    let mut text = format!(
        "backup {} of {} is restored from {} into {}\n",
        report.backup,
        report.cluster,
        repository.describe(),
        report.pgdata.display()
    );
    let _ = writeln!(text, "  found       {}", state_text(report.target_state));
    let _ = writeln!(
        text,
        "  files       {}: {} fetched, {} written, {} of holes, {} kept, in {}{}",
        report.file_count,
        size(report.fetched_bytes),
        size(report.written_bytes),
        size(report.hole_bytes),
        size(report.reused_bytes),
        duration(report.duration),
        rate(report.written_bytes, report.duration).map(|rate| format!(", {rate}")).unwrap_or_default()
    );
    recovery_text(&mut text, &report.recovery, &report.tablespaces);
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    let _ = writeln!(text, "next: {}", next_text(report, root));
    let promotes = args.target_action == Some(TargetAction::Promote);
    if args.standby || (args.to.target() != RecoveryTarget::Latest && !promotes) {
        let _ = writeln!(text, "to open it for writing: {}", promote_text(&report.pgdata));
    }
    text
}

fn next_text(report: &RestoreReport, root: bool) -> String {
    if root { format!("{}, as the user postgres (not as root)", report.next) } else { report.next.clone() }
}

fn promote_text(pgdata: &Path) -> String {
    format!("pg_ctl -D {} promote", pgdata.display())
}
