//! The processes of the program `holdfast-kube` that live as long as the bed, and how they follow objects.

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
use super::disk::Disk;
use super::layout::{HOST, Layout, S3_PORT};
use super::{names, storage};
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

/// A part of the bed that is a process of the program `holdfast-kube`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resident {
    /// The DNS server, see `names/`.
    Names,
    /// The storage vendor, see `storage/`.
    Storage,
    /// The object store.
    S3,
}

impl Resident {
    /// All parts in the order of their start.
    pub const ALL: [Self; 3] = [Self::Names, Self::Storage, Self::S3];

    /// The name of the part, which is also the name of its log and of its control group.
    pub fn name(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Storage => "storage",
            Self::S3 => "s3",
        }
    }

    /// Serves until the process is killed.
    pub async fn serve(self) -> Result<()> {
        let layout = Layout::find()?;
        match self {
            Self::Names => {
                let client = client(&layout.kubeconfig("resident")).await?;
                names::serve(&client, SocketAddr::from((HOST, 53))).await
            }
            Self::Storage => {
                let client = client(&layout.kubeconfig("resident")).await?;
                storage::serve(&client, Disk::at(layout.disk())).await;
                Ok(())
            }
            Self::S3 => serve(SocketAddr::from((HOST, S3_PORT)), &layout.path("s3"), &Credentials::default()).await,
        }
    }
}
