//! Converts the abilities of a store between the types of the store crate and the repository's record.

use holdfast_repo::record::{self, RepositoryRecord, StoreCapabilities};
use holdfast_store::{Capabilities, Checksums, ConditionalCreate, Uploads};

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

/// In the record's type.
pub(crate) fn recorded(found: Capabilities) -> StoreCapabilities {
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
    }
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
    Capabilities { create: create(record.conditional_create), create_by_parts, checksums, uploads }
}

/// Abilities in the record that a trial has just disproved, each a sentence for people.
pub(crate) fn disproved(record: &RepositoryRecord, found: Capabilities) -> Vec<&'static str> {
    let believed = capabilities(record);
    let mut disproved = Vec::new();
    if believed.create == ConditionalCreate::Native && found.create == ConditionalCreate::Emulated {
        disproved.push("it no longer refuses to overwrite (conditional writes)");
    }
    if believed.checksums == Checksums::Kept && found.checksums == Checksums::NotCompared {
        disproved.push("it no longer compares what it receives with its checksum");
    }
    if believed.uploads == Uploads::Parts && found.uploads == Uploads::Whole {
        disproved.push("multipart uploads do not work");
    }
    disproved
}
