//! The WAL archive: `archive_command`, `restore_command`, and the content of the archive.
//!
//! - [`push`](push()): one file that PostgreSQL asks for, and the neighbours that wait with it. Steps: a mark proves
//!   that it is stored already ([`marked_durable`]). Otherwise open the repositories, check the file against the claim,
//!   compress in pieces, create, read the store's checksum back, and only then report success.
//! - [`push_standby`]: the same call from a standby, which stores nothing and keeps its files until the primary has
//!   stored them.
//! - [`get`](get()): one file for PostgreSQL, from the spool or from the first repository that has it, verified to the
//!   last byte before it gets its name; then the segments after it into the spool.
//! - [`Archiver`], [`Fetcher`]: both for a process that stays, with open repositories.
//! - [`list`](list()), [`WalFolders`], [`ListedWal`]: the content of the archive, and its gaps.
//! - [`archive_file`], [`missing_segments`] and `OwnWal`: the parts with which a backup confirms its WAL.
//!
//! Invariants: `push` returns `Ok` only if the file is in every repository and has been confirmed there; no object is
//! ever replaced; `get` returns [`Cause::Absent`](crate::Cause::Absent) only if every repository answered so.
//!
//! After a crash: a push leaves nothing or whole objects (an unfinished multipart upload is not an object). A get
//! leaves temporary files beside its destination and in the spool, which later runs remove. Everything in the spool can
//! be made again; losing it costs time only. Its layout is `<spool>/<cluster>/push/` for marks and
//! `<spool>/<cluster>/get-<who>/` for segments fetched ahead.

mod archiver;
mod deliver;
mod destinations;
mod encode;
mod fetcher;
mod fork;
mod get;
mod hand_in;
mod known_logs;
mod late;
mod list;
mod listed_wal;
mod local_file;
mod mark;
mod missing;
mod only_here;
mod options;
mod own_wal;
mod prefetched;
mod private;
mod push;
mod ready;
mod resident;
mod spool;
mod standby;
pub(crate) mod stored;
pub(crate) mod tail;
mod transfers;
mod wal_folders;
mod whole_file;

pub use archiver::{Archiver, Durable};
pub use deliver::{ArchiveContext, Destination, archive_file};
pub(crate) use destinations::open_all;
pub use fetcher::{Fetched, Fetcher, FetcherOptions};
pub use get::{GetOptions, get, hand_over_fetched, segments_ahead};
pub(crate) use get::{look_at, memory_needed, read_whole};
pub(crate) use hand_in::hand_in;
pub use holdfast_contract::report::wal::{
    ArchivedFile, ClaimWal, Fork, GetReport, GetSource, PushOutcome, PushReport, StandbyOutcome, StandbyPushReport,
    Stored, StoredIn, TimelineWal, WalListing,
};
pub use known_logs::{ArchivePlace, KnownLogs, WalCache};
pub use late::list_settled;
pub(crate) use late::{LIST_AGAIN_AFTER, SHOW_AT_LEAST, is_young, list_within};
pub use list::list;
pub use listed_wal::ListedWal;
pub(crate) use listed_wal::is_large_enough;
pub use mark::marked_durable;
pub(crate) use missing::first_missing;
pub use missing::missing_segments;
pub(crate) use only_here::is_only_here;
pub use options::PushOptions;
pub(crate) use own_wal::OwnWal;
pub use prefetched::{hand_over_from_agent, write_small};
pub use push::push;
pub use ready::Ready;
pub use resident::{Purpose, Reopen};
pub use spool::{RepositorySetId, Spool, SpoolRefused, digest_of_settings};
pub(crate) use standby::stored_facts;
pub use standby::{StandbyPushOptions, push_standby, server_is_stopping};
pub(crate) use stored::wal_object_name;
pub use wal_folders::{WalFolders, WalScope};
pub(crate) use whole_file::{FolderOwner, archive_as_judged, owner_of_folder, read_local};

#[cfg(test)]
mod tests;
