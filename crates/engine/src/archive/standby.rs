//! `wal push --standby`: the `archive_command` of a standby with `archive_mode = always`.
//!
//! The primary archives. A standby keeps what it has received until the archive has it, and stores nothing itself. So
//! nothing is lost if the primary dies with segments that only its standbys still have: the promoted one has them
//! waiting, and its plain `wal push` archives them. And nothing is stored twice.
//!
//! Steps: check the file. Report success if it belongs to no history of this server (see [`super::fork`]). Ask every
//! repository for the object with its name and compare length and BLAKE3 with the file, which costs two small requests.
//! If the object is absent, look again for a while. `Ok` means that every repository has it with this content. An
//! object with other content is [`Cause::Divergence`], at once. If it stays absent, the result is
//! [`Cause::NotArchived`]: PostgreSQL keeps the file and asks again.
//!
//! The wait ends at once when it is cancelled, and when the server that owns the file shuts down, because its archiver
//! delays the shutdown until the command ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_contract::report::wal::{StandbyOutcome, StandbyPushReport};
use holdfast_pgtypes::WalFileName;
use holdfast_repo::ChunkHash;
use holdfast_repo::name::ClusterName;
use holdfast_repo::record::ClaimRecord;
use holdfast_repo::wal_object::{PIECE_BYTES, WalObjectFacts};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deliver::blocking;
use super::fork;
use super::local_file::LocalFile;
use super::stored;
use crate::error::{Cause, Error, ResultExt};
use crate::repository::claim::{Claimant, Identity};
use crate::repository::{Repository, RepositoryTarget};
use crate::server::PostmasterPid;

/// The first pause between two looks: the primary archives a segment while the standby receives it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause between two looks: it spares the store, and is short enough for the archiver's next segment.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The options of `wal push --standby`.
#[derive(Debug, Clone)]
pub struct StandbyPushOptions {
    /// The cluster of the archive.
    pub cluster: ClusterName,
    /// The owner for whom the archive is claimed; a claim with another owner is refused.
    pub owner: Option<String>,
    /// The path of the file, `%p` of PostgreSQL: relative to the data directory, which is the current directory, or
    /// absolute.
    pub path: PathBuf,
    /// How long to wait until the primary has archived the file.
    pub wait: Duration,
}

/// Returns success once every repository has the file.
///
/// # Errors
/// [`Cause::NotArchived`] if a repository does not have the file when the wait is over, or the server stops.
/// [`Cause::Divergence`] if one has it with other content. [`Cause::SegmentMismatch`], [`Cause::SegmentSize`] or
/// [`Cause::Malformed`] if the file is not what its name says, [`Cause::File`] or [`Cause::ControlFile`] if it, or the
/// control file beside it, cannot be read. [`Cause::Refused`] if no repository is given, if the name is not that of a
/// WAL file, or if the file changes meanwhile. Those of [`Repository::open`], [`Repository::newest_claim`] and
/// [`Repository::check_claim`], [`Cause::Cancelled`].
pub async fn push_standby(
    targets: &[RepositoryTarget],
    options: &StandbyPushOptions,
    cancel: &CancellationToken,
) -> Result<StandbyPushReport, Error> {
    let outcome = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Cause::Cancelled.into()),
        outcome = push_standby_inner(targets, options) => outcome,
    };
    outcome.doing(|| format!("waiting for the primary to archive {}", options.path.display()))
}

