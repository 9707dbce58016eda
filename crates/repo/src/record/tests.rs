//! What a record refuses, and that decoding never panics.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use holdfast_pgtypes::SegmentName;
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
        parent: None,
        run: None,
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
    assert_eq!(error_of(&other), "a \"backup\" record is found where a backup-start record should be");
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

/// The text of a record with another value at a JSON pointer, under a matching digest.
fn with_value<T: RecordBody>(body: &T, at: &str, value: Value) -> Vec<u8> {
    let mut body = serde_json::to_value(body).unwrap();
    *body.pointer_mut(at).unwrap() = value;
    let (kind, body) = (T::KIND, body.to_string());
    let digest = sha256_hex(body.as_bytes());
    format!(r#"{{"holdfast":"{kind}","version":1,"sha256":"{digest}","body":{body}}}"#).into_bytes()
}

fn repository() -> RepositoryRecord {
    RepositoryRecord {
        repository_id: RepositoryId::from_bytes([1; 16]),
        format_version: FORMAT_VERSION,
        created: start().started,
        encryption: EncryptionKind::None,
        conditional_create: ConditionalCreate::Native,
        store: None,
        extent_size_bytes: 1 << 20,
        pack_size_bytes: 128 << 20,
        software_version: "0.1.0".to_owned(),
    }
}

fn newer<T: RecordBody + fmt::Debug>(body: &T, at: &str, value: Value, expected: &str) {
    let object = with_value(body, at, value);
    let error = decode_plain::<T>(&object).unwrap_err();
    assert!(error.is_newer(), "{at}: {error}");
    assert_eq!(error.to_string(), format!("{expected} is not known here: written by a newer holdfast"));
}

#[test]
fn a_word_of_a_later_release_is_newer_and_not_damaged() {
    newer(&repository(), "/format_version", 2.into(), "format_version \"2\" of the repository record");
    newer(&repository(), "/encryption", "chacha20".into(), "encryption \"chacha20\" of the repository record");
    newer(
        &repository(),
        "/conditional_create",
        "lease".into(),
        "conditional_create \"lease\" of the repository record",
    );
    let claim = ClaimRecord {
        number: start().claim,
        cluster: start().cluster,
        system_identifier: start().system_identifier,
        pg_major: 18,
        pg_control_version: 1800,
        catalog_version: 1,
        wal_segment_size: holdfast_pgtypes::WalSegmentSize::DEFAULT,
        wal_codec: crate::codec::Codec::Zstd,
        since: start().started,
        host: "db1".to_owned(),
        software_version: "0.1.0".to_owned(),
        owner: None,
    };
    newer(&claim, "/wal_codec", "brotli".into(), "wal_codec \"brotli\" of the claim record");
    let entry = LedgerEntry::Deletion {
        backups: Vec::new(),
        packs: Vec::new(),
        wal: Vec::new(),
        decided: None,
        object_count: 0,
        size_bytes: 0,
        not_before: start().started,
        reason: String::new(),
    };
    let ledger = LedgerRecord { time: start().started, host: String::new(), software_version: String::new(), entry };
    newer(&ledger, "/entry/kind", "lease".into(), "entry.kind \"lease\" of the ledger record");
    let segment: SegmentName = "000000010000000000000001".parse().unwrap();
    let (first, last, outcome) = (segment, segment, GapOutcome::CameBack);
    let entry = LedgerEntry::GapClosed { claim: start().claim, first, last, count: 1, outcome };
    let ledger = LedgerRecord { entry, ..ledger };
    newer(&ledger, "/entry/outcome", "forgotten".into(), "entry.outcome \"forgotten\" of the ledger record");

    let other = text().replace("\"backup-start\"", "\"drill\"");
    let error = decode_plain::<StartRecord>(other.as_bytes()).unwrap_err();
    assert!(error.is_newer(), "{error}");
    // A word that was changed without its digest is damage.
    let changed = String::from_utf8(encode_plain(&claim).unwrap()).unwrap().replace("\"zstd\"", "\"zstx\"");
    let error = decode_plain::<ClaimRecord>(changed.as_bytes()).unwrap_err();
    assert!(matches!(error, RecordError::DigestMismatch { .. }) && !error.is_newer());
}

#[test]
fn every_word_that_is_written_is_one_that_is_known() {
    let known = |closed: &[Closed], at: &str| closed.iter().find(|closed| closed.at == at).unwrap().values;
    let codecs = crate::codec::Codec::ALL.map(crate::codec::Codec::name);
    assert_eq!(known(ClaimRecord::CLOSED, "/wal_codec"), codecs);
    assert_eq!(known(RepositoryRecord::CLOSED, "/format_version"), [FORMAT_VERSION.to_string()]);
    assert_eq!(EncryptionKind::WORDS, [EncryptionKind::Aes256Gcm.as_str(), EncryptionKind::None.as_str()]);
}

#[test]
fn sizes_of_the_repository_record_are_bounded() {
    let bounded = |at: &str, value: u64| {
        decode_plain::<RepositoryRecord>(&with_value(&repository(), at, value.into())).map_err(|e| e.to_string())
    };
    for good in [32 << 10, 64 << 10, 1 << 20, 16 << 20] {
        assert!(bounded("/extent_size_bytes", good).is_ok(), "{good}");
    }
    for bad in [0, 1, 8192, (1 << 20) + 8192, (16 << 20) + (32 << 10), u64::from(u32::MAX)] {
        let error = bounded("/extent_size_bytes", bad).unwrap_err();
        let expected = "is not a multiple of 32768 from 32768 to 16777216";
        assert_eq!(error, format!("the repository record cannot be used: extent_size_bytes {bad} {expected}"));
    }
    for bad in [0, 1 << 19, 4 << 30, u64::MAX] {
        let error = bounded("/pack_size_bytes", bad).unwrap_err();
        assert!(error.contains(&format!("pack_size_bytes {bad} is not from 1048576 to 2147483648")), "{error}");
    }
    // A value that does not even fit the number's type gives the same error.
    assert!(bounded("/extent_size_bytes", 4 << 30).is_err());
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
    // moved to another name, to another repository
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
