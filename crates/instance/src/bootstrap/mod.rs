//! How an instance gets its data directory.
//!
//! Every way first records on the volume that it has begun. At the end it syncs the file system and records that the
//! directory is complete ([`crate::volume`]). The next start finds a kill in between: `initdb` and copies begin again
//! with an empty directory, and a restore continues where it was.
//!
//! - [`initdb`]: a new cluster
//! - [`recovery`]: from an archive or from volume snapshots, up to a target; `fields`: its errors in the words of a
//!   Cluster
//! - [`join`]: a copy of the primary
//! - [`isolated`]: the server while only the manager may connect
//! - [`roles`]: what every cluster has: the replication user, the application's owner and database
//! - [`claim`]: claims the archive before anything can be written into it

pub mod claim;
mod fields;
pub mod initdb;
pub mod isolated;
pub mod join;
pub mod recovery;
pub mod roles;

use crate::error::Result;
use crate::identity::{Identity, Paths};
use crate::postgres::Programs;
use crate::secrets::Secrets;
use crate::settings::wire::Wire;
use crate::state::State;
use crate::volume::{Filling, Progress, Record, sync_file_system, write_record};
use holdfast_kube_api::Cluster;
use holdfast_kube_api::cluster::BootstrapProgress;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What all ways need.
#[derive(Debug)]
pub struct Bootstrap<'a> {
    /// The identity of this instance.
    pub identity: &'a Identity,
    /// The paths of this instance.
    pub paths: &'a Paths,
    /// The paths of PostgreSQL's programs.
    pub programs: &'a Programs,
    /// Name of the operating system user that runs the server.
    pub operating_user: Option<&'a str>,
    /// The `Cluster`, as it was last seen.
    pub cluster: Arc<Cluster>,
    /// Reads Secrets.
    pub secrets: &'a Secrets,
    /// The shared state of the instance.
    pub state: &'a Arc<State>,
    /// Cancelled when the instance must stop.
    pub stop: &'a CancellationToken,
}

impl Bootstrap<'_> {
    /// Records the progress of the directory.
    ///
    /// # Errors
    /// When the volume cannot be written.
    pub fn record(&self, filling: Filling, progress: Progress) -> Result<()> {
        let uid = self.cluster.metadata.uid.as_deref().unwrap_or_default();
        write_record(&self.paths.data_mount, &Record::new(uid, &self.identity.instance, filling, progress))
    }

    /// Syncs everything in the directory, then records that it is complete.
    ///
    /// # Errors
    /// When the volume cannot be synced or written.
    pub fn record_complete(&self, filling: Filling) -> Result<()> {
        self.sync()?;
        self.record(filling, Progress::Complete)
    }

    /// Syncs everything that was written.
    ///
    /// # Errors
    /// When the file system cannot be synced.
    pub fn sync(&self) -> Result<()> {
        sync_file_system(&self.paths.pgdata)?;
        match &self.paths.wal_directory {
            Some(wal) if wal.is_dir() => sync_file_system(wal),
            _ => Ok(()),
        }
    }

    /// Sets the current step of the bootstrap for the status.
    pub fn step(&self, method: &str, step: &str) {
        tracing::info!(method, "{step}");
        self.state.set_bootstrap(Some(BootstrapProgress {
            method: method.to_owned(),
            step: step.to_owned(),
            ..BootstrapProgress::default()
        }));
    }

    /// How instances connect to PostgreSQL on each other.
    ///
    /// # Errors
    /// When the replication user's key cannot be read.
    pub fn wire(&self) -> Result<Wire> {
        Wire::choose(self.programs.has_tls(), self.paths)
    }

    /// The owner of the cluster's archive.
    pub fn owner(&self) -> String {
        owner(self.identity, &self.cluster)
    }
}

/// The owner of the cluster's archive: `<namespace>/<cluster>/<uid>`.
pub fn owner(identity: &Identity, cluster: &Cluster) -> String {
    format!("{}/{}/{}", identity.namespace, identity.cluster, cluster.metadata.uid.as_deref().unwrap_or_default())
}
