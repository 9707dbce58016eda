//! The identity of a pack: who wrote it, and its number there.

use super::BackupId;
use std::fmt;

/// Identity of a pack within a cluster: the backup that wrote it, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId {
    /// The backup that wrote it. Later backups may name it as well.
    pub backup: BackupId,
    /// Its number among the packs of that backup, from 1 to [`MAX_PACK_NUMBER`](super::MAX_PACK_NUMBER).
    pub number: u32,
}

impl fmt::Display for PackId {
    /// `20260822T101500Z/000001`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{:06}", self.backup, self.number)
    }
}
