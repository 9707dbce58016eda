//! What is remembered of each cluster between two reconciles, measured by this operator's own monotonic clock. So no
//! wall clock, on this machine or another, decides who may take writes.
//!
//! It is empty when an operator starts, and what it does not know counts as seen just now. A restart makes a failover
//! slower, never earlier.

use super::decision::ClusterEvent;
use super::observed::{Foreign, KeptSnapshots, Observed, PrimaryLease, RecoverySource};
use super::refusals::Refusals;
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::Role;
use k8s_openapi::api::coordination::v1::Lease;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// The same Event about a lasting state is not published again within this time.
const QUIET: Duration = Duration::from_mins(10);

/// The memory of one cluster.
#[derive(Debug, Default)]
pub struct Memory {
    lease: Option<ObservedLease>,
    ill_since: Option<Instant>,
    target: Option<String>,
    last_answer: BTreeMap<String, Instant>,
    /// The highest timeline that each pod has reported, by the pod's uid.
    timelines: BTreeMap<String, u32>,
    reported: HashMap<ClusterEvent, Instant>,
    /// The cluster's volume snapshots at the last full read.
    pub(crate) snapshots: KeptSnapshots,
    /// Rarely changed objects of other owners at the last full read.
    pub(crate) foreign: Vec<Foreign>,
    /// The `Backup` of the recovery at the last read.
    pub(crate) recovery: Option<RecoverySource>,
    /// What the API server refused.
    pub(crate) refusals: Refusals,
    /// Whether each node was ready at the last read, by name.
    pub(crate) nodes: BTreeMap<String, bool>,
    /// When the rarely changed objects were last read in full, and for which generation.
    pub(crate) full_look: Option<(Instant, i64)>,
}

#[derive(Debug)]
struct ObservedLease {
    version: String,
    since: Instant,
    free_since: Option<Instant>,
}

impl Memory {
    /// Judges the Lease. It is free if it has no holder, or if it was seen unchanged for its whole time. `heard` is the
    /// newest version from the watch, and when it came.
    pub fn look_at_lease(&mut self, lease: &Lease, heard: Option<&(String, Instant)>, now: Instant) -> PrimaryLease {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
        let seen = match &mut self.lease {
            Some(seen) if seen.version == version => seen,
            seen => {
                // The renewal was before the watch reported it, so the time may count from the report.
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

    /// Records which instances answered, and since when the target primary has not.
    ///
    /// A standby that is not streaming knows only the timeline of its last restart point, which may be older than the
    /// one it has reached. So the timeline that it reported while it was streaming is kept.
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

    /// Whether an Event is published: about a lasting state, only if it was not published within [`QUIET`]. While an
    /// action is refused, each reconcile decides it again, and would report it again.
    pub fn is_news(&mut self, event: &ClusterEvent, now: Instant) -> bool {
        self.reported.retain(|_, at| now.saturating_duration_since(*at) < QUIET);
        let lasts = event.reason.lasts() || !self.refusals.is_empty();
        let published_before = self.reported.contains_key(event);
        if lasts && published_before {
            return false;
        }
        self.reported.insert(event.clone(), now);
        true
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
        // The watch reported a renewal between two reads, and nothing since.
        let heard = |version: &str, seconds| Some((version.to_owned(), at(seconds)));
        let looked = memory.look_at_lease(&lease("5", "c-1"), heard("5", 31).as_ref(), at(38));
        assert_eq!((looked.unchanged_for, looked.free_for), (Duration::from_secs(7), None));
        assert!(memory.look_at_lease(&lease("5", "c-1"), None, at(41)).free_for.is_some());
        // The watch reported only an older version: nothing is known of this one.
        let looked = memory.look_at_lease(&lease("7", "c-1"), heard("6", 42).as_ref(), at(60));
        assert_eq!((looked.unchanged_for, looked.free_for), (Duration::ZERO, None));
    }
}
