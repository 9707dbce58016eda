//! Waits until all WAL from the start to the stop LSN is in the repository: without it a backup cannot be restored, so
//! it is not complete (promise 3).
//!
//! Normally the server's archiver sends the WAL. If a segment is complete in `pg_wal` but not archived after some
//! seconds, this code sends it, with the same functions and rules, so that a slow archiver does not delay a backup. It
//! never does so earlier while the archiver may be sending the segment: stores without true conditional writes cannot
//! handle two writers of one object at the same moment. PostgreSQL shows this: `archive_status/<segment>.ready` exists
//! from the segment's end until `archive_command` has succeeded (`xlogarchive.c`).
//!
//! A name proves nothing about the content. Before the first segment is sent, and once all are there, what is still in
//! `pg_wal` is compared with what is stored ([`OwnWal`]): the archive may have WAL of another history.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use holdfast_pgtypes::{Lsn, SegmentName, TimelineId, WalFileName};
use holdfast_repo::Compression;
use holdfast_repo::name::{self, ClusterName};
use holdfast_repo::record::ClaimRecord;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::archive::{self, OwnWal};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::{Repository, object_name};

/// The pause between two checks. Each check costs a request, so the pause is doubled until new WAL has arrived.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);
const LOOK_AGAIN_AT_MOST: Duration = Duration::from_secs(3);

/// The time in which only the archiver sends segments. An archiver that works needs a fraction of this.
const ARCHIVER_ALONE: Duration = Duration::from_secs(5);

pub(crate) struct WalWait<'a> {
    /// Every repository with the claim on its archive.
    pub repositories: Vec<(&'a Repository, &'a ClaimRecord)>,
    pub cluster: &'a ClusterName,
    /// From the first to the last segment, both included: a range for each timeline.
    pub ranges: Vec<(SegmentName, SegmentName)>,
    /// The timeline whose history file must also be there.
    pub history: Option<TimelineId>,
    /// The directory that may have complete segments.
    pub pg_wal: PathBuf,
    /// The last segment that the server has finished, if known. Only files in `pg_wal` up to this one are complete.
    pub finished: Option<SegmentName>,
    /// Whether the server archives. If so, its archiver gets time before a segment is sent from here.
    pub archives: bool,
    pub compression: Compression,
    pub crew: Crew,
    pub timeout: Duration,
    pub backup: String,
    /// The server's own WAL, with which the stored WAL is compared; `None` if its files are not on this machine.
    pub own: Option<Written>,
}

/// What the server has written, and still has in `pg_wal`.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub pg_wal: PathBuf,
    /// The LSN before which every byte is written.
    pub end: Lsn,
    /// The server's timeline.
    pub timeline: TimelineId,
    /// Whether the marks of waiting files are those of the server's own archiver. A standby that does not archive may
    /// have marks from its time as a primary.
    pub archives: bool,
}

fn comparing() -> String {
    "comparing the archive with the WAL of this server".to_owned()
}

/// Runs a read request that a cancel may drop, because it leaves nothing in the repository.
async fn unless_cancelled<T>(
    cancel: &CancellationToken,
    look: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Cause::Cancelled.into()),
        looked = look => looked,
    }
}

/// The WAL that one repository may still lack. Stored WAL stays stored, so only this is checked again.
#[derive(Clone, PartialEq, Eq)]
struct Ahead {
    /// From the first segment that may be missing (`None` if all are there) to the last one.
    ranges: Vec<(Option<SegmentName>, SegmentName)>,
    history: Option<TimelineId>,
}

