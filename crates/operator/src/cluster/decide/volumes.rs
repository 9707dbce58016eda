//! Claims: one for the data directory of each instance, and one more if WAL has its own volume.
//!
//! A claim is created once. After that only its size changes, and it only grows. A claim is deleted only if its
//! instance has left the list, its pod is gone, and the list has its full length; and then it is kept for a while
//! ([`removal_delay`]). The claims of an instance belong together: without the volume of its WAL a data directory is
//! not started, and never gets an empty one instead.

use super::plan::Origin;
use super::plan::Plan;
use crate::cluster::decision::{Action, Reason};
use chrono::{DateTime, Duration, SecondsFormat, Utc};
use holdfast_kube_api::cluster::{StorageConfiguration, VolumeSummary};
use holdfast_kube_api::names;
use holdfast_kube_api::quantity::bytes_or_number;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, TypedLocalObjectReference};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The size if the manifest names none.
const DEFAULT_SIZE: &str = "1Gi";
/// Whether one of the claims of an instance is being deleted.
pub(super) fn is_going(plan: &Plan<'_>, instance: &str) -> bool {
    let claims = [instance.to_owned(), names::wal_claim(instance)];
    let mut found = claims.iter().filter_map(|name| plan.observed.claims.get(name));
    found.any(|claim| claim.metadata.deletion_timestamp.is_some())
}

/// For how long the volumes of a removed instance are kept if the manifest does not say it: a day is time enough to
/// notice that the wrong instance went.
const REMOVAL_DELAY_SECONDS: i32 = 86_400;

pub(super) fn decide(plan: &mut Plan<'_>) {
    if plan.desired.unreadable {
        return;
    }
    for instance in plan.status.instance_names.clone() {
        let first = plan.status.system_id.is_none() && plan.status.target_primary.as_ref() == Some(&instance);
        // A primary whose data is lost for good does not get an empty volume under its name, and no other instance
        // joins it.
        let lost_primary = plan.status.system_id.is_some() && plan.status.target_primary.as_ref() == Some(&instance);
        let (data_source, wal_source) = match plan.origin.clone() {
            Origin::Unknown if first => continue,
            Origin::Snapshots { data, wal } if first => (Some(data), wal),
            _ => (None, None),
        };
        let storage = plan.desired.spec.storage.clone().unwrap_or_default();
        let labels = |role| [(names::INSTANCE_LABEL, instance.clone()), (names::VOLUME_LABEL, String::from(role))];
        if plan.status.system_id.is_none() && !first {
            continue;
        }
        if !lost_primary || plan.observed.claims.contains_key(&instance) {
            claim(plan, &instance, &storage, data_source, &labels(names::PG_DATA));
        } else {
            plan.wait_for(
                format!("PersistentVolumeClaim {instance} is gone, and the data of the primary with it"),
                "recover into a new cluster from the archive; an existing cluster never starts again with an empty \
                 volume",
                None,
            );
        }
        if wal_is_lost(plan, &instance) {
            let wal = names::wal_claim(&instance);
            plan.wait_for(
                format!("PersistentVolumeClaim {wal} is gone, and with it WAL that {instance} needs"),
                format!(
                    "if {instance} is a standby, delete its pod and the claim {instance} too: then it is created \
                     again; if it is the only instance, recover into a new cluster from the archive"
                ),
                None,
            );
        } else if let Some(storage) = plan.desired.spec.wal_storage.clone() {
            let existed_without = plan.observed.claims.contains_key(&instance)
                && plan.observed.pods.contains_key(&instance)
                && !plan.observed.claims.contains_key(&names::wal_claim(&instance));
            if !existed_without && (!lost_primary || plan.observed.claims.contains_key(&instance)) {
                claim(plan, &names::wal_claim(&instance), &storage, wal_source, &labels(names::PG_WAL));
            }
        }
    }
    clean_up(plan);
}

fn claim(
    plan: &mut Plan<'_>,
    name: &str,
    storage: &StorageConfiguration,
    source: Option<TypedLocalObjectReference>,
    labels: &[(&str, String)],
) {
    if plan.observed.is_foreign("PersistentVolumeClaim", name) {
        return;
    }
    let size = storage.size.clone().or_else(|| template_size(storage)).unwrap_or_else(|| DEFAULT_SIZE.to_owned());
    if let Some(existing) = plan.observed.claims.get(name) {
        grow(plan, name, &existing.clone(), storage, &size);
        return;
    }
    let mut spec = serde_json::to_value(storage.pvc_template.clone().unwrap_or_default()).unwrap_or_else(|_| json!({}));
    if spec.get("accessModes").is_none() {
        spec["accessModes"] = json!(["ReadWriteOnce"]);
    }
    spec["resources"] = json!({"requests": {"storage": size}});
    if let Some(class) = &storage.storage_class {
        spec["storageClassName"] = json!(class);
    }
    if let Some(source) = source {
        spec["dataSource"] = json!(source);
    }
    let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let object = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": plan.metadata(name, &labels), "spec": spec,
    });
    match serde_json::from_value::<PersistentVolumeClaim>(object) {
        Ok(claim) => plan.actions.push(Action::CreateClaim(Box::new(claim))),
        Err(error) => plan.wait_for(format!("PersistentVolumeClaim {name}"), error.to_string(), None),
    }
}

