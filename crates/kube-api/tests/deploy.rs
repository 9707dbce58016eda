//! The files in `deploy/`: the chart creates the objects of the plain manifest, alerts and dashboard name metrics that
//! exist, and every example is valid.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use holdfast_kube_api::manifest::{Verdict, check, read};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn place(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(place(path)).unwrap_or_else(|error| unreachable!("{path}: {error}"))
}

fn documents(yaml: &str) -> Vec<Value> {
    read(yaml).unwrap().into_iter().map(|document| document.value).collect()
}

/// The chart's `{{ }}` as Helm would render them. Only what the chart uses: values, an `if`, `toYaml` and comments.
fn render(template: &str, values: &Value, namespace: &str) -> String {
    let value = |path: &str| path.split('.').fold(values, |value, key| &value[key]);
    let mut lines = Vec::new();
    let mut shown = vec![true];
    for line in template.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with("{{/*") {
            continue;
        }
        if let Some(condition) = trimmed.strip_prefix("{{- if .Values.") {
            let value = value(condition.trim_end_matches("}}").trim());
            shown.push(!(value.is_null() || value == false || value == ""));
        } else if trimmed == "{{- end }}" {
            shown.pop();
        } else if shown.iter().all(|shown| *shown) {
            if let Some(of) = trimmed.strip_prefix("{{ toYaml .Values.") {
                let (path, indent) = of.trim_end_matches("}}").split_once('|').unwrap();
                let indent: usize = indent.trim().strip_prefix("indent ").unwrap().parse().unwrap();
                let yaml = holdfast_kube_api::manifest::write(value(path.trim())).unwrap();
                lines.extend(yaml.lines().map(|line| format!("{:indent$}{line}", "")));
                continue;
            }
            let mut line = line.replace("{{ .Release.Namespace }}", namespace);
            while let Some((before, rest)) = line.clone().split_once("{{ .Values.") {
                let (path, after) = rest.split_once(" }}").unwrap();
                let value = value(path);
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                line = format!("{before}{value}{after}");
            }
            assert!(!line.contains("{{"), "this test does not know {line}");
            lines.push(line);
        }
    }
    assert_eq!(shown, [true], "an `if` without its end");
    lines.join("\n") + "\n"
}

fn kind_and_name(object: &Value) -> String {
    format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
}

fn chart(values: &Value, namespace: &str) -> BTreeMap<String, Value> {
    let mut objects = BTreeMap::new();
    for entry in std::fs::read_dir(place("deploy/helm/holdfast/templates")).unwrap() {
        let template = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for object in documents(&render(&template, values, namespace)) {
            objects.insert(kind_and_name(&object), object);
        }
    }
    objects
}

fn values() -> Value {
    documents(&text("deploy/helm/holdfast/values.yaml")).remove(0)
}

#[test]
fn the_chart_creates_the_objects_of_the_plain_manifest() {
    let made = chart(&values(), "holdfast-system");
    let mut plain: BTreeMap<String, Value> =
        documents(&text("deploy/operator.yaml")).into_iter().map(|object| (kind_and_name(&object), object)).collect();
    // Helm creates the namespace of a release.
    plain.remove("Namespace holdfast-system");
    assert_eq!(made.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>());
    for (kind, object) in plain {
        assert_eq!(made[&kind], object, "{kind}");
    }
}

#[test]
fn every_value_of_the_chart_changes_something() {
    let defaults = values();
    let before = chart(&defaults, "n");
    for (name, value) in defaults.as_object().unwrap() {
        let mut changed = defaults.clone();
        changed[name] = match value {
            Value::Number(_) => Value::from(7),
            Value::Object(_) => serde_json::json!({"limits": {"memory": "1Gi"}}),
            _ => Value::from("changed"),
        };
        assert_ne!(chart(&changed, "n"), before, "nothing reads {name}");
    }
    let of_one = chart(&serde_json::json!({"watchNamespace": "shop", "image": "i", "defaultImage": "d"}), "n");
    let env = &of_one["Deployment holdfast-operator"]["spec"]["template"]["spec"]["containers"][0]["env"];
    assert!(env.as_array().unwrap().iter().any(|entry| entry["name"] == "WATCH_NAMESPACE" && entry["value"] == "shop"));
}

