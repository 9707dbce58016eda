//! `holdfast operator`.

use clap::Subcommand;
use std::net::SocketAddr;

/// `holdfast operator`
#[derive(Clone, Debug, Subcommand)]
pub enum OperatorCommand {
    /// Run the operator, inside a Kubernetes cluster or outside with KUBECONFIG
    Run(OperatorArgs),
}

/// `holdfast operator run`
#[derive(Clone, Debug, clap::Args)]
pub struct OperatorArgs {
    /// Manage the clusters of this namespace only [default: all namespaces]
    #[arg(long, value_name = "NAMESPACE", env = "WATCH_NAMESPACE")]
    pub namespace: Option<String>,
    /// The image with this program, for the init container of the instances
    #[arg(long, value_name = "IMAGE", env = "OPERATOR_IMAGE", default_value = concat!("ghcr.io/holdfast/holdfast:", env!("CARGO_PKG_VERSION")))]
    pub operator_image: String,
    /// The PostgreSQL image for clusters that do not name one
    #[arg(long, value_name = "IMAGE", env = "DEFAULT_IMAGE", default_value = "ghcr.io/cloudnative-pg/postgresql:18")]
    pub default_image: String,
    /// Wait until no other operator holds the Lease
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// The operator's own namespace, where its Lease is [default: that of its service account, or of the KUBECONFIG]
    #[arg(long, value_name = "NAMESPACE", env = "OPERATOR_NAMESPACE")]
    pub own_namespace: Option<String>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8080")]
    pub metrics_address: SocketAddr,
    /// Where the validating webhook is served, such as `[::]:9443` [default: not served]
    #[arg(long, value_name = "ADDRESS", env = "WEBHOOK_ADDRESS")]
    pub webhook_address: Option<SocketAddr>,
    /// A name or address by which the API server calls the webhook, besides its Service; can be repeated
    #[arg(long, value_name = "NAME")]
    pub webhook_name: Vec<String>,
}
