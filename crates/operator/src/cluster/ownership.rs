//! What belongs to a cluster: objects that have its uid as an owner, and nothing else.
//!
//! A name and a label prove nothing. An application beside the cluster may have a `Role` of the same name; a cluster
//! that was deleted and made again has the objects of its predecessor for a while. Such objects are neither changed nor
//! deleted. Those under a name that the cluster needs are reported.

use super::observed::Foreign;
use crate::error::Error;
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Whether the cluster with this uid owns the object. Pure.
pub(super) fn is_owned(object: &impl Resource, uid: &str) -> bool {
    object.owner_references().iter().any(|owner| owner.uid == uid)
}

/// An object of another owner, for a report. Pure.
pub(super) fn foreign(kind: &'static str, object: &impl Resource) -> Foreign {
    let owners = object.owner_references();
    let owner = owners.iter().find(|owner| owner.controller == Some(true)).or_else(|| owners.first());
    let owner = owner.map(|owner| format!("{} {} ({}, uid {})", owner.kind, owner.name, owner.api_version, owner.uid));
    Foreign { kind, name: object.name_any(), owner: owner.unwrap_or_else(|| "nobody".to_owned()) }
}

/// The cluster's objects of a kind, by name: those with its label that it owns. The objects of others that have one of
/// the `wanted` names are added to `others`, with or without the label.
pub(super) async fn of_cluster<K>(
    api: &Api<K>,
    kind: &'static str,
    label: &ListParams,
    uid: &str,
    wanted: impl IntoIterator<Item = String>,
    others: &mut Vec<Foreign>,
) -> Result<BTreeMap<String, K>, Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let listed = api.list(label).await.map_err(|error| Error::api(format!("list {kind}s"), error))?;
    let (owned, labelled): (Vec<K>, Vec<K>) = listed.into_iter().partition(|object| is_owned(object, uid));
    let mut all: BTreeMap<String, K> = owned.into_iter().map(|object| (object.name_any(), object)).collect();
    for name in wanted {
        if all.contains_key(&name) {
            continue;
        }
        let found = match labelled.iter().find(|object| object.name_any() == name) {
            Some(object) => Some(object.clone()),
            None => api.get_opt(&name).await.map_err(|error| Error::api(format!("read {kind} {name}"), error))?,
        };
        match found {
            // Without its label, which somebody has removed.
            Some(object) if is_owned(&object, uid) => drop(all.insert(name, object)),
            Some(object) => others.push(foreign(kind, &object)),
            None => {}
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

    use super::*;
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    #[test]
    fn only_the_uid_proves_an_owner() {
        let service = |owners: serde_json::Value| -> Service {
            serde_json::from_value(json!({"metadata": {"name": "shop-rw", "ownerReferences": owners}})).unwrap()
        };
        let of = |uid: &str| json!([{"apiVersion": "a/v1", "kind": "Cluster", "name": "shop", "uid": uid}]);
        assert!(is_owned(&service(of("1")), "1"));
        assert!(!is_owned(&service(of("2")), "1"), "a cluster of the same name");
        assert!(!is_owned(&service(json!([])), "1"));
        assert_eq!(foreign("Service", &service(of("2"))).owner, "Cluster shop (a/v1, uid 2)");
        assert_eq!(foreign("Service", &service(json!([]))).owner, "nobody");
    }
}
