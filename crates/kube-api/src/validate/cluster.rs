//! A `Cluster`: the spec from top to bottom.

use super::finding::{Findings, Reason};
use super::similar::nearest;
use super::{bootstrap, image, object_store, settings};
use crate::cluster::{BackupConfiguration, ClusterSpec, StorageConfiguration};
use crate::quantity;
use k8s_openapi::api::core::v1::{PodAffinity, PodAntiAffinity};
use std::collections::BTreeSet;

/// The size of a volume if the spec has none.
pub const DEFAULT_STORAGE: &str = "1Gi";
/// Longer names leave no room for the names derived from them: services and claims may have 63 characters.
pub const LONGEST_NAME: usize = 50;

/// Variables of the container that the operator sets.
const OWN_VARIABLES: &[&str] = &["POD_NAME", "POD_UID", "NAMESPACE", "CLUSTER_NAME"];

/// Checks the spec, moves every field to its place, and returns PostgreSQL's major version. `bootstrapped` is true
/// after the first instance has its data.
pub(super) fn check(name: &str, spec: &mut ClusterSpec, bootstrapped: bool, findings: &mut Findings) -> Option<u16> {
    check_name(name, findings);
    let major = spec.image_name.clone().and_then(|image| image::check(&image, findings));
    if let Some(policy) = &spec.image_pull_policy {
        let known = ["Always", "IfNotPresent", "Never"];
        if !known.contains(&policy.as_str()) {
            let hint = nearest(policy, known).map_or_else(
                || "write `Always`, `IfNotPresent` or `Never`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            findings.error(
                "spec.imagePullPolicy",
                Reason::InvalidValue,
                format!("`{policy}` is not a pull policy"),
                hint,
            );
        }
    }
    for (field, id) in [("postgresUID", spec.postgres_uid), ("postgresGID", spec.postgres_gid)] {
        if id.is_some_and(|id| id < 1) {
            findings.error(
                format!("spec.{field}"),
                Reason::InvalidValue,
                "PostgreSQL does not run as root",
                "write the user id that PostgreSQL has in the image, or leave it out to use 26",
            );
        }
    }
    volumes(spec, findings);
    affinity(spec, findings);
    synchronous(spec, findings);
    settings::check(spec, major, findings);
    access(spec, findings);
    external_clusters(spec, findings);
    let mut of_bootstrap = Findings::default();
    bootstrap::check(name, spec, major, &mut of_bootstrap);
    if bootstrapped {
        of_bootstrap.without_effect(bootstrap::is_used_once);
    }
    findings.append_where(of_bootstrap, |_| true);
    if let Some(backup) = &mut spec.backup {
        check_backup(backup, findings);
    }
    superuser(spec, findings);
    pods(spec, findings);
    major
}

fn check_name(name: &str, findings: &mut Findings) {
    let path = "metadata.name";
    if name.is_empty() {
        findings.error(path, Reason::MissingField, "the cluster has no name", "write one");
        return;
    }
    let label = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.ends_with('-');
    if !label || name.len() > LONGEST_NAME {
        findings.error(
            path,
            Reason::InvalidValue,
            format!("`{name}` cannot be the name of a cluster: services are named after it"),
            format!("at most {LONGEST_NAME} lower case letters, digits and -, a letter first"),
        );
    }
}

fn volumes(spec: &mut ClusterSpec, findings: &mut Findings) {
    volume(spec.storage.get_or_insert_default(), "spec.storage", findings);
    if let Some(storage) = &mut spec.wal_storage {
        volume(storage, "spec.walStorage", findings);
    }
}

