//! [`Faulty`]: a store that fails on purpose, in the same way for the same seed and the same order of requests.
//!
//! For our tests and those of the crates above. The rules are tried in order for every request; each rule that matches
//! draws from the seeded generator and may inject its [`Fault`]. A crash point simulates the end of the process: the
//! request that reaches it may or may not take effect, and every later one fails without effect. Another run can come
//! to its end before one of the requests ([`Faulty::run_before`]).

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::random::Random;
use crate::{
    Failure, FolderPage, ListPage, LockTerm, NextUploads, ObjectInfo, ObjectName, Operation, PutMode, Store,
    StoreError, StoreErrorKind, Trials, UnfinishedPage, UnfinishedUpload, Upload,
};

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The request fails with this kind of error and has no effect.
    Refuse(StoreErrorKind),
    /// The request takes effect and a timeout comes back.
    LostAnswer,
    /// A read returns fewer bytes than it should, without an error.
    Truncate,
    /// A read returns one flipped bit, without an error.
    FlipBit,
    /// The request waits first.
    Delay(Duration),
    /// A listing leaves out the names with this ending, as if it were out of date.
    Hide(&'static str),
}

/// Another run, to its end.
pub type OtherRun = Pin<Box<dyn Future<Output = ()> + Send>>;

/// When a fault is injected.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultRule {
    /// The operations; empty for all.
    pub operations: Vec<Operation>,
    /// The start of the names (or listed prefixes); empty for all.
    pub name_prefix: String,
    /// The probability of the fault, `0.0..=1.0`.
    pub probability: f64,
    /// The maximum number of injections; `None` for no limit.
    pub times: Option<u64>,
    /// The fault to inject.
    pub fault: Fault,
}

impl FaultRule {
    /// A rule for all names, without a limit.
    pub fn new(operations: &[Operation], probability: f64, fault: Fault) -> Self {
        Self { operations: operations.to_vec(), name_prefix: String::new(), probability, times: None, fault }
    }

    /// Limits the rule to names that start with `name_prefix`.
    #[must_use]
    pub fn on(mut self, name_prefix: &str) -> Self {
        name_prefix.clone_into(&mut self.name_prefix);
        self
    }

    /// Limits the number of injections.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }
}

/// Injects faults into the requests of the store inside.
#[derive(Clone, Debug)]
pub struct Faulty {
    inner: Arc<dyn Store>,
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct Plan {
    state: Mutex<State>,
    active: AtomicBool,
    injected: AtomicU64,
}

#[derive(Debug)]
struct State {
    rules: Vec<FaultRule>,
    random: Random,
    /// Requests left before the crash.
    until_crash: Option<u64>,
    /// The number of requests so far.
    requests: u64,
    before: Option<Before>,
}

/// A run before the request of this number.
struct Before {
    request: u64,
    run: OtherRun,
}

impl std::fmt::Debug for Before {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "a run before request {}", self.request)
    }
}

/// The faults drawn for one request.
#[derive(Debug, Default)]
struct Drawn {
    delay: Option<Duration>,
    refuse: Option<StoreErrorKind>,
    lost: Option<StoreErrorKind>,
    /// Where to cut, as a fraction of the length in units of 1/2^64.
    truncate: Option<u64>,
    flip: Option<u64>,
    hide: Option<&'static str>,
}

impl Faulty {
    /// Wraps a store with these rules. The same seed and the same order of requests give the same faults.
    pub fn new(inner: Arc<dyn Store>, seed: u64, rules: Vec<FaultRule>) -> Self {
        let state = State { rules, random: Random::seeded(seed), until_crash: None, requests: 0, before: None };
        Self {
            inner,
            plan: Arc::new(Plan {
                state: Mutex::new(state),
                active: AtomicBool::new(true),
                injected: AtomicU64::new(0),
            }),
        }
    }

    /// After `requests` more requests, every request fails with [`StoreErrorKind::Cancelled`].
    pub fn crash_after(&self, requests: u64) {
        self.plan.state.lock().until_crash = Some(requests);
    }

    /// Runs `run` before the request of this number. The numbers begin with 0 at the creation of this store.
    pub fn run_before(&self, request: u64, run: OtherRun) {
        self.plan.state.lock().before = Some(Before { request, run });
    }

