//! The parent of an incremental backup in one repository, and what has not changed since.
//!
//! The content of the parent is the same in all repositories, but its places in packs are not, and neither is the order
//! of its files: each repository has other frames that are worth a reference ([`super::sharing`]).
//!
//! A file whose entry would be the parent's is only noted. At the end of the copy it is known which frames of the
//! parent have only such files.

use std::sync::Arc;

use holdfast_repo::manifest::{
    Extent, Extents, FileEntry, FileFrame, FileKind, FrameReference, Manifest, Origin, Patch,
};

use super::super::pack_list::PackList;
use super::sharing::{Candidate, share};
use crate::error::{Cause, Error};
use crate::restore::PathIndex;

/// The parent's manifest in one repository.
#[derive(Debug, Clone)]
pub(in super::super) struct ParentLane {
    pub(in super::super) manifest: Arc<Manifest>,
    /// For each file of the base, its position in this manifest; `None` if all positions are the same.
    positions: Option<Arc<[u32]>>,
}

impl ParentLane {
    /// The repository whose manifest is the base.
    pub(in super::super) fn of_base(manifest: Arc<Manifest>) -> Self {
        Self { manifest, positions: None }
    }

    /// Another repository. `None` if this manifest has not the same files as the base, with the same bytes, wherever
    /// these are stored.
    pub(in super::super) fn beside(base: &Manifest, manifest: &Arc<Manifest>, index: &PathIndex) -> Option<Self> {
        if base.len() != manifest.len() {
            return None;
        }
        let mut positions = Vec::with_capacity(base.len());
        for (at, expected) in base.files().enumerate() {
            let here = manifest.file(at).filter(|here| here.path == expected.path && is_same_kind(here, &expected));
            let (at, found) = if let Some(found) = here {
                (at, found)
            } else {
                let at = index.find(manifest, expected.path)?;
                (at, manifest.file(at)?)
            };
            if !has_same_content(&found, &expected) {
                return None;
            }
            positions.push(at as u32);
        }
        let is_same = positions.iter().zip(0..).all(|(here, at)| *here == at);
        Some(Self { manifest: Arc::clone(manifest), positions: (!is_same).then(|| positions.into()) })
    }
}

fn is_same_kind(one: &FileEntry<'_>, other: &FileEntry<'_>) -> bool {
    std::mem::discriminant(&one.kind) == std::mem::discriminant(&other.kind)
}

/// Whether two files have the same bytes, wherever these are stored.
fn has_same_content(one: &FileEntry<'_>, other: &FileEntry<'_>) -> bool {
    let same_bytes = |a: &Extent, b: &Extent| (a.hash, a.length, a.is_hole()) == (b.hash, b.length, b.is_hole());
    let (mut extents, mut patches) =
        (one.extents().iter().zip(other.extents().iter()), one.patches().iter().zip(other.patches()));
    is_same_kind(one, other)
        && one.size_bytes == other.size_bytes
        && one.extents().len() == other.extents().len()
        && one.patches().len() == other.patches().len()
        && extents.all(|(a, b)| same_bytes(&a, &b))
        && patches.all(|(a, b)| (a.extent, a.at) == (b.extent, b.at) && same_bytes(&a.place, &b.place))
}

/// The parent in one repository, while a backup writes there.
pub(in super::super) struct Kept {
    lane: ParentLane,
    /// For each pack of the parent, its number in our manifest, as far as it is needed.
    numbers: Vec<Option<u32>>,
    /// For each position in the parent's manifest, whether our entry is the parent's.
    unchanged: Vec<bool>,
}

/// What a manifest takes over of its parent.
#[derive(Debug, Default)]
pub(in super::super) struct Shared {
    /// The manifests to which it refers.
    pub(in super::super) origins: Vec<Origin>,
    /// Each reference with its frame, whose files are at positions in the parent's manifest.
    pub(in super::super) frames: Vec<(FrameReference, FileFrame)>,
    /// The positions of unchanged files that are written again.
    pub(in super::super) written: Vec<usize>,
}

/// Memory for an entry with our pack numbers.
#[derive(Debug, Default)]
pub(in super::super) struct Places {
    extents: Vec<Extent>,
    patches: Vec<Patch>,
}

