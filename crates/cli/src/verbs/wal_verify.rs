//! `wal verify`: the engine's findings about the archived WAL, for people and programs.

use super::answers::unreadable;
use super::verify::{sample, worse};
use super::{Context, repo, targets, time};
use crate::args::{WalVerifyArgs, WhichRepository};
use crate::exit_code::ExitCode;
use crate::failure::{Explain as _, Failure};
use crate::output::progress::Progress;
use crate::output::table::{Align, Table};
use holdfast_contract::amount::{duration, size};
use holdfast_contract::report::PerRepository;
use holdfast_contract::report::wal_verify::{
    WalFinding, WalFindingKind, WalFindingWeight, WalHealing, WalVerified, WalVerifyReport,
};
use holdfast_engine::continuity::{WalVerification, WalVerifyOptions, wal_verify};
use holdfast_engine::repository::Repository;
use holdfast_engine::verify::{Level, Sample};
use std::fmt::Write;
use std::sync::Arc;

pub(super) async fn run(context: &Context, args: &WalVerifyArgs) -> Result<ExitCode, Failure> {
    let options = options(context, args)?;
    if let WhichRepository::Number(number) = args.repo {
        targets::by_number(&context.config, number)?;
    }
    let (mut text, mut described, mut worst) = (String::new(), Vec::new(), None);
    for (index, one) in context.config.repositories.iter().enumerate() {
        if args.repo != WhichRepository::All && args.repo != WhichRepository::Number(index + 1) {
            continue;
        }
        let url = one.location().to_string();
        let verified = Box::pin(async {
            let target = targets::one(one, targets::Directory::MustExist, None).await?;
            let repository = if args.heal.is_empty() {
                Repository::open(&target).await?
            } else {
                Repository::open_to_write(&target).await?
            };
            one_repository(context, &repository, index + 1, &options).await
        });
        let failure = match verified.await {
            Ok((lines, report, failure)) => {
                text.push_str(&lines);
                described.push(PerRepository::Read(report));
                failure
            }
            // A user who cancels wants no report.
            Err(failure) if failure.code == ExitCode::Cancelled => return Err(failure),
            Err(failure) => {
                let _ = writeln!(text, "{} in {url}: cannot be verified: {failure}", options.cluster);
                described.push(unreadable(url, &failure));
                Some(failure)
            }
        };
        worst = worse(worst, failure);
    }
    let (cluster, level, sample, timeline) = (options.cluster, options.level, options.sample, options.timeline);
    context.print(|| text, &WalVerifyReport { cluster, level, sample, timeline, repositories: described })?;
    worst.map_or(Ok(ExitCode::Ok), Err)
}

fn options(context: &Context, args: &WalVerifyArgs) -> Result<WalVerifyOptions, Failure> {
    let config = &context.config;
    let sample = sample(args.sample, args.seed)?;
    Ok(WalVerifyOptions {
        cluster: config.cluster.name.clone(),
        timeline: args.timeline,
        level: if args.deep || sample.is_some() { Level::Deep } else { Level::Shallow },
        sample,
        heal_from: args.heal.clone(),
        compression: config.wal.compression,
        remember: !args.no_record,
        jobs: config.restore.jobs.get(),
        memory_bytes: config.backup.memory_bytes,
        host: time::host(),
        now: time::now(),
    })
}

async fn one_repository(
    context: &Context,
    repository: &Repository,
    number: usize,
    options: &WalVerifyOptions,
) -> Result<(String, WalVerified, Option<Failure>), Failure> {
    let show = Arc::new(Progress::new(context.show));
    let progress: Arc<dyn holdfast_engine::progress::Progress> = Arc::clone(&show) as _;
    let found = wal_verify(repository, options, &progress, &context.cancellation).await;
    show.finish();
    let mut found = found?;
    let interrupted = found.interrupted.take().map(|error| {
        let mut failure = error.explain();
        failure.message = format!("the verification is not complete: {}", failure.message);
        failure
    });
    let text = text(repository, options, &found, interrupted.as_ref());
    let failure = failure(repository, options, &found, interrupted.as_ref());
    let WalVerification {
        claims,
        findings,
        healing,
        notes,
        segment_count,
        compared_count,
        read_bytes,
        duration,
        interrupted: _,
    } = found;
    let report = WalVerified {
        description: repo::description(repository),
        number,
        interrupted: interrupted.as_ref().map(Failure::brief),
        claims,
        findings,
        healing,
        notes,
        segment_count,
        compared_count,
        read_bytes,
        duration_milliseconds: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    };
    Ok((text, report, failure))
}

fn losses(found: &WalVerification) -> impl Iterator<Item = &WalFinding> {
    found.findings.iter().filter(|finding| finding.weight == WalFindingWeight::Loss)
}

