//! Confirms that a store has what was sent.
//!
//! A store that compares what it receives with its checksum, and keeps the checksum, is asked for it. From any other
//! store the object is fetched again: some stores keep no checksum, some repeat the one of the request and never
//! compared it, and then only the bytes themselves are proof.
//!
//! If a look before the write replaces the condition of the write, two writers can both find a name free, and the last
//! one wins. [`confirm_created`] then looks twice, so that the other one does not believe that its object is stored.
//!
//! Memory: one piece of [`COMPARED_BYTES`] for each object that is fetched.

use std::time::Duration;

use holdfast_repo::manifest::PackEntry;
use holdfast_store::{Capabilities, Checksums, ConditionalCreate, StoreErrorKind, Uploads};

use super::capabilities::capabilities;
use super::read_back::{FETCHES, differs};
use super::{Repository, object_name};
use crate::error::{Error, ResultExt};

/// How many bytes are fetched at a time.
const COMPARED_BYTES: u64 = 8 << 20;

/// An object that is larger is written in parts, if the store can do that.
pub(crate) const WAL_PART_BYTES: usize = 32 << 20;

/// The time between the two looks at an object, if nothing prevents another writer from replacing it. It is longer than
/// a write takes that began when the name was still free. The archiver waits for it with each segment.
const SECOND_LOOK_AFTER: Duration = Duration::from_millis(300);

/// The same, if the other writer may send its object in parts: the store puts them together when they are complete.
const SECOND_LOOK_AFTER_PARTS: Duration = Duration::from_secs(2);

/// The size and checksum that the store must have now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) size_bytes: u64,
    pub(crate) crc32c: u32,
}

impl Repository {
    /// Whether the store was seen to compare what it receives with its checksum. If not, everything that was sent must
    /// be fetched before it counts as stored.
    pub(crate) fn compares_checksums(&self) -> bool {
        capabilities(self.record()).checksums == Checksums::Kept
    }
}

/// Asks the store for size and CRC-32C of what was sent. Fetches the object if the store gives no checksum that can be
/// trusted.
///
/// # Errors
/// `NotReadable` if the store has something else, and those of the store.
pub(crate) async fn confirm(repository: &Repository, object: &str, sent: Sent) -> Result<(), Error> {
    let confirmed = async {
        let kept = checked_size(repository, object, sent.size_bytes).await?;
        match kept.filter(|_| repository.compares_checksums()) {
            Some(kept) => compare(repository, object, kept, sent.crc32c),
            None => fetch_and_compare(repository, object, sent).await,
        }
    };
    confirmed.await.doing(|| format!("confirming that {object} is stored in {}", repository.describe()))
}

/// Confirms a WAL object that this process has just created from a file of `raw_bytes`, and that no writer has replaced
/// it since.
///
/// # Errors
/// Those of [`confirm`].
pub(crate) async fn confirm_created(
    repository: &Repository,
    object: &str,
    sent: Sent,
    raw_bytes: u64,
) -> Result<(), Error> {
    confirm(repository, object, sent).await?;
    match second_look_after(capabilities(repository.record()), raw_bytes) {
        None => Ok(()),
        Some(after) => {
            tokio::time::sleep(after).await;
            confirm(repository, object, sent).await
        }
    }
}

/// When to look again at an object that was created from a file of `raw_bytes`; `None` if the store keeps every other
/// writer from replacing it. The other writer may compress less, and send in parts what was sent here in one piece.
fn second_look_after(store: Capabilities, raw_bytes: u64) -> Option<Duration> {
    let in_parts = raw_bytes >= WAL_PART_BYTES as u64 && store.uploads == Uploads::Parts;
    if in_parts && store.create_by_parts == ConditionalCreate::Emulated {
        Some(SECOND_LOOK_AFTER_PARTS)
    } else if store.create == ConditionalCreate::Emulated {
        Some(SECOND_LOOK_AFTER)
    } else {
        None
    }
}

/// Confirms a pack that was just sent. A store that compares checksums has already compared every part of it, so there
/// the pack is not fetched.
///
/// # Errors
/// Those of [`confirm`].
pub(crate) async fn confirm_pack(repository: &Repository, entry: &PackEntry) -> Result<(), Error> {
    match entry.identity {
        Some(identity) if !repository.compares_checksums() => {
            confirm(repository, &entry.name, Sent { size_bytes: entry.size_bytes, crc32c: identity.crc32c }).await
        }
        _ => agrees(repository, entry).await,
    }
}

