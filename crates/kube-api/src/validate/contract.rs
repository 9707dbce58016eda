//! Fields that change what a cluster promises, and that are not supported yet: synchronous replication, an archive by a
//! plugin, logins, certificates.
//!
//! Such a cluster is refused. A person who read the warning can accept to run without: the annotation
//! `holdfast.dev/without` of the `Cluster` lists the fields, as in `synchronous,managed`. Then they are warnings.

use super::finding::{Findings, Reason};
use super::similar::nearest;
use crate::names;
use serde_json::Value;
use std::collections::BTreeSet;

/// The words of the annotation, each with the fields that it stands for.
const KEYS: [(&str, &[&str]); 4] = [
    ("synchronous", &["spec.postgresql.synchronous", "spec.minSyncReplicas", "spec.maxSyncReplicas"]),
    ("plugins", &["spec.plugins"]),
    ("managed", &["spec.managed"]),
    ("certificates", &["spec.certificates"]),
];

/// Annotations of CloudNativePG that make a cluster do something, with what happens here instead.
const ANNOTATIONS: [(&str, &str); 5] = [
    ("cnpg.io/hibernation", "the cluster keeps running; to stop it, delete it and recover it from its archive later"),
    ("cnpg.io/fencedInstances", "all instances keep running"),
    ("cnpg.io/skipEmptyWalArchiveCheck", "an archive that is not empty is always refused"),
    ("cnpg.io/reconciliationLoop", "the operator keeps working on this cluster"),
    ("cnpg.io/podPatch", "pods are created as the fields of the spec say"),
];

/// Checks what only the whole resource shows, then takes the accepted fields out of the errors.
pub(super) fn check(raw: &Value, findings: &mut Findings) {
    archived_by_plugin(raw, findings);
    let annotations = &raw["metadata"]["annotations"];
    for (annotation, instead) in ANNOTATIONS {
        let value = &annotations[annotation];
        if value.is_string() && !matches!(value.as_str(), Some("" | "off" | "[]" | "enabled")) {
            findings.warn(
                format!("metadata.annotations.{annotation}"),
                Reason::NotSupportedYet,
                format!("the annotation `{annotation}` is not supported yet; it has no effect"),
                instead,
            );
        }
    }
    let words = annotations[names::WITHOUT].as_str().unwrap_or_default().split(',').map(str::trim);
    let accepted: BTreeSet<&str> = words.filter(|word| !word.is_empty()).collect();
    let known = KEYS.map(|(key, _)| key);
    for word in accepted.iter().filter(|word| !known.contains(word)) {
        let hint = match nearest(word, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write some of `{}`", known.join("`, `")),
        };
        findings.warn(
            format!("metadata.annotations.{}", names::WITHOUT),
            Reason::InvalidValue,
            format!("`{word}` is not a field without which a cluster may run"),
            hint,
        );
    }
    findings.accept(key, &accepted);
}

fn key(path: &str) -> Option<&'static str> {
    KEYS.iter().find(|(_, paths)| paths.contains(&path)).map(|(key, _)| *key)
}

/// A plugin that archives, and no archive of Holdfast's own: the cluster would run without any.
fn archived_by_plugin(raw: &Value, findings: &mut Findings) {
    let own = &raw["spec"]["backup"]["barmanObjectStore"];
    let plugins = raw["spec"]["plugins"].as_array();
    let archives = |plugin: &&Value| plugin["isWALArchiver"] == true && plugin["enabled"] != false;
    if let Some(plugin) = plugins.into_iter().flatten().find(archives).filter(|_| !own.is_object()) {
        let name = plugin["name"].as_str().unwrap_or("without a name");
        findings.error(
            "spec.plugins",
            Reason::NotSupportedYet,
            format!(
                "the plugin {name} should archive WAL, but plugins are not supported yet: there would be no archive"
            ),
            "write its object store into `spec.backup.barmanObjectStore`",
        );
    }
}
