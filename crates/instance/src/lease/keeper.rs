//! Takes, renews and releases the Lease, in parallel to everything else that the manager does.
//!
//! It runs on its own thread, and stops PostgreSQL itself when the Lease is lost: the manager's loop may be busy or
//! waiting for a disk. Every request times out before the moment at which PostgreSQL has to stop without its answer.

use super::{ASK, ASK_FROM, EXPIRE, LIMIT, RENEW, SOON, STOP, Sightings, Take, WATCHED, YIELD, may_continue, may_take};
use crate::cluster_watch::LatestCluster;
use crate::error::{Error, Result};
use crate::peers::AskInstances;
use crate::state::State;
use crate::watchdog::Feed;
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::InstanceStatus;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, Config};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// The manager's side of the keeper.
#[derive(Debug, Clone)]
pub struct Handle {
    wanted: watch::Sender<bool>,
    state: Arc<State>,
}

impl Handle {
    /// Tells the keeper to take the Lease and keep it.
    pub fn want(&self) {
        self.wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
    }

    /// Tells the keeper to release the Lease, since PostgreSQL takes no writes here. Waits for it, up to the limit.
    pub async fn give_back(&self, limit: Duration) {
        self.wanted.send_replace(false);
        let started = Instant::now();
        while self.state.holds_lease() && started.elapsed() < limit {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The result of a request.
enum Answer {
    /// This instance holds the Lease.
    Mine,
    /// Another instance holds it.
    Other(String),
    /// Nobody holds it.
    Free,
    /// The API server gave no usable answer.
    Unknown(String),
}

/// What a keeper needs.
#[derive(Debug)]
pub struct Parts {
    /// Namespace and name of the Lease.
    pub lease: (String, String),
    /// The name of this instance.
    pub me: String,
    /// The shared state of the instance.
    pub state: Arc<State>,
    /// The other instances.
    pub peers: Arc<dyn AskInstances>,
    /// The `Cluster`, as it was last seen.
    pub cluster: LatestCluster,
    /// Ends PostgreSQL if the keeper does not.
    pub watchdog: Feed,
}

/// Keeps the Lease.
#[derive(Debug)]
pub struct Keeper {
    api: Api<Lease>,
    name: String,
    me: String,
    state: Arc<State>,
    peers: Arc<dyn AskInstances>,
    cluster: LatestCluster,
    wanted: watch::Receiver<bool>,
    /// The Lease, as it was last seen.
    lease: Option<Lease>,
    /// For how long it was seen unchanged.
    seen: Sightings,
    /// Since when the manager has wanted it.
    wanted_since: Option<Instant>,
    renewed: Instant,
    /// Until this time no other instance can take it.
    safe_until: Instant,
    /// Instances that the others named when they last answered.
    named_by_others: BTreeSet<String>,
    watchdog: Feed,
}

/// The shortest timeout of a request.
const SHORTEST: Duration = Duration::from_millis(200);

impl Keeper {
    /// Starts a keeper on its own thread with its own client; returns the handle for the manager.
    ///
    /// # Errors
    /// When the thread or the client cannot be created.
    pub async fn start(config: Config, parts: Parts) -> Result<Handle> {
        let (started, answer) = oneshot::channel();
        let failed = |error: &dyn std::fmt::Display| {
            Error::stuck(format!("the thread that renews the Lease cannot start: {error}"))
        };
        let thread = std::thread::Builder::new().name("lease".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(failed(&error)))),
            };
            runtime.block_on(async move {
                match Client::try_from(config) {
                    Ok(client) => {
                        let (keeper, handle) = Self::new(client, parts);
                        drop(started.send(Ok(handle)));
                        keeper.run().await;
                    }
                    Err(error) => drop(started.send(Err(failed(&error)))),
                }
            });
        });
        drop(thread.map_err(|error| failed(&error))?);
        answer.await.map_err(|error| failed(&error))?
    }

    /// A keeper that uses this client, and the handle for the manager. It does nothing until [`Self::run`], and
    /// measures time by the clock of the runtime in which it runs.
    pub fn new(client: Client, parts: Parts) -> (Self, Handle) {
        let (sender, wanted) = watch::channel(false);
        let handle = Handle { wanted: sender, state: Arc::clone(&parts.state) };
        let Parts { lease: (namespace, name), me, state, peers, cluster, watchdog } = parts;
        let now = Instant::now();
        let keeper = Self {
            api: Api::namespaced(client, &namespace),
            name,
            me,
            state,
            peers,
            cluster,
            wanted,
            lease: None,
            seen: Sightings::default(),
            wanted_since: None,
            renewed: now,
            safe_until: now,
            named_by_others: BTreeSet::new(),
            watchdog,
        };
        (keeper, handle)
    }

    /// Keeps the Lease as the manager wants it, until the handle is dropped.
    pub async fn run(mut self) {
        loop {
            self.watchdog.here();
            let wanted = *self.wanted.borrow_and_update();
            let held = self.state.holds_lease();
            // Reported before the time counts, and until nothing is written any more.
            self.state.set_wants_lease(wanted);
            self.wanted_since = wanted.then(|| self.wanted_since.unwrap_or_else(Instant::now));
            let pause = match (wanted, held) {
                (true, false) => self.take().await,
                (true, true) => self.renew().await,
                (false, true) => self.give_back().await,
                // An instance that is named later then already knows when the Lease was last renewed.
                (false, false) => {
                    self.read_lease().await;
                    RENEW
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = self.wanted.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn take(&mut self) -> Duration {
        match self.read_lease().await {
            Answer::Mine | Answer::Free => {}
            Answer::Other(holder) => match self.may_take(&holder) {
                Take::Now => tracing::warn!(holder, "the Lease of the primary has expired; this instance takes it"),
                Take::After(_) => {
                    self.state.lease_message(format!(
                        "waiting for the Lease of the primary, held by {holder}: this instance takes it when \
                         {holder} releases it, or {} s after its last renewal, but not earlier than {} s from now",
                        EXPIRE.as_secs(),
                        YIELD.as_secs()
                    ));
                    return SOON;
                }
            },
            Answer::Unknown(why) => {
                self.state.lease_message(format!("waiting for the Lease of the primary: {why}"));
                return SOON;
            }
        }
        let asked = Instant::now();
        match self.write(Some(self.me.clone())).await {
            Answer::Mine => {
                self.is_renewed(asked);
                self.state.set_holds_lease(true);
                tracing::info!("this instance holds the Lease of the primary");
                RENEW
            }
            _ => SOON,
        }
    }

    fn is_renewed(&mut self, asked: Instant) {
        self.renewed = asked;
        self.is_safe(asked);
    }

    /// The answer to the request sent at `asked` proves that no other instance can take the Lease before `asked +
    /// STOP`.
    fn is_safe(&mut self, asked: Instant) {
        self.safe_until = self.safe_until.max(asked + STOP);
        self.watchdog.may_continue_for(WATCHED.saturating_sub(asked.elapsed()));
    }

    /// The timeout of the next request.
    fn limit(&self) -> Duration {
        if self.state.holds_lease() && *self.wanted.borrow() {
            LIMIT.min(self.safe_until.saturating_duration_since(Instant::now())).max(SHORTEST)
        } else {
            LIMIT
        }
    }

    fn may_take(&self, holder: &str) -> Take {
        let wanted_for = self.wanted_since.map(|since| since.elapsed()).unwrap_or_default();
        may_take(&self.me, Some(holder), self.seen.unchanged_for(), wanted_for)
    }

    async fn renew(&mut self) -> Duration {
        // The time counts from before the request: its answer may be late.
        let asked = Instant::now();
        let answer = match self.write(Some(self.me.clone())).await {
            Answer::Other(_) | Answer::Free => match self.read_lease().await {
                // Somebody released it after a wrong proof of death; it is taken again before another instance does.
                Answer::Mine | Answer::Free => self.write(Some(self.me.clone())).await,
                other => other,
            },
            other => other,
        };
        match answer {
            Answer::Mine => {
                self.is_renewed(asked);
                RENEW
            }
            Answer::Other(holder) => {
                tracing::error!(
                    holder,
                    "another instance holds the Lease of the primary: stopping PostgreSQL immediately"
                );
                self.fence().await;
                SOON
            }
            Answer::Free => SOON,
            Answer::Unknown(why) if self.renewed.elapsed() < ASK_FROM => {
                tracing::warn!(why, "the Lease of the primary could not be renewed");
                SOON
            }
            Answer::Unknown(why) => {
                self.without_api(&why).await;
                SOON
            }
        }
    }

    /// The Lease could not be renewed for too long.
    async fn without_api(&mut self, why: &str) {
        let asked = Instant::now();
        if self.ask_others().await {
            self.is_safe(asked);
            self.state.lease_message(format!(
                "the API server cannot be used ({why}); this instance stays primary, because no other instance can \
                 become primary"
            ));
            return;
        }
        if Instant::now() < self.safe_until {
            tracing::warn!(why, "the Lease of the primary cannot be renewed and not all instances answer");
            return;
        }
        tracing::error!(
            why,
            "the Lease of the primary cannot be renewed and not all instances answer: stopping PostgreSQL immediately"
        );
        self.fence().await;
    }

    /// Whether all other instances agree that this one stays the primary.
    async fn ask_others(&mut self) -> bool {
        let mut others = std::mem::take(&mut self.named_by_others);
        if let Some(status) = self.cluster.borrow().as_ref().and_then(|cluster| cluster.status.as_ref()) {
            others.extend(status.instance_names.iter().cloned());
        }
        others.remove(&self.me);
        let mut asked: Vec<String> = others.into_iter().collect();
        // Does this name still lead to this pod, or to a successor?
        asked.push(self.me.clone());
        let mut answers = self.peers.ask(&asked, ASK).await;
        asked.pop();
        let replaced = answers.pop().flatten().is_some_and(|answer| answer.pod_uid != self.state.pod_uid());
        let heard: Vec<&InstanceStatus> = answers.iter().flatten().collect();
        self.named_by_others = heard.iter().flat_map(|answer| answer.instance_names.iter().cloned()).collect();
        !replaced && may_continue(&self.me, &asked, &answers)
    }

    /// Stops PostgreSQL at once. If that does not end it, the watchdog does when its time is over.
    async fn fence(&self) {
        let stopped = self.state.fence();
        if tokio::time::timeout(EXPIRE.saturating_sub(STOP), stopped).await.is_ok() {
            self.watchdog.rest();
        }
    }

    async fn give_back(&mut self) -> Duration {
        // An instance that releases the Lease takes no writes.
        self.watchdog.rest();
        match self.write(None).await {
            Answer::Free | Answer::Other(_) => {
                self.state.set_holds_lease(false);
                tracing::info!("this instance has released the Lease of the primary");
                RENEW
            }
            Answer::Mine | Answer::Unknown(_) => match self.read_lease().await {
                Answer::Other(_) | Answer::Free => {
                    self.state.set_holds_lease(false);
                    RENEW
                }
                // Its time is over, so it has expired anyway.
                _ if self.renewed.elapsed() > EXPIRE => {
                    self.state.set_holds_lease(false);
                    RENEW
                }
                _ => SOON,
            },
        }
    }

    async fn read_lease(&mut self) -> Answer {
        match tokio::time::timeout(self.limit(), self.api.get_opt(&self.name)).await {
            Ok(Ok(Some(lease))) => self.saw(lease),
            Ok(Ok(None)) => Answer::Unknown("the operator has not created it yet".to_owned()),
            Ok(Err(error)) => Answer::Unknown(error.to_string()),
            Err(_) => Answer::Unknown("the API server does not answer".to_owned()),
        }
    }

    fn saw(&mut self, lease: Lease) -> Answer {
        self.seen.saw(lease.metadata.resource_version.as_deref(), Instant::now());
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let pod = lease.metadata.annotations.as_ref().and_then(|all| all.get(names::HOLDER_POD));
        let same_pod = pod.is_some_and(|pod| pod == self.state.pod_uid());
        self.lease = Some(lease);
        if holder.is_empty() {
            Answer::Free
        } else if holder != self.me {
            Answer::Other(holder)
        } else if same_pod {
            Answer::Mine
        } else {
            Answer::Other(format!("an earlier pod of {holder}"))
        }
    }

    /// Writes the holder into the Lease, only if it is unchanged since it was last seen.
    async fn write(&mut self, holder: Option<String>) -> Answer {
        let Some(mut lease) = self.lease.clone() else { return self.read_lease().await };
        let now = MicroTime(Timestamp::now());
        if holder.is_some() {
            let pod = (names::HOLDER_POD.to_owned(), self.state.pod_uid().to_owned());
            lease.metadata.annotations.get_or_insert_default().extend([pod]);
        }
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_deref().unwrap_or_default() != holder.as_deref().unwrap_or_default() {
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
            spec.acquire_time = holder.is_some().then(|| now.clone());
        }
        spec.holder_identity = Some(holder.unwrap_or_default());
        spec.lease_duration_seconds = Some(holdfast_kube_api::names::LEASE_SECONDS);
        spec.renew_time = Some(now);
        match tokio::time::timeout(self.limit(), self.api.replace(&self.name, &PostParams::default(), &lease)).await {
            Ok(Ok(written)) => self.saw(written),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => match self.read_lease().await {
                // Another version was seen and nothing was written: the caller tries again.
                Answer::Mine => Answer::Free,
                other => other,
            },
            Ok(Err(error)) => Answer::Unknown(error.to_string()),
            Err(_) => Answer::Unknown("the API server does not answer".to_owned()),
        }
    }
}
