//! Clients of the `kube` crate for the bed, and what they watch.

use std::path::Path;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::error::{KitError, Result};

/// A client for the cluster of a kubeconfig.
pub(crate) async fn of_kubeconfig(kubeconfig: &Path) -> Result<kube::Client> {
    let failed = |error: &dyn std::fmt::Display| {
        KitError::Unsupported(format!("use the kubeconfig {}: {error}", kubeconfig.display()))
    };
    let read = kube::config::Kubeconfig::read_from(kubeconfig).map_err(|error| failed(&error))?;
    let mut config = kube::Config::from_custom_kubeconfig(read, &kube::config::KubeConfigOptions::default())
        .await
        .map_err(|error| failed(&error))?;
    // The proxy of the environment is for the internet.
    config.proxy_url = None;
    kube::Client::try_from(config).map_err(|error| failed(&error))
}

/// Follows all objects of a type for as long as the set of tasks lives.
pub(crate) fn watch<K>(client: &kube::Client, tasks: &mut JoinSet<()>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    follow(Api::<K>::all(client.clone()), writer, Arc::new(Notify::new()), tasks);
    store
}

/// The same for objects whose type is known only at run time, with a bell of the caller.
pub(crate) fn follow<K>(api: Api<K>, writer: reflector::store::Writer<K>, bell: Arc<Notify>, tasks: &mut JoinSet<()>)
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: std::hash::Hash + Eq + Clone + Send + Sync,
{
    let stream = watcher(api, watcher::Config::default()).default_backoff().reflect(writer);
    tasks.spawn(ring(stream, bell));
}

#[expect(clippy::print_stderr, reason = "the log of the resident process")]
async fn ring<K>(stream: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>, bell: Arc<Notify>) {
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(_) => bell.notify_one(),
            // The stream resumes by itself after a while.
            Err(error) => eprintln!("watch: {error}"),
        }
    }
}