fn volume(storage: &mut StorageConfiguration, base: &str, findings: &mut Findings) {
    let path = format!("{base}.size");
    let of_template = || {
        let requests = storage.pvc_template.as_ref()?.resources.as_ref()?.requests.as_ref()?;
        Some(requests.get("storage")?.0.clone())
    };
    let Some(size) = storage.size.clone().or_else(of_template) else {
        findings.warn(
            path,
            Reason::DefaultUsed,
            format!("no size is set; volumes of {DEFAULT_STORAGE} are created"),
            "write the size, such as `100Gi`: it can grow later where the storage class allows it",
        );
        storage.size = Some(DEFAULT_STORAGE.to_owned());
        return;
    };
    match quantity::bytes_or_number(&size) {
        None => {
            let unit = size.trim_start_matches(|character: char| character.is_ascii_digit() || character == '.').trim();
            let hint = match unit.trim_end_matches(['b', 'B']) {
                short if short != unit && !short.is_empty() => {
                    format!(
                        "did you mean `{}{}i`?",
                        size.trim_end_matches(unit).trim(),
                        short.trim_end_matches('i').to_uppercase()
                    )
                }
                _ => "write it like `100Gi`".to_owned(),
            };
            findings.error(path, Reason::InvalidValue, format!("`{size}` is not a volume size"), hint);
        }
        Some(bytes) if bytes < 1 << 20 => findings.error(
            path,
            Reason::InvalidValue,
            format!("`{size}` is too small for a database"),
            "write the unit, such as `100Gi`",
        ),
        Some(_) => storage.size = Some(size),
    }
}

/// Moves fields from the place where a pod has them to the place where CloudNativePG has them.
fn affinity(spec: &mut ClusterSpec, findings: &mut Findings) {
    if !spec.tolerations.is_empty() {
        findings.warn(
            "spec.tolerations",
            Reason::ReadAsMeant,
            "tolerations belong to `affinity`; they are read from here too",
            "move them to `spec.affinity.tolerations`",
        );
        let moved = std::mem::take(&mut spec.tolerations);
        for toleration in moved {
            if !spec.affinity.tolerations.contains(&toleration) {
                spec.affinity.tolerations.push(toleration);
            }
        }
    }
    let affinity = &mut spec.affinity;
    if let Some(moved) = affinity.pod_anti_affinity.take() {
        note_correction("podAntiAffinity", "additionalPodAntiAffinity", findings);
        let into = affinity.additional_pod_anti_affinity.get_or_insert_with(PodAntiAffinity::default);
        add(
            &mut into.required_during_scheduling_ignored_during_execution,
            moved.required_during_scheduling_ignored_during_execution,
        );
        add(
            &mut into.preferred_during_scheduling_ignored_during_execution,
            moved.preferred_during_scheduling_ignored_during_execution,
        );
    }
    if let Some(moved) = affinity.pod_affinity.take() {
        note_correction("podAffinity", "additionalPodAffinity", findings);
        let into = affinity.additional_pod_affinity.get_or_insert_with(PodAffinity::default);
        add(
            &mut into.required_during_scheduling_ignored_during_execution,
            moved.required_during_scheduling_ignored_during_execution,
        );
        add(
            &mut into.preferred_during_scheduling_ignored_during_execution,
            moved.preferred_during_scheduling_ignored_during_execution,
        );
    }
}

fn note_correction(written: &str, meant: &str, findings: &mut Findings) {
    findings.warn(
        format!("spec.affinity.{written}"),
        Reason::ReadAsMeant,
        format!("`{written}` is a pod's field; it is read as `{meant}`"),
        format!(
            "write `{meant}`; the operator already keeps instances apart, see `enablePodAntiAffinity` and \
             `podAntiAffinityType`"
        ),
    );
}

fn add<T>(into: &mut Option<Vec<T>>, moved: Option<Vec<T>>) {
    if let Some(moved) = moved {
        into.get_or_insert_default().extend(moved);
    }
}

fn synchronous(spec: &mut ClusterSpec, findings: &mut Findings) {
    if spec.postgresql.synchronous.take().is_some() {
        findings.error(
            "spec.postgresql.synchronous",
            Reason::NotSupportedYet,
            "synchronous replication is not supported yet: replication is asynchronous",
            "a failover can lose the last commits",
        );
    }
}

/// Checks the lines of `pg_hba.conf`: a line that PostgreSQL cannot read keeps it from starting.
fn access(spec: &ClusterSpec, findings: &mut Findings) {
    for (index, line) in spec.postgresql.pg_hba.iter().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(kind) = words.first().filter(|word| !word.starts_with('#')) else { continue };
        let least = match *kind {
            "local" => 4,
            "host" | "hostssl" | "hostnossl" | "hostgssenc" | "hostnogssenc" => 5,
            "include" | "include_if_exists" | "include_dir" => 2,
            _ => 0,
        };
        let path = format!("spec.postgresql.pg_hba[{index}]");
        if least == 0 {
            findings.error(
                path,
                Reason::InvalidSetting,
                format!("a line of pg_hba.conf cannot begin with `{kind}`"),
                "begin it with `host`, `hostssl`, `hostnossl` or `local`",
            );
        } else if words.len() < least {
            findings.error(
                path,
                Reason::InvalidSetting,
                format!("`{line}` is too short for a line of pg_hba.conf"),
                "write type, database, user, address and method, such as `hostssl app app 10.0.0.0/8 scram-sha-256`",
            );
        }
    }
}

