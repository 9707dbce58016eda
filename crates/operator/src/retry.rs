//! What follows a reconcile: metrics, and after a failure the time of the next try.
//!
//! Failures are counted by object, and reset by the first reconcile that succeeds. The wait doubles from half a second
//! to fifteen. An object that changed during its reconcile is not a failure: it is read again at once.

use crate::error::Error;
use crate::metrics::Metrics;
use kube::api::DynamicObject;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The first wait after an error; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// The wait after an object changed during its reconcile.
const SOON: Duration = Duration::from_millis(50);

/// The consecutive failures of each object of one controller.
pub(crate) struct Retries {
    kind: &'static str,
    metrics: Arc<Metrics>,
    failures: Mutex<HashMap<String, u32>>,
}

impl Retries {
    /// Without failures.
    pub(crate) fn new(kind: &'static str, metrics: &Arc<Metrics>) -> Self {
        Self { kind, metrics: Arc::clone(metrics), failures: Mutex::default() }
    }

    /// Runs a reconcile, and records its result.
    pub(crate) async fn observe(
        &self,
        object: &DynamicObject,
        reconcile: impl Future<Output = Result<Action, Error>>,
    ) -> Result<Action, Error> {
        let started = Instant::now();
        let result = reconcile.await;
        self.metrics.reconciled(self.kind, started.elapsed(), result.as_ref().err().map(Error::category));
        if result.is_ok() {
            self.failures().remove(&key(object));
        }
        result
    }

    /// When a failed reconcile is tried again; logs why it failed.
    pub(crate) fn after(&self, object: &DynamicObject, error: &Error) -> Action {
        let (kind, name, namespace) = (self.kind, object.name_any(), object.namespace().unwrap_or_default());
        let count = {
            let mut failures = self.failures();
            let count = failures.entry(key(object)).or_default();
            *count = count.saturating_add(1);
            *count
        };
        if let Error::Changed { what } = error {
            tracing::debug!(kind, name, namespace, what, "the object was changed in the meantime; reading it again");
        } else {
            tracing::warn!(
                kind,
                name,
                namespace,
                error = error.in_full(),
                "a reconcile failed; it is tried again later"
            );
        }
        Action::requeue(wait(count, error))
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.failures.lock()
    }
}

fn key(object: &DynamicObject) -> String {
    object.meta().uid.clone().unwrap_or_default()
}

/// The wait after this many failures in a row.
pub(crate) fn wait(count: u32, error: &Error) -> Duration {
    if matches!(error, Error::Changed { .. }) && count == 1 {
        return SOON;
    }
    FIRST_WAIT.saturating_mul(1 << (count.max(1) - 1).min(5)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_what_changed_is_read_at_once() {
        let slow = Error::Slow { doing: "looking".to_owned(), seconds: 60 };
        let waits: Vec<u128> = (1..=8).map(|count| wait(count, &slow).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);
        let changed = Error::Changed { what: "x".to_owned() };
        assert_eq!((wait(1, &changed).as_millis(), wait(2, &changed).as_millis()), (50, 1000));
    }
}
