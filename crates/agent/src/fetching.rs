//! [`Fetching`]: answers `wal get`, and fetches ahead of recovery.
//!
//! A segment that is asked for is fetched into the spool, if it is not there or on its way already, and its path is the
//! answer; the client moves it to its destination. The agent never writes to the destination itself: an agent that was
//! asleep could put an old segment where PostgreSQL reads a newer one. After each segment the following ones are
//! fetched ahead, on the way to the newest timeline whose history recovery has asked for, until one is not in the
//! archive.
//!
//! "Not in the archive" is answered only for a question of its own, never from what was fetched ahead.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_contract::agent::{Answer, GetStatus};
use holdfast_engine::Cause;
use holdfast_engine::archive::{Fetched, Fetcher, Purpose, segments_ahead};
use holdfast_pgtypes::{Ancestry, HistoryFile, SegmentName, SystemIdentifier, WalFileName, WalSegmentSize};
use holdfast_repo::ChunkHash;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::archiving::{Explain, Refusal};
use crate::following::following;

/// How long segments are kept for a recovery that asks for nothing. A standby that replays its upstream's stream asks
/// for none for days.
const KEPT_FOR: Duration = Duration::from_mins(10);

/// Segments that are fetched ahead at the same time.
const AHEAD_AT_ONCE: usize = 4;

/// Fetches for `wal get`. Clones share their state.
#[derive(Clone)]
pub(crate) struct Fetching(Arc<Inner>);

struct Inner {
    fetcher: Fetcher,
    /// How many segments after the newest one are fetched ahead.
    depth: usize,
    explain: Explain,
    state: Mutex<State>,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    segments: HashMap<(SystemIdentifier, SegmentName), watch::Receiver<Outcome>>,
    /// The way that recovery goes, by the history file that it asked for last: it looks for the newest one from the
    /// oldest on, and then asks for those on its way again, in the same order.
    paths: HashMap<SystemIdentifier, Ancestry>,
    status: GetStatus,
    asked_at: Option<Instant>,
    /// When this process began, until what others have left in the spool is removed.
    began: Option<Instant>,
}

type Outcome = Option<Result<InSpool, Box<Missing>>>;

#[derive(Debug, Clone)]
struct InSpool {
    path: PathBuf,
    hash: ChunkHash,
    size: WalSegmentSize,
}

/// Why a segment is not in the spool.
#[derive(Debug, Clone)]
struct Missing {
    is_absent: bool,
    refusal: Refusal,
}

/// An answer with a file that is kept until this value is dropped.
pub(crate) struct Handed {
    pub(crate) answer: Answer,
    _kept: Option<Kept>,
}

impl Handed {
    /// An answer without a file.
    pub(crate) fn only(answer: Answer) -> Self {
        Self { answer, _kept: None }
    }
}

/// Removes a segment from the spool that the client did not take, and those that recovery has passed.
struct Kept {
    fetching: Fetching,
    system_identifier: SystemIdentifier,
    segment: SegmentName,
}

impl Drop for Kept {
    fn drop(&mut self) {
        let inner = Arc::clone(&self.fetching.0);
        let (system_identifier, segment) = (self.system_identifier, self.segment);
        {
            let mut state = inner.state.lock();
            let passed = |other: SegmentName| other <= segment.on_timeline(other.timeline());
            state.segments.retain(|(system, other), _| *system != system_identifier || !passed(*other));
        }
        // A segment of the client's that is still there was not taken, and is not needed for the next answer.
        tokio::task::spawn_blocking(move || {
            inner.fetcher.sweep(system_identifier, segment, inner.depth + AHEAD_AT_ONCE);
        });
    }
}

impl Fetching {
    pub(crate) fn new(fetcher: Fetcher, depth: usize, explain: Explain, stop: CancellationToken) -> Self {
        let state = Mutex::new(State { began: Some(Instant::now()), ..State::default() });
        Self(Arc::new(Inner { fetcher, depth, explain, state, stop }))
    }

    /// Answers for one file.
    pub(crate) async fn ask(
        &self,
        file: WalFileName,
        system_identifier: SystemIdentifier,
        until: Option<SegmentName>,
    ) -> Result<Handed, Refusal> {
        self.0.state.lock().asked_at = Some(Instant::now());
        let answered = match file {
            WalFileName::Segment(segment) => self.ask_segment(segment, system_identifier, until).await,
            _ => self.ask_text(file, system_identifier).await,
        };
        let mut state = self.0.state.lock();
        match answered {
            Ok((handed, at_once)) => {
                state.status.answered += 1;
                state.status.answered_at_once += u64::from(at_once);
                Ok(handed)
            }
            Err(missing) => {
                match (&missing.refusal, missing.is_absent) {
                    (_, true) => state.status.absent += 1,
                    (Refusal::Failed(_), false) => state.status.failed += 1,
                    (Refusal::Declined(_), false) => {}
                }
                Err(missing.refusal)
            }
        }
    }

    async fn ask_segment(
        &self,
        segment: SegmentName,
        system_identifier: SystemIdentifier,
        until: Option<SegmentName>,
    ) -> Result<(Handed, bool), Missing> {
        let known = self.0.state.lock().segments.get(&(system_identifier, segment)).cloned();
        let at_once = known.as_ref().is_some_and(|known| known.borrow().is_some());
        let found = match known {
            Some(known) => finished(known).await.ok(),
            None => None,
        };
        // The file may be gone: another client took it, or somebody emptied the spool.
        let found = found.filter(|found| found.path.exists());
        let (found, at_once) = match found {
            Some(found) => (found, at_once),
            None => (finished(self.begin(segment, system_identifier, Purpose::Asked)).await?, false),
        };
        let kept = Kept { fetching: self.clone(), system_identifier, segment };
        self.fetch_ahead(segment, found.size, system_identifier, until);
        let answer = Answer::Fetched { path: found.path, blake3: found.hash, size_bytes: found.size.as_u64() };
        Ok((Handed { answer, _kept: Some(kept) }, at_once))
    }

