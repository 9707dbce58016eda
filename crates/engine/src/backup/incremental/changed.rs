//! The blocks that changed since the parent, from the server's WAL summaries (17 and later, `summarize_wal = on`).
//!
//! The summarizer works after the WAL is written. So this waits for the summaries while the summarizer makes progress,
//! as `WaitForWalSummarization` does. If there are no summaries, or some are gone (`wal_summary_keep_time`), the caller
//! reads everything and compares.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::Path;
use std::time::Duration;

use holdfast_pgtypes::changes::ChangedBlocks;
use holdfast_pgtypes::wal_summary::{CoverageError, MissingSummaries, WalSummaryName, covering};
use holdfast_pgtypes::{Ancestry, Lsn, PgVersion, TimelineId};
use tokio::time::Instant;

use crate::error::{Cause, Error, ResultExt as _};
use crate::progress::Progress;
use crate::server::{Connection, RawText};

/// The time limit for a summarizer without progress. The server itself waits as long.
const NO_PROGRESS_AFTER: Duration = Duration::from_mins(1);

/// The interval at which the summaries are listed during the wait.
const LIST_EVERY: Duration = Duration::from_millis(100);

/// The range of WAL to look at: from the parent's start to the start of this backup.
#[derive(Debug, Clone)]
pub(in super::super) struct Asked {
    /// The history of this server's timeline.
    pub ancestry: Ancestry,
    /// The timeline on which the parent started.
    pub timeline: TimelineId,
    pub start: Lsn,
    pub end: Lsn,
}

/// The result of reading the summaries once.
enum SummaryAnswer {
    Changes(ChangedBlocks),
    /// The last summaries are not written yet. They reach up to this LSN.
    NotYet(Lsn),
    /// The summaries will never be complete, for this reason.
    Never(String),
}

/// The changed blocks, or the reason why the server's summaries cannot be used.
pub(in super::super) async fn changed_blocks(
    connection: &Connection,
    version: PgVersion,
    pgdata: &Path,
    asked: &Asked,
    progress: &dyn Progress,
) -> Result<Result<ChangedBlocks, String>, Error> {
    if version < PgVersion::V17 {
        return Ok(Err(format!("PostgreSQL {} writes no WAL summaries", version.major())));
    }
    let row = connection.client().query_one("SELECT current_setting('summarize_wal')", &[]).await;
    let row = row.map_err(Error::from).doing(|| "asking whether the server summarizes its WAL".to_owned())?;
    if row.get::<_, RawText>(0).lossy() != "on" {
        return Ok(Err("summarize_wal is off".to_owned()));
    }
    progress.phase("waiting for WAL summaries", None);
    let (mut reached, mut since) = (Lsn::INVALID, Instant::now());
    loop {
        let (place, range) = (pgdata.join(WalSummaryName::DIRECTORY), asked.clone());
        let found = tokio::task::spawn_blocking(move || read_summaries(&place, &range))
            .await
            .map_err(|e| Cause::Internal(format!("reading WAL summaries: {e}")))??;
        match found {
            SummaryAnswer::Changes(changes) => return Ok(Ok(changes)),
            SummaryAnswer::Never(reason) => return Ok(Err(reason)),
            SummaryAnswer::NotYet(now) if now > reached => (reached, since) = (now, Instant::now()),
            SummaryAnswer::NotYet(_) => {}
        }
        if since.elapsed() > NO_PROGRESS_AFTER {
            return Ok(Err(format!(
                "the WAL summarizer has stopped at {reached}, before the start of this backup at {}",
                asked.end
            )));
        }
        tokio::time::sleep(LIST_EVERY).await;
    }
}

fn read_summaries(directory: &Path, asked: &Asked) -> Result<SummaryAnswer, Error> {
    let names = match list(directory) {
        Ok(names) => names,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Ok(SummaryAnswer::Never("there are no WAL summaries".to_owned()));
        }
        Err(e) => return Err(Error::file("list", directory, e)),
    };
    let chosen = match covering(&names, &asked.ancestry, asked.timeline, asked.start, asked.end) {
        Ok(chosen) => chosen,
        Err(CoverageError::Missing(missing)) => return Ok(not_covered(&names, missing, asked)),
        Err(error @ CoverageError::OtherHistory { .. }) => return Ok(SummaryAnswer::Never(error.to_string())),
    };
    let mut changes = ChangedBlocks::new();
    for name in chosen {
        let path = directory.join(name.to_string());
        let file = match File::open(&path) {
            Ok(file) => file,
            // Removed since the listing because it is too old. The next listing shows what is missing.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(SummaryAnswer::NotYet(Lsn::INVALID)),
            Err(e) => return Err(Error::file("open", &path, e)),
        };
        changes = match changes.with_summary(BufReader::new(file)) {
            Ok(changes) => changes,
            Err(error) => return Ok(SummaryAnswer::Never(format!("{} cannot be used: {error}", path.display()))),
        };
    }
    Ok(SummaryAnswer::Changes(changes))
}

/// Decides whether the missing summaries can still be written. The server writes summaries in the order of the WAL, so
/// only those after all existing ones can.
fn not_covered(names: &[WalSummaryName], missing: MissingSummaries, asked: &Asked) -> SummaryAnswer {
    let of_timeline = names.iter().filter(|name| name.timeline() == missing.timeline);
    let is_last = of_timeline.map(|name| name.end()).max().unwrap_or(Lsn::INVALID) <= missing.start;
    if missing.timeline == asked.ancestry.timeline() && is_last {
        SummaryAnswer::NotYet(missing.start)
    } else {
        SummaryAnswer::Never(missing.to_string())
    }
}

fn list(directory: &Path) -> std::io::Result<Vec<WalSummaryName>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.extend(entry?.file_name().to_str().and_then(|name| name.parse::<WalSummaryName>().ok()));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use super::*;

    fn asked(start: u64, end: u64) -> Asked {
        let timeline = TimelineId::FIRST;
        Asked { ancestry: Ancestry::alone(timeline), timeline, start: Lsn::new(start), end: Lsn::new(end) }
    }

    fn missing_in(names: &[(u64, u64)], asked: &Asked) -> String {
        let directory = tempfile::tempdir().unwrap();
        for (start, end) in names {
            let name = WalSummaryName::new(TimelineId::FIRST, Lsn::new(*start), Lsn::new(*end)).unwrap();
            std::fs::write(directory.path().join(name.to_string()), "").unwrap();
        }
        match read_summaries(directory.path(), asked).unwrap() {
            SummaryAnswer::Changes(_) => "all there".to_owned(),
            SummaryAnswer::NotYet(reached) => format!("not yet, {reached}"),
            SummaryAnswer::Never(reason) => reason,
        }
    }

    #[test]
    fn a_summary_that_can_still_be_written_is_not_missing() {
        assert_eq!(missing_in(&[], &asked(0x100, 0x300)), "not yet, 0/100");
        assert_eq!(missing_in(&[(0x100, 0x200)], &asked(0x100, 0x300)), "not yet, 0/200");
        let gap = "no WAL summary covers 0/100 to 0/200 on timeline 1";
        assert_eq!(missing_in(&[(0x200, 0x300)], &asked(0x100, 0x300)), gap);
        let damaged = missing_in(&[(0x100, 0x300)], &asked(0x100, 0x300));
        assert!(damaged.contains("cannot be used"), "{damaged}");
        assert_eq!(missing_in(&[], &asked(0x100, 0x100)), "all there", "an empty range needs none");
    }
}
