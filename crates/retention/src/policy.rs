//! What the user wants to keep: the table `[retention]` of the configuration, and the limits of the planner.

use chrono::Duration;

/// What is kept. An empty policy keeps everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The length of time, back from now, in which any moment must be restorable.
    pub window: Option<Duration>,
    /// Backups that are kept beyond the window.
    pub keep: Keep,
    /// When a pack with little live data should be written again; `None` for never.
    pub rewrite: Option<RewriteRule>,
    /// An unfinished backup without a lease is treated as dead after this time. Before that, it may still be running.
    pub longest_backup: Duration,
    /// The clocks of two hosts may differ by this much. A lease is over only when it ended at least this long ago.
    pub clock_difference: Duration,
}

/// How many backups of each kind are kept; 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// The newest N backups.
    pub last: u32,
    /// The newest backup of each of the last N hours with a backup.
    pub hourly: u32,
    /// The newest backup of each of the last N days with a backup.
    pub daily: u32,
    /// The newest backup of each of the last N weeks with a backup. Weeks begin on Monday.
    pub weekly: u32,
    /// The newest backup of each of the last N months with a backup.
    pub monthly: u32,
    /// The newest backup of each of the last N years with a backup.
    pub yearly: u32,
    /// The newest N backups whose verification succeeded.
    pub verified: u32,
}

/// When a pack should be written again without its dead part. Both conditions must be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RewriteRule {
    /// At most this percentage of its bytes is live.
    pub live_percent: u8,
    /// At least this many bytes are dead.
    pub dead_bytes: u64,
}

impl Default for Policy {
    /// An empty policy, which keeps everything. A week is longer than any backup should take. An hour is more than the
    /// clocks of two hosts should differ.
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
    /// Whether there is no rule, so that nothing is ever removed.
    pub fn is_empty(&self) -> bool {
        self.window.is_none() && self.keep == Keep::default()
    }
}
