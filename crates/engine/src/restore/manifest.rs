//! Reads the manifest of a backup, and checks it against `backup.json`.

use std::ops::Range;

use aws_lc_rs::digest;
use futures::stream::{self, StreamExt, TryStreamExt};
use holdfast_repo::manifest::{Manifest, ManifestReader, WantedFrame};
use holdfast_repo::record::BackupRecord;

use super::stored::not_whole;
use crate::error::{Cause, Error, ResultExt};
use crate::repository::{Repository, object_name};

/// Bytes of one request for a piece of the manifest; several requests are in flight at a time.
const PIECE_BYTES: u64 = 8 << 20;
const PIECES_AT_ONCE: usize = 3;

/// Frames of an earlier manifest that lie beside each other are read in one request of at most this many bytes. There
/// can be thousands of frames in many places, so more requests are in flight than for the manifest itself.
const FRAMES_BYTES: u64 = 2 << 20;
const REQUESTS_FOR_FRAMES: usize = 12;

/// A gap up to this size is read through: at 100 MB/s it takes 1.3 ms, less than the first byte of another request.
const MAX_GAP_BYTES: u64 = 128 << 10;

/// Reads the manifest piece by piece, so that memory holds it only once.
pub(crate) async fn read_manifest(repository: &Repository, backup: &BackupRecord) -> Result<Manifest, Error> {
    let entry = &backup.manifest;
    let name = object_name(&entry.name)?;
    let store = repository.store();
    // A range after the end is a different error; an object that is too long is found by its size.
    let first = 0..entry.size_bytes.min(PIECE_BYTES);
    let (looked, first) = tokio::join!(store.head(&name), store.get_range(&name, first));
    let size_bytes = looked?.size_bytes;
    let not_as_stored =
        |reason: String| Cause::NotReadable { store: store.describe(), name: entry.name.clone(), reason };
    if size_bytes != entry.size_bytes {
        return Err(not_whole(repository, &entry.name, Some(size_bytes), entry.size_bytes, "backup.json"));
    }
    let ranges = (1..size_bytes.div_ceil(PIECE_BYTES)).map(|piece| {
        let start = piece * PIECE_BYTES;
        start..size_bytes.min(start + PIECE_BYTES)
    });
    let reads = ranges.map(|range| store.get_range(&name, range)).collect::<Vec<_>>();
    let mut pieces = stream::iter([first]).chain(stream::iter(reads).buffered(PIECES_AT_ONCE));
    let mut reader = ManifestReader::new(&entry.name, repository.id(), repository.key());
    let mut sha256 = digest::Context::new(&digest::SHA256);
    while let Some(piece) = pieces.try_next().await? {
        sha256.update(&piece);
        reader.feed(&piece)?;
        // The parts that refer to earlier manifests are read when they are due.
        loop {
            let reads = requests(reader.wanted()).into_iter().map(|request| async move {
                let name = object_name(&request.object)?;
                let reading = || format!("reading what the manifest takes over of {name}");
                let bytes = store.get_range(&name, request.range.clone()).await.doing(reading)?;
                Ok::<_, Error>((request, bytes))
            });
            let mut reads = stream::iter(reads).buffered(REQUESTS_FOR_FRAMES);
            let mut none = true;
            while let Some((request, bytes)) = reads.try_next().await? {
                for frame in request.frames {
                    let within = frame.start - request.range.start..frame.end - request.range.start;
                    reader.supply(bytes.get(within.start as usize..within.end as usize).unwrap_or_default())?;
                }
                none = false;
            }
            if none {
                break;
            }
        }
    }
    let manifest = reader.finish()?;
    let found = hex::encode(sha256.finish());
    if found != entry.sha256 {
        return Err(not_as_stored(format!("its SHA-256 is {found}, backup.json says {}", entry.sha256)).into());
    }
    let header = manifest.header();
    if header.backup != backup.backup_id.to_string() || header.cluster != backup.cluster.as_ref() {
        return Err(Cause::Malformed {
            name: entry.name.clone(),
            reason: format!("it is the manifest of backup {} of {}", header.backup, header.cluster),
        }
        .into());
    }
    Ok(manifest)
}

/// A request for frames of one earlier manifest.
#[derive(Debug, PartialEq, Eq)]
struct FramesRequest {
    object: String,
    range: Range<u64>,
    /// The frames in this range, in the order in which they are wanted.
    frames: Vec<Range<u64>>,
}

/// Joins frames that lie beside each other. The order stays as it is.
fn requests(wanted: Vec<WantedFrame>) -> Vec<FramesRequest> {
    let mut requests: Vec<FramesRequest> = Vec::new();
    for WantedFrame { object, range } in wanted {
        match requests.last_mut() {
            Some(last)
                if last.object == object
                    && range.start >= last.range.end
                    && range.start - last.range.end <= MAX_GAP_BYTES
                    && range.end - last.range.start <= FRAMES_BYTES =>
            {
                last.range.end = range.end;
                last.frames.push(range);
            }
            _ => requests.push(FramesRequest { object, range: range.clone(), frames: vec![range] }),
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_frames_are_read_in_one_request() {
        let joined = |wanted: &[(&str, Range<u64>)]| {
            let frames =
                wanted.iter().map(|(object, range)| WantedFrame { object: (*object).to_owned(), range: range.clone() });
            let requests = requests(frames.collect());
            requests.into_iter().map(|request| (request.range, request.frames.len())).collect::<Vec<_>>()
        };
        let (gap, most) = (MAX_GAP_BYTES, FRAMES_BYTES);
        assert_eq!(joined(&[]), []);
        assert_eq!(joined(&[("a", 92..200), ("a", 200..300)]), [(92..300, 2)]);
        assert_eq!(joined(&[("a", 92..200), ("b", 200..300)]), [(92..200, 1), (200..300, 1)]);
        assert_eq!(joined(&[("a", 0..10), ("a", 10 + gap..20 + gap)]), [(0..20 + gap, 2)]);
        assert_eq!(joined(&[("a", 0..10), ("a", 11 + gap..20 + gap)]), [(0..10, 1), (11 + gap..20 + gap, 1)]);
        assert_eq!(joined(&[("a", 50..60), ("a", 0..10)]), [(50..60, 1), (0..10, 1)], "a planted order");
        assert_eq!(joined(&[("a", 50..60), ("a", 50..60)]), [(50..60, 1), (50..60, 1)], "the same frame twice");
        assert_eq!(joined(&[("a", 0..most), ("a", most..most + 1)]), [(0..most, 1), (most..most + 1, 1)]);
        assert_eq!(joined(&[("a", 0..2 * most)]), [(0..2 * most, 1)], "one frame may be longer");
    }
}
