//! Carries the data of a backup: the packs that its manifest names, then a manifest that names them in their new
//! places.
//!
//! The new manifest is complete: it also has all entries that the original manifest takes from earlier ones.

use std::sync::Arc;

use aws_lc_rs::digest;
use futures::future::BoxFuture;
use holdfast_repo::manifest::{Extent, Extents, FileEntry, FileKind, Manifest, ManifestWriter, PackEntry, Patch};
use holdfast_repo::name;
use holdfast_repo::pack::FrameShift;
use holdfast_repo::record::{BackupRecord, EncryptionKind, ManifestEntry};
use holdfast_repo::{Fault, FormatError};
use holdfast_store::StoreErrorKind;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::pack::Settled;
use super::stream::PIECE_BYTES;
use super::{Carrier, PackWork, Placing};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::object_upload::ObjectUpload;
use crate::repository::object_name;
use crate::restore::{Fetches, WantedExtent, check_packs, every_chunk, try_manifest};

/// The maximum number of packs that are carried at the same time. With little memory there are fewer.
const PACKS_AT_ONCE: u64 = 8;

/// The data of a backup in the second repository.
#[derive(Debug)]
pub(crate) struct CarriedData {
    /// The manifest, as `backup.json` names it.
    pub(crate) manifest: ManifestEntry,
    /// The number of packs that the manifest names, and their size in bytes.
    pub(crate) pack_count: u64,
    pub(crate) pack_bytes: u64,
    /// The number of these packs that this run stored, and their size in bytes.
    pub(crate) new_pack_count: u64,
    pub(crate) new_pack_bytes: u64,
    /// The number of packs in the backup's own folder, and their size in bytes.
    own: (u32, u64),
}

impl CarriedData {
    /// The record of the backup for the second repository.
    pub(crate) fn record(&self, of: &BackupRecord, to: &Carrier) -> BackupRecord {
        let encryption = if to.to.is_encrypted() { EncryptionKind::Aes256Gcm } else { EncryptionKind::None };
        BackupRecord {
            encryption,
            manifest: self.manifest.clone(),
            pack_count: self.own.0,
            stored_bytes: self.own.1 + self.manifest.size_bytes,
            ..of.clone()
        }
    }
}

impl Carrier {
    /// Carries all packs of a backup of the first repository, and writes its manifest. `backup.json` is the caller's.
    /// `may_write` is asked after all packs are there, just before the manifest takes its name.
    ///
    /// # Errors
    /// What is wrong with the backup, as in a restore, and errors of the stores. [`Cause::Refused`] if a manifest would
    /// be replaced whose frames other manifests refer to.
    pub(crate) async fn carry_data(
        &self,
        record: &BackupRecord,
        may_write: BoxFuture<'_, Result<(), Error>>,
    ) -> Result<CarriedData, Error> {
        let manifest = try_manifest(&self.from, record, &self.means.crew).await?.manifest;
        check_packs(&self.from, &manifest).await?;
        let sorting = Arc::clone(&manifest);
        let wanted = self.means.crew.run(move || every_chunk(&sorting)).await?;
        let bytes = manifest.packs().iter().map(|pack| pack.size_bytes).sum();
        self.means.progress.phase("copying packs", Some(bytes));
        let settled = self.settle_packs(record, &manifest, wanted).await?;
        self.check_cancelled()?;
        let entry = self.write_manifest(record, &manifest, &settled, may_write).await?;
        let folder = name::packs_folder(self.cluster(), &record.backup_id);
        let sum = |chosen: &dyn Fn(&Settled) -> bool| {
            let chosen = settled.iter().filter(|pack| chosen(pack)).map(|pack| pack.entry.size_bytes);
            chosen.fold((0_u64, 0_u64), |(count, sum), bytes| (count + 1, sum + bytes))
        };
        let own = sum(&|pack| pack.entry.name.starts_with(&folder));
        let new = sum(&|pack| pack.is_new);
        Ok(CarriedData {
            manifest: entry,
            pack_count: settled.len() as u64,
            pack_bytes: settled.iter().map(|pack| pack.entry.size_bytes).sum(),
            new_pack_count: new.0,
            new_pack_bytes: new.1,
            own: (u32::try_from(own.0).unwrap_or(u32::MAX), own.1),
        })
    }

    /// The number of packs that fit into the memory. Each needs its piece that was read, the same piece sealed, and the
    /// parts of its upload.
    fn packs_at_once(&self) -> usize {
        let each = 3 * PIECE_BYTES + 4 * self.means.part_size_bytes as u64;
        usize::try_from((self.means.memory_bytes / each).clamp(1, PACKS_AT_ONCE)).unwrap_or(1)
    }

