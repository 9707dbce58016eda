//! `holdfast agent`.

use clap::{Args, Subcommand};
use std::net::SocketAddr;

/// The arguments of `agent`.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// What to do; without it, the agent runs until it is stopped
    #[command(subcommand)]
    pub action: Option<AgentAction>,
    /// Serve metrics for Prometheus on this address, such as 127.0.0.1:9188, at /metrics
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,
    /// Stop when standard input is closed, that is, when the program that started the agent has ended
    #[arg(long, hide = true)]
    pub while_stdin_is_open: bool,
}

/// What can be asked of a running agent.
#[derive(Clone, Debug, Subcommand)]
pub enum AgentAction {
    /// Show the state of the running agent: what it archives and fetches, and its last failure
    Status,
}
