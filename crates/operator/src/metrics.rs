//! Metrics of the operator, in Prometheus' text format.
//!
//! Names, types and help texts are in one table, [`TABLE`], so that dashboards and alerts can be compared with it.

use holdfast_http::metrics::{Kind, Metric, Samples};
use parking_lot::Mutex;
use std::time::Duration;

/// Name, type and help of each metric.
pub const TABLE: &[Metric] = &[
    ("holdfast_operator_leader", Kind::Gauge, "Whether this operator is the leader"),
    ("holdfast_operator_reconciles_total", Kind::Counter, "Reconciles that succeeded, by kind"),
    (
        "holdfast_operator_reconcile_errors_total",
        Kind::Counter,
        "Failures of reconciles and of their actions, by kind and category",
    ),
    ("holdfast_operator_reconcile_seconds_total", Kind::Counter, "Seconds spent in reconciles, by kind"),
    ("holdfast_operator_events_total", Kind::Counter, "Events reported, by reason"),
    ("holdfast_operator_failovers_total", Kind::Counter, "Failovers started, by namespace and cluster"),
    ("holdfast_cluster_instances", Kind::Gauge, "Instances that exist, by namespace and cluster"),
    ("holdfast_cluster_ready_instances", Kind::Gauge, "Instances that answer and accept connections"),
    ("holdfast_cluster_ready", Kind::Gauge, "Whether the condition Ready is true"),
];

/// The values of all metrics.
#[derive(Debug, Default)]
pub struct Metrics {
    samples: Mutex<Samples>,
}

impl Metrics {
    /// Sets the value of a gauge.
    pub fn set(&self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        self.samples.lock().set(name, labels, value);
    }

    /// Adds to a counter.
    pub fn add(&self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        self.samples.lock().add(name, labels, value);
    }

    /// Drops the gauges with these labels, as of a deleted cluster.
    pub fn forget(&self, labels: &[(&str, &str)]) {
        self.samples.lock().remove("holdfast_cluster_", labels);
    }

    /// Records the result and the duration of a reconcile.
    pub fn reconciled(&self, kind: &str, took: Duration, error: Option<&str>) {
        self.add("holdfast_operator_reconcile_seconds_total", &[("kind", kind)], took.as_secs_f64());
        match error {
            None => self.add("holdfast_operator_reconciles_total", &[("kind", kind)], 1.0),
            Some(category) => self.failed(kind, category),
        }
    }

    /// Counts a failure that did not end a reconcile.
    pub fn failed(&self, kind: &str, category: &str) {
        self.add("holdfast_operator_reconcile_errors_total", &[("kind", kind), ("category", category)], 1.0);
    }

    /// All metrics, in Prometheus' text format.
    pub fn text(&self) -> String {
        self.samples.lock().text(TABLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_as_prometheus_reads_it() {
        let metrics = Metrics::default();
        metrics.set("holdfast_operator_leader", &[], 1.0);
        metrics.add("holdfast_operator_events_total", &[("reason", "New\"Primary")], 1.0);
        metrics.add("holdfast_operator_events_total", &[("reason", "New\"Primary")], 1.0);
        metrics.set("holdfast_cluster_ready", &[("namespace", "n"), ("cluster", "c")], 1.0);
        metrics.forget(&[("namespace", "n"), ("cluster", "c")]);
        let text = metrics.text();
        assert!(text.contains("# TYPE holdfast_operator_leader gauge\nholdfast_operator_leader 1\n"), "{text}");
        assert!(text.contains("holdfast_operator_events_total{reason=\"New\\\"Primary\"} 2\n"), "{text}");
        assert!(!text.contains("holdfast_cluster_ready{"), "{text}");
    }
}
