//! A WAL object in a repository: read and verified, or compared with what it should be.

use holdfast_pgtypes::WalFileName;
use holdfast_repo::name::{self, ClusterName};
use holdfast_repo::record::ClaimRecord;
use holdfast_repo::wal_object::{self, WalObjectFacts};
use holdfast_store::StoreErrorKind;

use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::repository::{Repository, object_name};

/// How often bytes that differ from the stored ones are fetched before the object counts as damaged: they may have been
/// changed on the way.
const READ_ATTEMPTS: u32 = 2;

/// The one name that a WAL file can have under a claim.
pub(crate) fn wal_object_name(
    repository: &Repository,
    cluster: &ClusterName,
    claim: &ClaimRecord,
    file: &WalFileName,
) -> String {
    name::wal_file(cluster, claim.number, file, claim.wal_codec, repository.is_encrypted())
}

/// Fetches an object and returns its file if everything about it is right. An object that is too large for a file of
/// this claim is not received, and one that announces more bytes than the file can have is not opened.
pub(super) async fn read(
    repository: &Repository,
    claim: &ClaimRecord,
    object: &str,
    crew: &Crew,
) -> Result<(Vec<u8>, WalObjectFacts), Error> {
    let most = wal_object::Bounds::of_archive(claim.wal_segment_size);
    let store_name = object_name(object)?;
    let mut attempt = 1;
    loop {
        let phrase = || format!("reading {object} from {}", repository.describe());
        let bytes = repository.store().get_at_most(&store_name, most.object_bytes()).await.doing(phrase)?;
        let (opener, name) = (repository.clone(), object.to_owned());
        let decoded =
            crew.run(move || wal_object::decode_within(most, &name, &bytes, opener.id(), opener.key())).await?;
        match decoded {
            Ok(file) => return Ok(file),
            Err(error) if attempt < READ_ATTEMPTS => {
                tracing::warn!(object, %error, "a WAL object is not as it was stored and is fetched once more");
                attempt += 1;
            }
            Err(error) => return Err(error).doing(phrase),
        }
    }
}

/// The size and checksum that the store must have now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) size_bytes: u64,
    pub(crate) crc32c: u32,
}

/// How many bytes are fetched at a time from a store that keeps no checksum.
const COMPARED_BYTES: u64 = 8 << 20;

/// Asks the store for size and CRC-32C of what was sent, or fetches it if the store keeps no checksum.
pub(crate) async fn confirm(repository: &Repository, object: &str, sent: Sent) -> Result<(), Error> {
    confirm_inner(repository, object, sent)
        .await
        .doing(|| format!("confirming that {object} is stored in {}", repository.describe()))
}

async fn confirm_inner(repository: &Repository, object: &str, sent: Sent) -> Result<(), Error> {
    let store_name = object_name(object)?;
    let differs = |reason: String| -> Error {
        Cause::NotReadable { store: repository.describe(), name: object.to_owned(), reason }.into()
    };
    let info = match repository.store().head(&store_name).await {
        Ok(info) => info,
        Err(error) if error.kind() == StoreErrorKind::NotFound => return Err(differs("it is not there".to_owned())),
        Err(error) => return Err(error.into()),
    };
    if info.size_bytes != sent.size_bytes {
        return Err(differs(format!("it has {} bytes, but {} were sent", info.size_bytes, sent.size_bytes)));
    }
    let crc32c = if let Some(kept) = info.crc32c {
        kept
    } else {
        let mut crc32c = 0;
        let mut start = 0;
        while start < sent.size_bytes {
            let end = sent.size_bytes.min(start + COMPARED_BYTES);
            let bytes = repository.store().get_range(&store_name, start..end).await?;
            crc32c = crc32c::crc32c_append(crc32c, &bytes);
            start = end;
        }
        crc32c
    };
    if crc32c == sent.crc32c {
        Ok(())
    } else {
        Err(differs(format!("its CRC-32C is {crc32c:08x}, the CRC-32C of the sent content is {:08x}", sent.crc32c)))
    }
}
