//! `wal push`, `wal get` and `wal list`.
//!
//! PostgreSQL waits for the first two, so they take the shortest way: a segment that an earlier push took along is
//! answered before a runtime exists ([`already_durable`]). The spool is a help: where it cannot be used, both work
//! without it and say so.

use super::{Context, targets, time};
use crate::args::Output;
use crate::config::Config;
use crate::exit_code::ExitCode;
use crate::failure::{Explain, Failure};
use crate::output::progress::{Progress, Show};
use crate::output::size::size;
use crate::output::table::{Align, Table};
use holdfast_engine::archive::{
    self, GetOptions, GetSource, PushOptions, PushOutcome, RepositorySetId, StandbyPushOptions, Stored, marked_durable,
};
use holdfast_engine::backup::read_control_file;
use holdfast_engine::pipeline::budget::ByteBudget;
use holdfast_engine::pipeline::crew::Crew;
use holdfast_engine::{Error, What};
use holdfast_pgtypes::{ControlFile, SystemIdentifier, WalFileName};
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Whether an earlier `wal push` stored exactly this file in all repositories. A few system calls, no runtime.
pub(crate) fn already_durable(config: &Config, path: &Path) -> bool {
    marked_durable(&config.wal.spool, &config.cluster.name, &repository_set(config), path)
}

fn repository_set(config: &Config) -> RepositorySetId {
    let places: Vec<String> = config.repositories.iter().map(crate::config::repository::Repository::place).collect();
    RepositorySetId::new(&config.cluster.name, places.iter().map(String::as_str))
}

/// Whether files can be kept in the spool; says so when not.
fn spool_works(context: &Context) -> bool {
    let spool = &context.config.wal.spool;
    let folder = spool.join(context.config.cluster.name.as_str());
    let usable = std::fs::create_dir_all(&folder).map_err(|error| error.to_string()).and_then(|()| {
        let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        rustix::fs::access(&folder, wanted).map_err(|error| std::io::Error::from(error).to_string())
    });
    if let Err(reason) = &usable {
        context.warn(&format!(
            "the spool {} cannot be used ({reason}): working without it, one file at a time; set `wal.spool` to a \
             directory that the user of PostgreSQL may write",
            spool.display()
        ));
    }
    usable.is_ok()
}

pub(super) async fn push(context: &Context, path: &Path) -> Result<ExitCode, Failure> {
    let config = &context.config;
    let targets = targets::all(context, Some(config.wal.timeout)).await?;
    let options = PushOptions {
        cluster: config.cluster.name.clone(),
        owner: config.cluster.owner.clone(),
        path: path.to_owned(),
        compression: config.wal.compression,
        // Without marks a neighbour's turn would find it stored and wonder.
        push_ahead: if spool_works(context) { config.wal.push_ahead.get() - 1 } else { 0 },
        spool: config.wal.spool.clone(),
        repository_set: repository_set(config),
        crew: Crew::new(config.backup.jobs.get())?,
        budget: ByteBudget::new(config.backup.memory_bytes),
        host: time::host(),
        now: time::now(),
    };
    let progress = Progress::new(Show::Nothing);
    let pushed = archive::push(&targets, &options, &progress, &context.cancellation).await;
    let report = pushed.map_err(|error| of_local_file(&error))?;
    for (file, reason) in &report.failed_neighbours {
        tracing::info!(%file, reason, "a segment taken along could not be archived yet; PostgreSQL will ask for it");
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

/// How long `wal push --standby` waits: longer than the primary needs for a segment, and not so long that a standby whose
/// archiver is at it cannot be told apart from one that hangs.
const STANDBY_WAIT: Duration = Duration::from_secs(20);

pub(super) async fn push_standby(context: &Context, path: &Path, wait: Option<Duration>) -> Result<ExitCode, Failure> {
    let config = &context.config;
    let targets = targets::all(context, Some(config.wal.timeout)).await?;
    let options = StandbyPushOptions {
        cluster: config.cluster.name.clone(),
        owner: config.cluster.owner.clone(),
        path: path.to_owned(),
        wait: wait.unwrap_or(STANDBY_WAIT),
    };
    let pushed = archive::push_standby(&targets, &options, &context.cancellation).await;
    let report = pushed.map_err(|error| of_local_file(&error))?;
    if context.output == Output::Json {
        crate::output::stdout::json(&report)?;
    }
    Ok(ExitCode::Ok)
}

/// A file of `pg_wal` that does not parse is no object of the repository.
fn of_local_file(error: &Error) -> Failure {
    let mut failure = error.explain();
    if matches!(&*error.what, What::Malformed { .. }) {
        failure.code = ExitCode::UnreadableFile;
        failure.hint =
            Some("nothing was stored: the file is not what its name says; check the disk and what wrote it".to_owned());
    }
    failure
}

pub(super) async fn get(context: &Context, name: &str, destination: &Path) -> Result<ExitCode, Failure> {
    let config = &context.config;
    let name: WalFileName = name.parse().map_err(|_| {
        Failure::new(ExitCode::Usage, format!("{name:?} is not the name of a WAL file"))
            .hint("the first word is %f of restore_command, such as 000000010000000000000001 or 00000002.history")
    })?;
    let system_identifier = recovering_system(destination)?;
    // A repository that cannot even be opened is a doubt, as one that does not answer is.
    let mut targets = Vec::new();
    let mut doubt: Option<Failure> = None;
    for configured in &config.repositories {
        match targets::one(configured, targets::Directory::MustExist, Some(config.wal.timeout)).await {
            Ok(target) => targets.push(target),
            Err(failure) => {
                // The only one's failure is the command's, which is said at the end.
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
    let options = GetOptions {
        cluster: config.cluster.name.clone(),
        name,
        destination: destination.to_owned(),
        prefetch: if config.wal.prefetch > 0 && spool_works(context) { config.wal.prefetch } else { 0 },
        spool: config.wal.spool.clone(),
        repository_set: repository_set(config),
        system_identifier,
        crew: Crew::new(config.restore.jobs.get())?,
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
                GetSource::Repository(url) => url,
            };
            tracing::debug!(file = %report.file, from, ahead = report.prefetched, "fetched");
            Ok(ExitCode::Ok)
        }
        Err(error) => match (&*error.what, doubt) {
            (What::Absent { .. }, Some(failure)) => Err(failure),
            _ => Err(as_recovery_reads_it(&error)),
        },
    }
}

/// "Not in the archive" is the usual end of every recovery: it is no error to make three lines of in the server's log.
/// And to give the cluster another name helps the one who archives, not the one who recovers.
fn as_recovery_reads_it(error: &Error) -> Failure {
    let mut failure = error.explain();
    match failure.code {
        ExitCode::Absent => Failure::new(failure.code, failure.message),
        ExitCode::WrongCluster => {
            failure.hint = Some(
                "nothing was handed over: `cluster.name` in the configuration of restore_command must be that of the \
                 archive this data directory was restored from"
                    .to_owned(),
            );
            failure
        }
        _ => failure,
    }
}

/// Whose WAL is wanted: PostgreSQL calls in the data directory it recovers, and `%p` is relative to it. Nothing where no
/// control file is: the command may be tried by hand.
fn recovering_system(destination: &Path) -> Result<Option<SystemIdentifier>, Error> {
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
        || json!({ "cluster": cluster, "repositories": listings }),
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
