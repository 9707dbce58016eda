//! `holdfast wal receive`.

use holdfast_pgtypes::{Lsn, TimelineId};
use serde::{Deserialize, Serialize};

/// The report of a `wal receive` that was told to end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReceiveReport {
    /// The replication slot.
    pub slot: String,
    /// The timeline that was followed last; `None` if the server was never reached.
    pub timeline: Option<TimelineId>,
    /// The end of the received WAL.
    pub received_lsn: Option<Lsn>,
    /// The end of the WAL that every repository has. It is what was reported to the server.
    pub durable_lsn: Option<Lsn>,
    /// Segments that became whole in this run.
    pub segments: u64,
    /// Pieces of unfinished segments that were stored in this run.
    pub pieces: u64,
    /// How often the connection was opened again.
    pub reconnects: u64,
}

/// The report of `wal receive --drop-slot`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    /// The replication slot.
    pub slot: String,
    /// Whether it was there.
    pub dropped: bool,
}
