//! Stops a primary so that another instance can take over soonest, and nothing is lost.
//!
//! 1. A checkpoint, while clients still work: the one of the shutdown is short then.
//! 2. Sessions may end by themselves, as long as `smartShutdownTimeout` allows.
//! 3. A fast stop. PostgreSQL sends everything to its standbys, and then waits for its archiver, also if the store
//!    hangs for half an hour. It need not, if a standby has all that waits: standbys keep and archive it. So
//!    `archive_command` then gives up ([`crate::archive::command`]).
//! 4. The standby reports that it has the end of the WAL. If it does not, what waits is archived here and now.
//!
//! Only after that may the Lease be released.

use super::Manager;
use crate::archive::{Waiting, pushes};
use crate::error::{Error, Result};
use crate::postgres::{Postmaster, Sql, StopMode};
use crate::verb::Verb;
use crate::volume;
use holdfast_kube_api::status_port::{InstanceStatus, Role};
use holdfast_pgtypes::{Lsn, SegmentName};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The time limit of the checkpoint before a stop. It continues after that, and the stop waits for it.
const CHECKPOINT_WITHIN: Duration = Duration::from_mins(5);
/// The time limit for the answers of the standbys.
const PEER_LIMIT: Duration = Duration::from_secs(1);
/// How long a standby may take to report the end of the WAL. It was sent before the server ended.
const CONFIRM_WITHIN: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(100);

impl Manager {
    /// Stops a primary within this time; sessions may end by themselves for the time `sessions` of it.
    pub(super) async fn stop_primary(&self, sessions: Duration, limit: Duration) {
        let deadline = Instant::now() + limit;
        let primary = self.context.state.facts().is_some_and(|facts| facts.role == Role::Primary);
        let (Some(served), true) = (self.context.state.server(), primary) else {
            return self.stop_server(limit).await;
        };
        checkpoint(&self.context.paths, CHECKPOINT_WITHIN.min(limit / 3)).await;
        let archives = self.context.paths.archive_config().exists();
        let holders = if archives { self.holders().await } else { Vec::new() };
        self.context.sql.close().await;
        let patience = sessions.min(deadline.saturating_duration_since(Instant::now()));
        if !wait_for_sessions(&served.postmaster, patience).await {
            let left = deadline.saturating_duration_since(Instant::now());
            self.stop_fast(&served.postmaster, !holders.is_empty(), left).await;
            if !holders.is_empty() && !self.is_confirmed(&holders).await {
                self.archive_the_rest(deadline).await;
            }
        }
        self.server_ended().await;
    }

    /// Ends all sessions and stops the server; with `without_archive`, what waits for the archiver is left waiting.
    pub(super) async fn stop_fast(&self, postmaster: &Postmaster, without_archive: bool, limit: Duration) {
        let gives_up = self.context.paths.archive_gives_up();
        if without_archive && let Err(error) = volume::write_durably(&gives_up, b"", 0o600) {
            tracing::warn!("the stop waits for the archive\n{error}");
        }
        let stopping = postmaster.stop_within(limit);
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                _ = &mut stopping => break,
                () = tokio::time::sleep(POLL), if without_archive => {
                    pushes::end(&self.context.paths);
                }
            }
        }
        drop(std::fs::remove_file(&gives_up));
    }

    /// Standbys that stream and have all that waits for the archiver.
    async fn holders(&self) -> Vec<String> {
        let question = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'";
        let rows = self.context.sql.query(question, &[]).await.unwrap_or_default();
        let streaming: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
        let known = self.context.status().instance_names;
        let asked: Vec<String> = known.into_iter().filter(|name| streaming.contains(name)).collect();
        let waiting = Waiting::read(&self.context.paths.pg_wal());
        let timeline = self.context.state.status().timeline_id;
        let answers = self.peers.ask(&asked, PEER_LIMIT).await;
        let holds = answers.into_iter().flatten().filter(|answer| holds(answer, timeline, &waiting));
        holds.map(|answer| answer.instance).collect()
    }

    /// Whether one of these has all WAL of the server that has ended here.
    async fn is_confirmed(&self, holders: &[String]) -> bool {
        let Ok(Some(control)) = volume::control(&self.context.paths.pgdata) else { return false };
        let since = Instant::now();
        while since.elapsed() < CONFIRM_WITHIN {
            let answers = self.peers.ask(holders, PEER_LIMIT).await;
            if answers.iter().flatten().any(|answer| reaches(answer, control.timeline.get(), control.checkpoint)) {
                return true;
            }
            tokio::time::sleep(POLL).await;
        }
        tracing::warn!("no standby has reported the end of the WAL: archiving what waits before the Lease is released");
        false
    }

    /// Archives what the archiver has left.
    async fn archive_the_rest(&self, deadline: Instant) {
        for name in Waiting::read(&self.context.paths.pg_wal()).files {
            let left = deadline.saturating_duration_since(Instant::now());
            let pushed = tokio::time::timeout(left, self.push(&name)).await;
            match pushed {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!("{error}"),
                Err(_) => return tracing::error!(file = name, "no time is left for archiving"),
            }
        }
    }

    async fn push(&self, name: &str) -> Result<()> {
        let config = self.context.paths.archive_config();
        let file = self.context.paths.pg_wal().join(name);
        let verb =
            Verb::new(&self.context.paths.program, &config, ["wal".into(), "push".into(), file.into_os_string()]);
        // The instance was told to stop, and does this before.
        verb.run(&CancellationToken::new(), |_| {}).await.map(drop)
    }
}

