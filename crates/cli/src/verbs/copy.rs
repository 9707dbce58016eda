//! `repo copy`: copies backups and WAL from one configured repository into another.

use super::{Context, repo, targets, time};
use crate::args::CopyArgs;
use crate::config::repository::Repository as Configured;
use crate::exit_code::ExitCode;
use crate::failure::{Explain as _, Failure};
use crate::output::progress::Progress;
use crate::output::table::{Align, Table};
use holdfast_contract::amount::{duration, size};
use holdfast_contract::report::copy::{CopiedBackup, CopyOutcome, CopyPlace, CopyReport};
use holdfast_engine::copy::{Copied, CopyChoice, CopyOptions, copy};
use holdfast_engine::repository::Repository;
use std::fmt::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;

pub(super) async fn run(context: &Context, args: &CopyArgs) -> Result<ExitCode, Failure> {
    let (from, to) = (configured(context, args.from)?, configured(context, args.to)?);
    if args.from == args.to {
        return Err(Failure::new(ExitCode::Usage, "a repository cannot be copied onto itself")
            .hint("--from and --to count the repositories of the configuration from 1: give two of them"));
    }
    let options = options(context, args, to)?;
    let from = Repository::open(&targets::one(from, targets::Directory::MustExist, None).await?).await?;
    let to = Repository::open_to_write(&targets::one(to, targets::Directory::MustExist, None).await?).await?;
    let show = Arc::new(Progress::new(context.show));
    let progress: Arc<dyn holdfast_engine::progress::Progress> = Arc::clone(&show) as _;
    let copied = copy(&from, &to, &options, &progress, &context.cancellation).await;
    show.finish();
    let copied = copied?;
    let failure = failure(&from, &options, &copied);
    let report = report(&from, &to, args, &options, &copied);
    context.print(|| text(&report, &copied), &report)?;
    failure.map_or(Ok(ExitCode::Ok), Err)
}

fn configured(context: &Context, number: NonZeroUsize) -> Result<&Configured, Failure> {
    let all = &context.config.repositories;
    all.get(number.get() - 1).ok_or_else(|| {
        Failure::new(ExitCode::Usage, format!("there is no repository {number}"))
            .hint(format!("--from and --to count from 1, and the configuration has {}", all.len()))
    })
}

fn options(context: &Context, args: &CopyArgs, to: &Configured) -> Result<CopyOptions, Failure> {
    let config = &context.config;
    let which = match args.backup.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["all"] => CopyChoice::All,
        ["latest"] => CopyChoice::Latest,
        ids => {
            let ids = ids.iter().map(|id| {
                id.parse().map_err(|_| {
                    Failure::new(ExitCode::Usage, format!("{id:?} is not the id of a backup")).hint(
                        "an id looks like 20260822T101500Z; `holdfast list` shows them; `all` and `latest` may be given \
                         alone",
                    )
                })
            });
            CopyChoice::These(ids.collect::<Result<_, _>>()?)
        }
    };
    Ok(CopyOptions {
        cluster: config.cluster.name.clone(),
        which,
        all_wal: args.all_wal,
        wal_codec: config.wal.compression.codec(),
        jobs: config.restore.jobs.get(),
        memory_bytes: config.backup.memory_bytes,
        part_size_bytes: usize::try_from(to.part_size_bytes()).unwrap_or(usize::MAX),
        host: time::host(),
        now: time::now(),
    })
}

