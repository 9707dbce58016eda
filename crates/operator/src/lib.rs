//! The operator: level-triggered reconcilers of `Cluster`, `Backup` and `ScheduledBackup`.
//!
//! A reconcile is read, validate, decide, write the status, apply. Only reading and the last two hold a client:
//! [`cluster::decide`] is a pure function of the manifest, of what was observed and of the clock, and tested as tables.
//! The status is written **before** the actions, with the resource version that was read: it holds the operator's
//! intentions (which instances exist, which one is to take writes), so nothing is ever done that another reconcile could
//! not know of, and an operator that acts on an old view fails at the status and does nothing.
//!
//! - [`run()`]: the process: leader election, controllers, metrics; [`run_in()`]: the same in surroundings that the
//!   caller provides, as `tests/scenarios/` does
//! - [`cluster`]: the core: pods, volumes, services, certificates, failover
//! - [`backups`]: backups, schedules, volume snapshots
//! - [`status_client`]: mutual TLS to the instance managers
//! - [`certificates`]: each cluster's own authority
//! - [`lease`]: which operator is in charge
//!
//! After a crash anywhere, the next reconcile, by this operator or by another, reads what stands and goes on from there.

pub mod backups;
pub mod certificates;
pub mod cluster;
pub mod context;
mod deadline;
pub mod environment;
pub mod error;
pub mod events;
pub mod http;
pub mod lease;
pub mod metrics;
mod retry;
pub mod run;
pub mod status_client;
pub mod webhook;

pub use environment::{Clock, Environment};
pub use run::{Options, run, run_in};