/// A checkpoint before a stop. A server that does not answer is stopped without it.
async fn checkpoint(paths: &crate::identity::Paths, limit: Duration) {
    let taking = async {
        let client = Sql::connect(paths, "postgres").await?;
        client.batch_execute("CHECKPOINT").await.map_err(|error| crate::postgres_error(&error))
    };
    let taken = tokio::time::timeout(limit, taking).await;
    let taken = taken.unwrap_or_else(|_| Err(Error::retry(format!("it takes longer than {} s", limit.as_secs()))));
    if let Err(error) = taken {
        tracing::warn!("no checkpoint before the stop\n{error}");
    }
}

/// Waits until all sessions have ended and the server with them; returns whether they did.
async fn wait_for_sessions(postmaster: &Postmaster, limit: Duration) -> bool {
    if limit.is_zero() {
        return false;
    }
    tracing::info!(seconds = limit.as_secs(), "waiting for sessions to end");
    postmaster.stop(StopMode::Smart);
    tokio::time::timeout(limit, postmaster.ended()).await.is_ok()
}

/// Whether a standby has everything that waits for the archiver here. Pure.
fn holds(standby: &InstanceStatus, timeline: Option<u32>, waiting: &Waiting) -> bool {
    let receives = standby.role == Some(Role::Replica)
        && standby.receiving
        && !standby.diverged
        && standby.timeline_id == timeline
        && standby.archive.is_some();
    // A partial segment exists only here.
    let partial = waiting.files.iter().any(|name| name.ends_with(".partial"));
    let first = |status: &InstanceStatus| -> Option<SegmentName> {
        status.archive.as_ref()?.first_waiting_wal.as_deref()?.parse().ok()
    };
    receives
        && !partial
        && match waiting.first {
            None => true,
            // It keeps each segment until that is archived, so it has all from its first one on.
            Some(mine) => first(standby).is_some_and(|first| first <= mine),
        }
}

/// Whether a standby has the WAL of this timeline up to and including the record at this position. Pure.
fn reaches(standby: &InstanceStatus, timeline: u32, record: Lsn) -> bool {
    let lsn = standby.lsn.as_deref().and_then(|lsn| lsn.parse::<Lsn>().ok());
    standby.timeline_id == Some(timeline) && !standby.diverged && lsn.is_some_and(|lsn| lsn > record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_kube_api::status_port::ArchiveStatus;

    #[test]
    fn a_standby_holds_what_waits_if_it_has_waited_for_as_long() {
        let segment = |number: u32| format!("0000000200000000000000{number:02}");
        let waits = |files: &[String]| Waiting {
            files: files.to_vec(),
            first: files.iter().filter_map(|name| name.parse().ok()).min(),
        };
        let archive =
            |first: Option<String>| Some(ArchiveStatus { first_waiting_wal: first, ..ArchiveStatus::default() });
        let standby = InstanceStatus {
            role: Some(Role::Replica),
            receiving: true,
            timeline_id: Some(2),
            archive: archive(None),
            ..InstanceStatus::default()
        };
        let with = |first: u32| InstanceStatus { archive: archive(Some(segment(first))), ..standby.clone() };
        for (name, standby, waiting, expected) in [
            ("nothing waits", standby.clone(), waits(&[]), true),
            ("a backlog that it has", with(10), waits(&[segment(10), segment(11)]), true),
            ("a backlog that it had begun earlier", with(9), waits(&[segment(10)]), true),
            ("a backlog from before it joined", with(11), waits(&[segment(10), segment(11)]), false),
            ("a backlog of which it has nothing", standby.clone(), waits(&[segment(10)]), false),
            ("a partial segment", standby.clone(), waits(&[format!("{}.partial", segment(10))]), false),
            ("it does not stream", InstanceStatus { receiving: false, ..standby.clone() }, waits(&[]), false),
            ("it has diverged", InstanceStatus { diverged: true, ..standby.clone() }, waits(&[]), false),
            ("another timeline", InstanceStatus { timeline_id: Some(1), ..standby.clone() }, waits(&[]), false),
        ] {
            assert_eq!(holds(&standby, Some(2), &waiting), expected, "{name}");
        }
    }

    #[test]
    fn the_end_of_the_wal_is_after_the_last_record() {
        let at =
            |lsn: &str| InstanceStatus { timeline_id: Some(2), lsn: Some(lsn.to_owned()), ..InstanceStatus::default() };
        let record = Lsn::new(0x300_0028);
        assert!(reaches(&at("0/30000A0"), 2, record));
        assert!(!reaches(&at("0/3000028"), 2, record), "up to the record is not enough");
        assert!(!reaches(&at("0/30000A0"), 1, record));
    }
}
