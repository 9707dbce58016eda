//! The sinks of all repositories. If a repository fails, it is left out, and the backup continues in the others.
//!
//! Only an error of the repository itself leaves it out ([`Error::is_of_repository`]). Every other error ends the run
//! at once: a cancel, a local file, the data itself, a bug of ours. The failure of the last repository also ends the
//! run; then the first failure is reported. When a repository is left out, its unfinished uploads are aborted at once.
//! Its objects are removed at the end of the run, as for a failed run (see [`super::remains`]).

use holdfast_repo::manifest::{Extent, FileEntry, Patch};
use holdfast_repo::{CompressedFrame, FrameLocation};
use tokio_util::sync::CancellationToken;

use super::encode::EncodedChunk;
use super::listing::SourceFile;
use super::sink::{Sink, Stored};
use crate::error::{Cause, Error};
use crate::pipeline::budget::Permit;
use crate::progress::Progress;

/// The place of a frame in each repository, in their order; `None` for a repository that is left out.
pub(super) type FrameLocations = Vec<Option<(u32, FrameLocation)>>;

/// All repositories of a running backup, in their order.
pub(super) struct Sinks<'a> {
    lanes: Vec<Lane>,
    progress: &'a dyn Progress,
    cancel: CancellationToken,
}

struct Lane {
    /// The redacted URL.
    repository: String,
    /// `None` after it is finished or aborted.
    sink: Option<Sink>,
    failure: Option<Failure>,
}

/// Why a repository is left out.
struct Failure {
    /// 0 for the first failure, and so on.
    order: usize,
    error: Error,
}

impl<'a> Sinks<'a> {
    pub(super) fn new(progress: &'a dyn Progress, cancel: CancellationToken) -> Self {
        Self { lanes: Vec::new(), progress, cancel }
    }

    /// Adds the next repository, with its sink or with its error.
    pub(super) fn add(&mut self, repository: String, sink: Result<Sink, Error>) {
        let order = self.lanes.iter().filter(|lane| lane.failure.is_some()).count();
        let (sink, failure) = match sink {
            Ok(sink) => (Some(sink), None),
            Err(error) => (None, Some(Failure { order, error })),
        };
        self.lanes.push(Lane { repository, sink, failure });
    }

    /// Fails if no repository takes part.
    pub(super) fn check_any(&mut self) -> Result<(), Error> {
        if self.lanes.iter().any(|lane| lane.failure.is_none()) { Ok(()) } else { Err(self.first_failure()) }
    }

    /// The number of repositories, including those that are left out.
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Whether the repository at this index takes part.
    pub(super) fn takes_part(&self, index: usize) -> bool {
        self.lanes.get(index).is_some_and(|lane| lane.failure.is_none())
    }

    /// Stores a frame in all repositories; `permit` is for all of them.
    pub(super) async fn frame(
        &mut self,
        frame: CompressedFrame,
        chunks: &[EncodedChunk],
        files: &[SourceFile],
        mut permit: Permit,
    ) -> Result<FrameLocations, Error> {
        let bytes = frame.body().len() as u64;
        let mut left = self.lanes.iter().filter(|lane| lane.sink.is_some()).count();
        permit.shrink_to(bytes * left as u64);
        let mut frame = Some(frame);
        let mut places = Vec::with_capacity(self.lanes.len());
        for index in 0..self.lanes.len() {
            let Some(sink) = self.sink(index) else {
                places.push(None);
                continue;
            };
            left -= 1;
            let share = permit.split_off(bytes);
            // The last repository gets the frame itself, without a copy.
            let Some(own) = (if left == 0 { frame.take() } else { frame.clone() }) else {
                places.push(None);
                continue;
            };
            let stored = sink.frame(own, chunks, files, share).await;
            places.push(self.settle(index, stored).await?);
        }
        Ok(places)
    }

