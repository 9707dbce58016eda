//! Which operator is in charge: leader election by a Lease.
//!
//! The holder renews the Lease. Another operator takes it after it has seen it unchanged for its whole time by its own
//! clock. A holder that could not renew for [`GIVE_UP`] stops, before anybody else may begin. Even if two operators
//! overlap, resource versions keep their writes safe; the election keeps them from disturbing each other.
//!
//! The holder is a pod's name. When a container is started again after a kill, it takes its own Lease at once. The
//! container before it is dead, since the kubelet started a new one; and a Deployment never uses a name twice.

use crate::error::{Error, is_conflict, is_not_found};
use chrono::{DateTime, SubsecRound, Utc};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The name of the Lease, in the operator's own namespace.
pub const LEASE: &str = "holdfast-operator";
/// A Lease without a renewal ends after this time.
const TIME: Duration = Duration::from_secs(15);
/// The time between two renewals, or two reads.
const RENEW: Duration = Duration::from_secs(3);
/// A holder that cannot renew the Lease stops after this time.
const GIVE_UP: Duration = Duration::from_secs(10);

/// The Lease, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedLease {
    /// The holder; `None` if it was released.
    pub holder: Option<String>,
    /// For how long it has been seen unchanged.
    pub unchanged_for: Duration,
}

/// What to do about the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It does not exist.
    Create,
    /// It is free or already ours: write it.
    Take,
    /// Another operator holds it.
    Wait,
}

/// Decides what to do about a Lease that was seen, for the candidate `me`.
pub fn step(seen: Option<&ObservedLease>, me: &str) -> Step {
    match seen {
        None => Step::Create,
        Some(ObservedLease { holder: None, .. }) => Step::Take,
        Some(ObservedLease { holder: Some(holder), .. }) if holder == me => Step::Take,
        Some(seen) if seen.unchanged_for >= TIME => Step::Take,
        Some(_) => Step::Wait,
    }
}

/// The candidacy of this operator.
#[derive(Debug)]
pub struct Election {
    api: Api<Lease>,
    name: String,
    me: String,
    seen: Option<(String, Instant)>,
}

impl Election {
    /// A candidacy under an identity that no other operator has.
    pub fn new(api: Api<Lease>, name: impl Into<String>, me: impl Into<String>) -> Self {
        Self { api, name: name.into(), me: me.into(), seen: None }
    }

    /// Waits until this operator holds the Lease (`true`), or it is cancelled (`false`).
    pub async fn win(&mut self, cancellation: &CancellationToken) -> bool {
        let mut reported = false;
        loop {
            match self.attempt().await {
                Ok(true) => return true,
                Ok(false) if !reported => {
                    reported = true;
                    tracing::info!(lease = self.name, "another operator is in charge; waiting");
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    lease = self.name,
                    error = error.in_full(),
                    "cannot take part in the election of the operator in charge"
                ),
            }
            tokio::select! {
                () = tokio::time::sleep(RENEW) => {}
                () = cancellation.cancelled() => return false,
            }
        }
    }

    /// Renews the Lease until it is lost (`false`), or it is cancelled (`true`).
    pub async fn keep(&mut self, cancellation: &CancellationToken) -> bool {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(RENEW) => {}
                () = cancellation.cancelled() => return true,
            }
            match tokio::time::timeout(RENEW, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return false,
                Ok(Err(error)) => tracing::warn!(
                    lease = self.name,
                    error = error.in_full(),
                    "cannot renew the Lease of the operator in charge"
                ),
                Err(_) => tracing::warn!(
                    lease = self.name,
                    "cannot renew the Lease of the operator in charge: the API server does not answer"
                ),
            }
            if renewed.elapsed() >= GIVE_UP {
                return false;
            }
        }
    }

    /// Reads the Lease once, and writes it if that is due. Returns whether it is held now.
    async fn attempt(&mut self) -> Result<bool, Error> {
        let found = match self.api.get(&self.name).await {
            Ok(lease) => Some(lease),
            Err(error) if is_not_found(&error) => None,
            Err(error) => return Err(Error::api(format!("read lease {}", self.name), error)),
        };
        let seen = found.as_ref().map(|lease| self.observe(lease));
        match step(seen.as_ref(), &self.me) {
            Step::Wait => Ok(false),
            Step::Create => self.written(self.api.create(&PostParams::default(), &self.lease(None, true)?).await),
            Step::Take => {
                let lease = self.lease(found.as_ref(), true)?;
                self.written(self.api.replace(&self.name, &PostParams::default(), &lease).await)
            }
        }
    }

    fn observe(&mut self, lease: &Lease) -> ObservedLease {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let now = Instant::now();
        let since = match &self.seen {
            Some((before, since)) if *before == version => *since,
            _ => {
                self.seen = Some((version, now));
                now
            }
        };
        let holder =
            lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty());
        ObservedLease { holder, unchanged_for: now.saturating_duration_since(since) }
    }

    fn written(&self, result: kube::Result<Lease>) -> Result<bool, Error> {
        match result {
            Ok(_) => Ok(true),
            Err(error) if is_conflict(&error) => Ok(false),
            Err(error) => Err(Error::api(format!("write lease {}", self.name), error)),
        }
    }

    /// The Lease to write, based on the one that was read.
    fn lease(&self, found: Option<&Lease>, hold: bool) -> Result<Lease, Error> {
        let now: DateTime<Utc> = Utc::now().trunc_subsecs(6);
        let now = now.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        let version = found.and_then(|lease| lease.metadata.resource_version.clone());
        let mut lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": self.name},
            "spec": {
                "holderIdentity": if hold { &self.me } else { "" },
                "leaseDurationSeconds": TIME.as_secs(), "renewTime": now,
            },
        });
        if let Some(version) = version {
            lease["metadata"]["resourceVersion"] = json!(version);
        }
        serde_json::from_value(lease)
            .map_err(|source| Error::Malformed { what: format!("lease {}", self.name), source })
    }

    /// Releases the Lease, so that another operator can begin at once. After a failure the other one has to wait.
    pub async fn release(&self) {
        if let Ok(Some(found)) = self.api.get_opt(&self.name).await
            && found.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.me)
            && let Ok(lease) = self.lease(Some(&found), false)
            && let Err(error) = self.api.replace(&self.name, &PostParams::default(), &lease).await
        {
            tracing::debug!(lease = self.name, %error, "the lease could not be released");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_it_is_free_or_ours_or_expired() {
        let seen = |holder: Option<&str>, seconds| ObservedLease {
            holder: holder.map(str::to_owned),
            unchanged_for: Duration::from_secs(seconds),
        };
        assert_eq!(step(None, "a"), Step::Create);
        assert_eq!(step(Some(&seen(None, 0)), "a"), Step::Take);
        assert_eq!(step(Some(&seen(Some("a"), 0)), "a"), Step::Take);
        assert_eq!(step(Some(&seen(Some("b"), 14)), "a"), Step::Wait);
        assert_eq!(step(Some(&seen(Some("b"), 15)), "a"), Step::Take);
    }

    #[test]
    fn a_holder_stops_before_another_may_begin() {
        assert!(GIVE_UP + RENEW < TIME);
    }
}
