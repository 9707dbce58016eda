//! What the controllers of `Backup` and `ScheduledBackup` share: clients for instances, memories, a lock for each
//! cluster, and publishing Events.

use super::backup::Memory;
use super::event::BackupEvent;
use crate::context::Context;
use crate::error::{Error, is_conflict, is_not_found};
use crate::events::NewEvent;
use crate::status_client::StatusClient;
use holdfast_kube_api::names;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

/// A cluster: namespace and name.
pub(crate) type ClusterKey = (String, String);

/// What the controllers share.
pub(crate) struct BackupsContext {
    /// What all controllers of the operator share.
    pub(crate) operator: Arc<Context>,
    clients: LockedMap<ClusterKey, (Versions, StatusClient)>,
    memories: LockedMap<String, Memory>,
    turns: LockedMap<ClusterKey, Arc<tokio::sync::Mutex<()>>>,
}

/// Resource versions of the two Secrets that a client is made from.
type Versions = (Option<String>, Option<String>);

impl BackupsContext {
    /// With empty memories.
    pub(crate) fn new(operator: Arc<Context>) -> Self {
        Self { operator, clients: LockedMap::default(), memories: LockedMap::default(), turns: LockedMap::default() }
    }

    /// A client for the instances of a cluster; `None` while the cluster has no certificates.
    pub(crate) async fn client(&self, namespace: &str, cluster: &str) -> Result<Option<StatusClient>, Error> {
        let api: Api<Secret> = Api::namespaced(self.operator.client.clone(), namespace);
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
        let dial = self.operator.dial.clone();
        let Some(client) = StatusClient::from_secrets(dial, cluster, namespace, &authority, &own) else {
            return Ok(None);
        };
        let client = client.map_err(|why| Error::Certificate { secret: names::operator_secret(cluster), why })?;
        self.clients.put(key, (versions, client.clone()));
        Ok(Some(client))
    }

    /// The memory of a `Backup`; empty if nothing is known.
    pub(crate) fn memory(&self, uid: &str) -> Memory {
        self.memories.get(uid).unwrap_or_default()
    }

    /// Stores the memory of a `Backup`.
    pub(crate) fn remember(&self, uid: &str, memory: Memory) {
        self.memories.put(uid.to_owned(), memory);
    }

    /// Drops the memory of a `Backup` that has ended.
    pub(crate) fn forget(&self, uid: &str) {
        self.memories.remove(uid);
    }

    /// The lock of a cluster. It is held while the turn is checked and until it is recorded that the turn was taken.
    pub(crate) fn turn(&self, key: &ClusterKey) -> Arc<tokio::sync::Mutex<()>> {
        self.turns.with(key.clone(), |turn| Arc::clone(turn))
    }

    /// Writes the status, only if the object is unchanged since it was read. Fields from other versions of this program
    /// that this one does not know are dropped: there is one writer.
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

    /// Publishes Events about an object.
    pub(crate) async fn publish(&self, kind: &ApiResource, object: &DynamicObject, events: &[BackupEvent]) {
        for event in events {
            let (reason, warning) = (event.reason.to_string(), event.reason.is_warning());
            let event = NewEvent { warning, reason: &reason, text: &event.text };
            self.operator.recorder.publish(kind, object, event).await;
        }
    }
}

/// The time limit of a reconcile: an API server that accepts requests and does not answer them would block the others
/// of the cluster. The next reconcile finds what was done by then.
pub(crate) const RECONCILE_LIMIT: Duration = Duration::from_mins(1);

/// A map in a lock that is never held across a wait.
struct LockedMap<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for LockedMap<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V> LockedMap<K, V> {
    fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
        V: Clone,
    {
        self.0.lock().get(key).cloned()
    }

    fn put(&self, key: K, value: V) {
        self.0.lock().insert(key, value);
    }

    fn remove<Q>(&self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.0.lock().remove(key);
    }

    fn with<T>(&self, key: K, change: impl FnOnce(&mut V) -> T) -> T
    where
        V: Default,
    {
        change(self.0.lock().entry(key).or_default())
    }
}
