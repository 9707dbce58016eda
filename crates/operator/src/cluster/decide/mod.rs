//! What to do: a pure function of what is wished, what stands and the clock.
//!
//! The steps, in this order, each in its own file:
//!
//! 1. [`secrets`], [`services`], [`access`]: what instances need before they can start
//! 2. [`instances`]: which instances there shall be, by name; a name in the status is a promise that its volume is kept
//! 3. [`origin`]: what the volumes of the first instance are made from
//! 4. [`roles`]: which instance takes writes: bootstrap, failover, the end of a switchover
//! 5. [`volumes`], [`pods`]: claims and pods of those instances, and away with what belongs to none
//! 6. [`restart`]: what runs with old settings, standbys first
//! 7. [`status`], [`recoverability`]: what a person reads
//!
//! Each step sees the status as the steps before it left it, and adds [`Action`]s. The first step that says a phase
//! or names what blocks wins: the order above is the order of importance.

mod access;
mod instances;
mod origin;
mod pod_template;
mod pods;
mod recoverability;
mod restart;
mod roles;
mod secrets;
mod services;
mod status;
mod volumes;

#[cfg(test)]
mod tests;

pub use secrets::{SecretKind, server_names};
pub(crate) use secrets::{hash_of_names, short_hash};

use super::desired::Desired;
use super::observed::{Kind, Observed};
use chrono::{DateTime, Utc};
use holdfast_kube_api::cluster::{BlockedBy, ClusterStatus};
use holdfast_kube_api::names;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Requeue while something is in motion.
pub const SOON: Duration = Duration::from_secs(1);
/// Requeue while nothing is; watches wake the reconciler before that.
pub const LATER: Duration = Duration::from_secs(8);

/// What to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// The status to write, before anything is done.
    pub status: ClusterStatus,
    /// What to do then, in this order.
    pub actions: Vec<Action>,
    /// What to tell.
    pub events: Vec<Note>,
    /// When to look again, at the latest.
    pub next: Duration,
}

/// One step. All can be repeated.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Server-side apply of an object that rarely changes.
    Apply(Kind, Value),
    /// Removes one that is not wanted any more.
    Remove(Kind, String),
    /// Makes a Secret, or renews the certificate in it. Keys are made while it is applied.
    Secret(SecretKind),
    /// Makes the Lease of the primary, held by nobody.
    CreateLease,
    /// Takes the Lease from an instance that is proven dead, by compare and swap.
    ReleaseLease {
        /// The instance that held it.
        holder: String,
        /// The version that was read.
        resource_version: String,
    },
    /// Makes a claim; never changes one.
    CreateClaim(Box<PersistentVolumeClaim>),
    /// Asks for a larger volume.
    GrowClaim {
        /// The claim.
        name: String,
        /// Its new size.
        size: String,
    },
    /// Deletes a claim, and with it the data.
    DeleteClaim {
        /// The claim.
        name: String,
        /// Only if it is still this one.
        uid: String,
    },
    /// Makes a pod; never changes one.
    CreatePod(Box<Pod>),
    /// Deletes a pod gracefully.
    DeletePod {
        /// The pod.
        name: String,
        /// Only if it is still this one.
        uid: String,
    },
    /// Sets labels on a pod.
    LabelPod {
        /// The pod.
        name: String,
        /// The labels.
        labels: BTreeMap<String, String>,
    },
    /// Has PostgreSQL restarted in its pod.
    Restart {
        /// The instance.
        instance: String,
    },
}

/// Something worth an Event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Note {
    /// Whether it needs attention.
    pub warning: bool,
    /// What kind of thing it is.
    pub reason: Reason,
    /// In words.
    pub text: String,
}

/// Reasons of Events: a closed set, also a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// An instance is added.
    CreatingInstance,
    /// An instance is removed.
    RemovingInstance,
    /// The first instance has its data.
    Bootstrapped,
    /// The primary is lost; another instance is chosen.
    FailingOver,
    /// The primary hands over on purpose.
    SwitchingOver,
    /// An instance takes writes now.
    NewPrimary,
    /// The primary is lost and no instance can replace it.
    NoCandidate,
    /// An instance cannot go on by itself.
    InstanceFailed,
    /// PostgreSQL is restarted for changed settings.
    Restarting,
    /// A pod is replaced because its template changed.
    ReplacingPod,
    /// A volume grows.
    GrowingVolume,
    /// A field of the manifest is not followed as it is written.
    SpecWarning,
    /// The manifest cannot be followed.
    SpecRefused,
    /// The API server lacks something; it is left out.
    ApiMissing,
    /// The archive does not take WAL.
    ArchivingFails,
    /// The archive takes WAL again.
    ArchivingWorks,
    /// A certificate is made or renewed.
    CertificateRenewed,
}

impl Reason {
    /// Whether it is about a state that lasts, and would be told at every look; others are about a moment.
    pub fn lasts(self) -> bool {
        matches!(
            self,
            Self::NoCandidate | Self::InstanceFailed | Self::SpecWarning | Self::SpecRefused | Self::ApiMissing
        )
    }

    /// In camel case, as Events have it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// What the operator is doing; texts of `status.phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The manifest cannot be followed.
    SpecRefused,
    /// The first instance comes to its data.
    Bootstrapping,
    /// The primary is lost.
    FailingOver,
    /// The primary hands over.
    SwitchingOver,
    /// The primary does not take writes and nothing replaces it.
    PrimaryDown,
    /// An instance cannot go on by itself.
    InstanceFailed,
    /// Instances are being added.
    CreatingInstances,
    /// Instances are being removed.
    RemovingInstances,
    /// Instances are being restarted.
    Restarting,
    /// Instances are not ready yet.
    WaitingForInstances,
    /// All is as wished.
    Healthy,
}

