//! Which operator is in charge of a cluster, if there are several installations.
//!
//! The operators of one namespace elect one of them. An operator of another namespace knows nothing of that election,
//! and if its version is another one, the two would change the same pods for ever. So `status.operator` names the
//! operator that acts. Another one acts only when the Lease of that operator is free, or was seen unchanged for
//! [`GONE_AFTER`] by its own clock. Until then it does not even write the status.

use super::context::ClusterContext;
use crate::deadline::{API_TIMEOUT, within};
use crate::error::Error;
use crate::lease::LEASE;
use crate::own_object;
use holdfast_kube_api::ClusterStatus;
use holdfast_kube_api::cluster::OperatorIdentity;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DynamicObject;
use std::time::Duration;
use tokio::time::Instant;

/// A Lease that was not renewed for this long has no living holder: twice the time after which another operator of its
/// namespace may take it.
const GONE_AFTER: Duration = Duration::from_secs(30);

/// The operator of another namespace that is in charge of the cluster, as far as this one knows.
pub(super) async fn other_in_charge(
    cluster: &DynamicObject,
    context: &ClusterContext,
) -> Result<Option<OperatorIdentity>, Error> {
    // A status that cannot be parsed is reported where it is used.
    let Ok(ClusterStatus { operator: Some(other), .. }) = own_object::status(cluster) else { return Ok(None) };
    if other.namespace == context.operator.me.namespace {
        return Ok(None);
    }
    let api: Api<Lease> = Api::namespaced(context.operator.client.clone(), &other.namespace);
    let read =
        async { api.get_opt(LEASE).await.map_err(|error| Error::api("read the Lease of another operator", error)) };
    let lease = match within(API_TIMEOUT, "reading the Lease of another operator", read).await {
        Ok(lease) => lease,
        // Without the permission to look, the other one counts as alive.
        Err(error) if error.category() == "forbidden" => return Ok(Some(other)),
        Err(error) => return Err(error),
    };
    let alive = lease.is_some_and(|lease| {
        let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        let version = lease.metadata.resource_version.unwrap_or_default();
        let mut others = context.others.lock();
        let seen = others.entry(other.namespace.clone()).or_insert_with(|| (version.clone(), Instant::now()));
        if seen.0 != version {
            *seen = (version, Instant::now());
        }
        !holder.is_empty() && seen.1.elapsed() < GONE_AFTER
    });
    Ok(alive.then_some(other))
}
