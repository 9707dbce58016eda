//! Secrets and ConfigMaps, read by name as the instance's role allows.

use crate::error::{Error, Kind, Result};
use crate::settings::archive_toml::{Material, wanted};
use holdfast_kube_api::cluster::BarmanObjectStore;
use holdfast_secret::Secret;
use k8s_openapi::api::core::v1::{self as k8s, ConfigMap};
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::time::Duration;

/// The time limit of one request.
const LIMIT: Duration = Duration::from_secs(10);

/// Reads Secrets and ConfigMaps.
#[derive(Clone)]
pub struct Secrets {
    secrets: Api<k8s::Secret>,
    config_maps: Api<ConfigMap>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secrets")
    }
}

impl Secrets {
    /// Reads those of a namespace.
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client.clone(), namespace),
        }
    }

    /// All keys of a Secret, and its resource version.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn secret(&self, name: &str) -> Result<(BTreeMap<String, Secret<Vec<u8>>>, String)> {
        let secret = limited(self.secrets.get(name)).await.map_err(|error| unreadable("Secret", name, error))?;
        let data =
            secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, Secret::new(value.0))).collect();
        Ok((data, secret.metadata.resource_version.unwrap_or_default()))
    }

    /// One key of a Secret.
    ///
    /// # Errors
    /// When it cannot be read or does not exist.
    pub async fn key(&self, name: &str, key: &str) -> Result<Secret<Vec<u8>>> {
        self.secret(name).await?.0.remove(key).ok_or_else(|| missing("Secret", name, key))
    }

    /// One key of a ConfigMap.
    ///
    /// # Errors
    /// When it cannot be read or does not exist.
    pub async fn config(&self, name: &str, key: &str) -> Result<String> {
        let map = limited(self.config_maps.get(name)).await.map_err(|error| unreadable("ConfigMap", name, error))?;
        map.data.unwrap_or_default().remove(key).ok_or_else(|| missing("ConfigMap", name, key))
    }

    /// The content of the Secrets of an archive.
    ///
    /// # Errors
    /// When one cannot be read.
    pub async fn material(&self, store: &BarmanObjectStore) -> Result<Material> {
        let mut material = Material::default();
        let mut read: BTreeMap<String, BTreeMap<String, Secret<Vec<u8>>>> = BTreeMap::new();
        for (item, selector) in wanted(store) {
            if !read.contains_key(&selector.name) {
                read.insert(selector.name.clone(), self.secret(&selector.name).await?.0);
            }
            match read.get(&selector.name).and_then(|keys| keys.get(&selector.key)) {
                Some(value) => material.put(item, value.clone()),
                None if selector.optional == Some(true) => {}
                None => return Err(missing("Secret", &selector.name, &selector.key)),
            }
        }
        Ok(material)
    }
}

async fn limited<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Option<kube::Error>> {
    match tokio::time::timeout(LIMIT, request).await {
        Ok(result) => result.map_err(Some),
        Err(_) => Err(None),
    }
}

fn unreadable(kind: &str, name: &str, error: Option<kube::Error>) -> Error {
    match error {
        Some(kube::Error::Api(status)) if status.code == 404 => Error {
            kind: Kind::Retry,
            what: format!("{kind} {name} does not exist"),
            doing: Some("reading what the Cluster refers to".to_owned()),
            hint: Some("create it, or correct its name in the Cluster".to_owned()),
        },
        Some(error) => Error::retry(format!("{kind} {name} cannot be read: {error}")),
        None => Error::retry(format!("{kind} {name} cannot be read: the API server does not answer")),
    }
}

fn missing(kind: &str, name: &str, key: &str) -> Error {
    Error::retry(format!("{kind} {name} has no key {key}"))
        .doing("reading what the Cluster refers to")
        .hint("add the key, or correct its name in the Cluster")
}