    async fn settle_packs(
        &self,
        record: &BackupRecord,
        manifest: &Arc<Manifest>,
        wanted: Vec<WantedExtent>,
    ) -> Result<Vec<Settled>, Error> {
        let slots = Arc::new(Semaphore::new(self.packs_at_once()));
        let mut tasks: JoinSet<(usize, Result<Settled, Error>)> = JoinSet::new();
        let mut settled: Vec<Option<Settled>> = vec![None; manifest.packs().len()];
        let mut outcome = Ok(());
        let mut fetches = Fetches::new(manifest, wanted.into_iter());
        let mut next = fetches.next();
        for (number, entry) in manifest.packs().iter().enumerate() {
            let mut frames = Vec::new();
            while let Some(fetch) = next.take_if(|fetch| fetch.pack as usize == number) {
                frames.extend(fetch.frames);
                next = fetches.next();
            }
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
            while let Some(done) = tasks.try_join_next() {
                keep(&mut settled, &mut outcome, done);
            }
            if outcome.is_err() {
                break;
            }
            let work = PackWork { entry: entry.clone(), frames };
            let (carrier, manifest, backup) = (self.clone(), Arc::clone(manifest), record.backup_id);
            tasks.spawn(async move {
                let outcome = carrier.settle(&manifest, &work, backup).await;
                drop(slot);
                (number, outcome)
            });
        }
        while let Some(done) = tasks.join_next().await {
            keep(&mut settled, &mut outcome, done);
        }
        outcome?;
        let count = settled.len();
        let settled: Vec<Settled> = settled.into_iter().flatten().collect();
        if settled.len() == count {
            return Ok(settled);
        }
        Err(Cause::Internal("a pack was left out".to_owned()).into())
    }

    async fn write_manifest(
        &self,
        record: &BackupRecord,
        manifest: &Manifest,
        settled: &[Settled],
        may_write: BoxFuture<'_, Result<(), Error>>,
    ) -> Result<ManifestEntry, Error> {
        let name = name::manifest(self.cluster(), &record.backup_id);
        let placing = match self.to.store().head(&object_name(&name)?).await {
            Ok(_) => match self.destination.referrer(&name) {
                Some(other) => {
                    return Err(Cause::Refused(format!(
                        "{name} in {} would be replaced, and {other} refers to what is in it",
                        self.to.describe()
                    ))
                    .into());
                }
                // A killed run left it, or it is damaged. No backup that can be restored has this manifest.
                None => Placing::Replace,
            },
            Err(error) if error.kind() == StoreErrorKind::NotFound => Placing::Create,
            Err(error) => return Err(error.into()),
        };
        let (writer, head) = ManifestWriter::new(&name, self.to.id(), self.to.key(), manifest.header())?;
        let mut out = ManifestUpload {
            upload: self.manifest_upload(&name, placing)?,
            digest: digest::Context::new(&digest::SHA256),
        };
        let written = match write_files(manifest, settled, writer, &head, &mut out).await {
            Ok(()) => may_write.await,
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => {}
            Err(error) => {
                out.upload.abort().await;
                return Err(error).doing(|| format!("writing {name}"));
            }
        }
        let size_bytes = out.upload.finish().await?;
        Ok(ManifestEntry { name, size_bytes, sha256: hex::encode(out.digest.finish()) })
    }
}

/// The upload of a manifest, and the digest of its bytes so far.
struct ManifestUpload {
    upload: ObjectUpload,
    digest: digest::Context,
}

impl ManifestUpload {
    async fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.digest.update(bytes);
        self.upload.push(bytes, None).await
    }
}

async fn write_files(
    manifest: &Manifest,
    settled: &[Settled],
    mut writer: ManifestWriter,
    head: &[u8],
    out: &mut ManifestUpload,
) -> Result<(), Error> {
    out.push(head).await?;
    let (mut extents, mut patches) = (Vec::new(), Vec::new());
    for file in manifest.files() {
        let pushed = match file.kind {
            FileKind::File { crc32c, extents: before, patches: patches_before } => {
                extents.clear();
                patches.clear();
                for extent in before.iter() {
                    extents.push(moved(&extent, settled)?);
                }
                for patch in patches_before {
                    patches.push(Patch { place: moved(&patch.place, settled)?, ..*patch });
                }
                let kind = FileKind::File { crc32c, extents: Extents::of(&extents), patches: &patches };
                writer.push(&FileEntry { kind, ..file })?
            }
            _ => writer.push(&file)?,
        };
        if let Some(frame) = pushed {
            out.push(&frame).await?;
        }
    }
    let packs: Vec<PackEntry> = settled.iter().map(|pack| pack.entry.clone()).collect();
    out.push(&writer.finish(&packs)?).await
}

/// The place of an extent in the new packs. They are listed in the same order as the old ones.
fn moved(extent: &Extent, settled: &[Settled]) -> Result<Extent, FormatError> {
    if extent.is_hole() {
        return Ok(*extent);
    }
    let shift: Option<&FrameShift> = settled.get(extent.pack as usize).map(|pack| &pack.shift);
    if let Some(place) = shift.and_then(|shift| shift.place(extent.frame())) {
        return Ok(Extent { frame_offset: place.offset, frame_length: place.length, ..*extent });
    }
    let problem = format!("it names a frame at {}, and none begins there", extent.frame_offset);
    Err(Fault::Malformed { what: "manifest", problem }.of("manifest"))
}

fn keep(
    settled: &mut [Option<Settled>],
    outcome: &mut Result<(), Error>,
    done: Result<(usize, Result<Settled, Error>), tokio::task::JoinError>,
) {
    let failed = match done {
        Ok((number, Ok(pack))) => {
            if let Some(place) = settled.get_mut(number) {
                *place = Some(pack);
            }
            return;
        }
        Ok((_, Err(error))) => error,
        Err(error) => Cause::Internal(format!("a task that carries a pack failed: {error}")).into(),
    };
    if outcome.is_ok() {
        *outcome = Err(failed);
    }
}
