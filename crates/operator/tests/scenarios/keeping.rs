//! The real keeper of the Lease in each simulated instance: its way to the API server and to the other instances, both
//! of which can be cut.

use crate::fragile::Fragile;
use crate::instances::Instance;
use crate::transport::{Fault, Plan, Transport};
use crate::world::{NAMESPACE, World};
use futures::future::BoxFuture;
use holdfast_instance::identity::Identity;
use holdfast_instance::lease::{AskInstances, Handle, Keeper, Parts};
use holdfast_instance::state::State;
use holdfast_instance::watchdog::Feed;
use holdfast_kube_api::status_port::InstanceStatus;
use holdfast_kube_api::{Cluster, names};
use kube::Client;
use serde_json::Value;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The keeper of one instance. It ends with the instance.
pub(crate) struct Keeping {
    state: Arc<State>,
    handle: Handle,
    running: JoinHandle<()>,
    /// What happens to its requests.
    plan: Arc<Fragile<Plan>>,
    /// The `Cluster`, as this instance has seen it.
    seen: watch::Sender<Option<Arc<Cluster>>>,
    version: Value,
}

impl fmt::Debug for Keeping {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keeping").field("holds", &self.holds()).finish_non_exhaustive()
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Keeping {
    /// The keeper of a new container.
    pub(crate) fn start(world: &Arc<Fragile<World>>, instance: &str, cluster: &str, pod_uid: &str) -> Self {
        let identity = Identity {
            instance: instance.to_owned(),
            pod_uid: pod_uid.to_owned(),
            namespace: NAMESPACE.to_owned(),
            cluster: cluster.to_owned(),
        };
        let state = Arc::new(State::new(&identity, 18));
        let plan = Arc::new(Fragile::new(Plan::none()));
        plan.lock().expect("the plan").begin();
        let (seen, latest) = watch::channel(None);
        let parts = Parts {
            lease: (NAMESPACE.to_owned(), names::primary_lease(cluster)),
            me: instance.to_owned(),
            state: Arc::clone(&state),
            peers: Arc::new(Fellows { world: Arc::downgrade(world), cluster: cluster.to_owned() }),
            cluster: latest,
            watchdog: Feed::default(),
        };
        let transport = Transport { world: Arc::clone(world), plan: Arc::clone(&plan) };
        let (keeper, handle) = Keeper::new(Client::new(transport, NAMESPACE), parts);
        Self { state, handle, running: tokio::spawn(keeper.run()), plan, seen, version: Value::Null }
    }

    /// What its watch of the `Cluster` brings, unless it does not reach the API server.
    pub(crate) fn look(&mut self, cluster: Option<&Value>, cut_off: bool) {
        self.plan.lock().expect("the plan").fault = if cut_off { Fault::Reset } else { Fault::None };
        let Some(cluster) =
            cluster.filter(|cluster| !cut_off && cluster["metadata"]["resourceVersion"] != self.version)
        else {
            return;
        };
        self.version = cluster["metadata"]["resourceVersion"].clone();
        if let Ok(cluster) = serde_json::from_value(cluster.clone()) {
            self.seen.send_replace(Some(Arc::new(cluster)));
        }
    }

    /// The `Cluster`, as this instance has seen it.
    pub(crate) fn cluster(&self) -> Option<Arc<Cluster>> {
        self.seen.borrow().clone()
    }

    /// Takes or keeps the Lease; returns whether the instance holds it.
    pub(crate) fn hold(&self) -> bool {
        self.handle.want();
        self.holds()
    }

    /// Whether the instance holds the Lease.
    pub(crate) fn holds(&self) -> bool {
        self.state.holds_lease()
    }

    /// Whether the keeper may take the Lease.
    pub(crate) fn wants(&self) -> bool {
        self.state.wants_lease()
    }

    /// Releases the Lease soon.
    pub(crate) fn give_back(&self) {
        // Its first poll passes the word on; the rest is waiting.
        let _ = futures::FutureExt::now_or_never(self.handle.give_back(Duration::ZERO));
    }

    /// The container hangs, its first process included.
    pub(crate) fn freeze(&self) {
        self.running.abort();
    }
}

/// The other instances: all that run answer.
struct Fellows {
    world: Weak<Fragile<World>>,
    cluster: String,
}

impl fmt::Debug for Fellows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Fellows")
    }
}

impl AskInstances for Fellows {
    fn ask<'a>(&'a self, instances: &'a [String], limit: Duration) -> BoxFuture<'a, Vec<Option<InstanceStatus>>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let answers: Vec<_> = match self.world.upgrade() {
                Some(world) => {
                    let world = world.lock().expect("the world");
                    let answers =
                        |one: &&Instance, name: &str| one.name == name && one.cluster == self.cluster && !one.frozen;
                    let answer = |name: &String| {
                        let all = &world.fleet.instances;
                        let uid = all.iter().find(|(_, one)| answers(one, name)).map(|(uid, _)| uid.clone())?;
                        Some(world.status(&uid))
                    };
                    instances.iter().map(answer).collect()
                }
                None => instances.iter().map(|_| None).collect(),
            };
            if answers.iter().any(Option::is_none) {
                tokio::time::sleep(limit).await;
            }
            answers
        })
    }
}
