//! `wal get`: the `restore_command`.
//!
//! Steps: take the segment from the spool if an earlier run fetched it ahead. Otherwise ask the repositories in their
//! order; the first one that has the file, whole and right, is used. Write the file beside the destination and rename
//! it. Meanwhile fetch the segments after it into the spool, within a time limit, because PostgreSQL waits.
//!
//! There are three distinct results, because PostgreSQL ends recovery on one of them: the file; [`Cause::Absent`], only
//! if every repository was opened, has the claim, and answered that there is no such object; and any other error, which
//! means "not known". A damaged object in one repository does not matter if another has a good one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_contract::report::wal::{GetReport, GetSource};
use holdfast_pgtypes::wal::segment_check::{ExpectedSegment, NEEDED_BYTES, check_segment_header};
use holdfast_pgtypes::{SegmentName, SystemIdentifier, WalFileName, WalSegmentSize};
use holdfast_repo::ChunkHash;
use holdfast_repo::name::ClusterName;
use holdfast_repo::record::ClaimRecord;
use holdfast_repo::recovery::NeededTail;
use holdfast_repo::wal_object::WalObjectFacts;
use holdfast_repo::wal_tail::Assembly;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::deliver::{blocking, identity_of};
use super::prefetched::{self, Prefetched};
use super::spool::{self, RepositorySetId, Spool};
use super::{stored, tail};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::budget::ByteBudget;
use crate::pipeline::crew::Crew;
use crate::repository::claim::Claims;
use crate::repository::{Repository, RepositoryTarget};

/// How long fetching ahead may take, from the moment at which the requested file is fetched and verified.
const PREFETCH_WITHIN: Duration = Duration::from_secs(15);

/// The options of `wal get`.
#[derive(Debug, Clone)]
pub struct GetOptions {
    /// The cluster of the archive.
    pub cluster: ClusterName,
    /// The name of the file, `%f` of PostgreSQL.
    pub name: WalFileName,
    /// Where to write the file, `%p` of PostgreSQL: relative to the current directory or absolute.
    pub destination: PathBuf,
    /// How many segments after the requested one are fetched ahead. It is also the most that the spool may contain.
    pub prefetch: usize,
    /// The last segment that is fetched ahead, by its number: recovery does not go further.
    pub last_ahead: Option<SegmentName>,
    /// The spool that keeps them; without it, nothing is fetched ahead.
    pub spool: Option<Spool>,
    /// The repositories, as the spool identifies them.
    pub repository_set: RepositorySetId,
    /// The cluster whose WAL is wanted, from `pg_control` of the directory in recovery. `None` means the cluster of the
    /// claim in force.
    pub system_identifier: Option<SystemIdentifier>,
    /// The timelines whose unfinished segments are put together from their pieces, if no repository has them whole,
    /// with the end that was found. Only if every configured repository is among the asked ones, because recovery ends
    /// where the pieces end.
    pub tails: Vec<NeededTail>,
    /// The threads that decompress.
    pub crew: Crew,
    /// The limit on memory.
    pub budget: ByteBudget,
    /// The present time.
    pub now: DateTime<Utc>,
}

/// Writes a file of the archive to its destination.
///
/// # Errors
/// [`Cause::Absent`] only if every repository answered that it does not have the file. Otherwise that of the first
/// repository that could not answer: [`Cause::NoClaim`] or [`Cause::WrongCluster`] if it has no claim of the cluster,
/// [`Cause::Format`], [`Cause::SegmentMismatch`] or [`Cause::SegmentSize`] if the object is damaged, those of
/// [`Repository::open`]. [`Cause::TailTooShort`] if the pieces end before the end that was found. [`Cause::File`] if
/// the file cannot be written, [`Cause::Refused`] if no repository is given, [`Cause::Cancelled`].
pub async fn get(
    targets: &[RepositoryTarget],
    options: &GetOptions,
    cancel: &CancellationToken,
) -> Result<GetReport, Error> {
    get_inner(targets, options, cancel).await.doing(|| format!("fetching {} from the archive", options.name))
}

