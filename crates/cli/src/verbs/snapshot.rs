//! `snapshot record` and `snapshot list`.

use super::answers::{Answer, Answers};
use super::unreadable::Remarks;
use super::{Context, targets, time};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::table::{Align, Table};
use holdfast_contract::report::snapshot::{RepositorySnapshots, SnapshotListReport};
use holdfast_contract::request::SnapshotRequest;
use holdfast_engine::repository::Repository;
use holdfast_engine::snapshot::{RecordOptions, record as engine};
use holdfast_repo::record::SnapshotRecord;
use std::io::Read;

/// A request has a few kilobytes; a longer text is not a request.
const MOST_REQUEST_BYTES: u64 = 1 << 20;

pub(super) async fn record(context: &Context) -> Result<ExitCode, Failure> {
    let config = &context.config;
    let mut text = String::new();
    std::io::stdin().take(MOST_REQUEST_BYTES).read_to_string(&mut text).map_err(|error| of_request(&error))?;
    let request: SnapshotRequest = serde_json::from_str(&text).map_err(|error| of_request(&error))?;
    let options = RecordOptions {
        cluster: config.cluster.name.clone(),
        owner: config.cluster.owner.clone(),
        pgdata: config.cluster.pgdata.clone(),
        archive_timeout: config.backup.archive_timeout,
        host: time::host(),
        now: time::now(),
    };
    let targets = targets::all(context, None).await?;
    let progress = Progress::new(context.show);
    let report = engine(&targets, &request, &options, &progress, &context.cancellation).await?;
    progress.finish();
    context.print(
        || {
            let said = if report.recorded_now { "is recorded" } else { "was recorded already" };
            format!("snapshot {} of {} {said}\n", report.snapshot_id, options.cluster)
        },
        &report,
    )?;
    Ok(ExitCode::Ok)
}

fn of_request(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(ExitCode::Usage, format!("the request on stdin cannot be parsed: {error}"))
        .hint("docs/operations.md says what it looks like")
}

pub(super) async fn list(context: &Context) -> Result<ExitCode, Failure> {
    let mut answers = Answers::new();
    for (url, opened) in targets::opened(context).await {
        let answer = async { list_of(context, &opened?).await };
        answers.add("", url, answer.await);
    }
    let cluster = context.config.cluster.name.clone();
    answers.print(context, |repositories| SnapshotListReport { cluster, repositories })
}

async fn list_of(context: &Context, repository: &Repository) -> Answer<RepositorySnapshots> {
    let cluster = &context.config.cluster.name;
    let mut remarks = Remarks::default();
    let snapshots = remarks.sound("snapshot", repository.snapshots(cluster).await?);
    let text = format!("{cluster} in {}\n{}{}", repository.describe(), table(&snapshots), remarks.text(""));
    let report = RepositorySnapshots { repository: repository.describe(), snapshots, unreadable: remarks.records() };
    Ok((text, report, remarks.fatal()))
}

fn table(snapshots: &[SnapshotRecord]) -> String {
    let mut table = Table::new([
        ("SNAPSHOT", Align::Left),
        ("LABEL", Align::Left),
        ("SERVER", Align::Left),
        ("STOP", Align::Left),
        ("TL", Align::Right),
        ("LSN", Align::Left),
        ("VOLUMES", Align::Left),
    ]);
    for snapshot in snapshots {
        let volumes: Vec<String> =
            snapshot.snapshots.iter().map(|volume| format!("{} ({})", volume.name, volume.kind)).collect();
        table.row([
            snapshot.snapshot_id.to_string(),
            snapshot.label.clone(),
            if snapshot.online { "running" } else { "stopped" }.to_owned(),
            time::shown(snapshot.stop_time),
            snapshot.timeline.to_string(),
            format!("{} to {}", snapshot.start_lsn, snapshot.stop_lsn),
            volumes.join(", "),
        ]);
    }
    if table.is_empty() { "no snapshot is recorded\n".to_owned() } else { table.render() }
}
