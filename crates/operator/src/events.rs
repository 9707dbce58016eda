//! Events, each with its own text.
//!
//! The recorder of the client library merges Events with the same reason into a series and keeps only the first text.
//! Here the text matters, such as which instance took over at which LSN. A controller that would report the same thing
//! at each reconcile suppresses it itself.

use crate::environment::FIELD_MANAGER;
use crate::metrics::Metrics;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use std::sync::Arc;
use std::time::Duration;

/// Publishes Events.
#[derive(Clone)]
pub struct Recorder {
    client: Client,
    identity: String,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Recorder").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// An Event to publish.
#[derive(Debug, Clone, Copy)]
pub struct NewEvent<'a> {
    /// Whether a person should read it: type `Warning`.
    pub warning: bool,
    /// The reason in camel case, from a closed set: also a label of the metrics.
    pub reason: &'a str,
    /// The text for people.
    pub text: &'a str,
}

/// Upper bound for publishing one Event, so that a slow API server does not delay the reconcile.
const LIMIT: Duration = Duration::from_secs(5);
/// The API accepts 1024 bytes of text.
const LONGEST_TEXT: usize = 1000;
/// The API accepts this many bytes for the reporting instance.
const LONGEST_IDENTITY: usize = 128;

/// The beginning of a text, at most this many bytes.
fn shortened(text: &str, most_bytes: usize) -> String {
    text[..text.floor_char_boundary(most_bytes)].to_owned()
}

impl Recorder {
    /// A recorder in the name of this operator.
    pub fn new(client: Client, identity: &str, metrics: Arc<Metrics>) -> Self {
        Self { client, identity: identity.to_owned(), metrics }
    }

    /// Logs, counts and publishes an Event about an object. A failure to publish it is only logged: the status says the
    /// same.
    pub async fn publish(&self, kind: &ApiResource, object: &DynamicObject, event: NewEvent<'_>) {
        let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
        let NewEvent { warning, reason, text } = event;
        if warning {
            tracing::warn!(kind = kind.kind, name, namespace, reason, "{text}");
        } else {
            tracing::info!(kind = kind.kind, name, namespace, reason, "{text}");
        }
        self.metrics.add("holdfast_operator_events_total", &[("reason", reason)], 1.0);
        let regarding = object.object_ref(kind);
        let namespace = regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let stored = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", regarding.name.as_deref().unwrap_or("unnamed"))),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(Timestamp::now())),
            reporting_controller: Some(FIELD_MANAGER.to_owned()),
            reporting_instance: Some(shortened(&self.identity, LONGEST_IDENTITY)),
            action: Some(reason.to_owned()),
            reason: Some(reason.to_owned()),
            note: Some(shortened(text, LONGEST_TEXT)),
            type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
            regarding: Some(regarding),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        match tokio::time::timeout(LIMIT, api.create(&PostParams::default(), &stored)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(name, namespace, %error, "an Event could not be published"),
            Err(_) => {
                tracing::debug!(name, namespace, "an Event could not be published: the API server does not answer");
            }
        }
    }
}
