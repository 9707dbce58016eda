//! `Backup`: one backup of a cluster, taken once.
//!
//! - [`task`]: what a decision is made from, and what it is made of
//! - [`decide`]: pure: [`pending`] before an attempt, [`follow`] while it runs, [`attempt`] at its end
//! - [`queue`]: whose turn it is within a cluster

pub(crate) mod attempt;
mod decide;
mod follow;
mod pending;
mod queue;
mod task;

pub use decide::decide;
pub(crate) use follow::{silent, switch_wal};
pub use task::{Action, Decision, Memory, Observed, Requeue, Task};
pub(crate) use task::LOOK_EVERY;

use chrono::TimeDelta;

/// After this time.
pub(crate) fn after(span: TimeDelta) -> Requeue {
    Requeue::After(span.to_std().unwrap_or_default())
}
