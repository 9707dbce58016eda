//! A WAL object in a repository: its name, and its content, read and verified.

use holdfast_pgtypes::WalFileName;
use holdfast_repo::name::{self, ClusterName};
use holdfast_repo::record::ClaimRecord;
use holdfast_repo::wal_object::{self, WalObjectFacts};

use crate::error::{Error, ResultExt};
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
