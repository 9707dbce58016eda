//! Frozen samples of everything that Holdfast prints as JSON. Each must parse for ever, and every field of the sample
//! must be printed again under its name and with its value: a renamed or dropped field fails here.
//!
//! The samples are never changed. A new field gets a new sample, such as `info-2.json`, beside the old one.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use holdfast_contract::agent::AgentStatus;
use holdfast_contract::problem::ErrorLine;
use holdfast_contract::progress::ProgressLine;
use holdfast_contract::report::backup::BackupReport;
use holdfast_contract::report::check::CheckReport;
use holdfast_contract::report::copy::CopyReport;
use holdfast_contract::report::drill::DrillReport;
use holdfast_contract::report::expire::{ExpireReport, HoldReport};
use holdfast_contract::report::info::InfoReport;
use holdfast_contract::report::key::{KeyChangeReport, KeyGenerateReport, KeyListReport};
use holdfast_contract::report::list::ListReport;
use holdfast_contract::report::manifest::ManifestReport;
use holdfast_contract::report::repo::{ClaimReport, InitReport, RepoInfoReport};
use holdfast_contract::report::restore::{RestorePlan, RestoreReport, SnapshotRestoreReport};
use holdfast_contract::report::snapshot::{RecordReport, SnapshotListReport};
use holdfast_contract::report::verify::VerifyReport;
use holdfast_contract::report::wal::{GetReport, PushReport, StandbyPushReport, WalListReport};
use holdfast_contract::report::wal_find::WalFindReport;
use holdfast_contract::report::wal_receive::{ReceiveReport, SlotReport};
use holdfast_contract::report::wal_verify::WalVerifyReport;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Reads a sample as this type and prints it again.
type Printed = fn(&str) -> serde_json::Result<Value>;

fn through<T: Serialize + DeserializeOwned>(text: &str) -> serde_json::Result<Value> {
    serde_json::to_value(serde_json::from_str::<T>(text)?)
}

const SAMPLES: &[(&str, Printed)] = &[
    ("agent-status", through::<AgentStatus>),
    ("agent-status-2", through::<AgentStatus>),
    ("agent-status-3", through::<AgentStatus>),
    ("backup", through::<BackupReport>),
    ("backup-2", through::<BackupReport>),
    ("backup-3", through::<BackupReport>),
    ("backup-4", through::<BackupReport>),
    ("backup-hold", through::<HoldReport>),
    ("check", through::<CheckReport>),
    ("drill", through::<DrillReport>),
    ("drill-failed", through::<DrillReport>),
    ("error", through::<ErrorLine>),
    ("expire", through::<ExpireReport>),
    ("expire-2", through::<ExpireReport>),
    ("info", through::<InfoReport>),
    ("info-2", through::<InfoReport>),
    ("info-3", through::<InfoReport>),
    ("info-4", through::<InfoReport>),
    ("key-generate", through::<KeyGenerateReport>),
    ("key-list", through::<KeyListReport>),
    ("key-list-2", through::<KeyListReport>),
    ("key-rotate", through::<KeyChangeReport>),
    ("list", through::<ListReport>),
    ("manifest-check", through::<ManifestReport>),
    ("progress", through::<ProgressLine>),
    ("repo-claim", through::<ClaimReport>),
    ("repo-copy", through::<CopyReport>),
    ("repo-info", through::<RepoInfoReport>),
    ("repo-info-2", through::<RepoInfoReport>),
    ("repo-init", through::<InitReport>),
    ("restore", through::<RestoreReport>),
    ("restore-plan", through::<RestorePlan>),
    ("restore-plan-2", through::<RestorePlan>),
    ("restore-plan-3", through::<RestorePlan>),
    ("restore-plan-4", through::<RestorePlan>),
    ("restore-snapshot", through::<SnapshotRestoreReport>),
    ("snapshot-list", through::<SnapshotListReport>),
    ("snapshot-record", through::<RecordReport>),
    ("verify", through::<VerifyReport>),
    ("verify-2", through::<VerifyReport>),
    ("wal-find", through::<WalFindReport>),
    ("wal-find-place", through::<WalFindReport>),
    ("wal-get", through::<GetReport>),
    ("wal-get-spool", through::<GetReport>),
    ("wal-get-tail", through::<GetReport>),
    ("wal-list", through::<WalListReport>),
    ("wal-push", through::<PushReport>),
    ("wal-push-behind-fork", through::<PushReport>),
    ("wal-push-marked", through::<PushReport>),
    ("wal-push-standby", through::<StandbyPushReport>),
    ("wal-receive", through::<ReceiveReport>),
    ("wal-receive-drop-slot", through::<SlotReport>),
    ("wal-verify", through::<WalVerifyReport>),
];

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples")
}

