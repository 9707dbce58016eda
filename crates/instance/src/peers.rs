//! Asks the other instances for their status.
//!
//! Addresses come from the DNS names of the headless service and are kept. During an outage names may not resolve, and
//! the answers of peers decide whether a primary may continue.

use crate::identity::Identity;
use crate::identity::Paths;
use crate::tls;
use futures::future::BoxFuture;
use holdfast_http::{Outgoing, exchange};
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::InstanceStatus;
use hyper::Method;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The maximum size of an answer in bytes.
const LARGEST: usize = 1 << 20;

/// The other instances of the cluster.
#[derive(Debug)]
pub struct Peers {
    identity: Identity,
    paths: Paths,
    addresses: Mutex<BTreeMap<String, SocketAddr>>,
}

/// Asks the other instances: over the network, except in tests.
pub trait AskInstances: std::fmt::Debug + Send + Sync {
    /// Asks all of these at the same time; `None` for those that do not answer within the limit.
    fn ask<'a>(&'a self, instances: &'a [String], limit: Duration) -> BoxFuture<'a, Vec<Option<InstanceStatus>>>;
}

impl AskInstances for Peers {
    fn ask<'a>(&'a self, instances: &'a [String], limit: Duration) -> BoxFuture<'a, Vec<Option<InstanceStatus>>> {
        Box::pin(self.ask(instances, limit))
    }
}

impl Peers {
    /// The instances of this instance's cluster.
    pub fn new(identity: &Identity, paths: &Paths) -> Self {
        Self { identity: identity.clone(), paths: paths.clone(), addresses: Mutex::default() }
    }

    /// Asks all of these at the same time; `None` for those that do not answer within the limit.
    pub async fn ask(&self, instances: &[String], limit: Duration) -> Vec<Option<InstanceStatus>> {
        let asking = instances.iter().map(|instance| async move {
            match tokio::time::timeout(limit, self.status(instance)).await {
                Ok(Ok(status)) if status.instance == *instance => Some(status),
                Ok(Err(error)) => {
                    tracing::debug!(%error, instance, "another instance does not answer");
                    None
                }
                // Another instance answered, or none in time.
                Ok(Ok(_)) | Err(_) => None,
            }
        });
        futures::future::join_all(asking).await
    }

    async fn status(&self, instance: &str) -> Result<InstanceStatus, Box<dyn std::error::Error + Send + Sync>> {
        let name =
            format!("{instance}.{}.{}.svc", names::headless_service(&self.identity.cluster), self.identity.namespace);
        let known = self.addresses.lock().get(instance).copied();
        let resolving = tokio::net::lookup_host((name.as_str(), names::STATUS_PORT));
        let address = match tokio::time::timeout(Duration::from_millis(300), resolving).await {
            Ok(Ok(mut found)) => found.next().or(known),
            _ => known,
        };
        let address = address.ok_or("its name does not resolve")?;
        self.addresses.lock().insert(instance.to_owned(), address);
        let tls = TlsConnector::from(Arc::new(tls::peer(&self.paths)?));
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let request = Outgoing { method: Method::GET, path: "/status", host: instance, body: Vec::new() };
        let (_, body) = exchange(socket, &tls, ServerName::try_from(name)?, request, LARGEST).await?;
        Ok(serde_json::from_slice(&body)?)
    }
}