    /// The number of requests so far.
    pub fn requests(&self) -> u64 {
        self.plan.state.lock().requests
    }

    /// Switches all faults, and the crash, on or off.
    pub fn set_active(&self, active: bool) {
        self.plan.active.store(active, Ordering::SeqCst);
    }

    /// The number of faults injected so far (delays do not count).
    pub fn injected(&self) -> u64 {
        self.plan.injected.load(Ordering::SeqCst)
    }

    /// Counts a request, and gives the run that comes before it.
    fn count(&self) -> Option<OtherRun> {
        let mut state = self.plan.state.lock();
        let request = state.requests;
        state.requests += 1;
        state.before.take_if(|before| before.request == request).map(|before| before.run)
    }

    fn draw(&self, operation: Operation, name: &str) -> Drawn {
        let mut drawn = Drawn::default();
        if !self.plan.active.load(Ordering::SeqCst) {
            return drawn;
        }
        let mut state = self.plan.state.lock();
        let State { rules, random, until_crash, .. } = &mut *state;
        match until_crash {
            Some(0) => drawn.refuse = Some(StoreErrorKind::Cancelled),
            Some(1) => {
                *until_crash = Some(0);
                if random.unit() < 0.5 {
                    drawn.lost = Some(StoreErrorKind::Cancelled);
                } else {
                    drawn.refuse = Some(StoreErrorKind::Cancelled);
                }
            }
            Some(left) => *left -= 1,
            None => {}
        }
        for rule in rules {
            let applies = (rule.operations.is_empty() || rule.operations.contains(&operation))
                && name.starts_with(&rule.name_prefix)
                && rule.times != Some(0);
            if !applies || random.unit() >= rule.probability {
                continue;
            }
            rule.times = rule.times.map(|times| times - 1);
            match rule.fault {
                Fault::Refuse(kind) => drawn.refuse = drawn.refuse.or(Some(kind)),
                Fault::LostAnswer => drawn.lost = drawn.lost.or(Some(StoreErrorKind::Timeout)),
                Fault::Truncate => drawn.truncate = Some(random.next()),
                Fault::FlipBit => drawn.flip = Some(random.next()),
                Fault::Hide(ending) => drawn.hide = Some(ending),
                Fault::Delay(duration) => {
                    drawn.delay = Some(duration);
                    continue;
                }
            }
            self.plan.injected.fetch_add(1, Ordering::SeqCst);
        }
        drawn
    }

    fn error(&self, kind: StoreErrorKind, operation: Operation, name: &str) -> StoreError {
        StoreError::new(
            kind,
            Failure {
                store: self.inner.describe(),
                name: name.to_owned(),
                operation,
                detail: "injected fault".to_owned(),
                source: None,
            },
        )
    }

    async fn pass<T: Send>(
        &self,
        operation: Operation,
        name: &str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
        damage: impl FnOnce(T, &Drawn) -> T + Send,
    ) -> Result<T, StoreError> {
        if let Some(other) = self.count() {
            other.await;
        }
        let drawn = self.draw(operation, name);
        if let Some(delay) = drawn.delay {
            tokio::time::sleep(delay).await;
        }
        if let Some(kind) = drawn.refuse {
            return Err(self.error(kind, operation, name));
        }
        let value = call.await?;
        match drawn.lost {
            Some(kind) => Err(self.error(kind, operation, name)),
            None => Ok(damage(value, &drawn)),
        }
    }
}

fn unharmed<T>(value: T, _: &Drawn) -> T {
    value
}

fn damaged(bytes: Bytes, drawn: &Drawn) -> Bytes {
    let mut bytes = bytes;
    let size = bytes.len() as u64;
    if let (Some(at), false) = (drawn.truncate, bytes.is_empty()) {
        bytes.truncate(usize::try_from(at % size).unwrap_or(0));
    }
    if let (Some(at), false) = (drawn.flip, bytes.is_empty()) {
        let mut changed = BytesMut::from(&bytes[..]);
        let index = usize::try_from((at >> 3) % changed.len() as u64).unwrap_or(0);
        changed[index] ^= 1 << (at & 7);
        bytes = changed.freeze();
    }
    bytes
}

fn hidden(mut page: ListPage, drawn: &Drawn) -> ListPage {
    page.objects.retain(|object| drawn.hide.is_none_or(|ending| !object.name.as_str().ends_with(ending)));
    page
}