impl Kept {
    pub(in super::super) fn new(lane: ParentLane) -> Self {
        let (packs, files) = (lane.manifest.packs().len(), lane.manifest.len());
        Self { lane, numbers: vec![None; packs], unchanged: vec![false; files] }
    }

    fn position(&self, of_base: u32) -> usize {
        let here = self.lane.positions.as_ref().and_then(|positions| positions.get(of_base as usize).copied());
        here.unwrap_or(of_base) as usize
    }

    /// The parent's extent `number` of a file of the base, and the patches over it, with our pack numbers.
    pub(in super::super) fn extent(
        &mut self,
        of_base: u32,
        number: u32,
        packs: &mut PackList,
        patches: &mut Vec<Patch>,
    ) -> Result<Extent, Error> {
        let (manifest, position) = (Arc::clone(&self.lane.manifest), self.position(of_base));
        let file = manifest.file(position).ok_or_else(not_in_parent)?;
        let extent = file.extents().get(number as usize).ok_or_else(not_in_parent)?;
        let extent = self.renumbered(extent, packs)?;
        let first = file.patches().partition_point(|patch| patch.extent < number);
        let over = file.patches().get(first..).unwrap_or_default();
        for patch in over.iter().take_while(|patch| patch.extent == number) {
            let place = self.renumbered(patch.place, packs)?;
            patches.push(Patch { place, ..*patch });
        }
        Ok(extent)
    }

    /// The CRC-32C of a file of the base that now has this size; `None` if it is not known.
    pub(in super::super) fn crc32c(&self, of_base: u32, size_bytes: u64) -> Result<Option<u32>, Error> {
        let parent = self.lane.manifest.file(self.position(of_base)).ok_or_else(not_in_parent)?;
        let FileKind::File { crc32c, .. } = parent.kind else { return Err(not_in_parent()) };
        Ok(crc32c.filter(|_| parent.size_bytes == size_bytes))
    }

    /// Notes a file of the base whose whole content is the parent's, if its mode and time are so as well; otherwise
    /// `false`.
    pub(in super::super) fn note_kept(&mut self, of_base: u32, size_bytes: u64, mode: u32, mtime_seconds: u64) -> bool {
        let position = self.position(of_base);
        let is_same = self.lane.manifest.file(position).is_some_and(|parent| {
            (parent.size_bytes, parent.mode, parent.mtime_seconds) == (size_bytes, mode, mtime_seconds)
        });
        is_same && self.note(position)
    }

    /// Notes an entry of a file of the base if it is the parent's to the last place; otherwise `false`.
    pub(in super::super) fn note_same(&mut self, of_base: u32, entry: &FileEntry<'_>) -> bool {
        let position = self.position(of_base);
        self.lane.manifest.file(position).is_some_and(|parent| self.is_same(entry, &parent)) && self.note(position)
    }

    fn note(&mut self, position: usize) -> bool {
        self.unchanged.get_mut(position).map(|unchanged| *unchanged = true).is_some()
    }

