//! `expire`: the configured retention as a policy, and the verdicts as text.

use super::{Context, answers, targets, time};
use crate::args::ExpireArgs;
use crate::config::repository::Repository as Configured;
use crate::config::validated::Retention;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::table::{Align, Table};
use chrono::TimeDelta;
use holdfast_contract::amount::size;
use holdfast_contract::report::PerRepository;
use holdfast_contract::report::expire::{Amount, ExpireReport, LockFate, RepositoryExpire, RestorableWindow};
use holdfast_engine::expire::{ExpireOptions, Keep, Policy, expire, plan};
use holdfast_engine::repository::Repository;
use std::fmt::Write;

/// The maximum number of WAL ranges that are shown; the JSON has all of them.
const RANGES_SHOWN: usize = 50;

pub(super) async fn run(context: &Context, args: &ExpireArgs) -> Result<ExitCode, Failure> {
    if let Some(number) = args.repo {
        targets::by_number(&context.config, number)?;
    }
    let asked = |index: usize| args.repo.is_none_or(|number| number == index + 1);
    let retentions: Vec<&Retention> = context.config.repositories.iter().map(|one| retention(context, one)).collect();
    let is_empty = |retention: &Retention| policy(retention).is_empty();
    // Without a retention it still extends the locks of everything.
    let locks = |index: usize| context.config.repositories.get(index).is_some_and(|one| one.lock().is_some());
    let has_work = |(index, one): (usize, &&Retention)| asked(index) && (!is_empty(one) || locks(index));
    if !args.plan && !retentions.iter().enumerate().any(has_work) {
        return Err(Failure::new(
            ExitCode::Configuration,
            "no retention is configured, so nothing is removed".to_owned(),
        )
        .hint(
            "say what to keep under [retention]: window = \"30d\", or keep = { last = 3, monthly = 12 }; `holdfast \
                 expire --plan` shows what would go",
        ));
    }
    let cluster = context.config.cluster.name.clone();
    let (mut text, mut repositories, mut failed) = (String::new(), Vec::new(), None);
    for (index, (url, opened)) in targets::opened(context).await.into_iter().enumerate() {
        let Some(retention) = retentions.get(index).filter(|_| asked(index)) else { continue };
        let options = ExpireOptions {
            cluster: cluster.clone(),
            policy: policy(retention),
            grace: retention.grace,
            host: time::host(),
            now: time::now(),
        };
        let outcome = match opened {
            Ok(repository) => one(context, &repository, &options, args.plan).await,
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(report) => {
                text.push_str(&shown(&report, args.plan));
                repositories.push(PerRepository::Read(report));
            }
            Err(failure) => {
                let _ = writeln!(text, "{url}: {failure}");
                repositories.push(answers::unreadable(url, &failure));
                failed.get_or_insert(failure);
            }
        }
    }
    // With one repository, its failure is reported only once.
    if repositories.len() == 1
        && let Some(failure) = failed
    {
        return Err(failure);
    }
    let report = ExpireReport { cluster, plan: args.plan, repositories };
    context.print(|| text, &report)?;
    failed.map_or(Ok(ExitCode::Ok), Err)
}

async fn one(
    context: &Context,
    repository: &Repository,
    options: &ExpireOptions,
    only_plan: bool,
) -> Result<RepositoryExpire, Failure> {
    let progress = Progress::new(context.show);
    let report = if only_plan {
        plan(repository, options, &progress).await?
    } else {
        expire(repository, options, &progress, &context.cancellation).await?
    };
    progress.finish();
    Ok(report)
}

/// The retention of a repository: its own, otherwise `[retention]`.
fn retention<'a>(context: &'a Context, repository: &'a Configured) -> &'a Retention {
    repository.retention.as_ref().unwrap_or(&context.config.retention)
}

/// What the repository with this index keeps. A repository that is not configured removes nothing.
pub(super) fn policy_of(context: &Context, index: usize) -> Policy {
    context.config.repositories.get(index).map_or_else(Policy::default, |one| policy(retention(context, one)))
}

fn policy(retention: &Retention) -> Policy {
    let Retention { window, keep, grace: _ } = retention;
    Policy {
        // A window that is longer than the range of times never begins.
        window: window.map(|window| TimeDelta::from_std(window).unwrap_or(TimeDelta::MAX)),
        keep: Keep {
            last: keep.last,
            hourly: keep.hourly,
            daily: keep.daily,
            weekly: keep.weekly,
            monthly: keep.monthly,
            yearly: keep.yearly,
            verified: keep.verified,
        },
        ..Policy::default()
    }
}

