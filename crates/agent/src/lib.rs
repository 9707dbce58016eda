//! The agent: a resident process, one for each server and user, that does the work of `wal push` and `wal get`.
//!
//! Each `wal push` and `wal get` starts a process. Without an agent it opens the repositories, with their TLS
//! connections and keys, for each segment. With one, it is a thin [`client`] that asks over a Unix socket; the agent
//! keeps the repositories open, stores ahead of PostgreSQL's archiver and fetches ahead of its recovery.
//!
//! - [`client`]: asks, in a few system calls. Without an answer its caller does the work itself, with the same
//!   promises.
//! - [`socket`]: the socket, its lock, and its hand-over to the next agent.
//! - `serving`: one connection; the lines are in [`holdfast_contract::agent`].
//! - `archiving`, `window`: `wal push`, and what is stored ahead.
//! - `fetching`, `following`: `wal get`, and what is fetched ahead.
//! - `gaps`: the missing WAL that `wal verify` recorded.
//! - `metrics`: for Prometheus. `notify`: systemd.
//!
//! Invariants: an answer that acknowledges is sent only after every repository has confirmed the file, as
//! `holdfast_engine::archive` defines it. The agent never writes to a data directory.
//!
//! After a crash: clients find nobody at the socket and do the work themselves. What was stored ahead has a mark in the
//! spool; what was fetched ahead is used from there.
//!
//! ```
//! use holdfast_agent::client::{Reply, ask};
//! use holdfast_contract::agent::Request;
//! use holdfast_engine::archive::Spool;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let spool = Spool::open(folder.path(), &"main".parse()?)?;
//! // Nobody answers at the socket: the command does the work itself.
//! assert!(matches!(ask(&spool, String::new(), Request::Status, None), Reply::Alone(None)));
//! # Ok(())
//! # }
//! ```

#![expect(
    missing_docs,
    reason = "only the program `holdfast` uses this crate; a comment has to say more than the name"
)]

mod archiving;
pub mod client;
mod fetching;
mod following;
mod gaps;
mod metrics;
mod notify;
mod serving;
pub mod socket;
mod window;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use holdfast_contract::agent::AgentStatus;
use holdfast_engine::archive::{Archiver, Fetcher, Spool};
use holdfast_http::listen::accept_each;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use archiving::{Explain, Options};
pub use socket::{Listening, SocketError, listen};

use archiving::Archiving;
use fetching::Fetching;
use serving::Services;

/// How long the agent waits for the questions that it works on when it is told to end. Then their clients do the work.
const DRAINED_WITHIN: Duration = Duration::from_secs(10);

/// How often it is checked whether the server is stopping: it reads a small file.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What an agent works with.
pub struct Agent {
    /// Stores for `wal push`.
    pub archiver: Archiver,
    /// How much is stored ahead.
    pub ahead: Options,
    /// The server's data directory, if it is configured: what waits there is known before PostgreSQL asks.
    pub pgdata: Option<std::path::PathBuf>,
    /// Fetches for `wal get`.
    pub fetcher: Fetcher,
    /// How many segments are fetched ahead.
    pub prefetch: usize,
    /// The report of an error of the fetcher.
    pub explain_get: Explain,
    /// A digest of the settings: clients with other ones are declined.
    pub settings: String,
    /// The spool with the socket.
    pub spool: Spool,
    /// Where metrics are served; `None` for nowhere.
    pub metrics: Option<TcpListener>,
    /// Called each second with the answer to "is the server stopping?".
    pub stopping: Box<dyn Fn(bool) + Send + Sync>,
}

/// Tells the service manager that the agent ends. Not before it is replaced: systemd would end what replaces it.
pub fn ends() {
    notify::notify("STOPPING=1");
}

/// Answers until `stop`; then finishes what it works on, within some seconds, and returns the socket for the agent that
/// replaces it.
///
/// # Errors
/// If the socket cannot be used.
pub async fn run(agent: Agent, listening: Listening, stop: CancellationToken) -> std::io::Result<OwnedFd> {
    let kept = OwnedFd::from(listening.listener.try_clone()?);
    let listener = tokio::net::UnixListener::from_std(listening.listener.try_clone()?)?;
    client::forget_silence(&agent.spool);
    let work = CancellationToken::new();
    let _ends_all = work.clone().drop_guard();
    let services = Arc::new(Services {
        settings: agent.settings,
        archiving: Archiving::start(agent.archiver, agent.ahead, agent.pgdata, work.clone()),
        fetching: Fetching::new(agent.fetcher, agent.prefetch, agent.explain_get, work.clone()),
        gaps: gaps::Gaps::default(),
        declined: parking_lot::Mutex::default(),
        status: AgentStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: Some(chrono::Utc::now()),
            ..AgentStatus::default()
        },
    });
    tracing::info!(socket = %listening.path.display(), "the agent answers `wal push` and `wal get`");
    notify::notify("READY=1");
    let connections = TaskTracker::new();
    let accepting = accept_each(&listener, "the agent's socket", |stream| {
        // Not in a task of the loop, which ends with the loop: what was asked is still answered.
        connections.spawn(serving::serve(Arc::clone(&services), stream));
        std::future::ready(())
    });
    let metrics = async {
        match &agent.metrics {
            Some(listener) => metrics::serve(listener, &services).await,
            None => std::future::pending().await,
        }
    };
    let counting = async {
        let mut check = tokio::time::interval(gaps::CHECKED_EVERY);
        loop {
            check.tick().await;
            services.gaps.read(&services.archiving.destinations(), chrono::Utc::now()).await;
        }
    };
    let watching = async {
        let mut watch = tokio::time::interval(LOOK_AGAIN_AFTER);
        loop {
            watch.tick().await;
            (agent.stopping)(services.archiving.server_is_stopping().await);
            services.fetching.tidy().await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = accepting => {}
        () = metrics => {}
        () = watching => {}
        () = counting => {}
    }
    connections.close();
    if tokio::time::timeout(DRAINED_WITHIN, connections.wait()).await.is_err() {
        tracing::info!("some questions take longer: their commands do the work themselves");
        work.cancel();
        drop(tokio::time::timeout(LOOK_AGAIN_AFTER, connections.wait()).await);
    }
    Ok(kept)
}
