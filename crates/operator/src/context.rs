//! What all controllers of the operator share. What one of them keeps for itself is in a context of its own, such as
//! `cluster/context.rs`, which names this one.

use crate::environment::{Clock, Environment};
use crate::events::Recorder;
use crate::metrics::Metrics;
use crate::status_client::Dial;
use kube::Client;
use std::sync::Arc;

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
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Publishes Events.
    pub recorder: Recorder,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Context").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Context {
    /// In this environment, as the operator of this identity.
    pub fn new(environment: Environment, namespace: Option<String>, identity: &str, metrics: Arc<Metrics>) -> Self {
        let Environment { client, dial, clock } = environment;
        let recorder = Recorder::new(client.clone(), identity, Arc::clone(&metrics));
        Self { client, dial, clock, namespace, metrics, recorder }
    }
}
