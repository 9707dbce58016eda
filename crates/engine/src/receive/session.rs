//! One connection: identity, repositories, slot, histories, the first segment, and then the stream.

use std::sync::Arc;

use holdfast_pgtypes::{Ancestry, Lsn, SegmentName, TimelineId, WalFileName};
use holdfast_repo::wal_tail::chain_from;
use tokio_util::sync::CancellationToken;

use super::ReceiveOptions;
use super::gap::{self, Gone, Verdict};
use super::listed::stored_wal;
use super::position::{Server, ServerLags, StoredWal, first_segment};
use super::shared::{SERVER, Shared};
use super::slot::{self, UsedSlot};
use super::storing::Storing;
use super::stream::{Compared, Stream, StreamEnd, StreamPlan, read_stored};
use crate::archive::tail::{self, TailPieces};
use crate::archive::{Destination, hand_in, open_all, wal_object_name};
use crate::error::{Cause, Error};
use crate::repository::RepositoryTarget;
use crate::repository::claim::Identity;
use crate::server::replication::{Begun, Replication, SystemFacts};

/// Larger segments are not sent once more only to be compared.
const COMPARED_AT_MOST: u32 = 64 << 20;

/// How a session ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The caller wanted it.
    Stopped,
    /// The timeline has ended; the next session follows the next one.
    AtTimelineEnd,
    /// The server no longer has the segment that was to be compared; the next session begins after it.
    NotCompared,
    /// WAL that the server no longer has is not missing any more, or that was accepted: the next session begins after
    /// it.
    Passed,
    /// The server had invalidated the slot, and a new one was made.
    MadeAgain,
}

/// What comes of everything before the stream.
enum Prepared {
    Streaming(Box<Streaming>),
    /// The session has ended already.
    Ended(Ended),
}

/// A connection that streams.
struct Streaming {
    stream: Stream,
    identity: Identity,
    ancestry: Ancestry,
    /// The first segment that is not stored in whole.
    first: SegmentName,
    /// Whether the stream begins with the segment before it.
    begins_before: bool,
    /// The oldest WAL that the slot keeps.
    kept: Option<Lsn>,
}

/// Runs one session.
pub(super) async fn run(
    targets: &[RepositoryTarget],
    shared: &mut Shared<'_>,
    stop: &CancellationToken,
) -> Result<Ended, Error> {
    let prepared = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(Ended::Stopped),
        prepared = prepare(targets, shared) => prepared?,
    };
    let Streaming { stream, identity, ancestry, first, begins_before, kept } = match prepared {
        Prepared::Streaming(streaming) => *streaming,
        Prepared::Ended(ended) => return Ok(ended),
    };
    match stream.run(shared, stop).await {
        Ok(StreamEnd::Stopped) => Ok(Ended::Stopped),
        Ok(StreamEnd::TimelineEnded(end)) => {
            let (timeline, next, switch) = (first.timeline(), end.next, end.switch_lsn);
            tracing::info!(%timeline, %next, %switch, "the timeline has ended");
            Ok(Ended::AtTimelineEnd)
        }
        Err(error) if begins_before && is_gone(&error) => {
            tracing::info!(%first, "the server no longer has the segment before, so that one is not compared");
            shared.compares = false;
            Ok(Ended::NotCompared)
        }
        Err(error) => {
            let size = identity.wal_segment_size;
            // What this session has stored before is not missing.
            let reached = shared.reached.unwrap_or_else(|| first.start_lsn(size));
            let first = SegmentName::containing(reached, first.timeline(), size);
            let error = of_start(error, shared.options, reached, first.timeline());
            if !matches!(&*error.what, Cause::WalGap { .. }) {
                return Err(error);
            }
            match gap::judge(targets, shared, Gone { identity, ancestry: &ancestry, first, kept }).await? {
                Verdict::Stored | Verdict::Accepted => Ok(Ended::Passed),
                Verdict::Missing => Err(error),
            }
        }
    }
}

