//! The `Cluster`, as it was last seen. While the API server is away that is what the instance goes by.

use crate::identity::Identity;
use futures::StreamExt as _;
use holdfast_kube_api::Cluster;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use std::sync::Arc;
use tokio::sync::watch;

/// The `Cluster`, `None` until it was seen.
pub type Seen = watch::Receiver<Option<Arc<Cluster>>>;

/// Watches the `Cluster` for as long as somebody looks.
pub fn watch(client: &Client, identity: &Identity) -> Seen {
    let (sender, seen) = watch::channel(None);
    let api: Api<Cluster> = Api::namespaced(client.clone(), &identity.namespace);
    // The role of the instance may look at this one only.
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
                    sender.send_replace(Some(Arc::new(cluster)));
                }
                Some(Ok(Event::Delete(_))) => {
                    // Its objects go with it, this pod among them; until then nothing changes.
                    tracing::info!("the Cluster was deleted");
                }
                Some(Ok(Event::Init | Event::InitDone)) => {}
                Some(Err(error)) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "the Cluster cannot be watched; going by what was last seen");
                    }
                }
                None => break,
            }
        }
    });
    seen
}
