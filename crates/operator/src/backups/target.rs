//! Which instance is backed up.
//!
//! A standby's backup is complete only after the primary has archived the WAL up to its stop. So without a primary no
//! instance is chosen: the backup waits instead of failing after its data was copied.

use super::cluster_view::{ClusterView, InstanceView};
use holdfast_kube_api::cluster::BackupTarget;
use holdfast_kube_api::status_port::Role;
use holdfast_pgtypes::Lsn;
use std::cmp::Reverse;

/// What the instance is needed for.
#[derive(Debug, Clone, Copy)]
pub struct TargetRequest<'a> {
    /// The target that the `Backup` or the `Cluster` names.
    pub target: BackupTarget,
    /// Whether the server has to be stopped.
    pub cold: bool,
    /// The instance of the failed attempt before: another one of the same rank is preferred.
    pub failed: Option<&'a str>,
}

/// The chosen instance, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Instance {
        name: String,
        /// A warning about the choice, for people.
        warning: Option<String>,
    },
    /// No instance now; the text says why.
    Wait(String),
}

/// Chooses the instance.
pub fn choose(cluster: &ClusterView, request: TargetRequest<'_>) -> Choice {
    let Some(primary) = cluster.primary() else {
        return Choice::Wait(format!("cluster {} has no primary that is ready{}", cluster.name, doing(cluster)));
    };
    let standby = best_standby(cluster, primary, request.failed);
    let alone = cluster.desired_instances <= 1 && cluster.instances.len() <= 1;
    match (request.cold, request.target, standby) {
        (true, BackupTarget::Primary, Some(standby)) => Choice::Instance {
            name: standby.name.clone(),
            warning: Some(format!(
                "a cold snapshot stops its server, so standby {} is used instead of the primary {}",
                standby.name, primary.name
            )),
        },
        (_, BackupTarget::PreferStandby, Some(standby)) => {
            Choice::Instance { name: standby.name.clone(), warning: None }
        }
        (true, _, None) if alone => Choice::Instance {
            name: primary.name.clone(),
            warning: Some(format!(
                "{} is the only instance of cluster {}: it accepts no connections while the cold snapshot is taken",
                primary.name, cluster.name
            )),
        },
        (true, _, None) => Choice::Wait(format!(
            "a cold snapshot stops its server, and cluster {} has no standby that is ready{}",
            cluster.name,
            doing(cluster)
        )),
        (false, _, _) => Choice::Instance { name: primary.name.clone(), warning: None },
    }
}

/// The standby with the most WAL that is ready and on the primary's timeline. Among equals: one that is streaming, then
/// one that did not just fail, then the lowest number.
fn best_standby<'a>(
    cluster: &'a ClusterView,
    primary: &InstanceView,
    failed: Option<&str>,
) -> Option<&'a InstanceView> {
    let timeline = primary.status.as_ref().and_then(|status| status.timeline_id);
    cluster
        .instances
        .iter()
        .filter(|instance| instance.is_usable(Role::Replica))
        .filter_map(|instance| Some((instance, instance.status.as_ref()?)))
        .filter(|(_, status)| timeline.is_none() || status.timeline_id.is_none() || status.timeline_id == timeline)
        .min_by_key(|(instance, status)| {
            (
                failed == Some(instance.name.as_str()),
                Reverse(status.lsn.as_deref().and_then(|lsn| lsn.parse::<Lsn>().ok())),
                !status.receiving,
                instance.serial,
            )
        })
        .map(|(instance, _)| instance)
}

/// What the instances do instead of being ready, for the reason of a wait.
fn doing(cluster: &ClusterView) -> String {
    let said: Vec<String> = cluster
        .instances
        .iter()
        .filter_map(|instance| match &instance.status {
            None => Some(format!("{} does not answer", instance.name)),
            Some(status) if !status.ready && !status.message.is_empty() => {
                Some(format!("{}: {}", instance.name, status.message))
            }
            Some(_) => None,
        })
        .collect();
    if said.is_empty() { String::new() } else { format!(" ({})", said.join("; ")) }
}

#[cfg(test)]
mod tests;
