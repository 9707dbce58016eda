//! [`Archiving`]: answers `wal push`, and stores ahead of PostgreSQL's archiver.
//!
//! A file that is asked for is answered when it is durable: from [`State::files`] if it was stored ahead, else after
//! its own transfer. In addition, the files that wait in `archive_status` after the newest file that was asked for are
//! stored ahead, as many at the same time as the [`Window`] allows, and at most [`Options::ahead`] that PostgreSQL has
//! not asked for.
//!
//! Invariants: success is answered only for the very file that was read ([`FileIdentity`]), after every repository
//! confirmed it, and if the repositories are still the same. A file that was stored ahead and failed is forgotten:
//! PostgreSQL's question starts a transfer of its own.
//!
//! After a crash: what was stored stays, with its mark in the spool. PostgreSQL asks again for all that it was not
//! answered.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_contract::agent::{FileIdentity, PushStatus};
use holdfast_contract::problem::ErrorReport;
use holdfast_contract::report::wal::PushOutcome;
use holdfast_engine::Error;
use holdfast_engine::archive::{Archiver, Destination, Durable, Purpose, Ready};
use holdfast_pgtypes::WalFileName;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::window::Window;

/// How long one reading of `archive_status` is used, while it still names files to send. With a hundred thousand files
/// in it, reading it takes a tenth of a second.
const LISTED_FOR: Duration = Duration::from_secs(2);

/// A reading that named a file that no longer waits is repeated at once if it is older than this, because the folder
/// has changed since. A younger one would name the same again.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Turns an error into the report that the client prints.
pub type Explain = fn(&Error) -> ErrorReport;

/// How much is stored ahead.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The most files that are durable or on their way, and for which PostgreSQL has not asked yet.
    pub ahead: usize,
    /// The most files that are stored ahead at the same time.
    pub at_once: usize,
    /// The report of an error.
    pub explain: Explain,
}

/// Why a question is not answered.
#[derive(Debug, Clone)]
pub(crate) enum Refusal {
    /// It failed as it would have failed in the client.
    Failed(ErrorReport),
    /// The client must do it.
    Declined(String),
}

/// Archives for `wal push`. Clones share their state.
#[derive(Clone)]
pub(crate) struct Archiving(Arc<Inner>);

struct Inner {
    archiver: Archiver,
    options: Options,
    /// The server's data directory, as far as it is known before PostgreSQL asks.
    pgdata: Option<PathBuf>,
    state: Mutex<State>,
    /// There may be something to store ahead.
    look: Notify,
    stop: CancellationToken,
}

struct State {
    files: HashMap<WalFileName, Tracked>,
    window: Window,
    /// The file that PostgreSQL asked for last; other waiting files are looked for in its folder.
    asked: Option<(PathBuf, WalFileName)>,
    /// The file whose failure is in `status.last_failure`.
    failed: Option<WalFileName>,
    status: PushStatus,
}

/// What waited in a folder at a moment.
struct Listed {
    at: Instant,
    folder: PathBuf,
    ready: Ready,
}

/// The files that wait for PostgreSQL's archiver.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waiting {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// When the first of them was finished.
    pub(crate) oldest: Option<DateTime<Utc>>,
}

impl Waiting {
    /// Blocks.
    fn beside(path: &Path, ready: &Ready) -> Self {
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut waiting = Self { files: ready.count() as u64, ..Self::default() };
        for file in ready.files() {
            let Ok(metadata) = std::fs::metadata(folder.join(file.to_string())) else { continue };
            waiting.bytes += metadata.len();
            let finished = metadata.modified().ok().map(DateTime::<Utc>::from);
            waiting.oldest = waiting.oldest.into_iter().chain(finished).min();
        }
        waiting
    }
}

type Outcome = Option<Result<Durable, Box<ErrorReport>>>;

struct Tracked {
    identity: FileIdentity,
    /// Whether PostgreSQL asked for it.
    asked: bool,
    outcome: watch::Receiver<Outcome>,
}

impl Tracked {
    fn is_finished(&self) -> bool {
        self.outcome.borrow().is_some()
    }
}

