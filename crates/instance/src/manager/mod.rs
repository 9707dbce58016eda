//! The manager: looks, decides, does, and looks again.
//!
//! [`run`] sets up what runs beside the loop (the watch of the `Cluster`, the keeper of the Lease, status port, probes,
//! metrics) and then, until it is told to stop: [`observe`] what is there, [`crate::plan::next_step`], [`execute`] the
//! step. [`Context`] is what all of them share. A step that takes long is one call; what has to happen meanwhile (renewing
//! the Lease, answering the status port, stopping PostgreSQL when the Lease is lost) happens in the tasks beside.

mod execute;
mod files;
mod keep;
mod observe;
mod run;
mod shutdown;

pub use run::run;

use crate::context::Context;
use crate::lease::Handle;
use crate::peers::Peers;
use crate::postgres::Programs;
use crate::secrets::Secrets;
use holdfast_kube_api::Backup;
use kube::Api;
use std::sync::Arc;

/// What the loop works with.
#[derive(Debug)]
pub struct Manager {
    /// What it shares with the services.
    context: Arc<Context>,
    /// PostgreSQL's programs.
    programs: Programs,
    /// Name of the user that all of this runs as, where the image knows one.
    operating_user: Option<String>,
    /// Secrets.
    secrets: Secrets,
    /// The `Backup`s of the namespace, for the one that a recovery refers to.
    backup_api: Api<Backup>,
    /// The Lease.
    lease: Handle,
    /// The other instances.
    peers: Arc<Peers>,
}
