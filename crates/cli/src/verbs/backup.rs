//! `backup`: a backup into every repository, and its result.
//!
//! A backup with wrong page checksums is complete and succeeds: its data is what the server has, an older backup may be
//! worse, and a scheduler that sees a failure would repeat it for ever. A warning, the summary and the marks in `list`
//! report it.
//!
//! With several repositories, a failing one does not end the backup into the others. The command still fails, with the
//! code of that failure, and the result has the state of each repository.

use super::{Context, places, targets, time};
use crate::args::{BackupArgs, BackupType};
use crate::config::libpq;
use crate::exit_code::ExitCode;
use crate::failure::{Explain as _, Failure, of_doubt};
use crate::output::progress::Progress;
use holdfast_contract::amount::{duration, rate, size};
use holdfast_contract::problem::ErrorReport;
use holdfast_contract::report::backup::{BackupReport, FailedRepository, StoredBackup};
use holdfast_engine::backup::{BackupOptions, BackupOutcome, FailedBackup, Kind, Resumed, backup};
use holdfast_engine::server::read_control_file;
use std::fmt::Write;
use std::time::Duration;

/// Bad pages shown in the summary; the record has more.
const PAGES_SHOWN: usize = 10;

pub(super) async fn run(context: &Context, args: &BackupArgs) -> Result<ExitCode, Failure> {
    let config = &context.config;
    let mut options = BackupOptions {
        cluster: config.cluster.name.clone(),
        owner: config.cluster.owner.clone(),
        kind: match args.kind {
            BackupType::Auto => Kind::Auto,
            BackupType::Full => Kind::Full,
            BackupType::Incremental => Kind::Incremental,
        },
        pgdata: config.cluster.require_pgdata()?.to_owned(),
        connection: config.cluster.connection.clone(),
        environment: libpq::environment(),
        primary_connection: config.cluster.primary_connection.clone(),
        begins_archives: true,
        label: config.backup.label.clone().unwrap_or_else(|| "holdfast".to_owned()),
        start_fast: config.backup.start_fast,
        jobs: config.backup.jobs.get(),
        memory_bytes: config.backup.memory_bytes,
        part_size_bytes: usize::try_from(part_size(context)).unwrap_or(usize::MAX),
        compression: config.backup.compression,
        wal_compression: config.wal.compression,
        page_checks: config.backup.page_checks,
        archive_timeout: config.backup.archive_timeout,
        host: time::host(),
        machine: config.backup.machine.clone(),
        now: time::now(),
    };
    // A path that is not a data directory has its own error message.
    read_control_file(&options.pgdata)?;
    let mut failed = Vec::new();
    let mut targets = Vec::new();
    for configured in &config.repositories {
        match targets::one(configured, targets::Directory::MustExist, None).await {
            Ok(target) => {
                places::refuse_repository_in(configured, &options.pgdata)?;
                targets.push(target);
            }
            Err(failure) => {
                failed.push(Failed { repository: configured.location().to_string(), failure, may_exist: false });
            }
        }
    }
    if targets.is_empty() {
        let mut failed = failed.into_iter();
        let Some(first) = failed.next() else { return Ok(ExitCode::Ok) };
        for Failed { repository, failure, .. } in failed {
            context.warn(&format!("the backup also fails in {repository}: {failure}"));
        }
        return Err(first.failure);
    }
    options.begins_archives = failed.is_empty();
    let progress = Progress::new(context.show);
    for Failed { repository, failure, .. } in &failed {
        context.warn(&format!("the backup continues without {repository}: {failure}"));
    }
    let outcome = Box::pin(backup(&targets, &options, &progress, &context.cancellation)).await?;
    progress.finish();
    failed.extend(outcome.failed.iter().map(Failed::of));
    for warning in &outcome.warnings {
        context.warn(warning);
    }
    context.print(|| summary(&outcome, &failed), &report_of(&outcome, &failed))?;
    only_in_some(&outcome, failed)
}

/// A repository that does not have the backup, as far as is known.
struct Failed {
    /// The redacted URL.
    repository: String,
    failure: Failure,
    may_exist: bool,
}

impl Failed {
    fn of(failed: &FailedBackup) -> Self {
        let FailedBackup { repository, error, may_exist } = failed;
        Self { repository: repository.clone(), failure: error.explain(), may_exist: *may_exist }
    }
}

fn report_of(outcome: &BackupOutcome, failed: &[Failed]) -> BackupReport {
    let failed = failed.iter().map(|Failed { repository, failure, may_exist }| FailedRepository {
        repository: repository.clone(),
        may_exist: *may_exist,
        error: ErrorReport::new(failure.code, failure.problem()),
    });
    BackupReport {
        repositories: outcome.repositories.clone(),
        failed: failed.collect(),
        resumed: outcome.resumed.clone(),
        warnings: outcome.warnings.clone(),
    }
}

