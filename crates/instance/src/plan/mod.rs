//! The next step of the instance. Pure: a function of what was observed, without a clock.
//!
//! The manager's loop observes the volume, the `Cluster`, the Lease and PostgreSQL, calls [`next_step`], carries out
//! the step, and observes again. No step depends on the memory of an earlier one, so after a kill the manager continues
//! from the state of the volume and the cluster.
//!
//! The rules that everything else follows from:
//! - a data directory is created only while the `Cluster` has no system identifier, and by the instance that it names
//!   as primary;
//! - PostgreSQL takes writes only on the instance that is named as primary and holds the Lease;
//! - a directory of another system identifier is never touched;
//! - a directory that took writes becomes a standby's only by `pg_rewind`, or is copied again.

mod diverged;

#[cfg(test)]
mod tests;

pub use diverged::{Position, has_diverged};

use crate::volume::{Filling, Progress, VolumeContent};
use holdfast_kube_api::status_port::Role;

/// How the first data directory of the `Cluster` is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Initdb,
    /// A restore from an archive.
    Recovery,
    /// A recovery that continues from volume snapshots.
    Snapshot,
}

/// The fields of the `Cluster` that decisions need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// `metadata.uid`
    pub uid: String,
    /// `status.systemID`
    pub system_id: Option<String>,
    /// `status.targetPrimary`
    pub target_primary: Option<String>,
    /// How the first data directory is created.
    pub method: Method,
}

/// A complete data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The system identifier, from `pg_control`.
    pub system_id: String,
    /// Whether `standby.signal` exists.
    pub standby: bool,
}

/// The content of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volume {
    /// There is no data directory.
    Empty,
    /// A data directory that is not complete.
    Unfinished(Filling, Progress),
    /// A data directory from a volume snapshot, not recovered yet.
    FromSnapshot(Data),
    /// A complete data directory of this cluster.
    Ready(Data),
    /// The same, but its `pg_wal` is empty or missing: the volume of `pg_wal` was lost or exchanged.
    WithoutWal,
    /// Data that is not this cluster's, as text for people: it is never changed.
    Foreign(String),
}

/// The state of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// No postmaster runs.
    Stopped,
    /// Started in this role, not accepting connections yet.
    Starting(Role),
    /// Accepts connections, and reports this role.
    Running(Role),
}

/// The new primary, as its own status port reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrimaryView {
    /// The name of the instance.
    pub instance: String,
    /// Whether this instance's WAL has diverged from its WAL.
    pub diverged: bool,
}

/// The input of the decision about the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The name of this instance.
    pub me: String,
    /// The `Cluster`; `None` until it was seen.
    pub cluster: Option<ClusterView>,
    /// The content of the volume.
    pub volume: Volume,
    /// The state of PostgreSQL.
    pub server: Server,
    /// Whether this instance holds the Lease.
    pub holds_lease: bool,
    /// Whether its keeper may take the Lease.
    pub wants_lease: bool,
    /// Whether PostgreSQL must be stopped for a cold snapshot.
    pub paused: bool,
    /// The primary, if it answers and reports that it is.
    pub primary: Option<PrimaryView>,
    /// Whether `pg_rewind` failed, so that the directory has to be copied again.
    pub rewind_failed: bool,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Create the first data directory.
    Bootstrap(Method),
    /// Copy the primary.
    Join,
    /// Synchronize the directory with this primary by `pg_rewind`.
    Rewind(String),
    /// Remove the directory after a failed `pg_rewind`, and copy the primary.
    CopyAgain,
    /// Start PostgreSQL.
    Start(Role),
    /// Take the Lease.
    AcquireLease,
    /// Release the Lease, or no longer want it: PostgreSQL is not a primary here.
    ReleaseLease,
    /// End recovery and take writes.
    Promote,
    /// Stop PostgreSQL in order: another instance will take writes.
    Demote,
    /// Stop PostgreSQL immediately: it takes writes without the Lease.
    Fence,
    /// Stop PostgreSQL in order, for a cold snapshot.
    Pause,
    /// PostgreSQL runs in its role. Keep settings, slots and files up to date.
    Keep,
    /// Wait; the text says for what.
    Wait(String),
    /// Somebody has to act; the texts are the error and the hint.
    Stuck(String, String),
}

/// The content of the volume, from its record and its files.
pub fn classify(found: &VolumeContent, cluster: &ClusterView, me: &str) -> Volume {
    match classify_data(found, cluster, me) {
        Volume::Ready(_) if !found.has_wal => Volume::WithoutWal,
        other => other,
    }
}

fn classify_data(found: &VolumeContent, cluster: &ClusterView, me: &str) -> Volume {
    let data = found
        .control
        .as_ref()
        .map(|control| Data { system_id: control.system_identifier.to_string(), standby: found.standby_signal });
    match (&found.record, data) {
        (None, None) if !found.has_files => Volume::Empty,
        (None, None) => Volume::Foreign("files that are not a PostgreSQL data directory".to_owned()),
        (Some(record), data) if record.cluster_uid == cluster.uid && record.instance == me => {
            match (record.progress, data) {
                (Progress::Complete, Some(data)) => Volume::Ready(data),
                (Progress::Complete, None) => {
                    Volume::Foreign("a data directory that was complete and has lost its pg_control".to_owned())
                }
                (progress, _) => Volume::Unfinished(record.filling, progress),
            }
        }
        (_, Some(data)) if cluster.system_id.is_none() && cluster.method == Method::Snapshot => {
            Volume::FromSnapshot(data)
        }
        // The `Cluster` itself was restored with another uid: its system identifier still matches its volumes.
        (Some(record), Some(data))
            if cluster.system_id.as_ref() == Some(&data.system_id) && record.progress == Progress::Complete =>
        {
            Volume::Ready(data)
        }
        (Some(record), _) => Volume::Foreign(format!("the data of instance {} of another cluster", record.instance)),
        (None, Some(data)) if cluster.system_id.as_ref() == Some(&data.system_id) => Volume::Ready(data),
        (None, Some(data)) => {
            Volume::Foreign(format!("a data directory with the system identifier {}", data.system_id))
        }
    }
}

