//! Stores one WAL file in every repository: read, scanned, compressed in pieces, created, confirmed.
//!
//! Steps for a file: check it against each claim; read it; on the crew, piece by piece, compress once for each codec
//! and seal once for each repository; pass the frames to the uploads in order; end each object with facts and tail;
//! create all objects at the same time; then ask each store for the size and the checksum of the object that it has
//! now.
//!
//! If the name is taken, the object under it decides: it is read whole and verified. The same content (BLAKE3 and
//! length of the raw file; two encrypted objects of one file never have the same bytes) is success. Other content is
//! [`Cause::Divergence`], and the ledger gets a record of it if possible.
//!
//! Memory: before it starts, a file takes one permit for everything it may hold, so that a file waits only before its
//! start, never in the middle. It returns most of the permit when it is compressed and only waits for the store.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_contract::report::wal::{ArchivedFile, Stored, StoredIn};
use holdfast_pgtypes::PgVersion;
use holdfast_pgtypes::wal::reader::WalSegment;
use holdfast_repo::frame::ObjectType;
use holdfast_repo::name::{self, ClusterName};
use holdfast_repo::record::{ClaimRecord, LedgerEntry, sha256_hex};
use holdfast_repo::wal_object::{PIECE_BYTES, WalObjectFacts, WalObjectPlan};
use holdfast_repo::{ChunkHash, Compression};
use serde_json::json;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::encode::{self, MAX_SCANNED_BYTES, ObjectForm};
use super::local_file::LocalFile;
use super::stored;
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::budget::{ByteBudget, MINIMUM_BYTES, Permit};
use crate::pipeline::crew::Crew;
use crate::pipeline::object_upload::ObjectUpload;
use crate::repository::claim::Identity;
use crate::repository::confirm::{Sent, WAL_PART_BYTES, confirm_created};
use crate::repository::{Repository, object_name};

/// A WAL object up to this size is sent in one request; an ordinary segment always is.
const PART_BYTES: usize = WAL_PART_BYTES;

/// How many pieces of one file the crew works on at the same time.
const PIECES_IN_FLIGHT: usize = 4;

/// Time limit for cleaning up after an upload that was given up.
const ABORT_WITHIN: Duration = Duration::from_secs(5);

/// The order of access to the stores: files after the first one wait until its bytes are sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    /// Whether this file waits, and is not the one that the others wait for.
    waits: bool,
    out: CancellationToken,
}

impl Line {
    /// The line for the file that goes first.
    pub(super) fn first(&self) -> Self {
        Self { waits: false, out: self.out.clone() }
    }

    /// The line for a file that waits for the first one.
    pub(super) fn after_first(&self) -> Self {
        Self { waits: true, out: self.out.clone() }
    }

    /// Whether the file of this line may send.
    pub(super) fn is_free(&self) -> bool {
        !self.waits || self.out.is_cancelled()
    }

    async fn free(&self) {
        if self.waits {
            self.out.cancelled().await;
        }
    }

    /// Reports that the bytes of this file are sent, or that it is stored already.
    fn leave(&self) {
        if !self.waits {
            self.out.cancel();
        }
    }
}

/// A repository in which a WAL file is stored, with the claim that the file belongs to.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The open repository.
    pub repository: Repository,
    /// The claim, already checked.
    pub claim: ClaimRecord,
}

/// What all files of a run share.
#[derive(Debug, Clone)]
pub struct ArchiveContext {
    /// The cluster of the archive.
    pub cluster: ClusterName,
    /// Codec and level. If the claim has another codec, that one is used at its default level.
    pub compression: Compression,
    /// The threads that compress the pieces.
    pub crew: Crew,
    /// The limit on the memory of all files together.
    pub budget: ByteBudget,
    /// Host and time for ledger records; without it none are written.
    pub ledger: Option<(String, DateTime<Utc>)>,
}

/// Archives one file of `pg_wal` in one repository, under the same rules as `wal push`; `Ok` means durable.
///
/// # Errors
/// [`Cause::Divergence`] if other content is stored under the name. [`Cause::SegmentMismatch`], [`Cause::SegmentSize`]
/// or [`Cause::Malformed`] if the file is not what its name says, [`Cause::Refused`] if the name is not that of a WAL
/// file or the file changes meanwhile, [`Cause::File`] if it cannot be read. [`Cause::NotReadable`] or
/// [`Cause::Format`] if what was stored does not read back, [`Cause::Store`] and [`Cause::Cancelled`].
pub async fn archive_file(
    repository: &Repository,
    cluster: &ClusterName,
    claim: &ClaimRecord,
    path: &Path,
    compression: Compression,
    crew: &Crew,
    cancel: &CancellationToken,
) -> Result<ArchivedFile, Error> {
    let path = path.to_owned();
    let file = Arc::new(blocking(move || LocalFile::open(&path)).await?);
    let context = ArchiveContext {
        cluster: cluster.clone(),
        compression,
        crew: crew.clone(),
        budget: ByteBudget::new(MINIMUM_BYTES),
        ledger: None,
    };
    let destinations = [Destination { repository: repository.clone(), claim: claim.clone() }];
    let permit = context.budget.acquire(memory_needed(&file, destinations.len())).await;
    deliver(file, &destinations, &context, permit, &Line::default(), cancel).await
}

