//! One object from one repository to another: what `copy` and `verify --repair` share.
//!
//! Every repository seals its objects under its own key, so nothing can be copied as it is: an object is opened and
//! proved, and sealed again. It is read with the checks of a restore, and what comes out is proved by what was written
//! when the backup was made: the BLAKE3 of each chunk in the manifest, the BLAKE3 of a WAL file.
//!
//! - [`pack`]: a pack, frame by frame, under its name, or under a free one where another pack has that; [`prove`]:
//!   whether what is there already is the same.
//! - [`data`]: the packs that a manifest names, and a manifest that names them in the new place.
//! - [`wal`]: a WAL file; [`claims`]: which claim of the one is which of the other.
//! - [`destination`]: what is in the repository that objects come to.
//!
//! Invariants: nothing sound is replaced; an object gets its name when all of it was read and proved; a name never gets
//! other content than it has, but in a repair ([`Placing::Replace`]).
//!
//! Memory: packs are streams, and as many are on their way as the memory that was given allows for. The manifest of one
//! backup is held as in a restore.

pub(crate) mod claims;
mod data;
mod destination;
mod pack;
mod prove;
mod stream;
mod wal;

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_repo::name::ClusterName;
use holdfast_store::PutMode;
use tokio_util::sync::CancellationToken;

pub(crate) use self::data::CarriedData;
use self::destination::Destination;
pub(crate) use self::pack::PackWork;
pub(crate) use self::wal::{CarriedWal, WalFile};
use crate::error::{Cause, Error};
use crate::pipeline::budget::ByteBudget;
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::Repository;

/// What may be done with a name that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placing {
    /// Nothing: an object is created.
    Create,
    /// What is there is damaged, and is replaced.
    Replace,
}

impl From<Placing> for PutMode {
    fn from(placing: Placing) -> Self {
        match placing {
            Placing::Create => Self::Create,
            Placing::Replace => Self::Overwrite,
        }
    }
}

/// How objects are carried.
#[derive(Clone)]
pub(crate) struct Means {
    pub(crate) cluster: ClusterName,
    /// Threads that open, check and seal.
    pub(crate) crew: Crew,
    /// Size of upload parts in bytes.
    pub(crate) part_size_bytes: usize,
    /// Bytes that the buffers may hold together.
    pub(crate) memory_bytes: u64,
    pub(crate) progress: Arc<dyn Progress>,
    pub(crate) cancel: CancellationToken,
}

/// Carries objects between two repositories; cheap to clone.
#[derive(Clone)]
pub(crate) struct Carrier {
    pub(crate) from: Repository,
    pub(crate) to: Repository,
    means: Means,
    destination: Arc<Destination>,
    /// For WAL files.
    budget: ByteBudget,
}

impl Carrier {
    /// Looks at what is in the second repository. What is `distrusted` counts as something that nobody vouches for.
    ///
    /// # Errors
    /// [`Cause::Store`] if that cannot be listed.
    pub(crate) async fn new(
        from: &Repository,
        to: &Repository,
        means: Means,
        distrusted: &BTreeSet<String>,
    ) -> Result<Self, Error> {
        let destination = Arc::new(Destination::look(to, &means.cluster, distrusted).await?);
        let budget = ByteBudget::new(means.memory_bytes);
        Ok(Self { from: from.clone(), to: to.clone(), means, destination, budget })
    }

    fn check_cancelled(&self) -> Result<(), Error> {
        if self.means.cancel.is_cancelled() { Err(Cause::Cancelled.into()) } else { Ok(()) }
    }

    fn cluster(&self) -> &ClusterName {
        &self.means.cluster
    }

    /// What opens and checks.
    pub(crate) fn crew(&self) -> &Crew {
        &self.means.crew
    }
}

/// What is wrong with one object is an answer; that the store could not be asked is an error.
fn of_object<T>(outcome: Result<T, Error>) -> Result<Option<T>, Error> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_of_one_object() => Ok(None),
        Err(error) => Err(error),
    }
}
