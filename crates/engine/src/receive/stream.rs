//! The stream of one timeline: WAL comes in, pieces and segments go out, and the server hears what is durable.
//!
//! One piece and one segment are on their way at a time. While the segment before is being archived, the next one is
//! received; if it becomes whole too, nothing more is read, and the server waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use holdfast_pgtypes::{Lsn, SegmentName, WalSegmentSize};
use holdfast_repo::ChunkHash;
use holdfast_repo::name::TailRange;
use holdfast_repo::wal_tail::Assembly;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cut::{self, Waiting};
use super::durable::Durable;
use super::ending::Ending;
use super::presence::{self, Presence};
use super::shared::Shared;
use super::storing::{Done, Piece, Storing, Work};
use crate::archive::Destination;
use crate::archive::tail::{self, TailPieces};
use crate::error::{Cause, Error};
use crate::pipeline::crew::Crew;
use crate::server::replication::{Replication, StandbyStatus, Streamed, TimelineEnd};

/// How often the server hears something. Its limit, `wal_sender_timeout`, is a minute by default.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// After this time without a word, the server is asked for one.
const ASK_AFTER: Duration = Duration::from_secs(15);

/// A server that says nothing for this time, although it was asked, is taken for lost.
const SILENT_AT_MOST: Duration = Duration::from_mins(1);

/// If something waits and nothing became durable for this time, it is asked whether the server is shutting down:
/// `pg_ctl stop` waits for a minute, and the server waits until this side has everything. A slow line can take as long
/// for one segment, so this alone ends nothing.
const STALLED_AT_MOST: Duration = Duration::from_secs(20);

/// How long the end of the connection may take. The server notices it in any case.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Where a stream begins, and where it goes.
pub(super) struct StreamPlan {
    pub(super) first: SegmentName,
    pub(super) size: WalSegmentSize,
    pub(super) storing: Arc<Storing>,
    /// What the destinations have of the segments that are not whole. It is read before the stream begins: the server
    /// waits for a status while it streams, and a store may be slow.
    pub(super) stored: BTreeMap<SegmentName, Stored>,
    /// Where the timeline begins: in the middle of a segment, after a promotion.
    pub(super) timeline_start: Lsn,
    /// The end of the server's durable WAL, as it said before.
    pub(super) server_end: Lsn,
    /// The whole segment before the first one, which the stream begins with.
    pub(super) compared: Option<Compared>,
}

/// What the destinations have of a segment that is not whole.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// The usable beginning in each repository that has one, with the repository's redacted URL.
    assemblies: Vec<(String, Assembly)>,
    /// Up to where all of them have it, in bytes.
    everywhere_to: u32,
    has_pieces: bool,
}

/// A segment that is stored in whole, and that the server sends once more to show that its WAL is the same.
pub(super) struct Compared {
    pub(super) segment: SegmentName,
    /// The hash of its content in each repository, with the repository's redacted URL.
    pub(super) hashes: Vec<(String, ChunkHash)>,
}

/// How a stream ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEnd {
    Stopped,
    TimelineEnded(TimelineEnd),
}

/// The segment that is being received.
struct Current {
    name: SegmentName,
    content: Vec<u8>,
    /// Everything before this byte is in pieces, stored or on their way.
    cut_to: u32,
    has_pieces: bool,
    /// Where the pieces begin that are not merged into a larger one, and how many they are.
    unmerged: (u32, u32),
    /// Since when the first byte after `cut_to` waits.
    waits_since: Option<Instant>,
    /// What each destination has of it, until it is compared with what the server sends.
    stored: Vec<(String, Assembly)>,
}

impl Current {
    /// A segment of which nothing is received.
    fn of(name: SegmentName, size: WalSegmentSize, stored: Stored) -> Self {
        let Stored { assemblies: stored, everywhere_to: cut_to, has_pieces } = stored;
        let content = Vec::with_capacity(size.bytes() as usize);
        Self { name, content, cut_to, has_pieces, unmerged: (cut_to, 0), waits_since: None, stored }
    }
}

