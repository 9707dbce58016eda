//! Volume snapshots, the instance's part: makes its volumes ready, and records what a restore needs.
//!
//! Hot: `pg_backup_start` on a connection that stays open, the operator takes the snapshots, `pg_backup_stop` returns
//! `backup_label` and `tablespace_map`. Cold: the server is stopped in order meanwhile. In both cases the record in the
//! archive (`holdfast snapshot record`) is written last, after the WAL that a recovery needs has been confirmed there.
//!
//! The instance never stays in this state. Backup mode ends (with the connection), or the server starts again, and the
//! run has failed: past its deadline, when the connection is lost, when the operator gives up, and when the pod stops.
//!
//! A small file on the data volume ([`MARK`]) names the run, and so becomes part of the snapshot: a recovery from it
//! finds its record by that name.

mod record;
mod routes;
mod run;

pub use record::{MARK, Mark, read_mark};
pub use routes::{delete, get, put, stop};
