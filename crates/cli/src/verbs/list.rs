//! `list`: the backups of the cluster, in each repository.

use super::answers::{Answer, Answers};
use super::backup::ratio;
use super::unreadable::{self, Remarks};
use super::{Context, targets, time};
use crate::exit_code::ExitCode;
use crate::failure::{Explain as _, Failure};
use crate::output::table::{Align, Table};
use holdfast_contract::amount::{duration, size};
use holdfast_contract::report::list::{ListReport, RepositoryBackups, Unfinished};
use holdfast_engine::repository::Repository;
use holdfast_engine::repository::catalog::UnfinishedBackup;
use holdfast_repo::record::{BackupRecord, BackupType};
use std::fmt::Write;
use std::time::Duration;

pub(super) async fn run(context: &Context) -> Result<ExitCode, Failure> {
    let mut answers = Answers::new();
    for (url, opened) in targets::opened(context).await {
        let answer = async { list_of(context, &opened?).await };
        answers.add("", url, answer.await);
    }
    let cluster = context.config.cluster.name.clone();
    answers.print(context, |repositories| ListReport { cluster, repositories })
}

async fn list_of(context: &Context, repository: &Repository) -> Answer<RepositoryBackups> {
    let cluster = &context.config.cluster.name;
    let (backups, unfinished) = tokio::try_join!(repository.backups(cluster), repository.describe_unfinished(cluster))?;
    let mut remarks = Remarks::default();
    let backups = remarks.sound("backup", backups);
    let text = format!("{cluster} in {}\n{}", repository.describe(), tables(&backups, &unfinished, &remarks));
    let report = RepositoryBackups {
        repository: repository.describe(),
        backups,
        unfinished: unfinished.iter().map(describe_unfinished).collect(),
        unreadable: remarks.records(),
    };
    Ok((text, report, remarks.fatal()))
}

/// An unfinished backup, for reports.
pub(super) fn describe_unfinished(unfinished: &UnfinishedBackup) -> Unfinished {
    Unfinished {
        backup_id: unfinished.backup_id,
        start: unfinished.start.clone(),
        error: unfinished.unreadable.as_ref().map(|error| error.explain().brief()),
    }
}

fn tables(backups: &[BackupRecord], unfinished: &[UnfinishedBackup], remarks: &Remarks) -> String {
    let mut table = Table::new([
        ("BACKUP", Align::Left),
        ("TYPE", Align::Left),
        ("START", Align::Left),
        ("STOP", Align::Left),
        ("TOOK", Align::Right),
        ("SIZE", Align::Right),
        ("STORED", Align::Right),
        ("RATIO", Align::Right),
        ("TL", Align::Right),
        ("LSN", Align::Left),
        ("WAL", Align::Left),
        ("MARKS", Align::Left),
    ]);
    for backup in backups {
        table.row([
            backup.backup_id.to_string(),
            match backup.backup_type {
                BackupType::Full => "full".to_owned(),
                BackupType::Incremental => "incremental".to_owned(),
            },
            time::shown(backup.start_time),
            time::shown(backup.stop_time),
            duration(Duration::from_millis(backup.duration_milliseconds)),
            size(backup.size_bytes),
            size(backup.stored_bytes),
            ratio(backup.size_bytes, backup.stored_bytes),
            backup.timeline.to_string(),
            format!("{}..{}", backup.start_lsn, backup.stop_lsn),
            format!("{}..{}", backup.start_segment, backup.stop_segment),
            marks(backup),
        ]);
    }
    let mut text = if table.is_empty() { "no complete backup\n".to_owned() } else { table.render() };
    text.push_str(&remarks.text(""));
    for UnfinishedBackup { backup_id, start, unreadable } in unfinished {
        let _ = match (start, unreadable) {
            (_, Some(error)) => {
                writeln!(text, "{}", unreadable::line("start record of the unfinished backup", backup_id, error))
            }
            (Some(start), None) => writeln!(
                text,
                "unfinished {backup_id}: process {} on {} began it at {}; it is still running, or the next backup \
                 there removes it",
                start.pid,
                start.host,
                time::shown(start.started)
            ),
            (None, None) => writeln!(text, "unfinished {backup_id}: its start record is missing"),
        };
    }
    text
}

/// What a person should know before relying on a backup.
pub(super) fn marks(backup: &BackupRecord) -> String {
    let mut marks = Vec::new();
    if backup.checksum_failures.count > 0 {
        marks.push(format!("{} bad pages", backup.checksum_failures.count));
    }
    if backup.from_standby {
        marks.push("from standby".to_owned());
    }
    if !backup.data_checksums {
        marks.push("no page checksums".to_owned());
    }
    marks.join(", ")
}
