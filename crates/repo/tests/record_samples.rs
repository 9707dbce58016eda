//! The frozen samples of format version 1 in `tests/samples`: they must parse for ever, and give these values.
//!
//! A sample is never changed. A new version of a record gets new files beside these.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use holdfast_pgtypes::{SystemIdentifier, TimelineId, WalSegmentSize};
use holdfast_repo::codec::Codec;
use holdfast_repo::identity::{RepositoryId, RepositoryKey};
use holdfast_repo::key::{KeySlot, KeySlotKind};
use holdfast_repo::name::ClaimNumber;
use holdfast_repo::record::{
    self, BackupRecord, BackupType, ChecksumFailure, ChecksumFailures, Checksums, ClaimRecord, ConditionalCreate,
    DatabaseEntry, DecidedWal, DrillFound, EncryptionKind, GapOutcome, KeyChange, LeasePurpose, LeaseRecord,
    LedgerEntry, LedgerRecord, LockMode, LockProof, LockedUploads, ManifestEntry, ObjectLock, PackRange, RecordBody,
    RecordSeal, RepairedObject, RepositoryRecord, RunIdentity, SnapshotRecord, SnapshotVolume, StartRecord,
    StoreCapabilities, TablespaceEntry, Uploads, VerificationProblem,
};
use holdfast_secret::Secret;
use std::fmt::Debug;

const REPOSITORY_ID: [u8; 16] = *b"sample-repo-id-1";
const REPOSITORY_KEY: [u8; 32] = *b"sample repository key, 32 bytes.";
const SEALED_NAME: &str = "main/claims/1.json";

fn check<T: RecordBody + PartialEq + Debug>(sample: &[u8], value: &T) {
    assert_eq!(&record::decode_plain::<T>(sample).unwrap(), value);
    assert_eq!(
        String::from_utf8(record::encode_plain(value).unwrap()).unwrap(),
        String::from_utf8(sample.to_vec()).unwrap(),
        "the writer has changed: older software would read something else"
    );
}

fn repository() -> RepositoryRecord {
    RepositoryRecord {
        repository_id: RepositoryId::from_bytes(REPOSITORY_ID),
        format_version: 1,
        created: "2026-08-22T10:00:00.123456Z".parse().unwrap(),
        encryption: EncryptionKind::Aes256Gcm,
        conditional_create: ConditionalCreate::Native,
        store: None,
        extent_size_bytes: 1 << 20,
        pack_size_bytes: 256 << 20,
        software_version: "0.1.0".to_owned(),
    }
}

fn repository_with_locks() -> RepositoryRecord {
    let object_lock = Some(ObjectLock {
        mode: LockMode::Compliance,
        days: 30,
        proof: LockProof::Enforced,
        uploads: LockedUploads::AtCreation,
    });
    let store = StoreCapabilities {
        conditional_complete: ConditionalCreate::Native,
        checksums: Checksums::Kept,
        uploads: Uploads::Parts,
        object_lock,
    };
    RepositoryRecord { store: Some(store), ..repository() }
}

fn claim() -> ClaimRecord {
    ClaimRecord {
        number: ClaimNumber::FIRST,
        cluster: "main".parse().unwrap(),
        system_identifier: SystemIdentifier::new(7_412_345_678_901_234_567),
        pg_major: 18,
        pg_control_version: 1800,
        catalog_version: 202_506_291,
        wal_segment_size: WalSegmentSize::DEFAULT,
        wal_codec: Codec::Zstd,
        since: "2026-08-22T10:00:01Z".parse().unwrap(),
        host: "db1".to_owned(),
        software_version: "0.1.0".to_owned(),
        owner: None,
    }
}

fn start() -> StartRecord {
    StartRecord {
        backup_id: "20260822T101500Z".parse().unwrap(),
        cluster: "main".parse().unwrap(),
        claim: ClaimNumber::FIRST,
        system_identifier: SystemIdentifier::new(7_412_345_678_901_234_567),
        host: "db1".to_owned(),
        pid: 4711,
        pgdata: "/var/lib/postgresql/18/main".to_owned(),
        started: "2026-08-22T10:15:00.5Z".parse().unwrap(),
        software_version: "0.1.0".to_owned(),
        parent: None,
        run: None,
    }
}