async fn get_inner(
    targets: &[RepositoryTarget],
    options: &GetOptions,
    cancel: &CancellationToken,
) -> Result<GetReport, Error> {
    if targets.is_empty() {
        return Err(Cause::Refused("there is no repository to fetch from".to_owned()).into());
    }
    if let Some(system_identifier) = options.system_identifier
        && let Some(report) = options.hand_over_spooled(system_identifier).await?
    {
        return Ok(report);
    }
    let answer = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Cause::Cancelled.into()),
        answer = ask_all(targets, options) => answer,
    };
    let found = match answer {
        Ok(Answer::Done(report)) => return Ok(report),
        Ok(Answer::Found(found)) => found,
        Err(error) => match (&*error.what, options.unfinished()) {
            // Every repository has answered that it does not have the segment in whole.
            (Cause::Absent { .. }, Some((segment, needed))) => {
                let unfinished = unfinished(targets, options, segment, cancel).await?;
                // It may have become whole meanwhile, and its pieces are removed then.
                match (ask_all(targets, options).await, unfinished) {
                    (Ok(Answer::Done(report)), _) => return Ok(report),
                    (Ok(Answer::Found(found)), _) => found,
                    (Err(again), pieces) if matches!(*again.what, Cause::Absent { .. }) => {
                        return hand_over_unfinished(options, segment, needed, pieces).await;
                    }
                    (Err(again), _) => return Err(again),
                }
            }
            _ => return Err(error),
        },
    };
    let size_bytes = found.raw.len() as u64;
    let FetchedFile { repository, claim, mut raw } = found;
    if let Some((segment, needed)) = options.unfinished() {
        // It has become whole since the plan, perhaps with WAL that the followed timeline does not have.
        let allowed = needed.bytes_allowed(segment, claim.wal_segment_size);
        if (allowed as usize) < NEEDED_BYTES {
            return Err(Cause::Absent { file: segment.to_string() }.into());
        }
        end_at(&mut raw, allowed);
    }
    let destination = options.destination.clone();
    let now = options.now;
    let place = blocking(move || {
        prefetched::write_whole(&destination, &raw)?;
        spool::remove_stale(prefetched::parent_of(&destination), now.into());
        Ok(())
    });
    // Writing and fetching ahead do not wait for each other. If the file cannot be written, both end.
    let ahead = async {
        let WalFileName::Segment(segment) = options.name else { return Ok(0) };
        let Some(spooled) = options.prefetched(claim.system_identifier) else { return Ok(0) };
        Ok(tokio::select! {
            biased;
            () = cancel.cancelled() => 0,
            count = prefetch(options, segment, spooled, &repository, &claim) => count,
        })
    };
    let ((), prefetched) = futures::future::try_join(place, ahead).await?;
    let source = GetSource::Repository(repository.describe());
    Ok(GetReport { file: options.name, source, size_bytes, prefetched })
}

/// Zeros from this byte on, where PostgreSQL must find no record.
fn end_at(segment: &mut [u8], bytes_allowed: u32) {
    segment.get_mut(bytes_allowed as usize..).unwrap_or_default().fill(0);
}

/// The stored beginning of a segment.
struct Unfinished {
    store: String,
    claim: ClaimRecord,
    assembly: Assembly,
}

/// Puts a segment together from the pieces of the repository that has most of it.
async fn unfinished(
    targets: &[RepositoryTarget],
    options: &GetOptions,
    segment: SegmentName,
    cancel: &CancellationToken,
) -> Result<Unfinished, Error> {
    let asking = async {
        let mut best: Option<Unfinished> = None;
        for target in targets {
            let repository = Repository::open(target).await?;
            let claims = choose_claims(&repository, &options.cluster, options.system_identifier).await?;
            for claim in std::iter::once(claims.newest).chain(claims.older) {
                let pieces = tail::list_segment(&repository, &claim, segment).await?;
                let assembly = tail::assemble(&repository, &claim, segment, pieces, &options.crew).await?;
                if best.as_ref().is_none_or(|best| assembly.end() > best.assembly.end()) {
                    best = Some(Unfinished { store: repository.describe(), claim, assembly });
                }
            }
        }
        best.ok_or_else(|| Cause::Refused("there is no repository to fetch from".to_owned()).into())
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Cause::Cancelled.into()),
        best = asking => best,
    }
}

