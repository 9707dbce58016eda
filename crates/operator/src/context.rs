//! The context that all controllers of the operator share. A controller's own context, such as `cluster/context.rs`,
//! contains this one.

use crate::environment::{Clock, Environment};
use crate::events::Recorder;
use crate::metrics::Metrics;
use crate::status_client::Dial;
use holdfast_kube_api::cluster::OperatorIdentity;
use kube::Client;
use std::sync::Arc;

/// The context that all controllers share.
pub struct Context {
    /// The client of the API server.
    pub client: Client,
    /// How instances are reached.
    pub dial: Dial,
    /// The time of day.
    pub clock: Clock,
    /// The namespace to watch; `None` for all.
    pub namespace: Option<String>,
    /// This operator, as the status of its clusters names it.
    pub me: OperatorIdentity,
    /// The metrics of the operator.
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
    /// A context in this environment, for the operator with this identity.
    pub fn new(
        environment: Environment,
        namespace: Option<String>,
        identity: &str,
        me: OperatorIdentity,
        metrics: Arc<Metrics>,
    ) -> Self {
        let Environment { client, dial, clock } = environment;
        let recorder = Recorder::new(client.clone(), identity, Arc::clone(&metrics));
        Self { client, dial, clock, namespace, me, metrics, recorder }
    }
}
