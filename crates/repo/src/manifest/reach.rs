//! The need of extents and patches for each pack: how far they reach into it, which is checked against the list of
//! packs, and how many bytes of its frames.
//!
//! The list comes last in a manifest, so that a manifest can be written while packs are still being made. Until then
//! only a few numbers are kept for each pack, for millions of extents.

use std::collections::BTreeMap;

use super::entry::FileEntry;
use super::extent::Extent;
use super::packs::PackEntry;
use crate::format_error::Fault;

/// The need for each pack.
#[derive(Debug, Clone, Default)]
pub(super) struct Reach {
    needs: BTreeMap<u32, Need>,
    /// The pack of the last extent and its need so far, because neighbours mostly share a pack.
    last: Option<(u32, Need)>,
}

/// The need for one pack.
#[derive(Debug, Clone, Copy, Default)]
struct Need {
    /// The offset after the last needed byte.
    end: u64,
    /// Needed bytes of frames. Small files that share a frame come one after the other, so the frame is counted once.
    live_bytes: u64,
    /// The frame that was counted last.
    frame_offset: Option<u32>,
}

impl Need {
    fn add(&mut self, place: &Extent) {
        self.end = self.end.max(place.frame().range().end);
        if self.frame_offset != Some(place.frame_offset) {
            self.live_bytes = self.live_bytes.saturating_add(u64::from(place.frame_length));
            self.frame_offset = Some(place.frame_offset);
        }
    }
}

impl Reach {
    /// Records the extents and patches of a file.
    pub(super) fn note(&mut self, entry: &FileEntry<'_>) {
        let patches = entry.patches().iter().map(|patch| patch.place);
        for place in entry.extents().iter().chain(patches).filter(|place| !place.is_hole()) {
            match &mut self.last {
                Some((pack, need)) if *pack == place.pack => need.add(&place),
                last => {
                    let mut need = self.needs.get(&place.pack).copied().unwrap_or_default();
                    need.add(&place);
                    if let Some((pack, before)) = last.replace((place.pack, need)) {
                        self.needs.insert(pack, before);
                    }
                }
            }
        }
    }

    /// Fails if an extent names a pack that is not listed, or reaches beyond the end of its pack.
    pub(super) fn check(&mut self, packs: &[PackEntry]) -> Result<(), Fault> {
        if let Some((pack, need)) = self.last.take() {
            self.needs.insert(pack, need);
        }
        for (number, need) in &self.needs {
            let wrong = |problem| Err(Fault::malformed("list of packs", problem));
            match packs.get(*number as usize) {
                None => return wrong(format!("pack number {number} is not listed")),
                Some(pack) if need.end > pack.size_bytes => {
                    return wrong(format!("an extent beyond the end of pack {}", pack.name));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The needed bytes of the frames of a pack, after [`Self::check`] succeeded; `None` for a pack that is not needed.
    pub(super) fn live_bytes(&self, pack: u32) -> Option<u64> {
        self.needs.get(&pack).map(|need| need.live_bytes)
    }
}
