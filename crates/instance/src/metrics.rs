//! Metrics of an instance, in Prometheus' text format. [`TABLE`] holds every name once: dashboards, rules and documents
//! are compared with it.

use crate::context::Context;
use crate::identity::Identity;
use crate::postgres::Lossy;
use holdfast_http::metrics::{Kind, Metric, Samples};
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::Role;

/// All metrics of an instance.
pub const TABLE: &[Metric] = &[
    ("holdfast_up", Kind::Gauge, "Whether PostgreSQL accepts connections"),
    ("holdfast_ready", Kind::Gauge, "Whether the instance is ready in its role"),
    ("holdfast_is_primary", Kind::Gauge, "Whether the instance takes writes"),
    ("holdfast_lease_held", Kind::Gauge, "Whether the instance holds the Lease of the primary"),
    ("holdfast_diverged", Kind::Gauge, "Whether a standby's WAL has diverged from the primary's"),
    ("holdfast_timeline", Kind::Gauge, "The timeline of the instance"),
    ("holdfast_wal_position_bytes", Kind::Gauge, "The LSN up to which the instance has WAL, in bytes"),
    ("holdfast_streaming", Kind::Gauge, "Whether a standby receives WAL by streaming replication"),
    ("holdfast_replay_lag_seconds", Kind::Gauge, "On a standby, seconds since the last replayed commit"),
    ("holdfast_pending_restart", Kind::Gauge, "Whether a changed setting waits for a restart"),
    ("holdfast_replication_lag_bytes", Kind::Gauge, "On the primary, bytes of WAL that a standby has not replayed yet"),
    ("holdfast_slot_retained_bytes", Kind::Gauge, "Bytes of WAL that are kept for a replication slot"),
    ("holdfast_database_size_bytes", Kind::Gauge, "Size of a database, in bytes"),
    ("holdfast_backends", Kind::Gauge, "Client sessions, by state"),
    ("holdfast_volume_size_bytes", Kind::Gauge, "Size of a volume, in bytes"),
    ("holdfast_volume_free_bytes", Kind::Gauge, "Bytes of a volume that PostgreSQL can still write"),
    ("holdfast_volume_reserve_bytes", Kind::Gauge, "Bytes held back for a start of PostgreSQL on a full volume"),
    ("holdfast_archived_total", Kind::Counter, "WAL segments archived since the statistics were reset"),
    ("holdfast_archive_failed_total", Kind::Counter, "Failed attempts to archive since the statistics were reset"),
    ("holdfast_archive_working", Kind::Gauge, "Whether the last attempt to archive succeeded"),
    ("holdfast_archive_waiting_segments", Kind::Gauge, "WAL segments that wait to be archived"),
    ("holdfast_archive_waiting_bytes", Kind::Gauge, "Bytes of WAL that wait to be archived"),
    (
        "holdfast_recoverable_from_timestamp_seconds",
        Kind::Gauge,
        "The oldest moment that can be restored, as a Unix time",
    ),
    (
        "holdfast_recoverable_to_timestamp_seconds",
        Kind::Gauge,
        "The newest moment that can be restored, as a Unix time",
    ),
    ("holdfast_archive_gaps", Kind::Gauge, "The number of gaps in the archived WAL"),
    ("holdfast_last_backup_timestamp_seconds", Kind::Gauge, "When the newest backup was completed, as a Unix time"),
    ("holdfast_last_backup_size_bytes", Kind::Gauge, "Size of the newest backup in the archive, in bytes"),
    ("holdfast_backup_running", Kind::Gauge, "Whether a backup is being taken here"),
    ("holdfast_bootstrap_done_bytes", Kind::Gauge, "Bytes that are done in the current bootstrap step"),
    ("holdfast_bootstrap_total_bytes", Kind::Gauge, "All bytes of the current bootstrap step"),
];

/// The samples of this instance.
struct Gathered<'a> {
    identity: &'a Identity,
    samples: Samples,
}

impl Gathered<'_> {
    fn add(&mut self, name: &'static str, label: Option<(&str, &str)>, value: f64) {
        let common = [(LABELS[0], self.identity.cluster.as_str()), (LABELS[1], self.identity.instance.as_str())];
        let labels: Vec<(&str, &str)> = common.into_iter().chain(label).collect();
        self.samples.set(name, &labels, value);
    }

    fn flag(&mut self, name: &'static str, value: bool) {
        self.add(name, None, f64::from(u8::from(value)));
    }
}

