//! Events: each with its own words.
//!
//! The recorder of the client library folds Events of one reason into a series and keeps the words of the first; here the
//! words matter, such as which instance took over at which LSN. Whoever has the same thing to say at each look keeps it down
//! itself, as the controllers do.

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

/// An Event to be published.
#[derive(Debug, Clone, Copy)]
pub struct NewEvent<'a> {
    /// Whether a person should look.
    pub warning: bool,
    /// Of a closed set, in camel case: also a label of the metrics.
    pub reason: &'a str,
    /// In words.
    pub text: &'a str,
}

/// Upper bound for publishing one Event, so that a slow API server does not delay the reconcile.
const LIMIT: Duration = Duration::from_secs(5);
/// The API takes a kilobyte of text.
const LONGEST_TEXT: usize = 1000;
/// The API takes so many bytes of the instance that reports.
const LONGEST_IDENTITY: usize = 128;

/// The beginning of a text, of at most so many bytes.
fn shortened(text: &str, most_bytes: usize) -> String {
    text[..text.floor_char_boundary(most_bytes)].to_owned()
}

impl Recorder {
    /// In the name of this operator.
    pub fn new(client: Client, identity: &str, metrics: Arc<Metrics>) -> Self {
        Self { client, identity: identity.to_owned(), metrics }
    }

    /// Logs and counts an Event about an object, and publishes it. That it could not be published is no error: the status
    /// says the same.
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
