//! The texts of the verdicts.

use crate::archive::{Archive, claim, day, id, pack, timeline};
use holdfast_retention::*;

#[test]
fn every_verdict_reads_as_the_end_of_a_sentence() {
    assert_eq!(id(7).to_string(), "20260108T120000Z");
    assert_eq!(pack(7, 12).to_string(), "20260108T120000Z/000012");
    assert_eq!(BackupKept::WindowStart(timeline(3)).to_string(), "the window begins on it (timeline 3)");
    assert_eq!(BackupKept::ParentOf(id(7)).to_string(), "the running backup 20260108T120000Z builds on it");
    assert_eq!(
        PackKept::Named { by: id(7), count: 3 }.to_string(),
        "3 backups need it, the oldest is 20260108T120000Z"
    );
    assert_eq!(WalKept::EveryMomentSince(id(7)).to_string(), "any moment since backup 20260108T120000Z");
    assert_eq!(
        Warning::WindowNotReached { from: Some(day(7)) }.to_string(),
        "the window is not full yet: it begins at 2026-01-08T12:00:00Z"
    );
    assert_eq!(
        Warning::UnknownHistory { claim: claim(1), timeline: timeline(3) }.to_string(),
        "timeline 3 of claim 1 has no history file"
    );
}

#[test]
fn a_range_has_the_names_of_its_segments() {
    let archive = Archive::new(&[1, 20], 31).window(5);
    let going = archive.plan().going().wal;
    let (first, last) = going[0].names(crate::archive::SIZE).unwrap();
    assert_eq!(
        (first.to_string(), last.to_string()),
        ("000000010000000000000001".to_owned(), "0000000100000000000000C7".to_owned())
    );
    assert_eq!(going[0].count(), 199);
}