fn external_clusters(spec: &mut ClusterSpec, findings: &mut Findings) {
    let mut names = BTreeSet::new();
    for (index, external) in spec.external_clusters.iter_mut().enumerate() {
        let base = format!("spec.externalClusters[{index}]");
        if external.name.is_empty() {
            findings.error(format!("{base}.name"), Reason::MissingField, "the cluster is not named", "write its name");
        }
        if !names.insert(external.name.clone()) {
            findings.error(
                format!("{base}.name"),
                Reason::Conflict,
                format!("there is another entry `{}`", external.name),
                "give each its own name",
            );
        }
        if let Some(store) = &mut external.barman_object_store {
            object_store::check(store, &format!("{base}.barmanObjectStore"), findings);
        }
    }
}

fn check_backup(backup: &mut BackupConfiguration, findings: &mut Findings) {
    if let Some(store) = &mut backup.barman_object_store {
        object_store::check(store, "spec.backup.barmanObjectStore", findings);
    }
    if let Some(policy) = &backup.retention_policy {
        let path = "spec.backup.retentionPolicy";
        let number = policy.strip_suffix(['d', 'w', 'm']);
        if number.is_some_and(|number| number.parse::<u32>().is_ok_and(|number| number > 0)) {
            findings.warn(
                path,
                Reason::NotSupportedYet,
                "retention is not supported yet: nothing is deleted, the policy is only stored",
                "watch the size of the bucket",
            );
        } else {
            findings.error(
                path,
                Reason::InvalidValue,
                format!("`{policy}` is not a retention time"),
                "write a number with d, w or m, such as `30d`",
            );
        }
    }
}

fn superuser(spec: &ClusterSpec, findings: &mut Findings) {
    if spec.superuser_secret.is_some() && !spec.enable_superuser_access {
        findings.warn(
            "spec.superuserSecret",
            Reason::NoEffect,
            "`postgres` cannot connect over the network, so its password is not used",
            "set `enableSuperuserAccess: true`, or remove the Secret",
        );
    }
}

fn pods(spec: &ClusterSpec, findings: &mut Findings) {
    for (index, variable) in spec.env.iter().enumerate() {
        if OWN_VARIABLES.contains(&variable.name.as_str()) || variable.name.starts_with("PG") {
            findings.error(
                format!("spec.env[{index}].name"),
                Reason::ManagedSetting,
                format!("`{}` is set by the operator", variable.name),
                "choose another name",
            );
        }
    }
    if let (Some(smart), Some(stop)) = (spec.smart_shutdown_timeout, spec.stop_delay)
        && smart >= stop
    {
        findings.error(
            "spec.smartShutdownTimeout",
            Reason::Conflict,
            format!("sessions have {smart} s to end, but the whole shutdown has {stop} s"),
            "write less than `stopDelay`: the rest is for the last checkpoint and the archive",
        );
    }
    let memory = |list: Option<
        &std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    >| { list.and_then(|list| list.get("memory")).map(|quantity| quantity.0.clone()) };
    let Some(resources) = &spec.resources else { return };
    for (field, list) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        if let Some(text) = memory(list.as_ref())
            && quantity::bytes_or_number(&text).is_none()
        {
            findings.error(
                format!("spec.resources.{field}.memory"),
                Reason::InvalidValue,
                format!("`{text}` is not an amount of memory"),
                "write it like `4Gi`",
            );
        }
    }
    if let (Some(request), Some(limit)) = (memory(resources.requests.as_ref()), memory(resources.limits.as_ref()))
        && let (Some(request_bytes), Some(limit_bytes)) =
            (quantity::bytes_or_number(&request), quantity::bytes_or_number(&limit))
        && request_bytes > limit_bytes
    {
        findings.error(
            "spec.resources.requests.memory",
            Reason::Conflict,
            format!("{request} is more than the limit of {limit}"),
            "a request cannot be above its limit",
        );
    }
}
