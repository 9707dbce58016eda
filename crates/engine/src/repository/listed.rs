//! Records that are found by listing a folder: those that can be read, and those that cannot.
//!
//! Invariant: one bad record costs what it names and no more. An object that is damaged, swapped, missing although it is
//! listed, on a bad spot of a disk, or written by a newer release is set aside with its error; who needs just that one
//! gets the error, and everybody else hears of it. What concerns the store as a whole (it is away, slow, or refuses the
//! credentials) is an error at once: a record that could not be asked for is not a bad one, and to go on without it could be
//! to take an older one for the newest.

use std::error::Error as _;
use std::future::Future;

use futures::stream::{self, StreamExt};
use holdfast_store::{StoreError, StoreErrorKind};

use crate::error::{Cause, Error};

/// Records that are read at the same time: enough to hide latency over years of daily backups.
const RECORDS_AT_ONCE: usize = 16;

/// What the kernel says of a sector that a disk cannot read.
const EIO: i32 = 5;

/// A record that cannot be read.
#[derive(Debug)]
pub struct Unreadable<N> {
    /// What its name says: the backup, the claim, the key slot.
    pub id: N,
    /// Its object.
    pub object: String,
    /// Why it cannot be read.
    pub error: Error,
}

/// The records of one kind.
#[derive(Debug)]
pub struct Listed<T, N> {
    /// What could be read, in the order of the names.
    pub records: Vec<T>,
    /// What could not, in the same order.
    pub unreadable: Vec<Unreadable<N>>,
}

impl<T, N: Copy> Listed<T, N> {
    /// Reads one record after the other, some at the same time. `names` are the ids with the names of their objects.
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
                        // Once more: a bit that flipped on the way must not make an older record the newest.
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

    /// The records, if at least one could be read, or there is none at all.
    ///
    /// # Errors
    /// That of the newest unreadable record, if not one could be read.
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
    /// Whether it is about the object that was read, and says nothing of the others beside it.
    pub fn is_of_one_object(&self) -> bool {
        match &*self.what {
            Cause::Record(_)
            | Cause::Format(_)
            | Cause::Key(_)
            | Cause::Malformed { .. }
            | Cause::NotReadable { .. }
            | Cause::Remnant { .. } => true,
            Cause::Store(error) => match error.kind() {
                StoreErrorKind::NotFound
                | StoreErrorKind::Truncated
                | StoreErrorKind::Corrupt
                | StoreErrorKind::TooLarge => true,
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

    /// Whether a newer release wrote what could not be read.
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

/// Whether a disk could not read just this file.
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