fn template_size(storage: &StorageConfiguration) -> Option<String> {
    let template = serde_json::to_value(storage.pvc_template.as_ref()?).ok()?;
    template.pointer("/resources/requests/storage").and_then(Value::as_str).map(str::to_owned)
}

fn grow(plan: &mut Plan<'_>, name: &str, existing: &PersistentVolumeClaim, storage: &StorageConfiguration, size: &str) {
    if storage.resize_in_use_volumes == Some(false) || !plan.desired.errors.is_empty() {
        return;
    }
    let requested = existing
        .spec
        .as_ref()
        .and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"))
        .map(|quantity| quantity.0.clone());
    let (Some(requested), Some(wanted)) = (requested.as_deref().and_then(bytes_or_number), bytes_or_number(size))
    else {
        return;
    };
    if wanted > requested {
        plan.note(Reason::GrowingVolume, format!("expanding volume {name} to {size}"));
        plan.actions.push(Action::GrowClaim { name: name.to_owned(), size: size.to_owned() });
    }
}

/// Whether the volume of an instance's WAL is gone while its data directory exists.
pub(super) fn wal_is_lost(plan: &Plan<'_>, instance: &str) -> bool {
    let wal = names::wal_claim(instance);
    plan.observed.claims.contains_key(instance)
        && !plan.observed.claims.contains_key(&wal)
        && plan.observed.status.volumes.contains_key(&wal)
}

/// For how long the volumes of a removed instance are kept.
pub(super) fn removal_delay(plan: &Plan<'_>) -> Duration {
    Duration::seconds(i64::from(plan.desired.spec.removal_delay.unwrap_or(REMOVAL_DELAY_SECONDS).max(0)))
}

/// Whether a claim belongs to an instance that was removed, and is kept for a while.
pub(super) fn is_retired(claim: &PersistentVolumeClaim) -> bool {
    retired_at(claim).is_some() && claim.metadata.deletion_timestamp.is_none()
}

fn retired_at(claim: &PersistentVolumeClaim) -> Option<DateTime<Utc>> {
    claim.metadata.annotations.as_ref()?.get(names::REMOVED_AT)?.parse().ok()
}

/// The volumes, for people, and for what must be known later: claims that an instance once had.
pub(super) fn summaries(plan: &Plan<'_>) -> BTreeMap<String, VolumeSummary> {
    let size = |sizes: Option<&BTreeMap<String, Quantity>>| Some(sizes?.get("storage")?.0.clone());
    let mut all: BTreeMap<String, VolumeSummary> = BTreeMap::new();
    for (name, claim) in &plan.observed.claims {
        let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
        let capacity = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
        let summary = VolumeSummary {
            requested: size(requests),
            granted: size(capacity),
            missing: false,
            deleted_after: retired_at(claim).map(|at| at + removal_delay(plan)),
        };
        all.insert(name.clone(), summary);
    }
    for instance in &plan.status.instance_names {
        for name in [instance.clone(), names::wal_claim(instance)] {
            if let Some(before) = plan.observed.status.volumes.get(&name)
                && !all.contains_key(&name)
            {
                all.insert(name, VolumeSummary { missing: true, granted: None, ..before.clone() });
            }
        }
    }
    all
}

/// Deletes claims of instances that have left the list, after a while.
fn clean_up(plan: &mut Plan<'_>) {
    let wanted = usize::try_from(plan.desired.spec.instances).unwrap_or(1);
    if plan.status.instance_names.len() < wanted.max(1) || plan.status.system_id.is_none() {
        return;
    }
    for (name, claim) in &plan.observed.claims {
        let instance = name.strip_suffix("-wal").filter(|_| !plan.status.instance_names.contains(name)).unwrap_or(name);
        let Some(serial) = names::serial(&plan.desired.name, instance) else { continue };
        let listed = plan.status.instance_names.iter().any(|other| other == instance);
        let done = claim.metadata.deletion_timestamp.is_some();
        if listed || done || plan.observed.pods.contains_key(instance) || serial > plan.status.latest_generated_node {
            continue;
        }
        let delay = removal_delay(plan);
        match (retired_at(claim), claim.metadata.uid.clone()) {
            (None, _) if delay > Duration::zero() => {
                let at = plan.now.to_rfc3339_opts(SecondsFormat::Secs, true);
                plan.actions.push(Action::RetireClaim { name: name.clone(), at });
            }
            (Some(at), _) if plan.now < at + delay => {}
            (_, Some(uid)) => plan.actions.push(Action::DeleteClaim { name: name.clone(), uid }),
            (_, None) => {}
        }
    }
}
