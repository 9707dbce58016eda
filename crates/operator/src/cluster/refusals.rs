//! Actions that the API server refused, from one reconcile to the next: when each is tried again, and which of them a
//! person has to know.
//!
//! Each action waits for itself: a refused one is tried again after half a second, and the wait doubles up to fifteen.
//! All others are carried out meanwhile. An answer that says "no" is reported at once. A fault that may pass, such as a
//! lost connection, is reported when it has come back [`PATIENCE`] times.

use super::observed::RefusedAction;
use crate::error::Error;
use crate::retry::wait;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// A fault that may pass is reported after this many failures in a row.
const PATIENCE: u32 = 4;

/// What was refused in the last reconciles, by the title of the action.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Whether this operator has acted on the cluster since it was started.
    known: bool,
    all: BTreeMap<String, Refusal>,
}

#[derive(Debug)]
struct Refusal {
    times: u32,
    /// Whether the API server has said no.
    definite: bool,
    why: String,
    hint: String,
    next: Instant,
}

impl Refusals {
    /// Whether an action may be tried now.
    pub fn is_due(&self, title: &str, now: Instant) -> bool {
        self.all.get(title).is_none_or(|refusal| refusal.next <= now)
    }

    pub fn add(&mut self, title: String, error: &Error, hint: &str, now: Instant) {
        let times = self.all.get(&title).map_or(0, |refusal| refusal.times).saturating_add(1);
        let refusal = Refusal {
            times,
            definite: error.is_definite(),
            why: error.words(),
            hint: hint.to_owned(),
            next: now + wait(times, error),
        };
        self.all.insert(title, refusal);
    }

    /// An action was carried out.
    pub fn succeeded(&mut self, title: &str) {
        self.all.remove(title);
    }

    /// Keeps only what a reconcile still wanted and did not get.
    pub fn retain(&mut self, open: &BTreeSet<String>) {
        self.known = true;
        self.all.retain(|title, _| open.contains(title));
    }

    /// What people have to know; `None` if this operator has not acted on the cluster yet.
    pub fn to_report(&self) -> Option<Vec<RefusedAction>> {
        self.known.then(|| {
            let lasting = self.all.iter().filter(|(_, refusal)| refusal.definite || refusal.times >= PATIENCE);
            lasting
                .map(|(title, refusal)| RefusedAction {
                    action: title.clone(),
                    why: refusal.why.clone(),
                    hint: refusal.hint.clone(),
                })
                .collect()
        })
    }

    /// Whether nothing is refused.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The time until the first refused action is tried again. One whose time has come, and that was not tried, waits
    /// for another action.
    pub fn next_try(&self, now: Instant) -> Option<Duration> {
        let times = self.all.values().filter(|refusal| refusal.next > now);
        times.map(|refusal| refusal.next.saturating_duration_since(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16) -> Error {
        let status = kube::core::response::Status::failure("no", "Because").with_code(code).boxed();
        Error::api("create a pod", kube::Error::Api(status))
    }

    #[test]
    fn a_no_is_reported_at_once_and_a_fault_when_it_comes_back() {
        let now = Instant::now();
        let mut refusals = Refusals::default();
        assert_eq!(refusals.to_report(), None, "an operator that was just started knows nothing");
        let open = BTreeSet::from(["create Pod c-1".to_owned()]);
        refusals.add("create Pod c-1".to_owned(), &refused(403), "ask", now);
        refusals.retain(&open);
        let expected =
            RefusedAction { action: "create Pod c-1".to_owned(), why: "no".to_owned(), hint: "ask".to_owned() };
        assert_eq!(refusals.to_report(), Some(vec![expected]));
        assert!(!refusals.is_due("create Pod c-1", now), "it is not tried again at once");
        assert!(refusals.is_due("create Pod c-2", now), "others do not wait");
        assert!(refusals.is_due("create Pod c-1", now + Duration::from_millis(500)));
        refusals.retain(&BTreeSet::new());
        assert_eq!(refusals.to_report(), Some(Vec::new()), "it is no longer wanted");

        for times in 1..=4 {
            refusals.add("create Pod c-1".to_owned(), &refused(500), "", now);
            assert_eq!(refusals.to_report().map(|all| all.len()), Some(usize::from(times >= PATIENCE)), "{times}");
        }
    }
}