fn start_with_a_lease() -> StartRecord {
    let run = RunIdentity {
        id: "4c1f6a52".to_owned(),
        machine: Some("3d2e".to_owned()),
        boot: Some("77aa".to_owned()),
        pid_namespace: None,
        removes: vec!["20260820T101500Z".parse().unwrap()],
        leased: true,
    };
    StartRecord { parent: Some("20260821T101500Z".parse().unwrap()), run: Some(run), ..start() }
}

fn start_in_a_container() -> StartRecord {
    let start = start_with_a_lease();
    let run = start.run.clone().map(|run| RunIdentity { pid_namespace: Some("pid:[4026532281]".to_owned()), ..run });
    StartRecord { run, ..start }
}

fn backup() -> BackupRecord {
    BackupRecord {
        backup_id: "20260822T101500Z".parse().unwrap(),
        label: "holdfast 20260822T101500Z".to_owned(),
        cluster: "main".parse().unwrap(),
        claim: ClaimNumber::FIRST,
        backup_type: BackupType::Full,
        parent: None,
        system_identifier: SystemIdentifier::new(7_412_345_678_901_234_567),
        pg_version: "18.1 (Debian 18.1-1)".to_owned(),
        pg_major: 18,
        catalog_version: 202_506_291,
        wal_segment_size: WalSegmentSize::DEFAULT,
        timeline: TimelineId::new(2).unwrap(),
        start_lsn: "A/FF000028".parse().unwrap(),
        stop_lsn: "B/1000158".parse().unwrap(),
        start_segment: "000000020000000A000000FF".parse().unwrap(),
        stop_segment: "000000020000000B00000001".parse().unwrap(),
        start_time: "2026-08-22T10:15:01.000001Z".parse().unwrap(),
        stop_time: "2026-08-22T10:16:30.654321Z".parse().unwrap(),
        duration_milliseconds: 95_250,
        from_standby: false,
        data_checksums: true,
        checksum_failures: ChecksumFailures {
            count: 2,
            listed: vec![ChecksumFailure {
                path: "base/16384/16385.1".to_owned(),
                block: 131_073,
                expected: 4242,
                found: 17,
            }],
        },
        file_count: 1234,
        removed_file_count: 1,
        size_bytes: 2_700_000_000,
        stored_bytes: 712_345_678,
        pack_count: 3,
        tablespaces: vec![TablespaceEntry {
            oid: 16_400,
            name: "fast disk".to_owned(),
            path: "/mnt/\"fast\"".to_owned(),
        }],
        databases: vec![
            DatabaseEntry { oid: 5, name: "postgres".to_owned() },
            DatabaseEntry { oid: 16_384, name: "bücher".to_owned() },
        ],
        compression: "zstd:3".to_owned(),
        encryption: EncryptionKind::Aes256Gcm,
        manifest: ManifestEntry {
            name: "main/backups/20260822T101500Z/manifest".to_owned(),
            size_bytes: 65_432,
            sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned(),
        },
        next_xid: 3 * (1 << 32) + 771,
        host: "db1".to_owned(),
        software_version: "0.1.0".to_owned(),
        warnings: Vec::new(),
        annotations: [("ticket".to_owned(), "OPS-1".to_owned())].into(),
    }
}

fn snapshot() -> SnapshotRecord {
    let volume = |name: &str, kind: &str| SnapshotVolume { name: name.to_owned(), kind: kind.to_owned() };
    SnapshotRecord {
        snapshot_id: "20260822T111500Z".parse().unwrap(),
        label: "nightly".to_owned(),
        cluster: "main".parse().unwrap(),
        claim: ClaimNumber::FIRST,
        system_identifier: SystemIdentifier::new(7_412_345_678_901_234_567),
        pg_major: 18,
        wal_segment_size: WalSegmentSize::DEFAULT,
        timeline: TimelineId::new(2).unwrap(),
        online: true,
        start_lsn: "A/FF000028".parse().unwrap(),
        stop_lsn: "B/1000158".parse().unwrap(),
        start_segment: "000000020000000A000000FF".parse().unwrap(),
        stop_segment: "000000020000000B00000001".parse().unwrap(),
        start_time: "2026-08-22T11:15:01.000001Z".parse().unwrap(),
        stop_time: "2026-08-22T11:15:09Z".parse().unwrap(),
        backup_label: Some("START WAL LOCATION: A/FF000028 (file 000000020000000A000000FF)\n".to_owned()),
        tablespace_map: None,
        snapshots: vec![volume("nightly-data", "PG_DATA"), volume("nightly-wal", "PG_WAL")],
        owner: Some("production/shop/4c1f6a52".to_owned()),
        created: "2026-08-22T11:15:12Z".parse().unwrap(),
        host: "shop-1".to_owned(),
        software_version: "0.1.0".to_owned(),
        annotations: [("ticket".to_owned(), "OPS-1".to_owned())].into(),
    }
}

