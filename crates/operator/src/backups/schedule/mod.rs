//! `ScheduledBackup`: backups at set times.
//!
//! - [`decide`]: pure: which times are due, which `Backup` is made, which are left out, which go by the history limits
//! - [`controller`]: reads, creates, deletes, writes the status
//!
//! The name of a `Backup` follows from the schedule's name and the time it was due at, so that the same time never makes
//! two, whatever happens between the creation and the status. The object is created before `lastScheduleTime` is written:
//! after a crash in between, the time is due again, and found answered.

mod controller;
mod decide;

pub(crate) use controller::run;
pub use decide::{BackupPlan, Decision, Made, Observed, Scheduled, decide};
