//! What to do: a pure function of the desired state, the observed state and the clock.
//!
//! The steps, in this order, each in its own file:
//!
//! 1. [`secrets`], [`services`], [`access`]: what instances need before they can start
//! 2. [`instances`]: which instances must exist, by name; a name in the status is a promise that its volume is kept
//! 3. [`origin`]: what the volumes of the first instance are created from
//! 4. [`roles`]: which instance takes writes: bootstrap, failover, the end of a switchover
//! 5. [`volumes`], [`pods`]: claims and pods of those instances, and removal of the others
//! 6. [`restart`]: instances with old settings, standbys first
//! 7. [`refused`]: what the API server refuses, and what belongs to somebody else
//! 8. [`status`], [`recoverability`]: what people read
//!
//! Each step sees the status as the steps before left it, and adds `Action`s. The first step that sets a phase or a
//! reason to wait wins: the order above is the order of importance.

mod access;
mod condition;
mod instances;
mod origin;
mod plan;
mod pod_template;
mod pods;
mod recoverability;
mod refused;
mod restart;
mod roles;
mod secrets;
mod services;
mod status;
mod volumes;

#[cfg(test)]
mod tests;

pub use plan::{LATER, SOON, owner};
pub use secrets::server_names;
pub(crate) use secrets::{hash_of_names, short_hash};

use super::decision::Decision;
use super::desired::Desired;
use super::observed::Observed;
use chrono::{DateTime, Utc};
use plan::Plan;

/// The decision about a cluster, from its manifest, what was observed and the time.
pub fn decide(desired: &Desired, observed: &Observed, now: DateTime<Utc>) -> Decision {
    let mut plan = Plan::new(desired, observed, now);
    if !desired.errors.is_empty() && observed.status.instance_names.is_empty() {
        // No instance exists yet, so nothing has to be kept alive: wait for a corrected manifest.
        status::decide(&mut plan);
        return plan.finish();
    }
    // A manifest that became invalid later still has its instances: pods that die are replaced, and a lost primary
    // leads to a failover. Only what follows from the wrong fields is left out.
    secrets::decide(&mut plan);
    if desired.errors.is_empty() {
        services::decide(&mut plan);
        access::decide(&mut plan);
    }
    instances::decide(&mut plan);
    origin::decide(&mut plan);
    roles::decide(&mut plan);
    volumes::decide(&mut plan);
    pods::decide(&mut plan);
    restart::decide(&mut plan);
    refused::decide(&mut plan);
    status::decide(&mut plan);
    plan.finish()
}
