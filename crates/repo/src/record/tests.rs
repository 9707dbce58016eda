//! What a record refuses, and that it never panics.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use proptest::prelude::*;

const NAME: &str = "main/backups/20260822T101500Z/start.json";

fn start() -> StartRecord {
    StartRecord {
        backup_id: "20260822T101500Z".parse().unwrap(),
        cluster: "main".parse().unwrap(),
        claim: "1".parse().unwrap(),
        system_identifier: "7412345678901234567".parse().unwrap(),
        host: "db1".to_owned(),
        pid: 4711,
        pgdata: "/data".to_owned(),
        started: "2026-08-22T10:15:00Z".parse().unwrap(),
        software_version: "0.1.0".to_owned(),
    }
}

fn text() -> String {
    String::from_utf8(encode_plain(&start()).unwrap()).unwrap()
}

fn error_of(text: &str) -> String {
    decode_plain::<StartRecord>(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn kind_version_and_digest_are_checked_in_this_order() {
    let text = text();
    let other = text.replace("\"backup-start\"", "\"backup\"").replace("\"version\": 1", "\"version\": 2");
    assert_eq!(error_of(&other), "a \"backup\" record stands where a backup-start record should be");
    let later = text.replace("\"version\": 1", "\"version\": 2").replace("4711", "4712");
    assert_eq!(error_of(&later), "backup-start record of version 2, this software reads up to version 1");
    let zero = text.replace("\"version\": 1", "\"version\": 0");
    assert_eq!(error_of(&zero), "backup-start record of version 0, this software reads up to version 1");
    let changed = text.replace("4711", "4712");
    assert!(matches!(
        decode_plain::<StartRecord>(changed.as_bytes()),
        Err(RecordError::DigestMismatch { expected: RecordKind::BackupStart, .. })
    ));
    assert_eq!(error_of(&text[..text.len() / 2]), "not a backup-start record");
    assert_eq!(error_of("[]"), "not a backup-start record");
}

#[test]
fn a_later_version_may_have_another_envelope() {
    let later = r#"{"holdfast":"backup-start","version":7,"sealed":"..."}"#;
    assert!(matches!(
        decode_plain::<StartRecord>(later.as_bytes()),
        Err(RecordError::UnsupportedVersion { found: 7, .. })
    ));
}

#[test]
fn a_body_of_another_shape_is_named() {
    let body = r#"{"backup_id":"20260822T101560Z"}"#;
    let digest = sha256_hex(body.as_bytes());
    let text = format!(r#"{{"holdfast":"backup-start","version":1,"sha256":"{digest}","body":{body}}}"#);
    assert!(matches!(decode_plain::<StartRecord>(text.as_bytes()), Err(RecordError::InvalidBody { .. })));
}

#[test]
fn encrypted_repositories_hold_sealed_records_only() {
    let repository = RepositoryId::from_bytes([1; 16]);
    let key = RepositoryKey::from_bytes([2; 32]);
    let sealed_with = RecordSeal { repository, key: Some(&key) };
    let plain = RecordSeal { repository, key: None };

    let sealed = encode(NAME, sealed_with, &start()).unwrap();
    assert_eq!(decode::<StartRecord>(NAME, sealed_with, &sealed).unwrap(), start());
    assert!(!sealed.windows(4).any(|window| window == b"4711" || window == b"main"), "plaintext in the object");

    let fault = |result: Result<StartRecord, RecordError>| match result {
        Err(RecordError::Sealed { source, .. }) => source.fault().clone(),
        other => unreachable!("{other:?}"),
    };
    assert_eq!(fault(decode(NAME, plain, &sealed)), Fault::KeyNeeded);
    assert_eq!(fault(decode(NAME, sealed_with, text().as_bytes())), Fault::NotEncrypted);
    // carried to another name, another repository
    assert!(matches!(fault(decode("main/x", sealed_with, &sealed)), Fault::Authentication { .. }));
    let elsewhere = RecordSeal { repository: RepositoryId::from_bytes([9; 16]), key: Some(&key) };
    assert!(matches!(fault(decode(NAME, elsewhere, &sealed)), Fault::WrongRepository { .. }));
    // plain repositories stay plain
    assert_eq!(encode(NAME, plain, &start()).unwrap(), text().into_bytes());
    assert_eq!(decode::<StartRecord>(NAME, plain, text().as_bytes()).unwrap(), start());
}

proptest! {
    #[test]
    fn any_change_of_a_sealed_record_is_noticed(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let key = RepositoryKey::from_bytes([2; 32]);
        let seal = RecordSeal { repository: RepositoryId::from_bytes([1; 16]), key: Some(&key) };
        let mut object = encode(NAME, seal, &start()).unwrap();
        let at = at.index(object.len());
        object[at] ^= flip;
        prop_assert!(decode::<StartRecord>(NAME, seal, &object).is_err());
        prop_assert!(decode::<StartRecord>(NAME, seal, &object[..at]).is_err());
    }

    #[test]
    fn a_changed_plain_record_is_an_error_or_the_same(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut object = text().into_bytes();
        let at = at.index(object.len());
        object[at] ^= flip;
        // White space around the body is not covered by the digest, and may change.
        if let Ok(record) = decode_plain::<StartRecord>(&object) {
            prop_assert_eq!(record, start());
        }
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[{\":,0-9a-z }\\]]{0,200}") {
        prop_assert!(decode_plain::<BackupRecord>(&bytes).is_err());
        prop_assert!(decode_plain::<LedgerRecord>(text.as_bytes()).is_err());
    }
}