    fn is_same(&self, entry: &FileEntry<'_>, parent: &FileEntry<'_>) -> bool {
        let crc32c = |entry: &FileEntry<'_>| match entry.kind {
            FileKind::File { crc32c, .. } => crc32c,
            FileKind::Directory | FileKind::Symlink { .. } => None,
        };
        let facts = |entry: &FileEntry<'_>| (entry.size_bytes, entry.mode, entry.mtime_seconds, crc32c(entry));
        let is_same_place = |ours: &Extent, theirs: &Extent| {
            let number = self.numbers.get(theirs.pack as usize).copied().flatten();
            let pack = if theirs.is_hole() { Some(theirs.pack) } else { number };
            pack == Some(ours.pack) && *ours == Extent { pack: ours.pack, ..*theirs }
        };
        let (mut extents, patches) = (entry.extents().iter().zip(parent.extents().iter()), entry.patches().iter());
        entry.path == parent.path
            && is_same_kind(entry, parent)
            && facts(entry) == facts(parent)
            && entry.extents().len() == parent.extents().len()
            && entry.patches().len() == parent.patches().len()
            && extents.all(|(ours, theirs)| is_same_place(&ours, &theirs))
            && patches.zip(parent.patches()).all(|(ours, theirs)| {
                (ours.extent, ours.at) == (theirs.extent, theirs.at) && is_same_place(&ours.place, &theirs.place)
            })
    }

    /// Decides what is taken over, and gives all packs of unchanged files their numbers.
    pub(in super::super) fn share(&mut self, packs: &mut PackList) -> Result<Shared, Error> {
        let manifest = Arc::clone(&self.lane.manifest);
        let mut places = Places::default();
        for position in self.noted() {
            self.entry(position, packs, &mut places)?;
        }
        let is_unchanged =
            |frame: &FileFrame| self.unchanged.get(frame.files.clone()).is_some_and(|all| !all.contains(&false));
        // Object 0 is the parent itself.
        let object = |frame: &FileFrame| frame.origin.map_or(0, |origin| origin as usize + 1);
        let candidates: Vec<Candidate> = manifest
            .frames()
            .iter()
            .map(|frame| Candidate {
                object: object(frame),
                stored_bytes: frame.location.length,
                raw_bytes: frame.raw_bytes,
                is_unchanged: is_unchanged(frame),
            })
            .collect();
        let of_origins = manifest.origins().iter().map(|origin| origin.packs.len() as u64);
        let tables: Vec<u64> = std::iter::once(manifest.packs().len() as u64).chain(of_origins).collect();
        let (mut shared, mut last) = (Shared::default(), None);
        for at in share(&candidates, &tables) {
            let Some(frame) = manifest.frames().get(at) else { continue };
            if last != Some(object(frame)) {
                last = Some(object(frame));
                shared.origins.push(manifest.origin_of(frame.origin, &self.numbers).ok_or_else(not_in_parent)?);
            }
            let origin = shared.origins.len() as u32 - 1;
            let reference = FrameReference { origin, location: frame.location, hash: frame.hash };
            shared.frames.push((reference, frame.clone()));
            if let Some(unchanged) = self.unchanged.get_mut(frame.files.clone()) {
                unchanged.fill(false);
            }
        }
        shared.written = self.noted();
        Ok(shared)
    }

    fn noted(&self) -> Vec<usize> {
        self.unchanged.iter().enumerate().filter(|(_, unchanged)| **unchanged).map(|(position, _)| position).collect()
    }

    /// The parent's entry at a position of its manifest in this repository, with our pack numbers.
    pub(in super::super) fn entry<'a>(
        &'a mut self,
        position: usize,
        packs: &mut PackList,
        places: &'a mut Places,
    ) -> Result<FileEntry<'a>, Error> {
        let manifest = Arc::clone(&self.lane.manifest);
        let parent = manifest.file(position).ok_or_else(not_in_parent)?;
        let FileKind::File { crc32c, .. } = parent.kind else { return Err(not_in_parent()) };
        places.extents.clear();
        places.patches.clear();
        for extent in parent.extents().iter() {
            places.extents.push(self.renumbered(extent, packs)?);
        }
        for patch in parent.patches() {
            places.patches.push(Patch { place: self.renumbered(patch.place, packs)?, ..*patch });
        }
        let kind = FileKind::File { crc32c, extents: Extents::of(&places.extents), patches: &places.patches };
        let parent = self.lane.manifest.file(position).ok_or_else(not_in_parent)?;
        Ok(FileEntry { kind, ..parent })
    }

    /// The same place, with the number that its pack has in our manifest.
    fn renumbered(&mut self, place: Extent, packs: &mut PackList) -> Result<Extent, Error> {
        if place.is_hole() {
            return Ok(place);
        }
        let number = self.numbers.get_mut(place.pack as usize).ok_or_else(not_in_parent)?;
        let pack = match *number {
            Some(known) => known,
            None => packs.number(self.lane.manifest.packs().get(place.pack as usize).ok_or_else(not_in_parent)?),
        };
        *number = Some(pack);
        Ok(Extent { pack, ..place })
    }
}

pub(in super::super) fn not_in_parent() -> Error {
    Cause::Internal("an extent or a pack should be in the parent and is not".to_owned()).into()
}
