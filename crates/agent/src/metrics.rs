//! Metrics of the agent, in Prometheus' text format. [`TABLE`] holds every name once.

use std::sync::Arc;

use chrono::Utc;
use holdfast_contract::agent::{AgentStatus, GetStatus, PushStatus};
use holdfast_http::answer;
use holdfast_http::listen::accept_each;
use holdfast_http::metrics::{Kind, Metric, Samples, TEXT_FORMAT};
use holdfast_http::serve::serve_connection;
use hyper::StatusCode;
use tokio::net::TcpListener;

use crate::archiving::Waiting;
use crate::serving::Services;

/// How long a client may take for the head of a request.
const HEAD_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// All metrics: name, type, help.
pub(crate) const TABLE: &[Metric] = &[
    ("holdfast_agent_info", Kind::Gauge, "1, with the release of the agent as a label"),
    ("holdfast_agent_push_waiting_segments", Kind::Gauge, "WAL files in pg_wal that wait to be archived (.ready)"),
    ("holdfast_agent_push_waiting_bytes", Kind::Gauge, "Bytes of these files"),
    (
        "holdfast_agent_push_lag_seconds",
        Kind::Gauge,
        "Seconds since the oldest of these files was finished; 0 if none waits",
    ),
    ("holdfast_agent_push_answered_total", Kind::Counter, "Calls of archive_command that succeeded"),
    (
        "holdfast_agent_push_answered_at_once_total",
        Kind::Counter,
        "Of these, calls for a file that was already durable",
    ),
    ("holdfast_agent_push_failed_total", Kind::Counter, "Calls of archive_command that failed"),
    (
        "holdfast_agent_push_failing",
        Kind::Gauge,
        "1 if the last call failed, with the name of its exit code as a label",
    ),
    ("holdfast_agent_push_in_flight", Kind::Gauge, "WAL files that are being stored now"),
    (
        "holdfast_agent_push_ahead",
        Kind::Gauge,
        "WAL files that are durable, and for which PostgreSQL has not asked yet",
    ),
    (
        "holdfast_agent_push_window",
        Kind::Gauge,
        "WAL files that may be stored ahead at the same time; 0 after a failure",
    ),
    ("holdfast_agent_push_last_archived_seconds", Kind::Gauge, "Unix time of the last file that was archived"),
    ("holdfast_agent_get_answered_total", Kind::Counter, "Calls of restore_command that got a file"),
    ("holdfast_agent_get_answered_at_once_total", Kind::Counter, "Of these, calls for a file that was fetched ahead"),
    (
        "holdfast_agent_get_absent_total",
        Kind::Counter,
        "Calls of restore_command for a file that is not in the archive",
    ),
    ("holdfast_agent_get_failed_total", Kind::Counter, "Calls of restore_command that failed"),
    ("holdfast_agent_get_in_flight", Kind::Gauge, "Segments that are being fetched now"),
    ("holdfast_agent_get_ahead", Kind::Gauge, "Segments that are fetched ahead"),
    ("holdfast_agent_gap_segments", Kind::Gauge, "Archived WAL that is missing: segments that `wal verify` recorded"),
    ("holdfast_agent_gap_read_seconds", Kind::Gauge, "Unix time at which the record of missing WAL was read"),
    (
        "holdfast_agent_gap_verified_seconds",
        Kind::Gauge,
        "Unix time at which `wal verify` looked for missing WAL; 0: never",
    ),
    (
        "holdfast_agent_declined_total",
        Kind::Counter,
        "Calls that were left to the command, as after a change of settings",
    ),
];

/// Serves `/metrics` for ever.
pub(crate) async fn serve(listener: &TcpListener, services: &Arc<Services>) {
    accept_each(listener, "metrics", |stream| {
        let services = Arc::clone(services);
        serve_connection(stream, Some(HEAD_WITHIN), move |request| {
            let services = Arc::clone(&services);
            async move {
                if request.uri().path() != "/metrics" {
                    return answer::text(StatusCode::NOT_FOUND, "text/plain", "the metrics are at /metrics\n");
                }
                let (status, waiting) = services.status().await;
                answer::text(StatusCode::OK, TEXT_FORMAT, text(&status, waiting))
            }
        })
    })
    .await;
}