fn lease() -> LeaseRecord {
    LeaseRecord {
        run: "4c1f6a52".parse().unwrap(),
        cluster: "main".parse().unwrap(),
        purpose: LeasePurpose::Restore,
        backups: vec!["20260822T101500Z".parse().unwrap()],
        since: "2026-08-23T09:00:00Z".parse().unwrap(),
        expires: "2026-08-23T10:00:00.123456Z".parse().unwrap(),
        host: "db1".to_owned(),
        machine: Some("3d2e".to_owned()),
        boot: Some("77aa".to_owned()),
        pid_namespace: None,
        pid: 4711,
        software_version: "0.1.0".to_owned(),
    }
}

fn lease_of_a_backup() -> LeaseRecord {
    LeaseRecord { purpose: LeasePurpose::Backup, pid_namespace: Some("pid:[4026531836]".to_owned()), ..lease() }
}

fn ledger(entry: LedgerEntry) -> LedgerRecord {
    LedgerRecord {
        time: "2026-08-22T12:00:00.000001Z".parse().unwrap(),
        host: "db1".to_owned(),
        software_version: "0.1.0".to_owned(),
        entry,
    }
}

fn gap() -> LedgerRecord {
    ledger(LedgerEntry::Gap {
        claim: ClaimNumber::FIRST,
        first: "000000020000000B00000002".parse().unwrap(),
        last: "000000020000000B00000003".parse().unwrap(),
        count: 2,
        reason: "found missing by check".to_owned(),
        accepted: false,
    })
}

fn accepted_gap() -> LedgerRecord {
    let mut record = gap();
    if let LedgerEntry::Gap { reason, accepted, .. } = &mut record.entry {
        (*reason, *accepted) = ("the server no longer had this WAL".to_owned(), true);
    }
    record
}

fn gap_closed() -> LedgerRecord {
    ledger(LedgerEntry::GapClosed {
        claim: ClaimNumber::FIRST,
        first: "000000020000000B00000002".parse().unwrap(),
        last: "000000020000000B00000003".parse().unwrap(),
        count: 2,
        outcome: GapOutcome::CameBack,
    })
}

fn divergence() -> LedgerRecord {
    ledger(LedgerEntry::Divergence {
        claim: ClaimNumber::FIRST,
        file: "000000020000000B00000002.partial".parse().unwrap(),
        stored_sha256: "00".repeat(32),
        offered_sha256: "ff".repeat(32),
    })
}

fn deletion() -> LedgerRecord {
    ledger(LedgerEntry::Deletion {
        backups: vec!["20260701T000000Z".parse().unwrap()],
        packs: Vec::new(),
        wal: Vec::new(),
        decided: None,
        object_count: 12,
        size_bytes: 3_456_789,
        not_before: "2026-08-23T12:00:00Z".parse().unwrap(),
        reason: "outside of the window of 30d".to_owned(),
    })
}

fn deletion_of_packs_and_wal() -> LedgerRecord {
    ledger(LedgerEntry::Deletion {
        backups: vec!["20260701T000000Z".parse().unwrap()],
        packs: vec![PackRange { backup: "20260701T000000Z".parse().unwrap(), first: 1, last: 11 }],
        wal: vec![DecidedWal {
            claim: ClaimNumber::FIRST,
            first: "000000010000000000000001".parse().unwrap(),
            last: "0000000100000000000000FF".parse().unwrap(),
        }],
        decided: Some("2026-08-21T12:00:00.5Z".parse().unwrap()),
        object_count: 269,
        size_bytes: 3_456_789,
        not_before: "2026-08-22T12:00:00.5Z".parse().unwrap(),
        reason: "no rule keeps it".to_owned(),
    })
}

fn removal() -> LedgerRecord {
    ledger(LedgerEntry::Removal {
        backups: vec!["20260701T000000Z".parse().unwrap()],
        pack_count: 11,
        wal_file_count: 256,
        size_bytes: 3_456_789,
        run: None,
        found_later: false,
        wal: Vec::new(),
    })
}

