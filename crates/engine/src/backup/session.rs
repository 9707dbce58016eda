//! The server's side of an online backup: `pg_backup_start` and `pg_backup_stop` on one connection
//! (`pg_start_backup` and `pg_stop_backup` before 15; manual section "Making a Base Backup Using
//! the Low Level API").
//!
//! Invariant: the backup is non-exclusive and bound to the connection. Whatever ends this process,
//! the server notices the closed connection and ends backup mode by itself; nothing is left in the
//! data directory.

use chrono::{DateTime, Utc};
use holdfast_pgtypes::{BackupLabel, Lsn, PgVersion};

use crate::error::{Cause, Error, ResultExt};
use crate::server::{Connection, RawText};

/// What the start call gives.
#[derive(Debug, Clone)]
pub(super) struct Started {
    /// Redo location of the starting checkpoint: recovery begins here.
    pub start_lsn: Lsn,
    /// The server's clock just before the start call.
    pub start_time: DateTime<Utc>,
}

/// What the stop call gives.
#[derive(Debug, Clone)]
pub(super) struct Stopped {
    /// Recovery must reach this LSN to be consistent.
    pub stop_lsn: Lsn,
    /// The server's clock just after the stop call. A later commit is not in the backup itself.
    pub stop_time: DateTime<Utc>,
    /// Content of `backup_label`, byte for byte.
    pub label_bytes: Vec<u8>,
    /// The parsed `backup_label`.
    pub label: BackupLabel,
    /// Content of `tablespace_map`; empty without tablespaces.
    pub tablespace_map: Vec<u8>,
}

/// Enters backup mode; waits for a checkpoint unless `fast`.
pub(super) async fn start(
    connection: &Connection,
    version: PgVersion,
    label: &str,
    fast: bool,
) -> Result<Started, Error> {
    let statement = if has_new_names(version) {
        "SELECT clock_timestamp()::text, pg_backup_start($1, $2)::text"
    } else {
        "SELECT clock_timestamp()::text, pg_start_backup($1, $2, false)::text"
    };
    let ours = connection.client();
    // A label from the command line is UTF-8. The server converts it to its own encoding.
    if !label.is_ascii() {
        ours.batch_execute("SET client_encoding = 'UTF8'").await?;
    }
    let row = ours
        .query_one(statement, &[&label, &fast])
        .await
        .map_err(|error| connection.statement_error(error))
        .doing(|| "waiting for the starting checkpoint of the backup".to_owned())?;
    if !label.is_ascii() {
        ours.batch_execute("SET client_encoding = 'SQL_ASCII'").await?;
    }
    Ok(Started { start_time: timestamp(row.get(0))?, start_lsn: lsn(row.get(1))? })
}

/// Leaves backup mode; the caller waits for the WAL.
pub(super) async fn stop(connection: &Connection, version: PgVersion) -> Result<Stopped, Error> {
    // The server would wait for its archiver without a time limit. The caller waits instead, because it can see the
    // repositories.
    let statement = if has_new_names(version) {
        "SELECT lsn::text, labelfile, spcmapfile, clock_timestamp()::text FROM pg_backup_stop(false)"
    } else {
        "SELECT lsn::text, labelfile, spcmapfile, clock_timestamp()::text FROM pg_stop_backup(false, false)"
    };
    let row = connection
        .client()
        .query_one(statement, &[])
        .await
        .map_err(|error| connection.statement_error(error))
        .doing(|| "ending backup mode on the server".to_owned())?;
    let RawText(label_bytes) = row.get(1);
    let label = BackupLabel::parse(&label_bytes).map_err(|e| Cause::Malformed {
        name: "the backup_label that the server returned".to_owned(),
        reason: e.to_string(),
    })?;
    Ok(Stopped {
        stop_lsn: lsn(row.get(0))?,
        stop_time: timestamp(row.get(3))?,
        label_bytes,
        label,
        tablespace_map: row.get::<_, Option<RawText>>(2).unwrap_or_default().0,
    })
}

fn has_new_names(version: PgVersion) -> bool {
    version.has_backup_start_names()
}

fn lsn(text: &str) -> Result<Lsn, Error> {
    text.parse()
        .map_err(|_| Cause::Malformed { name: "an LSN from the server".to_owned(), reason: text.to_owned() }.into())
}

/// `timestamptz` as text under `datestyle = ISO`, such as `2026-11-22 08:15:50.123456+00`.
fn timestamp(text: &str) -> Result<DateTime<Utc>, Error> {
    DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z").map(|t| t.with_timezone(&Utc)).map_err(|e| {
        Cause::Malformed { name: "a time from the server".to_owned(), reason: format!("{text}: {e}") }.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_times_parse_with_every_kind_of_zone() {
        for (text, expected) in [
            ("2026-11-22 08:15:50.123456+00", "2026-11-22T08:15:50.123456Z"),
            ("2026-11-22 08:15:50+05:30", "2026-11-22T02:45:50Z"),
            ("2026-11-22 08:15:50.5-03", "2026-11-22T11:15:50.5Z"),
        ] {
            let expected: DateTime<Utc> = expected.parse().expect("a valid time");
            assert_eq!(timestamp(text).expect(text), expected);
        }
        timestamp("yesterday").expect_err("not a time");
    }
}
