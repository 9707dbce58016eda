//! Log folders that an earlier listing found complete, so that a monitor does not list them again every minute.
//!
//! Segments are never replaced, and a log that has all of its segments gets no more. But a person can remove objects.
//! So this knowledge is valid for a day, for each log by itself, and only for reports to people and for status fields:
//! a restore uses only what it has listed itself. Each report lists a bounded part of the archive, so a long archive
//! becomes known step by step.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_pgtypes::TimelineId;
use holdfast_repo::RepositoryId;
use holdfast_repo::name::{ClaimNumber, ClusterName};
use serde::{Deserialize, Serialize};

/// After this time a log is listed again.
const KNOWN_FOR: TimeDelta = TimeDelta::hours(24);

/// The version of the file; a file with another version is ignored.
const VERSION: u32 = 2;

/// A log folder with all of its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownLog {
    /// Bytes of all objects in it.
    pub stored_bytes: u64,
    /// Backup history files in it.
    pub backup_histories: u64,
}

/// The complete logs of one claim, by timeline and number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KnownLogs(BTreeMap<TimelineId, BTreeMap<u32, KnownLog>>);

impl KnownLogs {
    /// Records that a log is complete.
    pub fn insert(&mut self, timeline: TimelineId, number: u32, log: KnownLog) {
        self.0.entry(timeline).or_default().insert(number, log);
    }

    /// The facts of a log; `None` if it is not known to be complete.
    pub fn get(&self, timeline: TimelineId, number: u32) -> Option<KnownLog> {
        self.0.get(&timeline)?.get(&number).copied()
    }

    /// Adds the logs that another listing found complete.
    pub(crate) fn absorb(&mut self, other: Self) {
        for (timeline, logs) in other.0 {
            self.0.entry(timeline).or_default().extend(logs);
        }
    }

    /// The number of known logs.
    pub fn count(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }
}

/// The content of the file: known logs of several archives.
#[derive(Debug, Serialize, Deserialize)]
pub struct WalCache {
    version: u32,
    archives: Vec<KnownArchive>,
}

/// The identity of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivePlace {
    /// The repository's id.
    pub repository: RepositoryId,
    /// Where the repository is: its URL and endpoint. They are needed because a copy of a repository has the same id.
    pub place: String,
    /// Whose WAL it is.
    pub cluster: ClusterName,
    /// WAL of another claim is in other folders.
    pub claim: ClaimNumber,
}

