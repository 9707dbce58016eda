//! Decides which bytes of which packs are fetched, in which requests. Pure.
//!
//! The wanted extents are sorted by pack and offset. Frames that are near each other are fetched in one ranged request,
//! and a small gap between them (a frame that a delta restore does not need) is read through: it costs less than a
//! second request. A frame that holds many small files is fetched and opened once.

use std::iter::Peekable;
use std::ops::Range;

use holdfast_repo::ChunkHash;
use holdfast_repo::frame::FrameLocation;
use holdfast_repo::manifest::{Manifest, Source};

/// The most bytes of one request. Large enough that 20 ms of latency are a fraction of its transfer, small enough
/// that a dozen are in flight within the smallest useful budget.
const MAX_REQUEST_BYTES: u64 = 8 << 20;

/// The most raw bytes that the frames of one request give, as far as is known: requests for data that compress well are
/// answered fast, and the threads must not wait until a long one is there.
const MAX_RAW_BYTES: u64 = 16 << 20;

/// A gap up to this size is read through. At 100 MB/s it takes 2.5 ms, less than the first byte of another request.
const MAX_GAP_BYTES: u64 = 256 << 10;

/// An extent to fetch, in 16 bytes: a 10 TB cluster has ten million of them. The order of the fields is the order
/// of fetching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WantedExtent {
    /// Position of the pack in the manifest.
    pub pack: u32,
    /// Offset of the frame in the pack, in bytes.
    pub frame_offset: u32,
    /// Position of the file in the manifest.
    pub file: u32,
    /// Number of the source in the file: first the extents, then the patches.
    pub source: u32,
}

/// A piece of a frame and its place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Position of the file in the manifest.
    pub file: u32,
    /// Its offset in the file, in bytes.
    pub file_offset: u64,
    /// Its offset in the raw bytes of the frame.
    pub offset: u32,
    /// Its length in bytes.
    pub length: u32,
    /// The hash of its bytes.
    pub hash: ChunkHash,
    /// The ranges of it that are written; `None` for all. Patches cover the other ranges.
    pub seen: Option<Vec<Range<u32>>>,
}

impl Piece {
    /// The number of bytes of it that are written.
    pub(super) fn written_bytes(&self) -> u64 {
        match &self.seen {
            None => u64::from(self.length),
            Some(seen) => seen.iter().map(|range| u64::from(range.end - range.start)).sum(),
        }
    }
}

/// A frame to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrameWork {
    /// Its place in its pack.
    pub location: FrameLocation,
    /// The pieces that are wanted from it.
    pub pieces: Vec<Piece>,
}

impl FrameWork {
    /// The smallest number of raw bytes that the frame can have.
    pub(crate) fn raw_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.offset) + u64::from(piece.length)).max().unwrap_or(0)
    }
}

/// One ranged request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fetch {
    /// Position of the pack in the manifest.
    pub pack: u32,
    /// The bytes to ask for.
    pub range: Range<u64>,
    /// The frames in them, in order.
    pub frames: Vec<FrameWork>,
    /// Raw bytes of the frames, as far as the manifest knows.
    pub raw_bytes: u64,
}

impl Fetch {
    /// The part of the byte budget that the request needs: its stored bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// The requests for a sorted list of extents, made one at a time.
pub(crate) struct Fetches<'a, I: Iterator<Item = WantedExtent>> {
    manifest: &'a Manifest,
    wanted: Peekable<I>,
    /// A frame that did not fit into the previous request.
    next: Option<(u32, FrameWork)>,
}

impl<'a, I: Iterator<Item = WantedExtent>> Fetches<'a, I> {
    /// `wanted` must be sorted.
    pub(crate) fn new(manifest: &'a Manifest, wanted: I) -> Self {
        Self { manifest, wanted: wanted.peekable(), next: None }
    }

    /// The next frame with all its wanted pieces.
    fn next_frame(&mut self) -> Option<(u32, FrameWork)> {
        let first = self.wanted.next()?;
        let location = self.manifest.file(first.file as usize)?.place(first.source)?.frame();
        let mut pieces = vec![self.piece(first)?];
        while let Some(another) = self.wanted.next_if(|w| w.pack == first.pack && w.frame_offset == first.frame_offset)
        {
            pieces.push(self.piece(another)?);
        }
        Some((first.pack, FrameWork { location, pieces }))
    }

    fn piece(&self, wanted: WantedExtent) -> Option<Piece> {
        let extent_bytes = self.manifest.header().extent_bytes;
        let Source { place, file_offset, seen } =
            self.manifest.file(wanted.file as usize)?.source(wanted.source, extent_bytes)?;
        let (file, hash) = (wanted.file, place.hash);
        Some(Piece { file, file_offset, offset: place.offset, length: place.length, hash, seen })
    }
}

