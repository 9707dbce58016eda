//! The meaning of a manifest, and all its mistakes.
//!
//! The reconcilers, the webhook and `holdfast manifest check` all read resources through here, in their stored form, as
//! JSON, so that an unknown field is found and not lost. Each function returns the meaning, in which defaults are
//! added, fields are in their place and texts are parsed. With it come [`Finding`]s: an error stops the resource until
//! it is changed, a warning is only shown. One run finds all of them, not only the first.
//!
//! Nothing here knows which objects exist in the cluster. The reconcilers find out whether a Secret exists.

mod bootstrap;
mod cluster;
mod contract;
mod finding;
mod image;
mod not_yet;
mod object_store;
mod salvage;
mod settings;
mod shape;
mod similar;
mod update;

pub use cluster::{DEFAULT_STORAGE, LONGEST_NAME};
pub use finding::{Finding, Outcome, Reason};
pub use settings::{MANAGED_SETTINGS, SUPPORTED_MAJORS, is_managed};

use crate::backup::{BackupMethod, BackupSpec};
use crate::cluster::{BackupTarget, ClusterSpec};
use crate::schedule::Schedule;
use crate::scheduled_backup::ScheduledBackupSpec;
use finding::Findings;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A `Cluster` as it is meant.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidCluster {
    /// `metadata.name`.
    pub name: String,
    /// Its namespace; empty in a manifest that names none.
    pub namespace: String,
    /// Its uid; `None` if the resource is not stored yet.
    pub uid: Option<String>,
    /// Its generation; `None` if the resource is not stored yet.
    pub generation: Option<i64>,
    /// The spec with defaults added and every field in its place: `storage.size` is set, `bootstrap` has exactly one
    /// method, root `tolerations` and `affinity.podAffinity`/`podAntiAffinity` are empty.
    pub spec: ClusterSpec,
    /// PostgreSQL's major version, from the image's tag; absent if the tag does not contain one.
    pub postgres_major: Option<u16>,
}

/// A `Backup` as it is meant.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidBackup {
    /// `metadata.name`.
    pub name: String,
    /// Its namespace; empty in a manifest that names none.
    pub namespace: String,
    /// The cluster, in the same namespace.
    pub cluster: String,
    /// Where the backup is stored.
    pub method: BackupMethod,
    /// Which instance is backed up, if the backup names one.
    pub target: Option<BackupTarget>,
    /// For snapshots: whether the server keeps running, if the backup decides it.
    pub online: Option<bool>,
}

/// A `ScheduledBackup` as it is meant.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidScheduledBackup {
    /// `metadata.name`.
    pub name: String,
    /// Its namespace; empty in a manifest that names none.
    pub namespace: String,
    /// The spec with defaults added.
    pub spec: ScheduledBackupSpec,
    /// When it is due, in its time zone.
    pub schedule: Schedule,
}

/// Reads a `Cluster`.
pub fn cluster(raw: &Value) -> Outcome<ValidCluster> {
    let mut findings = Findings::default();
    let value = read_cluster(raw, is_bootstrapped(raw), &mut findings);
    findings.outcome(value)
}

/// Reads a `Cluster` that replaces an earlier one.
pub fn cluster_update(old: &Value, new: &Value) -> Outcome<ValidCluster> {
    let mut findings = Findings::default();
    let bootstrapped = is_bootstrapped(old);
    let value = read_cluster(new, bootstrapped, &mut findings);
    // Mistakes of the old spec do not matter any more.
    if let (Some(before), Some(after)) = (read_cluster(old, bootstrapped, &mut Findings::default()), &value) {
        let status = serde_json::from_value(old["status"].clone()).unwrap_or_default();
        update::check(&update::Before { spec: &before.spec, status, bootstrapped }, &after.spec, &mut findings);
    }
    findings.outcome(value)
}

