//! What the reconciles of clusters share beside what all controllers do: the images, and what is remembered between two of
//! them. It starts empty with each operator.

use super::desired::Images;
use super::memory::Memory;
use super::observed::Apis;
use crate::context::Context;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;

/// What the reconciles of clusters share.
#[derive(Debug)]
pub(crate) struct ClusterContext {
    /// What all controllers share.
    pub(crate) operator: Arc<Context>,
    /// Images.
    pub(crate) images: Images,
    /// What the API server knows, and when it was asked.
    pub(crate) apis: tokio::sync::Mutex<Option<(Instant, Apis)>>,
    /// What is remembered of each cluster, by uid.
    memories: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Memory>>>>,
    /// The version of each Lease that the watch brought last, and when.
    leases: Mutex<HashMap<(String, String), (String, Instant)>>,
}

impl ClusterContext {
    /// With nothing remembered.
    pub(crate) fn new(operator: Arc<Context>, images: Images) -> Self {
        Self {
            operator,
            images,
            apis: tokio::sync::Mutex::default(),
            memories: Mutex::default(),
            leases: Mutex::default(),
        }
    }

    /// What is remembered of a cluster.
    pub(crate) fn memory(&self, uid: &str) -> Arc<tokio::sync::Mutex<Memory>> {
        Arc::clone(self.memories.lock().entry(uid.to_owned()).or_default())
    }

    /// The watch brought a Lease. The same version again, as after a new beginning of the watch, is no news.
    pub(crate) fn hear_of_lease(&self, namespace: &str, name: &str, version: &str) {
        let mut leases = self.leases.lock();
        let heard = leases.entry((namespace.to_owned(), name.to_owned()));
        let heard = heard.or_insert_with(|| (version.to_owned(), Instant::now()));
        if heard.0 != version {
            *heard = (version.to_owned(), Instant::now());
        }
    }

    /// The version of a Lease that the watch brought last, and when.
    pub(crate) fn heard_of_lease(&self, namespace: &str, name: &str) -> Option<(String, Instant)> {
        self.leases.lock().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Forgets a cluster that is gone.
    pub(crate) fn forget(&self, uid: &str, namespace: &str, lease: &str) {
        self.leases.lock().remove(&(namespace.to_owned(), lease.to_owned()));
        self.memories.lock().remove(uid);
    }
}