    async fn ask_text(&self, file: WalFileName, system: SystemIdentifier) -> Result<(Handed, bool), Missing> {
        let fetched = self.0.fetcher.fetch(file, system, Purpose::Asked, &self.0.stop).await;
        let raw = match fetched {
            Ok(Fetched::Text(raw)) => raw,
            Ok(_) => return Err(declined("it is not a small file")),
            Err(error) => return Err(self.missing(&error)),
        };
        if let WalFileName::History(timeline) = file
            && let Ok(history) = HistoryFile::parse(timeline, &raw)
        {
            self.0.state.lock().paths.insert(system, Ancestry::from_history(&history));
        }
        Ok((Handed::only(Answer::Content(hex::encode(raw))), false))
    }

    fn missing(&self, error: &holdfast_engine::Error) -> Missing {
        if self.0.stop.is_cancelled() {
            return declined("the agent is stopping");
        }
        Missing {
            is_absent: matches!(*error.what, Cause::Absent { .. }),
            refusal: Refusal::Failed((self.0.explain)(error)),
        }
    }

    /// Begins to fetch a segment.
    fn begin(
        &self,
        segment: SegmentName,
        system_identifier: SystemIdentifier,
        why: Purpose,
    ) -> watch::Receiver<Outcome> {
        let (sender, outcome) = watch::channel(None);
        let key = (system_identifier, segment);
        self.0.state.lock().segments.insert(key, outcome.clone());
        let fetching = self.clone();
        tokio::spawn(async move {
            let file = WalFileName::Segment(segment);
            let fetched = fetching.0.fetcher.fetch(file, system_identifier, why, &fetching.0.stop).await;
            let found = match fetched {
                Ok(Fetched::Segment { path, hash, size }) => Ok(InSpool { path, hash, size }),
                Ok(Fetched::NotKept(error)) => {
                    tracing::warn!(%segment, %error, "a segment cannot be kept in the spool");
                    Err(declined("the spool cannot be written"))
                }
                Ok(Fetched::Text(_)) => Err(declined("it is not a segment")),
                Err(error) => Err(fetching.missing(&error)),
            };
            if found.is_err() {
                let mut state = fetching.0.state.lock();
                let receiver = sender.subscribe();
                if state.segments.get(&key).is_some_and(|kept| kept.same_channel(&receiver)) {
                    state.segments.remove(&key);
                }
            }
            sender.send_replace(Some(found.map_err(Box::new)));
        });
        outcome
    }

    /// Fetches what recovery will ask for after `reached`, some segments at the same time, until one is missing.
    fn fetch_ahead(
        &self,
        reached: SegmentName,
        size: WalSegmentSize,
        system_identifier: SystemIdentifier,
        until: Option<SegmentName>,
    ) {
        let wanted = {
            let state = self.0.state.lock();
            let depth = segments_ahead(self.0.depth, size);
            following(state.paths.get(&system_identifier), reached, size, depth, until)
        };
        let fetching = self.clone();
        tokio::spawn(async move {
            let mut flying = std::collections::VecDeque::new();
            for segment in wanted {
                if flying.len() == AHEAD_AT_ONCE
                    && let Some(first) = flying.pop_front()
                    && finished(first).await.is_err()
                {
                    return;
                }
                let known = fetching.0.state.lock().segments.get(&(system_identifier, segment)).cloned();
                flying.push_back(known.unwrap_or_else(|| fetching.begin(segment, system_identifier, Purpose::Ahead)));
            }
        });
    }

    /// Removes what was fetched ahead once recovery has been silent for [`KEPT_FOR`]: it has ended. What an agent left
    /// that was killed is removed as late: its recovery may continue without it.
    pub(crate) async fn tidy(&self) {
        let began = self.0.state.lock().began;
        if began.is_some_and(|began| began.elapsed() >= KEPT_FOR) {
            self.0.state.lock().began = None;
            let inner = Arc::clone(&self.0);
            drop(tokio::task::spawn_blocking(move || inner.fetcher.remove_older(KEPT_FOR)).await);
        }
        let systems: BTreeSet<SystemIdentifier> = {
            let mut state = self.0.state.lock();
            if state.asked_at.is_none_or(|at| at.elapsed() < KEPT_FOR) {
                return;
            }
            state.asked_at = None;
            state.paths.clear();
            state.segments.drain().map(|((system, _), _)| system).collect()
        };
        let inner = Arc::clone(&self.0);
        let emptied =
            tokio::task::spawn_blocking(move || systems.iter().for_each(|system| inner.fetcher.empty(*system)));
        drop(emptied.await);
    }

    /// How fetching goes.
    pub(crate) fn status(&self) -> GetStatus {
        let state = self.0.state.lock();
        let finished = state.segments.values().filter(|outcome| outcome.borrow().is_some()).count();
        GetStatus {
            in_flight: (state.segments.len() - finished) as u64,
            ahead: finished as u64,
            ..state.status.clone()
        }
    }
}

fn declined(reason: &str) -> Missing {
    Missing { is_absent: false, refusal: Refusal::Declined(reason.to_owned()) }
}

async fn finished(mut outcome: watch::Receiver<Outcome>) -> Result<InSpool, Missing> {
    let finished = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
    match finished {
        Some(Ok(found)) => Ok(found),
        Some(Err(missing)) => Err(*missing),
        None => Err(declined("fetching was stopped")),
    }
}