/// The failure of the command, if any: what is lost first, then an interruption.
fn failure(
    repository: &Repository,
    options: &WalVerifyOptions,
    found: &WalVerification,
    interrupted: Option<&Failure>,
) -> Option<Failure> {
    let files: u64 = losses(found).map(|finding| finding.count).sum();
    if files == 0 {
        return interrupted.cloned();
    }
    let files = if files == 1 { "1 WAL file is".to_owned() } else { format!("{files} WAL files are") };
    let is_open = losses(found).any(|finding| finding.lost.iter().any(|lost| lost.until.is_none()));
    let means = if is_open { "nothing after that can be restored" } else { "some moments cannot be restored" };
    let rest = interrupted.map(|failure| format!("; {failure}")).unwrap_or_default();
    let failure =
        Failure::new(ExitCode::DamageFound, format!("{files} missing, damaged or of another history: {means}{rest}"));
    let heal = "the LOSS lines say which files and moments, and what to do; `holdfast wal verify --heal DIR` brings back what a \
                server, a standby or an old archive still has";
    let backup = if is_open { "take a backup now: until then, nothing that happens can be restored; " } else { "" };
    let doing = format!("verifying the WAL of {} in {}", options.cluster, repository.describe());
    Some(failure.doing(doing).hint(format!("{backup}{heal}")))
}

fn text(
    repository: &Repository,
    options: &WalVerifyOptions,
    found: &WalVerification,
    interrupted: Option<&Failure>,
) -> String {
    let mut text = format!("{} in {}\n", options.cluster, repository.describe());
    if let Some(Sample { percent, seed }) = options.sample {
        let _ =
            writeln!(text, "  sample    {percent}% of the segments; the same again: --sample {percent}% --seed {seed}");
    }
    let mut table = Table::new([
        ("CLAIM", Align::Right),
        ("TIMELINE", Align::Right),
        ("SEGMENTS", Align::Right),
        ("CAN BE RESTORED", Align::Left),
    ]);
    for claim in &found.claims {
        for timeline in &claim.timelines {
            let (mut number, mut of, mut count) =
                (claim.claim.to_string(), timeline.timeline.to_string(), timeline.segment_count.to_string());
            for window in &timeline.windows {
                let row = [
                    std::mem::take(&mut number),
                    std::mem::take(&mut of),
                    std::mem::take(&mut count),
                    window.to_string(),
                ];
                table.row(row);
            }
            if timeline.windows.is_empty() {
                table.row([number, of, count, "nothing".to_owned()]);
            }
        }
    }
    if !table.is_empty() {
        text.push_str(&table.render());
    }
    if let Some(healing) = &found.healing {
        healing_text(&mut text, healing);
    }
    for finding in &found.findings {
        finding_text(&mut text, finding);
    }
    for note in &found.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    if let Some(failure) = interrupted {
        let _ = writeln!(text, "  NOT COMPLETE: {failure}");
    }
    let lost: u64 = losses(found).map(|finding| finding.count).sum();
    let read = if found.read_bytes > 0 { format!(", {} read", size(found.read_bytes)) } else { String::new() };
    let result = if lost == 0 { "no gap".to_owned() } else { format!("{lost} files are missing or cannot be used") };
    let _ = writeln!(
        text,
        "  {result}; {} segments looked at, {} compared with the one before them{read}, in {}",
        found.segment_count,
        found.compared_count,
        duration(found.duration)
    );
    text
}

fn finding_text(text: &mut String, finding: &WalFinding) {
    let weight = match finding.weight {
        WalFindingWeight::Loss => "LOSS",
        WalFindingWeight::Remark => "remark",
    };
    let mut files = finding.file.to_string();
    if let Some(last) = finding.last {
        let _ = write!(files, " to {last} ({})", finding.count);
    }
    let missing = match (finding.kind, finding.count) {
        (WalFindingKind::Gap, 1) => " is missing",
        (WalFindingKind::Gap, _) => " are missing",
        _ => "",
    };
    let _ = writeln!(
        text,
        "  {weight} {}: {files} of claim {}{missing}: {}",
        finding.kind.words(),
        finding.claim,
        finding.problem
    );
    if let Some(since) = finding.recorded {
        let _ = writeln!(text, "    recorded: {}", time::shown(since));
    }
    for (what, ids) in [("backup", &finding.backups), ("snapshot", &finding.snapshots)] {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        if !ids.is_empty() {
            let _ = writeln!(text, "    cannot be restored: {what} {}", ids.join(", "));
        }
    }
    for lost in &finding.lost {
        let _ = writeln!(text, "    cannot be restored: {lost}");
    }
    if finding.weight == WalFindingWeight::Loss {
        let _ = writeln!(text, "    to do: {}", finding.advice);
    }
}

fn healing_text(text: &mut String, healing: &WalHealing) {
    for healed in &healing.healed {
        let _ = writeln!(text, "  HEALED {} of claim {}, from {}", healed.file, healed.claim, healed.from);
    }
    for left in &healing.left {
        let more = if left.count > 1 { format!(" and the {} after it", left.count - 1) } else { String::new() };
        let _ = writeln!(text, "  NOT HEALED {}{more} of claim {}: {}", left.file, left.claim, left.reason);
    }
}