fn removing() -> LedgerRecord {
    ledger(LedgerEntry::Removing {
        run: "4c1f6a52".parse().unwrap(),
        backups: vec!["20260701T000000Z".parse().unwrap()],
        packs: vec![PackRange { backup: "20260701T000000Z".parse().unwrap(), first: 1, last: 11 }],
        wal: vec![DecidedWal {
            claim: ClaimNumber::FIRST,
            first: "000000010000000000000001".parse().unwrap(),
            last: "0000000100000000000000FF".parse().unwrap(),
        }],
        pack_bytes: 3_456_789,
    })
}

fn removal_that_was_found() -> LedgerRecord {
    ledger(LedgerEntry::Removal {
        backups: vec!["20260701T000000Z".parse().unwrap()],
        pack_count: 11,
        wal_file_count: 255,
        size_bytes: 3_456_789,
        run: Some("4c1f6a52".parse().unwrap()),
        found_later: true,
        wal: Vec::new(),
    })
}

fn removal_with_its_wal() -> LedgerRecord {
    ledger(LedgerEntry::Removal {
        backups: Vec::new(),
        pack_count: 0,
        wal_file_count: 255,
        size_bytes: 3_456_789,
        run: Some("4c1f6a52".parse().unwrap()),
        found_later: false,
        wal: vec![DecidedWal {
            claim: ClaimNumber::FIRST,
            first: "000000010000000000000001".parse().unwrap(),
            last: "0000000100000000000000FF".parse().unwrap(),
        }],
    })
}

fn hold() -> LedgerRecord {
    ledger(LedgerEntry::Hold {
        backup: "20260701T000000Z".parse().unwrap(),
        until: Some("2027-07-01T00:00:00Z".parse().unwrap()),
        reason: Some("year-end audit".to_owned()),
        with_wal: false,
    })
}

fn hold_with_wal() -> LedgerRecord {
    let LedgerRecord { time, host, software_version, mut entry } = hold();
    if let LedgerEntry::Hold { with_wal, .. } = &mut entry {
        *with_wal = true;
    }
    LedgerRecord { time, host, software_version, entry }
}

fn key_change() -> LedgerRecord {
    let slots = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    ledger(LedgerEntry::Key {
        change: KeyChange::Rotate,
        written: slots(&["epoch-2", "office.2"]),
        removed: slots(&["epoch-1", "office.1", "ben"]),
        epoch: 2,
    })
}

fn verification() -> LedgerRecord {
    ledger(LedgerEntry::Verification {
        backup: Some("20260822T101500Z".parse().unwrap()),
        deep: true,
        object_count: 5,
        size_bytes: 712_345_678,
        problems: vec![VerificationProblem {
            object: "main/packs/20260822T101500Z/000002.pack".to_owned(),
            problem: "the body of frame 7 fails its checksum".to_owned(),
        }],
        sample_percent: None,
        passed_over_count: 0,
    })
}

fn sampled_verification() -> LedgerRecord {
    ledger(LedgerEntry::Verification {
        backup: Some("20260822T101500Z".parse().unwrap()),
        deep: false,
        object_count: 5,
        size_bytes: 35_123_456,
        problems: Vec::new(),
        sample_percent: Some(5),
        passed_over_count: 0,
    })
}

fn drill() -> LedgerRecord {
    ledger(LedgerEntry::Drill {
        backup: "20260822T101500Z".parse().unwrap(),
        claim: ClaimNumber::FIRST,
        timeline: TimelineId::new(1).unwrap(),
        restored_time: Some("2026-08-22T11:45:00.5Z".parse().unwrap()),
        restored_lsn: Some("16/B8FFF0A8".parse().unwrap()),
        size_bytes: 2_700_000_000,
        wal_bytes: 83_886_080,
        restore_milliseconds: 12_500,
        replay_milliseconds: 3_200,
        page_count: 329_589,
        amcheck: true,
        probe_count: 2,
        problems: Vec::new(),
        found: Vec::new(),
        objects: Vec::new(),
    })
}

fn failed_drill() -> LedgerRecord {
    ledger(LedgerEntry::Drill {
        backup: "20260822T101500Z".parse().unwrap(),
        claim: ClaimNumber::FIRST,
        timeline: TimelineId::new(1).unwrap(),
        restored_time: None,
        restored_lsn: None,
        size_bytes: 0,
        wal_bytes: 83_886_080,
        restore_milliseconds: 900,
        replay_milliseconds: 0,
        page_count: 0,
        amcheck: false,
        probe_count: 0,
        problems: vec!["the body of frame 7 fails its checksum".to_owned()],
        found: Vec::new(),
        objects: Vec::new(),
    })
}