/// The failure of the command, if a backup or a WAL file of the first repository could not be copied.
fn failure(from: &Repository, options: &CopyOptions, copied: &Copied) -> Option<Failure> {
    let failed: Vec<_> = copied.backups.iter().filter_map(|backup| backup.error.as_ref()).collect();
    let wal: u64 = copied.wal.iter().map(|wal| wal.failed_count).sum();
    let first = failed.first().copied().or(copied.wal_error.as_ref())?.explain();
    let mut parts = Vec::new();
    if !failed.is_empty() {
        parts.push(format!("{} of {} backups were not copied", failed.len(), copied.backups.len()));
    }
    if wal > 0 {
        parts.push(format!("{wal} WAL files were not copied"));
    }
    let message = format!("{}: {}", parts.join(", "), first.message);
    let doing = format!("copying {} from {}", options.cluster, from.describe());
    let hint = "everything else was copied; `holdfast verify --deep` says what is wrong in the first repository, and the same \
                command continues once that is repaired";
    Some(Failure::new(first.code, message).doing(doing).hint(hint))
}

fn report(from: &Repository, to: &Repository, args: &CopyArgs, options: &CopyOptions, copied: &Copied) -> CopyReport {
    let place = |repository: &Repository, number: NonZeroUsize| CopyPlace {
        description: repo::description(repository),
        number: number.get(),
    };
    let backups = copied.backups.iter().map(|backup| CopiedBackup {
        backup_id: backup.backup_id,
        outcome: backup.outcome,
        pack_count: backup.packs.0,
        pack_bytes: backup.packs.1,
        new_pack_count: backup.new_packs.0,
        new_pack_bytes: backup.new_packs.1,
        error: backup.error.as_ref().map(|error| error.explain().brief()),
    });
    let backups: Vec<CopiedBackup> = backups.collect();
    let wal_bytes: u64 = copied.wal.iter().map(|wal| wal.stored_bytes).sum();
    CopyReport {
        cluster: options.cluster.clone(),
        from: place(from, args.from),
        to: place(to, args.to),
        pack_count: backups.iter().map(|backup| backup.new_pack_count).sum(),
        wal_file_count: copied.wal.iter().map(|wal| wal.stored_count).sum(),
        size_bytes: wal_bytes + backups.iter().map(|backup| backup.new_pack_bytes).sum::<u64>(),
        backups,
        wal: copied.wal.clone(),
        snapshots: copied.snapshots.clone(),
        notes: copied.notes.clone(),
        duration_milliseconds: u64::try_from(copied.duration.as_millis()).unwrap_or(u64::MAX),
    }
}

fn text(report: &CopyReport, copied: &Copied) -> String {
    let (from, to) = (&report.from.description.repository, &report.to.description.repository);
    let mut text = format!("{} from {from} to {to}\n", report.cluster);
    let mut table = Table::new([
        ("BACKUP", Align::Left),
        ("RESULT", Align::Left),
        ("PACKS", Align::Right),
        ("SIZE", Align::Right),
        ("STORED NOW", Align::Right),
    ]);
    for backup in &report.backups {
        let is_new = backup.outcome == CopyOutcome::Copied;
        let shown = |text: String| if is_new { text } else { String::new() };
        table.row([
            backup.backup_id.to_string(),
            backup.outcome.as_str().to_owned(),
            shown(backup.pack_count.to_string()),
            shown(size(backup.pack_bytes)),
            shown(size(backup.new_pack_bytes)),
        ]);
    }
    if !table.is_empty() {
        text.push_str(&table.render());
    }
    for backup in &report.backups {
        if let Some(error) = &backup.error {
            let _ = writeln!(text, "  FAILED {}: {}", backup.backup_id, error.message);
        }
    }
    for wal in &report.wal {
        let failed = if wal.failed_count == 0 { String::new() } else { format!(", {} FAILED", wal.failed_count) };
        let _ = writeln!(
            text,
            "  WAL of claim {}: {} files copied into claim {}, {}{failed}",
            wal.claim,
            wal.stored_count,
            wal.to_claim,
            size(wal.stored_bytes)
        );
    }
    for snapshot in &report.snapshots {
        let _ = writeln!(text, "  the record of the volume snapshots {snapshot} was copied; their data is not here");
    }
    for note in &report.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    let _ = writeln!(text, "  {} stored in {}", size(report.size_bytes), duration(copied.duration));
    text
}
