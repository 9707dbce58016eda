//! The tail of an archive in one repository: pieces of segments that are not whole, as [`holdfast_repo::wal_tail`]
//! defines them. They are listed, read, stored and removed here.
//!
//! Invariants: a piece is never replaced; it counts as stored only after the store has confirmed it; what is assembled
//! begins at the segment's first byte, has no hole, and consists of verified pieces only.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use holdfast_pgtypes::{SegmentName, TimelineId, WalFileName};
use holdfast_repo::catalog::WalInventory;
use holdfast_repo::name::{self, ObjectPath, TailRange};
use holdfast_repo::record::ClaimRecord;
use holdfast_repo::wal_tail::{Assembly, TailFacts, chain_from};
use holdfast_repo::{Compression, FaultClass, wal_object};
use holdfast_store::{PutMode, StoreErrorKind};
use serde::Deserialize as _;

use super::deliver::Destination;
use super::stored;
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::repository::confirm::{Sent, confirm_created};
use crate::repository::{Repository, object_name};

/// Pieces that are fetched at the same time: they are small, so latency is most of their cost.
const AT_ONCE: usize = 16;

/// How often the pieces are listed again if one of them is gone.
const LOOKS: u32 = 3;

/// The pieces of a timeline, by segment.
pub(crate) type TailPieces = BTreeMap<SegmentName, Vec<TailRange>>;

fn piece_name(repository: &Repository, claim: &ClaimRecord, segment: SegmentName, range: TailRange) -> String {
    name::wal_tail(&claim.cluster, claim.number, segment, range, claim.wal_codec, repository.is_encrypted())
}

pub(crate) async fn list_timeline(
    repository: &Repository,
    claim: &ClaimRecord,
    timeline: TimelineId,
) -> Result<TailPieces, Error> {
    list(repository, claim, &name::wal_tail_timeline_folder(&claim.cluster, claim.number, timeline)).await
}

/// Lists the pieces of one segment.
pub(crate) async fn list_segment(
    repository: &Repository,
    claim: &ClaimRecord,
    segment: SegmentName,
) -> Result<Vec<TailRange>, Error> {
    let folder = name::wal_tail_folder(&claim.cluster, claim.number, segment);
    Ok(list(repository, claim, &folder).await?.remove(&segment).unwrap_or_default())
}

async fn list(repository: &Repository, claim: &ClaimRecord, folder: &str) -> Result<TailPieces, Error> {
    let listing = || format!("listing the WAL tail in {}", repository.describe());
    let mut pieces = TailPieces::new();
    for object in repository.store().list(folder, None).await.doing(listing)? {
        let Ok(ObjectPath::WalTail { segment, range, .. }) = object.name.as_ref().parse() else { continue };
        if piece_name(repository, claim, segment, range) == object.name.as_ref() {
            pieces.entry(segment).or_default().push(range);
        }
    }
    Ok(pieces)
}

