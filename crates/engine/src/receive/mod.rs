//! `wal receive`: the WAL of a running server, seconds after it was written, through a physical replication slot.
//!
//! - [`receive`]: until it is told to end. It opens a session, and another one when that has ended, forever.
//! - `slot`, `position`: the replication slot, and the segment with which a session begins. `needed` reads from where
//!   on holes count, `listed` lists what is stored, `gap` judges WAL that the server no longer has.
//! - `session`: one connection: everything before the stream, and what its end means. `shared`: what all of them share.
//! - `stream`: the stream of one timeline: bytes in, pieces and segments out, and what is reported to the server.
//! - `storing`, `again`: how they get to the repositories, and which failures are tried again.
//! - `cut`, `durable`, `ending`: when a piece is due, up to where everything is stored, and how long an end may take.
//!   Pure. `presence`: whether the server is still there.
//! - `lock`: one receiver at a time in one folder.
//!
//! Invariants: "flushed" is reported to the server only up to an LSN before which every byte is in every configured
//! repository, confirmed as `archive` confirms segments, or in pieces confirmed the same way. Nothing is reported
//! before what is stored of the first segment has been compared with what the server sends. No object is replaced. WAL
//! that the server no longer has is an error, never a hole in silence.
//!
//! After a crash: pieces and segments are whole or absent. The slot keeps everything after what was reported. The next
//! run begins with the first segment that is not whole, compares the stored part of it, and continues.

mod again;
mod cut;
mod durable;
mod ending;
mod gap;
mod listed;
mod lock;
mod needed;
mod position;
mod presence;
mod run;
mod session;
mod shared;
mod slot;
mod storing;
mod stream;

use std::path::PathBuf;
use std::time::Duration;

pub use holdfast_contract::report::wal_receive::{ReceiveReport, SlotReport};

use crate::archive::PushOptions;
use crate::error::Error;
use crate::server::ConnectionSettings;
use crate::server::replication::{Replication, ReplicationSettings};

pub use run::{Repositories, receive};

/// The options of `wal receive`.
#[derive(Debug, Clone)]
pub struct ReceiveOptions<'a> {
    /// How to reach the server.
    pub connection: ConnectionSettings<'a>,
    /// `application_name`, by which `synchronous_standby_names` names the receiver.
    pub application_name: String,
    /// The replication slot; made if it does not exist.
    pub slot: String,
    /// Whether a slot that is made ends with its connection.
    pub temporary: bool,
    /// Whether to continue after WAL that the server no longer has. The gap is recorded.
    pub accept_gap: bool,
    /// The longest time that received WAL waits before it is sent to the repositories.
    pub interval: Duration,
    /// Where segments are before they are sent: a folder of this user's own.
    pub folder: PathBuf,
    /// How segments are archived. `path`, `push_ahead` and `spool` are not used.
    pub push: PushOptions,
}

impl ReceiveOptions<'_> {
    fn replication(&self) -> ReplicationSettings<'_> {
        ReplicationSettings { connection: self.connection.clone(), application_name: &self.application_name }
    }
}

/// Drops the replication slot, if it exists.
///
/// # Errors
/// Those of connecting; [`Cause::ServerAnswer`](crate::Cause::ServerAnswer) if the server refuses, as it does while the
/// slot is in use.
pub async fn drop_slot(options: &ReceiveOptions<'_>) -> Result<SlotReport, Error> {
    let mut connection = Replication::open(&options.replication()).await?;
    let dropped = connection.drop_slot(&options.slot).await?;
    connection.close().await;
    Ok(SlotReport { slot: options.slot.clone(), dropped })
}
