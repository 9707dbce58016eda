//! What the manager's loop shares with the services: the status port, the metrics, archiving, backups and snapshots.
//!
//! The loop decides and acts ([`crate::manager`]). A service reads the [`State`] and queries PostgreSQL. It may begin a
//! backup or a snapshot, and may ask the loop for something by [`Context::request_restart`] or [`State::set_paused`].
//! What only the loop needs, such as the Lease and the Secrets, is not here.

use crate::cluster_watch::LatestCluster;
use crate::current_run::CurrentRun;
use crate::identity::{Identity, Paths};
use crate::postgres::Sql;
use crate::space;
use crate::state::State;
use crate::volume;
use holdfast_kube_api::Cluster;
use holdfast_kube_api::status_port::InstanceStatus;
use holdfast_pgtypes::WalSegmentSize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What the loop and the services share.
#[derive(Debug)]
pub struct Context {
    /// The identity of this instance.
    pub identity: Identity,
    /// The paths of this instance.
    pub paths: Paths,
    /// The state of the instance.
    pub state: Arc<State>,
    /// The manager's connection to the server.
    pub sql: Sql,
    /// The `Cluster`, as it was last seen.
    pub latest_cluster: LatestCluster,
    pub backups: CurrentRun<()>,
    /// The current snapshot; its signal says that the operator has taken the volume snapshots.
    pub snapshots: CurrentRun<Arc<Notify>>,
    /// Cancelled when the instance must stop.
    pub stop: CancellationToken,
    restart: AtomicBool,
    segment_size: OnceLock<WalSegmentSize>,
}

impl Context {
    /// A context without a backup or a snapshot.
    pub fn new(
        identity: Identity,
        paths: Paths,
        state: Arc<State>,
        latest_cluster: LatestCluster,
        stop: CancellationToken,
    ) -> Self {
        Self {
            sql: Sql::new(&paths),
            identity,
            paths,
            state,
            latest_cluster,
            backups: CurrentRun::default(),
            snapshots: CurrentRun::default(),
            stop,
            restart: AtomicBool::new(false),
            segment_size: OnceLock::new(),
        }
    }

    /// The `Cluster`, once it was seen.
    pub fn cluster(&self) -> Option<Arc<Cluster>> {
        self.latest_cluster.borrow().clone()
    }

    /// The answer of the status port, with what this instance knows of the `Cluster` and of its volumes.
    pub fn status(&self) -> InstanceStatus {
        let mut status = InstanceStatus { volumes: space::measure(&self.paths), ..self.state.status() };
        if let Some(known) = self.latest_cluster.borrow().as_ref().and_then(|cluster| cluster.status.as_ref()) {
            status.target_primary.clone_from(&known.target_primary);
            status.instance_names.clone_from(&known.instance_names);
        }
        status
    }

    /// Asks the loop to restart PostgreSQL, for settings that need it.
    pub fn request_restart(&self) {
        self.restart.store(true, Ordering::Relaxed);
        self.state.wake();
    }

    /// Whether a restart was requested since this was last asked.
    pub fn take_restart_request(&self) -> bool {
        self.restart.swap(false, Ordering::Relaxed)
    }

    /// Size of a WAL segment; `None` without a data directory. It never changes, so it is read only once.
    pub fn segment_size(&self) -> Option<WalSegmentSize> {
        if let Some(known) = self.segment_size.get() {
            return Some(*known);
        }
        let size = volume::control(&self.paths.pgdata).ok().flatten()?.wal_segment_size;
        Some(*self.segment_size.get_or_init(|| size))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;
    use std::path::Path;
    use tokio::sync::watch;

    #[test]
    fn the_segment_size_is_read_when_there_is_a_data_directory() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity {
            instance: "main-1".to_owned(),
            pod_uid: "uid".to_owned(),
            namespace: "db".to_owned(),
            cluster: "main".to_owned(),
        };
        let paths = Paths::below(folder.path(), Path::new("/bin/true"), 5432);
        let control = paths.pgdata.join("global/pg_control");
        let state = Arc::new(State::new(&identity, 18));
        let context = Context::new(identity, paths, state, watch::channel(None).1, CancellationToken::new());
        assert_eq!(context.segment_size(), None, "the status port may be asked before there is a data directory");
        std::fs::create_dir_all(control.parent().unwrap()).unwrap();
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../pgtypes/tests/fixtures/pg_control.18");
        std::fs::copy(sample, &control).unwrap();
        let size = context.segment_size();
        assert!(size.is_some());
        std::fs::remove_file(&control).unwrap();
        assert_eq!(context.segment_size(), size, "it never changes");
    }
}
