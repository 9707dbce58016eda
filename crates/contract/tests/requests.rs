//! Frozen samples of what verbs read from stdin. Each must parse for ever, and what the instance manager writes must be
//! printed unchanged. They are never changed.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use holdfast_contract::request::SnapshotRequest;
use holdfast_pgtypes::TimelineId;
use serde_json::Value;
use std::fs;
use std::path::Path;

fn sample(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requests").join(name)).unwrap()
}

#[test]
fn every_sample_parses_and_is_printed_as_it_was() {
    for name in ["snapshot-hot.json", "snapshot-cold.json"] {
        let request: SnapshotRequest = serde_json::from_str(&sample(name)).unwrap();
        let written: Value = serde_json::from_str(&sample(name)).unwrap();
        assert_eq!(serde_json::to_value(&request).unwrap(), written, "{name}");
    }
}

#[test]
fn the_output_of_a_script_is_parsed() {
    let request: SnapshotRequest = serde_json::from_str(&sample("snapshot-by-hand.json")).unwrap();
    assert_eq!((request.backup_label, request.timeline.map(TimelineId::get)), (None, Some(2)));
    assert_eq!(request.started_at.to_rfc3339(), "2026-11-22T10:15:00+00:00");
    assert!(request.system_identifier.is_some() && request.annotations.is_empty());
}

#[test]
fn a_misspelt_key_is_refused() {
    let text = sample("snapshot-hot.json").replace("backup_label", "backup_lable");
    let error = serde_json::from_str::<SnapshotRequest>(&text).unwrap_err().to_string();
    assert!(error.starts_with("unknown field `backup_lable`"), "{error}");
}
