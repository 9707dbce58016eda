//! A decision while it is built: what the steps of [`super`] read, and what they add.

use crate::cluster::decision::{Action, ClusterEvent, Decision, Phase, Reason};
use crate::cluster::desired::Desired;
use crate::cluster::observed::{Kind, Observed};
use chrono::{DateTime, Utc};
use holdfast_kube_api::cluster::{BlockedBy, ClusterStatus, VolumeSnapshotSource};
use holdfast_kube_api::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// The time to the next reconcile while something changes.
pub const SOON: Duration = Duration::from_secs(1);
/// The time to the next reconcile otherwise; watches wake the reconciler before that.
pub const LATER: Duration = Duration::from_secs(8);

/// A decision while it is built.
pub(super) struct Plan<'a> {
    pub(super) desired: &'a Desired,
    pub(super) observed: &'a Observed,
    pub(super) now: DateTime<Utc>,
    /// The status, as the steps so far left it.
    pub(super) status: ClusterStatus,
    pub(super) actions: Vec<Action>,
    pub(super) events: Vec<ClusterEvent>,
    pub(super) phase: Option<(Phase, String)>,
    pub(super) blocked: Option<Blocked>,
    /// Whether to reconcile again soon.
    pub(super) busy: bool,
    /// What the volumes of the first instance are created from.
    pub(super) origin: Origin,
    /// Whether the pod of the lost primary may be created again, because no instance can replace it.
    pub(super) primary_may_return: bool,
}

/// The part of any object that says which one it is.
#[derive(Deserialize)]
struct Identity {
    metadata: ObjectMeta,
}

/// What the cluster waits for.
pub(super) struct Blocked {
    pub(super) what: String,
    pub(super) hint: String,
    /// The longest time that it can still take, if known.
    pub(super) limit: Option<Duration>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(desired: &'a Desired, observed: &'a Observed, now: DateTime<Utc>) -> Self {
        Self {
            desired,
            observed,
            now,
            status: observed.status.clone(),
            actions: Vec::new(),
            events: Vec::new(),
            phase: None,
            blocked: None,
            busy: false,
            origin: Origin::default(),
            primary_may_return: true,
        }
    }

    /// Sets the phase, unless a more important step has set it before.
    pub(super) fn say(&mut self, phase: Phase, reason: impl Into<String>) {
        if phase != Phase::Healthy {
            self.busy = true;
        }
        self.phase.get_or_insert_with(|| (phase, reason.into()));
    }

    /// Sets what the cluster waits for, unless a more important step has set it before.
    pub(super) fn wait_for(&mut self, what: impl Into<String>, hint: impl Into<String>, limit: Option<Duration>) {
        self.busy = true;
        if self.blocked.is_none() {
            self.blocked = Some(Blocked { what: what.into(), hint: hint.into(), limit });
        }
    }

    pub(super) fn note(&mut self, reason: Reason, text: impl Into<String>) {
        self.events.push(ClusterEvent { warning: false, reason, text: text.into() });
    }

    pub(super) fn warn(&mut self, reason: Reason, text: impl Into<String>) {
        self.events.push(ClusterEvent { warning: true, reason, text: text.into() });
    }

    /// Metadata of an object of the cluster.
    pub(super) fn metadata(&self, name: &str, labels: &[(&str, &str)]) -> Value {
        let inherited = self.desired.spec.inherited_metadata.clone().unwrap_or_default();
        let mut all = inherited.labels;
        all.insert(names::CLUSTER_LABEL.to_owned(), self.desired.name.clone());
        all.insert(names::CNPG_CLUSTER_LABEL.to_owned(), self.desired.name.clone());
        for (key, value) in labels {
            all.insert((*key).to_owned(), (*value).to_owned());
        }
        json!({
            "name": name,
            "namespace": self.desired.namespace,
            "labels": all,
            "annotations": inherited.annotations,
            "ownerReferences": [owner(self.desired)],
        })
    }

