//! Converts times of the API's metadata to the type that is used here.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// A time of an object's metadata.
pub(crate) fn chrono_time(time: &Time) -> DateTime<Utc> {
    let nanoseconds = u32::try_from(time.0.subsec_nanosecond()).unwrap_or(0);
    DateTime::from_timestamp(time.0.as_second(), nanoseconds).unwrap_or_default()
}