    /// Adds an extent to the current file; `extent` makes it from the place of its frame.
    pub(super) fn extent(
        &mut self,
        places: &FrameLocations,
        extent: impl Fn(&mut Sink, Option<&(u32, FrameLocation)>) -> Result<Extent, Error>,
    ) -> Result<(), Error> {
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if let Some(sink) = &mut lane.sink {
                let extent = extent(sink, places.get(index).and_then(Option::as_ref))?;
                sink.extent(extent);
            }
        }
        Ok(())
    }

    /// Adds a patch over the last extent, at the offset `at` in bytes; `extent` makes it from the place of its frame.
    pub(super) fn patch(
        &mut self,
        places: &FrameLocations,
        number: u32,
        at: u32,
        extent: impl Fn(&mut Sink, Option<&(u32, FrameLocation)>) -> Result<Extent, Error>,
    ) -> Result<(), Error> {
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if let Some(sink) = &mut lane.sink {
                let place = extent(sink, places.get(index).and_then(Option::as_ref))?;
                sink.patch(Patch { extent: number, at, place });
            }
        }
        Ok(())
    }

    /// As [`Sink::kept_extent`], in all repositories.
    pub(super) fn kept_extent(&mut self, position: u32, number: u32) -> Result<(), Error> {
        self.lanes
            .iter_mut()
            .filter_map(|lane| lane.sink.as_mut())
            .try_for_each(|sink| sink.kept_extent(position, number))
    }

    /// As [`Sink::kept_file`], in all repositories.
    pub(super) async fn kept_file(&mut self, file: &SourceFile, position: u32) -> Result<(), Error> {
        for index in 0..self.lanes.len() {
            let Some(sink) = self.sink(index) else { continue };
            let written = sink.kept_file(file, position).await;
            self.settle(index, written).await?;
        }
        Ok(())
    }

    /// As [`Sink::drop_file`], in all repositories.
    pub(super) fn drop_file(&mut self) {
        self.lanes.iter_mut().filter_map(|lane| lane.sink.as_mut()).for_each(Sink::drop_file);
    }

    /// As [`Sink::finish_file`], in all repositories.
    pub(super) async fn finish_file(
        &mut self,
        file: &SourceFile,
        size_bytes: u64,
        crc32c: Option<u32>,
        parent: Option<u32>,
    ) -> Result<(), Error> {
        for index in 0..self.lanes.len() {
            let Some(sink) = self.sink(index) else { continue };
            let written = sink.finish_file(file, size_bytes, crc32c, parent).await;
            self.settle(index, written).await?;
        }
        Ok(())
    }

    /// As [`Sink::unchanged_files`], in all repositories.
    pub(super) async fn unchanged_files(&mut self) -> Result<(), Error> {
        for index in 0..self.lanes.len() {
            let Some(sink) = self.sink(index) else { continue };
            let written = sink.unchanged_files().await;
            self.settle(index, written).await?;
        }
        Ok(())
    }

    /// As [`Sink::end_group`], in all repositories.
    pub(super) async fn end_group(&mut self) -> Result<(), Error> {
        for index in 0..self.lanes.len() {
            let Some(sink) = self.sink(index) else { continue };
            let written = sink.end_group().await;
            self.settle(index, written).await?;
        }
        Ok(())
    }

    /// Writes any other entry.
    pub(super) async fn entry(&mut self, entry: &FileEntry<'_>) -> Result<(), Error> {
        for index in 0..self.lanes.len() {
            let Some(sink) = self.sink(index) else { continue };
            let written = sink.entry(entry).await;
            self.settle(index, written).await?;
        }
        Ok(())
    }

    /// Finishes packs and manifests; gives what each repository has stored.
    pub(super) async fn finish(&mut self) -> Result<Vec<Option<Stored>>, Error> {
        let mut stored = Vec::with_capacity(self.lanes.len());
        for index in 0..self.lanes.len() {
            let Some(sink) = self.lanes.get_mut(index).and_then(|lane| lane.sink.take()) else {
                stored.push(None);
                continue;
            };
            let finished = sink.finish().await;
            stored.push(self.settle(index, finished).await?);
        }
        Ok(stored)
    }

    /// Takes the outcome of a step in one repository; gives `None` if the repository is left out from now on.
    pub(super) async fn settle<T>(&mut self, index: usize, outcome: Result<T, Error>) -> Result<Option<T>, Error> {
        let error = match outcome {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        if error.is_of_repository() { self.settle_alone(index, Err(error)).await } else { Err(error) }
    }

    /// As [`Self::settle`], for a step that the other repositories do not depend on: every error is of this repository.
    pub(super) async fn settle_alone<T>(
        &mut self,
        index: usize,
        outcome: Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let error = match outcome {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        // A cancel ends the run, whatever step it made fail.
        if self.cancel.is_cancelled() {
            return Err(error);
        }
        let order = self.lanes.iter().filter(|lane| lane.failure.is_some()).count();
        let others = self.lanes.len() - order;
        let Some(lane) = self.lanes.get_mut(index) else { return Err(error) };
        let note = format!("the backup continues without {}: {error}", lane.repository);
        let also = format!("the backup also fails in {}: {error}", lane.repository);
        lane.failure = Some(Failure { order, error });
        if others <= 1 {
            // The first failure becomes the error of the backup. Later ones are reported only here.
            if order > 0 {
                self.progress.note(&also);
            }
            return Err(self.first_failure());
        }
        self.progress.note(&note);
        if let Some(sink) = lane.sink.take() {
            sink.abort().await;
        }
        Ok(None)
    }

    /// Leaves a repository out after the backup already exists in another one, so that the run cannot fail any more.
    pub(super) async fn leave_out(&mut self, index: usize, error: Error) {
        let order = self.lanes.iter().filter(|lane| lane.failure.is_some()).count();
        let Some(lane) = self.lanes.get_mut(index) else { return };
        self.progress.note(&format!("the backup continues without {}: {error}", lane.repository));
        lane.failure = Some(Failure { order, error });
        if let Some(sink) = lane.sink.take() {
            sink.abort().await;
        }
    }

    /// Aborts the uploads of all repositories.
    pub(super) async fn abort(self) {
        let sinks = self.lanes.into_iter().filter_map(|lane| lane.sink);
        futures::future::join_all(sinks.map(Sink::abort)).await;
    }

    /// The indexes of the repositories that are left out, with their errors.
    pub(super) fn into_failures(self) -> Vec<(usize, Error)> {
        let lanes = self.lanes.into_iter().enumerate();
        lanes.filter_map(|(index, lane)| Some((index, lane.failure?.error))).collect()
    }

    fn sink(&mut self, index: usize) -> Option<&mut Sink> {
        self.lanes.get_mut(index)?.sink.as_mut()
    }

    fn first_failure(&mut self) -> Error {
        let failed = self.lanes.iter_mut().filter(|lane| lane.failure.is_some());
        let first = failed.min_by_key(|lane| lane.failure.as_ref().map(|failure| failure.order));
        match first.and_then(|lane| lane.failure.take()) {
            Some(failure) => failure.error,
            None => Cause::Internal("no repository".to_owned()).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use std::path::Path;
    use std::sync::Arc;

    use holdfast_store::MemoryStore;

    use super::*;
    use crate::progress::Silent;
    use crate::repository::{Repository, RepositoryTarget, Unlock, init};

    async fn two() -> Sinks<'static> {
        let cancel = CancellationToken::new();
        let mut sinks = Sinks::new(&Silent, cancel.clone());
        for _ in 0..2 {
            let target = RepositoryTarget { store: Arc::new(MemoryStore::new()), unlock: Unlock::NotEncrypted };
            init::init(&target, "2026-11-29T11:00:00Z".parse().unwrap()).await.unwrap();
            let repository = Repository::open(&target).await.unwrap();
            let (cluster, backup) = ("main".parse().unwrap(), "20261129T110000Z".parse().unwrap());
            let describe = repository.describe();
            sinks.add(describe, Sink::new(repository, &cluster, backup, 5 << 20, 64 << 10, 32 << 20, &cancel).await);
        }
        sinks
    }

    /// An unreadable local file is an error for every repository.
    #[tokio::test]
    async fn only_an_error_of_the_repository_leaves_it_out() {
        let denied = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let malformed = Cause::Malformed { name: "/srv/pg/pg_wal/00000002.history".to_owned(), reason: "x".to_owned() };
        for error in [
            Error::file("read", Path::new("/srv/pg/pg_wal/000000010000000000000003"), denied()),
            malformed.into(),
            Cause::Refused("a manifest of more bytes than a restore takes".to_owned()).into(),
            Cause::Internal("a reading thread failed".to_owned()).into(),
        ] {
            let (mut sinks, text) = (two().await, error.to_string());
            let ended = sinks.settle::<()>(0, Err(error)).await.unwrap_err();
            assert_eq!(ended.to_string(), text, "the run ends with it");
        }
        let mut sinks = two().await;
        let absent = || Error::from(Cause::NotArchived { segment: "x".to_owned(), waited: std::time::Duration::ZERO });
        assert!(sinks.settle::<()>(0, Err(absent())).await.unwrap().is_none());
        assert!(!sinks.takes_part(0) && sinks.takes_part(1));
        sinks.settle::<()>(1, Err(absent())).await.unwrap_err();
    }
}
