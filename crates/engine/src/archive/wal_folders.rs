//! The folders of a claim's WAL: the existing timelines and logs, before anything in the logs is listed.
//!
//! A log is 4 GiB of WAL, 256 segments of 16 MiB, and has a folder of its own. So an archive has few folders. A caller
//! that knows them lists only those that it needs, many in parallel. Logs whose numbers differ only in the last digit
//! share one prefix of names, and are listed together: a request returns up to 1000 objects.
//!
//! Nothing here depends on the order of the objects in a store's listing. The end of a timeline is looked for a second
//! time without folders: if a store leaves a folder out, the archive must not seem to end early.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use futures::stream::{self, StreamExt, TryStreamExt};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId};
use holdfast_repo::name;
use holdfast_repo::record::ClaimRecord;

use super::known_logs::KnownLogs;
use super::listed_wal::ListedWal;
use crate::error::{Error, ResultExt};
use crate::repository::Repository;

/// Number of requests in parallel.
const AT_ONCE: usize = 16;

/// The most segments that are listed for a report: 1 TiB of WAL in segments of 16 MiB, and about 80 requests.
const SHOWN_SEGMENTS: u64 = 1 << 16;

/// The most logs that are listed for a report, since each 16 of them need a request, however few segments they have.
const SHOWN_LOGS: u64 = 1 << 10;

/// Which part of the WAL of a timeline is listed. History files always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalScope {
    /// All of it.
    All,
    /// From the log that contains this LSN, and the newest logs in any case: if a timeline ended before the LSN, or
    /// continued beside the one that is followed, its end is still known.
    From(Lsn),
    /// For a report: from the log that contains `oldest`, if that is a bounded number of unknown segments, else as many
    /// of the newest logs, and always those from `newest` on.
    Shown {
        /// The start LSN of the oldest backup or snapshot.
        oldest: Lsn,
        /// The start LSN of the newest one.
        newest: Lsn,
    },
    /// Its two newest logs: they show where the timeline ends, and when that was stored. The newest log alone may
    /// contain no whole segment, if the server left the timeline within the log's first segment.
    Newest,
}

/// The folders of the WAL of one claim.
#[derive(Debug)]
pub struct WalFolders {
    /// The numbers of the logs of each timeline, ascending.
    logs: BTreeMap<TimelineId, Vec<u32>>,
    /// The history files, without any segment.
    found: ListedWal,
}

impl WalFolders {
    /// Lists the WAL of a claim: all of it, or from the folder that contains an LSN.
    ///
    /// # Errors
    /// As [`WalFolders::read`].
    pub async fn read_and_list(
        repository: &Repository,
        claim: &ClaimRecord,
        wanted: WalScope,
    ) -> Result<ListedWal, Error> {
        let folders = Self::read(repository, claim).await?;
        folders.list(repository, |_| wanted, &KnownLogs::default()).await
    }

    /// Lists timelines, history files, and the names of the logs' folders.
    ///
    /// # Errors
    /// [`Cause::Store`](crate::Cause::Store) if a listing fails.
    pub async fn read(repository: &Repository, claim: &ClaimRecord) -> Result<Self, Error> {
        let listing = || describe(repository, claim);
        let folder = name::wal_claim_folder(&claim.cluster, claim.number);
        let folders = repository.store().list_folders(&folder).await.doing(listing)?;
        let timelines =
            folders.iter().filter_map(|folder| u32::from_str_radix(folder, 16).ok().and_then(TimelineId::new));
        let reads = timelines.map(|timeline| Self::of_timeline(repository, claim, timeline)).collect::<Vec<_>>();
        let mut reads = stream::iter(reads).buffered(AT_ONCE);
        let mut all = Self { logs: BTreeMap::new(), found: ListedWal::nothing(claim) };
        while let Some((timeline, logs, found)) = reads.try_next().await.doing(listing)? {
            all.logs.insert(timeline, logs);
            all.found.absorb(found);
        }
        drop(reads);
        Ok(all)
    }

    async fn of_timeline(
        repository: &Repository,
        claim: &ClaimRecord,
        timeline: TimelineId,
    ) -> Result<(TimelineId, Vec<u32>, ListedWal), Error> {
        let folder = name::wal_timeline_folder(&claim.cluster, claim.number, timeline);
        let mut found = ListedWal::nothing(claim);
        found.know(timeline);
        pages(repository, &format!("{folder}{}.", timeline.hex()), None, &mut found).await?;
        let mut logs = Vec::new();
        for folder in repository.store().list_folders(&folder).await? {
            let number = folder.strip_prefix(&timeline.hex()).and_then(|log| u32::from_str_radix(log, 16).ok());
            // `wal get` never asks for objects in a folder with another name.
            if let Some(number) = number.filter(|number| folder == log_folder(timeline, *number)) {
                logs.push(number);
            }
        }
        logs.sort_unstable();
        Ok((timeline, logs, found))
    }

    /// Simulates a store that leaves out the newest folder of each timeline.
    #[cfg(test)]
    pub(super) fn without_newest_logs(mut self) -> Self {
        for logs in self.logs.values_mut() {
            logs.pop();
        }
        self
    }

