//! The recovery-path planner: from a request ("to 10:15", "to LSN X on timeline 3") to one backup and the WAL it needs,
//! or to the reason why it cannot be reached and what can.
//!
//! Pure: it has no client and no clock. There are two steps, because some requests need facts that only reading WAL can
//! give:
//! 1. [`RecoveryPath::find`] picks the target timeline, the backups that are on its ancestry, and the gapless runs of
//!    WAL along it. It needs listings, history files and backup summaries only.
//! 2. [`RecoveryPath::decide`] picks the backup, given the [`TargetFacts`] that the caller found in the runs of step 1:
//!    the last transaction for a time, the records of a transaction or restore point. LSN, immediate and latest need
//!    none.
//!
//! Invariant: the planner returns a plan only if PostgreSQL (13 and later), started on the backup with the plan's
//! timeline as `recovery_target_timeline`, finds every segment it asks for and reaches the target. It follows
//! `xlogrecovery.c` (`xlog.c` before 15):
//! - A backup is on a timeline if its redo LSN and its end are on the timeline's ancestry, including an end at the
//!   switch LSN ("requested timeline is not a child of this server's history", "does not contain minimum recovery
//!   point").
//! - A segment is read from the newest timeline of the history that has begun in it (`XLogFileReadAnyTLI`). So the
//!   segment in which a timeline begins is needed under the new name, not under the old one. If only the old one
//!   exists, PostgreSQL reads it, and past the switch LSN that is WAL of the abandoned branch. Here the run ends at the
//!   switch LSN. If only pieces of the old one exist, `restore_command` gives nothing after the switch LSN
//!   ([`NeededTail`]), so recovery can end there.
//! - Recovery stops at a target only once it is consistent. A target before the backup's stop LSN is fatal ("requested
//!   recovery stop point is before consistent recovery point"). So a backup can be used for a target at or after its
//!   stop LSN.
//! - A target that recovery never meets is fatal since 13 ("recovery ended before configured recovery target was
//!   reached"). To stop at a time, there must be a commit or abort *after* it (inclusive, `recordXtime > target`) or
//!   not before it (exclusive, `>=`). To stop at an LSN, there must be a record that starts there or later
//!   (`recoveryStopsBefore`, `recoveryStopsAfter`).
//! - If several records have the same name or transaction id, recovery stops at the first one that it meets.
//!
//! Three things are stricter than in PostgreSQL. First, `latest` has PostgreSQL's meaning, but it is found in another
//! way. `findNewestTimeLine` probes numbers one by one, and PostgreSQL then fails if the newest is not a descendant.
//! Here it is the highest timeline to which some backup leads, and the restore must write its number. Second, the
//! highest timeline is not always the best one. If a complete backup on another timeline is newer than all backups on
//! the chosen one, the request is refused until it names a timeline, unless its target is before the place where the
//! two part. If only WAL is newer, the plan reports an [`OtherLine`]. Third, "to the end of WAL" is refused if there is
//! WAL after a hole: PostgreSQL would end recovery at the hole and open for writes without the rest. The exception is a
//! hole that begins in a tail and has only a few segments after it ([`RecoveryPlan::ends_at`]): a machine that died
//! while it archived leaves exactly that, and the tail has everything that was acknowledged.

mod ancestry;
mod beginning;
mod decide;
mod likely_start;
mod needed_tail;
mod other_line;
mod path;
mod request;
mod unreachable;
mod world;

#[cfg(test)]
mod tests;

pub use beginning::{Beginning, BeginningKind};
pub use decide::{RecoveryPlan, RunFacts, TargetFacts};
pub use likely_start::LikelyStart;
pub use needed_tail::{NeededTail, NeededTailError};
pub use other_line::{Newer, OtherLine};
pub use path::{Candidate, FactsNeeded, RecoveryPath, Rejection, WalRun};
pub use request::RecoveryRequest;
pub use unreachable::{Hole, ReachableWindow, Unreachable};
pub use world::RecoveryWorld;
