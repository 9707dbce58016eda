//! The sinks of all repositories. One repository that fails is left out from then on, and the backup goes on in the others.
//!
//! Only a failure of that repository leaves it out ([`Error::is_of_repository`]). All else ends the run at once and is
//! the run's error: a cancel, a local file, what is backed up, a fault of our own. So does the failure of the last
//! repository: then the first failure is the one that is told. The unfinished uploads of a repository that is left out
//! are given up at once; its objects are removed at the end of the run, as those of a run that failed (see
//! [`super::remains`]).

use holdfast_repo::manifest::{Extent, FileEntry, Patch};
use holdfast_repo::{CompressedFrame, FrameLocation};
use tokio_util::sync::CancellationToken;

use super::encode::EncodedChunk;
use super::listing::SourceFile;
use super::sink::{Sink, Stored};
use crate::error::{Cause, Error};
use crate::pipeline::budget::Permit;
use crate::progress::Progress;

/// Where a frame is in each repository, in their order; nothing for those that are left out.
pub(super) type Places = Vec<Option<(u32, FrameLocation)>>;

/// All repositories of a running backup, in their order.
pub(super) struct Sinks<'a> {
    lanes: Vec<Lane>,
    progress: &'a dyn Progress,
    cancel: CancellationToken,
}

struct Lane {
    /// The redacted URL.
    repository: String,
    /// Gone once it is finished, or given up.
    sink: Option<Sink>,
    failure: Option<Failure>,
}

/// Why a repository is left out.
struct Failure {
    /// Which failure came first.
    order: usize,
    error: Error,
}

impl<'a> Sinks<'a> {
    pub(super) fn new(progress: &'a dyn Progress, cancel: CancellationToken) -> Self {
        Self { lanes: Vec::new(), progress, cancel }
    }

    /// Adds the next repository, with its sink or with what is wrong with it.
    pub(super) fn add(&mut self, repository: String, sink: Result<Sink, Error>) {
        let order = self.lanes.iter().filter(|lane| lane.failure.is_some()).count();
        let (sink, failure) = match sink {
            Ok(sink) => (Some(sink), None),
            Err(error) => (None, Some(Failure { order, error })),
        };
        self.lanes.push(Lane { repository, sink, failure });
    }

    /// Refuses to begin when no repository takes part.
    pub(super) fn check_any(&mut self) -> Result<(), Error> {
        if self.lanes.iter().any(|lane| lane.failure.is_none()) { Ok(()) } else { Err(self.first_failure()) }
    }

    /// How many repositories there are, those included that are left out.
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Whether the repository at this place takes part.
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
    ) -> Result<Places, Error> {
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
            // The last one may keep it.
            let Some(own) = (if left == 0 { frame.take() } else { frame.clone() }) else {
                places.push(None);
                continue;
            };
            let stored = sink.frame(own, chunks, files, share).await;
            places.push(self.settle(index, stored).await?);
        }
        Ok(places)
    }

    /// Adds an extent to the file that is being put together; `extent` makes it of the place of its frame.
    pub(super) fn extent(
        &mut self,
        places: &Places,
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

    /// Adds a patch over the last extent, `at` so many bytes into it; `extent` makes it of the place of its frame.
    pub(super) fn patch(
        &mut self,
        places: &Places,
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

    /// Adds an extent of the parent with the patches over it.
    pub(super) fn kept_extent(&mut self, position: u32, number: u32) -> Result<(), Error> {
        self.lanes
            .iter_mut()
            .filter_map(|lane| lane.sink.as_mut())
            .try_for_each(|sink| sink.kept_extent(position, number))
    }

    /// Writes the entry of a file that is the parent's.
    pub(super) async fn kept_file(&mut self, file: &SourceFile, position: u32) -> Result<(), Error> {
        for index in 0..self.lanes.len() {
            let Some(sink) = self.sink(index) else { continue };
            let written = sink.kept_file(file, position).await;
            self.settle(index, written).await?;
        }
        Ok(())
    }

    /// Forgets the extents of a file that turned out to be removed.
    pub(super) fn drop_file(&mut self) {
        self.lanes.iter_mut().filter_map(|lane| lane.sink.as_mut()).for_each(Sink::drop_file);
    }

    /// Writes the entry of the file whose extents have been added.
    pub(super) async fn finish_file(
        &mut self,
        file: &SourceFile,
        size_bytes: u64,
        crc32c: Option<u32>,
    ) -> Result<(), Error> {
        for index in 0..self.lanes.len() {
            let Some(sink) = self.sink(index) else { continue };
            let written = sink.finish_file(file, size_bytes, crc32c).await;
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

    /// What came of something done in one repository; nothing if it is left out from now on.
    pub(super) async fn settle<T>(&mut self, index: usize, outcome: Result<T, Error>) -> Result<Option<T>, Error> {
        let error = match outcome {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        if error.is_of_repository() { self.settle_alone(index, Err(error)).await } else { Err(error) }
    }

    /// The same of something that the other repositories may do without, so that no failure is all repositories'.
    pub(super) async fn settle_alone<T>(
        &mut self,
        index: usize,
        outcome: Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let error = match outcome {
            Ok(done) => return Ok(Some(done)),
            Err(error) => error,
        };
        // A cancel ends the run, whatever failed by it.
        if self.cancel.is_cancelled() {
            return Err(error);
        }
        let order = self.lanes.iter().filter(|lane| lane.failure.is_some()).count();
        let others = self.lanes.len() - order;
        let Some(lane) = self.lanes.get_mut(index) else { return Err(error) };
        let note = format!("the backup continues without {}: {error}", lane.repository);
        let also = format!("the backup fails in {}, too: {error}", lane.repository);
        lane.failure = Some(Failure { order, error });
        if others <= 1 {
            // The first failure is the backup's; the others are told here, or nowhere.
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

    /// Leaves a repository out after the backup exists in another: nothing takes that one away any more.
    pub(super) async fn leave_out(&mut self, index: usize, error: Error) {
        let order = self.lanes.iter().filter(|lane| lane.failure.is_some()).count();
        let Some(lane) = self.lanes.get_mut(index) else { return };
        self.progress.note(&format!("the backup continues without {}: {error}", lane.repository));
        lane.failure = Some(Failure { order, error });
        if let Some(sink) = lane.sink.take() {
            sink.abort().await;
        }
    }

    /// Gives all up, and removes their unfinished uploads.
    pub(super) async fn abort(self) {
        let sinks = self.lanes.into_iter().filter_map(|lane| lane.sink);
        futures::future::join_all(sinks.map(Sink::abort)).await;
    }

    /// The repositories that are left out, by their places.
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

    /// A file of this machine cannot be read for the other repository, either.
    #[tokio::test]
    async fn only_a_failure_of_the_repository_leaves_it_out() {
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
