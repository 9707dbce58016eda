//! `Backup`: one backup of a cluster, taken once.
//!
//! - [`task`]: the input and the output of a decision
//! - [`decide`]: pure: [`pending`] before an attempt, [`follow`] while it runs, [`attempt`] at its end
//! - [`queue`]: whose turn it is within a cluster
//! - [`controller`]: when a reconcile runs; [`read`] and [`apply`] hold the clients

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

/// Look again after this time.
pub(crate) fn after(span: TimeDelta) -> Requeue {
    Requeue::After(span.to_std().unwrap_or_default())
}
