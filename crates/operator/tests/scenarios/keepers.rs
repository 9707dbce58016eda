//! The real keepers of the Lease of two instances, against the simulated API server: the primary's keeper is cut off or
//! hangs, and the other one takes the Lease only after the first must have stopped.
//!
//! The first must have stopped [`WATCHED`] after its last proof was requested. A proof is an answered renewal, or the
//! answers of all other instances that they are not the primary. A keeper that runs has stopped PostgreSQL long before.
//! A keeper that hangs is ended by PID 1 at that time.
//!
//! The keepers' messages to PID 1 are checked as well. The last message decides how long PostgreSQL lives if its
//! manager hangs. No message may allow more time than the proof does. When an instance takes the Lease, PID 1 of the
//! other one must have been told to rest, or its time must be over.
//!
//! Not simulated: PostgreSQL itself, and machines whose clocks run at different speeds.

use crate::fragile::Fragile;
use crate::transport::{At, Fault, Plan, Transport};
use crate::world::{NAMESPACE, World};
use futures::future::BoxFuture;
use holdfast_instance::identity::Identity;
use holdfast_instance::lease::{AskInstances, Handle, Keeper, Parts, WATCHED, YIELD, may_continue};
use holdfast_instance::state::State;
use holdfast_instance::watchdog::{Feed, Word};
use holdfast_kube_api::status_port::{InstancePhase, InstanceStatus, Role};
use holdfast_kube_api::{Cluster, ClusterStatus, names};
use holdfast_operator::Clock;
use hyper::{Method, Request};
use kube::Client;
use kube::client::Body;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower_service::Service;

const CLUSTER: &str = "main";
const FIRST: &str = "main-1";
const SECOND: &str = "main-2";

/// What happens to the first keeper from some moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// The keeper itself hangs: it sends no request and stops nothing.
    Keeper,
    /// Requests are lost in one of these ways.
    Requests(Fault),
}

/// One order of events. Times count from the moment of the loss.
#[derive(Debug, Clone, Copy)]
struct Ordered {
    loss: Loss,
    /// For how long the first has held the Lease by then: this decides which part of a renewal is hit.
    held_for: Duration,
    /// When the second is named as primary; negative: before the loss.
    named_at_ms: i64,
    /// Whether the first still reaches the other instances.
    peers_answer: bool,
    /// Whether PostgreSQL of the second runs when it is named.
    second_runs: bool,
    /// When requests get through again; `None` for never.
    healed_after: Option<Duration>,
}

/// One instance: its keeper, and what is recorded of it.
struct Instance {
    state: Arc<State>,
    handle: Handle,
    running: JoinHandle<()>,
    plan: Arc<Fragile<Plan>>,
    /// When the keeper's last proof was requested.
    proven: Proven,
    /// The messages to PID 1.
    heard: Heard,
}

/// The last message to PID 1 about PostgreSQL, and what is wrong with any of them.
#[derive(Debug, Default)]
struct Words {
    until: Option<Instant>,
    count: usize,
    wrong: Option<String>,
}

type Heard = Arc<Fragile<Words>>;

/// Receives the messages of one keeper.
fn feed(heard: &Heard, proven: &Proven, state: &Arc<State>) -> Feed {
    let (heard, proven, state) = (Arc::clone(heard), Arc::clone(proven), Arc::clone(state));
    Feed::heard_by(move |word| {
        let mut heard = heard.lock().expect("the words");
        match word {
            Word::MayContinueFor(time) => {
                let until = Instant::now() + time;
                let proof = *proven.lock().expect("the proof");
                if proof.is_none_or(|proof| until > proof + WATCHED) {
                    heard.wrong.get_or_insert(format!("PID 1 was told {until:?} with the proof of {proof:?}"));
                }
                heard.until = Some(until);
                heard.count += 1;
            }
            Word::Rest => {
                if state.holds_lease() {
                    heard.wrong.get_or_insert("PID 1 was told to rest while PostgreSQL may write".to_owned());
                }
                heard.until = None;
            }
            Word::Here => {}
        }
    })
}

type Proven = Arc<Fragile<Option<Instant>>>;

fn prove(proven: &Proven, asked: Instant) {
    let mut proven = proven.lock().expect("the proof");
    *proven = (*proven).max(Some(asked));
}

