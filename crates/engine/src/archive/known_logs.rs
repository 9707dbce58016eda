//! Log folders that an earlier listing found complete, so that a monitor does not list them again every minute.
//!
//! Segments are never replaced, and a log that has all of its segments gets no more. But a person can remove objects.
//! So this knowledge is valid for a day, and only for reports to people and for status fields: no restore uses it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_pgtypes::TimelineId;
use holdfast_repo::RepositoryId;
use holdfast_repo::name::{ClaimNumber, ClusterName};
use serde::{Deserialize, Serialize};

/// After this time everything is listed again.
const KNOWN_FOR: TimeDelta = TimeDelta::hours(24);

/// The version of the file; a file with another version is ignored.
const VERSION: u32 = 1;

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
    /// The cluster.
    pub cluster: ClusterName,
    /// The claim.
    pub claim: ClaimNumber,
}

#[derive(Debug, Serialize, Deserialize)]
struct KnownArchive {
    #[serde(flatten)]
    of: ArchivePlace,
    /// When all of it was listed.
    listed_at: DateTime<Utc>,
    logs: KnownLogs,
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

    /// The complete logs of an archive, if all of it was listed within the last day.
    pub fn known(&self, of: &ArchivePlace, now: DateTime<Utc>) -> KnownLogs {
        let fresh = self.find(of).filter(|archive| (TimeDelta::zero()..KNOWN_FOR).contains(&(now - archive.listed_at)));
        fresh.map(|archive| archive.logs.clone()).unwrap_or_default()
    }

    /// Records which logs are complete. If some of them were known before, the time of the full listing stays the same.
    pub fn remember(&mut self, of: ArchivePlace, now: DateTime<Utc>, logs: KnownLogs) {
        let was_used = self.known(&of, now).count() > 0;
        let before = self.find(&of).map(|archive| archive.listed_at);
        let listed_at = before.filter(|_| was_used).unwrap_or(now);
        self.archives.retain(|archive| archive.of != of);
        self.archives.push(KnownArchive { of, listed_at, logs });
    }

    fn find(&self, of: &ArchivePlace) -> Option<&KnownArchive> {
        self.archives.iter().find(|archive| archive.of == *of)
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
        cache.remember(main.clone(), at(0), logs.clone());
        cache.save(&path).unwrap();
        let mut cache = WalCache::load(&path);
        assert_eq!(cache.known(&main, at(23)), logs);
        assert_eq!(cache.known(&copy, at(23)).count(), 0);
        // The cache was used, so the day still counts from the beginning.
        cache.remember(main.clone(), at(23), logs.clone());
        assert_eq!(cache.known(&main, at(25)).count(), 0);
        // Not used any more: everything was listed, and a new day begins.
        cache.remember(main.clone(), at(25), logs.clone());
        assert_eq!(cache.known(&main, at(48)), logs);
        // A clock that was set back.
        assert_eq!(cache.known(&main, at(1)).count(), 0);

        std::fs::write(&path, "{\"version\": 2, \"archives\": []}").unwrap();
        assert_eq!(WalCache::load(&path).archives.len(), 0);
        std::fs::write(&path, "not JSON").unwrap();
        assert_eq!(WalCache::load(&path).archives.len(), 0);
    }
}