/// What happened.
enum Event {
    Task(Result<Done, Error>),
    Server(Result<Streamed, Error>),
    Presence(Presence),
    Stop,
    Tick,
}

pub(super) struct Stream {
    connection: Replication,
    plan: StreamPlan,
    current: Current,
    /// Received, and not yet in a segment.
    incoming: Bytes,
    /// The end of the server's WAL, as it said last.
    server_end: Lsn,
    /// The rests of whole segments, as pieces that wait for their turn.
    rests: VecDeque<Piece>,
    tasks: JoinSet<Result<Done, Error>>,
    sends: Option<SegmentName>,
    archives: bool,
    /// Segments that are stored in whole and still have pieces.
    to_remove: Vec<SegmentName>,
    durable: Durable,
    /// Since when something waits and nothing has become durable.
    stalled_since: Instant,
    /// Whether what is stored of the first segment is what the server has. Before that, nothing is reported.
    is_proven: bool,
    reported: StandbyStatus,
    reported_at: Instant,
    heard_at: Instant,
    /// Whether the server waits for a report.
    is_asked: bool,
}

impl Stream {
    pub(super) fn new(connection: Replication, mut plan: StreamPlan) -> Self {
        let current = match &plan.compared {
            Some(compared) => Current::of(compared.segment, plan.size, Stored::default()),
            None => plan.begin(plan.first),
        };
        let start = plan.first.start_lsn(plan.size);
        let now = Instant::now();
        Self {
            connection,
            current,
            incoming: Bytes::new(),
            server_end: plan.server_end,
            rests: VecDeque::new(),
            tasks: JoinSet::new(),
            sends: None,
            archives: false,
            to_remove: Vec::new(),
            durable: Durable::from(start),
            stalled_since: now,
            is_proven: false,
            reported: StandbyStatus::default(),
            reported_at: now,
            heard_at: now,
            is_asked: false,
            plan,
        }
    }

    /// Receives until the timeline ends or `stop`, and until everything that was received is durable.
    pub(super) async fn run(mut self, shared: &mut Shared<'_>, stop: &CancellationToken) -> Result<StreamEnd, Error> {
        let mut ending = Ending::No;
        let mut loss = None;
        let mut asking = presence::Asking::new(shared.options);
        loop {
            self.take_in(shared)?;
            self.prove(ending.is_ending())?;
            self.send_due(shared, ending.is_ending())?;
            self.remove_pieces();
            if loss.is_none()
                && let Err(error) = self.tell(shared).await
            {
                (loss, ending) = (Some(error), ending.lose(Instant::now()));
            }
            let is_done = self.is_done();
            if is_done {
                self.stalled_since = Instant::now();
            }
            match ending {
                Ending::Timeline if is_done => {
                    return tokio::select! {
                        biased;
                        () = stop.cancelled() => Ok(StreamEnd::Stopped),
                        end = self.connection.leave_timeline() => Ok(StreamEnd::TimelineEnded(end?)),
                    };
                }
                Ending::Stop { until } if is_done || Instant::now() >= until => {
                    self.warn_of_rest();
                    drop(tokio::time::timeout(ENDS_WITHIN, self.connection.stop()).await);
                    return Ok(StreamEnd::Stopped);
                }
                Ending::Lost { until, is_reported }
                    if is_done || (Instant::now() >= until && (is_reported || asking.is_there())) =>
                {
                    self.warn_of_rest();
                    shared.reached = Some(self.durable.reached());
                    if self.is_proven {
                        shared.report.durable_lsn = shared.reached;
                    }
                    return Err(loss.unwrap_or_else(|| Cause::Internal("a connection was lost".to_owned()).into()));
                }
                _ => {}
            }
            asking.ask_if(match ending {
                Ending::Lost { until, is_reported } => !is_reported && Instant::now() >= until,
                Ending::Stop { .. } => false,
                Ending::No | Ending::Timeline => self.stalled_since.elapsed() >= STALLED_AT_MOST,
            });
            let may_read = self.incoming.is_empty() && !ending.is_ending();
            let event = self.event(may_read, stop, ending.is_reported(), &mut asking, shared).await?;
            match event {
                Event::Task(done) => self.finished(done?, shared),
                Event::Presence(Presence::NotNow) if loss.is_none() => {
                    // Its shutdown waits for this side, and the store may be away for long. It keeps the WAL.
                    self.connection.hang_up();
                    let reason = format!(
                        "the server shuts down, and nothing could be stored for {} s; the connection is given up, so \
                         that it need not wait",
                        self.stalled_since.elapsed().as_secs()
                    );
                    (loss, ending) = (Some(Cause::StreamLost { reason }.into()), ending.lose(Instant::now()));
                }
                Event::Server(Err(error)) => (loss, ending) = (Some(error), ending.lose(Instant::now())),
                Event::Server(Ok(streamed)) => {
                    self.heard_at = Instant::now();
                    match streamed {
                        Streamed::Wal { start, data, server_end } => {
                            shared.has_streamed = true;
                            self.receive(start, data, server_end)?;
                        }
                        Streamed::Keepalive { reply_requested: true } => self.is_asked = true,
                        Streamed::Keepalive { reply_requested: false } => {}
                        Streamed::TimelineEnded => ending = Ending::Timeline,
                    }
                }
                Event::Stop => ending = ending.stop(Instant::now()),
                Event::Presence(_) | Event::Tick => {}
            }
        }
    }