/// Compares the size in the store, and the checksum if the store keeps one. The pack is not fetched.
///
/// # Errors
/// Those of [`confirm`].
pub(crate) async fn agrees(repository: &Repository, entry: &PackEntry) -> Result<(), Error> {
    let compared = async {
        let kept = checked_size(repository, &entry.name, entry.size_bytes).await?;
        match kept.zip(entry.identity) {
            Some((kept, identity)) => compare(repository, &entry.name, kept, identity.crc32c),
            None => Ok(()),
        }
    };
    compared.await.doing(|| format!("confirming that {} is stored in {}", entry.name, repository.describe()))
}

/// Checks the size of the stored object; gives its checksum, if the store has one.
async fn checked_size(repository: &Repository, object: &str, size_bytes: u64) -> Result<Option<u32>, Error> {
    let store = &**repository.store();
    match store.head(&object_name(object)?).await {
        Ok(info) if info.size_bytes == size_bytes => Ok(info.crc32c),
        Ok(info) => {
            let reason = format!("it has {} bytes, but {size_bytes} were sent", info.size_bytes);
            Err(differs(store, object, reason))
        }
        Err(error) if error.kind() == StoreErrorKind::NotFound => {
            Err(differs(store, object, "it is not there".to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}

async fn fetch_and_compare(repository: &Repository, object: &str, sent: Sent) -> Result<(), Error> {
    let mut compared = Ok(());
    for _ in 0..FETCHES {
        let found = fetched_crc32c(repository, object, sent.size_bytes).await?;
        compared = compare(repository, object, found, sent.crc32c);
        if compared.is_ok() {
            break;
        }
    }
    compared
}

/// The CRC-32C of the stored bytes.
async fn fetched_crc32c(repository: &Repository, object: &str, size_bytes: u64) -> Result<u32, Error> {
    let name = object_name(object)?;
    let (mut crc32c, mut start) = (0, 0);
    while start < size_bytes {
        let end = size_bytes.min(start + COMPARED_BYTES);
        let bytes = repository.store().get_range(&name, start..end).await?;
        crc32c = crc32c::crc32c_append(crc32c, &bytes);
        start = end;
    }
    Ok(crc32c)
}

fn compare(repository: &Repository, object: &str, found: u32, sent: u32) -> Result<(), Error> {
    if found == sent {
        return Ok(());
    }
    let reason = format!("its CRC-32C is {found:08x}, the CRC-32C of the sent content is {sent:08x}");
    Err(differs(&**repository.store(), object, reason))
}

/// The same repository, on a store that was seen not to compare checksums.
#[cfg(test)]
pub(crate) fn not_compared(repository: &Repository) -> Repository {
    use holdfast_repo::record::{self, RepositoryRecord};

    let store = repository
        .record()
        .store
        .map(|store| record::StoreCapabilities { checksums: record::Checksums::NotCompared, ..store });
    let record = RepositoryRecord { store, ..repository.record().clone() };
    Repository::assemble(std::sync::Arc::clone(repository.store()), record, repository.key().cloned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::sync::Arc;

    use holdfast_repo::manifest::PackIdentity;
    use holdfast_repo::record::{LeasePurpose, LeaseRecord};
    use holdfast_store::{Fault, FaultRule, Faulty, MemoryStore, Operation, PutMode};

    use super::*;
    use crate::error::Cause;
    use crate::repository::{RepositoryTarget, Unlock, init};

    /// A repository whose reads return one flipped bit for names that begin with `main/`, `times` times.
    async fn flipping(operation: Operation, times: u64) -> Repository {
        faulty(operation, Fault::FlipBit, times).await
    }

    async fn faulty(operation: Operation, fault: Fault, times: u64) -> Repository {
        let rule = FaultRule::new(&[operation], 1.0, fault).on("main/").times(times);
        let store = Arc::new(Faulty::new(Arc::new(MemoryStore::new()), 7, vec![rule]));
        let target = RepositoryTarget { store, unlock: Unlock::NotEncrypted };
        init::init(&target, "2026-11-30T11:00:00Z".parse().unwrap()).await.unwrap().repository
    }

    fn lease() -> LeaseRecord {
        let now = "2026-11-30T11:00:00Z".parse().unwrap();
        LeaseRecord {
            run: "r1".parse().unwrap(),
            cluster: "main".parse().unwrap(),
            purpose: LeasePurpose::Expire,
            backups: Vec::new(),
            since: now,
            expires: now,
            host: "db1".to_owned(),
            machine: None,
            boot: None,
            pid_namespace: None,
            pid: 1,
            software_version: "0.1.0".to_owned(),
        }
    }

    fn is_not_readable(outcome: Result<(), Error>) -> bool {
        outcome.is_err_and(|error| matches!(*error.what, Cause::NotReadable { .. }))
    }

    #[tokio::test]
    async fn a_record_that_was_changed_on_its_way_is_not_acknowledged() {
        let damaged = not_compared(&flipping(Operation::Get, 2).await);
        assert!(is_not_readable(damaged.create_record("main/leases/one.json", &lease()).await));
        damaged.create_record("main/leases/two.json", &lease()).await.unwrap();
        let damaged = not_compared(&flipping(Operation::Get, 2).await);
        assert!(is_not_readable(damaged.replace_record("main/leases/one.json", &lease()).await));
        // rclone repeats the checksum of the request, so the client sees that the bytes are others.
        for kind in [StoreErrorKind::Corrupt, StoreErrorKind::Truncated, StoreErrorKind::TooLarge] {
            let damaged = not_compared(&faulty(Operation::Get, Fault::Refuse(kind), 2).await);
            assert!(is_not_readable(damaged.create_record("main/leases/one.json", &lease()).await), "{kind:?}");
        }
        // A bit that changed on its way back.
        let unlucky = not_compared(&flipping(Operation::Get, 1).await);
        unlucky.create_record("main/leases/one.json", &lease()).await.unwrap();
        // A store that compares checksums has refused it already, so nothing is read.
        let kept = flipping(Operation::Get, 2).await;
        kept.create_record("main/leases/one.json", &lease()).await.unwrap();
    }

    /// Ceph 16 knows the condition of a PUT, and ignores it when a multipart upload is completed.
    #[test]
    fn a_store_that_another_writer_can_overwrite_is_looked_at_twice() {
        use ConditionalCreate::{Emulated, Native};
        use Uploads::{Parts, Whole};
        let (small, large) = (16 << 20, 64 << 20);
        for (create, create_by_parts, uploads, of_small, of_large) in [
            (Native, Native, Parts, None, None),
            (Native, Emulated, Parts, None, Some(SECOND_LOOK_AFTER_PARTS)),
            (Native, Emulated, Whole, None, None),
            (Emulated, Native, Parts, Some(SECOND_LOOK_AFTER), Some(SECOND_LOOK_AFTER)),
            (Emulated, Emulated, Parts, Some(SECOND_LOOK_AFTER), Some(SECOND_LOOK_AFTER_PARTS)),
            (Emulated, Emulated, Whole, Some(SECOND_LOOK_AFTER), Some(SECOND_LOOK_AFTER)),
        ] {
            let store = Capabilities { create, create_by_parts, uploads, ..Capabilities::default() };
            let found = (second_look_after(store, small), second_look_after(store, large));
            assert_eq!(found, (of_small, of_large), "{store:?}");
        }
    }

    #[tokio::test]
    async fn a_pack_is_fetched_only_where_checksums_are_not_compared() {
        let body = vec![7_u8; 100_000];
        let crc32c = crc32c::crc32c(&body);
        let name = "main/packs/20261130T110000Z/000001.pack";
        let identity = Some(PackIdentity { salt: [0; 32], crc32c });
        let entry = PackEntry { identity, ..PackEntry::new(name.to_owned(), body.len() as u64) };
        for (times, kept, sound) in [(2, false, false), (1, false, true), (0, false, true), (2, true, true)] {
            let repository = flipping(Operation::GetRange, times).await;
            let repository = if kept { repository } else { not_compared(&repository) };
            let object = object_name(name).unwrap();
            repository.store().put(&object, body.clone().into(), PutMode::Create).await.unwrap();
            assert_eq!(is_not_readable(confirm_pack(&repository, &entry).await), !sound, "{times} {kept}");
            let short = PackEntry { size_bytes: 99_999, ..entry.clone() };
            assert!(is_not_readable(confirm_pack(&repository, &short).await));
        }
    }
}