impl<I: Iterator<Item = WantedExtent>> Iterator for Fetches<'_, I> {
    type Item = Fetch;

    fn next(&mut self) -> Option<Fetch> {
        let (pack, frame) = match self.next.take() {
            Some(held) => held,
            None => self.next_frame()?,
        };
        let mut fetch =
            Fetch { pack, range: frame.location.range(), raw_bytes: frame.raw_bytes(), frames: vec![frame] };
        while let Some((pack, frame)) = self.next_frame() {
            let range = frame.location.range();
            let raw = frame.raw_bytes();
            // Frames of a valid pack do not overlap. Overlapping ones are fetched separately, and their headers are
            // checked.
            let joins = pack == fetch.pack
                && range.start >= fetch.range.end
                && range.start - fetch.range.end <= MAX_GAP_BYTES
                && range.end - fetch.range.start <= MAX_REQUEST_BYTES
                && fetch.raw_bytes + raw <= MAX_RAW_BYTES;
            if !joins {
                self.next = Some((pack, frame));
                break;
            }
            fetch.range.end = range.end;
            fetch.raw_bytes += raw;
            fetch.frames.push(frame);
        }
        Some(fetch)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use holdfast_repo::manifest::{Extent, FileEntry, FileKind, ManifestHeader, PackEntry};

    use super::*;

    const MIB: u32 = 1 << 20;

    /// A manifest of one-extent files given as (pack, frame offset, frame length, offset in frame).
    fn manifest(extents: &[(u32, u32, u32, u32)]) -> (Manifest, Vec<WantedExtent>) {
        let header = ManifestHeader {
            backup: "20260822T101500Z".to_owned(),
            cluster: "main".to_owned(),
            extent_bytes: MIB,
            details: serde_json::Map::new(),
        };
        let mut manifest = Manifest::new(header);
        let mut wanted = Vec::new();
        for (number, &(pack, offset, length, inside)) in extents.iter().enumerate() {
            let hash = ChunkHash::of(&number.to_le_bytes());
            let extents = [Extent::stored(hash, pack, FrameLocation { offset, length }, inside, 1000)];
            let path = format!("f{number}");
            let entry = FileEntry {
                path: path.as_bytes(),
                kind: FileKind::file(0, &extents),
                mode: 0o600,
                size_bytes: 1000,
                mtime_seconds: 0,
            };
            manifest.push(&entry).unwrap();
            wanted.push(WantedExtent { pack, frame_offset: offset, file: number as u32, source: 0 });
        }
        let packs = (0..3).map(|n| PackEntry::new(format!("p{n}"), 1 << 31)).collect();
        manifest.set_packs(packs).unwrap();
        wanted.sort_unstable();
        (manifest, wanted)
    }

    /// (pack, range, files of each frame) of every request.
    fn requests(extents: &[(u32, u32, u32, u32)]) -> Vec<(u32, Range<u64>, Vec<Vec<u32>>)> {
        let (manifest, wanted) = manifest(extents);
        Fetches::new(&manifest, wanted.into_iter())
            .map(|fetch| {
                let files = fetch.frames.iter().map(|f| f.pieces.iter().map(|p| p.file).collect()).collect();
                (fetch.pack, fetch.range, files)
            })
            .collect()
    }

    #[test]
    fn neighbours_share_a_request_and_small_files_a_frame() {
        assert_eq!(
            requests(&[(0, 192, 500, 0), (0, 92, 100, 1000), (0, 92, 100, 0), (0, 692, 10, 0)]),
            vec![(0, 92..702, vec![vec![1, 2], vec![0], vec![3]])]
        );
    }

    #[test]
    fn a_small_gap_is_read_through_and_a_large_one_is_not() {
        let gap = MAX_GAP_BYTES as u32;
        assert_eq!(requests(&[(0, 0, 100, 0), (0, 100 + gap, 100, 0)]).len(), 1);
        assert_eq!(requests(&[(0, 0, 100, 0), (0, 101 + gap, 100, 0)]).len(), 2);
    }

    #[test]
    fn requests_end_with_their_pack_and_at_their_limits() {
        assert_eq!(requests(&[(0, 0, 100, 0), (1, 100, 100, 0)]).len(), 2);
        let frames: Vec<_> = (0..20).map(|n| (2, n * MIB, MIB, 0)).collect();
        let sizes: Vec<u64> = requests(&frames).into_iter().map(|(_, range, _)| range.end - range.start).collect();
        assert_eq!(sizes, [8 << 20, 8 << 20, 4 << 20]);
        // Ten frames that are small when stored and large when raw.
        let frames: Vec<_> = (0..10).map(|n| (2, n * 100, 100, 4 * MIB)).collect();
        assert_eq!(requests(&frames).iter().map(|(.., frames)| frames.len()).collect::<Vec<_>>(), [3, 3, 3, 1]);
    }

    #[test]
    fn overlapping_frames_are_fetched_alone() {
        assert_eq!(requests(&[(0, 0, 100, 0), (0, 50, 100, 0)]).len(), 2);
    }

    #[test]
    fn one_frame_larger_than_the_limit_is_still_fetched() {
        assert_eq!(requests(&[(0, 0, 40 * MIB, 0)]), vec![(0, 0..u64::from(40 * MIB), vec![vec![0]])]);
    }
}