/// The most bytes that [`deliver`] holds for a file at any moment.
pub(super) fn memory_needed(file: &LocalFile, destinations: usize) -> u64 {
    let size = file.identity.size_bytes;
    let window = (PIECES_IN_FLIGHT * PIECE_BYTES) as u64;
    let raw = if size <= MAX_SCANNED_BYTES { size } else { window };
    // One buffer that is being filled, and two more parts in flight.
    let outgoing = size.min(3 * PART_BYTES as u64 + window);
    raw + outgoing * destinations as u64
}

/// Stores a file in every destination. `permit` covers [`memory_needed`].
pub(super) async fn deliver(
    file: Arc<LocalFile>,
    destinations: &[Destination],
    context: &ArchiveContext,
    permit: Permit,
    line: &Line,
    cancel: &CancellationToken,
) -> Result<ArchivedFile, Error> {
    let name = file.name;
    let mut delivery = Delivery { file, destinations, context, permit, line, outgoing: Vec::new() };
    let outcome = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Cause::Cancelled.into()),
        outcome = delivery.run() => outcome,
    };
    if outcome.is_err() {
        for upload in delivery.outgoing.iter_mut().filter_map(|outgoing| outgoing.upload.take()) {
            if tokio::time::timeout(ABORT_WITHIN, upload.abort()).await.is_err() {
                tracing::debug!(file = %name, "an unfinished upload could not be removed in time");
            }
        }
    }
    outcome.doing(|| format!("archiving {name}"))
}

struct Delivery<'a> {
    file: Arc<LocalFile>,
    destinations: &'a [Destination],
    context: &'a ArchiveContext,
    permit: Permit,
    line: &'a Line,
    outgoing: Vec<Outgoing>,
}

/// One object that is being uploaded.
struct Outgoing {
    object: String,
    /// `None` after the name was found taken, and after the upload is finished.
    upload: Option<ObjectUpload>,
    size_bytes: u64,
    crc32c: u32,
}

impl Outgoing {
    async fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.size_bytes += bytes.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        let Some(upload) = &mut self.upload else { return Ok(()) };
        match upload.push(bytes, None).await {
            Err(error) if error.is_already_exists() => {
                if let Some(upload) = self.upload.take() {
                    upload.abort().await;
                }
                Ok(())
            }
            outcome => outcome,
        }
    }
}

