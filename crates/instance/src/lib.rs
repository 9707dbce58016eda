//! The instance manager: PID 1 of a PostgreSQL pod.
//!
//! It makes the data directory, starts PostgreSQL in the role that the `Cluster` and the Lease give it, stops it in order,
//! reports on the status port, archives WAL and runs backups. It decides nothing about other instances: that is the
//! operator's, which writes the `Cluster`'s status; and it implements none of the engine's verbs: those run as children.
//!
//! The way of a pod, in the order of the modules:
//! - [`init`], [`watchdog`]: PID 1 passes signals on to the manager, its child, reaps what others leave, and ends when the
//!   manager hangs
//! - [`identity`]: who this is, and where everything lies
//! - [`volume`]: what the data volume holds, and the record that says whether it is whole
//! - [`plan`]: what is done next; pure
//! - [`state`]: what the instance knows of itself; [`manager`]: the loop that looks, decides and does
//! - [`bootstrap`], [`rejoin`]: data directories
//! - [`postgres`], [`settings`], [`tls`], [`logs`]: the server and what it reads and writes
//! - [`lease`], [`cluster_watch`], [`secrets`]: the API server's side
//! - [`context`]: what the loop shares with the services below: [`server_facts`] asks PostgreSQL about itself, and
//!   [`current_run`] is a backup or a snapshot under way
//! - [`status_port`], [`metrics`]: what others are told; [`peers`]: what the other instances tell
//! - [`archive`], [`backup`], [`snapshot`], [`verb`]: the engine's verbs, run beside PostgreSQL

pub mod archive;
pub mod backup;
pub mod bootstrap;
pub mod cluster_watch;
pub mod context;
pub mod current_run;
pub mod error;
pub mod identity;
pub mod init;
pub mod lease;
pub mod logs;
pub mod manager;
pub mod metrics;
pub mod peers;
pub mod plan;
pub mod postgres;
mod refusal;
pub mod rejoin;
pub mod secrets;
pub mod server_facts;
pub mod settings;
pub mod snapshot;
pub mod state;
pub mod status_port;
pub mod tls;
pub mod verb;
pub mod volume;
pub mod watchdog;

pub use error::{Error, Result};
pub(crate) use postgres::postgres_error;