fn drill_that_says_what_it_found() -> LedgerRecord {
    let LedgerRecord { time, host, software_version, mut entry } = failed_drill();
    if let LedgerEntry::Drill { found, .. } = &mut entry {
        found.extend([DrillFound::Object, DrillFound::Time]);
    }
    LedgerRecord { time, host, software_version, entry }
}

fn copy() -> LedgerRecord {
    ledger(LedgerEntry::Copy {
        repository_id: "000102030405060708090a0b0c0d0e0f".parse().unwrap(),
        backups: vec!["20260821T101500Z".parse().unwrap(), "20260822T101500Z".parse().unwrap()],
        pack_count: 11,
        wal_file_count: 340,
        size_bytes: 2_700_000_000,
    })
}

fn repair() -> LedgerRecord {
    let repository_id = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
    let object = "main/packs/20260822T101500Z/000001.pack".to_owned();
    let objects = vec![RepairedObject { object, repository_id }];
    ledger(LedgerEntry::Repair { objects, object_count: 1, left_count: 2 })
}

#[test]
fn plain_samples_give_these_values() {
    check(include_bytes!("samples/repository.json"), &repository());
    check(include_bytes!("samples/repository-lock.json"), &repository_with_locks());
    check(include_bytes!("samples/claim.json"), &claim());
    let owned = ClaimRecord { owner: Some("production/shop/4c1f6a52".to_owned()), ..claim() };
    check(include_bytes!("samples/claim-owner.json"), &owned);
    check(include_bytes!("samples/start.json"), &start());
    check(include_bytes!("samples/start-leased.json"), &start_with_a_lease());
    check(include_bytes!("samples/start-namespace.json"), &start_in_a_container());
    check(include_bytes!("samples/backup.json"), &backup());
    check(include_bytes!("samples/snapshot.json"), &snapshot());
    check(include_bytes!("samples/ledger-gap.json"), &gap());
    check(include_bytes!("samples/ledger-gap-accepted.json"), &accepted_gap());
    check(include_bytes!("samples/ledger-gap-closed.json"), &gap_closed());
    check(include_bytes!("samples/ledger-divergence.json"), &divergence());
    check(include_bytes!("samples/ledger-deletion.json"), &deletion());
    check(include_bytes!("samples/ledger-deletion-2.json"), &deletion_of_packs_and_wal());
    check(include_bytes!("samples/ledger-removing.json"), &removing());
    check(include_bytes!("samples/ledger-removal.json"), &removal());
    check(include_bytes!("samples/ledger-removal-2.json"), &removal_that_was_found());
    check(include_bytes!("samples/ledger-removal-3.json"), &removal_with_its_wal());
    check(include_bytes!("samples/ledger-hold.json"), &hold());
    check(include_bytes!("samples/ledger-hold-wal.json"), &hold_with_wal());
    check(include_bytes!("samples/ledger-key.json"), &key_change());
    check(include_bytes!("samples/ledger-verification.json"), &verification());
    check(include_bytes!("samples/ledger-verification-sample.json"), &sampled_verification());
    check(include_bytes!("samples/ledger-drill.json"), &drill());
    check(include_bytes!("samples/ledger-drill-failed.json"), &failed_drill());
    check(include_bytes!("samples/ledger-drill-found.json"), &drill_that_says_what_it_found());
    check(include_bytes!("samples/ledger-copy.json"), &copy());
    check(include_bytes!("samples/ledger-repair.json"), &repair());
    check(include_bytes!("samples/lease.json"), &lease());
    check(include_bytes!("samples/lease-backup.json"), &lease_of_a_backup());
}

