//! Converts the abilities of a store between the types of the store crate and the repository's record.

use holdfast_repo::record::{self, RepositoryRecord, StoreCapabilities};
use holdfast_store::{Capabilities, Checksums, ConditionalCreate, LockMode, LockTerm, LockedUploads, Locks, Uploads};

/// In the record's type.
pub(crate) fn conditional(found: ConditionalCreate) -> record::ConditionalCreate {
    match found {
        ConditionalCreate::Native => record::ConditionalCreate::Native,
        ConditionalCreate::Emulated => record::ConditionalCreate::Emulated,
    }
}

fn create(recorded: record::ConditionalCreate) -> ConditionalCreate {
    match recorded {
        record::ConditionalCreate::Native => ConditionalCreate::Native,
        record::ConditionalCreate::Emulated => ConditionalCreate::Emulated,
    }
}

/// In the record's type. `lock` is the term of the locks that the store gives new objects.
pub(crate) fn recorded(found: Capabilities, lock: Option<LockTerm>) -> StoreCapabilities {
    StoreCapabilities {
        conditional_complete: conditional(found.create_by_parts),
        checksums: match found.checksums {
            Checksums::Kept => record::Checksums::Kept,
            Checksums::NotCompared => record::Checksums::NotCompared,
        },
        uploads: match found.uploads {
            Uploads::Parts => record::Uploads::Parts,
            Uploads::Whole => record::Uploads::Whole,
        },
        object_lock: lock.and_then(|term| locks(found, term)),
    }
}

fn locks(found: Capabilities, term: LockTerm) -> Option<record::ObjectLock> {
    let proof = match found.locks {
        Locks::NotTried => return None,
        Locks::Dates => record::LockProof::Dates,
        Locks::Enforced => record::LockProof::Enforced,
    };
    Some(record::ObjectLock {
        mode: match term.mode {
            LockMode::Governance => record::LockMode::Governance,
            LockMode::Compliance => record::LockMode::Compliance,
        },
        days: term.days,
        proof,
        uploads: match found.locked_uploads {
            LockedUploads::AtCreation => record::LockedUploads::AtCreation,
            LockedUploads::Afterwards => record::LockedUploads::Afterwards,
        },
    })
}

/// The term of the locks with which the repository was made. A host whose configuration names none uses it, so that it
/// does not write objects without a lock into a repository of locked ones.
pub fn recorded_lock(record: &RepositoryRecord) -> Option<LockTerm> {
    let record::ObjectLock { mode, days, .. } = record.store?.object_lock?;
    let mode = match mode {
        record::LockMode::Governance => LockMode::Governance,
        record::LockMode::Compliance => LockMode::Compliance,
    };
    Some(LockTerm { mode, days })
}

/// The abilities of a repository's store by its record. An ability that the record does not name counts as absent.
pub fn capabilities(record: &RepositoryRecord) -> Capabilities {
    let (create_by_parts, checksums, uploads) = match record.store {
        None => (ConditionalCreate::Emulated, Checksums::NotCompared, Uploads::Parts),
        Some(store) => (
            create(store.conditional_complete),
            match store.checksums {
                record::Checksums::Kept => Checksums::Kept,
                record::Checksums::NotCompared => Checksums::NotCompared,
            },
            match store.uploads {
                record::Uploads::Parts => Uploads::Parts,
                record::Uploads::Whole => Uploads::Whole,
            },
        ),
    };
    let object_lock = record.store.and_then(|store| store.object_lock);
    let locks = object_lock.map_or(Locks::NotTried, |lock| match lock.proof {
        record::LockProof::Dates => Locks::Dates,
        record::LockProof::Enforced => Locks::Enforced,
    });
    // One request more is never wrong.
    let locked_uploads = object_lock.map_or(LockedUploads::Afterwards, |lock| match lock.uploads {
        record::LockedUploads::AtCreation => LockedUploads::AtCreation,
        record::LockedUploads::Afterwards => LockedUploads::Afterwards,
    });
    let create = create(record.conditional_create);
    Capabilities { create, create_by_parts, checksums, uploads, locks, locked_uploads }
}

/// Abilities in the record that a trial has just disproved, each a sentence for people.
pub(crate) fn disproved(record: &RepositoryRecord, found: Capabilities) -> Vec<&'static str> {
    let believed = capabilities(record);
    let mut disproved = Vec::new();
    if believed.create == ConditionalCreate::Native && found.create == ConditionalCreate::Emulated {
        disproved.push("it no longer refuses to overwrite (conditional writes)");
    }
    // Objects that are sent in one request have the condition of a PUT.
    if believed.uploads == Uploads::Parts
        && found.uploads == Uploads::Parts
        && believed.create_by_parts == ConditionalCreate::Native
        && found.create_by_parts == ConditionalCreate::Emulated
    {
        disproved.push("it no longer refuses to overwrite when a multipart upload is completed");
    }
    if believed.checksums == Checksums::Kept && found.checksums == Checksums::NotCompared {
        disproved.push("it no longer compares what it receives with its checksum");
    }
    if believed.uploads == Uploads::Parts && found.uploads == Uploads::Whole {
        disproved.push("multipart uploads do not work");
    }
    // A lock that cannot be tried any more is no loss: the credentials may have lost a right.
    if believed.locks != Locks::NotTried
        && found.locks != Locks::NotTried
        && believed.locked_uploads == LockedUploads::AtCreation
        && found.locked_uploads == LockedUploads::Afterwards
    {
        disproved.push("it no longer locks an object that is uploaded in parts when it is created");
    }
    disproved
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    /// Every ability that the record can have, lost alone.
    #[test]
    fn every_lost_ability_is_named() {
        let id = holdfast_repo::RepositoryId::random().unwrap();
        let term = LockTerm { mode: LockMode::Compliance, days: 30 };
        let of = |believed: Capabilities| RepositoryRecord {
            repository_id: id,
            format_version: holdfast_repo::record::FORMAT_VERSION,
            created: "2026-11-30T11:00:00Z".parse().unwrap(),
            encryption: record::EncryptionKind::None,
            conditional_create: conditional(believed.create),
            store: Some(recorded(believed, Some(term))),
            extent_size_bytes: 1 << 20,
            pack_size_bytes: 128 << 20,
            software_version: "0.1.0".to_owned(),
        };
        let all = Capabilities { locks: Locks::Enforced, ..Capabilities::default() };
        let by_parts = Capabilities { create_by_parts: ConditionalCreate::Emulated, ..all };
        let whole = Capabilities { uploads: Uploads::Whole, ..by_parts };
        for (lost, word) in [
            (Capabilities { create: ConditionalCreate::Emulated, ..all }, "conditional writes"),
            (by_parts, "when a multipart upload is completed"),
            (Capabilities { checksums: Checksums::NotCompared, ..all }, "checksum"),
            (Capabilities { uploads: Uploads::Whole, ..all }, "multipart uploads do not work"),
            (Capabilities { locked_uploads: LockedUploads::Afterwards, ..all }, "locks an object"),
        ] {
            let named = disproved(&of(all), lost);
            assert!(matches!(&named[..], [only] if only.contains(word)), "{word}: {named:?}");
            assert_eq!(disproved(&of(lost), lost), [""; 0], "{word}");
            assert_eq!(disproved(&of(lost), all), [""; 0], "{word}: a store may do more than it did");
        }
        assert_eq!(capabilities(&of(all)), all);
        assert_eq!(recorded_lock(&of(all)), Some(term));
        // The condition on completing an upload has no meaning without uploads.
        assert_eq!(disproved(&of(whole), by_parts), [""; 0]);
    }
}
