//! What [`Archiver`](super::Archiver) and [`Fetcher`](super::Fetcher) share, which belong to a process that stays.

use std::time::Duration;

use futures::future::BoxFuture;

use crate::repository::RepositoryTarget;

/// How long opened repositories are believed to be what they were: a wiped repository, a rotated key and a new claim
/// are noticed after this time. A mark is believed as long without a look (`mark::BELIEVED_FOR`).
pub(super) const OPEN_FOR: Duration = Duration::from_mins(1);

/// Why a file is transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// PostgreSQL has asked for it.
    Asked,
    /// PostgreSQL may ask for it.
    Ahead,
}

/// Makes the targets again, with secrets and certificates as they are now; `None` if that fails.
pub type Reopen = Box<dyn Fn() -> BoxFuture<'static, Option<Vec<RepositoryTarget>>> + Send + Sync>;