/// The MAC of the sample was computed with another library.
#[test]
fn the_sample_of_an_encrypted_repository_has_its_mac() {
    let (key, id) = (RepositoryKey::from_bytes(REPOSITORY_KEY), RepositoryId::from_bytes(REPOSITORY_ID));
    let sample = include_bytes!("samples/repository-mac.json");
    assert_eq!(record::decode_plain::<RepositoryRecord>(sample).unwrap(), repository());
    record::check_repository_mac(sample, id, &key).unwrap();
    assert_eq!(record::encode_repository(&repository(), Some(&key)).unwrap(), sample);
    assert_eq!(record::encode_repository(&repository(), None).unwrap(), include_bytes!("samples/repository.json"));

    let changed = RepositoryRecord { pack_size_bytes: 128 << 20, ..repository() };
    let (own, forged) = (String::from_utf8(sample.to_vec()).unwrap(), record::encode_plain(&changed).unwrap());
    let mac = own.lines().find(|line| line.starts_with("\"mac\"")).unwrap();
    let forged = String::from_utf8(forged).unwrap();
    let with_old_mac = forged.replacen("\"body\"", &format!("{mac}\n\"body\""), 1);
    record::decode_plain::<RepositoryRecord>(with_old_mac.as_bytes()).unwrap();
    let other_key = RepositoryKey::from_bytes([1; 32]);
    let with_another = record::encode_repository(&changed, Some(&other_key)).unwrap();
    for object in [forged.as_bytes(), with_old_mac.as_bytes(), &with_another] {
        let error = record::check_repository_mac(object, id, &key).unwrap_err();
        assert!(matches!(error, record::RecordError::Unauthenticated { .. }) && !error.is_newer(), "{error}");
    }
}

#[test]
fn the_sealed_sample_opens() {
    let key = RepositoryKey::from_bytes(REPOSITORY_KEY);
    let seal = RecordSeal { repository: RepositoryId::from_bytes(REPOSITORY_ID), key: Some(&key) };
    let sample = include_bytes!("samples/claim.json.sealed");
    assert_eq!(record::decode::<ClaimRecord>(SEALED_NAME, seal, sample).unwrap(), claim());
}

#[test]
fn the_key_slot_samples_open() {
    let repository = RepositoryId::from_bytes(REPOSITORY_ID);
    let slot: KeySlot = record::decode_plain(include_bytes!("samples/key-slot-passphrase.json")).unwrap();
    assert_eq!((slot.slot().as_str(), slot.kind()), ("default", KeySlotKind::Passphrase));
    let key = slot.unlock_passphrase(&repository, &Secret::from("correct horse battery staple")).unwrap();
    assert_eq!(key.expose(), &REPOSITORY_KEY);

    let slot: KeySlot = record::decode_plain(include_bytes!("samples/key-slot-key-file.json")).unwrap();
    assert_eq!((slot.slot().as_str(), slot.kind()), ("vault", KeySlotKind::KeyFile));
    let key = slot.unlock_key_file(&repository, &Secret::new([0x5A; 32])).unwrap();
    assert_eq!(key.expose(), &REPOSITORY_KEY);
}

/// Made by an independent implementation from `docs/format/keys.md`.
#[test]
fn the_key_slot_of_a_later_epoch_gives_the_keys_of_all() {
    let repository = RepositoryId::from_bytes(REPOSITORY_ID);
    let slot: KeySlot = record::decode_plain(include_bytes!("samples/key-slot-epoch.json")).unwrap();
    assert_eq!((slot.slot().as_str(), slot.label().as_str(), slot.epoch()), ("epoch-2", "vault", 2));
    let key = slot.unlock_key_file(&repository, &Secret::new([0x5A; 32])).unwrap();
    assert_eq!((key.epoch(), key.expose()), (2, &[0x62; 32]));
    let first = RepositoryKey::from_bytes(REPOSITORY_KEY);
    assert!(key.holds(&first));
    // An object sealed with the first key is read with all keys.
    let seal = RecordSeal { repository, key: Some(&key) };
    let sample = include_bytes!("samples/claim.json.sealed");
    assert_eq!(record::decode::<ClaimRecord>(SEALED_NAME, seal, sample).unwrap(), claim());
    let bytes = record::encode_plain(&slot).unwrap();
    assert_eq!(bytes, include_bytes!("samples/key-slot-epoch.json"));
}

#[test]
fn fields_of_later_versions_are_ignored() {
    // The output of a later minor version: another field in the body, and another in the envelope.
    let body = serde_json::to_string(&start()).unwrap();
    let body = format!("{},\"later\":{{\"deep\":[1,2,3]}}}}", body.strip_suffix('}').unwrap());
    let digest = record::sha256_hex(body.as_bytes());
    let text = format!(
        "{{\"holdfast\":\"backup-start\",\"version\":1,\"signed_by\":\"x\",\"sha256\":\"{digest}\",\"body\":{body}}}"
    );
    assert_eq!(record::decode_plain::<StartRecord>(text.as_bytes()).unwrap(), start());
}
