//! Carries objects from one repository to another, for `copy` and `verify --repair`.
//!
//! Every repository seals its objects under its own key, so an object cannot be copied as it is: it is opened, checked
//! and sealed again. It is read with the checks of a restore. Its content must match the hashes from the time of the
//! backup: the BLAKE3 of each chunk in the manifest, or the BLAKE3 of a WAL file.
//!
//! - [`pack`]: a pack, frame by frame. It keeps its name; if another pack has this name, it gets a free one. [`prove`]:
//!   whether a stored pack has the same content.
//! - [`data`]: the packs that a manifest names, and a manifest that names them in their new places.
//! - [`wal`]: a WAL file. [`claims`]: which claims of the two repositories belong to the same cluster.
//! - [`destination`]: what the second repository has.
//!
//! Invariants: a sound object is never replaced. An object gets its name only after all of it was read and checked. The
//! content under a name never changes, except with [`Placing::Replace`].
//!
//! Memory: packs are streamed, as many at once as the given memory allows. The manifest of one backup is held in
//! memory, as in a restore.

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

/// What to do if the name of an object is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placing {
    /// The object is created. A taken name is an error.
    Create,
    /// The object with this name is damaged, and is replaced.
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

/// The options and the threads for carrying objects.
#[derive(Clone)]
pub(crate) struct CarryContext {
    pub(crate) cluster: ClusterName,
    /// The threads that open, check and seal.
    pub(crate) crew: Crew,
    /// Size of upload parts in bytes.
    pub(crate) part_size_bytes: usize,
    /// The maximum size of all buffers together, in bytes.
    pub(crate) memory_bytes: u64,
    pub(crate) progress: Arc<dyn Progress>,
    pub(crate) cancel: CancellationToken,
}

/// Carries objects between two repositories; cheap to clone.
#[derive(Clone)]
pub(crate) struct Carrier {
    pub(crate) from: Repository,
    pub(crate) to: Repository,
    means: CarryContext,
    destination: Arc<Destination>,
    /// The memory budget of WAL files.
    budget: ByteBudget,
}

impl Carrier {
    /// Lists what the second repository has. No manifest vouches for a pack that is `distrusted`.
    ///
    /// # Errors
    /// [`Cause::Store`] if it cannot be listed.
    pub(crate) async fn new(
        from: &Repository,
        to: &Repository,
        means: CarryContext,
        distrusted: &BTreeSet<String>,
    ) -> Result<Self, Error> {
        let destination = Arc::new(Destination::list(to, &means.cluster, distrusted).await?);
        let budget = ByteBudget::new(means.memory_bytes);
        Ok(Self { from: from.clone(), to: to.clone(), means, destination, budget })
    }

    /// Records that the manifest of a backup was written again in the second repository, by any carrier.
    pub(crate) fn rewrote(&self, manifest: &str) {
        self.destination.rewrote(manifest);
    }

    fn check_cancelled(&self) -> Result<(), Error> {
        if self.means.cancel.is_cancelled() { Err(Cause::Cancelled.into()) } else { Ok(()) }
    }

    fn cluster(&self) -> &ClusterName {
        &self.means.cluster
    }

    /// The threads that open, check and seal.
    pub(crate) fn crew(&self) -> &Crew {
        &self.means.crew
    }
}

/// `None` if something is wrong with this one object. Any other failure, such as a store that does not answer, is an
/// error.
fn of_object<T>(outcome: Result<T, Error>) -> Result<Option<T>, Error> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_of_one_object() => Ok(None),
        Err(error) => Err(error),
    }
}
