//! Which objects a store locks against deletion (Object Lock).
//!
//! Locked is what a restore needs and what is written once: the repository record, key slots, features, claims, WAL,
//! packs, manifests, `backup.json` and records of snapshots. Not locked is what Holdfast itself deletes soon (leases,
//! entries of the ledger, the tail of an unfinished segment, removal marks) or writes again (`start.json`). Every old
//! version of such an object would stay in the bucket for the whole term, and no restore needs it.

use super::ObjectPath;

impl ObjectPath {
    /// Whether the object gets a lock where locks are configured.
    pub fn is_locked(&self) -> bool {
        match self {
            Self::Repository
            | Self::KeySlot(_)
            | Self::Feature(_)
            | Self::Claim { .. }
            | Self::WalFile { .. }
            | Self::Pack { .. }
            | Self::Manifest { .. }
            | Self::BackupSummary { .. }
            | Self::Snapshot { .. } => true,
            Self::KeySlotRemoval(_)
            | Self::WalTail { .. }
            | Self::BackupStart { .. }
            | Self::BackupEnd { .. }
            | Self::Ledger { .. }
            | Self::Verification { .. }
            | Self::Drill { .. }
            | Self::Lease { .. } => false,
        }
    }
}

/// The same for a name. An object with another name is not ours, and is not locked.
pub fn is_locked(name: &str) -> bool {
    name.parse().is_ok_and(|path: ObjectPath| path.is_locked())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_restore_needs_is_locked_and_what_goes_soon_is_not() {
        for name in [
            "holdfast.json",
            "keys/default.json",
            "features/read-tails",
            "main/claims/1.json",
            "main/wal/1/00000001/000000010000000A/000000010000000A000000FF.zst.enc",
            "main/wal/1/00000002/00000002.history.zst",
            "main/packs/20260822T101500Z/000001.pack",
            "main/backups/20260822T101500Z/manifest",
            "main/backups/20260822T101500Z/backup.json",
            "main/snapshots/20260822T101500Z.json",
        ] {
            assert!(name.parse::<ObjectPath>().is_ok(), "{name}");
            assert!(is_locked(name), "{name}");
        }
        for name in [
            "keys/default.removing",
            "main/backups/20260822T101500Z/start.json",
            "main/backups/20260822T101500Z/ended.json",
            "main/wal-tail/1/00000001/000000010000000A000000FF/0-40.zst",
            ".probe-73616d706c652d7265706f2d69642d31/object",
            "somebody/else",
        ] {
            assert!(!is_locked(name), "{name}");
        }
    }
}
