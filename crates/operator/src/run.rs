//! The process: leader election, then the controllers, until a signal or the loss of the lease.

use crate::cluster::desired::Images;
use crate::context::Context;
use crate::environment::Environment;
use crate::http;
use crate::lease::{Election, LEASE};
use crate::metrics::Metrics;
use crate::webhook;
use holdfast_kube_api::cluster::OperatorIdentity;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, Config};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The time limit of opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection without data for this long is given up. An API server whose machine is gone closes no connection, and a
/// watch on it would wait for ever. A watch that was only quiet continues; bookmarks come about once a minute.
const READ_TIMEOUT: Duration = Duration::from_secs(90);
/// A stopping operator still serves the webhook for this long: proxies send reviews to it until they notice the stop.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(5);

/// How the operator is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The only namespace to watch; `None` for all.
    pub namespace: Option<String>,
    /// The image of the init container that copies the instance manager.
    pub operator_image: String,
    /// The PostgreSQL image of clusters that name none.
    pub default_image: String,
    /// Whether to take part in the election, and wait while another operator is the leader.
    pub leader_elect: bool,
    /// The operator's own namespace, which has its Lease.
    pub own_namespace: Option<String>,
    pub metrics_address: SocketAddr,
    /// The address of the validating webhook; `None` for no webhook.
    pub webhook_address: Option<SocketAddr>,
    /// More names and addresses under which the API server calls the webhook.
    pub webhook_names: Vec<String>,
    /// The identity in the election: the pod's name, which no other operator has.
    pub identity: String,
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No configuration of an API server was found.
    #[error("no Kubernetes API server is configured")]
    Config(#[source] Box<kube::config::InferConfigError>),
    /// The client cannot be created.
    #[error("the client of the API server cannot be created")]
    Client(#[source] Box<kube::Error>),
    /// The port of the metrics or of the webhook is in use.
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// Another operator is the leader now.
    #[error(
        "the lease {LEASE} was lost: another operator is in charge, or the API server could not be reached for too long"
    )]
    LeaseLost,
    /// A controller ended without being cancelled.
    #[error("a controller ended unexpectedly")]
    ControllerEnded,
}

/// Runs until it is cancelled, or the lease is lost.
pub async fn run(options: Options, cancellation: CancellationToken) -> Result<(), RunError> {
    let mut config = Config::infer().await.map_err(|error| RunError::Config(Box::new(error)))?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    let own_namespace = options.own_namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(|error| RunError::Client(Box::new(error)))?;
    run_in(Environment::real(client), &own_namespace, options, cancellation).await
}

/// The same, in an environment from the caller.
pub async fn run_in(
    environment: Environment,
    own_namespace: &str,
    options: Options,
    cancellation: CancellationToken,
) -> Result<(), RunError> {
    let client = environment.client.clone();
    let metrics = Arc::new(Metrics::default());
    metrics.set("holdfast_operator_leader", &[], 0.0);

    let closed = CancellationToken::new();
    let _closes_ports = closed.clone().drop_guard();
    let mut servers = JoinSet::new();
    let address = options.metrics_address;
    let (webhook_ready, ready) = watch::channel(options.webhook_address.is_none());
    let served = http::serve(address, Arc::clone(&metrics), ready, closed.clone());
    servers.spawn(async move { served.await.map_err(|source| RunError::Listen { address, source }) });
    let webhook_address = options.webhook_address;
    if let Some(address) = webhook_address {
        let names = options.webhook_names.clone();
        let served = webhook::serve(client, own_namespace.to_owned(), address, names, webhook_ready, closed.clone());
        servers.spawn(async move { served.await.map_err(|source| RunError::Listen { address, source }) });
    }
    // A port that is in use fails at once.
    tokio::time::sleep(Duration::from_millis(50)).await;
    if let Some(Ok(Err(error))) = servers.try_join_next() {
        return Err(error);
    }
    let result = lead(environment, own_namespace, options, metrics, &cancellation).await;
    if webhook_address.is_some() && cancellation.is_cancelled() {
        tokio::time::sleep(FORGOTTEN_WITHIN).await;
    }
    result
}

/// Waits to become the leader, then runs the controllers until it is cancelled or loses the Lease.
async fn lead(
    environment: Environment,
    own_namespace: &str,
    options: Options,
    metrics: Arc<Metrics>,
    cancellation: &CancellationToken,
) -> Result<(), RunError> {
    let stop = cancellation.child_token();
    let _stops_all = stop.clone().drop_guard();
    let leases: Api<Lease> = Api::namespaced(environment.client.clone(), own_namespace);
    let mut election = Election::new(leases, LEASE, options.identity.clone());
    if options.leader_elect && !election.win(cancellation).await {
        return Ok(());
    }
    metrics.set("holdfast_operator_leader", &[], 1.0);
    tracing::info!(identity = options.identity, namespace = options.namespace, "this operator is in charge");

    let images = Images { operator: options.operator_image, postgres: options.default_image };
    let me = OperatorIdentity { namespace: own_namespace.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let context = Context::new(environment, options.namespace, &options.identity, me, Arc::clone(&metrics));
    let context = Arc::new(context);
    let mut controllers = JoinSet::new();
    controllers.spawn(crate::cluster::controller::run(Arc::clone(&context), images, stop.clone()));
    controllers.spawn(crate::backups::run(Arc::clone(&context), stop.clone()));

    let keep = async {
        if options.leader_elect {
            election.keep(cancellation).await
        } else {
            cancellation.cancelled().await;
            true
        }
    };
    let result = tokio::select! {
        kept = keep => if kept { Ok(()) } else { Err(RunError::LeaseLost) },
        _ = controllers.join_next() => {
            if cancellation.is_cancelled() { Ok(()) } else { Err(RunError::ControllerEnded) }
        }
    };
    stop.cancel();
    // Running work may end, within a limit: another operator can continue everything.
    let _ =
        tokio::time::timeout(Duration::from_secs(5), async { while controllers.join_next().await.is_some() {} }).await;
    if options.leader_elect && result.is_ok() {
        // Last: nobody else begins while the Lease is held.
        election.release().await;
        metrics.set("holdfast_operator_leader", &[], 0.0);
    }
    result
}