/// The values of all metrics now.
#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are of this type")]
pub async fn text(context: &Context) -> String {
    let status = context.status();
    let facts = context.state.facts();
    let mut samples = Gathered { identity: &context.identity, samples: Samples::default() };
    samples.flag("holdfast_up", facts.is_some());
    samples.flag("holdfast_ready", status.ready);
    samples.flag("holdfast_is_primary", status.role == Some(Role::Primary));
    samples.flag("holdfast_lease_held", status.holds_lease);
    samples.flag("holdfast_diverged", status.diverged);
    samples.flag("holdfast_pending_restart", status.pending_restart);
    if let Some(timeline) = status.timeline_id {
        samples.add("holdfast_timeline", None, f64::from(timeline));
    }
    if let Some(facts) = &facts {
        if let Some(lsn) = facts.lsn {
            samples.add("holdfast_wal_position_bytes", None, lsn.as_u64() as f64);
        }
        if facts.role == Role::Replica {
            samples.flag("holdfast_streaming", facts.receiving);
            if let Some(lag) = facts.replay_lag_seconds {
                samples.add("holdfast_replay_lag_seconds", None, lag.max(0.0));
            }
        }
        of_server(context, facts.role, &mut samples).await;
    }
    if let Some(archive) = &status.archive {
        samples.flag("holdfast_archive_working", archive.working);
        samples.add("holdfast_archive_waiting_segments", None, archive.waiting_segments as f64);
        samples.add("holdfast_archive_waiting_bytes", None, archive.waiting_bytes as f64);
    }
    if let Some(found) = &status.recoverability {
        let moments = [
            ("holdfast_recoverable_from_timestamp_seconds", found.from),
            // With or without a target.
            ("holdfast_recoverable_to_timestamp_seconds", found.latest.max(found.to)),
            ("holdfast_last_backup_timestamp_seconds", found.last_backup.as_ref().map(|backup| backup.completed_at)),
        ];
        for (name, moment) in moments {
            if let Some(moment) = moment {
                samples.add(name, None, moment.timestamp() as f64);
            }
        }
        if let Some(size) = found.last_backup.as_ref().and_then(|backup| backup.size_bytes) {
            samples.add("holdfast_last_backup_size_bytes", None, size as f64);
        }
        samples.add("holdfast_archive_gaps", None, found.gaps.len() as f64);
    }
    for space in &status.volumes {
        let volume = Some(("volume", space.volume.as_str()));
        samples.add("holdfast_volume_size_bytes", volume, space.total_bytes as f64);
        samples.add("holdfast_volume_free_bytes", volume, space.free_bytes as f64);
        samples.add("holdfast_volume_reserve_bytes", volume, space.reserve_bytes as f64);
    }
    samples.flag("holdfast_backup_running", status.backup.as_ref().is_some_and(|run| run.stopped_at.is_none()));
    if let Some(bootstrap) = &status.bootstrap {
        let sizes = [
            ("holdfast_bootstrap_done_bytes", bootstrap.done_bytes),
            ("holdfast_bootstrap_total_bytes", bootstrap.total_bytes),
        ];
        for (name, bytes) in sizes {
            if let Some(bytes) = bytes {
                samples.add(name, None, bytes as f64);
            }
        }
    }
    samples.samples.text(TABLE)
}

/// What only the server knows; left out if it does not answer.
async fn of_server(context: &Context, role: Role, samples: &mut Gathered<'_>) {
    let labelled: [(&'static str, &str, &str); 4] = [
        (
            "holdfast_database_size_bytes",
            "database",
            "SELECT datname::text, pg_database_size(oid)::float8 FROM pg_database WHERE datallowconn",
        ),
        (
            "holdfast_backends",
            "state",
            "SELECT coalesce(state, 'none'), count(*)::float8 FROM pg_stat_activity
             WHERE backend_type = 'client backend' GROUP BY 1",
        ),
        (
            "holdfast_slot_retained_bytes",
            "slot",
            "SELECT slot_name::text, pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                    ELSE pg_current_wal_lsn() END, restart_lsn)::float8
             FROM pg_replication_slots WHERE restart_lsn IS NOT NULL",
        ),
        (
            "holdfast_replication_lag_bytes",
            "standby",
            "SELECT application_name, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::float8
             FROM pg_stat_replication WHERE replay_lsn IS NOT NULL AND NOT pg_is_in_recovery()",
        ),
    ];
    for (name, label, question) in labelled {
        if name == "holdfast_replication_lag_bytes" && role != Role::Primary {
            continue;
        }
        for row in context.sql.query(question, &[]).await.unwrap_or_default() {
            if let Some(value) = row.get::<_, Option<f64>>(1) {
                let Lossy(labelled) = row.get(0);
                samples.add(name, Some((label, &labelled)), value);
            }
        }
    }
    let question = "SELECT archived_count::float8, failed_count::float8 FROM pg_stat_archiver";
    if let Some(row) = context.sql.query(question, &[]).await.unwrap_or_default().first() {
        samples.add("holdfast_archived_total", None, row.get(0));
        samples.add("holdfast_archive_failed_total", None, row.get(1));
    }
}

/// Names of the labels that every metric has.
pub const LABELS: [&str; 2] = ["cluster", "instance"];

pub const PORT: u16 = names::METRICS_PORT;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_names_its_instance() {
        let identity = Identity {
            instance: "c-1".to_owned(),
            pod_uid: String::new(),
            namespace: "n".to_owned(),
            cluster: "c".to_owned(),
        };
        let mut gathered = Gathered { identity: &identity, samples: Samples::default() };
        gathered.add("holdfast_backends", Some(("state", "a\"b")), 2.0);
        gathered.flag("holdfast_up", true);
        assert_eq!(
            gathered.samples.text(TABLE),
            "# HELP holdfast_up Whether PostgreSQL accepts connections\n\
             # TYPE holdfast_up gauge\n\
             holdfast_up{cluster=\"c\",instance=\"c-1\"} 1\n\
             # HELP holdfast_backends Client sessions, by state\n\
             # TYPE holdfast_backends gauge\n\
             holdfast_backends{cluster=\"c\",instance=\"c-1\",state=\"a\\\"b\"} 2\n"
        );
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = TABLE.iter().map(|(name, _, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }
}
