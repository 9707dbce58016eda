//! [`Storing`]: brings pieces and segments into the repositories, and tries again for as long as that may help.
//!
//! What was received may be the only copy: the server can die at any moment, also while a store is away. So a failure
//! that may pass costs nothing that is in hand: the same bytes are sent again after a pause, to the repositories as
//! they are configured by then. The repositories are opened again after a minute, as for `wal push`, so that rotated
//! keys and credentials are used.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_pgtypes::{SegmentName, WalFileName};
use holdfast_repo::Compression;
use holdfast_repo::identity::RepositoryId;
use holdfast_repo::name::{ClaimNumber, TailRange};

use super::again::{is_of_credentials, passes};
use super::shared::Shared;
use crate::archive::{Archiver, Destination, hand_in, tail};
use crate::error::{Cause, Error};
use crate::pipeline::crew::Crew;
use crate::repository::claim::Identity;
use crate::repository::leases::Clock;

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: a store that is back is used within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Something received that is to be stored.
pub(super) enum Work {
    /// A part of a segment that is not whole yet.
    Piece(Piece),
    /// A whole segment.
    Segment(SegmentName, Bytes),
}

/// A part of a segment.
pub(super) struct Piece {
    pub(super) segment: SegmentName,
    pub(super) range: TailRange,
    pub(super) content: Bytes,
    /// Whether it takes the place of several pieces.
    pub(super) is_merged: bool,
}

/// What is in every repository now, or gone from them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Done {
    Piece(SegmentName, TailRange),
    Segment(SegmentName),
    Removed,
}

/// The repositories of a session.
pub(super) struct Storing {
    archiver: Arc<Archiver>,
    identity: Identity,
    /// The repositories and claims that the session has compared with the server.
    compared: Vec<(RepositoryId, ClaimNumber)>,
    folder: PathBuf,
    compression: Compression,
    crew: Crew,
    clock: Clock,
}

impl Storing {
    pub(super) fn new(shared: &Shared<'_>, identity: Identity, destinations: &[Destination]) -> Self {
        let push = &shared.options.push;
        Self {
            archiver: Arc::clone(&shared.archiver),
            identity,
            compared: held_by(destinations),
            folder: shared.options.folder.clone(),
            compression: push.compression,
            crew: push.crew.clone(),
            clock: shared.clock,
        }
    }

    /// Stores in every repository; `Ok` means durable. It ends with an error only if somebody must act, or if a new
    /// session must compare first.
    pub(super) async fn store(&self, work: Work) -> Result<Done, Error> {
        let (mut pause, mut has_reopened) = (FIRST_PAUSE, false);
        loop {
            let error = match self.try_once(&work).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            // The secrets may have been replaced since they were read: they are read once more.
            let of_credentials = is_of_credentials(&error);
            if !(is_of_store(&error) && passes(&error) || of_credentials && !has_reopened) {
                return Err(error);
            }
            has_reopened |= of_credentials;
            tracing::warn!(%error, again_in_seconds = pause.as_secs(), "received WAL could not be stored yet");
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    async fn try_once(&self, work: &Work) -> Result<Done, Error> {
        match work {
            Work::Piece(piece) => {
                let stored = self.store_piece(piece).await;
                if stored.is_err() {
                    self.archiver.has_failed().await;
                }
                stored
            }
            Work::Segment(name, content) => {
                let (file, now) = (WalFileName::Segment(*name), self.clock.now());
                hand_in(&self.archiver, &self.folder, file, content.clone(), now).await?;
                Ok(Done::Segment(*name))
            }
        }
    }

    async fn store_piece(&self, piece: &Piece) -> Result<Done, Error> {
        let Piece { segment, range, ref content, is_merged } = *piece;
        let destinations = self.destinations().await?;
        let (compression, crew) = (self.compression, &self.crew);
        let storing = destinations
            .iter()
            .map(|destination| tail::store_piece(destination, segment, range, content.clone(), compression, crew));
        // All continue to their end even if one fails: what is stored now need not be sent again.
        let stored = futures::future::join_all(storing).await;
        stored.into_iter().collect::<Result<Vec<()>, _>>()?;
        if is_merged {
            remove(&destinations, segment, Some(range)).await;
        }
        Ok(Done::Piece(segment, range))
    }

    /// Removes the pieces of a segment that is stored in whole. `expire` removes what stays.
    pub(super) async fn remove_pieces(&self, segment: SegmentName) -> Result<Done, Error> {
        match self.destinations().await {
            Ok(destinations) => remove(&destinations, segment, None).await,
            Err(error) => tracing::info!(%segment, %error, "{LEFT}"),
        }
        Ok(Done::Removed)
    }

    async fn destinations(&self) -> Result<Arc<Vec<Destination>>, Error> {
        let destinations = self.archiver.opened(self.identity, self.clock.now()).await?;
        if held_by(&destinations) == self.compared {
            return Ok(destinations);
        }
        let reason = "a repository has been made again, or the archive has another claim: what it has must be compared \
                      with the server first";
        Err(Cause::StreamLost { reason: reason.to_owned() }.into())
    }
}

const LEFT: &str = "pieces that are no longer needed could not be removed yet";

/// Removes pieces that are stored in another form by now: all, or those within another one.
async fn remove(destinations: &[Destination], segment: SegmentName, within: Option<TailRange>) {
    for Destination { repository, claim } in destinations {
        if let Err(error) = tail::remove_pieces(repository, claim, segment, within).await {
            tracing::info!(%segment, %error, "{LEFT}");
        }
    }
}

fn held_by(destinations: &[Destination]) -> Vec<(RepositoryId, ClaimNumber)> {
    destinations.iter().map(|destination| (destination.repository.id(), destination.claim.number)).collect()
}

/// Whether a repository failed, and not this session.
fn is_of_store(error: &Error) -> bool {
    matches!(*error.what, Cause::Store(_) | Cause::NotReadable { .. })
}