    fn warn_of_rest(&self) {
        if !self.is_done() {
            tracing::warn!(
                received = %self.received(), durable = %self.durable.reached(),
                "not everything that was received could be stored in time; the slot on the server keeps it"
            );
        }
    }

    async fn event(
        &mut self,
        may_read: bool,
        stop: &CancellationToken,
        is_reported: bool,
        asking: &mut presence::Asking<'_>,
        shared: &Shared<'_>,
    ) -> Result<Event, Error> {
        if !may_read {
            // Nobody listens, so its silence says nothing.
            self.heard_at = Instant::now();
        }
        if may_read && self.heard_at.elapsed() >= SILENT_AT_MOST {
            let reason = format!("the server has said nothing for {} s", SILENT_AT_MOST.as_secs());
            return Ok(Event::Server(Err(Cause::StreamLost { reason }.into())));
        }
        let interval = shared.options.interval;
        let piece = self.current.waits_since.map_or(REPORT_EVERY, |since| interval.saturating_sub(since.elapsed()));
        // A piece that is due waits for the one before it, which is an event of its own.
        let tick = if piece.is_zero() { REPORT_EVERY } else { piece.min(REPORT_EVERY) };
        tokio::select! {
            biased;
            Some(joined) = self.tasks.join_next() => {
                let done = joined.map_err(|e| Cause::Internal(format!("a transfer failed unexpectedly: {e}")))?;
                Ok(Event::Task(done))
            }
            () = stop.cancelled(), if !is_reported => Ok(Event::Stop),
            presence = asking.answer() => Ok(Event::Presence(presence)),
            streamed = self.connection.next(), if may_read => Ok(Event::Server(streamed)),
            () = tokio::time::sleep(tick) => Ok(Event::Tick),
        }
    }

    fn size(&self) -> u32 {
        self.plan.size.bytes()
    }

    fn start(&self) -> Lsn {
        self.current.name.start_lsn(self.plan.size)
    }

    fn received(&self) -> Lsn {
        self.start().saturating_add((self.current.content.len() + self.incoming.len()) as u64)
    }

