//! What the server reports about itself, in one query.

use super::Sql;
use crate::error::{Error, Result};
use crate::settings::floor::{self, Bound};
use holdfast_kube_api::status_port::Role;
use holdfast_pgtypes::{Lsn, TimelineId};

/// The state of the server, as it reports it.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The role, from `pg_is_in_recovery()`.
    pub role: Role,
    /// The timeline; see [`holdfast_kube_api::status_port::InstanceStatus::timeline_id`].
    pub timeline: Option<TimelineId>,
    /// The end of its WAL.
    pub lsn: Option<Lsn>,
    /// The LSN up to which a standby has replayed.
    pub replayed: Option<Lsn>,
    /// Whether a standby receives WAL by streaming replication.
    pub receiving: bool,
    /// Whether a changed setting waits for a restart. For those in `bounds`, the server alone cannot tell.
    pub pending_restart: bool,
    /// Settings that must be at least as high on a standby as on its primary.
    pub bounds: Vec<Bound>,
    /// On a standby, the seconds since the last replayed commit.
    pub replay_lag_seconds: Option<f64>,
}

/// A primary's timeline is taken from the name of the segment that it writes: its control file has it only after the
/// first checkpoint. A standby is on the highest timeline that it received, replayed to a consistent end, or started
/// from.
const QUESTION: &str = "
WITH r AS (SELECT pg_is_in_recovery() AS standby)
SELECT r.standby,
       CASE WHEN r.standby
            THEN greatest((SELECT received_tli FROM pg_stat_wal_receiver),
                          (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                          (SELECT timeline_id FROM pg_control_checkpoint()))::bigint
       END,
       CASE WHEN NOT r.standby THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,
       CASE WHEN r.standby THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
            ELSE pg_current_wal_lsn() END::text,
       CASE WHEN r.standby THEN pg_last_wal_replay_lsn() END::text,
       coalesce((SELECT status = 'streaming' FROM pg_stat_wal_receiver), false),
       EXISTS (SELECT FROM pg_settings WHERE pending_restart AND name <> ALL ($1)),
       CASE WHEN r.standby THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 END
FROM r";

/// A setting given on the command line hides what the files say, so they are read too. The last line counts.
const BOUNDS: &str = "
SELECT s.name, s.setting, coalesce(f.setting, s.boot_val)
FROM pg_settings s
LEFT JOIN (SELECT DISTINCT ON (lower(name)) lower(name) AS name, setting
           FROM pg_file_settings
           ORDER BY lower(name), seqno DESC) f ON f.name = s.name
WHERE s.name = ANY ($1)";

/// Queries the server.
///
/// # Errors
/// When it does not answer.
pub async fn read(sql: &Sql) -> Result<Facts> {
    let bound = floor::names();
    let rows = sql.query(QUESTION, &[&bound]).await?;
    let row = rows.first().ok_or_else(|| Error::retry("PostgreSQL returned no row about its state"))?;
    let standby: bool = row.get(0);
    let lsn = |column: usize| row.get::<_, Option<String>>(column).and_then(|text| text.parse().ok());
    let timeline = match row.get::<_, Option<String>>(2) {
        Some(digits) => TimelineId::from_hex(&digits).ok(),
        None => row.get::<_, Option<i64>>(1).and_then(|number| u32::try_from(number).ok()).and_then(TimelineId::new),
    };
    let bounds = sql.query(BOUNDS, &[&bound]).await?;
    Ok(Facts {
        role: if standby { Role::Replica } else { Role::Primary },
        timeline,
        lsn: lsn(3),
        replayed: lsn(4),
        receiving: row.get(5),
        pending_restart: row.get(6),
        bounds: bounds
            .iter()
            .filter_map(|row| {
                let number = |column: usize| row.get::<_, Option<String>>(column)?.trim().parse().ok();
                Some(Bound { name: row.get(0), running: number(1)?, written: number(2) })
            })
            .collect(),
        replay_lag_seconds: row.get(7),
    })
}
