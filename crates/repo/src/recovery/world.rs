//! The facts from which recovery is planned: [`RecoveryWorld`].

use std::collections::BTreeMap;

use holdfast_pgtypes::{HistoryFile, TimelineId};

use super::Beginning;
use crate::catalog::WalInventory;
use crate::name::ClaimNumber;

/// What is known about an archive before any WAL is read. All of it belongs to one claim.
#[derive(Debug, Clone, Copy)]
pub struct RecoveryWorld<'a> {
    /// The claim. Backups of other claims are ignored, because their WAL is elsewhere.
    pub claim: ClaimNumber,
    /// The complete backups, or the snapshots, in any order.
    pub backups: &'a [Beginning],
    /// The history files of the claim.
    pub histories: &'a BTreeMap<TimelineId, HistoryFile>,
    /// The segments of the claim.
    pub wal: &'a WalInventory,
}