    /// Whether everything that this stream can store is durable.
    fn is_done(&self) -> bool {
        let wanted = if self.is_all_older() { self.start() } else { self.received() };
        self.tasks.is_empty() && self.rests.is_empty() && self.durable.reached() >= wanted
    }

    /// Whether the current segment has no WAL of the timeline itself yet.
    fn is_all_older(&self) -> bool {
        self.received() <= self.plan.timeline_start
    }

    /// Accepts WAL that the server sent. It must continue what was received.
    fn receive(&mut self, start: Lsn, data: Bytes, server_end: Lsn) -> Result<(), Error> {
        let expected = self.received();
        if start != expected {
            let reason = format!("the server sent WAL from {start}, but {expected} comes next");
            return Err(Cause::StreamLost { reason }.into());
        }
        self.server_end = server_end;
        self.incoming = data;
        Ok(())
    }

    /// Moves what was received into segments, and sends whole segments to the archiver.
    fn take_in(&mut self, shared: &mut Shared<'_>) -> Result<(), Error> {
        loop {
            let room = self.size() as usize - self.current.content.len();
            if room == 0 {
                self.prove(false)?;
                if self.archives {
                    return Ok(());
                }
                self.complete()?;
                continue;
            }
            if self.incoming.is_empty() {
                return Ok(());
            }
            let part = self.incoming.split_to(room.min(self.incoming.len()));
            self.current.waits_since.get_or_insert_with(Instant::now);
            self.current.content.extend_from_slice(part.chunk());
            shared.report.received_lsn = Some(self.received());
        }
    }

    /// Whether the current segment is stored in whole and is only compared.
    fn compares(&self) -> bool {
        self.plan.compared.as_ref().is_some_and(|compared| compared.segment == self.current.name)
    }

    fn compare(&self) -> Result<(), Error> {
        let hash = ChunkHash::of(&self.current.content);
        let others = self.plan.compared.iter().flat_map(|compared| &compared.hashes);
        match others.into_iter().find(|(_, stored)| *stored != hash) {
            None => Ok(()),
            Some((store, _)) => {
                let reason = format!("the server has other WAL in segment {} than the repository", self.current.name);
                Err(Cause::OtherWal { store: store.clone(), reason }.into())
            }
        }
    }

    /// The current segment is whole: archives it, and begins the next one.
    fn complete(&mut self) -> Result<(), Error> {
        if self.compares() {
            self.compare()?;
            self.current = self.plan.begin(self.plan.first);
            return Ok(());
        }
        let end = self.current.name.end_lsn(self.plan.size);
        let next = self.current.name.next(self.plan.size);
        let next = next.ok_or_else(|| Cause::Internal(format!("{end} is the end of all WAL")))?;
        let rest = TailRange::new(self.current.cut_to, self.size());
        if let Some(range) = rest.filter(|range| cut::rest_is_piece(range.length(), self.current.has_pieces)) {
            let content = self.current.content.get(range.start() as usize..).unwrap_or_default();
            let content = Bytes::copy_from_slice(content);
            self.rests.push_back(Piece { segment: self.current.name, range, content, is_merged: false });
        }
        let begun = self.plan.begin(next);
        let Current { name, content, has_pieces, .. } = std::mem::replace(&mut self.current, begun);
        if has_pieces {
            self.to_remove.push(name);
        }
        self.archives = true;
        self.spawn(Work::Segment(name, content.into()));
        Ok(())
    }