/// Removes the pieces of segments that are stored in whole: a receiver that was killed left them. Returns how many
/// there were.
///
/// # Errors
/// Those of the store.
pub(crate) async fn remove_leftovers(repository: &Repository, claim: &ClaimRecord) -> Result<usize, Error> {
    let folder = name::wal_tail_claim_folder(&claim.cluster, claim.number);
    let (mut removed, crew) = (0, Crew::new(1));
    for segment in list(repository, claim, &folder).await?.into_keys() {
        let object = stored::wal_object_name(repository, &claim.cluster, claim, &WalFileName::Segment(segment));
        // It is read to its end: if it is damaged, the pieces are the only good copy. There are few.
        match stored::read(repository, claim, &object, &crew).await {
            Ok((raw, _)) if raw.len() as u64 == claim.wal_segment_size.as_u64() => {
                removed += remove_pieces(repository, claim, segment, None).await?;
            }
            Ok((raw, _)) => {
                let bytes = raw.len();
                tracing::warn!(%segment, bytes, "the pieces of this segment are kept, because its file is not whole");
            }
            Err(error) if error.is_not_found() => {}
            Err(error) if error.is_of_one_object() || error.is_newer() => {
                tracing::warn!(%segment, %error, "the pieces of this segment are kept, because it cannot be read");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

/// Adds the tails of a claim to its listed WAL. A tail begins with the segment after the last whole one, or, without
/// whole segments, with its first piece; it ends at the first hole, and at the first piece that cannot be used.
///
/// `archive_command` stores several segments at the same time, so the machine may die with a later segment stored and
/// an earlier one in pieces only. So segments before the last whole one are added too: what a receiver has reported as
/// flushed is in their pieces. If the pieces of such a segment do not reach its end, the WAL can be replayed up to
/// there.
///
/// # Errors
/// As [`assemble`].
pub(crate) async fn add_tails(
    repository: &Repository,
    claim: &ClaimRecord,
    inventory: &mut WalInventory,
    crew: &Crew,
) -> Result<(), Error> {
    let folder = name::wal_tail_claim_folder(&claim.cluster, claim.number);
    let pieces = list(repository, claim, &folder).await?;
    let size = claim.wal_segment_size;
    let timelines: BTreeSet<TimelineId> = pieces.keys().map(|segment| segment.timeline()).collect();
    for timeline in timelines {
        let of_timeline = || pieces.iter().filter(|(segment, _)| segment.timeline() == timeline);
        let last_whole = inventory.ranges(timeline).last().map(|range| range.last);
        let in_holes = of_timeline().filter(|(segment, of_segment)| {
            let is_in_hole = last_whole.is_some_and(|last| **segment < last) && !inventory.contains(**segment);
            is_in_hole && !chain_from(of_segment, 0).is_empty()
        });
        for (segment, of_segment) in in_holes.collect::<Vec<_>>() {
            let assembly = assemble(repository, claim, *segment, of_segment.clone(), crew).await?;
            inventory.add_tail(*segment, segment.start_lsn(size).saturating_add(u64::from(assembly.end())));
        }
        let whole = last_whole.and_then(|last| last.next(size));
        let Some(first) = whole.or_else(|| of_timeline().map(|(segment, _)| *segment).next()) else { continue };
        let (mut segment, mut end) = (first, None);
        while let Some(of_segment) = pieces.get(&segment) {
            let assembly = assemble(repository, claim, segment, of_segment.clone(), crew).await?;
            if assembly.end() > 0 {
                end = Some(segment.start_lsn(size).saturating_add(u64::from(assembly.end())));
            }
            match segment.next(size).filter(|_| assembly.end() == size.bytes()) {
                Some(next) => segment = next,
                None => break,
            }
        }
        if let Some(end) = end {
            inventory.add_tail(first, end);
        }
    }
    Ok(())
}

/// The stored beginning of a segment that is not whole, as a segment with zeros after it; `None` if nothing of it is
/// stored.
///
/// # Errors
/// As [`assemble`].
pub(crate) async fn unfinished_segment(
    repository: &Repository,
    claim: &ClaimRecord,
    segment: SegmentName,
    crew: &Crew,
) -> Result<Option<Vec<u8>>, Error> {
    let pieces = list_segment(repository, claim, segment).await?;
    let assembly = assemble(repository, claim, segment, pieces, crew).await?;
    Ok((assembly.end() > 0).then(|| assembly.into_segment(claim.wal_segment_size.bytes())))
}

/// Reads pieces and puts them together, from the segment's beginning to the first hole, or to the first piece that is
/// damaged or missing and that no other one replaces.
///
/// # Errors
/// If the store cannot be asked, or the keys do not fit: then the end of the tail is not known.
pub(crate) async fn assemble(
    repository: &Repository,
    claim: &ClaimRecord,
    segment: SegmentName,
    mut pieces: Vec<TailRange>,
    crew: &Crew,
) -> Result<Assembly, Error> {
    let mut assembly = Assembly::default();
    let mut looks_left = LOOKS;
    loop {
        let chain = chain_from(&pieces, assembly.end());
        if chain.is_empty() {
            return Ok(assembly);
        }
        let reads = chain
            .into_iter()
            .map(|range| async move { (range, read_piece(repository, claim, segment, range, crew).await) });
        let mut reads = stream::iter(reads.collect::<Vec<_>>()).buffered(AT_ONCE);
        let (mut unusable, mut is_gone) = (None, false);
        while let Some((range, read)) = reads.next().await {
            let why = match read {
                Ok(bytes) => match assembly.add(range, &bytes) {
                    Ok(()) => continue,
                    Err(contradiction) => contradiction.to_string(),
                },
                Err(error) if is_damage(&error) => {
                    is_gone = error.is_not_found();
                    error.to_string()
                }
                Err(error) => return Err(error),
            };
            let store = repository.describe();
            tracing::warn!(%segment, piece = %range, store, why, "a piece of the WAL tail cannot be used");
            unusable = Some(range);
            break;
        }
        let Some(range) = unusable else { return Ok(assembly) };
        if is_gone && looks_left > 0 {
            // A receiver that is at work has stored it in a larger piece, and removed it.
            looks_left -= 1;
            drop(reads);
            pieces = list_segment(repository, claim, segment).await?;
        }
        pieces.retain(|piece| *piece != range);
    }
}

/// Whether the object itself is at fault, and asking again would not help.
fn is_damage(error: &Error) -> bool {
    match &*error.what {
        Cause::Format(format) => {
            matches!(format.class(), FaultClass::Damaged | FaultClass::Foreign | FaultClass::Limit)
        }
        Cause::Malformed { .. } => true,
        // It was removed, because its segment is stored in whole by now, or it is lost.
        _ => error.is_not_found(),
    }
}

async fn read_piece(
    repository: &Repository,
    claim: &ClaimRecord,
    segment: SegmentName,
    range: TailRange,
    crew: &Crew,
) -> Result<Vec<u8>, Error> {
    let object = piece_name(repository, claim, segment, range);
    let (raw, facts) = stored::read(repository, claim, &object, crew).await?;
    let malformed = |reason: String| Error::from(Cause::Malformed { name: object.clone(), reason });
    let facts = TailFacts::deserialize(&facts.facts);
    let facts = facts.map_err(|error| malformed(format!("its facts do not name its segment: {error}")))?;
    if facts.segment != segment {
        return Err(malformed(format!("it is a piece of segment {}", facts.segment)));
    }
    if raw.len() != range.length() as usize {
        return Err(malformed(format!("it has {} bytes of WAL", raw.len())));
    }
    Ok(raw)
}

/// Stores a piece in one repository; `Ok` means durable.
///
/// # Errors
/// [`Cause::Divergence`] if other bytes are stored under the name, [`Cause::NotReadable`] if the store does not have
/// what was sent, and those of the store.
pub(crate) async fn store_piece(
    destination: &Destination,
    segment: SegmentName,
    range: TailRange,
    raw: Bytes,
    configured: Compression,
    crew: &Crew,
) -> Result<(), Error> {
    let Destination { repository, claim } = destination;
    let object = piece_name(repository, claim, segment, range);
    let phrase = || format!("storing {object} in {}", repository.describe());
    let codec = claim.wal_codec;
    let compression = if codec == configured.codec() { configured } else { Compression::of(codec) };
    let (owner, named, content) = (repository.clone(), object.clone(), raw.clone());
    let sealed = crew
        .run(move || {
            let facts = TailFacts { segment }.to_json(&named)?;
            let (id, key) = (owner.id(), owner.key());
            wal_object::encode(&named, &range.to_string(), &content, compression, id, key, facts)
        })
        .await??;
    let sent = Sent { size_bytes: sealed.len() as u64, crc32c: crc32c::crc32c(&sealed) };
    let store_name = object_name(&object)?;
    match repository.store().put(&store_name, sealed, PutMode::Create).await {
        Ok(()) => confirm_created(repository, &object, sent, raw.len() as u64).await,
        Err(error) if error.kind() == StoreErrorKind::AlreadyExists => {
            let there = read_piece(repository, claim, segment, range, crew).await.doing(phrase)?;
            if there == raw {
                return Ok(());
            }
            let (store, name) = (repository.describe(), object.clone());
            let (stored, here) = (blake3::hash(&there).to_string(), blake3::hash(&raw).to_string());
            Err(Error::from(Cause::Divergence { store, name, stored, here })).doing(phrase)
        }
        Err(error) => Err(error).doing(phrase),
    }
}

/// Removes the pieces of a segment that is stored in whole, or those within a piece that has the same bytes. Returns
/// how many there were.
///
/// # Errors
/// Those of the store.
pub(crate) async fn remove_pieces(
    repository: &Repository,
    claim: &ClaimRecord,
    segment: SegmentName,
    within: Option<TailRange>,
) -> Result<usize, Error> {
    let mut pieces = list_segment(repository, claim, segment).await?;
    pieces.retain(|piece| {
        within.is_none_or(|all| *piece != all && all.start() <= piece.start() && piece.end() <= all.end())
    });
    let names = pieces.iter().map(|range| object_name(&piece_name(repository, claim, segment, *range)));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    if !names.is_empty() {
        repository.store().delete(&names).await.doing(|| format!("removing the tail of {segment}"))?;
    }
    Ok(names.len())
}