impl Delivery<'_> {
    async fn run(&mut self) -> Result<ArchivedFile, Error> {
        for destination in self.destinations {
            self.file.check(&identity_of(&destination.claim)?)?;
        }
        // An object that fits into one part is sent only at its end. Parts of a larger one would be sent while it is
        // compressed.
        if self.file.identity.size_bytes >= PART_BYTES as u64 {
            self.line.free().await;
        }
        let forms = Arc::new(self.begin().await?);
        let facts = self.compress(&forms).await?;
        self.end(&forms, &facts).await?;
        drop(forms);

        self.line.free().await;
        let outgoing = std::mem::take(&mut self.outgoing);
        let (file, context) = (&self.file, self.context);
        let sending = outgoing.into_iter().map(send);
        // All continue to their end even if one fails: what is stored now need not be sent again.
        let sent = futures::future::join_all(sending).await;
        // If a name was taken, the neighbours wait until its content is known: they may be of another history.
        if sent.iter().all(|sent| sent.as_ref().is_ok_and(|gone| gone.created)) {
            self.line.leave();
        }
        let finishing = self.destinations.iter().zip(sent).map(|(destination, sent)| {
            let facts = &facts;
            async move { finish(file, destination, context, sent?, facts).await }
        });
        let repositories = futures::future::join_all(finishing).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.line.leave();
        Ok(ArchivedFile { file: self.file.name, raw_bytes: facts.raw_len, repositories })
    }

    /// Opens one upload for each destination and gives it the head.
    async fn begin(&mut self) -> Result<Vec<ObjectForm>, Error> {
        let mut forms = Vec::with_capacity(self.destinations.len());
        for Destination { repository, claim } in self.destinations {
            let object = stored::wal_object_name(repository, &self.context.cluster, claim, &self.file.name);
            let (sealer, head) =
                holdfast_repo::ObjectSealer::new(ObjectType::Wal, &object, repository.id(), repository.key())?;
            let upload = ObjectUpload::new(Arc::clone(repository.store()), object_name(&object)?, PART_BYTES);
            let mut outgoing = Outgoing { object, upload: Some(upload), size_bytes: 0, crc32c: 0 };
            outgoing.push(&head).await?;
            self.outgoing.push(outgoing);
            let codec = name::wal_codec(&self.file.name, claim.wal_codec);
            let configured = self.context.compression;
            let compression = if codec == configured.codec() { configured } else { Compression::of(codec) };
            forms.push(ObjectForm { sealer, compression });
        }
        Ok(forms)
    }

    /// Reads, hashes, scans and compresses the file, and passes the sealed pieces to the uploads in order.
    async fn compress(&mut self, forms: &Arc<Vec<ObjectForm>>) -> Result<WalObjectFacts, Error> {
        let raw_len = self.file.identity.size_bytes;
        let plan = WalObjectPlan::new(usize::try_from(raw_len).unwrap_or(usize::MAX));
        let crew = &self.context.crew;
        let (hash, facts) = if raw_len <= MAX_SCANNED_BYTES {
            let file = Arc::clone(&self.file);
            let whole = Arc::new(blocking(move || file.read_all()).await?);
            let mut waiting = VecDeque::with_capacity(PIECES_IN_FLIGHT);
            // The records are read last, because their facts are needed last.
            let mut described = None;
            let pieces = plan.pieces();
            let last = pieces.len();
            for (index, range) in pieces.enumerate() {
                if waiting.len() == PIECES_IN_FLIGHT {
                    push_first(&mut waiting, &mut self.outgoing).await?;
                }
                let (raw, forms) = (Arc::clone(&whole), Arc::clone(forms));
                waiting.push_back(crew.run(move || encode::seal_piece(&raw[range], index as u32 + 1, &forms)));
                if index + 1 == last {
                    described = Some(crew.run(self.describe_job(Arc::clone(&whole))?));
                }
            }
            drop(whole);
            while !waiting.is_empty() {
                push_first(&mut waiting, &mut self.outgoing).await?;
            }
            match described {
                Some(described) => described.await?,
                None => (ChunkHash::of(b""), json!({})),
            }
        } else {
            let mut waiting = VecDeque::with_capacity(PIECES_IN_FLIGHT);
            let mut hasher = blake3::Hasher::new();
            for index in 0..plan.pieces().len() {
                if waiting.len() == PIECES_IN_FLIGHT {
                    push_first(&mut waiting, &mut self.outgoing).await?;
                }
                let file = Arc::clone(&self.file);
                let (piece, updated) = blocking(move || {
                    let piece = file.read_piece(index as u64)?;
                    hasher.update(&piece);
                    Ok((piece, hasher))
                })
                .await?;
                hasher = updated;
                let forms = Arc::clone(forms);
                waiting.push_back(crew.run(move || encode::seal_piece(&piece, index as u32 + 1, &forms)));
            }
            while !waiting.is_empty() {
                push_first(&mut waiting, &mut self.outgoing).await?;
            }
            (hasher.finalize().into(), encode::scan(None))
        };
        let file = Arc::clone(&self.file);
        blocking(move || file.check_unchanged()).await?;
        Ok(WalObjectFacts { file_name: self.file.name.to_string(), raw_len, blake3: hash, facts })
    }

    /// The job that hashes the whole file and, for a segment, reads its records.
    fn describe_job(
        &self,
        whole: Arc<Vec<u8>>,
    ) -> Result<impl FnOnce() -> (ChunkHash, serde_json::Value) + Send + 'static, Error> {
        let identity = self.destinations.first().map(|first| identity_of(&first.claim)).transpose()?;
        let segment = self.file.segment();
        Ok(move || {
            let hash = ChunkHash::of(&whole);
            let facts = match (segment, identity) {
                (Some(name), Some(Identity { version, wal_segment_size: size, .. })) => {
                    encode::scan(Some(WalSegment { bytes: &whole, name, size, version }))
                }
                _ => json!({}),
            };
            (hash, facts)
        })
    }

    /// Adds facts and tail to every upload. After that only the uploads hold any bytes of the file.
    async fn end(&mut self, forms: &[ObjectForm], facts: &WalObjectFacts) -> Result<(), Error> {
        let pieces = facts.raw_len.div_ceil(PIECE_BYTES as u64) as u32;
        for (outgoing, form) in self.outgoing.iter_mut().zip(forms) {
            let end = encode::seal_end(form, facts, pieces + 1, outgoing.size_bytes)?;
            outgoing.push(&end).await?;
        }
        self.permit.shrink_to(self.outgoing.iter().map(|outgoing| outgoing.size_bytes).sum());
        Ok(())
    }
}