#[async_trait]
impl Store for Faulty {
    async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let call = self.inner.put(name, body, mode);
        self.pass(Operation::Put, name.as_str(), call, unharmed).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.pass(Operation::Get, name.as_str(), self.inner.get(name), damaged).await
    }

    async fn get_at_most(&self, name: &ObjectName, most: u64) -> Result<Bytes, StoreError> {
        self.pass(Operation::Get, name.as_str(), self.inner.get_at_most(name, most), damaged).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let call = self.inner.get_range(name, range);
        self.pass(Operation::GetRange, name.as_str(), call, damaged).await
    }

    async fn get_tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        let call = self.inner.get_tail(name, bytes);
        let damage = |(tail, size): (Bytes, u64), drawn: &Drawn| (damaged(tail, drawn), size);
        self.pass(Operation::GetTail, name.as_str(), call, damage).await
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        self.pass(Operation::Head, name.as_str(), self.inner.head(name), unharmed).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        next: Option<&str>,
    ) -> Result<ListPage, StoreError> {
        let call = self.inner.list_page(prefix, start_after, next);
        self.pass(Operation::List, prefix, call, hidden).await
    }

    async fn list_folders_page(&self, prefix: &str, next: Option<&str>) -> Result<FolderPage, StoreError> {
        self.pass(Operation::ListFolders, prefix, self.inner.list_folders_page(prefix, next), unharmed).await
    }

    async fn delete_some(&self, names: &[ObjectName]) -> Result<usize, StoreError> {
        let first = names.first().map_or("", ObjectName::as_str);
        self.pass(Operation::Delete, first, self.inner.delete_some(names), unharmed).await
    }

    async fn begin_upload(&self, name: &ObjectName, mode: PutMode) -> Result<Box<dyn Upload>, StoreError> {
        let call = self.inner.begin_upload(name, mode);
        let inner = self.pass(Operation::BeginUpload, name.as_str(), call, unharmed).await?;
        Ok(Box::new(FaultyUpload { faulty: self.clone(), inner, name: name.clone() }))
    }

    async fn trials(&self, scratch: &ObjectName) -> Result<Trials, StoreError> {
        let call = self.inner.trials(scratch);
        self.pass(Operation::Put, scratch.as_str(), call, unharmed).await
    }

    async fn unfinished_page(
        &self,
        prefix: &str,
        next: Option<&NextUploads>,
    ) -> Result<Option<UnfinishedPage>, StoreError> {
        self.pass(Operation::List, prefix, self.inner.unfinished_page(prefix, next), unharmed).await
    }

    async fn abort_unfinished(&self, upload: &UnfinishedUpload) -> Result<(), StoreError> {
        let call = self.inner.abort_unfinished(upload);
        self.pass(Operation::Abort, upload.name.as_str(), call, unharmed).await
    }

    fn lock(&self) -> Option<LockTerm> {
        self.inner.lock()
    }

    async fn locked_until(&self, name: &ObjectName) -> Result<Option<SystemTime>, StoreError> {
        self.pass(Operation::Head, name.as_str(), self.inner.locked_until(name), unharmed).await
    }

    async fn lock_until(&self, name: &ObjectName, end: SystemTime) -> Result<(), StoreError> {
        self.pass(Operation::Lock, name.as_str(), self.inner.lock_until(name, end), unharmed).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[derive(Debug)]
struct FaultyUpload {
    faulty: Faulty,
    inner: Box<dyn Upload>,
    name: ObjectName,
}

#[async_trait]
impl Upload for FaultyUpload {
    async fn part(&self, number: u32, body: Bytes) -> Result<(), StoreError> {
        let call = self.inner.part(number, body);
        self.faulty.pass(Operation::Part, self.name.as_str(), call, unharmed).await
    }

    async fn try_complete(&self) -> Result<(), StoreError> {
        let call = self.inner.try_complete();
        self.faulty.pass(Operation::Complete, self.name.as_str(), call, unharmed).await
    }

    async fn try_abort(&self) -> Result<(), StoreError> {
        let call = self.inner.try_abort();
        self.faulty.pass(Operation::Abort, self.name.as_str(), call, unharmed).await
    }
}
