//! Reads the manifest of a backup, and checks it against `backup.json`.

use aws_lc_rs::digest;
use futures::stream::{self, StreamExt, TryStreamExt};
use holdfast_repo::manifest::{Manifest, ManifestReader};
use holdfast_repo::record::BackupRecord;

use super::stored::not_whole;
use crate::error::{Cause, Error, ResultExt};
use crate::repository::{Repository, object_name};

/// Bytes of one request for a piece of the manifest; several requests are in flight at a time.
const PIECE_BYTES: u64 = 8 << 20;
const PIECES_AT_ONCE: usize = 3;

/// Reads the manifest piece by piece, so that memory holds it only once.
pub(crate) async fn read_manifest(repository: &Repository, backup: &BackupRecord) -> Result<Manifest, Error> {
    let entry = &backup.manifest;
    let name = object_name(&entry.name)?;
    let store = repository.store();
    // A range after the end is a different error; an object that is too long is found here.
    let size_bytes = store.head(&name).await?.size_bytes;
    let not_as_stored =
        |reason: String| Cause::NotReadable { store: store.describe(), name: entry.name.clone(), reason };
    if size_bytes != entry.size_bytes {
        return Err(not_whole(repository, &entry.name, Some(size_bytes), entry.size_bytes, "backup.json"));
    }
    let ranges = (0..size_bytes.div_ceil(PIECE_BYTES)).map(|piece| {
        let start = piece * PIECE_BYTES;
        start..size_bytes.min(start + PIECE_BYTES)
    });
    let reads = ranges.map(|range| store.get_range(&name, range)).collect::<Vec<_>>();
    let mut pieces = stream::iter(reads).buffered(PIECES_AT_ONCE);
    let mut reader = ManifestReader::new(&entry.name, repository.id(), repository.key());
    let mut sha256 = digest::Context::new(&digest::SHA256);
    while let Some(piece) = pieces.try_next().await? {
        sha256.update(&piece);
        reader.feed(&piece)?;
        // The parts that refer to earlier manifests are read when they are due.
        loop {
            let reads = reader.wanted().into_iter().map(|frame| async move {
                let name = object_name(&frame.object)?;
                let reading = || format!("reading what the manifest takes over of {name}");
                store.get_range(&name, frame.range).await.doing(reading)
            });
            let mut frames = stream::iter(reads).buffered(PIECES_AT_ONCE);
            let mut none = true;
            while let Some(frame) = frames.try_next().await? {
                reader.supply(&frame)?;
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
