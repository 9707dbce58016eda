//! `Backup`: one backup of a cluster, taken once.
//!
//! - [`task`]: what a decision is made from, and what it is made of
//! - [`decide`]: pure: [`pending`] before an attempt, [`follow`] while it runs, [`attempt`] at its end
//! - [`queue`]: whose turn it is within a cluster
//! - [`controller`]: when it is looked at; [`read`] and [`apply`] hold the clients

mod apply;
pub(crate) mod attempt;
mod controller;
mod decide;
mod follow;
mod pending;
mod queue;
mod read;
mod task;

pub(crate) use controller::run;
pub use decide::decide;
pub(crate) use follow::{silent, switch_wal};
pub(crate) use task::LOOK_EVERY;
pub use task::{Action, Decision, Memory, Observed, Requeue, Task};

use chrono::TimeDelta;

/// After this time.
pub(crate) fn after(span: TimeDelta) -> Requeue {
    Requeue::After(span.to_std().unwrap_or_default())
}