/// All steps before the stream.
async fn prepare(targets: &[RepositoryTarget], shared: &mut Shared<'_>) -> Result<Prepared, Error> {
    let options = shared.options;
    let mut connection = Replication::open(&options.replication()).await?;
    let version = connection.version()?;
    let facts = connection.identify_system().await?;
    let size = connection.wal_segment_size().await?;
    let identity = Identity { system_identifier: facts.system_identifier, version, wal_segment_size: size };
    let mut push = options.push.clone();
    (push.path, push.now) = (SERVER.into(), shared.clock.now());
    let destinations = open_all(targets, &push, Some(identity)).await?;

    let ancestry = path_of(&mut connection, facts).await?;
    let slot = slot::prepare(&mut connection, version, options).await?;
    let (mut stored, tails) = stored_wal(&destinations, &ancestry, slot.restart_lsn).await?;
    // After the listing: what `wal push` has stored meanwhile must not look as if the server had lost it.
    let now = same_server(facts, connection.identify_system().await?)?;
    let in_recovery = connection.is_in_recovery(version).await?;
    let (slot_is_new, slot_from) = (slot.is_new, slot.restart_lsn);
    let server = Server { ancestry, size, flushed: now.flushed, in_recovery, slot: slot_from, slot_is_new };
    let first = first_to_stream(&server, &mut stored, &destinations, &tails, shared).await?;
    archive_histories(&mut connection, shared, &server.ancestry, first.timeline(), &stored).await?;

    let is_wanted = std::mem::replace(&mut shared.compares, true);
    let compared = if is_wanted { compared(&server, first, &stored, &destinations).await? } else { None };
    let begins_with = compared.as_ref().map_or(first, |compared| compared.segment);
    let (from, timeline) = (begins_with.start_lsn(size), first.timeline());
    let stored = read_stored(&destinations, &tails, first, &options.push.crew).await?;
    tracing::info!(%first, %timeline, %from, slot = options.slot, "receiving WAL");
    shared.report.timeline = Some(timeline);
    match connection.start(&options.slot, from, timeline).await {
        Ok(Begun::Streaming) => {}
        // Everything of this timeline is stored already.
        Ok(Begun::AtEnd(_)) => return Ok(Prepared::Ended(Ended::AtTimelineEnd)),
        Err(error) => {
            let error = of_start(error, options, from, timeline);
            if !matches!(&*error.what, Cause::SlotLost { .. }) || !makes_again(shared, slot) {
                return Err(error);
            }
            tracing::warn!(%error, slot = options.slot, "the slot is made again");
            slot::make_again(&mut connection, options).await?;
            connection.close().await;
            shared.made_again = true;
            return Ok(Prepared::Ended(Ended::MadeAgain));
        }
    }
    let timeline_start = server.ancestry.span(timeline).map_or(Lsn::INVALID, |span| span.start);
    let begins_before = compared.is_some();
    let storing = Arc::new(Storing::new(shared, identity, &destinations));
    let plan = StreamPlan { first, size, storing, stored, timeline_start, server_end: server.flushed, compared };
    let stream = Stream::new(connection, plan);
    let ancestry = server.ancestry;
    Ok(Prepared::Streaming(Box::new(Streaming { stream, identity, ancestry, first, begins_before, kept: slot_from })))
}

/// Whether a slot that the server does not serve is made again: once, if a gap was accepted, and only if it was there
/// before. A new one that is not served either needs somebody.
fn makes_again(shared: &Shared<'_>, slot: UsedSlot) -> bool {
    shared.options.accept_gap && !shared.made_again && !slot.is_new
}

/// The later facts, if they are about the same server and timeline. A promotion in between needs a new session.
fn same_server(before: SystemFacts, now: SystemFacts) -> Result<SystemFacts, Error> {
    if (before.system_identifier, before.timeline) == (now.system_identifier, now.timeline) {
        return Ok(now);
    }
    let reason = format!("the server has changed from timeline {} to {}", before.timeline, now.timeline);
    Err(Cause::StreamLost { reason }.into())
}

/// The segment before the first one, if it is of the same timeline and stored in whole: a server that was rewound has
/// other WAL there, even if nothing is stored of the first segment.
async fn compared(
    server: &Server,
    first: SegmentName,
    stored: &[StoredWal],
    destinations: &[Destination],
) -> Result<Option<Compared>, Error> {
    let Some(segment) = first.previous(server.size) else { return Ok(None) };
    let is_on_path = server.ancestry.segment_containing(segment.start_lsn(server.size), server.size) == segment;
    if !is_on_path || server.size.bytes() > COMPARED_AT_MOST {
        return Ok(None);
    }
    let mut hashes = Vec::new();
    for (one, Destination { repository, claim }) in stored.iter().zip(destinations) {
        if !one.inventory.contains(segment) {
            continue;
        }
        let object = wal_object_name(repository, &claim.cluster, claim, &WalFileName::Segment(segment));
        match repository.wal_facts(&object).await {
            Ok(facts) => hashes.push((repository.describe(), facts.blake3)),
            // `verify` reports it.
            Err(error) if matches!(*error.what, Cause::Format(_)) => {
                tracing::warn!(%segment, %error, "the last whole segment cannot be compared with the server's");
            }
            Err(error) => return Err(error),
        }
    }
    Ok((!hashes.is_empty()).then_some(Compared { segment, hashes }))
}

/// `errcode_for_file_access` of a segment that was removed.
const UNDEFINED_FILE: &str = "58P01";

/// Whether the server says that it no longer has a segment.
fn is_gone(error: &Error) -> bool {
    matches!(&*error.what, Cause::ServerAnswer { sqlstate, .. } if sqlstate == UNDEFINED_FILE)
}

