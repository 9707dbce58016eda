//! The operator: level-triggered reconcilers of `Cluster`, `Backup` and `ScheduledBackup`.
//!
//! A reconcile is read, validate, decide, write the status, apply. Only reading and the last two steps have a client.
//! [`cluster::decide`] is a pure function of the manifest, of what was observed and of the clock, and is tested with
//! tables. The status is written **before** the actions, with the resource version that was read. It contains the
//! operator's intentions: which instances exist, and which one should take writes. So every action can be derived from
//! the status by another reconcile, and an operator with an old view fails at the status and does nothing.
//!
//! - [`run()`]: the process: leader election, controllers, metrics; [`run_in()`]: the same in an environment from the
//!   caller, as `tests/scenarios/` does
//! - [`cluster`]: the core: pods, volumes, services, certificates, failover
//! - [`backups`]: backups, schedules, volume snapshots
//! - [`status_client`]: mutual TLS to the instance managers
//! - [`certificates`]: each cluster's own certificate authority
//! - [`lease`]: which operator is the leader
//!
//! After a crash anywhere, the next reconcile, by this operator or another one, reads the current state and continues.

#![expect(
    missing_docs,
    reason = "only the program `holdfast` uses this crate; a comment has to say more than the name"
)]

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
mod own_object;
mod retry;
pub mod run;
pub mod status_client;
pub mod webhook;

pub use environment::{Clock, Environment};
pub use run::{Options, run, run_in};
