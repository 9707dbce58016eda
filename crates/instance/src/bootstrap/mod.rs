//! How an instance comes to its data directory.
//!
//! Every way begins by recording on the volume what is begun, and ends by syncing the file system and recording that the
//! directory is whole ([`crate::volume`]). A kill in between is found at the next start: `initdb` and copies begin again
//! with an empty directory, a restore goes on where it was.
//!
//! - [`initdb`]: a new cluster
//! - [`recovery`]: from an archive or from volume snapshots, up to a target; `fields`: what is wrong with it, in a
//!   Cluster's words
//! - [`join`]: a copy of the primary
//! - [`isolated`]: the server while nobody but the manager may reach it
//! - [`roles`]: what every cluster of ours has: the replication user, the application's owner and database
//! - [`claim`]: the archive is claimed before anything can be written into it

pub mod claim;
mod fields;
pub mod initdb;
pub mod isolated;
pub mod join;
pub mod recovery;
pub mod roles;

use crate::error::Result;
use crate::identity::{Identity, Places};
use crate::postgres::Programs;
use crate::secrets::Secrets;
use crate::settings::wire::Wire;
use crate::state::State;
use crate::volume::{Filling, Progress, Record, sync_file_system, write_record};
use holdfast_kube_api::Cluster;
use holdfast_kube_api::cluster::BootstrapProgress;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What the ways work with.
#[derive(Debug)]
pub struct Bootstrap<'a> {
    /// Who this instance is.
    pub identity: &'a Identity,
    /// Where everything lies.
    pub places: &'a Places,
    /// PostgreSQL's programs.
    pub programs: &'a Programs,
    /// Name of the user that the server runs as.
    pub operating_user: Option<&'a str>,
    /// The `Cluster`.
    pub cluster: Arc<Cluster>,
    /// Secrets.
    pub secrets: &'a Secrets,
    /// What all parts share.
    pub state: &'a Arc<State>,
    /// Tripped when the instance must stop.
    pub stop: &'a CancellationToken,
}

impl Bootstrap<'_> {
    /// Records how far the directory is.
    ///
    /// # Errors
    /// When the volume cannot be written.
    pub fn record(&self, filling: Filling, progress: Progress) -> Result<()> {
        let uid = self.cluster.metadata.uid.as_deref().unwrap_or_default();
        write_record(&self.places.data_mount, &Record::new(uid, &self.identity.instance, filling, progress))
    }

    /// Records that the directory is whole, after everything in it is on its disk.
    ///
    /// # Errors
    /// When the volume cannot be synced or written.
    pub fn record_complete(&self, filling: Filling) -> Result<()> {
        self.sync()?;
        self.record(filling, Progress::Complete)
    }

    /// Everything written is on its disk.
    ///
    /// # Errors
    /// When a disk says so.
    pub fn sync(&self) -> Result<()> {
        sync_file_system(&self.places.pgdata)?;
        match &self.places.wal_directory {
            Some(wal) if wal.is_dir() => sync_file_system(wal),
            _ => Ok(()),
        }
    }

    /// Says which step bootstrap is at.
    pub fn step(&self, method: &str, step: &str) {
        tracing::info!(method, "{step}");
        self.state.set_bootstrap(Some(BootstrapProgress {
            method: method.to_owned(),
            step: step.to_owned(),
            ..BootstrapProgress::default()
        }));
    }

    /// How instances speak PostgreSQL to each other.
    ///
    /// # Errors
    /// When the replication user's key cannot be read.
    pub fn wire(&self) -> Result<Wire> {
        Wire::choose(self.programs.has_tls(), self.places)
    }

    /// Who writes into the cluster's archive.
    pub fn owner(&self) -> String {
        owner(self.identity, &self.cluster)
    }
}

/// Who writes into the cluster's archive: `<namespace>/<cluster>/<uid>`.
pub fn owner(identity: &Identity, cluster: &Cluster) -> String {
    format!("{}/{}/{}", identity.namespace, identity.cluster, cluster.metadata.uid.as_deref().unwrap_or_default())
}
