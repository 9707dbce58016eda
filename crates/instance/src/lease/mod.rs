//! The Lease of the primary: there are never two writers.
//!
//! The holder renews the Lease every [`LEASE_RENEW_SECONDS`]. The instance that is named as primary takes it by compare
//! and swap on the resource version: if it is free, its own, or if the taker itself saw it unchanged for
//! [`LEASE_SECONDS`] ([`Sightings`]). A renewal is valid for [`LEASE_STOP_SECONDS`] by the holder's own monotonic
//! clock. If no renewal succeeds, the holder asks the other instances ([`ASK_FROM`]). If all of them answer that they
//! neither have nor want the Lease, and know of no other primary ([`may_continue`]), that is valid for the same time.
//! Without either, the holder stops PostgreSQL at once. Before a taker takes a Lease that was not released, it reports
//! for [`YIELD`] that it wants it. So a holder that continues without the API server learns of it from the other
//! instances first.
//!
//! The other instances are those that the holder knows and those that they know: the holder's own view of the
//! `Cluster` may be old. An instance that none of them knows has no data: a copy of the primary needs a replication
//! slot, and the primary makes slots only for instances that it knows. The holder of a Lease is a pod, not a name: the
//! successor of a pod waits for the Lease of its predecessor, which may still run on a node that nobody reaches.
//!
//! A holder that hangs stops nothing. So each time the keeper tells the [`crate::watchdog`] until when PostgreSQL may
//! run: for [`WATCHED`], longer than the keeper's own stop takes and shorter than a taker waits.
//!
//! [`may_take`] and [`may_continue`] are pure; [`Keeper`] has the client.

mod keeper;
mod sightings;

pub use crate::peers::AskInstances;
pub use keeper::{Handle, Keeper, Parts};
pub use sightings::Sightings;

use holdfast_kube_api::names::{LEASE_RENEW_SECONDS, LEASE_SECONDS, LEASE_STOP_SECONDS};
use holdfast_kube_api::status_port::{InstancePhase, InstanceStatus, Role};
use std::time::Duration;

/// The time between two renewals.
pub const RENEW: Duration = Duration::from_secs(LEASE_RENEW_SECONDS as u64);
/// The holder stops after this long without a renewal.
pub const STOP: Duration = Duration::from_secs(LEASE_STOP_SECONDS as u64);
/// A Lease unchanged for this long can be taken.
pub const EXPIRE: Duration = Duration::from_secs(LEASE_SECONDS as u64);

/// The timeout of one request.
pub(crate) const LIMIT: Duration = Duration::from_secs(2);
/// The time between two reads of a Lease that another instance holds, and between tries after a failure.
pub(crate) const SOON: Duration = Duration::from_millis(250);
/// The time limit for the answers of the other instances.
pub(crate) const ASK: Duration = Duration::from_millis(700);
/// After this long without a renewal, the holder asks the other instances. It asks several times before [`STOP`], since
/// one late answer is not a reason to stop.
pub(crate) const ASK_FROM: Duration = Duration::from_secs(4);
/// For this long after a renewal, or after answers of the other instances, the watchdog lets PostgreSQL run.
pub const WATCHED: Duration = STOP.saturating_add(Duration::from_millis(1500));
/// For this long a taker reports that it is one. A holder that asked before that stops PostgreSQL, or is ended, within
/// this time.
pub const YIELD: Duration = WATCHED.saturating_add(Duration::from_millis(500));

/// Whether the Lease can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// It can be taken now.
    Now,
    /// Not before this time, unless the holder renews or releases it.
    After(Duration),
}

/// Whether `me` can take the Lease from this holder. It was seen unchanged for `unchanged_for`, and `me` has wanted it
/// for `wanted_for`.
pub fn may_take(me: &str, holder: Option<&str>, unchanged_for: Duration, wanted_for: Duration) -> Take {
    match holder.filter(|holder| !holder.is_empty()) {
        None => Take::Now,
        Some(holder) if holder == me => Take::Now,
        Some(_) => match EXPIRE.saturating_sub(unchanged_for).max(YIELD.saturating_sub(wanted_for)) {
            Duration::ZERO => Take::Now,
            rest => Take::After(rest),
        },
    }
}

