//! Metrics in Prometheus' text format.
//!
//! Names, types and help are in a table of the program that has the metrics, so that dashboards, alerts and documents
//! can be compared with it. This module holds the values and writes them.
//!
//! It does not use `prometheus-client`. An instance collects its values from PostgreSQL at each scrape, by the names of
//! the table, so the metrics of that crate would not be used, only its writer (`encoding::prometheus_text`, since
//! 0.26). That would replace [`Samples::text`] by a `Collector` of the same length, print `1.0` instead of `1`, and
//! bring three crates, one of them with procedural macros.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A metric: name, type, help.
pub type Metric = (&'static str, &'static str, &'static str);

/// Chooses the metrics for which type and help are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headers {
    /// All metrics of the table.
    OfAll,
    /// Only metrics with a sample.
    OfSampled,
}

/// Values, by metric and labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    values: BTreeMap<&'static str, BTreeMap<String, f64>>,
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
        self.values.entry(name).or_default().entry(render(labels)).or_default()
    }

    /// Removes the values with exactly these labels from the metrics whose names begin with `prefix`.
    pub fn remove(&mut self, prefix: &str, labels: &[(&str, &str)]) {
        let labels = render(labels);
        for (_, values) in self.values.iter_mut().filter(|(name, _)| name.starts_with(prefix)) {
            values.remove(&labels);
        }
    }

    /// All values, in the order of the table. Metrics that are not in the table are not written.
    pub fn text(&self, table: &[Metric], headers: Headers) -> String {
        let mut text = String::new();
        for (name, kind, help) in table {
            let values = self.values.get(name).filter(|values| !values.is_empty());
            // Writing to a String cannot fail.
            if headers == Headers::OfAll || values.is_some() {
                let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            }
            for (labels, value) in values.into_iter().flatten() {
                let _ = if labels.is_empty() {
                    writeln!(text, "{name} {value}")
                } else {
                    writeln!(text, "{name}{{{labels}}} {value}")
                };
            }
        }
        text
    }
}

/// Labels in the form between the braces.
fn render(labels: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Metric] = &[
        ("a_up", "gauge", "Whether it runs"),
        ("a_sent_total", "counter", "What was sent"),
        ("a_size", "gauge", "How large it is"),
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
        assert_eq!(samples.text(TABLE, Headers::OfSampled), format!("{up}{sent}"));
        let size = "# HELP a_size How large it is\n# TYPE a_size gauge\n";
        assert_eq!(samples.text(TABLE, Headers::OfAll), format!("{up}{sent}{size}"));
    }
}
