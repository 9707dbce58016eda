//! What all controllers share.

use crate::cluster::desired::Images;
use crate::cluster::memory::Memory;
use crate::cluster::observed::Apis;
use crate::events::Recorder;
use crate::metrics::Metrics;
use crate::status_client::Dial;
use chrono::{DateTime, Utc};
use kube::Client;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::time::Instant;

/// The name under which the operator applies fields and tells Events.
pub const FIELD_MANAGER: &str = "holdfast-operator";

/// What the operator stands on.
#[derive(Clone)]
pub struct Environment {
    /// The API server.
    pub client: Client,
    /// The way to the instances.
    pub dial: Dial,
    /// The time of day.
    pub clock: Clock,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Environment").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl Environment {
    /// The world as it is.
    pub fn real(client: Client) -> Self {
        Self { client, dial: Dial::default(), clock: Clock::System }
    }
}

/// The time of day. How long something took is never measured by it.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// The system's.
    System,
    /// It was this time at that moment, and goes on from there as tokio's clock does.
    Since(DateTime<Utc>, Instant),
}

impl Clock {
    /// The time of day.
    pub fn now(self) -> DateTime<Utc> {
        match self {
            Self::System => Utc::now(),
            Self::Since(then, moment) => {
                then + chrono::Duration::from_std(moment.elapsed()).unwrap_or(chrono::Duration::MAX)
            }
        }
    }
}

/// What all controllers share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The way to the instances.
    pub dial: Dial,
    /// The time of day.
    pub clock: Clock,
    /// The namespace that is watched; all of them when it is absent.
    pub namespace: Option<String>,
    /// Images.
    pub images: Images,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Tells Events.
    pub recorder: Recorder,
    /// What is remembered of each cluster, by uid.
    pub(crate) memories: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Memory>>>>,
    /// The version of each Lease that the watch brought last, and when.
    leases: Mutex<HashMap<(String, String), (String, Instant)>>,
    /// What the API server knows, and when it was asked.
    pub(crate) apis: tokio::sync::Mutex<Option<(Instant, Apis)>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Context").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Context {
    /// A context with nothing remembered.
    pub fn new(
        environment: Environment,
        namespace: Option<String>,
        images: Images,
        identity: &str,
        metrics: Arc<Metrics>,
    ) -> Self {
        let Environment { client, dial, clock } = environment;
        let recorder = Recorder::new(client.clone(), identity);
        Self {
            client,
            dial,
            clock,
            namespace,
            images,
            metrics,
            recorder,
            memories: Mutex::default(),
            leases: Mutex::default(),
            apis: tokio::sync::Mutex::default(),
        }
    }

    /// What is remembered of a cluster.
    pub(crate) fn memory(&self, uid: &str) -> Arc<tokio::sync::Mutex<Memory>> {
        let mut memories = self.memories.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Arc::clone(memories.entry(uid.to_owned()).or_default())
    }

    /// The watch brought a Lease. The same version again, as after a new beginning of the watch, is no news.
    pub(crate) fn hear_of_lease(&self, namespace: &str, name: &str, version: &str) {
        let mut leases = self.leases.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let heard = leases.entry((namespace.to_owned(), name.to_owned()));
        let heard = heard.or_insert_with(|| (version.to_owned(), Instant::now()));
        if heard.0 != version {
            *heard = (version.to_owned(), Instant::now());
        }
    }

    /// The version of a Lease that the watch brought last, and when.
    pub(crate) fn heard_of_lease(&self, namespace: &str, name: &str) -> Option<(String, Instant)> {
        let leases = self.leases.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        leases.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Forgets a cluster that is gone.
    pub(crate) fn forget(&self, uid: &str, namespace: &str, lease: &str) {
        let of_lease = (namespace.to_owned(), lease.to_owned());
        self.leases.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&of_lease);
        self.memories.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(uid);
    }
}
