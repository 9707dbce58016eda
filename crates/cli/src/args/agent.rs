//! `holdfast agent`.

use clap::{Args, Subcommand};

/// The arguments of `agent`.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// What to do; without it, the agent runs until it is stopped
    #[command(subcommand)]
    pub action: Option<AgentAction>,
    /// End when standard input ends: when the program that started the agent is gone
    #[arg(long, hide = true)]
    pub while_stdin_is_open: bool,
}

/// What can be asked of a running agent.
#[derive(Clone, Debug, Subcommand)]
pub enum AgentAction {
    /// Show how the running agent is: what it archives and fetches, and its last failure
    Status,
}
