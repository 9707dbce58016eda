//! Holes that may still be filled: WAL that is on its way.
//!
//! The archiver sends several segments at once, so a segment may be stored a moment before the one before it. That is
//! also true where a timeline ends: the first segment of the next timeline, which another server sends, may be stored
//! before the last one of its parent. So the segment after a hole is looked at on its path, and not on its timeline.

use chrono::{DateTime, Utc};
use holdfast_pgtypes::Lsn;
use holdfast_repo::catalog::WalInventory;
use holdfast_repo::record::ClaimRecord;

use super::findings::{Places, add_range};
use super::losses::under_their_names;
use crate::archive::is_young;
use crate::repository::Repository;
use crate::restore::Line;

/// How many of the newest holes of a line are looked at: each costs a request, and older ones are never young.
const NEWEST: usize = 16;

/// The missing segments of the lines after which a segment was stored so recently that they may still arrive.
pub(super) async fn young(
    repository: &Repository,
    claim: &ClaimRecord,
    lines: &[Line],
    wal: &WalInventory,
    now: DateTime<Utc>,
) -> Places {
    let size = claim.wal_segment_size;
    let mut found = Places::new();
    for line in lines {
        let holes = line.holes.iter().map(|of| of.hole).chain(line.rejected.iter().map(|of| of.hole));
        let mut holes: Vec<(u64, u64)> =
            holes.map(|hole| (hole.first_missing.number(size), hole.count.saturating_sub(1))).collect();
        holes.sort_unstable();
        for (first, more) in holes.into_iter().rev().take(NEWEST) {
            let last = first.saturating_add(more);
            let Some(lsn) = last.checked_add(1).and_then(|next| next.checked_mul(size.as_u64())) else { continue };
            let next = line.ancestry.segment_containing(Lsn::new(lsn), size);
            if !wal.contains(next) || !is_young(repository, claim, next, wal.last_stored(next.timeline()), now).await {
                continue;
            }
            for range in under_their_names(&line.ancestry, first, last, size) {
                let (first, last) = (range.first.number(size), range.last.number(size));
                add_range(&mut found, claim.number, range.timeline, first, last);
            }
        }
    }
    found
}
