//! Progress of a verb while it runs.
//!
//! The engine reports; the caller decides how to show it (a bar, a line every few seconds, nothing). Calls come from
//! many threads and must be cheap: an implementation only counts, and draws elsewhere.

/// Receives progress of one verb.
pub trait Progress: Send + Sync {
    /// A named phase begins; `total_bytes` is known for phases that move data.
    fn phase(&self, name: &str, total_bytes: Option<u64>);
    /// `bytes` more bytes of the phase's total are done.
    fn advance(&self, bytes: u64);
    /// A fact that gets its own line, such as "backup 20260822T101500Z starts at 0/3000028".
    fn note(&self, text: &str);
    /// The id of the backup that is made or restored.
    fn backup(&self, _id: &str) {}
}

/// Ignores all progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn phase(&self, _name: &str, _total_bytes: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn note(&self, _text: &str) {}
}
