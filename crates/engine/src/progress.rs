//! What a verb tells of its progress while it runs.
//!
//! The engine reports; how it looks (a bar, a line every few seconds, nothing) is the caller's.
//! Calls come from many threads and must be cheap: an implementation counts and draws elsewhere.

/// Receives progress of one verb.
pub trait Progress: Send + Sync {
    /// A named phase begins; `total_bytes` is known for phases that move data.
    fn phase(&self, name: &str, total_bytes: Option<u64>);
    /// So many bytes of the phase's total are done.
    fn advance(&self, bytes: u64);
    /// A fact worth a line of its own, such as "backup 20260822T101500Z starts at 0/3000028".
    fn note(&self, text: &str);
    /// This is the backup that is made, or restored.
    fn backup(&self, _id: &str) {}
}

/// Reports to nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn phase(&self, _name: &str, _total_bytes: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn note(&self, _text: &str) {}
}
