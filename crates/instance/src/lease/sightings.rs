//! What an instance has seen of the Lease, and for how long it can say that nobody renewed it.
//!
//! Every instance looks all the time, also while it wants nothing, so that whoever is named need not begin to wait only
//! then. Time counts only while it was looked: a Lease that could not be read, as when the API server was away, could not be
//! renewed either, and its holder may well be writing. After a gap the time begins anew.

use super::{LIMIT, RENEW};
use std::time::Duration;
use tokio::time::Instant;

/// Looks come every [`RENEW`], and take [`LIMIT`] at the most.
const GAP: Duration = RENEW.saturating_add(LIMIT).saturating_add(Duration::from_secs(1));

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Sightings {
    version: Option<String>,
    since: Option<Instant>,
    looked: Option<Instant>,
}

impl Sightings {
    /// It was read in this version.
    pub fn saw(&mut self, version: Option<&str>, now: Instant) {
        let gap = self.looked.is_none_or(|looked| now.saturating_duration_since(looked) > GAP);
        if gap || self.since.is_none() || self.version.as_deref() != version {
            self.since = Some(now);
            self.version = version.map(str::to_owned);
        }
        self.looked = Some(now);
    }

    /// For how long it has been seen unchanged, up to the last look.
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

    /// Moments in seconds, and what was seen.
    type Looks = &'static [(u64, &'static str)];

    #[test]
    fn time_counts_from_the_last_change_while_it_was_looked() {
        let start = Instant::now();
        // Each with what it saw, and the time that can be said in the end.
        let table: [(&str, Looks, u64); 7] = [
            ("never looked", &[], 0),
            ("once", &[(0, "1")], 0),
            ("unchanged", &[(0, "1"), (2, "1"), (4, "1"), (8, "1"), (10, "1")], 10),
            ("renewed", &[(0, "1"), (2, "2"), (4, "3"), (6, "3"), (9, "3")], 5),
            ("looks that came late, but not too late", &[(0, "1"), (5, "1"), (10, "1")], 10),
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