/// The metrics of an agent in this state. Pure but for the age of what waits.
fn text(status: &AgentStatus, waiting: Option<Waiting>) -> String {
    #[expect(clippy::cast_precision_loss, reason = "no counter reaches 2^53")]
    let number = |number: u64| number as f64;
    let mut samples = Samples::default();
    samples.set("holdfast_agent_info", &[("version", &status.version)], 1.0);
    // Without a value nobody takes "not known" for "nothing waits".
    if let Some(waiting) = waiting {
        samples.set("holdfast_agent_push_waiting_segments", &[], number(waiting.files));
        samples.set("holdfast_agent_push_waiting_bytes", &[], number(waiting.bytes));
        let lag = waiting.oldest.and_then(|at| (Utc::now() - at).to_std().ok()).unwrap_or_default();
        samples.set("holdfast_agent_push_lag_seconds", &[], lag.as_secs_f64());
    }
    samples.set("holdfast_agent_declined_total", &[], number(status.declined));
    let PushStatus { answered, answered_at_once, failed, in_flight, ahead, window, .. } = status.push;
    for (name, value) in [
        ("holdfast_agent_push_answered_total", answered),
        ("holdfast_agent_push_answered_at_once_total", answered_at_once),
        ("holdfast_agent_push_failed_total", failed),
        ("holdfast_agent_push_in_flight", in_flight),
        ("holdfast_agent_push_ahead", ahead),
        ("holdfast_agent_push_window", window),
    ] {
        samples.set(name, &[], number(value));
    }
    if let Some(failure) = &status.push.last_failure {
        samples.set("holdfast_agent_push_failing", &[("code", &failure.name)], 1.0);
    }
    if let Some(at) = status.push.last_archived_at {
        let seconds = u64::try_from(at.timestamp()).unwrap_or_default();
        samples.set("holdfast_agent_push_last_archived_seconds", &[], number(seconds));
    }
    let GetStatus { answered, answered_at_once, absent, failed, in_flight, ahead } = status.get;
    for (name, value) in [
        ("holdfast_agent_get_answered_total", answered),
        ("holdfast_agent_get_answered_at_once_total", answered_at_once),
        ("holdfast_agent_get_absent_total", absent),
        ("holdfast_agent_get_failed_total", failed),
        ("holdfast_agent_get_in_flight", in_flight),
        ("holdfast_agent_get_ahead", ahead),
    ] {
        samples.set(name, &[], number(value));
    }
    for gaps in &status.gaps {
        let of = [("repository", gaps.repository.as_str())];
        samples.set("holdfast_agent_gap_segments", &of, number(gaps.segment_count));
        let seconds = u64::try_from(gaps.looked_at.timestamp()).unwrap_or_default();
        samples.set("holdfast_agent_gap_read_seconds", &of, number(seconds));
        let verified = gaps.verified_at.map_or(0, |at| u64::try_from(at.timestamp()).unwrap_or_default());
        samples.set("holdfast_agent_gap_verified_seconds", &of, number(verified));
    }
    samples.text(TABLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_contract::agent::GapStatus;
    use holdfast_contract::exit_code::ExitCode;
    use holdfast_contract::problem::{ErrorReport, Problem};

    #[test]
    fn every_metric_has_a_value_while_archiving_fails() {
        let mut status = AgentStatus { version: "0.1.0".to_owned(), ..AgentStatus::default() };
        status.push.last_failure = Some(ErrorReport::new(ExitCode::Unreachable, Problem::new("no answer")));
        status.push.last_archived_at = Some(Utc::now());
        status.push.failed = 3;
        let repository = "s3://bucket/repository".to_owned();
        let (looked_at, verified_at) = (Utc::now(), None);
        status.gaps = vec![GapStatus { repository, segment_count: 2, looked_at, verified_at }];
        let hour_ago = Utc::now() - chrono::TimeDelta::hours(1);
        let waiting = Waiting { files: 4, bytes: 64 << 20, oldest: Some(hour_ago) };
        let unknown = text(&status, None);
        assert!(!unknown.contains("\nholdfast_agent_push_lag_seconds "), "not known is not 0: {unknown}");
        assert!(unknown.contains("holdfast_agent_gap_verified_seconds{repository=\"s3://bucket/repository\"} 0\n"));
        let text = text(&status, Some(waiting));
        for (name, ..) in TABLE {
            let has_value = |line: &&str| line.starts_with(name) && !line.starts_with('#');
            assert!(text.lines().any(|line| has_value(&line)), "{name} has no value:\n{text}");
        }
        assert!(text.contains("holdfast_agent_push_failing{code=\"unreachable\"} 1\n"), "{text}");
        assert!(text.contains("holdfast_agent_push_waiting_bytes 67108864\n"), "{text}");
        assert!(text.contains("holdfast_agent_push_lag_seconds 36"), "{text}");
        let gaps = "holdfast_agent_gap_segments{repository=\"s3://bucket/repository\"} 2\n";
        assert!(text.contains(gaps), "{text}");
    }
}