async fn hand_over_unfinished(
    options: &GetOptions,
    segment: SegmentName,
    needed: NeededTail,
    pieces: Unfinished,
) -> Result<GetReport, Error> {
    let Unfinished { store, claim, assembly } = pieces;
    let size = claim.wal_segment_size;
    let lsn = |bytes: u32| segment.start_lsn(size).saturating_add(u64::from(bytes));
    if assembly.end() < needed.bytes_needed(segment, size) {
        let (end, needed) = (lsn(assembly.end()), lsn(needed.bytes_needed(segment, size)));
        return Err(Cause::TailTooShort { segment: segment.to_string(), end, needed }.into());
    }
    let given = assembly.end().min(needed.bytes_allowed(segment, size));
    // Without the header of its first page, it is no segment, and has no record.
    if (given as usize) < NEEDED_BYTES {
        return Err(Cause::Absent { file: segment.to_string() }.into());
    }
    let end = lsn(given);
    let mut raw = assembly.into_segment(size.bytes());
    end_at(&mut raw, given);
    check_segment(&raw, segment, &claim).doing(|| format!("checking the tail of {segment} from {store}"))?;
    tracing::warn!(%segment, %end, store, "this segment is not whole in the archive: its stored beginning is given");
    let (destination, size_bytes) = (options.destination.clone(), raw.len() as u64);
    blocking(move || prefetched::write_whole(&destination, &raw)).await?;
    Ok(GetReport { file: options.name, source: GetSource::Tail(store), size_bytes, prefetched: 0 })
}

/// A verified file from one repository.
struct FetchedFile {
    repository: Repository,
    claim: ClaimRecord,
    raw: Vec<u8>,
}

enum Answer {
    Found(FetchedFile),
    /// The spool had the file after all.
    Done(GetReport),
}

async fn ask_all(targets: &[RepositoryTarget], options: &GetOptions) -> Result<Answer, Error> {
    let mut doubt: Option<Error> = None;
    for target in targets {
        match ask(target, options).await {
            Ok(Some(answer)) => {
                if let Some(error) = doubt {
                    tracing::warn!(file = %options.name, %error, "this repository could not answer, another one did");
                }
                return Ok(answer);
            }
            Ok(None) => {}
            Err(error) => {
                if doubt.is_none() {
                    doubt = Some(error);
                } else {
                    tracing::warn!(file = %options.name, %error, "a further repository could not answer");
                }
            }
        }
    }
    Err(doubt.unwrap_or_else(|| Cause::Absent { file: options.name.to_string() }.into()))
}

/// Asks one repository; `None` means that it answered that the file is not there.
async fn ask(target: &RepositoryTarget, options: &GetOptions) -> Result<Option<Answer>, Error> {
    let repository = Repository::open(target).await?;
    let claims = choose_claims(&repository, &options.cluster, options.system_identifier).await?;
    if options.system_identifier.is_none()
        && let Some(report) = options.hand_over_spooled(claims.newest.system_identifier).await?
    {
        return Ok(Some(Answer::Done(report)));
    }
    let bytes = memory_needed(&claims.newest, options.name);
    let _permit = options.budget.acquire(bytes).await;
    let found = claims.fetch(&repository, &options.cluster, &options.name, &options.crew).await?;
    Ok(found.map(|(claim, raw, _)| Answer::Found(FetchedFile { repository, claim, raw })))
}

/// The claims of one cluster whose WAL is wanted. Usually there is one. `repo init --new-claim` makes another one for
/// the same system identifier if the owner or the size of the segments has changed, and a recovery may still need the
/// WAL of the one before.
#[derive(Debug, Clone)]
pub(super) struct ChosenClaims {
    pub(super) newest: ClaimRecord,
    /// Those before it, newest first.
    older: Vec<ClaimRecord>,
}

