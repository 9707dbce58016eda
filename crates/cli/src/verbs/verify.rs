//! `verify`: the engine's findings, for people and programs, and the one exit code for monitoring.

use super::{Context, answers, repo, requested, targets, time};
use crate::args::{VerifyArgs, WhichRepository};
use crate::config::repository::Repository as Configured;
use crate::exit_code::ExitCode;
use crate::failure::{Explain as _, Failure};
use crate::output::progress::Progress;
use crate::output::table::{Align, Table};
use holdfast_contract::amount::{duration, rate, size};
use holdfast_contract::report::PerRepository;
use holdfast_contract::report::verify::{BackupResult, Compared, Repair, RepositoryVerified, VerifyReport};
use holdfast_engine::repository::Repository;
use holdfast_engine::verify::{
    BackupChoice, Level, REMEMBER_EVERY, RepairOptions, Sample, Verification, VerifyOptions, random_sample, verify,
    verify_and_repair,
};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn run(context: &Context, args: &VerifyArgs) -> Result<ExitCode, Failure> {
    let options = options(context, args)?;
    if let WhichRepository::Number(number) = args.repo {
        targets::by_number(&context.config, number)?;
    }
    check_helpers(context, args)?;
    let (mut text, mut described, mut worst) = (String::new(), Vec::new(), None);
    for (index, one) in context.config.repositories.iter().enumerate() {
        if args.repo != WhichRepository::All && args.repo != WhichRepository::Number(index + 1) {
            continue;
        }
        let url = one.location().to_string();
        let opened = async {
            let target = targets::one(one, targets::Directory::MustExist, None).await?;
            if !args.repair {
                return Ok::<_, Failure>(Repository::open(&target).await?);
            }
            Ok(Repository::open_to_write(&target).await?)
        };
        let verified = Box::pin(async {
            let repository = opened.await?;
            let helpers = Helpers::open(context, args, index, one).await?;
            one_repository(context, &repository, index + 1, &options, &helpers).await
        });
        let verified = verified.await;
        let failure = match verified {
            Ok((lines, report, failure)) => {
                text.push_str(&lines);
                described.push(PerRepository::Read(report));
                failure
            }
            // A user who cancels wants no report.
            Err(failure) if failure.code == ExitCode::Cancelled => return Err(failure),
            Err(failure) => {
                let _ = writeln!(text, "{} in {url}: cannot be verified: {failure}", options.cluster);
                described.push(answers::unreadable(url, &failure));
                Some(failure)
            }
        };
        worst = worse(worst, failure);
    }
    let (cluster, level, sample) = (options.cluster.clone(), options.level, options.sample);
    context.print(|| text, &VerifyReport { cluster, level, sample, repositories: described })?;
    worst.map_or(Ok(ExitCode::Ok), Err)
}

/// The other repositories, from which lost objects are brought back.
struct Helpers {
    /// `None` if nothing is repaired.
    others: Option<Vec<Repository>>,
    repair: RepairOptions,
    notes: Vec<String>,
}

impl Helpers {
    /// Opens the repositories that can help the one with this index. If one of them cannot be opened, a note names it,
    /// and the others still help.
    async fn open(context: &Context, args: &VerifyArgs, index: usize, one: &Configured) -> Result<Self, Failure> {
        let part_size_bytes = usize::try_from(one.part_size_bytes()).unwrap_or(usize::MAX);
        let mut helpers = Self { others: None, repair: RepairOptions { part_size_bytes }, notes: Vec::new() };
        // With `--from` and all repositories, the helping one is only verified: nothing is repaired in it.
        let is_helper = args.from.is_some_and(|from| from.get() == index + 1);
        if !args.repair || (is_helper && args.repo == WhichRepository::All) {
            return Ok(helpers);
        }
        let configured = context.config.repositories.iter().enumerate();
        let helps = |number: usize| number != index && args.from.is_none_or(|from| from.get() == number + 1);
        let (mut others, mut failed) = (Vec::new(), None);
        for (_, other) in configured.filter(|(number, _)| helps(*number)) {
            let opened = async {
                let target = targets::one(other, targets::Directory::MustExist, None).await?;
                Ok::<_, Failure>(Repository::open(&target).await?)
            };
            match opened.await {
                Ok(repository) => others.push(repository),
                Err(failure) => {
                    helpers.notes.push(format!("{} cannot be used as a source: {failure}", other.location()));
                    failed.get_or_insert(failure);
                }
            }
        }
        match failed {
            Some(failure) if others.is_empty() => Err(failure),
            _ => Ok(Self { others: Some(others), ..helpers }),
        }
    }
}

