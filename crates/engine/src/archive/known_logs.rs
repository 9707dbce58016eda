//! Log folders that an earlier listing found whole, so that who looks every minute does not list them every minute.
//!
//! Segments are never replaced, and a log that has all of its segments gets no more. What can happen to it is that someone
//! removes objects. So what is known counts for a day, and only where a person or a status field looks: nothing that
//! restores reads this.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_pgtypes::TimelineId;
use holdfast_repo::RepositoryId;
use holdfast_repo::name::ClaimNumber;
use serde::{Deserialize, Serialize};

/// After this time everything is listed once more.
const KNOWN_FOR: TimeDelta = TimeDelta::hours(24);

/// What a file with another number holds is not used.
const VERSION: u32 = 1;

/// A log folder with all of its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownLog {
    /// Bytes of all objects in it.
    pub stored_bytes: u64,
    /// Backup history files in it.
    pub backup_histories: u64,
}

/// The whole logs of one claim, by timeline and number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KnownLogs(BTreeMap<TimelineId, BTreeMap<u32, KnownLog>>);

impl KnownLogs {
    /// Takes down that a log is whole.
    pub fn insert(&mut self, timeline: TimelineId, number: u32, log: KnownLog) {
        self.0.entry(timeline).or_default().insert(number, log);
    }

    /// What is known of a log.
    pub fn get(&self, timeline: TimelineId, number: u32) -> Option<KnownLog> {
        self.0.get(&timeline)?.get(&number).copied()
    }

    /// How many logs are known.
    pub fn count(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }
}

/// What a file remembers of several archives.
#[derive(Debug, Serialize, Deserialize)]
pub struct WalCache {
    version: u32,
    archives: Vec<KnownArchive>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KnownArchive {
    repository: RepositoryId,
    cluster: String,
    claim: ClaimNumber,
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
    /// Reads the file. What cannot be read is not known: it is a cache.
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
    /// What the file system says.
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

    /// The whole logs of an archive, if all of it was listed within the last day.
    pub fn known(&self, repository: RepositoryId, cluster: &str, claim: ClaimNumber, now: DateTime<Utc>) -> KnownLogs {
        let archive = self.find(repository, cluster, claim);
        let fresh = archive.filter(|archive| (TimeDelta::zero()..KNOWN_FOR).contains(&(now - archive.listed_at)));
        fresh.map(|archive| archive.logs.clone()).unwrap_or_default()
    }

    /// Takes down which logs are whole. When all was listed stays as it was if some of it was known before.
    pub fn remember(
        &mut self,
        repository: RepositoryId,
        cluster: &str,
        claim: ClaimNumber,
        now: DateTime<Utc>,
        logs: KnownLogs,
    ) {
        let was_used = self.known(repository, cluster, claim, now).count() > 0;
        let before = self.find(repository, cluster, claim).map(|archive| archive.listed_at);
        let listed_at = before.filter(|_| was_used).unwrap_or(now);
        self.archives.retain(|archive| !archive.is_of(repository, cluster, claim));
        self.archives.push(KnownArchive { repository, cluster: cluster.to_owned(), claim, listed_at, logs });
    }

    fn find(&self, repository: RepositoryId, cluster: &str, claim: ClaimNumber) -> Option<&KnownArchive> {
        self.archives.iter().find(|archive| archive.is_of(repository, cluster, claim))
    }
}

impl KnownArchive {
    fn is_of(&self, repository: RepositoryId, cluster: &str, claim: ClaimNumber) -> bool {
        self.repository == repository && self.cluster == cluster && self.claim == claim
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_counts_for_a_day_since_all_was_listed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wal-cache.json");
        let repository: RepositoryId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let claim = ClaimNumber::FIRST;
        let start: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        let at = |hours| start + TimeDelta::hours(hours);
        let mut logs = KnownLogs::default();
        logs.insert(TimelineId::FIRST, 7, KnownLog { stored_bytes: 10, backup_histories: 1 });

        WalCache::load(&path).known(repository, "main", claim, at(0));
        let mut cache = WalCache::default();
        cache.remember(repository, "main", claim, at(0), logs.clone());
        cache.save(&path).unwrap();
        let mut cache = WalCache::load(&path);
        assert_eq!(cache.known(repository, "main", claim, at(23)), logs);
        assert_eq!(cache.known(repository, "other", claim, at(23)).count(), 0);
        // Used, so the day goes on from the beginning.
        cache.remember(repository, "main", claim, at(23), logs.clone());
        assert_eq!(cache.known(repository, "main", claim, at(25)).count(), 0);
        // Not used any more: all was listed, and a new day begins.
        cache.remember(repository, "main", claim, at(25), logs.clone());
        assert_eq!(cache.known(repository, "main", claim, at(48)), logs);
        // A clock that went back.
        assert_eq!(cache.known(repository, "main", claim, at(1)).count(), 0);

        std::fs::write(&path, "{\"version\": 2, \"archives\": []}").unwrap();
        assert_eq!(WalCache::load(&path).archives.len(), 0);
        std::fs::write(&path, "not JSON").unwrap();
        assert_eq!(WalCache::load(&path).archives.len(), 0);
    }
}
