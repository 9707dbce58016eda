//! Events: each with its own words.
//!
//! The recorder of the client library folds Events of one reason into a series and keeps the words of the first; here the
//! words matter, such as which instance took over at which LSN. Whoever tells the same thing again and again keeps it down
//! itself, as the controllers do.

use crate::context::FIELD_MANAGER;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as Stored;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::events::{Event, EventType};
use kube::{Api, Client};
use std::time::Duration;

/// Tells Events.
#[derive(Clone)]
pub struct Recorder {
    client: Client,
    identity: String,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Recorder").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// An Event is worth no more: who tells it has something to do.
const LIMIT: Duration = Duration::from_secs(5);

impl Recorder {
    /// Tells in the name of this operator.
    pub fn new(client: Client, identity: &str) -> Self {
        Self { client, identity: identity.to_owned() }
    }

    /// Tells one Event about an object.
    pub async fn publish(&self, event: &Event, regarding: &ObjectReference) -> kube::Result<()> {
        let namespace = regarding.namespace.as_deref().unwrap_or("default");
        let about = regarding.name.as_deref().unwrap_or("unnamed");
        let stored = Stored {
            metadata: ObjectMeta {
                generate_name: Some(format!("{about}-")),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(Timestamp::now())),
            reporting_controller: Some(FIELD_MANAGER.to_owned()),
            // The API takes 128 characters.
            reporting_instance: Some(self.identity.chars().take(128).collect()),
            action: Some(event.action.clone()),
            reason: Some(event.reason.clone()),
            note: event.note.clone(),
            type_: Some(match event.type_ {
                EventType::Normal => "Normal".to_owned(),
                EventType::Warning => "Warning".to_owned(),
            }),
            regarding: Some(regarding.clone()),
            related: event.secondary.clone(),
            ..Stored::default()
        };
        let api: Api<Stored> = Api::namespaced(self.client.clone(), namespace);
        let create = PostParams::default();
        match tokio::time::timeout(LIMIT, api.create(&create, &stored)).await {
            Ok(created) => created.map(drop),
            Err(_) => Err(kube::Error::Service("the API server does not answer".into())),
        }
    }
}
