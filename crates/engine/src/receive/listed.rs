//! What the repositories have of the server's WAL, as they list it.

use holdfast_pgtypes::{Ancestry, Lsn};

use super::needed::Needed;
use super::position::StoredWal;
use crate::archive::tail::{self, TailPieces};
use crate::archive::{Destination, WalFolders, WalScope};
use crate::error::Error;

/// Lists what each repository has: whole segments from `from` and from where they are needed on, and pieces of every
/// timeline of the path.
pub(super) async fn stored_wal(
    destinations: &[Destination],
    ancestry: &Ancestry,
    from: Option<Lsn>,
) -> Result<(Vec<StoredWal>, Vec<TailPieces>), Error> {
    let (mut stored, mut tails) = (Vec::new(), Vec::new());
    for Destination { repository, claim } in destinations {
        let needed = Needed::read(repository, claim, ancestry).await?;
        let wanted = from.into_iter().chain(needed.from).min().map_or(WalScope::Newest, WalScope::From);
        let listed = WalFolders::read_and_list(repository, claim, wanted).await?;
        let mut pieces = TailPieces::new();
        for span in ancestry.path() {
            pieces.extend(tail::list_timeline(repository, claim, span.timeline).await?);
        }
        let ends = pieces.iter().filter_map(|(segment, ranges)| {
            let end = ranges.iter().map(|range| range.end()).max()?;
            Some((*segment, end))
        });
        stored.push(StoredWal {
            store: repository.describe(),
            // A damaged object is not WAL: nothing after it is reported because of it.
            inventory: listed.whole(),
            tail: ends.collect(),
            needed,
        });
        tails.push(pieces);
    }
    Ok((stored, tails))
}
