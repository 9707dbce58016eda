//! `Backup`, `ScheduledBackup` and volume snapshots.
//!
//! A reconcile is read, decide, act, write the status. Unlike the cluster's, a backup's actions come before its status:
//! they are requests to one instance, which can be repeated and which the instance itself remembers, so that a status
//! that says `running` always means that the instance took the request; one whose status was not written any more is
//! recognised by what the instance says.
//!
//! - [`backup`]: one backup, into the object store or as snapshots: whose turn, which instance, following it to its end
//! - [`snapshot`]: the steps of volume snapshots
//! - [`target`]: which instance is backed up
//! - [`cluster_view`]: what decisions see of a cluster
//! - [`schedule`]: backups at set times
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