#[derive(Debug, Serialize, Deserialize)]
struct KnownArchive {
    #[serde(flatten)]
    of: ArchivePlace,
    logs: BTreeMap<TimelineId, BTreeMap<u32, Remembered>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remembered {
    #[serde(flatten)]
    log: KnownLog,
    /// When it was listed.
    listed_at: DateTime<Utc>,
}

impl Remembered {
    fn is_fresh(&self, now: DateTime<Utc>) -> bool {
        (TimeDelta::zero()..KNOWN_FOR).contains(&(now - self.listed_at))
    }
}

impl Default for WalCache {
    fn default() -> Self {
        Self { version: VERSION, archives: Vec::new() }
    }
}

impl WalCache {
    /// Reads the file. A file that cannot be read counts as empty, because it is a cache.
    pub fn load(path: &Path) -> Self {
        let read = std::fs::read(path).map_err(|error| error.to_string());
        let parsed = read.and_then(|text| serde_json::from_slice::<Self>(&text).map_err(|error| error.to_string()));
        match parsed {
            Ok(cache) if cache.version == VERSION => cache,
            Ok(cache) => {
                tracing::debug!(path = %path.display(), version = cache.version, "another version of the cache");
                Self::default()
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), error, "no cache of listed WAL");
                Self::default()
            }
        }
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// The file system's error.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut other = path.as_os_str().to_owned();
        other.push(format!(".{}", std::process::id()));
        let other = Path::new(&other);
        let written = std::fs::write(other, serde_json::to_vec(self)?).and_then(|()| std::fs::rename(other, path));
        if written.is_err() {
            drop(std::fs::remove_file(other));
        }
        written
    }

    /// The logs of an archive that were complete within the last day.
    pub fn known(&self, of: &ArchivePlace, now: DateTime<Utc>) -> KnownLogs {
        let mut known = KnownLogs::default();
        for (timeline, number, remembered) in self.fresh(of, now) {
            known.insert(timeline, number, remembered.log);
        }
        known
    }

    /// Records which logs a listing found complete, from its first log on: older ones were not listed. A log that was
    /// already known was not listed again, so its day continues. Both are in [`ListedWal`](super::ListedWal).
    pub fn remember(&mut self, of: ArchivePlace, now: DateTime<Utc>, first: u32, complete: KnownLogs) {
        let mut logs: BTreeMap<TimelineId, BTreeMap<u32, Remembered>> = BTreeMap::new();
        for (timeline, number, remembered) in self.fresh(&of, now) {
            if number < first || complete.get(timeline, number).is_some() {
                logs.entry(timeline).or_default().insert(number, remembered.clone());
            }
        }
        for (timeline, of_timeline) in complete.0 {
            for (number, log) in of_timeline {
                logs.entry(timeline).or_default().entry(number).or_insert(Remembered { log, listed_at: now });
            }
        }
        self.archives.retain(|archive| archive.of != of);
        self.archives.push(KnownArchive { of, logs });
    }

    fn fresh(&self, of: &ArchivePlace, now: DateTime<Utc>) -> impl Iterator<Item = (TimelineId, u32, &Remembered)> {
        let logs = self.archives.iter().filter(|archive| archive.of == *of).flat_map(|archive| &archive.logs);
        let all = logs.flat_map(|(timeline, logs)| logs.iter().map(|(number, log)| (*timeline, *number, log)));
        all.filter(move |(_, _, log)| log.is_fresh(now))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn what_is_known_counts_for_a_day_since_all_was_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wal-cache.json");
        let main = ArchivePlace {
            repository: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            place: "s3://one".to_owned(),
            cluster: "main".parse().unwrap(),
            claim: ClaimNumber::FIRST,
        };
        let copy = ArchivePlace { place: "s3://copy".to_owned(), ..main.clone() };
        let start: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        let at = |hours| start + TimeDelta::hours(hours);
        let mut logs = KnownLogs::default();
        logs.insert(TimelineId::FIRST, 7, KnownLog { stored_bytes: 10, backup_histories: 1 });

        assert_eq!(WalCache::load(&path).known(&main, at(0)).count(), 0);
        let mut cache = WalCache::default();
        cache.remember(main.clone(), at(0), 0, logs.clone());
        cache.save(&path).unwrap();
        let mut cache = WalCache::load(&path);
        assert_eq!(cache.known(&main, at(23)), logs);
        assert_eq!(cache.known(&copy, at(23)).count(), 0);
        // Another log is found later. The day of the first one continues.
        let mut more = logs.clone();
        more.insert(TimelineId::FIRST, 8, KnownLog { stored_bytes: 11, backup_histories: 0 });
        cache.remember(main.clone(), at(23), 0, more.clone());
        assert_eq!(cache.known(&main, at(23)), more);
        let known = cache.known(&main, at(25));
        assert_eq!((known.get(TimelineId::FIRST, 7), known.count()), (None, 1));
        // A listing that began at a later log says nothing about older logs; one that began earlier forgets logs that
        // are gone.
        cache.remember(main.clone(), at(25), 9, KnownLogs::default());
        assert_eq!(cache.known(&main, at(25)).count(), 1);
        cache.remember(main.clone(), at(25), 8, KnownLogs::default());
        assert_eq!(cache.known(&main, at(25)).count(), 0);
        cache.remember(main.clone(), at(25), 0, logs.clone());
        assert_eq!(cache.known(&main, at(48)), logs);
        // A clock that was set back.
        assert_eq!(cache.known(&main, at(1)).count(), 0);

        std::fs::write(&path, "{\"version\": 1, \"archives\": []}").unwrap();
        assert_eq!(WalCache::load(&path).archives.len(), 0);
        std::fs::write(&path, "not JSON").unwrap();
        assert_eq!(WalCache::load(&path).archives.len(), 0);
    }
}
