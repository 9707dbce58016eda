//! The clock and the host name, for the engine.

use chrono::{DateTime, SecondsFormat, Utc};
use std::time::Duration;

/// The current time, by this machine's clock.
pub(super) fn now() -> DateTime<Utc> {
    Utc::now()
}

/// The name of this machine.
pub(super) fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// `2026-08-22T10:15:00Z`
pub(super) fn shown(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// How long ago that was; zero for a future time, which another clock may give.
pub(super) fn ago(time: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (now - time).to_std().unwrap_or_default()
}
