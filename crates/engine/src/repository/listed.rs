//! Reads records found by listing a folder, and separates those that cannot be read.
//!
//! Invariant: a bad record affects only what it names. A record that is damaged, swapped, listed but missing, on a bad
//! sector of a disk, in an archive storage class, or written by a newer release is set aside with its error. A command
//! that needs it gets the error; every other command reports it. A failure of the whole store (unavailable, slow,
//! credentials refused) is an error at once: such a record is not bad, and without it an older one could be taken for
//! the newest.

use std::error::Error as _;
use std::future::Future;

use futures::stream::{self, StreamExt};
use holdfast_store::{StoreError, StoreErrorKind};

use crate::error::{Cause, Error};

/// Records that are read at the same time: enough to hide latency with years of daily backups.
const RECORDS_AT_ONCE: usize = 16;

/// The kernel's error number for a sector that the disk cannot read.
const EIO: i32 = 5;

/// A record that cannot be read.
#[derive(Debug)]
pub struct Unreadable<N> {
    /// The id in its name: of the backup, the claim or the key slot.
    pub id: N,
    /// The name of its object.
    pub object: String,
    /// Why it cannot be read.
    pub error: Error,
}

/// The records of one kind.
#[derive(Debug)]
pub struct Listed<T, N> {
    /// The records that could be read, in the order of the names.
    pub records: Vec<T>,
    /// Those that could not be read, in the same order.
    pub unreadable: Vec<Unreadable<N>>,
}

impl<T, N: Copy> Listed<T, N> {
    /// Reads the records, several at the same time. `names` has the ids with the names of their objects.
    pub(crate) async fn read<R>(names: Vec<(N, String)>, read: impl Fn(N) -> R) -> Result<Self, Error>
    where
        R: Future<Output = Result<T, Error>>,
    {
        let reads: Vec<_> = names
            .into_iter()
            .map(|(id, object)| {
                let (first, again) = (read(id), read(id));
                async move {
                    let read = match first.await {
                        // Read once more: a bit that flipped on the way must not make an older record the newest.
                        Err(error) if error.is_of_one_object() && !error.is_newer() => again.await,
                        read => read,
                    };
                    (id, object, read)
                }
            })
            .collect();
        let mut reads = stream::iter(reads).buffered(RECORDS_AT_ONCE);
        let mut listed = Self { records: Vec::new(), unreadable: Vec::new() };
        while let Some((id, object, read)) = reads.next().await {
            match read {
                Ok(record) => listed.records.push(record),
                Err(error) if error.is_of_one_object() => listed.unreadable.push(Unreadable { id, object, error }),
                Err(error) => return Err(error),
            }
        }
        Ok(listed)
    }

    /// The records, if at least one could be read or none exists.
    ///
    /// # Errors
    /// That of the newest unreadable record, if none could be read.
    pub fn some(self) -> Result<Self, Error> {
        let Self { records, mut unreadable } = self;
        match unreadable.pop() {
            Some(bad) if records.is_empty() => Err(bad.error),
            bad => {
                unreadable.extend(bad);
                Ok(Self { records, unreadable })
            }
        }
    }
}

impl Error {
    /// Whether the error concerns only the object that was read, and says nothing about other objects.
    pub fn is_of_one_object(&self) -> bool {
        match &*self.what {
            Cause::Record(_)
            | Cause::Format(_)
            | Cause::Key(_)
            | Cause::Malformed { .. }
            | Cause::NotReadable { .. }
            | Cause::Remnant { .. }
            | Cause::LostPack { .. } => true,
            Cause::Store(error) => match error.kind() {
                StoreErrorKind::NotFound
                | StoreErrorKind::Truncated
                | StoreErrorKind::Corrupt
                | StoreErrorKind::TooLarge
                | StoreErrorKind::Archived
                | StoreErrorKind::KeyRefused => true,
                StoreErrorKind::Other => is_of_disk(error),
                StoreErrorKind::AlreadyExists
                | StoreErrorKind::PermissionDenied
                | StoreErrorKind::NoCredentials
                | StoreErrorKind::NoSuchBucket
                | StoreErrorKind::ClockSkew
                | StoreErrorKind::NoSpace
                | StoreErrorKind::Throttled
                | StoreErrorKind::Timeout
                | StoreErrorKind::Unreachable
                | StoreErrorKind::Unsupported
                | StoreErrorKind::InvalidConfig
                | StoreErrorKind::BadCertificate
                | StoreErrorKind::ProxyRefused
                | StoreErrorKind::Cancelled => false,
            },
            _ => false,
        }
    }

    /// Whether the object could not be read because a newer release wrote it.
    pub fn is_newer(&self) -> bool {
        match &*self.what {
            Cause::Record(error) => error.is_newer(),
            Cause::NewerFeature { .. } => true,
            Cause::Format(error) => error.class() == holdfast_repo::FaultClass::Unsupported,
            Cause::Key(error) => matches!(error, holdfast_repo::key::KeyError::UnsupportedKdf { .. }),
            _ => false,
        }
    }
}

/// Whether the disk could not read this file only.
fn is_of_disk(error: &StoreError) -> bool {
    let mut next = error.source();
    while let Some(cause) = next {
        if cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.raw_os_error() == Some(EIO)) {
            return true;
        }
        next = cause.source();
    }
    false
}

#[cfg(test)]
mod tests;
