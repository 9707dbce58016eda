//! Looking: everything that a step is decided from.

use super::Manager;
use crate::error::Result;
use crate::plan::{self, ClusterView, Method, Observed, Position, PrimaryView, Server, Volume};
use crate::postgres::{self, Sql};
use crate::settings::floor::{self, Needed};
use crate::state::Served;
use crate::volume;
use holdfast_kube_api::status_port::{InstanceStatus, Role};
use holdfast_kube_api::{Backup, Cluster};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId};
use std::time::Duration;

/// A peer that does not answer within this time is asked again at the next look.
const PEER_LIMIT: Duration = Duration::from_secs(1);

impl Manager {
    /// Looks at everything.
    ///
    /// # Errors
    /// When the volume cannot be read.
    pub(super) async fn observe(&self, memory: &super::run::Memory) -> Result<Observed> {
        let seen = self.seen();
        let found = volume::look(&self.places)?;
        // Whether the volumes were made from snapshots is the Backup's to say, until there is data.
        let backup = match seen.as_deref() {
            Some(cluster) if !has_data(cluster, &found) => self.recovery_backup(cluster).await?,
            _ => None,
        };
        let cluster = seen.as_deref().map(|cluster| view(cluster, backup.as_ref()));
        let classified = match &cluster {
            Some(cluster) => plan::classify(&found, cluster, &self.identity.instance),
            None => Volume::Empty,
        };
        let whole = matches!(classified, Volume::Ready(_));
        let control = found.control.as_deref().filter(|_| whole);
        self.state.set_control(
            control.map(|control| control.system_identifier.to_string()),
            control.map(|control| {
                let end = control.min_recovery_point.map_or(control.checkpoint, |point| point.max(control.checkpoint));
                (control.min_recovery_timeline.unwrap_or(control.timeline).max(control.timeline).get(), end.to_string())
            }),
        );
        let server = self.server().await;
        let primary = match &cluster {
            Some(cluster) if whole => self.primary(cluster).await,
            _ => None,
        };
        self.state.set_diverged(primary.as_ref().is_some_and(|primary| primary.diverged));
        Ok(Observed {
            me: self.identity.instance.clone(),
            cluster,
            volume: classified,
            server,
            holds_lease: self.state.holds_lease(),
            paused: self.state.paused(),
            primary,
            rewind_failed: memory.rewind_failed,
        })
    }

    /// What PostgreSQL is doing.
    async fn server(&self) -> Server {
        let Some(served) = self.state.served() else {
            return Server::Stopped;
        };
        self.refresh_facts().await;
        match self.state.facts() {
            Some(facts) => Server::Running(facts.role),
            None => Server::Starting(served.started_as),
        }
    }

    /// Asks the server about itself.
    pub async fn refresh_facts(&self) {
        let Some(Served { isolated, .. }) = self.state.served() else {
            self.state.set_facts(None);
            return;
        };
        match postgres::read_facts(&self.sql).await {
            Ok(mut facts) => {
                if facts.role == Role::Replica {
                    facts.timeline = self.followed_timeline(facts.lsn).max(facts.timeline);
                }
                let history = match (facts.role, facts.timeline) {
                    (Role::Primary, Some(timeline)) if !isolated => self.history(timeline),
                    _ => None,
                };
                if let Some(cluster) = self.seen() {
                    let needed = volume::control(&self.places.pgdata).ok().flatten().as_ref().map(Needed::from);
                    facts.pending_restart |= floor::waits(facts.role, &cluster.spec, needed, &facts.bounds);
                }
                self.state.set_timeline_history(history);
                self.state.set_facts(Some(facts));
            }
            Err(error) => {
                tracing::debug!("{error}");
                // A server that is busy once is not one that is down; one that was never up has said nothing yet.
                if Sql::connect(&self.places, "postgres").await.is_err() {
                    self.state.set_facts(None);
                }
            }
        }
    }

    /// The timeline that a standby's WAL ends on, by the names of the files that hold its end. The server says it only while
    /// it receives, and in a control file that is written at restart points; after a failover both are behind.
    fn followed_timeline(&self, lsn: Option<Lsn>) -> Option<TimelineId> {
        let size = (*self.segment_size.get_or_init(|| {
            volume::control(&self.places.pgdata).ok().flatten().map(|control| control.wal_segment_size)
        }))?;
        let end = lsn?.saturating_sub(1);
        let entries = std::fs::read_dir(self.places.pg_wal()).ok()?;
        let segments = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<SegmentName>().ok());
        segments.filter(|segment| segment.contains(end, size)).map(SegmentName::timeline).max()
    }

    fn history(&self, timeline: TimelineId) -> Option<String> {
        std::fs::read_to_string(self.places.pg_wal().join(format!("{}.history", timeline.hex()))).ok()
    }

    /// The primary, when it is another instance that answers as one. Asked only while it is not known by its own stream.
    async fn primary(&self, cluster: &ClusterView) -> Option<PrimaryView> {
        let target = cluster.target_primary.clone().filter(|target| *target != self.identity.instance)?;
        if self.state.facts().is_some_and(|facts| facts.role == Role::Replica && facts.receiving) {
            return Some(PrimaryView { instance: target, diverged: false });
        }
        let answer = self.peers.ask(std::slice::from_ref(&target), PEER_LIMIT).await.pop().flatten()?;
        if answer.role != Some(Role::Primary) || !answer.ready {
            return None;
        }
        let diverged = self.position().is_some_and(|mine| diverged_from(mine, &answer));
        Some(PrimaryView { instance: target, diverged })
    }

    /// Where this instance's WAL ends.
    fn position(&self) -> Option<Position> {
        let status = self.state.status();
        Some(Position {
            timeline: TimelineId::new(status.timeline_id?)?,
            lsn: status.lsn.as_deref().and_then(|lsn| lsn.parse().ok())?,
        })
    }
}

fn diverged_from(mine: Position, primary: &InstanceStatus) -> bool {
    let Some(timeline) = primary.timeline_id.and_then(TimelineId::new) else { return false };
    plan::has_diverged(mine, timeline, primary.timeline_history.as_deref())
}

/// Whether the cluster has its data, or this volume does.
fn has_data(cluster: &Cluster, found: &volume::Found) -> bool {
    let here = found.record.as_ref().is_some_and(|record| {
        record.progress == volume::Progress::Complete && cluster.metadata.uid.as_ref() == Some(&record.cluster_uid)
    });
    here || cluster.status.as_ref().is_some_and(|status| status.system_id.is_some())
}

/// What matters of a `Cluster`, and of the `Backup` that it is recovered from.
pub(super) fn view(cluster: &Cluster, backup: Option<&Backup>) -> ClusterView {
    let status = cluster.status.as_ref();
    let recovery = cluster.spec.bootstrap.as_ref().and_then(|bootstrap| bootstrap.recovery.as_ref());
    ClusterView {
        uid: cluster.metadata.uid.clone().unwrap_or_default(),
        system_id: status.and_then(|status| status.system_id.clone()),
        target_primary: status.and_then(|status| status.target_primary.clone()),
        method: match recovery {
            Some(recovery) if recovery.volume_snapshots.is_some() || backup.is_some_and(Backup::is_of_snapshots) => {
                Method::Snapshot
            }
            Some(_) => Method::Recovery,
            None => Method::Initdb,
        },
    }
}
