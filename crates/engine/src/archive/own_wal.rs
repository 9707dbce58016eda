//! Whether an archive has the WAL of this server, or WAL of another history under the same names.
//!
//! The name of a segment is its timeline and its place, and says nothing about its content. A data volume that was
//! rolled back and started without recovery writes other WAL under names that the archive already has. So does the
//! second one of two standbys that were promoted to the same timeline. `wal push` refuses such a file. A backup of this
//! server would find all names of its WAL in the archive, and a restore would read WAL of the other history.
//!
//! So the files that are still in `pg_wal` are compared with the objects of the same names, by the length and the
//! BLAKE3 that the archiver stored: two small requests for each file, and no object is read. Only the part of a segment
//! that is not finished here is compared byte by byte.
//!
//! What is no difference: a file that only one side has; a file that was recycled and still begins with the header of
//! its old place; a segment that this server's history left before its end (see [`super::fork`]).

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use holdfast_pgtypes::{Lsn, SegmentName, TimelineId, WalFileName};
use holdfast_repo::ChunkHash;
use holdfast_repo::name::ClusterName;
use holdfast_repo::record::ClaimRecord;

use super::deliver::{blocking, identity_of};
use super::fork;
use super::local_file::LocalFile;
use super::ready::Ready;
use super::standby::{Content, content_of, stored_facts};
use super::stored::{self, wal_object_name};
use crate::error::{Cause, Error};
use crate::pipeline::crew::Crew;
use crate::repository::Repository;
use crate::repository::claim::Identity;

/// How many bytes at each end of a range are compared, beside the segments that wait for the archiver: once two
/// histories have parted, they differ in every later segment.
const COMPARED_BYTES: u64 = 256 << 20;

/// The most segments at each end.
const MOST_COMPARED: u64 = 16;

/// How often a file that changes while it is read is looked at again.
const LOOKS: u32 = 3;

/// The `pg_wal` of a server, beside an archive that should have its content.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnWal<'a> {
    /// The repository.
    pub(crate) repository: &'a Repository,
    /// The name of the archive.
    pub(crate) cluster: &'a ClusterName,
    /// The claim under which the server archives.
    pub(crate) claim: &'a ClaimRecord,
    /// The directory with the server's WAL.
    pub(crate) pg_wal: &'a Path,
}

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    /// Both sides have the same content.
    Same,
    /// `pg_wal` has no such file.
    NotHere,
    /// The repository has no such object.
    NotStored,
    /// The contents differ, but the history of this server needs neither.
    LeftBehind,
}

impl OwnWal<'_> {
    /// Refuses an archive at which the server's archiver has stopped, or will stop: it has other content under the name
    /// of the file that the archiver sends next. Nothing after that file may be stored here.
    ///
    /// # Errors
    /// [`Cause::Divergence`], and those of [`Self::compare`].
    pub(crate) async fn refuse_stopped_archiver(&self) -> Result<(), Error> {
        let pg_wal = self.pg_wal.to_owned();
        let next = blocking(move || Ok(Ready::beside(&pg_wal.join("any")).files().next())).await?;
        match next {
            Some(file) => self.compare(file).await.map(drop),
            None => Ok(()),
        }
    }

    /// Refuses an archive with other content than `pg_wal` has, for the segments of these ranges before `end`, and for
    /// the history file of the timeline. Every byte before `end` must be written here.
    ///
    /// # Errors
    /// [`Cause::Divergence`], and those of [`Self::compare`].
    pub(crate) async fn refuse_other_history(
        &self,
        ranges: &[(SegmentName, SegmentName)],
        end: Lsn,
        timeline: TimelineId,
        crew: &Crew,
    ) -> Result<(), Error> {
        if timeline > TimelineId::FIRST {
            self.compare(WalFileName::History(timeline)).await?;
        }
        let size = self.claim.wal_segment_size;
        let (pg_wal, ranges) = (self.pg_wal.to_owned(), ranges.to_vec());
        let here = blocking(move || segments_in(&pg_wal, &ranges)).await?;
        let (whole, rest): (Vec<_>, Vec<_>) = here.into_iter().partition(|(segment, _)| segment.end_lsn(size) <= end);
        let at_each_end = (COMPARED_BYTES / size.as_u64()).clamp(1, MOST_COMPARED) as usize;
        for segment in worth_comparing(&whole, at_each_end) {
            self.compare(WalFileName::Segment(segment)).await?;
        }
        for (segment, _) in rest {
            if let Some(bytes) = end.as_u64().checked_sub(segment.start_lsn(size).as_u64()).filter(|bytes| *bytes > 0) {
                self.compare_beginning(segment, bytes as usize, crew).await?;
            }
        }
        Ok(())
    }

    /// Compares a finished file of `pg_wal` with the object of its name.
    ///
    /// # Errors
    /// [`Cause::Divergence`] if the contents differ and the history of this server needs the file. Those of the store,
    /// and what is wrong with an object whose facts cannot be read.
    pub(crate) async fn compare(&self, file: WalFileName) -> Result<Compared, Error> {
        let path = self.path_of(file);
        let looked = path.clone();
        if !blocking(move || Ok(looked.exists())).await? {
            return Ok(Compared::NotHere);
        }
        let object = self.object_of(file);
        let Some(stored) = stored_facts(self.repository, &object).await? else { return Ok(Compared::NotStored) };
        let (identity, read) = (identity_of(self.claim)?, path.clone());
        let Some(here) = blocking(move || Ok(content_here(&read, &identity))).await? else {
            return Ok(Compared::NotHere);
        };
        if (stored.raw_len, stored.blake3) == (here.raw_len, here.blake3) {
            return Ok(Compared::Same);
        }
        let error = self.divergence(object, stored.blake3, here.blake3);
        fork::excuses(error, file, &path, self.claim.wal_segment_size).await?;
        Ok(Compared::LeftBehind)
    }

    /// Compares the first bytes of a segment that the server may still write.
    async fn compare_beginning(&self, segment: SegmentName, bytes: usize, crew: &Crew) -> Result<(), Error> {
        let file = WalFileName::Segment(segment);
        let (identity, path) = (identity_of(self.claim)?, self.path_of(file));
        let read = path.clone();
        let Some(here) = blocking(move || Ok(beginning_of(&read, &identity, bytes))).await? else { return Ok(()) };
        let object = self.object_of(file);
        let stored = match stored::read(self.repository, self.claim, &object, crew).await {
            Ok((stored, _)) => stored,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        match stored.get(..bytes) {
            Some(stored) if stored == here => Ok(()),
            stored => {
                let stored = ChunkHash::of(stored.unwrap_or_default());
                let error = self.divergence(object, stored, ChunkHash::of(&here));
                fork::excuses(error, file, &path, self.claim.wal_segment_size).await.map(drop)
            }
        }
    }

    fn path_of(&self, file: WalFileName) -> PathBuf {
        self.pg_wal.join(file.to_string())
    }

    fn object_of(&self, file: WalFileName) -> String {
        wal_object_name(self.repository, self.cluster, self.claim, &file)
    }

    fn divergence(&self, name: String, stored: ChunkHash, here: ChunkHash) -> Error {
        let (store, stored, here) = (self.repository.describe(), stored.to_string(), here.to_string());
        Cause::Divergence { store, name, stored, here }.into()
    }
}