/// Decides the next step.
pub fn next_step(observed: &Observed) -> Step {
    let Some(cluster) = &observed.cluster else {
        return Step::Wait("the Cluster has not been read yet".to_owned());
    };
    // Whatever else is wrong: no writes without the Lease.
    let writes = matches!(observed.server, Server::Running(Role::Primary) | Server::Starting(Role::Primary));
    if writes && !observed.holds_lease {
        return Step::Fence;
    }
    let target = cluster.target_primary.as_deref();
    let chosen = target == Some(observed.me.as_str());
    // An instance that is no longer named must not take the Lease later, when nobody expects it.
    if observed.wants_lease && !chosen && !writes {
        return Step::ReleaseLease;
    }
    match &observed.volume {
        Volume::Foreign(what) => Step::Stuck(
            format!("the volume contains {what}; nothing on it was changed"),
            "give the instance an empty volume, or bootstrap from this one with bootstrap.recovery.volumeSnapshots"
                .to_owned(),
        ),
        Volume::WithoutWal => Step::Stuck(
            "the data directory is complete, but pg_wal has no WAL: its volume is not the one that belongs to it; \
             nothing was changed"
                .to_owned(),
            format!(
                "bring the volume of pg_wal back. If it is lost, changes since the last checkpoint are lost with it: \
                 let another instance become the primary, then delete pod and claims of {} to copy it again, or \
                 recover into a new cluster from the archive",
                observed.me
            ),
        ),
        Volume::Empty | Volume::Unfinished(..) => without_data(observed, cluster, chosen, target),
        Volume::FromSnapshot(_) if chosen => Step::Bootstrap(Method::Snapshot),
        Volume::FromSnapshot(_) => waiting_for_first(target),
        Volume::Ready(data) => with_data(observed, cluster, data, chosen, target),
    }
}

fn waiting_for_first(target: Option<&str>) -> Step {
    Step::Wait(match target {
        Some(first) => format!("instance {first} creates the first data directory"),
        None => "no instance is named as primary yet".to_owned(),
    })
}

fn without_data(observed: &Observed, cluster: &ClusterView, chosen: bool, target: Option<&str>) -> Step {
    match (&cluster.system_id, chosen) {
        (None, true) => Step::Bootstrap(cluster.method),
        (None, false) => waiting_for_first(target),
        (Some(_), true) => Step::Stuck(
            format!("{} is named as primary but has no complete data directory", observed.me),
            "the data is on another instance or in the archive: let another instance become the primary, or recover \
             a new cluster from the archive"
                .to_owned(),
        ),
        (Some(_), false) if target.is_none() => waiting_for_first(None),
        (Some(_), false) => Step::Join,
    }
}

fn with_data(observed: &Observed, cluster: &ClusterView, data: &Data, chosen: bool, target: Option<&str>) -> Step {
    if let Some(expected) = &cluster.system_id
        && *expected != data.system_id
    {
        return Step::Stuck(
            format!(
                "the data directory has the system identifier {}, but the cluster's is {expected}; nothing was changed",
                data.system_id
            ),
            "it belongs to another cluster: give the instance an empty volume".to_owned(),
        );
    }
    if observed.paused {
        return match observed.server {
            Server::Stopped => Step::Wait("a cold snapshot is being taken".to_owned()),
            _ => Step::Pause,
        };
    }
    if chosen {
        return match (observed.holds_lease, observed.server) {
            // A standby continues to follow meanwhile.
            (false, _) => Step::AcquireLease,
            (true, Server::Stopped) => Step::Start(if data.standby { Role::Replica } else { Role::Primary }),
            (true, Server::Starting(_)) => Step::Wait("PostgreSQL is starting".to_owned()),
            (true, Server::Running(Role::Primary)) => Step::Keep,
            (true, Server::Running(Role::Replica)) => Step::Promote,
        };
    }
    match observed.server {
        Server::Running(Role::Primary) | Server::Starting(Role::Primary) => Step::Demote,
        Server::Stopped | Server::Starting(Role::Replica) | Server::Running(Role::Replica) if observed.holds_lease => {
            Step::ReleaseLease
        }
        Server::Stopped => stopped_standby(observed, data, target),
        Server::Starting(Role::Replica) | Server::Running(Role::Replica) => match &observed.primary {
            Some(primary) if primary.diverged => Step::Rewind(primary.instance.clone()),
            _ if matches!(observed.server, Server::Running(_)) => Step::Keep,
            _ => Step::Wait("PostgreSQL is starting".to_owned()),
        },
    }
}

fn stopped_standby(observed: &Observed, data: &Data, target: Option<&str>) -> Step {
    match &observed.primary {
        Some(_) if observed.rewind_failed => Step::CopyAgain,
        Some(primary) if !data.standby || primary.diverged => Step::Rewind(primary.instance.clone()),
        // A former primary may have more WAL than the new one: this is not known before the new one answers.
        None if !data.standby => Step::Wait(match target {
            Some(target) => format!("this data directory was a primary's: waiting for {target} to be the primary"),
            None => "no instance is named as primary".to_owned(),
        }),
        _ => Step::Start(Role::Replica),
    }
}