impl ChosenClaims {
    /// Fetches a file from the claim that has it. `None` means that none of them has it.
    ///
    /// # Errors
    /// [`Cause::Refused`] if several claims have it with different content: it is not known which of them is wanted.
    pub(super) async fn fetch(
        &self,
        repository: &Repository,
        cluster: &ClusterName,
        file: &WalFileName,
        crew: &Crew,
    ) -> Result<Option<(ClaimRecord, Vec<u8>, ChunkHash)>, Error> {
        let mut found: Option<(ClaimRecord, Vec<u8>, ChunkHash)> = None;
        for claim in std::iter::once(&self.newest).chain(&self.older) {
            let object = stored::wal_object_name(repository, cluster, claim, file);
            let Some((raw, hash)) = fetch_object(repository, claim, &object, file, crew).await? else { continue };
            match &found {
                None => found = Some((claim.clone(), raw, hash)),
                Some((_, _, other)) if *other == hash => {}
                Some((newer, ..)) => {
                    return Err(Cause::Refused(format!(
                        "{file} is in the claims {} and {} of {cluster} in {} with different content, and it is not known \
                         which of them this server recovers from",
                        claim.number,
                        newer.number,
                        repository.describe()
                    ))
                    .into());
                }
            }
        }
        Ok(found)
    }
}

/// The claims of the cluster whose WAL is wanted: all with its system identifier, or the one in force if it is not
/// known.
pub(super) async fn choose_claims(
    repository: &Repository,
    cluster: &ClusterName,
    system_identifier: Option<SystemIdentifier>,
) -> Result<ChosenClaims, Error> {
    let Some(wanted) = system_identifier else {
        return Ok(ChosenClaims { newest: repository.current_claim(cluster).await?, older: Vec::new() });
    };
    let claims = repository.claims(cluster).await?;
    let of_cluster = claims.records.iter().filter(|claim| claim.system_identifier == wanted);
    let older: Vec<ClaimRecord> = of_cluster.rev().skip(1).cloned().collect();
    Ok(ChosenClaims { newest: newest_of(claims, repository, cluster, wanted)?, older })
}

/// The newest claim with this system identifier.
fn newest_of(
    claims: Claims,
    repository: &Repository,
    cluster: &ClusterName,
    wanted: SystemIdentifier,
) -> Result<ClaimRecord, Error> {
    let newest = claims.records.last().map(|claim| claim.system_identifier);
    match (claims.chosen(|claim| claim.system_identifier == wanted)?, newest) {
        (Some(claim), _) => Ok(claim),
        (None, None) => {
            let (store, cluster) = (repository.describe(), cluster.to_string());
            Err(Cause::NoClaim { store, cluster }.into())
        }
        (None, Some(claimed)) => Err(Cause::WrongCluster {
            store: repository.describe(),
            cluster: cluster.to_string(),
            claimed,
            here: "the cluster being recovered".to_owned(),
            found: wanted,
        }
        .into()),
    }
}

/// Fetches a file and verifies all of it; `None` means that the repository answered that there is none.
async fn fetch(
    repository: &Repository,
    claim: &ClaimRecord,
    options: &GetOptions,
    file: &WalFileName,
) -> Result<Option<(Vec<u8>, ChunkHash)>, Error> {
    let object = stored::wal_object_name(repository, &options.cluster, claim, file);
    fetch_object(repository, claim, &object, file, &options.crew).await
}

pub(super) async fn fetch_object(
    repository: &Repository,
    claim: &ClaimRecord,
    object: &str,
    file: &WalFileName,
    crew: &Crew,
) -> Result<Option<(Vec<u8>, ChunkHash)>, Error> {
    let read = read_whole(repository, claim, object, file, crew).await?;
    Ok(read.map(|(raw, facts)| (raw, facts.blake3)))
}