/// Records when an answered renewal had been sent.
#[derive(Clone)]
struct Noting {
    transport: Transport,
    proven: Proven,
}

impl Service<Request<Body>> for Noting {
    type Response = <Transport as Service<Request<Body>>>::Response;
    type Error = <Transport as Service<Request<Body>>>::Error;
    type Future = <Transport as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.transport.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (writes, asked, proven) = (request.method() == Method::PUT, Instant::now(), Arc::clone(&self.proven));
        let answering = self.transport.call(request);
        Box::pin(async move {
            let answer = answering.await?;
            if writes && answer.status().is_success() {
                prove(&proven, asked);
            }
            Ok(answer)
        })
    }
}

/// The other instances, as one of them sees them.
#[derive(Debug)]
struct Others {
    reached: Arc<AtomicBool>,
    me: Arc<State>,
    all: Vec<Fellow>,
    proven: Proven,
}

/// An instance, as the others hear of it.
#[derive(Debug, Clone)]
struct Fellow {
    state: Arc<State>,
    /// Whether its PostgreSQL runs.
    runs: bool,
    /// What it knows of the `Cluster`: the primary, and an instance besides the first two.
    target: Option<&'static str>,
    more: Option<&'static str>,
}

impl Fellow {
    fn new(state: &Arc<State>) -> Self {
        Self { state: Arc::clone(state), runs: true, target: None, more: None }
    }

    fn answer(&self) -> InstanceStatus {
        let names = [FIRST, SECOND].into_iter().chain(self.more);
        InstanceStatus {
            role: Some(Role::Replica).filter(|_| self.runs),
            target_primary: self.target.map(str::to_owned),
            instance_names: names.map(str::to_owned).collect(),
            ..self.state.status()
        }
    }
}