async fn push_standby_inner(
    targets: &[RepositoryTarget],
    options: &StandbyPushOptions,
) -> Result<StandbyPushReport, Error> {
    if targets.is_empty() {
        return Err(Cause::Refused("there is no repository to archive to".to_owned()).into());
    }
    let path = options.path.clone();
    let (file, identity, left) = blocking(move || {
        let (file, identity) = LocalFile::open_with_identity(&path)?;
        let left = match (file.name, &identity) {
            (WalFileName::Segment(segment), Some(identity)) => {
                let folder = path.parent().unwrap_or(Path::new("")).to_owned();
                fork::left_behind_around(&folder, segment, identity.wal_segment_size)?
            }
            _ => None,
        };
        if let (Some(identity), None) = (&identity, &left) {
            file.check(identity)?;
        }
        Ok((file, identity, left))
    })
    .await?;
    if let Some(fork) = left {
        tracing::info!(file = %file.name, %fork, "not archived: it is not part of this server's history");
        return Ok(StandbyPushReport { file: file.name, outcome: StandbyOutcome::AfterFork(fork) });
    }
    let mut places = Vec::new();
    for target in targets {
        let repository = Repository::open_to_write(target).await?;
        places.push(Place { repository, claim: None });
    }
    let here = Arc::new(file);
    let hashed = Arc::clone(&here);
    let content = blocking(move || content_of(&hashed)).await?;
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let mut missing = false;
        for place in &mut places {
            missing |= !place.holds(options, identity, here.name, &content).await?;
        }
        if !missing {
            return Ok(StandbyPushReport { file: here.name, outcome: StandbyOutcome::InArchive });
        }
        let path = options.path.clone();
        let stopping = blocking(move || Ok(server_is_stopping(&path))).await?;
        let waited = began.elapsed();
        if stopping || waited >= options.wait {
            return Err(Cause::NotArchived { segment: here.name.to_string(), waited }.into());
        }
        tokio::time::sleep(pause.min(options.wait.saturating_sub(waited))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The length and the hash of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) raw_len: u64,
    pub(super) blake3: ChunkHash,
}

/// Length and hash of the file; fails if it changes while it is read. Blocks.
pub(super) fn content_of(file: &LocalFile) -> Result<Content, Error> {
    let raw_len = file.identity.size_bytes;
    let mut hasher = blake3::Hasher::new();
    for number in 0..raw_len.div_ceil(PIECE_BYTES as u64) {
        hasher.update(&file.read_piece(number)?);
    }
    file.check_unchanged()?;
    Ok(Content { raw_len, blake3: hasher.finalize().into() })
}

/// A repository that must have the file.
struct Place {
    repository: Repository,
    /// The claim in force; `None` while there is none.
    claim: Option<ClaimRecord>,
}

impl Place {
    /// Whether the repository has the file with this content.
    async fn holds(
        &mut self,
        options: &StandbyPushOptions,
        identity: Option<Identity>,
        file: WalFileName,
        content: &Content,
    ) -> Result<bool, Error> {
        if self.claim.is_none() {
            self.claim = self.checked_claim(options, identity).await?;
        }
        // Nothing was archived yet: only the primary makes a claim.
        let Some(claim) = &self.claim else { return Ok(false) };
        let object = stored::wal_object_name(&self.repository, &options.cluster, claim, &file);
        let Some(facts) = stored_facts(&self.repository, &object).await? else { return Ok(false) };
        if facts.raw_len == content.raw_len && facts.blake3 == content.blake3 {
            return Ok(true);
        }
        Err(Cause::Divergence {
            store: self.repository.describe(),
            name: object,
            stored: facts.blake3.to_string(),
            here: content.blake3.to_string(),
        }
        .into())
    }

    async fn checked_claim(
        &self,
        options: &StandbyPushOptions,
        identity: Option<Identity>,
    ) -> Result<Option<ClaimRecord>, Error> {
        let Some(claim) = self.repository.newest_claim(&options.cluster).await? else { return Ok(None) };
        if let Some(identity) = identity {
            let claimant = Claimant {
                identity,
                here: options.path.display().to_string(),
                owner: options.owner.clone(),
                wal_codec: claim.wal_codec,
                host: String::new(),
                now: claim.since,
            };
            self.repository.check_claim(&claim, &claimant)?;
        }
        Ok(Some(claim))
    }
}

/// The facts that the archiver stored about a file, from both ends of its object; `None` if the store answers that
/// there is no object.
pub(crate) async fn stored_facts(repository: &Repository, object: &str) -> Result<Option<WalObjectFacts>, Error> {
    match repository.wal_facts(object).await {
        Err(error) if error.is_not_found() => Ok(None),
        facts => facts.map(Some),
    }
}

/// Whether the server that owns a file of `pg_wal` is shutting down, and waits for its archiver. Blocks.
pub fn server_is_stopping(path: &Path) -> bool {
    path.parent().and_then(Path::parent).is_some_and(PostmasterPid::is_stopping)
}
