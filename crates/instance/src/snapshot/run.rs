//! One run of a snapshot.

use super::record::{Mark, of_run, write_mark};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::postgres::Sql;
use crate::verb::Verb;
use crate::volume;
use chrono::{DateTime, Utc};
use holdfast_contract::report::snapshot::RecordReport;
use holdfast_kube_api::status_port::{SnapshotRequest, SnapshotRun, SnapshotState};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

/// The deadline if the operator sets none.
const LONGEST: Duration = Duration::from_hours(1);
/// The time between two checks.
const POLL: Duration = Duration::from_millis(100);
/// The time limit of starting the server again after a cold snapshot; after that the operator gets the reason.
const START_WITHIN: Duration = Duration::from_mins(5);

/// Begins the run of this uid, unless the instance is stopping. The caller holds the state, and writes the run into it.
pub(super) fn begin(context: &Arc<Context>, uid: &str, request: &SnapshotRequest) -> Option<SnapshotRun> {
    let run = SnapshotRun {
        uid: uid.to_owned(),
        name: request.name.clone(),
        online: request.online,
        ..SnapshotRun::default()
    };
    let cancel = context.stop.child_token();
    let taken = Arc::new(Notify::new());
    let worker = Worker {
        context: Arc::clone(context),
        uid: uid.to_owned(),
        deadline: request.deadline,
        started: Utc::now(),
        cancel: cancel.clone(),
        taken: Arc::clone(&taken),
    };
    context.snapshots.begin(uid, cancel, taken, worker.run(run.clone())).then_some(run)
}

struct Worker {
    context: Arc<Context>,
    uid: String,
    deadline: Option<DateTime<Utc>>,
    started: DateTime<Utc>,
    cancel: CancellationToken,
    /// Notified when the operator has taken the volume snapshots.
    taken: Arc<Notify>,
}

impl Worker {
    async fn run(self, run: SnapshotRun) {
        let ended = if run.online { self.hot(&run).await } else { self.cold(&run).await };
        self.context.state.set_paused(false);
        drop(std::fs::remove_file(self.context.paths.data_mount.join(super::MARK)));
        if let Err(error) = ended {
            tracing::error!(name = run.name, "the snapshot failed\n{error}");
            self.change(|run| {
                run.state = SnapshotState::Failed;
                run.error = Some(error.to_string());
            });
        }
    }

    fn change(&self, change: impl FnOnce(&mut SnapshotRun)) {
        self.context.state.change_snapshot(|slot| {
            if let Some(run) = slot.as_mut().filter(|run| run.uid == self.uid) {
                change(run);
            }
        });
    }

    /// The current state of the run.
    fn now(&self) -> SnapshotRun {
        self.context.state.change_snapshot(|slot| slot.clone()).unwrap_or_default()
    }

    fn mark(&self, run: &SnapshotRun) -> Result<()> {
        let mark = Mark { uid: run.uid.clone(), name: run.name.clone(), online: run.online };
        write_mark(&self.context.paths.data_mount, &mark)
    }

    /// Waits until the operator has taken its snapshots.
    async fn wait_until_taken(&self, lost: impl Future<Output = ()>) -> Result<()> {
        let left = match self.deadline {
            Some(deadline) => (deadline - Utc::now()).to_std().unwrap_or_default(),
            None => LONGEST,
        };
        tokio::select! {
            () = self.taken.notified() => Ok(()),
            () = self.cancel.cancelled() => Err(Error::retry("the snapshot was cancelled")),
            () = lost => Err(Error::retry("the connection that holds backup mode was lost").doing("waiting for the volume snapshots")),
            () = tokio::time::sleep(left) => Err(Error::retry("the operator did not end the snapshot before its \
                                                               deadline")
                .doing("waiting for the volume snapshots")
                .hint("the storage driver took too long: raise spec.backup.volumeSnapshot.deadlineSeconds")),
        }
    }