fn sample(name: &str) -> String {
    fs::read_to_string(folder().join(format!("{name}.json"))).unwrap()
}

/// The fields of `sample` that are not in `printed`, by path.
fn missing(sample: &Value, printed: &Value, at: &str, found: &mut Vec<String>) {
    match (sample, printed) {
        (Value::Object(sample), Value::Object(printed)) => {
            for (key, value) in sample {
                match printed.get(key) {
                    Some(now) => missing(value, now, &format!("{at}/{key}"), found),
                    None => found.push(format!("{at}/{key} is not printed")),
                }
            }
        }
        (Value::Array(sample), Value::Array(printed)) if sample.len() == printed.len() => {
            for (index, (value, now)) in sample.iter().zip(printed).enumerate() {
                missing(value, now, &format!("{at}/{index}"), found);
            }
        }
        (sample, printed) if sample == printed => {}
        (sample, printed) => found.push(format!("{at} is {printed} and was {sample}")),
    }
}

#[test]
fn every_sample_parses_and_is_printed_as_it_was() {
    for (name, printed) in SAMPLES {
        let text = sample(name);
        let now = printed(&text).unwrap_or_else(|error| unreachable!("{name} does not parse: {error}"));
        let mut found = Vec::new();
        missing(&serde_json::from_str(&text).unwrap(), &now, "", &mut found);
        assert_eq!(found, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_lines_are_printed_to_the_byte() {
    let error: ErrorLine = serde_json::from_str(&sample("error")).unwrap();
    assert_eq!(format!("{error}\n"), sample("error"));
    let progress: ProgressLine = serde_json::from_str(&sample("progress")).unwrap();
    assert_eq!(format!("{progress}\n"), sample("progress"));
}

#[test]
fn every_file_is_the_sample_of_something() {
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().trim_end_matches(".json").to_owned())
        .collect();
    assert_eq!(files, SAMPLES.iter().map(|(name, _)| (*name).to_owned()).collect());
}

/// Adds a field to every object, but not to those that are the value of an enum.
fn with_later_fields(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in &mut *fields {
                if !matches!(key.as_str(), "outcome" | "source") {
                    with_later_fields(value);
                }
            }
            fields.insert("field_of_a_later_release".to_owned(), json!("x"));
        }
        Value::Array(items) => items.iter_mut().for_each(with_later_fields),
        _ => {}
    }
}

#[test]
fn fields_of_a_later_release_are_ignored() {
    for (name, printed) in SAMPLES {
        let mut value: Value = serde_json::from_str(&sample(name)).unwrap();
        with_later_fields(&mut value);
        let read = printed(&value.to_string());
        assert!(read.is_ok(), "{name}: {read:?}");
    }
}

/// Not "data did not match any variant".
#[test]
fn what_is_wrong_with_a_report_is_named() {
    let mut value: Value = serde_json::from_str(&sample("info")).unwrap();
    value["repositories"][0]["claims"][0].as_object_mut().unwrap().remove("reach");
    let error = serde_json::from_value::<InfoReport>(value).unwrap_err();
    assert_eq!(error.to_string(), "missing field `reach`");
}