#[test]
fn the_chart_contains_the_crds() {
    for definition in holdfast_kube_api::crds::all() {
        let of_chart = text(&format!("deploy/helm/holdfast/crds/{}", definition.file));
        assert_eq!(of_chart, text(&format!("deploy/crds/{}", definition.file)));
    }
    let version = env!("CARGO_PKG_VERSION");
    let chart = documents(&text("deploy/helm/holdfast/Chart.yaml")).remove(0);
    assert_eq!((chart["version"].as_str(), chart["appVersion"].as_str()), (Some(version), Some(version)));
    assert!(values()["image"].as_str().unwrap().ends_with(&format!(":{version}")));
}

/// Names of metrics in the tables of the programs: `("holdfast_up", Kind::Gauge, ...)`.
fn metrics() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in ["crates/instance/src/metrics.rs", "crates/operator/src/metrics.rs"] {
        let source = text(source);
        for (before, _) in source.match_indices("Kind::") {
            let name = source[..before].rsplit('"').nth(1);
            names.extend(name.filter(|name| name.starts_with("holdfast_")).map(str::to_owned));
        }
    }
    assert!(names.len() > 30, "{names:?}");
    names
}

/// Everything in an expression that looks like one of our metrics.
fn named(expression: &str) -> BTreeSet<String> {
    expression
        .split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .filter(|word| word.starts_with("holdfast_"))
        .map(str::to_owned)
        .collect()
}

fn expressions(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "expr" || key == "query" => into.push(text.clone()),
                    other => expressions(other, into),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, into)),
        _ => {}
    }
}

#[test]
fn alerts_and_dashboard_name_metrics_that_exist() {
    let known = metrics();
    let rules = documents(&text("deploy/monitoring/prometheusrule.yaml")).remove(0);
    let dashboard: Value = serde_json::from_str(&text("deploy/monitoring/dashboard.json")).unwrap();
    for (what, value) in [("alerts", rules), ("dashboard", dashboard)] {
        let mut found = Vec::new();
        expressions(&value, &mut found);
        assert!(found.len() > 10, "{what}");
        for expression in found {
            for name in named(&expression) {
                assert!(known.contains(&name), "{what}: no program has {name}: {expression}");
            }
        }
    }
}

#[test]
fn alerts_lead_to_the_runbook() {
    let manual = text("docs/kubernetes.md");
    let anchors: BTreeSet<String> = manual
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|title| {
            let kept = |character: &char| character.is_alphanumeric() || matches!(character, ' ' | '-');
            title
                .trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(kept)
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect();
    let rules = documents(&text("deploy/monitoring/prometheusrule.yaml")).remove(0);
    for rule in rules["spec"]["groups"][0]["rules"].as_array().unwrap() {
        let link = rule["annotations"]["runbook_url"].as_str().unwrap();
        let (page, anchor) = link.split_once('#').unwrap();
        assert!(page.ends_with("docs/kubernetes.md"), "{link}");
        assert!(anchors.contains(anchor), "{link}: {anchors:?}");
    }
}

#[test]
fn examples_are_valid() {
    let mut checked = 0;
    for folder in ["deploy/examples", "deploy/examples/recovery"] {
        for entry in std::fs::read_dir(place(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            for document in check(&std::fs::read_to_string(&path).unwrap()).unwrap() {
                assert!(document.findings.is_empty(), "{}: {:?}", path.display(), document.findings);
                checked += usize::from(document.verdict == Verdict::Checked);
            }
        }
    }
    assert!(checked >= 4, "{checked}");
}

#[test]
fn the_manual_describes_every_field_of_ours() {
    let manual = text("docs/kubernetes.md");
    for definition in holdfast_kube_api::crds::all() {
        let schema = definition.schema();
        let kind = definition.value["spec"]["names"]["kind"].as_str().unwrap();
        for part in ["spec", "status"] {
            for field in schema["properties"][part]["properties"].as_object().unwrap().keys() {
                assert!(
                    manual.contains(&format!("`{field}`")),
                    "docs/kubernetes.md does not describe {kind}.{part}.{field}"
                );
            }
        }
    }
}
