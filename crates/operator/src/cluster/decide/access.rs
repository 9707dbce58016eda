//! The permissions of the instances at the API server: read their own `Cluster` and the Secrets it names, and hold
//! their Lease.

use super::plan::Plan;
use crate::cluster::observed::Kind;
use holdfast_kube_api::cluster::{BarmanObjectStore, ClusterSpec};
use holdfast_kube_api::names;
use serde_json::json;
use std::collections::BTreeSet;

pub(super) fn decide(plan: &mut Plan<'_>) {
    let cluster = plan.desired.name.clone();
    let name = names::service_account(&cluster);
    if plan.observed.is_foreign(Kind::ServiceAccount.name(), &name) {
        // A binding would give the permissions of the instances to somebody else.
        return;
    }
    let mut account = plan.metadata(&name, &[]);
    if let Some(template) = &plan.desired.spec.service_account_template {
        for (key, value) in &template.metadata.labels {
            account["labels"][key] = json!(value);
        }
        for (key, value) in &template.metadata.annotations {
            account["annotations"][key] = json!(value);
        }
    }
    // Pods name their pull secrets themselves. In the account they would be fought over with OpenShift, which adds its
    // own to this list.
    plan.apply(Kind::ServiceAccount, &name, json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}));

    let mut rules = vec![
        json!({"apiGroups": [holdfast_kube_api::GROUP], "resources": ["clusters"], "resourceNames": [cluster],
            "verbs": ["get", "list", "watch"]}),
        json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": secrets(plan),
            "verbs": ["get", "watch"]}),
        json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
            "resourceNames": [names::primary_lease(&cluster)], "verbs": ["get", "update", "patch", "watch"]}),
    ];
    let maps = config_maps(&plan.desired.spec);
    if !maps.is_empty() {
        rules.push(json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": maps, "verbs": ["get"]}));
    }
    if let Some(backup) = recovery_backup(&plan.desired.spec) {
        rules.push(json!({"apiGroups": [holdfast_kube_api::GROUP], "resources": ["backups"],
            "resourceNames": [backup], "verbs": ["get"]}));
    }
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": plan.metadata(&name, &[]),
        "rules": rules,
    });
    plan.apply(Kind::Role, &name, role);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": plan.metadata(&name, &[]),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": plan.desired.namespace}],
    });
    plan.apply(Kind::RoleBinding, &name, binding);
}

fn recovery_backup(spec: &ClusterSpec) -> Option<&str> {
    Some(&spec.bootstrap.as_ref()?.recovery.as_ref()?.backup.as_ref()?.name)
}

/// The Secrets that an instance reads by itself. The authority is mounted without its key, which only the operator has.
fn secrets(plan: &Plan<'_>) -> BTreeSet<String> {
    let (cluster, spec) = (plan.desired.name.as_str(), &plan.desired.spec);
    let mut all = BTreeSet::from([
        names::application_secret(cluster),
        names::superuser_secret(cluster),
        names::server_secret(cluster),
        names::replication_secret(cluster),
    ]);
    if let Some(secret) = &spec.superuser_secret {
        all.insert(secret.name.clone());
    }
    if let Some(store) = spec.backup.as_ref().and_then(|backup| backup.barman_object_store.as_ref()) {
        of_store(store, &mut all);
    }
    let backup = plan.observed.recovery.backup.as_ref().and_then(|backup| backup.status.as_ref());
    if let Some(store) = backup.and_then(|status| status.barman_object_store.as_ref()) {
        of_store(store, &mut all);
    }
    for external in &spec.external_clusters {
        if let Some(store) = &external.barman_object_store {
            of_store(store, &mut all);
        }
    }
    if let Some(initdb) = spec.bootstrap.as_ref().and_then(|bootstrap| bootstrap.initdb.as_ref()) {
        all.extend(initdb.secret.iter().map(|secret| secret.name.clone()));
        for references in [&initdb.post_init_application_sql_refs, &initdb.post_init_sql_refs].into_iter().flatten() {
            all.extend(references.secret_refs.iter().map(|selector| selector.name.clone()));
        }
    }
    if let Some(recovery) = spec.bootstrap.as_ref().and_then(|bootstrap| bootstrap.recovery.as_ref()) {
        all.extend(recovery.secret.iter().map(|secret| secret.name.clone()));
        if let Some(authority) = recovery.backup.as_ref().and_then(|backup| backup.endpoint_ca.as_ref()) {
            all.insert(authority.name.clone());
        }
    }
    all.remove("");
    all
}

fn of_store(store: &BarmanObjectStore, all: &mut BTreeSet<String>) {
    let credentials = store.s3_credentials.clone().unwrap_or_default();
    let encryption = store.encryption.clone().unwrap_or_default();
    let selectors = [
        store.endpoint_ca.clone(),
        credentials.access_key_id,
        credentials.secret_access_key,
        credentials.session_token,
        credentials.region,
        encryption.passphrase,
        encryption.key,
    ];
    all.extend(selectors.into_iter().flatten().map(|selector| selector.name));
}

fn config_maps(spec: &ClusterSpec) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    if let Some(initdb) = spec.bootstrap.as_ref().and_then(|bootstrap| bootstrap.initdb.as_ref()) {
        for references in [&initdb.post_init_application_sql_refs, &initdb.post_init_sql_refs].into_iter().flatten() {
            all.extend(references.config_map_refs.iter().map(|selector| selector.name.clone()));
        }
    }
    all
}