/// A backup that is not in all repositories is not what was requested: the command ends with the code of the failure.
fn only_in_some(outcome: &BackupOutcome, failed: Vec<Failed>) -> Result<ExitCode, Failure> {
    let Some(backup) = outcome.repositories.first().map(|stored| stored.backup.backup_id) else {
        return Ok(ExitCode::Ok);
    };
    let doubtful: Vec<String> =
        failed.iter().filter(|failed| failed.may_exist).map(|failed| failed.repository.clone()).collect();
    let complete: Vec<&str> = outcome.repositories.iter().map(|stored| stored.repository.as_str()).collect();
    let mut where_it_is = format!("complete in {}", complete.join(", "));
    if let Some(Failed { repository, .. }) = failed.iter().find(|failed| !failed.may_exist) {
        let _ = write!(where_it_is, ", but not in {repository}");
    }
    // A doubt is reported with its own reason, not with that of another repository.
    let reported = failed.iter().position(|failed| failed.may_exist).unwrap_or(0);
    let Some(Failed { failure, .. }) = failed.into_iter().nth(reported) else { return Ok(ExitCode::Ok) };
    // A reader of this line alone must not think that the backup is lost.
    let (mut failure, joint) =
        if doubtful.is_empty() { (failure, ":") } else { (of_doubt("it", &doubtful, failure), ";") };
    failure.message = format!("backup {backup} is {where_it_is}{joint} {}", failure.message);
    Err(failure)
}

/// One pipeline feeds all repositories, so its parts have the largest configured part size.
fn part_size(context: &Context) -> u64 {
    context
        .config
        .repositories
        .iter()
        .map(crate::config::repository::Repository::part_size_bytes)
        .max()
        .unwrap_or(8 << 20)
}

fn summary(report: &BackupOutcome, failed: &[Failed]) -> String {
    let mut text = String::new();
    let Some(first) = report.repositories.first().map(|stored| &stored.backup) else { return text };
    let took = Duration::from_millis(first.duration_milliseconds);
    let _ = writeln!(text, "backup {} of {} is complete", first.backup_id, first.cluster);
    let _ = writeln!(
        text,
        "  LSN         {} to {} on timeline {}, WAL {} to {}",
        first.start_lsn, first.stop_lsn, first.timeline, first.start_segment, first.stop_segment
    );
    let _ = writeln!(
        text,
        "  time        {} to {}, {}",
        time::shown(first.start_time),
        time::shown(first.stop_time),
        duration(took)
    );
    let (data, files) = (size(first.size_bytes), first.file_count);
    let _ = if let Some(parent) = first.parent {
        writeln!(text, "  data        {data} in {files} files; what changed since backup {parent} is stored")
    } else {
        let rate = rate(first.size_bytes, took).map(|rate| format!(", {rate}")).unwrap_or_default();
        writeln!(text, "  read        {data} in {files} files{rate}")
    };
    if let Some(Resumed { backups, size_bytes }) = &report.resumed {
        let backups: Vec<String> = backups.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            text,
            "  kept        {} that the unfinished backup {} had stored",
            size(*size_bytes),
            backups.join(" and ")
        );
    }
    for StoredBackup { repository, backup } in &report.repositories {
        let _ = writeln!(
            text,
            "  stored      {} ({}) in {repository}",
            size(backup.stored_bytes),
            ratio(backup.size_bytes, backup.stored_bytes)
        );
    }
    for Failed { repository, failure, may_exist } in failed {
        let word = if *may_exist { "MAY EXIST " } else { "NOT STORED" };
        let _ = writeln!(text, "  {word}  in {repository}: {failure}");
    }
    if first.checksum_failures.count > 0 {
        let _ = writeln!(text, "  bad pages   {}; this backup is marked", first.checksum_failures.count);
        for failure in first.checksum_failures.listed.iter().take(PAGES_SHOWN) {
            let _ = writeln!(
                text,
                "              {} block {}: checksum {:04X}, its bytes give {:04X}",
                failure.path, failure.block, failure.found, failure.expected
            );
        }
    }
    text
}

/// `3.2:1`
pub(super) fn ratio(raw: u64, stored: u64) -> String {
    match (raw * 10).checked_div(stored) {
        Some(tenths) => format!("{}.{}:1", tenths / 10, tenths % 10),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    /// The frozen sample of the contract, complete in its repositories.
    fn outcome() -> BackupOutcome {
        let text = include_str!("../../../contract/tests/samples/backup-3.json");
        let report: BackupReport = serde_json::from_str(text).unwrap();
        BackupOutcome { repositories: report.repositories, failed: Vec::new(), resumed: None, warnings: Vec::new() }
    }

    fn failed(repository: &str, code: ExitCode, may_exist: bool) -> Failed {
        Failed {
            repository: repository.to_owned(),
            failure: Failure::new(code, format!("{repository} failed")),
            may_exist,
        }
    }

    #[test]
    fn a_doubt_is_reported_with_its_own_reason() {
        let (gone, doubtful) = ("s3://gone/pg", "s3://doubtful/pg");
        let of_doubt = only_in_some(
            &outcome(),
            vec![failed(gone, ExitCode::Configuration, false), failed(doubtful, ExitCode::Unreachable, true)],
        )
        .unwrap_err();
        assert_eq!(of_doubt.code, ExitCode::Unreachable);
        let end = ", but not in s3://gone/pg; it may exist in s3://doubtful/pg: s3://doubtful/pg failed";
        assert!(of_doubt.message.ends_with(end), "{}", of_doubt.message);

        let sure = only_in_some(&outcome(), vec![failed(gone, ExitCode::Configuration, false)]).unwrap_err();
        assert_eq!(sure.code, ExitCode::Configuration);
        assert!(sure.message.ends_with(", but not in s3://gone/pg: s3://gone/pg failed"), "{}", sure.message);
    }
}
