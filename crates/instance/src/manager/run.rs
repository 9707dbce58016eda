//! The manager, from its start to its end.

use super::Manager;
use super::problems::Problems;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::identity::{Identity, Paths};
use crate::peers::Peers;
use crate::plan::next_step;
use crate::postgres::Programs;
use crate::secrets::Secrets;
use crate::settings::access::user_name;
use crate::state::State;
use crate::status_port::{serve_metrics, serve_probes, serve_status};
use crate::volume::VolumeLock;
use crate::{cluster_watch, init, lease, tls};
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::InstancePhase;
use holdfast_secret::Secret;
use kube::{Api, Client, Config};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The time between two rounds if nothing asks for one earlier.
const ROUND: Duration = Duration::from_millis(500);
/// The wait after an error that somebody has to act on.
const STUCK_ROUND: Duration = Duration::from_secs(5);
/// The wait after the first error that may pass by itself; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// A connection to the API server without data for this long is opened again. If its other end disappeared without
/// closing it, a watch would wait for ever, and the instance would not learn that it is named as primary.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// The time limit of an orderly stop for a restart.
const RESTART_WITHIN: Duration = Duration::from_mins(5);

/// What the loop remembers between rounds: only what saves work, or what an earlier round tried without success.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Whether `pg_rewind` failed since the directory was last complete.
    pub(crate) rewind_failed: bool,
    /// When Secrets were last read.
    pub(crate) secrets_read: Option<Instant>,
    /// The generation of the Cluster whose settings were last written, or could not be.
    pub(crate) tried: Option<i64>,
    /// Versions of the Secrets that passwords were last set from, by role.
    pub(crate) passwords: BTreeMap<String, String>,
    /// The password that the replication user was last given, if it has one.
    pub(crate) replication_password: Option<Secret>,
    /// What could not be kept up to date.
    pub(crate) problems: Problems,
}

/// Runs the instance until it is told to stop.
///
/// # Errors
/// When it cannot begin: no identity, no PostgreSQL, no configuration of an API server, no volume.
pub async fn run(identity: Identity, paths: Paths, stop: CancellationToken) -> Result<()> {
    // There is one provider in the tree; libraries that need a default find this one.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let watchdog = init::feed()?;
    let programs = Programs::find(std::env::var("PATH").ok().as_deref()).await?;
    tls::make_private(&paths.sockets)?;
    std::fs::create_dir_all(&paths.data_mount).map_err(|error| Error::file("create", &paths.data_mount, &error))?;
    let _lock = lock(&paths, &stop).await?;
    let mut config = Config::infer().await.map_err(|error| {
        Error::stuck(format!("the address of the API server is not known: {error}"))
            .doing("starting the instance manager")
            .hint("run it in a pod with a service account, or set KUBECONFIG")
    })?;
    config.connect_timeout = Some(Duration::from_secs(3));
    config.read_timeout = Some(READ_TIMEOUT);
    let client = Client::try_from(config.clone())
        .map_err(|error| Error::stuck(format!("the client of the API server cannot be created: {error}")))?;
    let uid = rustix::process::geteuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let state = Arc::new(State::new(&identity, programs.major()));
    let peers = Arc::new(Peers::new(&identity, &paths));
    let cluster = cluster_watch::watch(&client, &identity);
    let parts = lease::Parts {
        lease: (identity.namespace.clone(), names::primary_lease(&identity.cluster)),
        me: identity.instance.clone(),
        state: Arc::clone(&state),
        peers: Arc::<Peers>::clone(&peers),
        cluster: cluster.clone(),
        watchdog,
    };
    let lease = lease::Keeper::start(config, parts).await?;
    let manager = Manager {
        secrets: Secrets::new(&client, &identity.namespace),
        backup_api: Api::namespaced(client.clone(), &identity.namespace),
        operating_user: user_name(&passwd, uid),
        context: Arc::new(Context::new(identity, paths, state, cluster, stop)),
        programs,
        lease,
        peers,
    };
    let context = &manager.context;
    manager.make_folders()?;
    if !manager.programs.has_tls() {
        tracing::warn!(
            "the image's PostgreSQL was built without TLS: connections of clients and standbys are not encrypted; \
             choose an image with TLS"
        );
    }
    for service in [
        tokio::spawn(serve("probes", serve_probes(Arc::clone(context)))),
        tokio::spawn(serve("status port", serve_status(Arc::clone(context)))),
        tokio::spawn(serve("metrics", serve_metrics(Arc::clone(context)))),
    ] {
        drop(service);
    }
    tokio::spawn(crate::archive::watch_recoverability(Arc::clone(context)));
    tokio::spawn(crate::archive::keep_agent(Arc::clone(context)));
    rounds(&manager).await;
    manager.shut_down().await;
    Ok(())
}

async fn serve(what: &'static str, serving: impl Future<Output = Result<()>>) {
    if let Err(error) = serving.await {
        tracing::error!("the {what} cannot be served\n{error}");
    }
}

/// Waits until an earlier manager has ended.
async fn lock(paths: &Paths, stop: &CancellationToken) -> Result<VolumeLock> {
    let mut said = false;
    loop {
        if let Some(lock) = VolumeLock::take(&paths.data_mount)? {
            return Ok(lock);
        }
        if !std::mem::replace(&mut said, true) {
            tracing::warn!("another instance manager uses this volume; waiting until it ends");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
            () = stop.cancelled() => return Err(Error::cancelled()),
        }
    }
}

async fn rounds(manager: &Manager) {
    let mut memory = Memory::default();
    let mut pause = FIRST_PAUSE;
    let mut cluster = manager.context.latest_cluster.clone();
    let mut said = None;
    while !manager.context.stop.is_cancelled() {
        let round = round(manager, &mut memory).await;
        let wait = match round {
            Ok(()) => {
                pause = FIRST_PAUSE;
                said = None;
                ROUND
            }
            Err(Error { kind: Kind::Cancelled, .. }) => break,
            Err(error) => {
                if said.as_ref() != Some(&error) {
                    tracing::error!("{error}");
                }
                manager.context.state.set_error(&error, error.kind == Kind::Stuck);
                let stuck = error.kind == Kind::Stuck;
                said = Some(error);
                let this = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                // What changed in the meantime is seen after the pause: the next try must not follow at once.
                tokio::select! {
                    () = tokio::time::sleep(if stuck { STUCK_ROUND } else { this }) => {}
                    () = manager.context.stop.cancelled() => {}
                }
                continue;
            }
        };
        let ended = async {
            match manager.context.state.server() {
                Some(served) => drop(served.postmaster.ended().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = manager.context.state.woken() => {}
            // A closed channel would end every wait at once.
            Ok(()) = cluster.changed() => {}
            () = ended => {}
            () = manager.context.stop.cancelled() => {}
        }
        cluster.mark_unchanged();
    }
}

async fn round(manager: &Manager, memory: &mut Memory) -> Result<()> {
    if let Some(served) = manager.context.state.server_or_ended()
        && let Some(exit) = served.postmaster.exited()
    {
        tracing::warn!(status = %exit.0, "PostgreSQL has ended");
        manager.server_ended().await;
    }
    if manager.context.take_restart_request() && manager.context.state.server().is_some() {
        manager
            .context
            .state
            .set_phase(InstancePhase::StartingPostgres, "restarting PostgreSQL to apply changed settings");
        manager.stop_primary(Duration::ZERO, RESTART_WITHIN).await;
    }
    let observed = manager.observe(memory).await?;
    let step = next_step(&observed);
    tracing::debug!(?step, "next");
    manager.execute(step, &observed, memory).await
}
