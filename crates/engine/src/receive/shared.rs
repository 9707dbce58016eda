//! What all sessions of one receiver share.

use std::sync::Arc;

use holdfast_contract::report::wal_receive::ReceiveReport;
use holdfast_pgtypes::Lsn;

use super::ReceiveOptions;
use crate::archive::Archiver;
use crate::repository::leases::Clock;

/// What claims and messages call the server.
pub(super) const SERVER: &str = "the server that is streamed";

/// What all sessions share.
pub(super) struct Shared<'a> {
    pub(super) options: &'a ReceiveOptions<'a>,
    pub(super) archiver: Arc<Archiver>,
    pub(super) clock: Clock,
    pub(super) report: ReceiveReport,
    /// Whether the next session compares the last whole segment with the server's.
    pub(super) compares: bool,
    /// Whether this session has received WAL.
    pub(super) has_streamed: bool,
    /// Up to where everything was durable when this session lost its connection.
    pub(super) reached: Option<Lsn>,
    /// Whether a slot that the server had invalidated was made again, and no WAL has come since.
    pub(super) made_again: bool,
}
