//! The state of archiving.

use crate::context::Context;
use chrono::{DateTime, Utc};
use holdfast_contract::problem::Problem;
use holdfast_kube_api::status_port::ArchiveStatus;
use holdfast_pgtypes::SegmentName;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// PostgreSQL's latest attempts, and the segments that wait in `archive_status`.
const QUESTION: &str = "SELECT last_archived_wal, extract(epoch FROM last_archived_time)::float8,
       last_failed_wal, extract(epoch FROM last_failed_time)::float8,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size')
FROM pg_stat_archiver";

/// The files of `pg_wal` that wait for the archiver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Their names, in order.
    pub files: Vec<String>,
    /// The oldest segment among them.
    pub first: Option<SegmentName>,
}

impl Waiting {
    /// Those in this folder.
    pub fn read(pg_wal: &Path) -> Self {
        let entries = std::fs::read_dir(pg_wal.join("archive_status")).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut files: Vec<String> = names.filter_map(|name| name.strip_suffix(".ready").map(str::to_owned)).collect();
        files.sort();
        let first = files.iter().filter_map(|name| name.parse().ok()).min();
        Self { files, first }
    }
}

/// The state of the archiver now.
pub async fn status(context: &Context) -> ArchiveStatus {
    let waiting = Waiting::read(&context.paths.pg_wal());
    let mut status = ArchiveStatus {
        first_waiting_wal: waiting.first.map(|segment| segment.to_string()),
        waiting_segments: waiting.files.len() as u64,
        working: true,
        ..ArchiveStatus::default()
    };
    if !context.paths.archive_config().exists() {
        return status;
    }
    if let Ok(rows) = context.sql.query(QUESTION, &[]).await
        && let Some(row) = rows.first()
    {
        status.last_archived_wal = row.get(0);
        status.last_archived_time = row.get::<_, Option<f64>>(1).and_then(time);
        status.last_failed_wal = row.get(2);
        status.last_failed_time = row.get::<_, Option<f64>>(3).and_then(time);
        let segment = row.get::<_, Option<i64>>(4).and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
        status.waiting_bytes = status.waiting_segments * segment;
        status.working = status
            .last_failed_time
            .is_none_or(|failed| status.last_archived_time.is_some_and(|archived| archived >= failed));
    }
    if !status.working {
        let since = status.last_archived_time.unwrap_or(DateTime::UNIX_EPOCH);
        status.error = context.state.errors.last().filter(|(at, _)| *at >= since).map(|(_, text)| text).or_else(|| {
            let segment = status.last_failed_wal.as_deref().unwrap_or("a segment");
            Some(Problem::new(format!("{segment} could not be archived")).hint("see the log of the pod").to_string())
        });
    }
    status
}

pub(super) fn time(seconds: f64) -> Option<DateTime<Utc>> {
    let since = std::time::Duration::try_from_secs_f64(seconds).ok()?;
    UNIX_EPOCH.checked_add(since).map(DateTime::from)
}
