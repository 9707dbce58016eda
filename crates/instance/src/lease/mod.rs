//! The Lease of the primary: never two writers.
//!
//! The holder renews it every [`LEASE_RENEW_SECONDS`]. Whoever is named as primary takes it when it is free, its own, or
//! has not changed for [`LEASE_SECONDS`] as the taker itself saw it ([`Sightings`]), by compare-and-swap on the resource
//! version. A holder that cannot renew for [`LEASE_STOP_SECONDS`] by its own monotonic clock stops PostgreSQL at once, unless
//! it can know that nobody takes the Lease meanwhile ([`may_go_on`]): so it has stopped before a taker's time is over. It
//! asks again and again, and a taker says that it is one for [`YIELD`] before it takes what was not given back: a holder
//! that goes on without the API server, and is reached by the other instances, hears of it first.
//!
//! A holder that hangs stops nothing. So the keeper tells the [`crate::watchdog`] with each of these decisions until when it
//! may go on: [`AFTER_RENEWAL`], [`AFTER_ASKING`]. Both end before a taker can begin.
//!
//! [`decide`](may_take) and [`may_go_on`] are pure; [`Keeper`] holds the client.

mod keeper;
mod sightings;

pub use keeper::{Handle, Keeper, Parts};
pub use sightings::Sightings;

use holdfast_kube_api::names::{LEASE_RENEW_SECONDS, LEASE_SECONDS, LEASE_STOP_SECONDS};
use holdfast_kube_api::status_port::{InstancePhase, InstanceStatus, Role};
use std::time::Duration;

/// Between renewals.
pub const RENEW: Duration = Duration::from_secs(LEASE_RENEW_SECONDS as u64);
/// Without a renewal for so long, the holder stops.
pub const STOP: Duration = Duration::from_secs(LEASE_STOP_SECONDS as u64);
/// Unchanged for so long, it can be taken.
pub const EXPIRE: Duration = Duration::from_secs(LEASE_SECONDS as u64);

/// Of one request.
pub(crate) const LIMIT: Duration = Duration::from_secs(2);
/// Between looks at a Lease that somebody else holds, and between tries after a failure.
pub(crate) const SOON: Duration = Duration::from_millis(250);
/// What the other instances have to answer in.
pub(crate) const ASK: Duration = Duration::from_millis(700);
/// For so long a taker says that it is one: a holder that goes on without the API server asks once per request to that
/// server, question and pause, and then stops at once.
pub const YIELD: Duration = AFTER_ASKING.saturating_add(Duration::from_millis(500));
/// For so long after it asked for a renewal that was granted, a holder may go on: a little longer than [`STOP`], at which it
/// stops PostgreSQL by itself.
pub const AFTER_RENEWAL: Duration = STOP.saturating_add(Duration::from_millis(1500));
/// For so long after it began to ask the other instances, all of which said that they are not and will not be the primary, a
/// holder may go on without the API server: until it has asked them again, and a little longer.
pub const AFTER_ASKING: Duration =
    ASK.saturating_add(SOON).saturating_add(LIMIT).saturating_add(ASK).saturating_add(Duration::from_secs(2));

/// Whether the Lease can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Now.
    Now,
    /// Its holder has this long still.
    After(Duration),
}

/// Whether `me`, which has wanted the Lease for some time, can take it with this holder, that was last seen to change so
/// long ago.
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

/// Whether a holder that cannot reach the API server may go on: when there is no other instance, or all of them answer and
/// none is, or is about to be, the primary: an instance that runs and waits is one that waits for the Lease. Whoever does not
/// answer might be.
pub fn may_go_on(others: &[Option<InstanceStatus>]) -> bool {
    others.iter().all(|other| {
        other.as_ref().is_some_and(|other| {
            !other.holds_lease
                && other.role != Some(Role::Primary)
                && other.phase != InstancePhase::Promoting
                && !(other.phase == InstancePhase::Waiting && other.role.is_some())
        })
    })
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
            // It was watched before it was wanted: only the word to the holder is waited for.
            (Some("c-2"), 60, 0, Take::After(YIELD)),
            (Some("c-2"), 60, 7, Take::Now),
            // It was wanted for long, and renewed all the time.
            (Some("c-2"), 1, 60, Take::After(seconds(9))),
        ] {
            let found = may_take("c-1", holder, seconds(unchanged), seconds(wanted));
            assert_eq!(found, expected, "{holder:?} {unchanged} {wanted}");
        }
    }

    #[test]
    fn the_holder_stops_before_a_taker_can_begin() {
        // What a stop at once takes, and a tick of the keeper, fit in between.
        assert!(STOP + Duration::from_secs(2) < EXPIRE);
        assert!(RENEW * 3 < STOP);
        // One that hangs is ended before that, and one that does not hang is never ended by the watchdog.
        assert!(STOP + Duration::from_secs(1) < AFTER_RENEWAL);
        assert!(AFTER_RENEWAL + Duration::from_secs(1) < EXPIRE);
        assert!(ASK + SOON + LIMIT + ASK + Duration::from_secs(1) < AFTER_ASKING);
        assert!(AFTER_ASKING < YIELD && YIELD < EXPIRE);
    }

    #[test]
    fn a_silent_peer_might_be_the_primary() {
        let replica = InstanceStatus { role: Some(Role::Replica), ..InstanceStatus::default() };
        let primary = InstanceStatus { role: Some(Role::Primary), ..InstanceStatus::default() };
        let holder = InstanceStatus { holds_lease: true, ..replica.clone() };
        let taking = InstanceStatus { phase: InstancePhase::Waiting, ..replica.clone() };
        let joining = InstanceStatus { phase: InstancePhase::Waiting, ..InstanceStatus::default() };
        let promoting = InstanceStatus { phase: InstancePhase::Promoting, ..replica.clone() };
        for (others, expected) in [
            (vec![], true),
            (vec![Some(replica.clone()), Some(replica.clone())], true),
            (vec![Some(replica.clone()), None], false),
            (vec![Some(primary)], false),
            (vec![Some(holder)], false),
            (vec![Some(promoting)], false),
            (vec![Some(replica.clone()), Some(taking)], false),
            (vec![Some(replica), Some(joining)], true),
        ] {
            assert_eq!(may_go_on(&others), expected, "{others:?}");
        }
    }
}
