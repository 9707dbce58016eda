//! What the user wants to keep: the table `[retention]` of the configuration, and the bounds of the planner.

use chrono::Duration;

/// What is kept. Nothing written is nothing deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How far back any moment can be restored.
    pub window: Option<Duration>,
    /// Backups kept beyond the window.
    pub keep: Keep,
    /// When a pack with little live data is written again; `None` for never.
    pub rewrite: Option<RewriteRule>,
    /// An unfinished backup without a lease is taken for dead after this time. Before, it may still run somewhere.
    pub longest_backup: Duration,
    /// Clocks of two hosts may differ by this much: a lease is over only when it ended so long ago.
    pub clock_difference: Duration,
}

/// How many backups of each kind are kept, 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// The newest so many.
    pub last: u32,
    /// The newest of each of so many hours that have a backup.
    pub hourly: u32,
    /// The newest of each of so many days.
    pub daily: u32,
    /// The newest of each of so many weeks, which begin on Monday.
    pub weekly: u32,
    /// The newest of each of so many months.
    pub monthly: u32,
    /// The newest of each of so many years.
    pub yearly: u32,
    /// The newest so many whose verification succeeded.
    pub verified: u32,
}

/// When a pack is worth writing again without its dead part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RewriteRule {
    /// At most so many percent of its bytes are live.
    pub live_percent: u8,
    /// At least so many bytes are dead.
    pub dead_bytes: u64,
}

impl Default for Policy {
    /// Nothing is wished, so everything is kept. A week is longer than any backup should take; an hour is more than
    /// the clocks of two hosts differ.
    fn default() -> Self {
        Self {
            window: None,
            keep: Keep::default(),
            rewrite: None,
            longest_backup: Duration::days(7),
            clock_difference: Duration::hours(1),
        }
    }
}

impl Policy {
    /// Whether nothing was written that would let anything go.
    pub fn is_empty(&self) -> bool {
        self.window.is_none() && self.keep == Keep::default()
    }
}