impl Archiving {
    /// Begins to store ahead once the first file is asked for; ends with `stop`.
    pub(crate) fn start(
        archiver: Archiver,
        options: Options,
        pgdata: Option<PathBuf>,
        stop: CancellationToken,
    ) -> Self {
        let state = State {
            files: HashMap::new(),
            window: Window::new(options.at_once),
            asked: None,
            failed: None,
            status: PushStatus::default(),
        };
        let (state, look) = (Mutex::new(state), Notify::new());
        let archiving = Self(Arc::new(Inner { archiver, options, pgdata, state, look, stop }));
        let ahead = archiving.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = ahead.0.stop.cancelled() => {}
                () = ahead.store_ahead() => {}
            }
        });
        archiving
    }

    /// Answers for one file when it is durable.
    pub(crate) async fn ask(&self, path: &Path, identity: FileIdentity) -> Result<PushOutcome, Refusal> {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let Some(name) = name else {
            return Err(Refusal::Declined(format!("{} is not the name of a WAL file", path.display())));
        };
        let began_finished = self.join(path, name, identity, true).borrow().is_some();
        let answer = self.answer(path, name, identity).await;
        let mut state = self.0.state.lock();
        let State { status, failed, .. } = &mut *state;
        match &answer {
            Ok(_) => {
                status.answered += 1;
                status.answered_at_once += u64::from(began_finished);
                status.last_archived = Some(name.to_string());
                status.last_archived_at = Some(Utc::now());
                (status.last_failure, *failed) = (None, None);
            }
            Err(Refusal::Failed(report)) => {
                *failed = Some(name);
                status.failed += 1;
                status.last_failure = Some(report.clone());
            }
            Err(Refusal::Declined(_)) => {}
        }
        answer
    }

    async fn answer(&self, path: &Path, name: WalFileName, identity: FileIdentity) -> Result<PushOutcome, Refusal> {
        loop {
            let mut outcome = self.join(path, name, identity, true);
            let finished = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
            let stored = match finished {
                Some(Ok(stored)) => stored,
                Some(Err(_)) if self.0.stop.is_cancelled() => {
                    return Err(Refusal::Declined("the agent is stopping".to_owned()));
                }
                Some(Err(report)) => return Err(Refusal::Failed(*report)),
                None => {
                    self.forget(name);
                    return Err(Refusal::Declined("the transfer was stopped".to_owned()));
                }
            };
            // From here on the answer is final for this file, or the file is sent again.
            self.forget(name);
            if stored.identity != identity {
                return Err(Refusal::Declined(format!("{} is not the file that was asked for", path.display())));
            }
            match self.0.archiver.still_holds(&stored, path, Utc::now()).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => return Err(Refusal::Failed((self.0.options.explain)(&error))),
            }
            let inner = Arc::clone(&self.0);
            let outcome = stored.outcome.clone();
            tokio::task::spawn_blocking(move || inner.archiver.forget_mark(&stored));
            return Ok(outcome);
        }
    }

    fn forget(&self, name: WalFileName) {
        self.0.state.lock().files.remove(&name);
        self.0.look.notify_one();
    }

    /// The transfer of this file: the one that is known, or a new one.
    fn join(&self, path: &Path, name: WalFileName, identity: FileIdentity, asked: bool) -> watch::Receiver<Outcome> {
        let mut state = self.0.state.lock();
        if asked {
            state.asked = Some((path.to_owned(), name));
        }
        match state.files.get_mut(&name) {
            Some(tracked) if tracked.identity == identity => {
                tracked.asked |= asked;
                tracked.outcome.clone()
            }
            _ => {
                let (sender, outcome) = watch::channel(None);
                state.files.insert(name, Tracked { identity, asked, outcome: outcome.clone() });
                let why = if asked { Purpose::Asked } else { Purpose::Ahead };
                tokio::spawn(self.clone().transfer(path.to_owned(), name, why, sender));
                outcome
            }
        }
    }

    async fn transfer(self, path: PathBuf, name: WalFileName, why: Purpose, sender: watch::Sender<Outcome>) {
        let archived = self.0.archiver.archive(&path, why, Utc::now(), &self.0.stop).await;
        let outcome = archived.map_err(|error| (self.0.options.explain)(&error));
        let own_outcome = sender.subscribe();
        {
            let mut state = self.0.state.lock();
            // The entry may belong to a later transfer of another file with this name.
            let own = state.files.get(&name).is_some_and(|tracked| own_outcome.same_channel(&tracked.outcome));
            let asked = own && state.files.get(&name).is_some_and(|tracked| tracked.asked);
            match &outcome {
                Ok(_) => state.window.succeeded(asked),
                Err(report) => {
                    state.window.failed();
                    if own {
                        state.files.remove(&name);
                    }
                    if !asked && !self.0.stop.is_cancelled() {
                        tracing::warn!(file = %name, error = %report.problem.message, "a waiting WAL file could not be \
                                                                archived yet; PostgreSQL will call archive_command for it");
                    }
                }
            }
        }
        // Nobody listens to a transfer that was ahead and has been replaced.
        sender.send_replace(Some(outcome.map_err(Box::new)));
        self.0.look.notify_one();
    }

    /// Stores the files ahead that PostgreSQL will ask for next.
    async fn store_ahead(&self) {
        let mut listed: Option<Listed> = None;
        loop {
            self.0.look.notified().await;
            let Some((path, name)) = self.0.state.lock().asked.clone() else { continue };
            let folder = path.parent().unwrap_or(Path::new("")).to_owned();
            let fresh = listed.take().filter(|listed| listed.folder == folder && listed.at.elapsed() < LISTED_FOR);
            // A listing that names nothing new is read again: PostgreSQL finishes segments meanwhile.
            let useful = fresh.filter(|listed| !self.has_room() || self.next_of(&listed.ready, name).is_some());
            let current = match useful {
                Some(listed) => listed,
                None => match self.list(&path, name).await {
                    Some(ready) => Listed { at: Instant::now(), folder, ready },
                    None => continue,
                },
            };
            let mut is_stale = false;
            while self.has_room()
                && let Some(next) = self.next_of(&current.ready, name)
            {
                let next_path = current.folder.join(next.to_string());
                let looked = next_path.clone();
                let found = tokio::task::spawn_blocking(move || {
                    Ready::is_marked(&looked).then(|| std::fs::metadata(&looked).ok()).flatten()
                });
                let Ok(Some(metadata)) = found.await else {
                    // It was archived since the folder was read: the next look reads it again.
                    is_stale = true;
                    break;
                };
                drop(self.join(&next_path, next, FileIdentity::of(&metadata), false));
            }
            if is_stale && current.at.elapsed() > READ_AGAIN_AFTER {
                self.0.look.notify_one();
            }
            listed = Some(current).filter(|_| !is_stale);
        }
    }

    /// Reads what waits, and forgets what no longer waits: PostgreSQL got its answer elsewhere.
    async fn list(&self, path: &Path, asked: WalFileName) -> Option<Ready> {
        let (inner, beside) = (Arc::clone(&self.0), path.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            let ready = Ready::beside(&beside);
            inner.archiver.sweep(|file| *file == asked || ready.contains(file));
            ready
        });
        let ready = read.await.ok()?;
        let mut state = self.0.state.lock();
        state.status.waiting = ready.count() as u64;
        state.files.retain(|file, tracked| *file == asked || !tracked.is_finished() || ready.contains(file));
        Some(ready)
    }

    /// Whether another file may be sent ahead.
    fn has_room(&self) -> bool {
        let state = self.0.state.lock();
        let ahead = state.files.values().filter(|tracked| !tracked.asked);
        let (finished, flying): (Vec<_>, Vec<_>) = ahead.partition(|tracked| tracked.is_finished());
        flying.len() < state.window.now() && finished.len() + flying.len() < self.0.options.ahead
    }

    /// The first waiting file, after the requested one, that is neither stored nor on its way.
    fn next_of(&self, ready: &Ready, asked: WalFileName) -> Option<WalFileName> {
        let state = self.0.state.lock();
        ready.after(asked).find(|file| !state.files.contains_key(file))
    }

    /// A path in `pg_wal`: that of the file that was asked for last, else in the configured data directory. Commands
    /// that do the work without the agent may be all that PostgreSQL calls.
    fn in_pg_wal(&self) -> Option<PathBuf> {
        let asked = self.0.state.lock().asked.clone().map(|(path, _)| path);
        asked.or_else(|| Some(self.0.pgdata.as_ref()?.join("pg_wal").join("any")))
    }

    /// What waits in `pg_wal` now; `None` if it is not known where that is. A failure of a file that no longer waits is
    /// forgotten: it was archived without the agent.
    pub(crate) async fn waiting(&self) -> Option<Waiting> {
        let path = self.in_pg_wal()?;
        let looking = tokio::task::spawn_blocking(move || {
            let ready = Ready::beside(&path);
            (Waiting::beside(&path, &ready), ready)
        });
        let (waiting, ready) = looking.await.ok()?;
        let mut state = self.0.state.lock();
        if state.failed.is_some_and(|failed| !ready.contains(&failed)) {
            (state.failed, state.status.last_failure) = (None, None);
        }
        state.status.waiting = waiting.files;
        Some(waiting)
    }

    /// Whether the server whose file was asked for last is stopping.
    pub(crate) async fn server_is_stopping(&self) -> bool {
        let Some(path) = self.in_pg_wal() else { return false };
        tokio::task::spawn_blocking(move || holdfast_engine::archive::server_is_stopping(&path)).await.unwrap_or(false)
    }

    /// The repositories that are open now.
    pub(crate) fn destinations(&self) -> Vec<Destination> {
        self.0.archiver.destinations()
    }

    /// How archiving goes.
    pub(crate) fn status(&self) -> PushStatus {
        let state = self.0.state.lock();
        let finished = state.files.values().filter(|tracked| tracked.is_finished()).count();
        PushStatus {
            in_flight: (state.files.len() - finished) as u64,
            ahead: finished as u64,
            window: state.window.now() as u64,
            ..state.status.clone()
        }
    }
}