/// Fetches a file with all that is stored about it, and verifies all of it; `None` means that there is none.
pub(crate) async fn read_whole(
    repository: &Repository,
    claim: &ClaimRecord,
    object: &str,
    file: &WalFileName,
    crew: &Crew,
) -> Result<Option<(Vec<u8>, WalObjectFacts)>, Error> {
    let (raw, facts) = match stored::read(repository, claim, object, crew).await {
        Ok(read) => read,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    if let WalFileName::Segment(name) | WalFileName::Partial(name) = *file {
        check_segment(&raw, name, claim).doing(|| format!("checking {object} from {}", repository.describe()))?;
    }
    Ok(Some((raw, facts)))
}

/// Reads a WAL object of a claim as [`get`] does, and returns the length of its file in bytes; `None` if it does not
/// exist.
pub(crate) async fn look_at(
    repository: &Repository,
    claim: &ClaimRecord,
    file: &WalFileName,
    crew: &Crew,
) -> Result<Option<u64>, Error> {
    let object = stored::wal_object_name(repository, &claim.cluster, claim, file);
    let found = fetch_object(repository, claim, &object, file, crew).await?;
    Ok(found.map(|(raw, _)| raw.len() as u64))
}

fn check_segment(raw: &[u8], name: SegmentName, claim: &ClaimRecord) -> Result<(), Error> {
    let identity = identity_of(claim)?;
    let size = identity.wal_segment_size;
    let expected =
        ExpectedSegment { system_identifier: identity.system_identifier, version: identity.version, name, size };
    check_segment_header(raw, &expected).map_err(|source| Cause::SegmentMismatch { file: name.to_string(), source })?;
    if raw.len() as u64 == size.as_u64() {
        Ok(())
    } else {
        let path = PathBuf::from(name.to_string());
        Err(Cause::SegmentSize { path, found: raw.len() as u64, expected: size }.into())
    }
}

/// The bytes of the object and of the file in it, because both are in memory for a while.
pub(crate) fn memory_needed(claim: &ClaimRecord, file: WalFileName) -> u64 {
    match file {
        WalFileName::Segment(_) | WalFileName::Partial(_) => 2 * claim.wal_segment_size.as_u64(),
        WalFileName::History(_) | WalFileName::BackupHistory { .. } => 64 << 10,
    }
}

/// The most bytes of segments that are fetched ahead: 256 segments of the usual size, which is the most that can be
/// configured. A segment may have 1 GiB.
const MOST_AHEAD_BYTES: u64 = 4 << 30;

/// How many segments of this size are fetched ahead if this many are configured: one at least, unless none is.
pub fn segments_ahead(configured: usize, size: WalSegmentSize) -> usize {
    let affordable = (MOST_AHEAD_BYTES / size.as_u64()).max(1);
    configured.min(usize::try_from(affordable).unwrap_or(configured))
}

/// Fetches the segments after `reached` into the spool, and returns how many. No failure here is an error.
async fn prefetch(
    options: &GetOptions,
    reached: SegmentName,
    spooled: Prefetched,
    repository: &Repository,
    claim: &ClaimRecord,
) -> usize {
    let wanted = {
        let (spooled, size, now) = (spooled.clone(), claim.wal_segment_size, options.now);
        let limit = segments_ahead(options.prefetch, size);
        let last = options.last_ahead;
        let is_wanted =
            move |segment: &SegmentName| last.is_none_or(|last| segment.on_timeline(last.timeline()) <= last);
        let looked = blocking(move || {
            spooled.remove_stale(now.into());
            spooled.sweep(reached, limit);
            let following = std::iter::successors(reached.next(size), |segment| segment.next(size)).take(limit);
            let wanted = following.take_while(is_wanted).filter(|segment| !spooled.has(*segment));
            Ok(wanted.collect::<Vec<_>>())
        });
        looked.await.unwrap_or_default()
    };
    let mut tasks = JoinSet::new();
    for segment in wanted {
        let (options, repository, claim, spooled) =
            (options.clone(), repository.clone(), claim.clone(), spooled.clone());
        tasks.spawn(async move { prefetch_one(&options, segment, &repository, &claim, spooled).await });
    }
    let mut count = 0;
    let all = async {
        while let Some(done) = tasks.join_next().await {
            count += usize::from(matches!(done, Ok(true)));
        }
    };
    if tokio::time::timeout(PREFETCH_WITHIN, all).await.is_err() {
        tracing::debug!("fetching WAL ahead took too long and was stopped");
    }
    tasks.shutdown().await;
    count
}

async fn prefetch_one(
    options: &GetOptions,
    segment: SegmentName,
    repository: &Repository,
    claim: &ClaimRecord,
    spooled: Prefetched,
) -> bool {
    let file = WalFileName::Segment(segment);
    let _permit = options.budget.acquire(memory_needed(claim, file)).await;
    match fetch(repository, claim, options, &file).await {
        Ok(None) => false,
        Ok(Some((raw, hash))) => match blocking(move || spooled.keep(segment, &hash, &raw)).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%segment, %error, "a segment fetched ahead cannot be kept in the spool");
                false
            }
        },
        Err(error) => {
            // PostgreSQL will ask for this segment later. Then it is fetched again, and an error counts.
            tracing::debug!(%segment, %error, "a segment could not be fetched ahead");
            false
        }
    }
}

