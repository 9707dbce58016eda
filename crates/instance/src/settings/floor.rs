//! What a server in recovery needs at least. Pure.
//!
//! A standby must have room for whatever its primary had: `CheckRequiredParameterValues` (`xlogrecovery.c`) stops one that
//! is given less than the control file says. A Cluster that lowers such a setting reaches its standbys first; they keep
//! the old value until they have replayed the primary's new one.

use holdfast_kube_api::cluster::ClusterSpec;
use holdfast_pgtypes::ControlFile;

/// Settings that are higher in the control file than in the Cluster, to be given on the command line.
pub fn settings(spec: &ClusterSpec, control: &ControlFile) -> Vec<(&'static str, String)> {
    // PostgreSQL's defaults, or ours.
    [
        ("max_connections", control.max_connections, 100),
        ("max_worker_processes", control.max_worker_processes, 32),
        ("max_wal_senders", control.max_wal_senders, 32),
        ("max_prepared_transactions", control.max_prepared_transactions, 0),
        ("max_locks_per_transaction", control.max_locks_per_transaction, 64),
    ]
    .into_iter()
    .filter(|(name, needed, default)| {
        let written = spec.postgresql.parameters.get(*name).and_then(|value| value.trim().parse().ok());
        written.unwrap_or(*default) < *needed
    })
    .map(|(name, needed, _)| (name, needed.to_string()))
    .collect()
}
