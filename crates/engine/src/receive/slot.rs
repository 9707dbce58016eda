//! The replication slot: what the server says about it, and how it is made.

use holdfast_pgtypes::{Lsn, PgVersion};

use super::ReceiveOptions;
use crate::error::{Cause, Error, ResultExt};
use crate::server::Connection;
use crate::server::replication::{Replication, Slot};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UsedSlot {
    /// The oldest WAL that it keeps.
    pub(super) restart_lsn: Option<Lsn>,
    /// Whether it was made for this session.
    pub(super) is_new: bool,
}

/// Finds the slot, or makes it. A slot that keeps no WAL any more is an error.
pub(super) async fn prepare(
    connection: &mut Replication,
    version: PgVersion,
    options: &ReceiveOptions<'_>,
) -> Result<UsedSlot, Error> {
    let name = options.slot.as_str();
    if let Some(slot) = read(connection, version, options).await? {
        // One that was never used keeps WAL from the first report on.
        if slot.is_lost != Some(true) && (slot.restart_lsn.is_some() || slot.is_lost == Some(false)) {
            return Ok(UsedSlot { restart_lsn: slot.restart_lsn, is_new: false });
        }
        let reason = match slot.is_lost {
            Some(_) => {
                "the server keeps no WAL for it any more (wal_status is lost), as max_slot_wal_keep_size or an idle \
                 time limit says"
            }
            None => {
                "the server keeps no WAL for it: it is lost (max_slot_wal_keep_size, or an idle time limit), or it was \
                 made without immediately_reserve and never used; wal_status in pg_replication_slots says which"
            }
        };
        if !options.accept_gap {
            return Err(Cause::SlotLost { slot: name.to_owned(), reason: reason.to_owned() }.into());
        }
        tracing::warn!(slot = name, reason, "the slot is made again");
        connection.drop_slot(name).await?;
    }
    let made = make(connection, options).await?;
    if let Some(slot) = read(connection, version, options).await? {
        return Ok(UsedSlot { restart_lsn: slot.restart_lsn, is_new: made });
    }
    let text = format!(
        "the replication slot {name} is not a physical one: choose another name with --slot; it stays as it is"
    );
    Err(Cause::ConnectionParameters(text).into())
}

/// Drops a physical slot that the server does not serve any more, and makes it again.
pub(super) async fn make_again(connection: &mut Replication, options: &ReceiveOptions<'_>) -> Result<(), Error> {
    connection.drop_slot(&options.slot).await?;
    make(connection, options).await?;
    Ok(())
}

async fn make(connection: &mut Replication, options: &ReceiveOptions<'_>) -> Result<bool, Error> {
    let made = connection.create_slot(&options.slot, options.temporary).await?;
    if made {
        let kind = if options.temporary { "temporary" } else { "permanent" };
        tracing::info!(
            slot = options.slot,
            kind,
            "made the replication slot; the server keeps WAL for it until it is received or the slot is dropped"
        );
    }
    Ok(made)
}

/// What the server says about the slot; `None` if there is no physical slot of this name. PostgreSQL 15 and later
/// refuse to read a logical one.
async fn read(
    connection: &mut Replication,
    version: PgVersion,
    options: &ReceiveOptions<'_>,
) -> Result<Option<Slot>, Error> {
    if version >= PgVersion::V15 {
        return connection.read_slot(&options.slot).await;
    }
    // Older servers have no such command: an ordinary session asks.
    let session = Connection::open(&options.connection).await?;
    let row = session
        .client()
        .query_opt(
            "SELECT restart_lsn::text, wal_status = 'lost' FROM pg_replication_slots
             WHERE slot_name = $1 AND slot_type = 'physical'",
            &[&options.slot],
        )
        .await
        .map_err(|error| session.statement_error(error))
        .doing(|| format!("reading the replication slot {}", options.slot));
    let row = row?;
    session.close().await;
    let Some(row) = row else { return Ok(None) };
    let (restart, is_lost): (Option<&str>, Option<bool>) = (row.get(0), row.get(1));
    // `wal_status` is NULL for a slot that was never used.
    let is_lost = Some(is_lost == Some(true));
    let Some(restart) = restart else { return Ok(Some(Slot { restart_lsn: None, is_lost })) };
    match restart.parse() {
        Ok(lsn) => Ok(Some(Slot { restart_lsn: Some(lsn), is_lost })),
        Err(_) => Err(Cause::Internal(format!("pg_replication_slots says restart_lsn {restart}")).into()),
    }
}