impl WalWait<'_> {
    /// Returns when every segment is in every repository. Gives the segments that the server counted as archived but
    /// that were not there. The first failure ends the wait at once, in all repositories.
    pub(crate) async fn run(
        &self,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<BTreeSet<SegmentName>, Error> {
        let mut counted = BTreeSet::new();
        for waited in self.each_until(|_| true, progress, cancel).await? {
            counted.extend(waited?);
        }
        Ok(counted)
    }

    /// As [`Self::run`], with one result for each repository, in their order. A failure in one repository does not end
    /// the wait of the others. An unreadable file of `pg_wal` is an error only for the repositories that need it from
    /// here, and not for those that have all WAL or get it from the archiver. Only a cancel ends all waits.
    pub(crate) async fn each(
        &self,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Vec<Result<BTreeSet<SegmentName>, Error>>, Error> {
        self.each_until(|error| matches!(&*error.what, Cause::Cancelled), progress, cancel).await
    }

    /// The result of each repository, or the first failure for which `ends` is true.
    async fn each_until(
        &self,
        ends: impl Fn(&Error) -> bool + Sync,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Vec<Result<BTreeSet<SegmentName>, Error>>, Error> {
        progress.phase("waiting for WAL", None);
        let phrase = || {
            let ranges: Vec<String> = self.ranges.iter().map(|(first, last)| format!("{first} to {last}")).collect();
            format!("waiting for the WAL of backup {} ({})", self.backup, ranges.join(", "))
        };
        // The other waits end by the token. They must not be dropped, because they may be sending a segment.
        let (halt, first_failure) = (cancel.child_token(), OnceLock::new());
        let (halt, first) = (&halt, &first_failure);
        let ends = &ends;
        let waits = self.repositories.iter().map(|(repository, claim)| async move {
            match self.one(repository, claim, halt).await.doing(phrase) {
                Err(error) if ends(&error) => {
                    halt.cancel();
                    // Only the first error counts: the others were stopped because of it.
                    drop(first.set(error));
                    None
                }
                waited => Some(waited),
            }
        });
        let waited = futures::future::join_all(waits).await;
        match first_failure.into_inner() {
            Some(error) => Err(error),
            None => Ok(waited.into_iter().flatten().collect()),
        }
    }

    async fn one(
        &self,
        repository: &Repository,
        claim: &ClaimRecord,
        cancel: &CancellationToken,
    ) -> Result<BTreeSet<SegmentName>, Error> {
        let began = Instant::now();
        let deadline = began + self.timeout;
        let alone_until = if self.archives { deadline.min(began + ARCHIVER_ALONE) } else { began };
        let mut counted = BTreeSet::new();
        let ranges = self.ranges.iter().map(|(first, last)| (Some(*first), *last)).collect();
        let mut ahead = Ahead { ranges, history: self.history };
        let mut pause = LOOK_AGAIN_AFTER;
        let mut may_send = false;
        unless_cancelled(cancel, self.refuse_stopped_archiver(repository, claim)).await?;
        loop {
            if !may_send && Instant::now() >= alone_until {
                may_send = true;
                // The archiver may have stopped since.
                unless_cancelled(cancel, self.refuse_stopped_archiver(repository, claim)).await?;
            }
            let before = ahead.clone();
            let missing = self.bring(repository, claim, &mut ahead, may_send, &mut counted, cancel).await?;
            if ahead != before {
                pause = LOOK_AGAIN_AFTER;
            }
            let Some(segment) = missing else {
                unless_cancelled(cancel, self.refuse_other_history(repository, claim)).await?;
                return Ok(counted);
            };
            if may_send && Instant::now() >= deadline {
                return Err(Cause::NotArchived { segment: segment.to_string(), waited: self.timeout }.into());
            }
            tokio::select! {
                () = tokio::time::sleep_until(if may_send { deadline.min(Instant::now() + pause) } else {
                    alone_until.min(Instant::now() + pause)
                }) => {}
                () = cancel.cancelled() => return Err(Cause::Cancelled.into()),
            }
            pause = (pause * 2).min(LOOK_AGAIN_AT_MOST);
        }
    }

    /// Fails if the server's archiver cannot continue, because the archive has other content under the next name.
    async fn refuse_stopped_archiver(&self, repository: &Repository, claim: &ClaimRecord) -> Result<(), Error> {
        let Some(written) = self.own.as_ref().filter(|written| written.archives) else { return Ok(()) };
        let own = OwnWal { repository, cluster: self.cluster, claim, pg_wal: &written.pg_wal };
        own.refuse_stopped_archiver().await.doing(comparing)
    }

    /// Fails if what is stored is not the WAL of this server.
    async fn refuse_other_history(&self, repository: &Repository, claim: &ClaimRecord) -> Result<(), Error> {
        let Some(written) = &self.own else { return Ok(()) };
        self.refuse_stopped_archiver(repository, claim).await?;
        let own = OwnWal { repository, cluster: self.cluster, claim, pg_wal: &written.pg_wal };
        own.refuse_other_history(&self.ranges, written.end, written.timeline, &self.crew).await.doing(comparing)
    }

    /// Sends what may be sent, and moves `ahead` to what is not stored yet. Gives the first missing file; `None` if all
    /// are stored.
    async fn bring(
        &self,
        repository: &Repository,
        claim: &ClaimRecord,
        ahead: &mut Ahead,
        may_send: bool,
        counted: &mut BTreeSet<SegmentName>,
        cancel: &CancellationToken,
    ) -> Result<Option<WalFileName>, Error> {
        let mut first_missing = None;
        for (from, last) in &mut ahead.ranges {
            *from = self.bring_range(repository, claim, (*from, *last), may_send, counted, cancel).await?;
            first_missing = first_missing.or(from.map(WalFileName::Segment));
        }
        if let Some(history) = ahead.history.map(WalFileName::History) {
            if unless_cancelled(cancel, self.holds(repository, claim, &history)).await?
                || (may_send && self.send_file(repository, claim, &history, cancel).await?)
            {
                ahead.history = None;
            } else {
                first_missing = first_missing.or(Some(history));
            }
        }
        Ok(first_missing)
    }

    /// As [`Self::bring`] for one range, folder by folder, up to the first folder with a missing segment.
    async fn bring_range(
        &self,
        repository: &Repository,
        claim: &ClaimRecord,
        (mut from, last): (Option<SegmentName>, SegmentName),
        may_send: bool,
        counted: &mut BTreeSet<SegmentName>,
        cancel: &CancellationToken,
    ) -> Result<Option<SegmentName>, Error> {
        while let Some(first) = from {
            let listing = archive::first_missing(repository, self.cluster, claim, first, last);
            let missing = unless_cancelled(cancel, listing).await?;
            let Some(end) = missing.last().copied() else { return Ok(None) };
            let mut waits_for = None;
            for segment in missing {
                if self.counts_as_archived(segment) {
                    // The segment may have arrived since the listing.
                    if unless_cancelled(cancel, self.holds(repository, claim, &WalFileName::Segment(segment))).await? {
                        continue;
                    }
                    counted.insert(segment);
                }
                let mine = may_send || !self.archiver_has(segment);
                if !(mine && self.send(repository, claim, segment, cancel).await?) {
                    waits_for = waits_for.or(Some(segment));
                }
            }
            if waits_for.is_some() {
                return Ok(waits_for);
            }
            from = end.next(claim.wal_segment_size).filter(|next| *next <= last);
        }
        Ok(None)
    }

    /// Whether the archiver still has to send the segment, or is sending it.
    fn archiver_has(&self, segment: SegmentName) -> bool {
        self.pg_wal.join("archive_status").join(format!("{segment}.ready")).exists()
    }

    /// Whether `archive_command` has reported success for the segment. A standby that does not archive uses the same
    /// mark for received segments.
    fn counts_as_archived(&self, segment: SegmentName) -> bool {
        self.archives && self.pg_wal.join("archive_status").join(format!("{segment}.done")).exists()
    }

    /// Sends a segment that is finished and still in `pg_wal`. Returns `true` if it is archived now.
    async fn send(
        &self,
        repository: &Repository,
        claim: &ClaimRecord,
        segment: SegmentName,
        cancel: &CancellationToken,
    ) -> Result<bool, Error> {
        if self.finished.is_none_or(|finished| segment > finished) {
            return Ok(false);
        }
        self.send_file(repository, claim, &WalFileName::Segment(segment), cancel).await
    }

    /// Sends a complete file from `pg_wal`. A history file is complete as soon as it exists, also on a standby.
    async fn send_file(
        &self,
        repository: &Repository,
        claim: &ClaimRecord,
        file: &WalFileName,
        cancel: &CancellationToken,
    ) -> Result<bool, Error> {
        let path = self.pg_wal.join(file.to_string());
        if !path.exists() {
            return Ok(false);
        }
        let sent =
            archive::archive_file(repository, self.cluster, claim, &path, self.compression, &self.crew, cancel).await;
        match sent {
            Ok(_) => Ok(true),
            // The archiver was faster, and the server has recycled the file while it was read.
            Err(_) if unless_cancelled(cancel, self.holds(repository, claim, file)).await? => Ok(true),
            // The same, but the archiver sends to another place: the segment is missing here, and not unreadable.
            Err(error) if !error.is_of_repository() && !path.exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the repository has the file.
    async fn holds(&self, repository: &Repository, claim: &ClaimRecord, file: &WalFileName) -> Result<bool, Error> {
        let encrypted = repository.is_encrypted();
        let name = name::wal_file(self.cluster, claim.number, file, claim.wal_codec, encrypted);
        match repository.store().head(&object_name(&name)?).await {
            Ok(found) => Ok(archive::is_large_enough(&found)),
            Err(error) if error.kind() == holdfast_store::StoreErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