impl Phase {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::SpecRefused => "Manifest refused",
            Self::Bootstrapping => "Bootstrapping the first instance",
            Self::FailingOver => "Failing over",
            Self::SwitchingOver => "Switching over",
            Self::PrimaryDown => "Primary is down",
            Self::InstanceFailed => "An instance has failed",
            Self::CreatingInstances => "Creating instances",
            Self::RemovingInstances => "Removing an instance",
            Self::Restarting => "Restarting instances",
            Self::WaitingForInstances => "Waiting for instances",
            Self::Healthy => "Healthy",
        }
    }
}

/// Decides.
pub fn decide(desired: &Desired, observed: &Observed, now: DateTime<Utc>) -> Decision {
    let mut plan = Plan::new(desired, observed, now);
    if !desired.errors.is_empty() && observed.status.instance_names.is_empty() {
        // Nothing exists yet, so nothing has to be kept alive: wait for a better manifest.
        status::decide(&mut plan);
        return plan.finish();
    }
    // A manifest that has become wrong later still has its instances: pods that die are replaced, primaries that are
    // lost are failed over. Only what follows from its wrong fields is not done.
    secrets::decide(&mut plan);
    if desired.errors.is_empty() {
        services::decide(&mut plan);
        access::decide(&mut plan);
    }
    instances::decide(&mut plan);
    origin::decide(&mut plan);
    roles::decide(&mut plan);
    volumes::decide(&mut plan);
    pods::decide(&mut plan);
    restart::decide(&mut plan);
    status::decide(&mut plan);
    plan.finish()
}

/// A decision in the making.
struct Plan<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    now: DateTime<Utc>,
    /// As the steps so far leave it.
    status: ClusterStatus,
    actions: Vec<Action>,
    events: Vec<Note>,
    phase: Option<(Phase, String)>,
    blocked: Option<Blocked>,
    /// Whether to look again soon.
    busy: bool,
    /// What the volumes of the first instance are made from.
    origin: origin::Origin,
    /// Whether the pod of the lost primary may be made again: nothing can replace it.
    primary_may_return: bool,
}

/// What is waited for.
struct Blocked {
    what: String,
    hint: String,
    /// How long it can still take, where that is known.
    limit: Option<Duration>,
}

impl<'a> Plan<'a> {
    fn new(desired: &'a Desired, observed: &'a Observed, now: DateTime<Utc>) -> Self {
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
            origin: origin::Origin::default(),
            primary_may_return: true,
        }
    }

    /// Says what is being done, unless something more important was said before.
    fn say(&mut self, phase: Phase, reason: impl Into<String>) {
        if phase != Phase::Healthy {
            self.busy = true;
        }
        self.phase.get_or_insert_with(|| (phase, reason.into()));
    }

    /// Says what is waited for, unless something more important was said before.
    fn wait_for(&mut self, what: impl Into<String>, hint: impl Into<String>, limit: Option<Duration>) {
        self.busy = true;
        if self.blocked.is_none() {
            self.blocked = Some(Blocked { what: what.into(), hint: hint.into(), limit });
        }
    }

    fn note(&mut self, reason: Reason, text: impl Into<String>) {
        self.events.push(Note { warning: false, reason, text: text.into() });
    }

    fn warn(&mut self, reason: Reason, text: impl Into<String>) {
        self.events.push(Note { warning: true, reason, text: text.into() });
    }

    /// Metadata of an object of the cluster.
    fn metadata(&self, name: &str, labels: &[(&str, &str)]) -> Value {
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

    /// Applies an object unless it stands as it should, or was not looked at this time.
    fn apply(&mut self, kind: Kind, name: &str, desired: Value) {
        if !self.observed.objects_read {
            return;
        }
        let stands = self.observed.objects.get(&(kind, name.to_owned()));
        let mut wanted = desired.clone();
        if let Some(map) = wanted.as_object_mut() {
            map.retain(|key, _| key != "apiVersion" && key != "kind");
        }
        if stands.is_none_or(|stands| !covers(stands, &wanted)) {
            self.actions.push(Action::Apply(kind, desired));
        }
    }

    /// Removes an object if it stands.
    fn remove(&mut self, kind: Kind, name: &str) {
        if self.observed.objects.contains_key(&(kind, name.to_owned())) {
            self.actions.push(Action::Remove(kind, name.to_owned()));
        }
    }

    fn finish(mut self) -> Decision {
        self.status.observed_generation = Some(self.desired.generation);
        let (phase, reason) = self.phase.unwrap_or((Phase::Healthy, "all instances are as wished".to_owned()));
        self.status.phase = Some(phase.text().to_owned());
        self.status.phase_reason = Some(reason);
        self.status.blocked_by = self.blocked.map(|blocked| {
            let before = self.observed.status.blocked_by.as_ref().filter(|before| before.what == blocked.what);
            // A limit is kept as it was written first, or the status would change at every look.
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
        Decision { status: self.status, actions: self.actions, events: self.events, next }
    }
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

/// Whether `stands` has all that `wanted` names. The API server adds fields to objects; they do not count. Lists must
/// have equal lengths, since an element more is a rule more.
fn covers(stands: &Value, wanted: &Value) -> bool {
    match (stands, wanted) {
        (Value::Object(stands), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| stands.get(key).map_or_else(|| is_empty(wanted), |stands| covers(stands, wanted))),
        (Value::Array(stands), Value::Array(wanted)) => {
            stands.len() == wanted.len() && stands.iter().zip(wanted).all(|(stands, wanted)| covers(stands, wanted))
        }
        (stands, wanted) => stands == wanted,
    }
}

/// Empty maps and lists are dropped by the API server.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