fn shown(report: &RepositoryExpire, only_plan: bool) -> String {
    let mut text = format!("{}\n", report.repository);
    if let Some(start) = report.window_start {
        let _ = writeln!(text, "window: {}, any moment since {}", length(report.now - start), time::shown(start));
    }
    let mut backups = Table::new([("BACKUP", Align::Left), ("", Align::Left), ("WHY", Align::Left)]);
    for backup in &report.backups {
        let mut why = backup.why.join(", ");
        if let Some(not_before) = backup.not_before {
            let _ = write!(why, "; decided, not before {}", time::shown(not_before));
        }
        if let Some(locked_until) = backup.locked_until {
            let _ = write!(why, "; locked until {}", time::shown(locked_until));
        }
        backups.row([backup.backup_id.to_string(), fate(backup.kept), why]);
    }
    text.push_str(&if backups.is_empty() { "no backup\n".to_owned() } else { backups.render() });
    let mut wal = Table::new([
        ("WAL", Align::Left),
        ("TO", Align::Left),
        ("SEGMENTS", Align::Right),
        ("", Align::Left),
        ("WHY", Align::Left),
    ]);
    for range in report.wal.iter().take(RANGES_SHOWN) {
        wal.row([
            range.first.to_string(),
            range.last.to_string(),
            range.segments.to_string(),
            fate(range.kept),
            range.why.clone(),
        ]);
    }
    if !wal.is_empty() {
        text.push_str(&wal.render());
    }
    if let Some(more) = report.wal.len().checked_sub(RANGES_SHOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "and {more} further ranges of WAL, see --output json");
    }
    let packs = &report.packs;
    let _ = writeln!(
        text,
        "packs: {} stay ({}), {} go ({})",
        packs.kept,
        size(packs.kept_bytes),
        packs.going,
        size(packs.going_bytes)
    );
    for why in &packs.why {
        let _ = writeln!(text, "packs stay: {why}");
    }
    if report.uploads_going > 0 {
        let count = report.uploads_going;
        let _ = writeln!(text, "unfinished uploads: {count} will be aborted, because no run will finish them");
    }
    if let Some(fate) = &report.locks {
        locks(&mut text, fate, only_plan);
    }
    windows(&mut text, "can be restored now", &report.before);
    windows(&mut text, "can be restored after the removal", &report.after);
    for warning in &report.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    if only_plan {
        text.push_str("nothing was decided or removed\n");
        return text;
    }
    let _ = writeln!(text, "decided: {}", amount(&report.decided, "segments of WAL"));
    let _ = writeln!(text, "removed: {}", amount(&report.removed, "WAL files"));
    if report.removed.uploads > 0 {
        let _ = writeln!(text, "aborted: {} unfinished uploads", report.removed.uploads);
    }
    if let Some(next) = report.next_removal {
        let _ = writeln!(text, "the first `holdfast expire` after {} removes what was decided", time::shown(next));
    }
    text
}

/// What the locks of the objects keep.
fn locks(text: &mut String, fate: &LockFate, only_plan: bool) {
    let LockFate { mode, days, waiting, free_from, due, extended } = fate;
    let _ = writeln!(
        text,
        "object lock ({}, {days} days): {} {}",
        mode.as_str(),
        if only_plan { due } else { extended },
        if only_plan { "locks of what stays will be extended" } else { "locks of what stays were extended" }
    );
    if let Some(free_from) = free_from {
        let _ = writeln!(
            text,
            "still locked, and left to a later run: {}; the first lock ends at {}",
            amount(waiting, "WAL files"),
            time::shown(*free_from)
        );
    }
}

/// A length in its two largest units, so that a mistyped one is seen.
fn length(length: TimeDelta) -> String {
    let units = [
        (length.num_days(), "days"),
        (length.num_hours() % 24, "hours"),
        (length.num_minutes() % 60, "minutes"),
        (length.num_seconds() % 60, "seconds"),
    ];
    let said: Vec<String> =
        units.iter().filter(|(count, _)| *count > 0).take(2).map(|(count, unit)| format!("{count} {unit}")).collect();
    if said.is_empty() { "0 seconds".to_owned() } else { said.join(" ") }
}

fn fate(kept: bool) -> String {
    if kept { "stays" } else { "goes" }.to_owned()
}

fn amount(amount: &Amount, wal: &str) -> String {
    if *amount == (Amount { uploads: amount.uploads, ..Amount::default() }) {
        return "nothing".to_owned();
    }
    format!(
        "{} backups, {} packs, {} {wal} ({})",
        amount.backups.len(),
        amount.packs,
        amount.wal_files,
        size(amount.size_bytes)
    )
}

fn windows(text: &mut String, what: &str, windows: &[RestorableWindow]) {
    let _ = writeln!(text, "{what}:{}", if windows.is_empty() { " nothing" } else { "" });
    for window in windows {
        let _ = writeln!(
            text,
            "  timeline {}: from {} (backup {}) to LSN {}",
            window.timeline,
            time::shown(window.from),
            window.backup,
            window.end_lsn
        );
    }
}
