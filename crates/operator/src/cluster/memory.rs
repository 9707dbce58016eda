//! What is remembered of each cluster between two reconciles: by this operator's own monotonic clock, so that no wall
//! clock, its own or another machine's, has a say in who may take writes.
//!
//! It starts empty with each operator, and whatever it does not know it treats as seen just now: a restart makes a
//! failover slower, never earlier.

use super::decision::ClusterEvent;
use super::observed::{KeptSnapshots, Observed, PrimaryLease};
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::Role;
use k8s_openapi::api::coordination::v1::Lease;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// The same Event about a state that lasts is not told again within this time.
const QUIET: Duration = Duration::from_mins(10);

/// What is remembered of one cluster.
#[derive(Debug, Default)]
pub struct Memory {
    lease: Option<ObservedLease>,
    ill_since: Option<Instant>,
    target: Option<String>,
    last_answer: BTreeMap<String, Instant>,
    /// The highest timeline that each pod has said, by its uid.
    timelines: BTreeMap<String, u32>,
    told: HashMap<ClusterEvent, Instant>,
    /// The cluster's volume snapshots, as of the last full look.
    pub(crate) snapshots: KeptSnapshots,
    /// When the objects that rarely change were last read in full, and for which generation.
    pub(crate) full_look: Option<(Instant, i64)>,
}

#[derive(Debug)]
struct ObservedLease {
    version: String,
    since: Instant,
    free_since: Option<Instant>,
}

impl Memory {
    /// Looks at the Lease. It is free when nobody holds it, or when it has not changed for its time while it was looked at.
    /// `heard` is the version that the watch brought last, and when.
    pub fn look_at_lease(&mut self, lease: &Lease, heard: Option<&(String, Instant)>, now: Instant) -> PrimaryLease {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
        let seen = match &mut self.lease {
            Some(seen) if seen.version == version => seen,
            seen => {
                // Renewed before it was heard of, so the time may count from there.
                let heard = heard.filter(|(heard, _)| *heard == version).map(|(_, at)| *at);
                let since = heard.map_or(now, |at| at.min(now));
                seen.insert(ObservedLease { version: version.clone(), since, free_since: None })
            }
        };
        let unchanged_for = now.saturating_duration_since(seen.since);
        let time = Duration::from_secs(u64::from(names::LEASE_SECONDS.unsigned_abs()));
        if holder.is_none() || unchanged_for >= time {
            seen.free_since.get_or_insert(now);
        } else {
            seen.free_since = None;
        }
        let free_for = seen.free_since.map(|since| now.saturating_duration_since(since));
        PrimaryLease { holder, unchanged_for, resource_version: version, free_for }
    }

    /// Notes who answered, and since when the instance that is to take writes does not answer.
    ///
    /// A standby that is not being streamed to knows only the timeline of its last restart point, which may be an older one
    /// than it has followed since; what it said while it was streamed to is remembered for it.
    pub fn look_at_answers(&mut self, observed: &mut Observed, now: Instant) {
        for answer in observed.answers.values_mut().filter_map(|answer| answer.as_mut().ok()) {
            let highest = self.timelines.entry(answer.pod_uid.clone()).or_default();
            *highest = (*highest).max(answer.timeline_id.unwrap_or_default());
            if answer.role == Some(Role::Replica) && answer.timeline_id.is_some() {
                answer.timeline_id = Some(*highest);
            }
        }
        let uids: Vec<&String> = observed.pods.values().filter_map(|pod| pod.metadata.uid.as_ref()).collect();
        self.timelines.retain(|uid, _| uids.contains(&uid));
        for (name, answer) in &observed.answers {
            let last = self.last_answer.entry(name.clone()).or_insert(now);
            if answer.is_ok() {
                *last = now;
            }
            observed.silent_for.insert(name.clone(), now.saturating_duration_since(*last));
        }
        self.last_answer.retain(|name, _| observed.pods.contains_key(name));
        let target = observed.status.target_primary.clone();
        if self.target != target {
            self.target.clone_from(&target);
            self.ill_since = None;
        }
        let well = target.as_ref().is_some_and(|target| {
            let ending = observed.pods.get(target).is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
            let answer = observed.answer(target);
            !ending && answer.is_some_and(|answer| answer.role == Some(Role::Primary) && answer.ready)
        });
        if well {
            self.ill_since = None;
        } else {
            let since = *self.ill_since.get_or_insert(now);
            observed.ill_for = now.saturating_duration_since(since);
        }
    }

    /// Whether an Event is news.
    pub fn is_news(&mut self, event: &ClusterEvent, now: Instant) -> bool {
        self.told.retain(|_, at| now.saturating_duration_since(*at) < QUIET);
        !event.reason.lasts() || self.told.insert(event.clone(), now).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::coordination::v1::LeaseSpec;

    fn lease(version: &str, holder: &str) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.resource_version = Some(version.to_owned());
        lease.spec = Some(LeaseSpec { holder_identity: Some(holder.to_owned()), ..LeaseSpec::default() });
        lease
    }

    #[test]
    fn a_lease_is_free_when_released_or_long_unchanged() {
        let mut memory = Memory::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(memory.look_at_lease(&lease("1", "c-1"), None, at(0)).free_for, None);
        assert_eq!(memory.look_at_lease(&lease("1", "c-1"), None, at(9)).free_for, None);
        assert_eq!(memory.look_at_lease(&lease("2", "c-1"), None, at(10)).free_for, None, "it was renewed");
        assert_eq!(memory.look_at_lease(&lease("2", "c-1"), None, at(20)).free_for, Some(Duration::ZERO));
        assert_eq!(memory.look_at_lease(&lease("2", "c-1"), None, at(23)).free_for, Some(Duration::from_secs(3)));
        assert_eq!(memory.look_at_lease(&lease("3", "c-1"), None, at(24)).free_for, None, "it came back");
        assert_eq!(memory.look_at_lease(&lease("4", ""), None, at(25)).free_for, Some(Duration::ZERO), "released");
        // The watch heard of a renewal between two looks, and of nothing since.
        let heard = |version: &str, seconds| Some((version.to_owned(), at(seconds)));
        let looked = memory.look_at_lease(&lease("5", "c-1"), heard("5", 31).as_ref(), at(38));
        assert_eq!((looked.unchanged_for, looked.free_for), (Duration::from_secs(7), None));
        assert!(memory.look_at_lease(&lease("5", "c-1"), None, at(41)).free_for.is_some());
        // It heard of an older one only: nothing is known of this one.
        let looked = memory.look_at_lease(&lease("7", "c-1"), heard("6", 42).as_ref(), at(60));
        assert_eq!((looked.unchanged_for, looked.free_for), (Duration::ZERO, None));
    }
}