/// Refuses what cannot work before anything is read.
fn check_helpers(context: &Context, args: &VerifyArgs) -> Result<(), Failure> {
    let count = context.config.repositories.len();
    if !args.repair {
        return Ok(());
    }
    if count < 2 {
        return Err(Failure::new(ExitCode::Usage, "there is no other repository to repair from").hint(
            "configure a second repository that has the same backups: `holdfast backup` fills all of them, and `holdfast repo \
             copy` brings them there",
        ));
    }
    match args.from.map(std::num::NonZeroUsize::get) {
        Some(from) if from > count => Err(Failure::new(ExitCode::Usage, format!("there is no repository {from}"))
            .hint(format!("--from counts from 1, and the configuration has {count}"))),
        Some(from) if args.repo == WhichRepository::Number(from) => {
            Err(Failure::new(ExitCode::Usage, "a repository cannot be repaired from itself")
                .hint("give another one with --from, or leave it out to ask all others"))
        }
        _ => Ok(()),
    }
}

/// The failure to report: what is damaged or lost first, otherwise the first failure.
pub(super) fn worse(first: Option<Failure>, second: Option<Failure>) -> Option<Failure> {
    match (first, second) {
        (Some(first), Some(second)) if first.code != ExitCode::DamageFound && second.code == ExitCode::DamageFound => {
            Some(second)
        }
        (first, second) => first.or(second),
    }
}

/// The sample that `--sample` and `--seed` ask for; a random one without a seed.
pub(super) fn sample(percent: Option<u8>, seed: Option<u64>) -> Result<Option<Sample>, Failure> {
    Ok(match (percent, seed) {
        (None, _) => None,
        (Some(percent), Some(seed)) => Some(Sample { percent, seed }),
        (Some(percent), None) => Some(random_sample(percent)?),
    })
}

