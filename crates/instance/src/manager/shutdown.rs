//! Shutdown: stops PostgreSQL in order, with everything streamed or archived ([`super::stop`]), and then releases the
//! Lease.

use super::Manager;
use holdfast_kube_api::status_port::InstancePhase;
use std::time::Duration;

/// CloudNativePG's default of `stopDelay`.
const STOP_DELAY: u64 = 1800;
/// The default of `smartShutdownTimeout`: while sessions end by themselves, nobody can connect.
const SMART_SHUTDOWN_TIMEOUT: u64 = 0;
/// This much of the pod's time for its end is kept for an immediate stop and for the Lease.
const RESERVE: u64 = 10;
/// Releasing the Lease takes one request, to an API server that may be slow.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);

impl Manager {
    /// Stops everything, in the order that lets a new primary take over soonest.
    pub(super) async fn shut_down(&self) {
        self.context.state.set_phase(InstancePhase::Stopping, "stopping PostgreSQL");
        let delay = self.context.cluster().and_then(|cluster| cluster.spec.stop_delay);
        let delay = delay.and_then(|delay| u64::try_from(delay).ok()).unwrap_or(STOP_DELAY);
        let limit = Duration::from_secs(delay.saturating_sub(RESERVE).max(1));
        self.context.backups.close().await;
        self.context.snapshots.close().await;
        let sessions = self.context.cluster().and_then(|cluster| cluster.spec.smart_shutdown_timeout);
        let sessions = sessions.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(SMART_SHUTDOWN_TIMEOUT);
        self.stop_primary(Duration::from_secs(sessions), limit).await;
        // Also a wish that was not fulfilled.
        self.lease.give_back(GIVE_BACK_WITHIN).await;
        tracing::info!("the instance has stopped");
    }
}