impl GetOptions {
    /// The segment, if it may be given although it is not whole, and what of it.
    fn unfinished(&self) -> Option<(SegmentName, NeededTail)> {
        let WalFileName::Segment(segment) = self.name else { return None };
        let tail = self.tails.iter().find(|tail| tail.timeline == segment.timeline())?;
        Some((segment, *tail))
    }

    fn prefetched(&self, system_identifier: SystemIdentifier) -> Option<Prefetched> {
        let spool = self.spool.as_ref().filter(|_| self.prefetch > 0)?;
        Some(Prefetched::new(spool, &self.repository_set, system_identifier))
    }

    /// Takes the segment from the spool if it is there.
    async fn hand_over_spooled(&self, system_identifier: SystemIdentifier) -> Result<Option<GetReport>, Error> {
        let WalFileName::Segment(segment) = self.name else { return Ok(None) };
        let Some(spooled) = self.prefetched(system_identifier) else { return Ok(None) };
        let (destination, limit) = (self.destination.clone(), self.prefetch);
        let size_bytes = blocking(move || hand_over(&spooled, segment, &destination, limit)).await?;
        Ok(size_bytes.map(|size_bytes| GetReport {
            file: self.name,
            source: GetSource::Spool,
            size_bytes,
            prefetched: 0,
        }))
    }
}

/// Takes a segment from the spool if an earlier run fetched it ahead, and returns its size. It blocks and asks no
/// repository, so that the command line can avoid starting a runtime.
///
/// # Errors
/// [`Cause::File`] if the segment is in the spool and cannot be moved to `destination`. A segment that cannot be read
/// in the spool is `None`.
pub fn hand_over_fetched(
    spool: &Spool,
    repository_set: &RepositorySetId,
    system_identifier: SystemIdentifier,
    segment: SegmentName,
    destination: &Path,
    prefetch: usize,
) -> Result<Option<u64>, Error> {
    hand_over(&Prefetched::new(spool, repository_set, system_identifier), segment, destination, prefetch)
}

fn hand_over(
    spooled: &Prefetched,
    segment: SegmentName,
    destination: &Path,
    prefetch: usize,
) -> Result<Option<u64>, Error> {
    let size_bytes = spooled.hand_over(segment, destination)?;
    if size_bytes.is_some() {
        spooled.sweep(segment, prefetch);
    }
    Ok(size_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_segments_are_fetched_ahead_in_smaller_numbers() {
        let ahead = |configured, mib: u32| segments_ahead(configured, WalSegmentSize::new(mib << 20).expect("a size"));
        for (configured, mib, expected) in [(8, 16, 8), (256, 16, 256), (256, 64, 64), (8, 1024, 4), (0, 1024, 0)] {
            assert_eq!(ahead(configured, mib), expected, "{configured} segments of {mib} MiB");
        }
    }
}