/// Gives the errors that mean "the WAL is gone" and "the slot is gone" their own kind.
fn of_start(error: Error, options: &ReceiveOptions<'_>, from: Lsn, timeline: TimelineId) -> Error {
    // Of a slot that was invalidated.
    const NOT_IN_PREREQUISITE_STATE: &str = "55000";
    let changed = match &*error.what {
        Cause::ServerAnswer { sqlstate, message, .. } if sqlstate == UNDEFINED_FILE => {
            Cause::WalGap { from, timeline, reason: format!("the server says: {message}") }
        }
        Cause::ServerAnswer { sqlstate, message, .. } if sqlstate == NOT_IN_PREREQUISITE_STATE => {
            Cause::SlotLost { slot: options.slot.clone(), reason: format!("the server says: {message}") }
        }
        _ => return error,
    };
    Error { what: Box::new(changed), doing: error.doing }.doing("receiving WAL")
}

/// The timelines that lead to the server's own.
async fn path_of(connection: &mut Replication, facts: SystemFacts) -> Result<Ancestry, Error> {
    if facts.timeline == TimelineId::FIRST {
        return Ok(Ancestry::alone(facts.timeline));
    }
    Ok(Ancestry::from_history(&connection.history(facts.timeline).await?.history))
}

/// The segment with which to begin. A segment that is stored in pieces from its beginning to its end is archived from
/// them: the slot may have let it go, because all of it was durable.
async fn first_to_stream(
    server: &Server,
    stored: &mut [StoredWal],
    destinations: &[Destination],
    tails: &[TailPieces],
    shared: &Shared<'_>,
) -> Result<SegmentName, Error> {
    loop {
        let first = first_segment(server, stored).map_err(|ServerLags { store, stored }| {
            let (timeline, end) = (server.ancestry.timeline(), server.flushed);
            if server.in_recovery {
                // It gets the rest from its primary. If it does not, each attempt says so in the log.
                let reason = format!(
                    "the server is a standby and ends at {end} of timeline {timeline}, but {store} has WAL up to \
                     {stored}"
                );
                return Cause::StreamLost { reason }.into();
            }
            let reason =
                format!("the repository has WAL up to {stored} of timeline {timeline}, but the server ends at {end}");
            Error::from(Cause::OtherWal { store, reason })
        })?;
        let mut whole = None;
        for (Destination { repository, claim }, pieces) in destinations.iter().zip(tails) {
            let Some(pieces) = pieces.get(&first) else { continue };
            if chain_from(pieces, 0).last().is_none_or(|last| last.end() < server.size.bytes()) {
                continue;
            }
            let crew = &shared.options.push.crew;
            let assembly = tail::assemble(repository, claim, first, pieces.clone(), crew).await?;
            if assembly.end() == server.size.bytes() {
                whole = Some(assembly);
                break;
            }
        }
        let Some(assembly) = whole else { return Ok(first) };
        let (file, content) = (WalFileName::Segment(first), assembly.into_segment(server.size.bytes()).into());
        hand_in(&shared.archiver, &shared.options.folder, file, content, shared.clock.now()).await?;
        tracing::info!(%first, "archived a segment from its pieces");
        for (Destination { repository, claim }, one) in destinations.iter().zip(stored.iter_mut()) {
            one.inventory.add(file);
            if let Err(error) = tail::remove_pieces(repository, claim, first, None).await {
                tracing::info!(%first, %error, "the pieces of an archived segment could not be removed yet");
            }
        }
    }
}

/// Archives the history files of the timelines from the streamed one on, where a repository lacks one.
async fn archive_histories(
    connection: &mut Replication,
    shared: &Shared<'_>,
    ancestry: &Ancestry,
    streamed: TimelineId,
    stored: &[StoredWal],
) -> Result<(), Error> {
    let timelines = ancestry.path().iter().map(|span| span.timeline);
    for timeline in timelines.filter(|timeline| *timeline >= streamed && *timeline != TimelineId::FIRST) {
        if stored.iter().all(|one| one.inventory.histories().any(|found| found == timeline)) {
            continue;
        }
        let text = connection.history(timeline).await?;
        let (file, content) = (WalFileName::History(timeline), text.content);
        hand_in(&shared.archiver, &shared.options.folder, file, content, shared.clock.now()).await?;
        tracing::info!(%file, "archived the history of a timeline");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use super::*;

    #[test]
    fn a_server_that_is_promoted_meanwhile_needs_a_new_session() {
        let facts = |timeline, flushed| SystemFacts {
            system_identifier: "7000000000000000001".parse().unwrap(),
            timeline: TimelineId::new(timeline).unwrap(),
            flushed: Lsn::new(flushed),
        };
        assert_eq!(same_server(facts(1, 5), facts(1, 9)).unwrap().flushed, Lsn::new(9));
        let error = same_server(facts(1, 5), facts(2, 9)).unwrap_err();
        assert!(matches!(&*error.what, Cause::StreamLost { .. }), "{error}");
        assert!(error.to_string().contains("from timeline 1 to 2"), "{error}");
    }
}
