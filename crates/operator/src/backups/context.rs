//! What the controllers of `Backup` and `ScheduledBackup` share: clients for instances, memories, one reconcile at a time
//! where two would get in each other's way, and telling Events.

use super::backup::Memory;
use super::event::BackupEvent;
use crate::context::Context;
use crate::error::{Error, is_conflict, is_not_found};
use crate::status_client::StatusClient;
use holdfast_kube_api::names;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A cluster: namespace and name.
pub(crate) type ClusterKey = (String, String);

/// What the controllers share.
pub(crate) struct BackupsContext {
    /// What all controllers of the operator share.
    pub(crate) context: Arc<Context>,
    clients: Table<ClusterKey, (Versions, StatusClient)>,
    memories: Table<String, Memory>,
    turns: Table<ClusterKey, Arc<tokio::sync::Mutex<()>>>,
}

/// Resource versions of the two Secrets that a client is made from.
type Versions = (Option<String>, Option<String>);

impl BackupsContext {
    /// Nothing known yet.
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, clients: Table::default(), memories: Table::default(), turns: Table::default() }
    }

    /// A client for the instances of a cluster; `None` while the cluster has no certificates.
    pub(crate) async fn client(&self, namespace: &str, cluster: &str) -> Result<Option<StatusClient>, Error> {
        let api: Api<Secret> = Api::namespaced(self.context.client.clone(), namespace);
        let read = async |name: String| {
            api.get_opt(&name).await.map_err(|error| Error::api(format!("read secret {name}"), error))
        };
        let (authority, own) =
            tokio::try_join!(read(names::ca_secret(cluster)), read(names::operator_secret(cluster)))?;
        let (Some(authority), Some(own)) = (authority, own) else { return Ok(None) };
        let versions = (authority.resource_version(), own.resource_version());
        let key = (namespace.to_owned(), cluster.to_owned());
        if let Some((known, client)) = self.clients.get(&key)
            && known == versions
        {
            return Ok(Some(client));
        }
        let value = |secret: &Secret, name: &str| {
            secret.data.as_ref().and_then(|data| data.get(name)).map(|value| value.0.clone()).unwrap_or_default()
        };
        let client = StatusClient::new(
            self.context.dial.clone(),
            cluster,
            namespace,
            &value(&authority, "ca.crt"),
            &value(&own, "tls.crt"),
            &value(&own, "tls.key"),
        )
        .map_err(|why| Error::Certificate { secret: names::operator_secret(cluster), why })?;
        self.clients.put(key, (versions, client.clone()));
        Ok(Some(client))
    }

    /// What is remembered of a `Backup`.
    pub(crate) fn memory(&self, uid: &str) -> Memory {
        self.memories.get(uid).unwrap_or_default()
    }

    /// Remembers.
    pub(crate) fn remember(&self, uid: &str, memory: Memory) {
        self.memories.put(uid.to_owned(), memory);
    }

    /// Forgets a `Backup` that is over.
    pub(crate) fn forget(&self, uid: &str) {
        self.memories.remove(uid);
    }

    /// Held from looking whose turn it is to writing that it was taken: within a cluster one at a time.
    pub(crate) fn turn(&self, key: &ClusterKey) -> Arc<tokio::sync::Mutex<()>> {
        self.turns.with(key.clone(), |turn| Arc::clone(turn))
    }

    /// Writes the status, only if the object is still as it was read. What other versions of this program wrote into it
    /// and this one does not know is not kept: there is one writer.
    pub(crate) async fn write_status<S: Serialize + Sync>(
        &self,
        api: &Api<DynamicObject>,
        object: &mut DynamicObject,
        status: &S,
    ) -> Result<(), Error> {
        let name = object.name_any();
        let status = serde_json::to_value(status)
            .map_err(|source| Error::Malformed { what: format!("the status of {name}"), source })?;
        if object.data.get("status") == Some(&status) {
            return Ok(());
        }
        let mut new = object.clone();
        if !new.data.is_object() {
            new.data = Value::Object(serde_json::Map::new());
        }
        new.data["status"] = status;
        match api.replace_status(&name, &PostParams::default(), &new).await {
            Ok(written) => {
                *object = written;
                Ok(())
            }
            Err(error) if is_conflict(&error) || is_not_found(&error) => Err(Error::Changed { what: name }),
            Err(error) => Err(Error::api(format!("write the status of {name}"), error)),
        }
    }

    /// Tells Events, and counts them.
    pub(crate) async fn tell(&self, kind: &ApiResource, object: &DynamicObject, events: &[BackupEvent]) {
        let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
        for notice in events {
            let reason = notice.reason.to_string();
            let warning = notice.reason.is_warning();
            if warning {
                tracing::warn!(kind = kind.kind, name, namespace, reason, "{}", notice.text);
            } else {
                tracing::info!(kind = kind.kind, name, namespace, reason, "{}", notice.text);
            }
            self.context.metrics.add("holdfast_operator_events_total", &[("reason", &reason)], 1.0);
            let event = Event {
                type_: if warning { EventType::Warning } else { EventType::Normal },
                reason: reason.clone(),
                // The API takes a kilobyte.
                note: Some(notice.text.chars().take(1000).collect()),
                action: reason,
                secondary: None,
            };
            if let Err(error) = self.context.recorder.publish(&event, &object.object_ref(kind)).await {
                tracing::debug!(name, namespace, %error, "an Event could not be told");
            }
        }
    }
}

/// How long a reconcile may take: an API server that accepts requests and does not answer them would hold up the others
/// of the cluster. Whatever was done by then is found by the next look.
const LIMIT: Duration = Duration::from_mins(1);

/// A reconcile, within its limit.
pub(crate) async fn in_time<T>(doing: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |_| Err(Error::Slow { doing: doing.to_owned(), seconds: LIMIT.as_secs() });
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(late)
}

/// A map behind a lock that is never held across a wait.
struct Table<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V> Table<K, V> {
    fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
        V: Clone,
    {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: K, value: V) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value);
    }

    fn remove<Q>(&self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn with<T>(&self, key: K, change: impl FnOnce(&mut V) -> T) -> T
    where
        V: Default,
    {
        change(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default())
    }
}
