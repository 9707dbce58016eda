//! What the instance does next. Pure: a function of what was observed, without a clock.
//!
//! The manager's loop looks at volume, `Cluster`, Lease and PostgreSQL, asks [`next_step`], carries the step out, and looks
//! again. No step depends on one before it having been remembered, so a manager that was killed goes on where the volume
//! and the cluster say that it was.
//!
//! The rules that everything else follows from:
//! - a data directory is made only while the `Cluster` has no system identifier, by the instance it names as primary;
//! - PostgreSQL takes writes only on the instance that is named as primary and holds the Lease;
//! - a directory of another system identifier is never touched;
//! - a directory that took writes becomes a standby's only by way of `pg_rewind`, or is copied anew.

mod diverged;

#[cfg(test)]
mod tests;

pub use diverged::{Position, has_diverged};

use crate::volume::{Filling, Found, Progress};
use holdfast_kube_api::status_port::Role;

/// How the `Cluster` wants its first data directory made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `initdb`.
    Initdb,
    /// A restore from an archive.
    Recovery,
    /// A recovery that continues from volume snapshots.
    Snapshot,
}

/// What the `Cluster` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// Its uid.
    pub uid: String,
    /// `status.systemID`
    pub system_id: Option<String>,
    /// `status.targetPrimary`
    pub target_primary: Option<String>,
    /// How the first data directory is made.
    pub method: Method,
}

/// A whole data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// From `pg_control`.
    pub system_id: String,
    /// Whether `standby.signal` is there.
    pub standby: bool,
}

/// What the volume holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volume {
    /// Nothing.
    Empty,
    /// A data directory that is not whole.
    Unfinished(Filling, Progress),
    /// A data directory made from a volume snapshot, to be recovered.
    FromSnapshot(Data),
    /// A whole data directory of this cluster.
    Ready(Data),
    /// Something that is not this cluster's: never touched.
    Foreign(String),
}

/// What PostgreSQL is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// There is no postmaster.
    Stopped,
    /// Started as this, not accepting connections yet.
    Starting(Role),
    /// Accepts connections, and says this of itself.
    Running(Role),
}

/// What the new primary is known to be, from its own status port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrimaryView {
    /// The instance.
    pub instance: String,
    /// Whether this instance's WAL went another way.
    pub diverged: bool,
}

/// Everything that a step is decided from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// This instance.
    pub me: String,
    /// The `Cluster`, once it was seen.
    pub cluster: Option<ClusterView>,
    /// The volume.
    pub volume: Volume,
    /// PostgreSQL.
    pub server: Server,
    /// Whether this instance holds the Lease.
    pub holds_lease: bool,
    /// Whether PostgreSQL must be down for a cold snapshot.
    pub paused: bool,
    /// The primary, when it answers and is one.
    pub primary: Option<PrimaryView>,
    /// Whether `pg_rewind` failed, so that the directory has to be copied anew.
    pub rewind_failed: bool,
}

/// What is done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the first data directory.
    Bootstrap(Method),
    /// Copy the primary.
    Join,
    /// Bring the directory in line with this primary.
    Rewind(String),
    /// Remove the directory, which `pg_rewind` could not help, and copy the primary.
    CopyAnew,
    /// Start PostgreSQL.
    Start(Role),
    /// Take the Lease.
    AcquireLease,
    /// Give the Lease back: PostgreSQL is no primary here.
    ReleaseLease,
    /// End recovery and take writes.
    Promote,
    /// Stop PostgreSQL in an orderly way: another instance is to take writes.
    Demote,
    /// Stop PostgreSQL at once: it takes writes without the Lease.
    Fence,
    /// Stop PostgreSQL in an orderly way, for a cold snapshot.
    Pause,
    /// Nothing: PostgreSQL runs in its role. Keep settings, slots and files up to date.
    Keep,
    /// Nothing: this is waited for.
    Wait(String),
    /// Nothing: somebody has to do something about this.
    Stuck(String, String),
}

/// What the volume holds, from its record and its files.
pub fn classify(found: &Found, cluster: &ClusterView, me: &str) -> Volume {
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
        // The `Cluster` itself was restored, with another uid: its system identifier still knows its volumes.
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

/// What is done next.
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
    match &observed.volume {
        Volume::Foreign(what) => Step::Stuck(
            format!("the volume contains {what}; nothing on it was changed"),
            "give the instance an empty volume, or bootstrap from this one with bootstrap.recovery.volumeSnapshots"
                .to_owned(),
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
            // A standby goes on following meanwhile.
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
        Some(_) if observed.rewind_failed => Step::CopyAnew,
        Some(primary) if !data.standby || primary.diverged => Step::Rewind(primary.instance.clone()),
        // What a primary wrote may be more than the new one has: without it nobody knows.
        None if !data.standby => Step::Wait(match target {
            Some(target) => format!("this data directory was a primary's: waiting for {target} to be the primary"),
            None => "no instance is named as primary".to_owned(),
        }),
        _ => Step::Start(Role::Replica),
    }
}
