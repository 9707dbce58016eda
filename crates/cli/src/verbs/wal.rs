//! `wal push`, `wal get` and `wal list`.
//!
//! PostgreSQL waits for the first two, so they take the shortest way. A segment that an earlier push stored is answered
//! before a runtime exists ([`already_durable`]), and a segment that was fetched ahead is delivered before that
//! ([`already_fetched`]). The spool only saves time: if it cannot be used, both work without it and warn.
//!
//! Root acting for another user does not use the spool: PostgreSQL's own calls could neither use nor remove root's
//! files there.

use super::{Context, root, targets, time};
use crate::args::Output;
use crate::config::Config;
use crate::exit_code::ExitCode;
use crate::failure::{Explain, Failure};
use crate::output::progress::{Progress, Show};
use crate::output::table::{Align, Table};
use holdfast_contract::amount::size;
use holdfast_contract::report::wal::WalListReport;
use holdfast_engine::archive::{
    self, GetOptions, GetReport, GetSource, PushOptions, PushOutcome, RepositorySetId, Spool, StandbyPushOptions,
    Stored, marked_durable,
};
use holdfast_engine::pipeline::budget::ByteBudget;
use holdfast_engine::pipeline::crew::Crew;
use holdfast_engine::server::read_control_file;
use holdfast_engine::{Cause, Error};
use holdfast_pgtypes::{ControlFile, SegmentName, SystemIdentifier, WalFileName};
use holdfast_repo::recovery::NeededTail;
use holdfast_store::Hurry;
use std::convert::Infallible;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// More threads would only wait for PostgreSQL's disk or for the store, even on the largest machines.
pub(super) const MOST_THREADS: usize = 8;

/// How often `wal push` checks whether the server is stopping: it reads a small file.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Whether an earlier `wal push` stored exactly this file in all repositories. A few system calls, no runtime.
pub(crate) fn already_durable(config: &Config, path: &Path) -> bool {
    existing_spool(config, path).is_some_and(|spool| marked_durable(&spool, &repository_set(config), path))
}

/// The answer of `wal get` if an earlier call fetched this segment ahead; it is then at its destination. No runtime, no
/// client of a store, no threads.
///
/// In doubt it returns `None`: the normal path repeats the check and reports it.
pub(crate) fn already_fetched(config: &Config, name: &str, destination: &Path) -> Option<GetReport> {
    let Ok(WalFileName::Segment(segment)) = name.parse() else { return None };
    let spool = existing_spool(config, destination).filter(|_| config.wal.prefetch > 0)?;
    let Ok(Some(system)) = recovering_system(destination) else { return None };
    let set = repository_set(config);
    let handed_over =
        archive::hand_over_fetched(&spool, &set, system, segment, destination, config.wal.prefetch).ok()?;
    let (file, source) = (WalFileName::Segment(segment), GetSource::Spool);
    handed_over.map(|size_bytes| GetReport { file, source, size_bytes, prefetched: 0 })
}

/// Keeps only one repository in the configuration, by its number.
pub(crate) fn only(config: &mut Config, number: usize) -> Result<(), Failure> {
    config.repositories = vec![targets::by_number(config, number)?.clone()];
    Ok(())
}

/// Whether the segment may be given only up to a switch of the timeline. Then neither the agent nor the spool, which
/// have whole segments, may answer.
pub(crate) fn ends_at_switch(name: &str, tails: &[NeededTail]) -> bool {
    let Ok(WalFileName::Segment(segment)) = name.parse() else { return false };
    tails.iter().any(|tail| tail.switch_lsn.is_some() && tail.timeline == segment.timeline())
}

/// Segments after the last wanted one count as not archived, on every timeline.
pub(crate) fn refuse_after(name: &str, until: SegmentName) -> Result<(), Failure> {
    match name.parse() {
        Ok(WalFileName::Segment(segment)) if segment.on_timeline(until.timeline()) > until => {
            Err(Failure::new(ExitCode::Absent, format!("{name} is after {until}, the last segment that is wanted")))
        }
        _ => Ok(()),
    }
}

pub(super) fn repository_set(config: &Config) -> RepositorySetId {
    let places: Vec<String> = config.repositories.iter().map(crate::config::repository::Repository::place).collect();
    RepositorySetId::new(&config.cluster.name, places.iter().map(String::as_str))
}

pub(super) fn existing_spool(config: &Config, file: &Path) -> Option<Spool> {
    let own = !is_for_another(config, file);
    own.then(|| Spool::existing(&config.wal.spool, &config.cluster.name)).flatten()
}

