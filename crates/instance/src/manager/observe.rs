//! Observing: the input of the decision about the next step.

use super::Manager;
use crate::error::Result;
use crate::plan::{self, ClusterView, Method, Observed, Position, PrimaryView, Server, Volume};
use crate::server_facts;
use crate::volume;
use holdfast_kube_api::status_port::{InstanceStatus, Role};
use holdfast_kube_api::{Backup, Cluster};
use holdfast_pgtypes::TimelineId;
use std::time::Duration;

/// A peer that does not answer within this time is asked again in the next round.
const PEER_LIMIT: Duration = Duration::from_secs(1);

impl Manager {
    /// Observes everything.
    ///
    /// # Errors
    /// When the volume cannot be read.
    pub(super) async fn observe(&self, memory: &super::run::Memory) -> Result<Observed> {
        let seen = self.context.cluster();
        let found = volume::read(&self.context.paths)?;
        // Until there is data, the Backup says whether the volumes were made from snapshots.
        let backup = match seen.as_deref() {
            Some(cluster) if !has_data(cluster, &found) => self.recovery_backup(cluster).await?,
            _ => None,
        };
        let cluster = seen.as_deref().map(|cluster| view(cluster, backup.as_ref()));
        let classified = match &cluster {
            Some(cluster) => plan::classify(&found, cluster, &self.context.identity.instance),
            None => Volume::Empty,
        };
        let whole = matches!(classified, Volume::Ready(_));
        let control = found.control.as_deref().filter(|_| whole);
        self.context.state.set_control(
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
        self.context.state.set_diverged(primary.as_ref().is_some_and(|primary| primary.diverged));
        Ok(Observed {
            me: self.context.identity.instance.clone(),
            cluster,
            volume: classified,
            server,
            holds_lease: self.context.state.holds_lease(),
            wants_lease: self.context.state.wants_lease(),
            paused: self.context.state.paused(),
            primary,
            rewind_failed: memory.rewind_failed,
        })
    }

    /// The state of PostgreSQL.
    async fn server(&self) -> Server {
        let Some(served) = self.context.state.server() else {
            return Server::Stopped;
        };
        server_facts::refresh(&self.context).await;
        match self.context.state.facts() {
            Some(facts) => Server::Running(facts.role),
            None => Server::Starting(served.started_as),
        }
    }

    /// The primary, if another instance reports that it is. It is asked only while this instance does not stream from
    /// it.
    async fn primary(&self, cluster: &ClusterView) -> Option<PrimaryView> {
        let target = cluster.target_primary.clone().filter(|target| *target != self.context.identity.instance)?;
        if self.context.state.facts().is_some_and(|facts| facts.role == Role::Replica && facts.receiving) {
            return Some(PrimaryView { instance: target, diverged: false });
        }
        let answer = self.peers.ask(std::slice::from_ref(&target), PEER_LIMIT).await.pop().flatten()?;
        if answer.role != Some(Role::Primary) || !answer.ready {
            return None;
        }
        let diverged = self.position().is_some_and(|mine| diverged_from(mine, &answer));
        Some(PrimaryView { instance: target, diverged })
    }

    /// The end of this instance's WAL.
    fn position(&self) -> Option<Position> {
        let status = self.context.state.status();
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

/// Whether the cluster or this volume has its data.
fn has_data(cluster: &Cluster, found: &volume::VolumeContent) -> bool {
    let here = found.record.as_ref().is_some_and(|record| {
        record.progress == volume::Progress::Complete && cluster.metadata.uid.as_ref() == Some(&record.cluster_uid)
    });
    here || cluster.status.as_ref().is_some_and(|status| status.system_id.is_some())
}

/// The fields of a `Cluster`, and of the `Backup` that it is recovered from, that decisions need.
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
