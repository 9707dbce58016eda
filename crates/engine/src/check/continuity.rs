//! Whether what happens now can be restored: [`crate::continuity`] in the words of `check`.

use chrono::{DateTime, Utc};
use holdfast_contract::report::check::{CheckReport, Verdict};
use holdfast_pgtypes::TimelineId;
use holdfast_repo::record::ClaimRecord;
use tokio_util::sync::CancellationToken;

use crate::continuity::{State, state};
use crate::error::Error;
use crate::pipeline::crew::Crew;
use crate::repository::Repository;

/// Threads that open the facts of a few segments.
const THREADS: usize = 2;

/// What to do about a gap that is open, and about one that a later backup has ended.
const HEAL: &str = "if a server, a standby or an old archive still has the segments, `holdfast wal verify --heal DIR` \
                    brings them back";

/// What to do about a segment that is there and cannot be read.
const REPAIR: &str = "`holdfast verify --deep --repair` brings it back from a second repository";

/// Adds what is found about one repository.
pub(super) async fn check(
    repository: &Repository,
    claim: &ClaimRecord,
    timeline: TimelineId,
    now: DateTime<Utc>,
    cancel: &CancellationToken,
    report: &mut CheckReport,
) -> Result<(), Error> {
    let subject = "continuity";
    let url = repository.describe();
    let found = match state(repository, claim, timeline, now, &Crew::new(THREADS), cancel).await {
        Ok(found) => found,
        Err(error) if error.is_of_one_object() => {
            report.add(subject, Verdict::Failed, format!("{url}: {}", error.what));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    match found {
        State::Unbroken { since, gaps, damaged } => {
            report.add(subject, Verdict::Ok, format!("{url}: every moment since {since}, can be restored"));
            for gap in gaps {
                report.add(subject, Verdict::Warning, format!("{url}: {gap}; {HEAL}"));
            }
            for one in damaged {
                report.add(subject, Verdict::Warning, format!("{url}: {one}; {REPAIR}"));
            }
        }
        State::NoBackup => {
            let detail =
                format!("{url}: there is no complete backup, so nothing can be restored: run `holdfast backup`");
            report.add(subject, Verdict::Warning, detail);
        }
        State::Waiting(reason) => {
            report.add(subject, Verdict::Warning, format!("{url}: {reason}: run the check again in two minutes"));
        }
        State::Broken(reason) => {
            let detail = format!("{url}: {reason} until the next backup: run `holdfast backup` now; {HEAL}");
            report.add(subject, Verdict::Failed, detail);
        }
    }
    Ok(())
}
