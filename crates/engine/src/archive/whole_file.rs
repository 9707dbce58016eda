//! Archives a file of any folder after a look at all of its bytes.
//!
//! `wal push` trusts the server that asks: PostgreSQL marks a segment only when it is finished. A file that somebody
//! names may be half received, recycled, or being written. So its content is judged first, and what is stored is what
//! was judged: its hash must still be the same, and a change of the file meanwhile is an error.

use std::path::Path;
use std::sync::Arc;

use holdfast_contract::report::wal::ArchivedFile;
use holdfast_pgtypes::SystemIdentifier;
use holdfast_repo::record::ClaimRecord;
use holdfast_repo::{ChunkHash, Compression};
use tokio_util::sync::CancellationToken;

use super::deliver::{ArchiveContext, Destination, Line, blocking, deliver, identity_of, memory_needed};
use super::local_file::{LocalFile, identity_around};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::budget::{ByteBudget, MINIMUM_BYTES};
use crate::pipeline::crew::Crew;

/// Reads a WAL file of a folder whole, and checks that it is what its name says and belongs to this claim.
///
/// # Errors
/// [`Cause::SegmentMismatch`], [`Cause::SegmentSize`] or [`Cause::Malformed`] if the file is not what its name says,
/// [`Cause::Refused`] if it changes meanwhile, [`Cause::File`] if it cannot be read.
pub(crate) async fn read_local(claim: &ClaimRecord, path: &Path) -> Result<Vec<u8>, Error> {
    let (path, identity) = (path.to_owned(), identity_of(claim)?);
    let shown = path.display().to_string();
    let read = blocking(move || {
        let file = LocalFile::open(&path)?;
        file.check(&identity)?;
        let bytes = file.read_all()?;
        file.check_unchanged()?;
        Ok(bytes)
    });
    read.await.doing(|| format!("looking at {shown}"))
}

/// Archives a file in one repository under the rules of `wal push`, if its content is still the one that was judged.
///
/// # Errors
/// Those of [`archive_file`](super::archive_file), and [`Cause::Refused`] if the content is another one. Nothing is
/// stored then.
pub(crate) async fn archive_as_judged(
    destination: &Destination,
    path: &Path,
    judged: ChunkHash,
    compression: Compression,
    crew: &Crew,
    cancel: &CancellationToken,
) -> Result<ArchivedFile, Error> {
    let (path, identity) = (path.to_owned(), identity_of(&destination.claim)?);
    let shown = path.display().to_string();
    let file = blocking(move || {
        let file = LocalFile::open(&path)?;
        file.check(&identity)?;
        if ChunkHash::of(&file.read_all()?) != judged {
            return Err(Cause::Refused(format!("{} was changed after it was looked at", path.display())).into());
        }
        file.check_unchanged()?;
        Ok(file)
    });
    let file = Arc::new(file.await.doing(|| format!("looking at {shown}"))?);
    let context = ArchiveContext {
        cluster: destination.claim.cluster.clone(),
        compression,
        crew: crew.clone(),
        budget: ByteBudget::new(MINIMUM_BYTES),
        ledger: None,
    };
    let permit = context.budget.acquire(memory_needed(&file, 1)).await;
    deliver(file, std::slice::from_ref(destination), &context, permit, &Line::default(), cancel).await
}

/// The cluster of a folder with WAL files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FolderOwner {
    /// The data directory around the folder is of this cluster.
    Cluster(SystemIdentifier),
    /// There is no data directory around it. Segments name their cluster themselves.
    Unknown,
}

/// Finds the cluster of a folder, by the control file of the data directory around it.
///
/// # Errors
/// [`Cause::Refused`] if it is not a folder, [`Cause::File`] or [`Cause::ControlFile`](crate::Cause::ControlFile) if it
/// or the control file cannot be read.
pub(crate) async fn owner_of_folder(folder: &Path) -> Result<FolderOwner, Error> {
    let folder = folder.to_owned();
    blocking(move || {
        let metadata = std::fs::metadata(&folder).map_err(|e| Error::file("read", &folder, e))?;
        if !metadata.is_dir() {
            return Err(Cause::Refused(format!("{} is not a directory", folder.display())).into());
        }
        let identity = identity_around(&folder.join("pg_wal"))?;
        Ok(identity.map_or(FolderOwner::Unknown, |identity| FolderOwner::Cluster(identity.system_identifier)))
    })
    .await
}
