//! The manager: looks, decides, does, and looks again.
//!
//! [`run`] sets up what runs beside the loop (the watch of the `Cluster`, the keeper of the Lease, status port, probes,
//! metrics) and then, until it is told to stop: [`observe`] what is there, [`crate::plan::next_step`], [`execute`] the
//! step. [`State`] is what all of them share. A step that takes long is one call; what has to happen meanwhile (renewing
//! the Lease, answering the status port, stopping PostgreSQL when the Lease is lost) happens in the tasks beside.

mod execute;
mod files;
mod keep;
mod observe;
mod run;
mod shutdown;

pub use run::run;

use crate::cluster_watch::Seen;
use crate::identity::{Identity, Places};
use crate::lease::Handle;
use crate::peers::Peers;
use crate::postgres::{Programs, Sql};
use crate::secrets::Secrets;
use crate::state::State;
use holdfast_kube_api::{Backup, Cluster};
use holdfast_pgtypes::WalSegmentSize;
use kube::Api;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;

/// What the manager's parts work with.
#[derive(Debug)]
pub struct Manager {
    /// Who this instance is.
    pub identity: Identity,
    /// Where everything lies.
    pub places: Places,
    /// PostgreSQL's programs.
    pub programs: Programs,
    /// Name of the user that all of this runs as, where the image knows one.
    pub operating_user: Option<String>,
    /// What all parts share.
    pub state: Arc<State>,
    /// The connection to the server.
    pub sql: Arc<Sql>,
    /// The `Cluster`.
    pub cluster: Seen,
    /// Secrets.
    pub secrets: Secrets,
    /// Size of a WAL segment, once there is a data directory; it never changes.
    pub segment_size: OnceLock<Option<WalSegmentSize>>,
    /// The `Backup`s of the namespace, for the one that a recovery refers to.
    pub backup_api: Api<Backup>,
    /// The Lease.
    pub lease: Handle,
    /// The other instances.
    pub peers: Arc<Peers>,
    /// The backup under way.
    pub backups: crate::backup::Runs,
    /// The snapshot under way.
    pub snapshots: crate::snapshot::Runs,
    /// Whether PostgreSQL shall be started anew, for settings that need it.
    pub restart: AtomicBool,
    /// Tripped when the instance shall stop.
    pub stop: CancellationToken,
}

impl Manager {
    /// The `Cluster` as last seen.
    pub fn seen(&self) -> Option<Arc<Cluster>> {
        self.cluster.borrow().clone()
    }

    /// PostgreSQL shall be started anew.
    pub fn request_restart(&self) {
        self.restart.store(true, Ordering::Relaxed);
        self.state.wake();
    }
}
