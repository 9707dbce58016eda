//! A physical replication connection: what `walreceiver` and `pg_receivewal` speak.
//!
//! The source is "Streaming Replication Protocol" in PostgreSQL's manual, for 13 to 19.
//!
//! - [`messages`]: what is inside of CopyData in both directions. Pure.
//! - [`wire`]: messages over any stream of bytes.
//! - [`connect`]: opens the stream by the parameters of libpq, encrypts it, and logs in.
//! - [`commands`]: `IDENTIFY_SYSTEM`, slots, history files, `START_REPLICATION`, and the stream itself.

mod commands;
mod connect;
mod messages;
mod wire;

pub(crate) use commands::{Begun, Replication, Slot, Streamed, SystemFacts, TimelineEnd};
pub(crate) use connect::ReplicationSettings;
pub(crate) use messages::StandbyStatus;
