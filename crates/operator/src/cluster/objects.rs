//! Reading the rarely changed objects of a cluster: services, permissions, the disruption budget, the `PodMonitor`.
//!
//! Each kind is read by itself. A kind that cannot be read is left as it is, and stops nothing else.

use super::context::ClusterContext;
use super::observed::{Apis, BudgetApi, Foreign, Kind};
use super::ownership::of_cluster;
use crate::deadline::{API_TIMEOUT, within};
use crate::error::{Error, is_not_found};
use futures::future::join_all;
use holdfast_kube_api::names;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Whether optional APIs exist is read this often: a CRD may be installed at any time.
const APIS: Duration = Duration::from_mins(5);

/// The objects that were read.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) kinds: BTreeSet<Kind>,
    pub(super) all: BTreeMap<(Kind, String), Value>,
    pub(super) foreign: Vec<Foreign>,
    /// What was being read, and the error.
    pub(super) failures: Vec<(String, Error)>,
}

pub(super) async fn read_objects(
    context: &ClusterContext,
    namespace: &str,
    (cluster, uid): (&str, &str),
    label: &ListParams,
    apis: Apis,
) -> Objects {
    let mut kinds = vec![Kind::Service, Kind::ServiceAccount, Kind::Role, Kind::RoleBinding];
    if apis.disruption_budget.is_some() {
        kinds.push(Kind::PodDisruptionBudget);
    }
    if apis.pod_monitor {
        kinds.push(Kind::PodMonitor);
    }
    let read = join_all(kinds.into_iter().map(|kind| async move {
        let api: Api<DynamicObject> =
            Api::namespaced_with(context.operator.client.clone(), namespace, &resource(kind, apis));
        let mut others = Vec::new();
        let work = dynamic_of_cluster(&api, kind, label, uid, wanted(kind, cluster), &mut others);
        let found = within(API_TIMEOUT, "reading the cluster's objects", work).await;
        (kind, found, others)
    }))
    .await;
    let mut objects = Objects::default();
    for (kind, found, others) in read {
        match found {
            Ok(found) => {
                objects.kinds.insert(kind);
                objects.all.extend(found.into_iter().map(|(name, value)| ((kind, name), value)));
                objects.foreign.extend(others);
            }
            Err(error) => objects.failures.push((format!("list {}s", kind.name()), error)),
        }
    }
    objects
}

/// The names that objects of the cluster have.
fn wanted(kind: Kind, cluster: &str) -> Vec<String> {
    match kind {
        Kind::Service => vec![
            names::read_write_service(cluster),
            names::read_only_service(cluster),
            names::read_service(cluster),
            names::headless_service(cluster),
        ],
        Kind::ServiceAccount | Kind::Role | Kind::RoleBinding => vec![names::service_account(cluster)],
        Kind::PodDisruptionBudget | Kind::PodMonitor => vec![cluster.to_owned()],
    }
}

async fn dynamic_of_cluster(
    api: &Api<DynamicObject>,
    kind: Kind,
    label: &ListParams,
    uid: &str,
    wanted: Vec<String>,
    others: &mut Vec<Foreign>,
) -> Result<BTreeMap<String, Value>, Error> {
    let found = of_cluster(api, kind.name(), label, uid, wanted, others).await?;
    let values = found.into_iter().map(|(name, object)| {
        let value = serde_json::to_value(&object)
            .map_err(|source| Error::Malformed { what: format!("{} {name}", kind.name()), source })?;
        Ok((name, without_type(value)))
    });
    values.collect()
}

/// Items of a list have no `apiVersion` and `kind`, but the objects compared with them do.
fn without_type(mut value: Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
        map.remove("types");
    }
    value
}

pub(crate) fn resource(kind: Kind, apis: Apis) -> ApiResource {
    let (group, version, plural) = kind.resource(apis);
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind.name()), plural)
}

/// Which optional APIs the API server has. If it cannot be looked up, what was known before counts: one broken API must
/// not stop the reconciles of all clusters.
pub(super) async fn apis(context: &ClusterContext) -> Result<Apis, Error> {
    let mut known = context.apis.lock().await;
    if let Some((at, apis)) = known.as_ref()
        && at.elapsed() < APIS
    {
        return Ok(*apis);
    }
    let apis = match (look_up(context).await, known.as_ref()) {
        (Ok(apis), _) => apis,
        (Err(error), Some((_, before))) => {
            tracing::warn!(error = error.in_full(), "cannot look up which APIs there are; those of before count");
            *before
        }
        (Err(error), None) => return Err(error),
    };
    *known = Some((Instant::now(), apis));
    Ok(apis)
}

async fn look_up(context: &ClusterContext) -> Result<Apis, Error> {
    let client = &context.operator.client;
    let has = |version: &'static str, plural: &'static str| async move {
        match client.list_api_group_resources(version).await {
            Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == plural)),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(Error::api(format!("look up the API {version}"), error)),
        }
    };
    let (v1, v1beta1, pod_monitor) = tokio::try_join!(
        has("policy/v1", "poddisruptionbudgets"),
        has("policy/v1beta1", "poddisruptionbudgets"),
        has("monitoring.coreos.com/v1", "podmonitors"),
    )?;
    let disruption_budget = match (v1, v1beta1) {
        (true, _) => Some(BudgetApi::V1),
        (false, true) => Some(BudgetApi::V1Beta1),
        (false, false) => None,
    };
    Ok(Apis { disruption_budget, pod_monitor })
}
