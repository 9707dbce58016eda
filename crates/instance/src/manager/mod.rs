//! The manager: observes, decides, acts, and observes again.
//!
//! [`run`] starts what runs in parallel to the loop (the watch of the `Cluster`, the keeper of the Lease, status port,
//! probes, metrics). Then, until it is told to stop: [`observe`] the state, [`crate::plan::next_step`], [`execute`] the
//! step. All share the [`Context`]. A long step is one call. What has to happen meanwhile (renewing the Lease,
//! answering on the status port, stopping PostgreSQL when the Lease is lost) happens in the parallel tasks.

mod execute;
mod files;
mod keep;
mod observe;
mod problems;
mod run;
mod shutdown;
mod stop;

#[cfg(test)]
mod tests;

pub use run::run;

use crate::context::Context;
use crate::lease::Handle;
use crate::peers::Peers;
use crate::postgres::Programs;
use crate::secrets::Secrets;
use holdfast_kube_api::Backup;
use kube::Api;
use std::sync::Arc;

/// What the loop needs.
#[derive(Debug)]
pub struct Manager {
    /// What it shares with the services.
    context: Arc<Context>,
    /// PostgreSQL's programs.
    programs: Programs,
    /// Name of the operating system user, if the image knows one.
    operating_user: Option<String>,
    /// Reads Secrets.
    secrets: Secrets,
    /// The `Backup`s of the namespace, for the one that a recovery refers to.
    backup_api: Api<Backup>,
    /// The manager's side of the keeper of the Lease.
    lease: Handle,
    /// The other instances of the cluster.
    peers: Arc<Peers>,
}