impl AskInstances for Others {
    fn ask<'a>(&'a self, instances: &'a [String], limit: Duration) -> BoxFuture<'a, Vec<Option<InstanceStatus>>> {
        Box::pin(async move {
            let asked = Instant::now();
            if !self.reached.load(Ordering::Relaxed) {
                tokio::time::sleep(limit).await;
                return instances.iter().map(|_| None).collect();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            let answers: Vec<_> = instances
                .iter()
                .map(|name| self.all.iter().map(Fellow::answer).find(|answer| answer.instance == *name))
                .collect();
            let me = self.me.status().instance;
            let others: Vec<String> = instances.iter().filter(|name| **name != me).cloned().collect();
            let heard: Vec<_> = instances.iter().zip(&answers).filter(|(name, _)| **name != me).collect();
            let heard: Vec<_> = heard.into_iter().map(|(_, answer)| answer.clone()).collect();
            if may_continue(&me, &others, &heard) {
                prove(&self.proven, asked);
            }
            answers
        })
    }
}

fn state(name: &str) -> Arc<State> {
    state_of(name, &format!("uid-of-{name}"))
}

fn state_of(name: &str, pod_uid: &str) -> Arc<State> {
    let identity = Identity {
        instance: name.to_owned(),
        pod_uid: pod_uid.to_owned(),
        namespace: NAMESPACE.to_owned(),
        cluster: CLUSTER.to_owned(),
    };
    Arc::new(State::new(&identity, 18))
}

fn instance(world: &Arc<Fragile<World>>, name: &str, fault: Fault, state: Arc<State>, others: Others) -> Instance {
    let plan = Arc::new(Fragile::new(Plan::new(fault, At::All)));
    let proven = Arc::clone(&others.proven);
    let heard = Heard::default();
    let transport = Transport { world: Arc::clone(world), plan: Arc::clone(&plan) };
    let status =
        ClusterStatus { instance_names: vec![FIRST.to_owned(), SECOND.to_owned()], ..ClusterStatus::default() };
    let cluster = Cluster { status: Some(status), ..Cluster::new(CLUSTER, holdfast_kube_api::ClusterSpec::default()) };
    let parts = Parts {
        lease: (NAMESPACE.to_owned(), names::primary_lease(CLUSTER)),
        me: name.to_owned(),
        state: Arc::clone(&state),
        peers: Arc::new(others),
        cluster: watch::channel(Some(Arc::new(cluster))).1,
        watchdog: feed(&heard, &proven, &state),
    };
    let client = Client::new(Noting { transport, proven: Arc::clone(&proven) }, NAMESPACE);
    let (keeper, handle) = Keeper::new(client, parts);
    Instance { state, handle, running: tokio::spawn(keeper.run()), plan, proven, heard }
}

/// Plays one order of events, and returns what is wrong with it.
async fn play(case: Ordered) -> Result<(), String> {
    let start = Instant::now();
    let clock = Clock::Since(chrono::DateTime::UNIX_EPOCH, start);
    let world = Arc::new(Fragile::new(World::new(clock)));
    world.lock().expect("the world").put("leases", &names::primary_lease(CLUSTER), json!({"spec": {}}));
    let (one, two) = (state(FIRST), state(SECOND));
    two.set_phase(InstancePhase::Running, "following the primary");
    let reached = Arc::new(AtomicBool::new(true));
    let others = |me: &Arc<State>| Others {
        reached: Arc::clone(&reached),
        me: Arc::clone(me),
        all: vec![Fellow::new(&one), Fellow { runs: case.second_runs, ..Fellow::new(&two) }],
        proven: Proven::default(),
    };
    let fault = match case.loss {
        Loss::Requests(fault) => fault,
        Loss::Keeper => Fault::None,
    };
    let first = instance(&world, FIRST, fault, Arc::clone(&one), others(&one));
    let second = instance(&world, SECOND, Fault::None, Arc::clone(&two), others(&two));
    first.handle.want();
    while !first.state.holds_lease() {
        first.state.woken().await;
    }

    let loss = Instant::now() + case.held_for;
    let named = if case.named_at_ms < 0 {
        loss - Duration::from_millis(case.named_at_ms.unsigned_abs())
    } else {
        loss + Duration::from_millis(case.named_at_ms.unsigned_abs())
    };
    let happens = async {
        tokio::join!(
            async {
                tokio::time::sleep_until(named).await;
                // As the manager does: it first reports that it waits, then it wants the Lease.
                second.state.set_phase(InstancePhase::Waiting, "taking the Lease of the primary");
                second.handle.want();
            },
            async {
                tokio::time::sleep_until(loss).await;
                reached.store(case.peers_answer, Ordering::Relaxed);
                match case.loss {
                    Loss::Keeper => first.running.abort(),
                    Loss::Requests(_) => first.plan.lock().expect("the plan").begin(),
                }
                if let Some(after) = case.healed_after {
                    tokio::time::sleep_until(loss + after).await;
                    first.plan.lock().expect("the plan").fault = Fault::None;
                    reached.store(true, Ordering::Relaxed);
                }
            }
        )
    };
    // A PostgreSQL that nobody stops lives until then.
    let may_still_write = |instance: &Instance| {
        let until = instance.heard.lock().expect("the words").until;
        until.filter(|until| *until > Instant::now())
    };
    let watches = async {
        let mut taken = None;
        let mut held = [true, false];
        loop {
            tokio::select! {
                () = first.state.woken() => {}
                () = second.state.woken() => {}
            }
            let holds = [first.state.holds_lease(), second.state.holds_lease()];
            for (mine, other) in [(0, &second), (1, &first)] {
                if holds[mine]
                    && !held[mine]
                    && let Some(until) = may_still_write(other)
                {
                    return Err(format!("taken {:?} before PID 1 of the other one ends it", until - Instant::now()));
                }
            }
            held = holds;
            let both = first.state.holds_lease() && second.state.holds_lease();
            if both && case.loss != Loss::Keeper {
                return Err("both hold the Lease".to_owned());
            }
            if second.state.holds_lease() && taken.is_none() {
                let now = Instant::now();
                taken = Some(now);
                let proven = first.proven.lock().expect("the proof").ok_or("the first had no proof")?;
                if now < proven + WATCHED {
                    return Err(format!("taken {:?} after the last proof of the first", now - proven));
                }
            }
        }
    };
    let whole = async { tokio::join!(happens, tokio::time::sleep_until(loss + Duration::from_mins(1))) };
    tokio::select! {
        wrong = watches => return wrong,
        _ = whole => {}
    }
    for instance in [&first, &second] {
        let heard = instance.heard.lock().expect("the words");
        if let Some(wrong) = &heard.wrong {
            return Err(wrong.clone());
        }
        // The holder at the end must be watched by PID 1; an instance that gave up must not be waited for.
        if instance.state.holds_lease() && heard.count == 0 {
            return Err("PID 1 of a holder was told nothing".to_owned());
        }
    }
    if first.heard.lock().expect("the words").count == 0 {
        return Err("PID 1 of the first was told nothing".to_owned());
    }
    if !first.state.holds_lease()
        && let Some(until) = may_still_write(&first)
    {
        return Err(format!("the first gave up, and its PostgreSQL may write for {:?}", until - Instant::now()));
    }
    let (first_holds, second_holds) = (first.state.holds_lease(), second.state.holds_lease());
    let late = matches!(case.loss, Loss::Requests(Fault::Slow(_)));
    let lost_for_good = case.loss == Loss::Keeper || (case.healed_after.is_none() && !late);
    match (first_holds, second_holds) {
        (_, false) if lost_for_good => Err("the second never took the Lease".to_owned()),
        (false, false) => Err("nobody holds the Lease".to_owned()),
        _ => Ok(()),
    }
}

fn all(cases: impl Iterator<Item = Ordered>) -> usize {
    let mut wrong = Vec::new();
    let mut played = 0;
    for case in cases {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        if let Err(error) = runtime.expect("a runtime").block_on(play(case)) {
            wrong.push(format!("{error}: {case:?}"));
        }
        played += 1;
    }
    assert!(wrong.is_empty(), "{} of {played}:\n{}", wrong.len(), wrong.join("\n"));
    played
}

/// The parts of a renewal round, and the moments at which the second is named.
fn orderings(loss: Loss, healed_after: &[Option<Duration>]) -> impl Iterator<Item = Ordered> {
    // A round is 2 s and a request 2 ms: before, in and after one, and in between.
    let held = [4_000, 4_001, 4_003, 4_300, 5_000, 5_700, 5_999].map(Duration::from_millis);
    let named = [-3_000, 0, 1_500, 3_900, 4_300, 5_200, 6_900, 7_100, 9_900, 15_000];
    held.into_iter().flat_map(move |held_for| {
        named.into_iter().flat_map(move |named_at_ms| {
            [(false, true), (true, true), (true, false)].into_iter().flat_map(move |(peers_answer, second_runs)| {
                healed_after.iter().map(move |healed_after| Ordered {
                    loss,
                    held_for,
                    named_at_ms,
                    peers_answer,
                    second_runs,
                    healed_after: *healed_after,
                })
            })
        })
    })
}

#[test]
fn a_lease_is_taken_only_after_a_holder_that_is_cut_off_has_stopped() {
    let healed =
        [None, Some(3_000), Some(6_500), Some(8_000), Some(10_500)].map(|after| after.map(Duration::from_millis));
    let late = Fault::Slow(Duration::from_millis(1_900));
    let losses = [Fault::Reset, Fault::Lose, Fault::Hang, Fault::Refuse(500), late];
    let played = all(losses.into_iter().flat_map(|fault| orderings(Loss::Requests(fault), &healed)));
    assert!(played > 1000, "{played}");
}

#[test]
fn a_lease_is_taken_only_after_a_holder_that_hangs_was_ended() {
    assert!(all(orderings(Loss::Keeper, &[None])) > 100);
}

/// A primary that reaches the other instances, but not the API server, from the moment at which it has the Lease. What
/// `fellows` say comes in place of what instances of these names would say. Returns for how long it then stays primary,
/// up to a minute.
async fn cut_off_among(fellows: &[Fellow], while_cut_off: impl AsyncFnOnce(&Instance)) -> Duration {
    let start = Instant::now();
    let world = Arc::new(Fragile::new(World::new(Clock::Since(chrono::DateTime::UNIX_EPOCH, start))));
    world.lock().expect("the world").put("leases", &names::primary_lease(CLUSTER), json!({"spec": {}}));
    let (one, two) = (state(FIRST), state(SECOND));
    two.set_phase(InstancePhase::Running, "following the primary");
    let others = |me: &Arc<State>| Others {
        reached: Arc::new(AtomicBool::new(true)),
        me: Arc::clone(me),
        all: fellows.iter().cloned().chain([Fellow::new(&one), Fellow::new(&two)]).collect(),
        proven: Proven::default(),
    };
    let first = instance(&world, FIRST, Fault::Reset, Arc::clone(&one), others(&one));
    let second = instance(&world, SECOND, Fault::None, Arc::clone(&two), others(&two));
    first.handle.want();
    while !first.state.holds_lease() {
        first.state.woken().await;
    }
    let loss = Instant::now();
    first.plan.lock().expect("the plan").begin();
    while_cut_off(&second).await;
    while first.state.holds_lease() && loss.elapsed() < Duration::from_mins(1) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    loss.elapsed()
}

fn in_simulated_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(test);
}