/// Reads a `Backup`.
pub fn backup(raw: &Value) -> Outcome<ValidBackup> {
    let mut findings = Findings::default();
    let value = read("Backup", raw, &mut findings, |spec: BackupSpec, findings| {
        of_cluster(&spec.cluster.name, findings);
        online_is_for_snapshots(spec.method, spec.online, findings);
        Some(ValidBackup {
            name: metadata(raw, "name"),
            namespace: metadata(raw, "namespace"),
            cluster: spec.cluster.name,
            method: spec.method.unwrap_or_default(),
            target: spec.target,
            online: spec.online,
        })
    });
    findings.outcome(value)
}

/// Reads a `ScheduledBackup`.
pub fn scheduled_backup(raw: &Value) -> Outcome<ValidScheduledBackup> {
    let mut findings = Findings::default();
    let value = read("ScheduledBackup", raw, &mut findings, |spec: ScheduledBackupSpec, findings| {
        let name = metadata(raw, "name");
        of_cluster(&spec.cluster.name, findings);
        online_is_for_snapshots(spec.method, spec.online, findings);
        // The name becomes a label's value on the backups.
        if name.len() > 63 {
            findings.error(
                "metadata.name",
                Reason::InvalidValue,
                format!("`{name}` is too long: backups are labelled with it"),
                "at most 63 characters",
            );
        }
        match Schedule::parse(&spec.schedule, spec.time_zone.as_deref()) {
            Ok(schedule) => Some(ValidScheduledBackup { name, namespace: metadata(raw, "namespace"), schedule, spec }),
            Err(error) => {
                findings.error(error.field(), Reason::InvalidValue, error.to_string(), error.hint());
                None
            }
        }
    });
    findings.outcome(value)
}

/// Whether the first instance has its data: from then on the operator knows the system identifier.
fn is_bootstrapped(raw: &Value) -> bool {
    raw["status"]["systemID"].is_string()
}

fn read_cluster(raw: &Value, bootstrapped: bool, findings: &mut Findings) -> Option<ValidCluster> {
    let value = read("Cluster", raw, findings, |mut spec: ClusterSpec, findings| {
        let name = metadata(raw, "name");
        let postgres_major = cluster::check(&name, &mut spec, bootstrapped, findings);
        Some(ValidCluster {
            name,
            namespace: metadata(raw, "namespace"),
            uid: raw["metadata"]["uid"].as_str().map(str::to_owned),
            generation: raw["metadata"]["generation"].as_i64(),
            spec,
            postgres_major,
        })
    });
    contract::check(raw, findings);
    value
}

fn metadata(raw: &Value, field: &str) -> String {
    raw["metadata"][field].as_str().unwrap_or_default().to_owned()
}

/// Checks the shape, then the meaning. If only a part could be read, its meaning is checked too and then dropped.
fn read<S: DeserializeOwned, T>(
    kind: &str,
    raw: &Value,
    findings: &mut Findings,
    meaning: impl Fn(S, &mut Findings) -> Option<T>,
) -> Option<T> {
    shape::check(kind, raw, findings);
    let error = match serde_json::from_value(raw.get("spec")?.clone()) {
        Ok(spec) => return meaning(spec, findings),
        Err(error) => error,
    };
    if findings.no_errors() {
        let hint = "see `kubectl explain` for the type of each field";
        findings.error("spec", Reason::WrongType, error.to_string(), hint);
        return None;
    }
    let rest = salvage::spec(kind, raw, findings).and_then(|spec| serde_json::from_value(spec).ok());
    if let Some(spec) = rest {
        let mut found = Findings::default();
        meaning(spec, &mut found);
        salvage::take_over(found, findings);
    }
    None
}

fn of_cluster(name: &str, findings: &mut Findings) {
    if name.is_empty() {
        findings.error("spec.cluster.name", Reason::MissingField, "the cluster is not named", "write its name");
    }
}

fn online_is_for_snapshots(method: Option<BackupMethod>, online: Option<bool>, findings: &mut Findings) {
    if online.is_some() && method.unwrap_or_default() != BackupMethod::VolumeSnapshot {
        findings.warn(
            "spec.online",
            Reason::NoEffect,
            "`online` is about snapshots only: a backup into an object store never stops the server",
            "leave it out, or write `method: volumeSnapshot`",
        );
    }
}

#[cfg(test)]
mod tests;