    /// The LSN from which an archive is listed for a report: see [`WalScope::Shown`].
    fn shown_from(&self, oldest: Lsn, newest: Lsn, known: &KnownLogs) -> Lsn {
        let size = self.found.claim().wal_segment_size;
        let affordable = (SHOWN_SEGMENTS / size.segments_per_id()).clamp(1, SHOWN_LOGS);
        let first = SegmentName::containing(oldest, TimelineId::FIRST, size).log();
        let logs = self.logs.iter().flat_map(|(&timeline, logs)| logs.iter().map(move |log| (timeline, *log)));
        let unknown = logs.filter(|(timeline, log)| *log >= first && known.get(*timeline, *log).is_none());
        let mut unknown: Vec<u32> = unknown.map(|(_, log)| log).collect();
        unknown.sort_unstable_by_key(|log| Reverse(*log));
        match usize::try_from(affordable).ok().and_then(|affordable| unknown.get(affordable)) {
            None => oldest,
            Some(log) => Lsn::new(u64::from(log.saturating_add(1)) << 32).max(oldest).min(newest),
        }
    }

    /// The timelines and their history files, without any segment.
    pub fn without_segments(&self) -> &ListedWal {
        &self.found
    }

    /// Lists the wanted part of each timeline, except the logs that are known to be complete.
    ///
    /// # Errors
    /// [`Cause::Store`](crate::Cause::Store) if a listing fails.
    pub async fn list(
        &self,
        repository: &Repository,
        wanted: impl Fn(TimelineId) -> WalScope,
        known: &KnownLogs,
    ) -> Result<ListedWal, Error> {
        let claim = self.found.claim();
        let size = claim.wal_segment_size;
        let mut all = self.found.clone();
        let mut prefixes = Vec::new();
        for (&timeline, logs) in &self.logs {
            let newest = logs.get(logs.len().saturating_sub(2)).copied().unwrap_or_default();
            let first = match wanted(timeline) {
                WalScope::All => None,
                WalScope::From(lsn) => Some(lsn),
                WalScope::Shown { oldest, newest } => Some(self.shown_from(oldest, newest, known)),
                WalScope::Newest => Some(Lsn::new(u64::from(newest) << 32)),
            };
            if let Some(first) = first {
                all.begins_at(first);
            }
            let from = first.map_or(0, |first| SegmentName::containing(first, timeline, size).log().min(newest));
            let mut unknown = Vec::new();
            for &log in logs.iter().filter(|log| **log >= from) {
                match known.get(timeline, log) {
                    Some(whole) => all.add_known(timeline, log, whole),
                    None => unknown.push(log),
                }
            }
            let folder = name::wal_timeline_folder(&claim.cluster, claim.number, timeline);
            let ends = common_prefixes(timeline, logs, &unknown).into_iter();
            prefixes.extend(ends.map(|end| (format!("{folder}{end}"), None)));
            // There should be nothing after the last folder. Otherwise the store left a folder out, and the archive
            // continues.
            let after = logs.last().map(|last| format!("{folder}{}0", log_folder(timeline, *last)));
            prefixes.push((folder, after));
        }
        let lists = prefixes.iter().map(|(prefix, after)| async move {
            let mut found = ListedWal::nothing(claim);
            pages(repository, prefix, after.as_deref(), &mut found).await?;
            Ok::<_, Error>(found)
        });
        let mut lists = stream::iter(lists.collect::<Vec<_>>()).buffered(AT_ONCE);
        while let Some(found) = lists.try_next().await.doing(|| describe(repository, claim))? {
            all.absorb(found);
        }
        drop(lists);
        Ok(all)
    }
}

fn describe(repository: &Repository, claim: &ClaimRecord) -> String {
    format!("listing the WAL of {} in {}", claim.cluster, repository.describe())
}

async fn pages(repository: &Repository, prefix: &str, after: Option<&str>, found: &mut ListedWal) -> Result<(), Error> {
    let mut next = None;
    loop {
        let page = repository.store().list_page(prefix, after, next.as_deref()).await?;
        for object in &page.objects {
            found.add(repository, object);
        }
        next = page.next;
        if next.is_none() {
            return Ok(());
        }
    }
}

/// `<timeline><log>`, both of 8 hexadecimal digits: the name of the folder of a log.
fn log_folder(timeline: TimelineId, number: u32) -> String {
    format!("{}{number:08X}", timeline.hex())
}

/// Prefixes that select exactly the wanted folders: full names, or beginnings that no other existing folder has.
fn common_prefixes(timeline: TimelineId, existing: &[u32], wanted: &[u32]) -> Vec<String> {
    let tens = |log: u32| log >> 4;
    let mut prefixes = Vec::new();
    for group in wanted.chunk_by(|a, b| tens(*a) == tens(*b)) {
        let there = existing.iter().filter(|log| group.first().is_some_and(|first| tens(**log) == tens(*first)));
        match group {
            [first, _, ..] if there.count() == group.len() => {
                let mut name = log_folder(timeline, *first);
                name.pop();
                prefixes.push(name);
            }
            _ => prefixes.extend(group.iter().map(|log| format!("{}/", log_folder(timeline, *log)))),
        }
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_logs_are_one_prefix_and_parts_of_them_are_not() {
        let prefixes = |existing: &[u32], wanted: &[u32]| {
            let prefixes = common_prefixes(TimelineId::FIRST, existing, wanted);
            prefixes.iter().map(|prefix| prefix.trim_start_matches("0000000100000").to_owned()).collect::<Vec<_>>()
        };
        let all: Vec<u32> = (0x20..0x42).collect();
        assert_eq!(prefixes(&all, &all), ["02", "03", "04"]);
        assert_eq!(prefixes(&all, &all[30..]), ["03E/", "03F/", "04"]);
        assert_eq!(prefixes(&all, &[0x20, 0x3F]), ["020/", "03F/"]);
        assert_eq!(prefixes(&[0x20, 0x22, 0x2F], &[0x20, 0x22, 0x2F]), ["02"]);
        assert_eq!(prefixes(&[5], &[5]), ["005/"]);
        assert_eq!(prefixes(&[], &[]), [""; 0]);
    }
}