/// Whether the holder `me` that cannot reach the API server may continue: if there is no other instance, or if all of
/// them answer, none is the primary or wants to be, and none knows of another primary or of an instance that was not
/// asked. One that does not answer might be the primary.
pub fn may_continue(me: &str, asked: &[String], answers: &[Option<InstanceStatus>]) -> bool {
    let known = |name: &String| name == me || asked.contains(name);
    let agrees = |other: &InstanceStatus| {
        !other.holds_lease
            && !other.wants_lease
            && other.role != Some(Role::Primary)
            && other.phase != InstancePhase::Promoting
            // A manager of an earlier release does not report what it wants.
            && !(other.phase == InstancePhase::Waiting && other.role.is_some())
            && other.target_primary.as_ref().is_none_or(|target| target == me)
            && other.instance_names.iter().all(known)
    };
    asked.len() == answers.len() && answers.iter().all(|other| other.as_ref().is_some_and(agrees))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_can_take_it() {
        let seconds = Duration::from_secs;
        for (holder, unchanged, wanted, expected) in [
            (None, 0, 0, Take::Now),
            (Some(""), 0, 0, Take::Now),
            (Some("c-1"), 0, 0, Take::Now),
            (Some("c-2"), 0, 0, Take::After(seconds(10))),
            (Some("c-2"), 7, 7, Take::After(seconds(3))),
            (Some("c-2"), 10, 10, Take::Now),
            // It was watched before it was wanted: only the time to warn the holder is left.
            (Some("c-2"), 60, 0, Take::After(YIELD)),
            (Some("c-2"), 60, 9, Take::Now),
            // It was wanted for long, and renewed all the time.
            (Some("c-2"), 1, 60, Take::After(seconds(9))),
        ] {
            let found = may_take("c-1", holder, seconds(unchanged), seconds(wanted));
            assert_eq!(found, expected, "{holder:?} {unchanged} {wanted}");
        }
    }

    #[test]
    fn the_holder_stops_before_a_taker_can_begin() {
        // An immediate stop and a tick of the keeper fit in between.
        assert!(STOP + Duration::from_secs(2) < EXPIRE);
        assert!(RENEW * 3 < STOP);
        // A keeper that hangs is ended before that, and one that does not hang has decided before it would be ended.
        assert!(STOP + ASK + Duration::from_millis(500) < WATCHED);
        assert!(WATCHED < YIELD && YIELD < EXPIRE);
        // After a renewal without an answer, there is time to ask.
        assert!(RENEW + LIMIT <= ASK_FROM && ASK_FROM + ASK + SOON + ASK < STOP);
    }

    #[test]
    fn a_silent_peer_might_be_the_primary() {
        let replica = InstanceStatus { role: Some(Role::Replica), ..InstanceStatus::default() };
        let primary = InstanceStatus { role: Some(Role::Primary), ..InstanceStatus::default() };
        let holder = InstanceStatus { holds_lease: true, ..replica.clone() };
        let taking = InstanceStatus { phase: InstancePhase::Waiting, ..replica.clone() };
        let joining = InstanceStatus { phase: InstancePhase::Waiting, ..InstanceStatus::default() };
        let promoting = InstanceStatus { phase: InstancePhase::Promoting, ..replica.clone() };
        // Its PostgreSQL does not run, so it has no role.
        let stopped_taker = InstanceStatus { wants_lease: true, ..joining.clone() };
        let knows = |target: &str, names: &[&str]| InstanceStatus {
            target_primary: Some(target.to_owned()),
            instance_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..replica.clone()
        };
        for (others, expected) in [
            (vec![], true),
            (vec![Some(replica.clone()), Some(replica.clone())], true),
            (vec![Some(replica.clone()), None], false),
            (vec![Some(primary)], false),
            (vec![Some(holder)], false),
            (vec![Some(promoting)], false),
            (vec![Some(replica.clone()), Some(taking)], false),
            (vec![Some(replica.clone()), Some(joining)], true),
            (vec![Some(replica.clone()), Some(stopped_taker)], false),
            (vec![Some(knows("c-1", &["c-1", "c-2"]))], true),
            (vec![Some(knows("c-1", &["c-1", "c-2", "c-3"])), Some(replica.clone())], true),
            (vec![Some(knows("c-4", &["c-1", "c-2"]))], false),
            (vec![Some(knows("c-1", &["c-1", "c-2", "c-4"]))], false),
        ] {
            let asked: Vec<String> = (0..others.len()).map(|number| format!("c-{}", number + 2)).collect();
            assert_eq!(may_continue("c-1", &asked, &others), expected, "{others:?}");
        }
        assert!(!may_continue("c-1", &["c-2".to_owned()], &[]), "nobody has answered");
    }
}