/// The cluster has changed while the primary was cut off: it does not know of the instance that takes over. The others
/// do.
#[test]
fn a_primary_stops_when_another_instance_knows_more_than_it_does() {
    in_simulated_time(async {
        let second = || Fellow::new(&state(SECOND));
        let fourth = || Fellow { runs: false, more: Some("main-4"), ..Fellow::new(&state("main-4")) };
        let taker = state("main-4");
        taker.set_wants_lease(true);
        let successor = state_of(FIRST, "uid of another pod");
        let cases: [(&str, Vec<Fellow>, bool); 7] = [
            ("nothing is new", vec![], true),
            ("the primary is still the primary", vec![Fellow { target: Some(FIRST), ..second() }], true),
            ("another one is named", vec![Fellow { target: Some("main-4"), ..second() }], false),
            ("an instance is new, and does not answer", vec![Fellow { more: Some("main-4"), ..second() }], false),
            ("an instance is new, and follows", vec![Fellow { more: Some("main-4"), ..second() }, fourth()], true),
            (
                "an instance is new, and wants the Lease",
                vec![Fellow { more: Some("main-4"), ..second() }, Fellow { state: taker, ..fourth() }],
                false,
            ),
            ("the primary's own name leads to another pod", vec![Fellow::new(&successor)], false),
        ];
        for (name, fellows, stays) in cases {
            let time = cut_off_among(&fellows, async |_| {}).await;
            assert_eq!(time > Duration::from_secs(9), stays, "{name}: {time:?}");
        }
    });
}

