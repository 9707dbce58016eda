//! A run: the world, an operator in it (the real one, from its election on), the events, and the expected end.
//!
//! Time is tokio's paused clock: a run of minutes takes only as long as its computation.

use crate::fragile::Fragile;
use crate::normal::{self, Normal};
use crate::port;
use crate::transport::{At, Fault, Plan, Transport};
use crate::{kubelet, world::World};
use chrono::{NaiveDate, Utc};
use holdfast_operator::{Clock, Environment, Options, run_in};
use kube::Client;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Upper bound for anything that needs no outside event.
const LIMIT: Duration = Duration::from_mins(10);
/// For this long nothing may be written at the end.
const QUIET: Duration = Duration::from_secs(20);
/// The same if an answer never came: a backup's reconcile is given up after a minute.
const LONG_QUIET: Duration = Duration::from_secs(75);

/// One step of a scenario.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    /// Does something.
    Given(&'static str, fn(&mut World)),
    /// From here on, requests are counted and faults happen.
    Begin,
    /// From here on, no fault happens.
    Heal,
    /// An operator of another namespace and another version is started beside the first.
    AnotherOperator,
    /// The first operator ends for good.
    FirstEnds,
    /// Waits for something.
    Then(&'static str, fn(&World) -> bool),
}

/// A scenario.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) steps: &'static [Step],
}

/// The result of a run.
pub(crate) struct Outcome {
    /// The objects, without the values that differ from run to run.
    pub(crate) objects: Normal,
    pub(crate) requests: u64,
    pub(crate) writes: u64,
    pub(crate) hit: Option<String>,
    pub(crate) hits: u64,
    /// How long the run took, by its own clock.
    pub(crate) took: Duration,
    /// Names under which objects were created more than once, without pods.
    pub(crate) made_twice: Vec<String>,
}