/// Whether root acts for somebody else: the owner of the data directory, the spool, or the file or its folder.
fn is_for_another(config: &Config, file: &Path) -> bool {
    let places = [config.cluster.pgdata.as_deref(), Some(&*config.wal.spool), Some(file), file.parent()];
    root::acting_for(places.into_iter().flatten()).is_some()
}

/// The spool, if files can be kept in it; warns if not.
fn spool(context: &Context, file: &Path) -> Option<Spool> {
    if is_for_another(&context.config, file) {
        return None;
    }
    let spool = &context.config.wal.spool;
    match Spool::open(spool, &context.config.cluster.name) {
        Ok(spool) => Some(spool),
        Err(reason) => {
            context.warn(&format!(
                "the spool {} cannot be used ({reason}): working without it, one file at a time; set `wal.spool` to a \
                 directory in which the user of PostgreSQL may write",
                spool.display()
            ));
            None
        }
    }
}

pub(super) async fn push(context: &Context, path: &Path) -> Result<ExitCode, Failure> {
    let config = &context.config;
    let hurry = Hurry::default();
    // Opening a directory may hang as well.
    let opening = Box::pin(targets::for_archiver(context, config.wal.timeout, &hurry));
    let targets = hurrying_when_stopping(path, &hurry, opening).await?;
    let spool = spool(context, path);
    let options = PushOptions {
        cluster: config.cluster.name.clone(),
        owner: config.cluster.owner.clone(),
        path: path.to_owned(),
        compression: config.wal.compression,
        // Without marks, the later call for a neighbour would find it stored and warn.
        push_ahead: if spool.is_some() { config.wal.push_ahead.get() - 1 } else { 0 },
        spool,
        repository_set: repository_set(config),
        crew: Crew::new(config.backup.jobs.get().min(MOST_THREADS)),
        budget: ByteBudget::new(config.backup.memory_bytes),
        host: time::host(),
        now: time::now(),
    };
    let progress = Progress::new(Show::Nothing);
    let pushing = archive::push(&targets, &options, &progress, &context.cancellation);
    let pushed = hurrying_when_stopping(path, &hurry, pushing).await;
    let report = pushed.map_err(|error| of_local_file(&error))?;
    for (file, reason) in &report.failed_neighbours {
        tracing::info!(%file, reason, "a further waiting segment could not be archived yet; PostgreSQL will call \
                                       archive_command for it");
    }
    match context.output {
        Output::Json => crate::output::stdout::json(&report)?,
        Output::Text => {
            if let PushOutcome::Archived(archived) = &report.outcome {
                let created = archived.repositories.iter().filter(|found| found.stored == Stored::Created).count();
                tracing::debug!(file = %report.file, created, along = report.neighbours.len(), "archived");
            }
        }
    }
    Ok(ExitCode::Ok)
}

/// The last segment that may be fetched ahead. Once recovery has asked for one after `ahead_until`, it goes further
/// than the restore has planned, and that is no limit any more.
pub(crate) fn last_ahead(
    name: &str,
    until: Option<SegmentName>,
    ahead_until: Option<SegmentName>,
) -> Option<SegmentName> {
    let asked = name.parse::<SegmentName>().ok();
    let is_passed = |last: SegmentName| asked.is_some_and(|asked| asked.on_timeline(last.timeline()) > last);
    let planned = ahead_until.filter(|last| !is_passed(*last));
    let earlier =
        |one: SegmentName, other: SegmentName| if other.on_timeline(one.timeline()) < one { other } else { one };
    match (until, planned) {
        (Some(until), Some(planned)) => Some(earlier(until, planned)),
        (until, planned) => until.or(planned),
    }
}

