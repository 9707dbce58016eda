//! The `Cluster`, as it was last seen. The instance uses it while the API server is away.

use crate::identity::Identity;
use futures::StreamExt as _;
use holdfast_kube_api::Cluster;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use std::sync::Arc;
use tokio::sync::watch;

/// The `Cluster`; `None` until it was seen.
pub type LatestCluster = watch::Receiver<Option<Arc<Cluster>>>;

/// Watches the `Cluster` as long as a receiver exists.
pub fn watch(client: &Client, identity: &Identity) -> LatestCluster {
    let (sender, seen) = watch::channel(None);
    let api: Api<Cluster> = Api::namespaced(client.clone(), &identity.namespace);
    // The instance's role allows reading only this one.
    let config = watcher::Config::default().fields(&format!("metadata.name={}", identity.cluster));
    tokio::spawn(async move {
        let stream = watcher::watcher(api, config).default_backoff();
        tokio::pin!(stream);
        let mut failing = false;
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = sender.closed() => None,
            };
            match event {
                Some(Ok(Event::Apply(cluster) | Event::InitApply(cluster))) => {
                    failing = false;
                    let before = sender.borrow().clone();
                    sender.send_replace(Some(Arc::new(as_meant(cluster, before.as_deref()))));
                }
                Some(Ok(Event::Delete(_))) => {
                    // Kubernetes deletes its objects too, this pod among them; until then nothing changes.
                    tracing::info!("the Cluster was deleted");
                }
                Some(Ok(Event::Init | Event::InitDone)) => {}
                Some(Err(error)) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "the Cluster cannot be watched; this instance uses the version that \
                                                it read last");
                    }
                }
                None => break,
            }
        }
    });
    seen
}

/// The `Cluster` as the operator reads it, with defaults. An invalid spec is not used: the previous one stays in force.
fn as_meant(mut cluster: Cluster, before: Option<&Cluster>) -> Cluster {
    let raw = serde_json::to_value(&cluster).unwrap_or_default();
    let outcome = holdfast_kube_api::validate::cluster(&raw);
    match (outcome.value, before) {
        (Some(valid), _) => cluster.spec = valid.spec,
        (None, Some(before)) => cluster.spec = before.spec.clone(),
        (None, None) => {}
    }
    cluster
}
