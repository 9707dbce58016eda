//! `Backup`, `ScheduledBackup` and volume snapshots.
//!
//! A reconcile is read, decide, act, write the status. Unlike the cluster's, a backup's actions come before its status.
//! They are requests to one instance; they can be repeated, and the instance itself remembers them. So a status
//! `running` always means that the instance took the request. If a status was not written, the instance's answer shows
//! the run again.
//!
//! - [`backup`]: one backup, into the object store or as snapshots: its turn, its instance, and following it to its end
//! - [`snapshot`]: the steps of volume snapshots
//! - [`target`]: which instance is backed up
//! - [`cluster_view`]: what decisions see of a cluster
//! - [`schedule`]: backups at scheduled times
//! - [`event`]: the closed set of reasons of Events

pub mod backup;
mod clock;
pub mod cluster_view;
mod condition;
mod context;
pub mod event;
pub mod failure;
#[cfg(test)]
mod fixture;
pub mod schedule;
pub mod snapshot;
pub mod target;

use crate::context::Context;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Runs the controllers of `Backup` and `ScheduledBackup` until they are cancelled.
pub async fn run(context: Arc<Context>, cancellation: CancellationToken) {
    let shared = Arc::new(context::BackupsContext::new(context));
    tokio::join!(backup::run(Arc::clone(&shared), cancellation.clone()), schedule::run(shared, cancellation));
}
