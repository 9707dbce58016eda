//! What runs inside the program `holdfast-kube` as long as the bed does.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::bed::client;
use super::layout::{HOST, Layout, S3_PORT};
use super::names;
use crate::error::Result;
use crate::s3::{Credentials, serve};

/// Follows all objects of a type for as long as the set of tasks lives.
pub(crate) fn watch<K>(client: &kube::Client, tasks: &mut JoinSet<()>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    follow(Api::<K>::all(client.clone()), writer, Arc::new(Notify::new()), tasks);
    store
}

/// The same for objects whose type is known at run time only, with the bell of somebody else.
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
            // The stream goes on by itself, after a while.
            Err(error) => eprintln!("watch: {error}"),
        }
    }
}

/// Serves names and storage of the bed until the process is killed.
pub async fn serve_resident() -> Result<()> {
    let layout = Layout::find()?;
    let client = client(&layout.kubeconfig("resident")).await?;
    names::serve(&client, SocketAddr::from((HOST, 53))).await
}

/// Serves the object store of the bed until the process is killed.
pub async fn serve_s3() -> Result<()> {
    let layout = Layout::find()?;
    serve(SocketAddr::from((HOST, S3_PORT)), &layout.path("s3"), &Credentials::default()).await
}
