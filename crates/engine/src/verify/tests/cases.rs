//! Each kind of damage, with the words that report it.

use super::*;

pub(super) const CASES: &[Case] = &[
    Case {
        what: "a pack gone",
        plant: |bench| bench.remove(&bench.pack(1)),
        level: Level::Shallow,
        class: ObjectClass::Pack,
        kind: DamageKind::Missing,
        words: ": the manifest names it",
        harm: Harm::Backup,
    },
    Case {
        what: "a pack shorter",
        plant: |bench| bench.change(&bench.pack(0), |bytes| bytes.truncate(1000)),
        level: Level::Shallow,
        class: ObjectClass::Pack,
        kind: DamageKind::TooShort,
        words: ": it has 1000 bytes, the manifest says {size}",
        harm: Harm::Backup,
    },
    Case {
        what: "a pack longer",
        plant: |bench| bench.change(&bench.pack(0), |bytes| bytes.push(0)),
        level: Level::Shallow,
        class: ObjectClass::Pack,
        kind: DamageKind::TooLong,
        words: ": it has {size+1} bytes, the manifest says {size}",
        harm: Harm::Backup,
    },
    Case {
        what: "a bit in the body of a pack",
        plant: |bench| bench.change(&bench.pack(1), flip(|length| length / 2)),
        level: Level::Deep,
        class: ObjectClass::Pack,
        kind: DamageKind::WrongChecksum,
        words: ": the body of frame * fails its checksum, while restoring *",
        harm: Harm::Backup,
    },
    Case {
        what: "a bit in the head of a pack",
        plant: |bench| bench.change(&bench.pack(1), flip(|_| 70)),
        level: Level::Deep,
        class: ObjectClass::Pack,
        kind: DamageKind::WrongChecksum,
        words: ": the body of frame 0 fails its checksum",
        harm: Harm::Backup,
    },
    Case {
        what: "a bit at the end of a pack",
        plant: |bench| bench.change(&bench.pack(1), flip(|length| length - 1)),
        level: Level::Deep,
        class: ObjectClass::Pack,
        kind: DamageKind::WrongChecksum,
        words: ": the body of frame * fails its checksum",
        harm: Harm::Backup,
    },
    Case {
        what: "the header of a frame",
        plant: |bench| bench.change(&bench.pack(1), flip(|_| 92 + 16)),
        level: Level::Deep,
        class: ObjectClass::Pack,
        kind: DamageKind::WrongChecksum,
        words: ": the frame header at byte 92 fails its checksum",
        harm: Harm::Backup,
    },
    Case {
        what: "zeros in the place of frames",
        plant: |bench| bench.change(&bench.pack(1), |bytes| bytes[92..200].fill(0)),
        level: Level::Deep,
        class: ObjectClass::Pack,
        kind: DamageKind::Malformed,
        words: ": no frame begins at byte 92: magic number 0x00000000 instead of *",
        harm: Harm::Backup,
    },
    Case {
        what: "the manifest gone",
        plant: |bench| bench.remove(&bench.manifest()),
        level: Level::Shallow,
        class: ObjectClass::Manifest,
        kind: DamageKind::Missing,
        words: ": backup.json names it",
        harm: Harm::Backup,
    },
    Case {
        what: "the manifest shorter",
        plant: |bench| bench.change(&bench.manifest(), |bytes| bytes.truncate(500)),
        level: Level::Shallow,
        class: ObjectClass::Manifest,
        kind: DamageKind::TooShort,
        words: ": it has 500 bytes, backup.json says *",
        harm: Harm::Backup,
    },
    Case {
        what: "the manifest damaged",
        plant: |bench| bench.change(&bench.manifest(), flip(|length| length / 2)),
        level: Level::Shallow,
        class: ObjectClass::Manifest,
        kind: DamageKind::WrongChecksum,
        words: ": the body of frame * fails its checksum",
        harm: Harm::Backup,
    },
    Case {
        what: "backup.json damaged",
        plant: |bench| bench.change(&bench.summary(), other_host),
        level: Level::Shallow,
        class: ObjectClass::BackupRecord,
        kind: DamageKind::WrongChecksum,
        words: ": the body of the backup record has SHA-256 *, its envelope says *",
        harm: Harm::Backup,
    },
    Case {
        what: "backup.json empty",
        plant: |bench| bench.write(&bench.summary(), b""),
        level: Level::Shallow,
        class: ObjectClass::BackupRecord,
        kind: DamageKind::Malformed,
        words: ": not a backup record: *",
        harm: Harm::Backup,
    },
    Case {
        what: "start.json damaged",
        plant: |bench| {
            bench.change("main/backups/20260822T101500Z/start.json", other_host);
        },
        level: Level::Shallow,
        class: ObjectClass::StartRecord,
        kind: DamageKind::WrongChecksum,
        words: ": the body of the backup-start record has SHA-256 *, its envelope says *",
        harm: Harm::Nothing,
    },
    Case {
        what: "a segment of the backup gone",
        plant: |bench| bench.remove(&bench.wal_object(1, 9)),
        level: Level::Shallow,
        class: ObjectClass::WalSegment,
        kind: DamageKind::Missing,
        words: ": a backup needs it to become consistent",
        harm: Harm::Backup,
    },
    Case {
        what: "a segment after the backup gone",
        plant: |bench| bench.remove(&bench.wal_object(1, 0xA)),
        level: Level::Shallow,
        class: ObjectClass::WalSegment,
        kind: DamageKind::Missing,
        words: ": there is WAL after it",
        harm: Harm::Window,
    },
    Case {
        what: "an empty segment",
        plant: |bench| bench.write(&bench.wal_object(1, 0xA), b""),
        level: Level::Shallow,
        class: ObjectClass::WalSegment,
        kind: DamageKind::TooShort,
        words: ": it has 0 bytes, less than the head of an object",
        harm: Harm::Window,
    },
    Case {
        // The newest segments are read to find the last transaction.
        what: "a segment of the backup shorter",
        plant: |bench| bench.change(&bench.wal_object(1, 8), |bytes| bytes.truncate(120)),
        level: Level::Shallow,
        class: ObjectClass::WalSegment,
        kind: DamageKind::TooShort,
        words: ": truncated: * bytes needed, * there",
        harm: Harm::Backup,
    },
    Case {
        what: "a segment damaged",
        plant: |bench| bench.change(&bench.wal_object(1, 0xA), flip(|_| 130)),
        level: Level::Deep,
        class: ObjectClass::WalSegment,
        kind: DamageKind::WrongChecksum,
        words: ": the body of frame 1 fails its checksum",
        harm: Harm::Window,
    },
    Case {
        what: "a segment of another cluster",
        plant: |bench| {
            let name = named(&bench.sample, 1, 0xA);
            let raw = segment(&bench.sample, name, 4711);
            let (object, bytes) = wal(&bench.sample, &bench.repository, WalFileName::Segment(name), &raw);
            bench.write(&object, &bytes);
        },
        level: Level::Deep,
        class: ObjectClass::WalSegment,
        kind: DamageKind::Foreign,
        words: ": WAL segment 00000001000000000000000A is of the cluster with system identifier 4711, not *",
        harm: Harm::Window,
    },
    Case {
        what: "half a segment",
        plant: |bench| {
            let name = named(&bench.sample, 1, 0xA);
            let raw = segment(&bench.sample, name, bench.sample.backup.system_identifier.as_u64());
            let file = WalFileName::Segment(name);
            let (object, bytes) = wal(&bench.sample, &bench.repository, file, &raw[..raw.len() / 2]);
            bench.write(&object, &bytes);
        },
        level: Level::Deep,
        class: ObjectClass::WalSegment,
        kind: DamageKind::TooShort,
        words: ": its file has 524288 bytes, a segment has 1048576",
        harm: Harm::Window,
    },
    Case {
        what: "a history gone",
        plant: |bench| {
            bench.promote();
            bench.remove(&bench.history());
        },
        level: Level::Shallow,
        class: ObjectClass::TimelineHistory,
        kind: DamageKind::Missing,
        words: ": timeline 2 has WAL or backups here, but only this file says where it begins",
        harm: Harm::Nothing,
    },
    Case {
        what: "a history damaged",
        plant: |bench| {
            bench.promote();
            bench.change(&bench.history(), flip(|_| 130));
        },
        level: Level::Shallow,
        class: ObjectClass::TimelineHistory,
        kind: DamageKind::WrongChecksum,
        words: ": the body of frame 1 fails its checksum",
        harm: Harm::Nothing,
    },
    Case {
        what: "the claim damaged",
        plant: |bench| bench.change("main/claims/1.json", other_host),
        level: Level::Shallow,
        class: ObjectClass::Claim,
        kind: DamageKind::WrongChecksum,
        words: ": the body of the claim record has SHA-256 *, its envelope says *",
        harm: Harm::Backup,
    },
];
