//! Reads the `Backup` that a cluster is recovered from with its volume snapshots, and the snapshots of a cluster that
//! still exist.

use super::context::ClusterContext;
use super::observed::{KeptSnapshots, RecoverySource};
use crate::backups::snapshot::{ObservedSnapshot, api_resource, seen};
use crate::error::{Error, is_not_found};
use holdfast_kube_api::{Backup, names};
use kube::Api;
use kube::api::{DynamicObject, ListParams};

/// Reads the `Backup` of this name. Its snapshots are read until the cluster is `bootstrapped`.
pub(super) async fn recovery_source(
    context: &ClusterContext,
    namespace: &str,
    backup: Option<&str>,
    bootstrapped: bool,
) -> Result<RecoverySource, Error> {
    let Some(name) = backup else { return Ok(RecoverySource::default()) };
    let api: Api<Backup> = Api::namespaced(context.operator.client.clone(), namespace);
    let backup = api.get_opt(name).await.map_err(|error| Error::api(format!("read backup {name}"), error))?;
    let mut source = RecoverySource { backup, ..RecoverySource::default() };
    let elements = source
        .backup
        .as_ref()
        .filter(|_| !bootstrapped)
        .and_then(|backup| Some(backup.status.as_ref()?.snapshot_backup_status.as_ref()?.elements.clone()));
    let api = of_namespace(context, namespace);
    for element in elements.into_iter().flatten() {
        match api.get(&element.name).await {
            Ok(snapshot) => drop(source.snapshots.insert(element.name, seen(&snapshot))),
            // The API itself may have been removed with the storage driver.
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(Error::api(format!("read volume snapshot {}", element.name), error)),
        }
    }
    Ok(source)
}

pub(super) async fn kept(
    context: &ClusterContext,
    namespace: &str,
    of_cluster: &ListParams,
) -> Result<KeptSnapshots, Error> {
    let listed = match of_namespace(context, namespace).list(of_cluster).await {
        Ok(listed) => listed.items,
        Err(error) if is_not_found(&error) => Vec::new(),
        Err(error) => return Err(Error::api("list volume snapshots", error)),
    };
    Ok(listed.iter().map(seen).filter_map(id_and_kind).collect())
}

fn id_and_kind(snapshot: ObservedSnapshot) -> Option<(String, String)> {
    let id = snapshot.annotations.get(names::SNAPSHOT_ID).cloned();
    id.filter(|_| snapshot.ready && !snapshot.deleting).map(|id| (id, snapshot.kind))
}

fn of_namespace(context: &ClusterContext, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(context.operator.client.clone(), namespace, &api_resource())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn only_snapshots_that_a_restore_can_use_are_kept() {
        let id = |id: &str| BTreeMap::from([(names::SNAPSHOT_ID.to_owned(), id.to_owned())]);
        let whole = ObservedSnapshot {
            kind: names::PG_DATA.to_owned(),
            annotations: id("a"),
            ready: true,
            ..ObservedSnapshot::default()
        };
        let kept = Some(("a".to_owned(), names::PG_DATA.to_owned()));
        for (name, snapshot, expected) in [
            ("whole", whole.clone(), kept),
            ("not ready", ObservedSnapshot { ready: false, ..whole.clone() }, None),
            ("going", ObservedSnapshot { deleting: true, ..whole.clone() }, None),
            ("without a record", ObservedSnapshot { annotations: BTreeMap::new(), ..whole }, None),
        ] {
            assert_eq!(id_and_kind(snapshot), expected, "{name}");
        }
    }
}