    /// Compares what is stored of the current segment with what the server sent, once all of that is received, or as
    /// far as the timeline goes.
    fn prove(&mut self, is_last: bool) -> Result<(), Error> {
        if self.compares() {
            return Ok(());
        }
        let received = u32::try_from(self.current.content.len()).unwrap_or(u32::MAX);
        let stored_to = self.current.stored.iter().map(|(_, assembly)| assembly.end()).max().unwrap_or(0);
        // At the end of the server's WAL, in a segment of which nothing is stored, there is nothing to compare.
        let is_idle = self.current.stored.is_empty() && self.server_end <= self.start();
        if (received == 0 && !is_idle) || (received < stored_to && !is_last) {
            return Ok(());
        }
        for (store, assembly) in &self.current.stored {
            let common = assembly.content().len().min(self.current.content.len());
            let (there, here) = (assembly.content().get(..common), self.current.content.get(..common));
            if there != here {
                let at = (0..common).find(|at| assembly.content().get(*at) != self.current.content.get(*at));
                let lsn = self.start().saturating_add(at.unwrap_or_default() as u64);
                let reason = format!(
                    "from {lsn} on timeline {} the server has other WAL than the repository",
                    self.current.name.timeline()
                );
                return Err(Cause::OtherWal { store: store.clone(), reason }.into());
            }
        }
        if !self.current.stored.is_empty() {
            self.current.stored.clear();
            self.current.cut_to = self.current.cut_to.min(received);
            self.current.unmerged = (self.current.cut_to, 0);
            let end = self.start().saturating_add(u64::from(self.current.cut_to));
            self.durable.add(self.start(), end);
        }
        self.is_proven = true;
        Ok(())
    }

    /// Sends the next piece, if one is due and none is on its way. At the end of the stream everything is due.
    fn send_due(&mut self, shared: &Shared<'_>, is_ending: bool) -> Result<(), Error> {
        if self.sends.is_some() {
            return Ok(());
        }
        let piece = match self.rests.pop_front() {
            Some(rest) => rest,
            None => match self.next_piece(shared, is_ending)? {
                Some(piece) => piece,
                None => return Ok(()),
            },
        };
        self.sends = Some(piece.segment);
        self.spawn(Work::Piece(piece));
        Ok(())
    }

    fn spawn(&mut self, work: Work) {
        let storing = Arc::clone(&self.plan.storing);
        self.tasks.spawn(async move { storing.store(work).await });
    }

    fn next_piece(&mut self, shared: &Shared<'_>, is_ending: bool) -> Result<Option<Piece>, Error> {
        if self.compares() || !self.is_proven || !self.current.stored.is_empty() {
            return Ok(None);
        }
        let is_all_older = self.is_all_older();
        let current = &mut self.current;
        let received = u32::try_from(current.content.len()).unwrap_or(u32::MAX);
        let size = self.plan.size.as_u64();
        let here = current.name.start_lsn(self.plan.size).saturating_add(u64::from(received));
        let waiting = Waiting {
            bytes: received - current.cut_to,
            since: current.waits_since.map_or(Duration::ZERO, |since| since.elapsed()),
            is_catching_up: !is_ending && self.server_end.as_u64().saturating_sub(here.as_u64()) >= size,
            is_all_older,
        };
        let (merged_from, count) = current.unmerged;
        if count >= cut::MERGED_PIECES && !is_ending {
            current.unmerged = (current.cut_to, 0);
            if let Some(range) = cut::merged(count, merged_from, current.cut_to) {
                let content = current.content.get(range.start() as usize..range.end() as usize).unwrap_or_default();
                let content = Bytes::copy_from_slice(content);
                return Ok(Some(Piece { segment: current.name, range, content, is_merged: true }));
            }
        }
        let interval = if is_ending { Duration::ZERO } else { shared.options.interval };
        let Some(bytes) = cut::due(waiting, interval) else { return Ok(None) };
        let range = TailRange::new(current.cut_to, current.cut_to + bytes)
            .ok_or_else(|| Cause::Internal(format!("a piece of {bytes} bytes at {}", current.cut_to)))?;
        let content = current.content.get(range.start() as usize..range.end() as usize).unwrap_or_default();
        let content = Bytes::copy_from_slice(content);
        let piece = Piece { segment: current.name, range, content, is_merged: false };
        current.cut_to = range.end();
        current.has_pieces = true;
        current.unmerged.1 += 1;
        current.waits_since = (range.end() < received).then(Instant::now);
        Ok(Some(piece))
    }

