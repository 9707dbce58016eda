//! What an instance has seen of the Lease, and for how long it can prove that nobody renewed it.
//!
//! Every instance reads it all the time, even if it does not want the Lease. So an instance that is named need not
//! begin to wait only then. Time counts only while the Lease is read. When it could not be read, as when the API server
//! was away, its holder could not renew it either, and may well be writing. After a gap the time starts again.

use super::{LIMIT, RENEW};
use std::time::Duration;
use tokio::time::Instant;

/// Reads come every [`RENEW`], and take at most [`LIMIT`].
const GAP: Duration = RENEW.saturating_add(LIMIT).saturating_add(Duration::from_secs(1));

/// The newest version, and since when it was seen.
#[derive(Debug, Clone, Default)]
pub struct Sightings {
    version: Option<String>,
    since: Option<Instant>,
    looked: Option<Instant>,
}

impl Sightings {
    /// Records that it was read in this version.
    pub fn saw(&mut self, version: Option<&str>, now: Instant) {
        let gap = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) > GAP);
        if gap || self.since.is_none() || self.version.as_deref() != version {
            self.since = Some(now);
            self.version = version.map(str::to_owned);
        }
        self.looked = Some(now);
    }

    /// For how long it has been seen unchanged, up to the last read.
    pub fn unchanged_for(&self) -> Duration {
        match (self.since, self.looked) {
            (Some(since), Some(looked)) => looked.saturating_duration_since(since),
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times in seconds, and the version that was seen.
    type Looks = &'static [(u64, &'static str)];

    #[test]
    fn time_counts_from_the_last_change_while_it_is_read() {
        let start = Instant::now();
        // Each case with its reads, and the time that is proven at the end.
        let table: [(&str, Looks, u64); 7] = [
            ("never looked", &[], 0),
            ("once", &[(0, "1")], 0),
            ("unchanged", &[(0, "1"), (2, "1"), (4, "1"), (8, "1"), (10, "1")], 10),
            ("renewed", &[(0, "1"), (2, "2"), (4, "3"), (6, "3"), (9, "3")], 5),
            ("reads that came late, but not too late", &[(0, "1"), (5, "1"), (10, "1")], 10),
            ("the API server was away", &[(0, "1"), (2, "1"), (60, "1")], 0),
            ("and is back", &[(0, "1"), (2, "1"), (60, "1"), (62, "1"), (64, "1")], 4),
        ];
        for (name, looks, expected) in table {
            let mut seen = Sightings::default();
            for (second, version) in looks {
                seen.saw(Some(version), start + Duration::from_secs(*second));
            }
            assert_eq!(seen.unchanged_for(), Duration::from_secs(expected), "{name}");
        }
    }
}