    async fn hot(&self, run: &SnapshotRun) -> Result<()> {
        self.mark(run)?;
        let client = Sql::connect(&self.context.paths, "postgres").await?;
        let old_names = self.context.state.postgres_major() < 15;
        let (start, stop) = if old_names {
            ("pg_start_backup($1, true, false)", "pg_stop_backup(false, false)")
        } else {
            ("pg_backup_start($1, true)", "pg_backup_stop(false)")
        };
        let statement = format!("SELECT {start}::text");
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&run.name];
        let starting = client.query_one(&statement, &parameters);
        let row = tokio::select! {
            row = starting => row.map_err(|error| crate::postgres_error(&error).doing("starting backup mode"))?,
            () = self.cancel.cancelled() => return Err(Error::retry("the snapshot was cancelled")),
        };
        let begin: Lsn = lsn(row.get(0))?;
        let timeline = self.context.state.facts().and_then(|facts| facts.timeline);
        self.change(|run| {
            run.begin_lsn = Some(begin.to_string());
            run.timeline_id = timeline.map(TimelineId::get);
            run.begin_wal = timeline.and_then(|timeline| self.segment(begin, timeline, false));
            run.state = SnapshotState::Ready;
        });
        self.wait_until_taken(closed(&client)).await?;
        self.change(|run| run.state = SnapshotState::Stopping);
        let statement = format!("SELECT lsn::text, labelfile, coalesce(spcmapfile, '') FROM {stop}");
        let row = client
            .query_one(&statement, &[])
            .await
            .map_err(|error| crate::postgres_error(&error).doing("ending backup mode"))?;
        let end: Lsn = lsn(row.get(0))?;
        let (label, map): (String, String) = (row.get(1), row.get(2));
        let labelled = holdfast_pgtypes::BackupLabel::parse(label.as_bytes()).ok().map(|label| label.start_timeline);
        let timeline = labelled.or(timeline);
        self.change(|run| {
            run.end_lsn = Some(end.to_string());
            run.timeline_id = timeline.map(TimelineId::get);
            run.begin_wal = timeline.and_then(|timeline| self.segment(begin, timeline, false));
            run.end_wal = timeline.and_then(|timeline| self.segment(end, timeline, true));
            run.backup_label = Some(label);
            run.tablespace_map = Some(map);
        });
        drop(client);
        self.record(Utc::now()).await
    }

    fn segment(&self, lsn: Lsn, timeline: TimelineId, end: bool) -> Option<String> {
        let size = volume::control(&self.context.paths.pgdata).ok()??.wal_segment_size;
        let name = if end {
            SegmentName::ending_at(lsn, timeline, size)
        } else {
            SegmentName::containing(lsn, timeline, size)
        };
        Some(name.to_string())
    }

    async fn cold(&self, run: &SnapshotRun) -> Result<()> {
        self.mark(run)?;
        self.context.state.set_paused(true);
        loop {
            if self.context.state.server_or_ended().is_none() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = self.cancel.cancelled() => return Err(Error::retry("the snapshot was cancelled")),
            }
        }
        let control = volume::control(&self.context.paths.pgdata)?
            .ok_or_else(|| Error::retry("the data directory has no pg_control"))?;
        let (redo, timeline) = (control.redo, control.timeline);
        // A standby's pages are consistent from this position on.
        let end = control.min_recovery_point;
        self.change(|run| {
            run.begin_lsn = Some(redo.to_string());
            run.end_lsn = end.map(|end| end.to_string());
            run.timeline_id = Some(timeline.get());
            run.begin_wal = self.segment(redo, timeline, false);
            run.state = SnapshotState::Ready;
        });
        self.wait_until_taken(std::future::pending()).await?;
        let stopped = Utc::now();
        self.change(|run| run.state = SnapshotState::Stopping);
        self.context.state.set_paused(false);
        let started = tokio::time::Instant::now();
        while !self.context.state.ready() {
            if started.elapsed() > START_WITHIN {
                return Err(
                    Error::retry("PostgreSQL is not ready again after the snapshot").doing("ending the cold snapshot")
                );
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = self.cancel.cancelled() => return Err(Error::retry("the snapshot was cancelled")),
            }
        }
        self.record(stopped).await
    }

    /// Writes the record into the archive, after the WAL is there.
    async fn record(&self, stopped: DateTime<Utc>) -> Result<()> {
        let config = self.context.paths.archive_config();
        if config.exists() {
            let own_wal_volume = self.context.paths.wal_directory.is_some();
            let request = of_run(&self.now(), self.started, stopped, own_wal_volume)?;
            let input = serde_json::to_vec(&request).map_err(|error| Error::retry(error.to_string()))?;
            let mut verb = Verb::new(&self.context.paths.program, &config, ["snapshot", "record"]);
            verb.input = Some(input);
            let recorded: RecordReport = verb.run(&self.cancel, |_| {}).await?.report()?;
            let id = Some(recorded.snapshot_id.to_string());
            self.change(|run| {
                run.wal_confirmed = true;
                run.snapshot_id = id;
            });
        }
        self.change(|run| run.state = SnapshotState::Stopped);
        Ok(())
    }
}

async fn closed(client: &Client) {
    while !client.is_closed() {
        tokio::time::sleep(POLL).await;
    }
}

fn lsn(text: &str) -> Result<Lsn> {
    text.parse().map_err(|_| Error::retry(format!("PostgreSQL returned {text:?}, which is not an LSN")))
}