fn options(context: &Context, args: &VerifyArgs) -> Result<VerifyOptions, Failure> {
    let config = &context.config;
    let which = match args.backup.as_str() {
        "all" => BackupChoice::All,
        "latest" => BackupChoice::Latest,
        id => BackupChoice::One(requested::backup(id).map_err(|mut failure| {
            failure.hint = failure.hint.map(|hint| format!("{hint}; `all` and `latest` are possible too"));
            failure
        })?),
    };
    let sample = sample(args.sample, args.seed)?;
    Ok(VerifyOptions {
        cluster: config.cluster.name.clone(),
        which,
        level: if args.deep || sample.is_some() { Level::Deep } else { Level::Shallow },
        sample,
        max_age: args.max_age,
        remember_every: REMEMBER_EVERY,
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
    options: &VerifyOptions,
    helpers: &Helpers,
) -> Result<(String, RepositoryVerified, Option<Failure>), Failure> {
    let show = Arc::new(Progress::new(context.show));
    let progress: Arc<dyn holdfast_engine::progress::Progress> = Arc::clone(&show) as _;
    let cancel = &context.cancellation;
    let found = match &helpers.others {
        None => verify(repository, options, &progress, cancel).await,
        Some(others) => verify_and_repair(repository, others, options, helpers.repair, &progress, cancel).await,
    };
    show.finish();
    let mut found = found?;
    found.notes.extend(helpers.notes.iter().cloned());
    let interrupted = found.interrupted.take().map(|error| {
        let mut failure = error.explain();
        failure.message = format!("the verification is not complete: {}", failure.message);
        failure
    });
    let text = text(repository, options, &found, interrupted.as_ref());
    let failure = failure(repository, options, &found, interrupted.as_ref());
    let Verification {
        backups,
        claims,
        damage,
        newer,
        repair,
        notes,
        object_count,
        read_bytes,
        duration,
        interrupted: _,
    } = found;
    let report = RepositoryVerified {
        description: repo::description(repository),
        number,
        interrupted: interrupted.as_ref().map(Failure::brief),
        backups,
        claims,
        damage,
        newer,
        repair,
        notes,
        object_count,
        read_bytes,
        duration_milliseconds: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    };
    Ok((text, report, failure))
}

/// The failure of the command, if any: damage first, then an interruption, then objects of a newer release.
fn failure(
    repository: &Repository,
    options: &VerifyOptions,
    found: &Verification,
    interrupted: Option<&Failure>,
) -> Option<Failure> {
    let doing = || format!("verifying {} in {}", options.cluster, repository.describe());
    let with = |result| found.backups.iter().filter(|backup| backup.result == result).count();
    if !found.damage.is_empty() {
        let objects: u64 = found.damage.iter().map(|damage| damage.count).sum();
        let objects = if objects == 1 { "1 object is".to_owned() } else { format!("{objects} objects are") };
        let backups = match with(BackupResult::Damaged) {
            0 => "no checked backup is affected".to_owned(),
            harmed => format!("{harmed} of {} backups cannot be restored", found.backups.len()),
        };
        let rest = interrupted.map(|failure| format!("; {failure}")).unwrap_or_default();
        let failure = Failure::new(ExitCode::DamageFound, format!("{objects} missing or damaged: {backups}{rest}"));
        return Some(failure.doing(doing()).hint(
            "see the DAMAGE lines for the objects and the backups affected: bring the objects back from a second repository (`holdfast verify \
             --repair`) or from a version in the bucket, or take a new backup now",
        ));
    }
    if let Some(failure) = interrupted {
        return Some(failure.clone());
    }
    if !found.newer.is_empty() {
        let count = found.newer.len();
        let objects = if count == 1 { "1 object was".to_owned() } else { format!("{count} objects were") };
        let failure = Failure::new(
            ExitCode::UnsupportedFormat,
            format!("{objects} written by a newer holdfast, and could not be verified"),
        );
        return Some(failure.doing(doing()).hint("verify with the release that wrote them, or a newer one"));
    }
    if options.which == BackupChoice::All && found.backups.is_empty() {
        let failure = Failure::new(ExitCode::NoBackup, "there is no complete backup: nothing can be restored");
        return Some(failure.doing(doing()).hint(
            "take a backup now with `holdfast backup`; if there were backups before, look in the bucket for deleted versions \
             of the objects `backup.json`",
        ));
    }
    None
}

fn text(
    repository: &Repository,
    options: &VerifyOptions,
    found: &Verification,
    interrupted: Option<&Failure>,
) -> String {
    let mut text = format!("{} in {}\n", options.cluster, repository.describe());
    if let Some(Sample { percent, seed }) = options.sample {
        let _ = writeln!(
            text,
            "  sample    {percent}% of packs and WAL; the same again: --sample {percent}% --seed {seed}"
        );
    }
    let mut table = Table::new([
        ("BACKUP", Align::Left),
        ("RESULT", Align::Left),
        ("LEVEL", Align::Left),
        ("PACKS", Align::Right),
        ("SIZE", Align::Right),
        ("COMPARED", Align::Left),
    ]);
    for backup in &found.backups {
        table.row([
            backup.backup_id.to_string(),
            backup.result.as_str().to_owned(),
            backup.level.to_string(),
            backup.pack_count.to_string(),
            size(backup.pack_bytes),
            match (backup.level, backup.compared) {
                (Level::Deep, _) => "every byte".to_owned(),
                (_, Compared::Checksum) => "size and checksum".to_owned(),
                (_, Compared::Size) => "size only".to_owned(),
                (_, Compared::Nothing) => String::new(),
            },
        ]);
    }
    if !table.is_empty() {
        text.push_str(&table.render());
    }
    for claim in &found.claims {
        let read = match claim.segments_read {
            0 => String::new(),
            read => format!(", {read} of them read"),
        };
        let _ = writeln!(text, "  WAL of claim {}: {} segments{read}", claim.claim, claim.segment_count);
        for window in &claim.sound_windows {
            let _ = writeln!(text, "    can be restored: {window}");
        }
        for window in claim.windows.iter().filter(|window| !claim.sound_windows.contains(window)) {
            let _ = writeln!(text, "    without damage it would be: {window}");
        }
    }
    for damage in &found.damage {
        let _ = writeln!(text, "  DAMAGE {damage}");
        let backups: Vec<String> = damage.backups.iter().map(ToString::to_string).collect();
        if !backups.is_empty() {
            let _ = writeln!(text, "    cannot be restored: {}", backups.join(", "));
        }
        for window in &damage.windows {
            let _ = writeln!(text, "    cuts the window {}", window.window);
        }
        if backups.is_empty() && damage.windows.is_empty() {
            text.push_str("    no backup and no window needs it\n");
        }
    }
    for newer in &found.newer {
        let _ = writeln!(text, "  NEWER {}: {}", newer.object, newer.reason);
    }
    if let Some(repair) = &found.repair {
        repair_text(&mut text, repair);
    }
    for note in &found.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    if let Some(failure) = interrupted {
        let _ = writeln!(text, "  NOT COMPLETE: {failure}");
    }
    let sound = [BackupResult::Sound, BackupResult::PassedOver];
    let sound = found.backups.iter().filter(|backup| sound.contains(&backup.result)).count();
    let _ = writeln!(
        text,
        "  {sound} of {} backups are sound; {} objects looked at, {} read in {}{}",
        found.backups.len(),
        found.object_count,
        size(found.read_bytes),
        duration(found.duration),
        rate(found.read_bytes, found.duration.max(Duration::from_millis(1)))
            .filter(|_| found.read_bytes > 0)
            .map(|rate| format!(", {rate}"))
            .unwrap_or_default()
    );
    text
}

/// Prints which objects were brought back, and which could not be.
fn repair_text(text: &mut String, repair: &Repair) {
    for repaired in &repair.repaired {
        let _ = writeln!(text, "  REPAIRED {} from {}: {}", repaired.object, repaired.from, repaired.how.words());
    }
    for left in &repair.left {
        let _ = writeln!(text, "  NOT REPAIRED {}: {}", left.object, left.reason);
    }
    let backups: Vec<String> = repair.backups.iter().map(ToString::to_string).collect();
    if !backups.is_empty() {
        let _ = writeln!(text, "    can be restored again: {}", backups.join(", "));
    }
    for window in &repair.windows {
        let _ = writeln!(text, "    can be restored again: {}", window.window);
    }
}
