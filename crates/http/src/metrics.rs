//! Metrics in Prometheus' text format.
//!
//! Names, types and help are in a table of the program that has the metrics, so that dashboards, alerts and documents
//! can be compared with it. This module holds the values; the crate `prometheus` writes them.

use std::collections::BTreeMap;

use prometheus::TextEncoder;
use prometheus::proto;

/// The media type of the text.
pub use prometheus::TEXT_FORMAT;

/// How the values of a metric change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only upwards, from 0 at the start of the program.
    Counter,
    /// Up and down.
    Gauge,
}

/// A metric: name, kind, help.
pub type Metric = (&'static str, Kind, &'static str);

/// Pairs of name and value that tell the values of a metric apart.
type Labels = Vec<(String, String)>;

/// Values, by metric and labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    values: BTreeMap<&'static str, BTreeMap<Labels, f64>>,
}

impl Samples {
    /// Sets a value.
    pub fn set(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        *self.value(name, labels) = value;
    }

    /// Adds to a value, which starts at 0.
    pub fn add(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        *self.value(name, labels) += value;
    }

    fn value(&mut self, name: &'static str, labels: &[(&str, &str)]) -> &mut f64 {
        self.values.entry(name).or_default().entry(owned(labels)).or_default()
    }

    /// Removes the values with exactly these labels from the metrics whose names begin with `prefix`.
    pub fn remove(&mut self, prefix: &str, labels: &[(&str, &str)]) {
        let labels = owned(labels);
        for (_, values) in self.values.iter_mut().filter(|(name, _)| name.starts_with(prefix)) {
            values.remove(&labels);
        }
    }

    /// All values, in the order of the table, each metric with its help and type. Metrics without a value, and those
    /// that are not in the table, are left out.
    pub fn text(&self, table: &[Metric]) -> String {
        let families: Vec<proto::MetricFamily> = table
            .iter()
            .filter_map(|metric| Some(family(metric, self.values.get(metric.0).filter(|values| !values.is_empty())?)))
            .collect();
        // It refuses only metrics without a name or a value, and there are none.
        TextEncoder::new().encode_to_string(&families).unwrap_or_default()
    }
}

fn owned(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn family((name, kind, help): &Metric, values: &BTreeMap<Labels, f64>) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name((*name).to_owned());
    family.set_help((*help).to_owned());
    family.set_field_type(match kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge => proto::MetricType::GAUGE,
    });
    family.set_metric(values.iter().map(|(labels, value)| sample(*kind, labels, *value)).collect());
    family
}

fn sample(kind: Kind, labels: &Labels, value: f64) -> proto::Metric {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name(name.clone());
        pair.set_value(value.clone());
        pair
    });
    let mut sample = proto::Metric::from_label(pairs.collect());
    match kind {
        Kind::Counter => {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            sample.set_counter(counter);
        }
        Kind::Gauge => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            sample.set_gauge(gauge);
        }
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Metric] = &[
        ("a_up", Kind::Gauge, "Whether it runs"),
        ("a_sent_total", Kind::Counter, "What was sent"),
        ("a_size", Kind::Gauge, "How large it is"),
    ];

    #[test]
    fn the_text_follows_the_table() {
        let mut samples = Samples::default();
        samples.add("a_sent_total", &[("reason", "a\"b\\c\nd")], 1.0);
        samples.add("a_sent_total", &[("reason", "a\"b\\c\nd")], 1.5);
        samples.set("a_up", &[], 1.0);
        samples.set("a_size", &[("of", "x")], 3.0);
        samples.set("not_in_the_table", &[], 3.0);
        samples.remove("a_s", &[("of", "x")]);
        let up = "# HELP a_up Whether it runs\n# TYPE a_up gauge\na_up 1\n";
        let sent = "# HELP a_sent_total What was sent\n# TYPE a_sent_total counter\n\
             a_sent_total{reason=\"a\\\"b\\\\c\\nd\"} 2.5\n";
        assert_eq!(samples.text(TABLE), format!("{up}{sent}"));
    }
}
