//! The instance manager: PID 1 of a PostgreSQL pod.
//!
//! It creates the data directory, starts PostgreSQL in the role that the `Cluster` and the Lease give it, stops it in
//! order, reports on the status port, archives WAL and runs backups. It decides nothing about other instances: the
//! operator does, and writes it into the `Cluster`'s status. It implements none of the engine's verbs: they run as
//! child processes.
//!
//! The life of a pod, in the order of the modules:
//! - [`init`], [`watchdog`]: PID 1 passes signals on to its child, the manager, reaps orphaned processes, and ends when
//!   the manager hangs
//! - [`identity`]: the identity of this instance, and its paths
//! - [`volume`]: the content of the data volume, and the record that says whether it is complete
//! - [`plan`]: the next step; pure
//! - [`state`]: the state of the instance; [`manager`]: the loop that observes, decides and acts
//! - [`bootstrap`], [`rejoin`]: data directories
//! - [`postgres`], [`settings`], [`tls`], [`logs`]: the server, and what it reads and writes
//! - [`lease`], [`cluster_watch`], [`secrets`]: the API server's side
//! - [`context`]: what the loop shares with the services below: [`server_facts`] queries PostgreSQL about itself, and
//!   [`current_run`] is the current backup or snapshot
//! - [`status_port`], [`metrics`]: what the instance reports; [`peers`]: what the other instances report
//! - [`archive`], [`backup`], [`snapshot`], [`verb`]: the engine's verbs, run in parallel to PostgreSQL

#![expect(
    missing_docs,
    reason = "only the program `holdfast` uses this crate; a comment has to say more than the name"
)]

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
pub mod space;
pub mod state;
pub mod status_port;
pub mod tls;
pub mod verb;
pub mod volume;
pub mod watchdog;

pub use error::{Error, Result};
pub(crate) use postgres::postgres_error;