/// Runs a scenario with a fault. The error says what did not happen.
pub(crate) fn play(scenario: &Scenario, fault: Fault, at: At) -> Result<Outcome, String> {
    runtime().block_on(async {
        let mut stage = Stage::new(fault, at);
        if !scenario.steps.iter().any(|step| matches!(step, Step::Begin)) {
            begin(&stage.plan);
        }
        stage
            .play(scenario)
            .await
            .map_err(|error| format!("{} with {fault:?} at {at:?}: {error}\n{}", scenario.name, stage.describe()))
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
}

/// The day of all runs is today, because the certificates that the operator makes are checked by the machine's clock.
pub(crate) fn day() -> NaiveDate {
    static DAY: OnceLock<NaiveDate> = OnceLock::new();
    *DAY.get_or_init(|| Utc::now().date_naive())
}

fn begin(plan: &Fragile<Plan>) {
    plan.lock().expect("the plan").begin();
}

struct Stage {
    world: Arc<Fragile<World>>,
    plan: Arc<Fragile<Plan>>,
    operator: JoinHandle<()>,
    /// Whether the first operator has ended for good.
    ended: bool,
    began: Instant,
}

impl Stage {
    fn new(fault: Fault, at: At) -> Self {
        let began = Instant::now();
        let start = day().and_hms_opt(1, 58, 0).expect("a time").and_utc();
        let world = Arc::new(Fragile::new(World::new(Clock::Since(start, began))));
        tokio::spawn(kubelet::run(Arc::clone(&world)));
        let plan = Arc::new(Fragile::new(Plan::new(fault, at)));
        let operator = operate(&world, &plan, "holdfast-system", "holdfast:test");
        Self { world, plan, operator, ended: false, began }
    }

    /// The state as a person would look at it.
    fn describe(&self) -> String {
        let plan = self.plan.lock().expect("the plan");
        let last = plan.log.iter().rev().take(12).rev().cloned().collect::<Vec<_>>().join("\n  ");
        let world = self.world.lock().expect("the world");
        let status: Vec<_> = world.all("clusters").iter().map(|one| one["status"].clone()).collect();
        let status = serde_json::to_string_pretty(&status).unwrap_or_default();
        format!("it happened to {}\nlast requests:\n  {last}\nclusters: {status}", plan.hit.clone().unwrap_or_default())
    }

    async fn play(&mut self, scenario: &Scenario) -> Result<Outcome, String> {
        let mut last = "nothing";
        for step in scenario.steps {
            match step {
                Step::Given(what, happens) => {
                    last = what;
                    happens(&mut self.world.lock().expect("the world"));
                }
                Step::Begin => self.plan.lock().expect("the plan").begin(),
                Step::Heal => self.plan.lock().expect("the plan").fault = Fault::None,
                Step::AnotherOperator => {
                    let plan = Arc::new(Fragile::new(Plan::none()));
                    drop(operate(&self.world, &plan, "other-system", "holdfast:other"));
                }
                Step::FirstEnds => {
                    self.operator.abort();
                    self.ended = true;
                }
                Step::Then(what, holds) => {
                    self.wait(what, *holds).await.map_err(|error| format!("{error} (after: {last})"))?;
                }
            }
        }
        let took = self.began.elapsed();
        self.wait_quiet().await?;
        let world = self.world.lock().expect("the world");
        let fleet = &world.fleet;
        if !fleet.two_writers.is_empty() {
            return Err(format!("two writers at {:?}", fleet.two_writers));
        }
        if !fleet.runs_at_once.is_empty() {
            return Err(format!("two backups at once: {:?}", fleet.runs_at_once));
        }
        if let Some((run, times)) = fleet.runs_begun.iter().find(|(_, times)| **times > 1) {
            return Err(format!("the run {run} was begun {times} times"));
        }
        let plan = self.plan.lock().expect("the plan");
        Ok(Outcome {
            objects: normal::of(&world),
            requests: plan.requests,
            writes: plan.writes,
            hit: plan.hit.clone(),
            hits: plan.hits,
            took,
            made_twice: world
                .made
                .iter()
                .filter(|(key, times)| **times > 1 && key.1 != "pods")
                .map(|(key, times)| format!("{} {}: {times} times", key.1, key.3))
                .collect(),
        })
    }

    /// A dead operator is replaced, as its pod's container would be.
    async fn replace_dead(&mut self) {
        let dead = self.plan.lock().expect("the plan").dead;
        if !self.ended && (dead || self.operator.is_finished()) {
            self.operator.abort();
            let hit = self.plan.lock().expect("the plan").hit.clone();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut plan = Plan::none();
            plan.hits = self.plan.lock().expect("the plan").hits;
            plan.hit = hit;
            self.plan = Arc::new(Fragile::new(plan));
            self.operator = operate(&self.world, &self.plan, "holdfast-system", "holdfast:test");
        }
    }

    async fn wait(&mut self, what: &str, holds: fn(&World) -> bool) -> Result<(), String> {
        let began = Instant::now();
        while !holds(&self.world.lock().expect("the world")) {
            if began.elapsed() > LIMIT {
                return Err(format!("it never came: {what}"));
            }
            self.replace_dead().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Nothing is written any more, and little is read.
    async fn wait_quiet(&mut self) -> Result<(), String> {
        let began = Instant::now();
        let time = match self.plan.lock().expect("the plan").fault {
            Fault::Hang => LONG_QUIET,
            _ => QUIET,
        };
        loop {
            let before = (self.world.lock().expect("the world").writes, self.plan.lock().expect("the plan").requests);
            let since = Instant::now();
            let mut quiet = true;
            while since.elapsed() < time && quiet {
                self.replace_dead().await;
                tokio::time::sleep(Duration::from_millis(500)).await;
                quiet = self.world.lock().expect("the world").writes == before.0;
            }
            let requests = self.plan.lock().expect("the plan").requests.saturating_sub(before.1);
            if quiet && requests < 15 * time.as_secs() {
                return Ok(());
            }
            if began.elapsed() > LIMIT {
                return Err(format!("it never came to rest: {requests} requests in {time:?}"));
            }
        }
    }
}

fn operate(
    world: &Arc<Fragile<World>>,
    plan: &Arc<Fragile<Plan>>,
    namespace: &'static str,
    image: &str,
) -> JoinHandle<()> {
    let transport = Transport { world: Arc::clone(world), plan: Arc::clone(plan) };
    let environment = Environment {
        client: Client::new(transport, namespace),
        dial: port::dial(world),
        clock: world.lock().expect("the world").clock,
    };
    let options = Options {
        namespace: None,
        operator_image: image.to_owned(),
        default_image: "postgresql:18".to_owned(),
        leader_elect: true,
        own_namespace: None,
        metrics_address: "127.0.0.1:0".parse().expect("an address"),
        webhook_address: None,
        webhook_names: Vec::new(),
        identity: format!("{namespace}-0"),
    };
    tokio::spawn(async move {
        if let Err(error) = run_in(environment, namespace, options, CancellationToken::new()).await {
            tracing::warn!(%error, "the operator ended");
        }
    })
}