    /// Applies an object, unless it exists as wanted, was not read this time, or belongs to somebody else.
    pub(super) fn apply(&mut self, kind: Kind, name: &str, desired: Value) {
        if !self.observed.kinds_read.contains(&kind) || self.observed.is_foreign(kind.name(), name) {
            return;
        }
        let existing = self.observed.objects.get(&(kind, name.to_owned()));
        let mut wanted = desired.clone();
        if let Some(map) = wanted.as_object_mut() {
            map.retain(|key, _| key != "apiVersion" && key != "kind");
        }
        if existing.is_none_or(|existing| !covers(existing, &wanted)) {
            self.actions.push(Action::Apply { kind, name: name.to_owned(), object: desired });
        }
    }

    /// Removes an object of the cluster if it exists.
    pub(super) fn remove(&mut self, kind: Kind, name: &str) {
        let existing = self.observed.objects.get(&(kind, name.to_owned()));
        if let Some(uid) = existing.and_then(|object| Identity::deserialize(object).ok()?.metadata.uid) {
            self.actions.push(Action::Remove { kind, name: name.to_owned(), uid });
        }
    }

    pub(super) fn finish(mut self) -> Decision {
        self.status.observed_generation = Some(self.desired.generation);
        let (phase, reason) = self.phase.unwrap_or((Phase::Healthy, "all instances match the manifest".to_owned()));
        self.status.phase = Some(phase.text().to_owned());
        self.status.phase_reason = Some(reason);
        self.status.blocked_by = self.blocked.map(|blocked| {
            let before = self.observed.status.blocked_by.as_ref().filter(|before| before.what == blocked.what);
            // The time limit is written once and kept, or the status would change at every reconcile.
            let until = blocked.limit.and_then(|limit| {
                let fresh = self.now + chrono::Duration::from_std(limit).ok()?;
                Some(before.and_then(|before| before.until).filter(|until| *until > self.now).unwrap_or(fresh))
            });
            BlockedBy {
                since: before.map_or(self.now, |before| before.since),
                what: blocked.what,
                until,
                hint: blocked.hint,
            }
        });
        let next = if self.busy || !self.actions.is_empty() { SOON } else { LATER };
        let Self { status, actions, events, busy, .. } = self;
        Decision { status, actions, events, busy, next }
    }
}

/// What the volumes of the first instance are created from.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Origin {
    /// Empty volumes; also if the cluster has its data.
    #[default]
    Empty,
    /// Snapshots, or volumes to clone.
    Snapshots { data: VolumeSnapshotSource, wal: Option<VolumeSnapshotSource> },
    /// Not known yet: no volume is created, and the status says why.
    Unknown,
}

/// The owner reference that lets Kubernetes remove an object with its cluster.
pub fn owner(desired: &Desired) -> Value {
    json!({
        "apiVersion": format!("{}/{}", holdfast_kube_api::GROUP, holdfast_kube_api::VERSION),
        "kind": "Cluster",
        "name": desired.name,
        "uid": desired.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// Whether `existing` has all fields of `wanted`. Fields that the API server adds do not count. Lists must have equal
/// lengths, since one more element is one more rule.
fn covers(existing: &Value, wanted: &Value) -> bool {
    match (existing, wanted) {
        (Value::Object(existing), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            existing.get(key).map_or_else(|| is_empty(wanted), |existing| covers(existing, wanted))
        }),
        (Value::Array(existing), Value::Array(wanted)) => {
            existing.len() == wanted.len()
                && existing.iter().zip(wanted).all(|(existing, wanted)| covers(existing, wanted))
        }
        (existing, wanted) => existing == wanted,
    }
}

/// The API server drops empty maps and lists.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_applied_covers_itself_and_no_less() {
        let wanted = json!({"spec": {"ports": [{"port": 1}], "selector": {}}, "metadata": {"labels": {"a": "b"}}});
        let defaulted = json!({
            "spec": {"ports": [{"port": 1, "protocol": "TCP"}], "clusterIP": "10.0.0.1"},
            "metadata": {"labels": {"a": "b", "c": "d"}, "uid": "u"},
        });
        assert!(covers(&defaulted, &wanted));
        let more = json!({"spec": {"ports": [{"port": 1}, {"port": 2}]}, "metadata": {"labels": {"a": "b"}}});
        assert!(!covers(&more, &wanted), "one more port is one too many");
        let other = json!({"spec": {"ports": [{"port": 1}]}, "metadata": {"labels": {"a": "x"}}});
        assert!(!covers(&other, &wanted));
    }
}
