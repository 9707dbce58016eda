//! `ScheduledBackup`: backups at scheduled times.
//!
//! - [`decide`]: pure: which times are due, which `Backup`s are created, skipped, or deleted by the history limits
//! - [`controller`]: reads, creates, deletes, writes the status
//!
//! The name of a `Backup` is the schedule's name with the time that it is due at. So one time never makes two, whatever
//! happens between the creation and the status. The object is created before `lastScheduleTime` is written. After a
//! crash in between, the time is due again, and its `Backup` is found.

mod controller;
mod decide;

pub(crate) use controller::run;
pub use decide::{BackupPlan, Decision, Made, Observed, Scheduled, decide};
