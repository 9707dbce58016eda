//! How far the extents reach into each pack, checked against the list of packs.
//!
//! The list comes last in a manifest, so that a manifest can be written while packs are still being made. Until then
//! the reader remembers only the furthest used byte of each pack: a few entries for millions of extents.

use std::collections::BTreeMap;

use super::entry::{FileEntry, PackEntry};
use crate::format_error::Fault;

/// The furthest used byte of each pack.
#[derive(Debug, Clone, Default)]
pub(super) struct PackReach {
    ends: BTreeMap<u32, u64>,
    /// The pack of the last extent and its end so far, because neighbours mostly share a pack.
    last: Option<(u32, u64)>,
}

impl PackReach {
    /// Records the extents of a file.
    pub(super) fn note(&mut self, entry: &FileEntry<'_>) {
        for extent in entry.extents().iter().filter(|extent| !extent.is_hole()) {
            let end = extent.frame().range().end;
            match &mut self.last {
                Some((pack, furthest)) if *pack == extent.pack => *furthest = end.max(*furthest),
                last => {
                    let before = last.replace((extent.pack, end));
                    self.keep(before);
                }
            }
        }
    }

    /// Fails if an extent names a pack that is not listed, or reaches beyond the end of its pack.
    pub(super) fn check(mut self, packs: &[PackEntry]) -> Result<(), Fault> {
        let last = self.last.take();
        self.keep(last);
        for (number, end) in self.ends {
            let wrong = |problem| Err(Fault::malformed("list of packs", problem));
            match packs.get(number as usize) {
                None => return wrong(format!("pack number {number} is not listed")),
                Some(pack) if end > pack.size_bytes => {
                    return wrong(format!("an extent beyond the end of pack {}", pack.name));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn keep(&mut self, reach: Option<(u32, u64)>) {
        if let Some((pack, end)) = reach {
            let furthest = self.ends.entry(pack).or_default();
            *furthest = end.max(*furthest);
        }
    }
}
