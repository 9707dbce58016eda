//! What all controllers share.

use crate::cluster::desired::Images;
use crate::cluster::memory::Memory;
use crate::cluster::observed::Apis;
use crate::events::Recorder;
use crate::metrics::Metrics;
use kube::Client;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The name under which the operator applies fields and tells Events.
pub const FIELD_MANAGER: &str = "holdfast-operator";

/// What all controllers share.
pub struct Context {
    /// The API server.
    pub client: Client,
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
        client: Client,
        namespace: Option<String>,
        images: Images,
        identity: &str,
        metrics: Arc<Metrics>,
    ) -> Self {
        let recorder = Recorder::new(client.clone(), identity);
        Self {
            client,
            namespace,
            images,
            metrics,
            recorder,
            memories: Mutex::default(),
            apis: tokio::sync::Mutex::default(),
        }
    }

    /// What is remembered of a cluster.
    pub(crate) fn memory(&self, uid: &str) -> Arc<tokio::sync::Mutex<Memory>> {
        let mut memories = self.memories.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Arc::clone(memories.entry(uid.to_owned()).or_default())
    }

    /// Forgets a cluster that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.memories.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(uid);
    }
}
