//! Files whose extents lie under patches, and manifests that take over frames of earlier ones. They are made by hand,
//! to cover every case.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use holdfast_repo::RecoveryRequest;
use holdfast_repo::manifest::{
    Extent, Extents, FileEntry, FileKind, FrameReference, Manifest, ManifestHeader, ManifestWriter, Patch,
};
use holdfast_repo::name;
use holdfast_repo::record::{BackupRecord, ManifestEntry, sha256_hex};
use holdfast_store::{PutMode, StoreErrorKind};

use super::super::*;
use super::sample::{Entry, PATCHED, Sample, noise};
use crate::repository::object_name;

pub(crate) const CHILD: &str = "20260823T101500Z";

#[tokio::test]
async fn a_patched_file_is_restored_to_the_last_byte() {
    for encrypted in [false, true] {
        let sample = Sample::with(encrypted, true).await;
        let report = sample.restore().await.unwrap();
        sample.check();
        // The zeros of a patch, and the part of a hole that no patch covers.
        assert_eq!(report.hole_bytes, 6 * 64 * 1024 + 8192 + (64 * 1024 - 50_000 - 100));
    }
}

/// Changes in the visible part of an extent, in a patch, in a patch under a patch, in zeros and in a hole.
#[tokio::test]
async fn delta_brings_a_patched_file_back() {
    let sample = Sample::with(true, true).await;
    sample.restore().await.unwrap();
    let options = RestoreOptions { delta: true, ..sample.options() };
    let extent = 64 * 1024;
    let untouched = sample.restore_with(&sample.repository, &options).await.unwrap();
    // A source that is partly covered cannot be compared; one that is not covered is not fetched again.
    assert!(untouched.written_bytes > 0 && untouched.written_bytes < 64 * 1024, "{untouched:?}");
    for places in [
        &[20_000][..],
        &[100],
        &[5000],
        &[6005],
        &[45_000],
        &[58_000],
        &[extent + 40_000],
        &[extent + 55_000],
        &[extent + 60_050],
        &[2 * extent + 5],
        &[0, 20_000, 41_000, extent + 59_999, 2 * extent],
    ] {
        let file = std::fs::File::options().write(true).open(sample.pgdata().join(PATCHED)).unwrap();
        for place in places {
            file.write_all_at(&noise(77, 3), *place).unwrap();
        }
        drop(file);
        sample.restore_with(&sample.repository, &options).await.unwrap();
        sample.check();
    }
    std::fs::File::options().write(true).open(sample.pgdata().join(PATCHED)).unwrap().set_len(70_000).unwrap();
    sample.restore_with(&sample.repository, &options).await.unwrap();
    sample.check();
    std::fs::remove_file(sample.pgdata().join(PATCHED)).unwrap();
    sample.restore_with(&sample.repository, &options).await.unwrap();
    sample.check();
}

/// A damaged patch, or a damaged extent below patches, is found before any byte of it is written.
#[tokio::test]
async fn damage_below_or_in_patches_is_found() {
    let sample = Sample::with(false, true).await;
    for pack in &sample.packs {
        let whole = sample.store.get(&object_name(&pack.name).unwrap()).await.unwrap();
        // Somewhere in the frame of the patches, which has a unique length.
        sample
            .replace(&pack.name, |mut bytes| {
                for at in (92..bytes.len()).step_by(1000) {
                    bytes[at] ^= 1;
                }
                bytes
            })
            .await;
        assert!(sample.restore().await.is_err());
        sample.check_interrupted();
        std::fs::remove_dir_all(sample.pgdata()).ok();
        std::fs::remove_dir_all(sample.fast()).ok();
        sample.replace(&pack.name, |_| whole.to_vec()).await;
    }
    sample.restore().await.unwrap();
    sample.check();
}

/// The salt of each pack is in the manifest: no request reads the head of a pack.
#[tokio::test]
async fn the_heads_of_packs_are_not_read() {
    let sample = Sample::with(true, true).await;
    for pack in &sample.packs {
        assert!(pack.identity.is_some());
        sample
            .replace(&pack.name, |mut bytes| {
                bytes[..92].fill(0);
                bytes
            })
            .await;
    }
    sample.restore().await.unwrap();
    sample.check();
}