    fn finished(&mut self, done: Done, shared: &mut Shared<'_>) {
        let size = self.plan.size;
        if !matches!(done, Done::Removed) {
            self.stalled_since = Instant::now();
        }
        match done {
            Done::Piece(segment, range) => {
                self.sends = None;
                shared.report.pieces += 1;
                let start = segment.start_lsn(size);
                let at = |offset: u32| start.saturating_add(u64::from(offset));
                self.durable.add(at(range.start()), at(range.end()));
            }
            Done::Segment(segment) => {
                self.archives = false;
                shared.report.segments += 1;
                tracing::info!(%segment, "archived");
                self.durable.add(segment.start_lsn(size), segment.end_lsn(size));
            }
            Done::Removed => {}
        }
    }

    /// Removes the pieces of segments that are stored in whole, once none of them is on its way.
    fn remove_pieces(&mut self) {
        let reached = self.durable.reached();
        let (sends, rests, size) = (self.sends, &self.rests, self.plan.size);
        let archives = self.archives;
        let may_go = |segment: &SegmentName| {
            !archives
                && segment.end_lsn(size) <= reached
                && sends != Some(*segment)
                && rests.iter().all(|rest| rest.segment != *segment)
        };
        for segment in self.to_remove.extract_if(.., |segment| may_go(segment)) {
            let storing = Arc::clone(&self.plan.storing);
            self.tasks.spawn(async move { storing.remove_pieces(segment).await });
        }
    }

    /// Reports to the server what is durable: when that has changed, when some time has passed, and when it asks.
    async fn tell(&mut self, shared: &mut Shared<'_>) -> Result<(), Error> {
        let flushed = if self.is_proven { self.durable.reached() } else { Lsn::INVALID };
        let wants_reply = self.heard_at.elapsed() >= ASK_AFTER;
        // What is only in memory is not "written": `synchronous_commit = remote_write` waits for it.
        let status = StandbyStatus { written: flushed, flushed, wants_reply };
        if flushed != self.reported.flushed || self.is_asked || self.reported_at.elapsed() >= REPORT_EVERY {
            self.connection.report(status, shared.clock.now()).await?;
            (self.reported, self.reported_at, self.is_asked) = (status, Instant::now(), false);
            if flushed.is_valid() {
                shared.report.durable_lsn = Some(flushed);
            }
        }
        Ok(())
    }
}

/// Reads what the destinations have of the segments from the first one on that have pieces.
pub(super) async fn read_stored(
    destinations: &[Destination],
    tails: &[TailPieces],
    first: SegmentName,
    crew: &Crew,
) -> Result<BTreeMap<SegmentName, Stored>, Error> {
    let names = tails.iter().flat_map(|pieces| pieces.keys().copied());
    let names: BTreeSet<_> = names.filter(|name| name.timeline() == first.timeline() && *name >= first).collect();
    let mut all = BTreeMap::new();
    for name in names {
        let mut assemblies = Vec::new();
        for (Destination { repository, claim }, pieces) in destinations.iter().zip(tails) {
            let pieces = pieces.get(&name).cloned().unwrap_or_default();
            assemblies.push((repository.describe(), tail::assemble(repository, claim, name, pieces, crew).await?));
        }
        let everywhere_to = assemblies.iter().map(|(_, assembly)| assembly.end()).min().unwrap_or(0);
        assemblies.retain(|(_, assembly)| assembly.end() > 0);
        all.insert(name, Stored { assemblies, everywhere_to, has_pieces: true });
    }
    Ok(all)
}

impl StreamPlan {
    /// Begins a segment, with what the destinations have of it.
    fn begin(&mut self, name: SegmentName) -> Current {
        Current::of(name, self.size, self.stored.remove(&name).unwrap_or_default())
    }
}
