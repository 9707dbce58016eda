//! The Lease of the primary: never two writers.
//!
//! The holder renews it every [`LEASE_RENEW_SECONDS`]. Whoever is named as primary takes it when it is free, its own, or
//! has not changed for [`LEASE_SECONDS`] as the taker itself saw it ([`Sightings`]), by compare-and-swap on the resource
//! version. A renewal is good for [`LEASE_STOP_SECONDS`] by the holder's own monotonic clock. When none comes, the holder asks
//! the other instances ([`ASK_FROM`]): all of them saying that they are not and will not be the primary ([`may_go_on`]) is
//! good for as long again. With neither, it stops PostgreSQL at once. A taker says that it is one for [`YIELD`] before it takes
//! what was not given back: a holder that goes on without the API server, and is reached by the other instances, hears of it
//! first.
//!
//! A holder that hangs stops nothing. So the keeper tells the [`crate::watchdog`] each time until when it may go on: for
//! [`WATCHED`], longer than its own stop takes and shorter than a taker waits.
//!
//! [`decide`](may_take) and [`may_go_on`] are pure; [`Keeper`] holds the client.

mod keeper;
mod sightings;

pub use crate::peers::AskInstances;
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
/// Without a renewal for so long, the holder begins to ask the other instances: some times before [`STOP`], since one answer
/// that is late is no reason to stop.
pub(crate) const ASK_FROM: Duration = Duration::from_secs(4);
/// For so long after a renewal, or after asking the other instances, the watchdog lets PostgreSQL go on.
pub const WATCHED: Duration = STOP.saturating_add(Duration::from_millis(1500));
/// For so long a taker says that it is one: whoever asked before it did stops PostgreSQL, or is ended, within that.
pub const YIELD: Duration = WATCHED.saturating_add(Duration::from_millis(500));

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
        // What a stop at once takes, and a tick of the keeper, fit in between.
        assert!(STOP + Duration::from_secs(2) < EXPIRE);
        assert!(RENEW * 3 < STOP);
        // One that hangs is ended before that, and one that does not hang has decided before it is ended.
        assert!(STOP + ASK + Duration::from_millis(500) < WATCHED);
        assert!(WATCHED < YIELD && YIELD < EXPIRE);
        // A renewal that is not answered leaves time to ask.
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