/// Stores a manifest that takes over all files of the sample, and its summary.
pub(crate) async fn store_child(sample: &Sample) -> BackupRecord {
    let (repository, parent) = (&sample.repository, &sample.backup.manifest);
    let object = sample.store.get(&object_name(&parent.name).unwrap()).await.unwrap();
    let read = Manifest::parse(&parent.name, &object, repository.id(), repository.key()).unwrap();
    let cluster = &sample.backup.cluster;
    let backup_id = CHILD.parse().unwrap();
    let name = name::manifest(cluster, &backup_id);
    let header = ManifestHeader { backup: CHILD.to_owned(), ..read.header().clone() };
    let (id, key) = (repository.id(), repository.key());
    let (mut writer, start) = ManifestWriter::new(&name, id, key, &header).unwrap();
    // In another order: the last pack comes first.
    let count = sample.packs.len() as u32;
    let numbers: Vec<Option<u32>> = (0..count).rev().map(Some).collect();
    let listed = writer.list_origins(vec![read.origin_of(None, &numbers).unwrap()]).unwrap();
    let mut child = [&start[..], &listed].concat();
    for frame in read.frames() {
        for entry in frame.files.clone().filter_map(|position| read.file(position)) {
            let here = |place: &Extent| {
                if place.is_hole() { *place } else { Extent { pack: count - 1 - place.pack, ..*place } }
            };
            let extents: Vec<Extent> = entry.extents().iter().map(|extent| here(&extent)).collect();
            let patches: Vec<Patch> =
                entry.patches().iter().map(|patch| Patch { place: here(&patch.place), ..*patch }).collect();
            let kind = match entry.kind {
                FileKind::File { crc32c, .. } => {
                    FileKind::File { crc32c, extents: Extents::of(&extents), patches: &patches }
                }
                other => other,
            };
            writer.note_referred(&FileEntry { kind, ..entry }).unwrap();
        }
        let reference = FrameReference { origin: 0, location: frame.location, hash: frame.hash };
        child.extend_from_slice(&writer.refer(reference, frame.raw_bytes).unwrap().unwrap_or_default());
    }
    let packs: Vec<_> = sample.packs.iter().rev().cloned().collect();
    child.extend_from_slice(&writer.finish(&packs).unwrap());
    let manifest = ManifestEntry { name: name.clone(), size_bytes: child.len() as u64, sha256: sha256_hex(&child) };
    let record = BackupRecord { backup_id, manifest, ..sample.backup.clone() };
    sample.store.put(&object_name(&name).unwrap(), Bytes::from(child), PutMode::Create).await.unwrap();
    repository.create_record(&name::backup_summary(cluster, &backup_id), &record).await.unwrap();
    record
}

#[tokio::test]
async fn a_manifest_takes_over_the_files_of_an_earlier_one() {
    for encrypted in [false, true] {
        let sample = Sample::with(encrypted, true).await;
        let child = store_child(&sample).await;
        assert!(child.manifest.size_bytes < sample.backup.manifest.size_bytes / 4);
        let request = RecoveryRequest { backup: Some(child.backup_id), ..RecoveryRequest::default() };
        let options = RestoreOptions { request, ..sample.options() };
        sample.restore_with(&sample.repository, &options).await.unwrap();
        sample.check();
        let crew = Crew::new(1);
        would_take(&sample.repository, &child, &crew).await.unwrap();

        // Removed without regard to the manifest that refers to it.
        let parent = object_name(&sample.backup.manifest.name).unwrap();
        let object = sample.store.get(&parent).await.unwrap();
        sample.store.delete(std::slice::from_ref(&parent)).await.unwrap();
        let error = would_take(&sample.repository, &child, &crew).await.unwrap_err();
        let Cause::Store(missing) = &*error.what else { panic!("{error}") };
        assert_eq!(missing.kind(), StoreErrorKind::NotFound);
        assert!(missing.to_string().contains(parent.as_ref()), "{missing}");
        // Longer than before: another object with the same name.
        let longer = [&object[..], b"x"].concat();
        sample.store.put(&parent, longer.into(), PutMode::Create).await.unwrap();
        let error = would_take(&sample.repository, &child, &crew).await.unwrap_err();
        assert!(matches!(&*error.what, Cause::NotReadable { name, .. } if name == parent.as_ref()), "{error}");
    }
}

/// Copies the repository to a directory and restores it with the reader that was written from the pages alone.
#[tokio::test]
async fn the_independent_reader_restores_patches_and_references() {
    let Some(python) = holdfast_testkit::settings::get("HOLDFAST_PYTHON") else {
        holdfast_testkit::settings::skip("there is no HOLDFAST_PYTHON; scripts/provision makes it");
        return;
    };
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format/reader.py");
    for encrypted in [false, true] {
        let sample = Sample::with(encrypted, true).await;
        let child = store_child(&sample).await;
        let folder = sample.directory.path().join("repository");
        for object in sample.store.list("", None).await.unwrap() {
            let place = folder.join(object.name.as_ref());
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, sample.store.get(&object.name).await.unwrap()).unwrap();
        }
        let key = sample.directory.path().join("key");
        std::fs::write(&key, noise(9, 32)).unwrap();
        let read = |to: &Path, backup: &str| {
            let mut command = Command::new(&python);
            command.arg(&reader).arg(&folder).args(["restore", "main", "--backup", backup, "--to"]).arg(to);
            command.arg("--tablespace").arg(format!("16400={}", to.with_extension("fast").display()));
            if encrypted {
                command.arg("--key-file").arg(&key);
            }
            command.output().unwrap()
        };
        for backup in [sample.backup.backup_id.to_string(), CHILD.to_owned()] {
            let to = sample.directory.path().join(&backup);
            let output = read(&to, &backup);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            for (path, entry) in &sample.entries {
                if let (Entry::File(content), false) =
                    (entry, path.starts_with("pg_tblspc") || path == "tablespace_map")
                {
                    assert!(std::fs::read(to.join(path)).unwrap() == *content, "{backup}: {path} differs");
                }
            }
        }
        // It obeys the feature gate, and checks that the referred manifest is the right one.
        let gate = folder.join("features/read-chains");
        std::fs::create_dir_all(folder.join("features")).unwrap();
        std::fs::write(&gate, "").unwrap();
        let refused = read(&sample.directory.path().join("refused"), CHILD);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("features/read-chains: written by a newer holdfast"), "{said}");
        std::fs::remove_file(&gate).unwrap();
        let parent = folder.join(&sample.backup.manifest.name);
        let mut bytes = std::fs::read(&parent).unwrap();
        bytes.push(0);
        std::fs::write(&parent, bytes).unwrap();
        let refused = read(&sample.directory.path().join("again"), CHILD);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("not the manifest that is referred to"), "{said}");
        assert_eq!(child.backup_id.to_string(), CHILD);
    }
}