/// Works for the archiver, and hurries from the moment at which its server is told to stop.
async fn hurrying_when_stopping<T>(path: &Path, hurry: &Hurry, work: impl Future<Output = T>) -> T {
    let watch = async {
        loop {
            let path = path.to_owned();
            let look = tokio::task::spawn_blocking(move || archive::server_is_stopping(&path));
            if matches!(look.await, Ok(true)) {
                hurry.begin();
                return std::future::pending::<Infallible>().await;
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    };
    tokio::select! {
        done = work => done,
        never = watch => match never {},
    }
}

/// How long `wal push --standby` waits: longer than the primary needs for a segment, but short enough that a working
/// archiver of a standby can be told from one that hangs.
const STANDBY_WAIT: Duration = Duration::from_secs(20);

pub(super) async fn push_standby(context: &Context, path: &Path, wait: Option<Duration>) -> Result<ExitCode, Failure> {
    let config = &context.config;
    let hurry = Hurry::default();
    let opening = Box::pin(targets::for_archiver(context, config.wal.timeout, &hurry));
    let targets = hurrying_when_stopping(path, &hurry, opening).await?;
    let options = StandbyPushOptions {
        cluster: config.cluster.name.clone(),
        owner: config.cluster.owner.clone(),
        path: path.to_owned(),
        wait: wait.unwrap_or(STANDBY_WAIT),
    };
    let pushing = archive::push_standby(&targets, &options, &context.cancellation);
    let pushed = hurrying_when_stopping(path, &hurry, pushing).await;
    let report = pushed.map_err(|error| of_local_file(&error))?;
    if context.output == Output::Json {
        crate::output::stdout::json(&report)?;
    }
    Ok(ExitCode::Ok)
}

/// A file of `pg_wal` that cannot be parsed is not an object of the repository.
pub(super) fn of_local_file(error: &Error) -> Failure {
    let mut failure = error.explain();
    if matches!(&*error.what, Cause::Malformed { .. }) {
        failure.code = ExitCode::UnreadableFile;
        failure.hint = Some(
            "nothing was stored: the content of the file does not match its name; check the disk and the program that \
             wrote it"
                .to_owned(),
        );
    }
    failure
}

pub(super) async fn get(
    context: &Context,
    name: &str,
    destination: &Path,
    tails: &[NeededTail],
    last_ahead: Option<SegmentName>,
) -> Result<ExitCode, Failure> {
    let config = &context.config;
    let name: WalFileName = name.parse().map_err(|_| {
        Failure::new(ExitCode::Usage, format!("{name:?} is not the name of a WAL file"))
            .hint("the first word is %f of restore_command, such as 000000010000000000000001 or 00000002.history")
    })?;
    let system_identifier = recovering_system(destination)?;
    // A repository that cannot be opened is a doubt, like one that does not answer.
    let mut targets = Vec::new();
    let mut doubt: Option<Failure> = None;
    for configured in &config.repositories {
        match targets::one(configured, targets::Directory::MustExist, Some(config.wal.timeout)).await {
            Ok(target) => targets.push(target),
            Err(failure) => {
                // With one repository, its failure is the command's, and is printed at the end.
                if config.repositories.len() > 1 {
                    context.warn(&format!("{} cannot be asked: {failure}", configured.location()));
                }
                doubt.get_or_insert(failure);
            }
        }
    }
    if let (true, Some(failure)) = (targets.is_empty(), &doubt) {
        return Err(failure.clone());
    }
    let prefetch = if ends_at_switch(&name.to_string(), tails) { 0 } else { config.wal.prefetch };
    let options = GetOptions {
        cluster: config.cluster.name.clone(),
        name,
        destination: destination.to_owned(),
        prefetch,
        last_ahead,
        spool: if prefetch > 0 { spool(context, destination) } else { None },
        repository_set: repository_set(config),
        system_identifier,
        // A repository that was not asked may have the whole segment, and those after it.
        tails: if doubt.is_none() { tails.to_vec() } else { Vec::new() },
        crew: Crew::new(config.restore.jobs.get().min(MOST_THREADS)),
        budget: ByteBudget::new(config.backup.memory_bytes),
        now: time::now(),
    };
    match archive::get(&targets, &options, &context.cancellation).await {
        Ok(report) => {
            if context.output == Output::Json {
                crate::output::stdout::json(&report)?;
            }
            let from = match &report.source {
                GetSource::Spool => "the spool",
                GetSource::Repository(url) | GetSource::Tail(url) => url,
            };
            tracing::debug!(file = %report.file, from, ahead = report.prefetched, "fetched");
            Ok(ExitCode::Ok)
        }
        Err(error) => match (&*error.what, doubt) {
            (Cause::Absent { .. }, Some(failure)) => Err(failure),
            _ => Err(as_recovery_reads_it(&error)),
        },
    }
}

/// "Not in the archive" is the usual end of every recovery, so it is one line, not three, in the server's log. And the
/// hint to rename the cluster helps an archiving server, not a recovering one.
pub(super) fn as_recovery_reads_it(error: &Error) -> Failure {
    let mut failure = error.explain();
    match failure.code {
        ExitCode::Absent => Failure::new(failure.code, failure.message),
        ExitCode::WrongCluster => {
            failure.hint = Some(
                "nothing was handed over: `cluster.name` in the configuration of restore_command must be the name of \
                 the archive from which this data directory was restored"
                    .to_owned(),
            );
            failure
        }
        _ => failure,
    }
}

/// The system identifier whose WAL is wanted: PostgreSQL calls in the data directory that it recovers, and `%p` is
/// relative to it. `None` without a control file: a person may run the command by hand.
pub(super) fn recovering_system(destination: &Path) -> Result<Option<SystemIdentifier>, Error> {
    let beside = destination.parent().and_then(Path::parent).map(Path::to_path_buf);
    let candidates = beside.into_iter().chain([PathBuf::new()]);
    for directory in candidates {
        let directory = if directory.as_os_str().is_empty() { PathBuf::from(".") } else { directory };
        if directory.join(ControlFile::PATH).exists() {
            return Ok(Some(read_control_file(&directory)?.system_identifier));
        }
    }
    Ok(None)
}

pub(super) async fn list(context: &Context) -> Result<ExitCode, Failure> {
    let cluster = &context.config.cluster.name;
    let mut listings = Vec::new();
    for target in targets::all(context, None).await? {
        let repository = holdfast_engine::repository::Repository::open(&target).await?;
        listings.push(archive::list(&repository, cluster).await?);
    }
    context.print(
        || listings.iter().map(listing_text).collect(),
        &WalListReport { cluster: cluster.clone(), repositories: listings.clone() },
    )?;
    Ok(ExitCode::Ok)
}

fn listing_text(listing: &archive::WalListing) -> String {
    let mut text = format!("{} in {}\n", listing.cluster, listing.store);
    let mut table = Table::new([
        ("CLAIM", Align::Right),
        ("TIMELINE", Align::Right),
        ("FIRST", Align::Left),
        ("LAST", Align::Left),
        ("SEGMENTS", Align::Right),
        ("STORED", Align::Right),
        ("NEWEST", Align::Left),
    ]);
    let mut gaps = String::new();
    for claim in &listing.claims {
        for timeline in &claim.timelines {
            let end = |range: Option<String>| range.unwrap_or_else(|| "-".to_owned());
            table.row([
                claim.claim.to_string(),
                timeline.timeline.to_string(),
                end(timeline.ranges.first().map(|range| range.first.to_string())),
                end(timeline.ranges.last().map(|range| range.last.to_string())),
                timeline.segments.to_string(),
                size(timeline.stored_bytes),
                timeline.newest.map(time::shown).unwrap_or_default(),
            ]);
            for gap in &timeline.gaps {
                let _ = writeln!(
                    gaps,
                    "gap in claim {}, timeline {}: {} to {} ({} segments) are missing",
                    claim.claim, timeline.timeline, gap.first, gap.last, gap.count
                );
            }
        }
    }
    if table.is_empty() {
        text.push_str("no WAL is archived\n");
    } else {
        text.push_str(&table.render());
    }
    text.push_str(&gaps);
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn nothing_is_fetched_ahead_after_the_earlier_limit_until_recovery_passes_the_plan() {
        let name = |timeline: u32, number: u32| format!("{timeline:08X}00000000{number:08X}");
        let last = |asked: &str, until: Option<u32>, ahead_until: Option<u32>| {
            let segment = |number: Option<u32>| number.map(|number| name(1, number).parse().unwrap());
            last_ahead(asked, segment(until), segment(ahead_until)).map(|last| last.to_string())
        };
        for (asked, until, ahead_until, expected) in [
            (name(1, 3), None, None, None),
            (name(1, 3), Some(7), None, Some(name(1, 7))),
            (name(1, 3), None, Some(5), Some(name(1, 5))),
            (name(1, 5), None, Some(5), Some(name(1, 5))),
            (name(2, 3), None, Some(5), Some(name(1, 5))),
            (name(1, 3), Some(7), Some(5), Some(name(1, 5))),
            (name(1, 3), Some(4), Some(5), Some(name(1, 4))),
            ("00000002.history".to_owned(), None, Some(5), Some(name(1, 5))),
            // The target was moved after the restore.
            (name(1, 6), None, Some(5), None),
            (name(2, 6), Some(7), Some(5), Some(name(1, 7))),
        ] {
            assert_eq!(last(&asked, until, ahead_until), expected, "{asked} {until:?} {ahead_until:?}");
        }
    }
}