/// A wish is reported as long as the keeper has it, and no longer. The primary continues after an instance was named,
/// and then no longer was.
#[test]
fn a_wish_that_is_dropped_takes_nothing() {
    in_simulated_time(async {
        let time = cut_off_among(&[], async |second| {
            second.handle.want();
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert!(second.state.wants_lease());
            second.handle.give_back(Duration::ZERO).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(!second.state.wants_lease());
            tokio::time::sleep(Duration::from_secs(50)).await;
            assert!(!second.state.holds_lease());
        })
        .await;
        assert!(time >= Duration::from_mins(1), "{time:?}");
    });
}

/// A pod has the name of its predecessor, which may still run on a node that nobody reaches.
#[test]
fn a_pod_waits_for_the_lease_of_its_predecessor() {
    in_simulated_time(async {
        let start = Instant::now();
        let world = Arc::new(Fragile::new(World::new(Clock::Since(chrono::DateTime::UNIX_EPOCH, start))));
        world.lock().expect("the world").put("leases", &names::primary_lease(CLUSTER), json!({"spec": {}}));
        let alone = |me: &Arc<State>| Others {
            reached: Arc::new(AtomicBool::new(false)),
            me: Arc::clone(me),
            all: Vec::new(),
            proven: Proven::default(),
        };
        let one = state(FIRST);
        let first = instance(&world, FIRST, Fault::None, Arc::clone(&one), alone(&one));
        first.handle.want();
        while !one.holds_lease() {
            one.woken().await;
        }
        first.running.abort();
        for (state, at_least) in [(state(FIRST), Duration::ZERO), (state_of(FIRST, "another"), YIELD)] {
            let began = Instant::now();
            let next = instance(&world, FIRST, Fault::None, Arc::clone(&state), alone(&state));
            next.handle.want();
            while !state.holds_lease() {
                state.woken().await;
            }
            let took = began.elapsed();
            next.running.abort();
            assert!(at_least <= took && took < at_least + Duration::from_secs(3), "{at_least:?}: {took:?}");
        }
    });
}