/// The segments of these ranges that are in `pg_wal`, ascending, each with whether it waits for the archiver. Blocks.
fn segments_in(pg_wal: &Path, ranges: &[(SegmentName, SegmentName)]) -> Result<Vec<(SegmentName, bool)>, Error> {
    let ready = Ready::beside(&pg_wal.join("any"));
    let mut found = BTreeSet::new();
    let entries = match std::fs::read_dir(pg_wal) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("list", pg_wal, error)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| Error::file("list", pg_wal, e))?;
        let Some(Ok(WalFileName::Segment(segment))) = entry.file_name().to_str().map(str::parse) else { continue };
        if ranges.iter().any(|(first, last)| (*first..=*last).contains(&segment)) {
            found.insert(segment);
        }
    }
    Ok(found.into_iter().map(|segment| (segment, ready.contains(&WalFileName::Segment(segment)))).collect())
}

/// All segments that wait for the archiver, and as many others at each end.
fn worth_comparing(segments: &[(SegmentName, bool)], at_each_end: usize) -> Vec<SegmentName> {
    let others = segments.iter().filter(|(_, waits)| !waits).count();
    let (mut chosen, mut passed) = (Vec::new(), 0);
    for (segment, waits) in segments {
        if *waits || passed < at_each_end || passed + at_each_end >= others {
            chosen.push(*segment);
        }
        passed += usize::from(!waits);
    }
    chosen
}

/// Length and hash of a file; `None` if it is gone, is not what its name says, or cannot be read: then there is nothing
/// to compare, and the archiver reports the fault. Blocks.
fn content_here(path: &Path, identity: &Identity) -> Option<Content> {
    for _ in 0..LOOKS {
        match open_checked(path, identity).and_then(|file| content_of(&file)) {
            Ok(content) => return Some(content),
            Err(error) => tracing::debug!(path = %path.display(), %error, "cannot be compared with the archive"),
        }
    }
    None
}

/// The first bytes of a segment, under the same conditions. Blocks.
fn beginning_of(path: &Path, identity: &Identity, bytes: usize) -> Option<Vec<u8>> {
    let read = || -> Result<Vec<u8>, Error> {
        let mut whole = open_checked(path, identity)?.read_all()?;
        whole.truncate(bytes);
        // A file that was recycled while it was read has another name or another header now.
        open_checked(path, identity)?;
        Ok(whole)
    };
    read().ok().filter(|read| read.len() == bytes)
}

fn open_checked(path: &Path, identity: &Identity) -> Result<LocalFile, Error> {
    let file = LocalFile::open(path)?;
    file.check(identity)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
