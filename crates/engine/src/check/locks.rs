//! Object Lock: whether `expire` keeps the locks long enough.
//!
//! The repository record is written first and needed for ever. If its lock has nearly ended, nobody extends locks.

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_repo::name::REPOSITORY_OBJECT;
use holdfast_store::{LockMode, LockTerm};

use super::{CheckReport, Verdict};
use crate::error::{Error, ResultExt};
use crate::repository::{Repository, object_name};

/// `expire` extends a lock when less than half of its term is left, so less than this part means that it did not run.
const TOO_LITTLE: i32 = 4;

/// Looks at the lock of the repository record. Reports nothing without locks.
pub(super) async fn look(repository: &Repository, now: DateTime<Utc>, report: &mut CheckReport) -> Result<(), Error> {
    let Some(term) = repository.store().lock() else { return Ok(()) };
    let url = repository.describe();
    let end = repository.store().locked_until(&object_name(REPOSITORY_OBJECT)?).await;
    let end = end.doing(|| format!("asking for the lock of {REPOSITORY_OBJECT} in {url}"))?;
    let (verdict, detail) = judged(term, end.map(DateTime::<Utc>::from), now);
    report.add("object lock", verdict, format!("{url}: {detail}"));
    Ok(())
}

fn judged(term: LockTerm, end: Option<DateTime<Utc>>, now: DateTime<Utc>) -> (Verdict, String) {
    let mode = match term.mode {
        LockMode::Governance => "governance",
        LockMode::Compliance => "compliance",
    };
    let LockTerm { days, .. } = term;
    let advice =
        format!("`holdfast expire` extends the locks of what is kept: run it at least four times in {days} days");
    match end.map(|end| (end.format("%Y-%m-%d %H:%M:%S UTC"), end - now)) {
        None => (Verdict::Warning, format!("{REPOSITORY_OBJECT} is not locked; {advice}")),
        Some((end, left)) if left < TimeDelta::days(i64::from(days)) / TOO_LITTLE => {
            (Verdict::Warning, format!("the lock of {REPOSITORY_OBJECT} ends or ended at {end}; {advice}"))
        }
        Some((end, _)) => (Verdict::Ok, format!("{mode}, {days} days; {REPOSITORY_OBJECT} is locked until {end}")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_lock_that_nobody_extends_is_a_warning() {
        let term = LockTerm { mode: LockMode::Compliance, days: 8 };
        let now = "2026-11-30T00:00:00Z".parse().unwrap();
        let end = |text: &str| Some(text.parse().unwrap());
        let advice = "`holdfast expire` extends the locks of what is kept: run it at least four times in 8 days";
        for (end, verdict, detail) in [
            (None, Verdict::Warning, format!("holdfast.json is not locked; {advice}")),
            (
                end("2026-12-01T23:59:59Z"),
                Verdict::Warning,
                format!("the lock of holdfast.json ends or ended at 2026-12-01 23:59:59 UTC; {advice}"),
            ),
            (
                end("2026-12-02T00:00:00Z"),
                Verdict::Ok,
                "compliance, 8 days; holdfast.json is locked until 2026-12-02 00:00:00 UTC".to_owned(),
            ),
        ] {
            assert_eq!(judged(term, end, now), (verdict, detail));
        }
    }
}
