//! Conditions of the status.

use super::plan::Plan;
use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Sets a condition. The time of its last change is kept as long as its status is the same.
pub(super) fn condition(plan: &mut Plan<'_>, kind: &str, status: &str, reason: &str, message: &str) {
    let before = plan.status.conditions.iter().find(|condition| condition.type_ == kind);
    let since = match before {
        Some(before) if before.status == status => before.last_transition_time.clone(),
        _ => time(plan.now),
    };
    let fresh = Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: if reason.is_empty() { "Unspecified".to_owned() } else { reason.to_owned() },
        message: message.to_owned(),
        last_transition_time: since,
        observed_generation: Some(plan.desired.generation),
    };
    match plan.status.conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(before) => *before = fresh,
        None => plan.status.conditions.push(fresh),
    }
}

/// Rounded to the second, as Kubernetes writes times.
fn time(at: DateTime<Utc>) -> Time {
    Time(Timestamp::from_second(at.timestamp()).unwrap_or_default())
}