async fn push_first<F>(waiting: &mut VecDeque<F>, outgoing: &mut [Outgoing]) -> Result<(), Error>
where
    F: Future<Output = Result<Result<Vec<Vec<u8>>, Error>, Error>>,
{
    let Some(first) = waiting.pop_front() else { return Ok(()) };
    for (outgoing, sealed) in outgoing.iter_mut().zip(first.await??) {
        outgoing.push(&sealed).await?;
    }
    Ok(())
}

/// An object whose last byte has been sent.
struct SentObject {
    object: String,
    sent: Sent,
    /// Whether it was created; otherwise its name was taken.
    created: bool,
}

/// Creates the object.
async fn send(outgoing: Outgoing) -> Result<SentObject, Error> {
    let Outgoing { object, upload, size_bytes, crc32c } = outgoing;
    let created = match upload {
        None => false,
        Some(upload) => match upload.finish().await {
            Ok(_) => true,
            Err(error) if error.is_already_exists() => false,
            Err(error) => return Err(error),
        },
    };
    Ok(SentObject { object, sent: Sent { size_bytes, crc32c }, created })
}

/// Confirms the object, or compares the object that already had the name.
async fn finish(
    file: &Arc<LocalFile>,
    destination: &Destination,
    context: &ArchiveContext,
    sent_object: SentObject,
    facts: &WalObjectFacts,
) -> Result<StoredIn, Error> {
    let SentObject { object, sent, created } = sent_object;
    let repository = &destination.repository;
    let stored = if created && confirmed(file, destination, context, &object, sent).await? {
        Stored::Created
    } else {
        judge(file, destination, context, &object, facts).await?;
        Stored::AlreadyThere
    };
    Ok(StoredIn { store: repository.describe(), stored, size_bytes: sent.size_bytes })
}

/// Whether the store has what was sent; `false` if another writer's object is in its place.
async fn confirmed(
    file: &Arc<LocalFile>,
    destination: &Destination,
    context: &ArchiveContext,
    object: &str,
    sent: Sent,
) -> Result<bool, Error> {
    let repository = &destination.repository;
    match confirm_created(repository, object, sent, file.identity.size_bytes).await {
        Ok(()) => Ok(true),
        Err(error) if matches!(*error.what, Cause::NotReadable { .. }) => {
            // Another writer's object is whole; an object that is not whole is our own, damaged.
            match stored::read(repository, &destination.claim, object, &context.crew).await {
                Ok(_) => {
                    tracing::warn!(file = %file.name, %error, "another writer took the name");
                    Ok(false)
                }
                Err(_) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// Compares the object under the file's name with the file.
async fn judge(
    file: &Arc<LocalFile>,
    destination: &Destination,
    context: &ArchiveContext,
    object: &str,
    facts: &WalObjectFacts,
) -> Result<(), Error> {
    let Destination { repository, claim } = destination;
    let (raw, stored) = stored::read(repository, claim, object, &context.crew)
        .await
        .doing(|| format!("comparing {} with what is stored under its name", file.name))?;
    if stored.blake3 == facts.blake3 && stored.raw_len == facts.raw_len {
        return Ok(());
    }
    if let Some((host, now)) = &context.ledger {
        let file = Arc::clone(file);
        let file_name = file.name;
        let digests = context.crew.run(move || Ok((sha256_hex(&raw), sha256_hex(&file.read_all()?)))).await;
        let written = match digests.and_then(|digests| digests) {
            Ok((stored_sha256, offered_sha256)) => {
                let entry =
                    LedgerEntry::Divergence { claim: claim.number, file: file_name, stored_sha256, offered_sha256 };
                repository.write_ledger(&context.cluster, host, *now, entry).await.map(|_| ())
            }
            Err(error) => Err(error),
        };
        // The caller must get the divergence itself as the error.
        if let Err(error) = written {
            tracing::warn!(file = %file_name, %error, "the divergence could not be written to the ledger");
        }
    }
    Err(Cause::Divergence {
        store: repository.describe(),
        name: object.to_owned(),
        stored: stored.blake3.to_string(),
        here: facts.blake3.to_string(),
    }
    .into())
}

/// The identity of the cluster that the claim belongs to.
pub(super) fn identity_of(claim: &ClaimRecord) -> Result<Identity, Error> {
    let version = PgVersion::new(claim.pg_major).map_err(|source| Cause::StoredVersion {
        name: format!("claim {} of the archive {}", claim.number, claim.cluster),
        source,
    })?;
    Ok(Identity { system_identifier: claim.system_identifier, version, wal_segment_size: claim.wal_segment_size })
}

/// Runs file I/O on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(job).await.unwrap_or_else(|e| Err(Cause::Internal(format!("a file task failed: {e}")).into()))
}
