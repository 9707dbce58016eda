//! Volume snapshots, the instance's part: making its volumes fit to be snapshotted, and recording what they need.
//!
//! Hot: `pg_backup_start` on a connection that is kept, the operator takes the snapshots, `pg_backup_stop` gives
//! `backup_label` and `tablespace_map`. Cold: the server is stopped in order meanwhile. Either way the record in the
//! archive (`holdfast snapshot record`) is written last, when the WAL that a recovery needs is confirmed there.
//!
//! The instance never stays like that: past its deadline, when the connection is lost, when the operator gives up, and when
//! the pod stops, backup mode ends (with the connection) or the server starts again, and the run has failed.
//!
//! A small file on the data volume ([`MARK`]) names the run and so comes into the snapshot: a recovery from it finds its
//! record by that.

mod record;
mod routes;
mod run;

pub use record::{MARK, Mark, read_mark};
pub use routes::{delete, get, put, stop};
