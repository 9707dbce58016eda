//! Step 1: missing or damaged WAL segments and history files, several at once.
//!
//! A hole is closed only if a segment beside it is the same in both repositories, and none beside it differs.

use futures::stream::{self, StreamExt};
use holdfast_contract::report::verify::{Damage, RepairKind};
use holdfast_pgtypes::{SegmentName, WalFileName};
use holdfast_repo::name::{ClaimNumber, ObjectPath};
use holdfast_repo::record::ClaimRecord;

use super::{Repairer, placing};
use crate::carry::{CarriedWal, Carrier, WalFile};
use crate::error::{Cause, Error};

/// The maximum number of WAL files that are brought back at once, within the memory.
const FILES_AT_ONCE: usize = 8;

/// Segments of one hole that are asked for: a name in a listing can be anything, and this is 16 TiB of WAL.
const MOST_IN_A_ROW: usize = 1 << 20;

/// How many segments on each side of a hole are asked for, until one can be compared.
const MOST_TRIED: usize = 64;

impl Repairer<'_> {
    /// Step 1 for one entry, which may be several segments in a row.
    pub(super) async fn wal(&mut self, damage: &Damage) -> Result<(), Error> {
        let Ok(ObjectPath::WalFile { claim, file, .. }) = damage.object.parse() else { return Ok(()) };
        let placing = placing(damage);
        let files = self.in_a_row(claim, file, damage.count);
        let mut missing: Vec<WalFileName> = files;
        for number in 0..self.donors.len() {
            let Some(donor) = self.donors.get(number) else { continue };
            let Some((from, to)) = donor.pairs.of_second(claim) else { continue };
            let (from, to, carrier) = (from.clone(), to.clone(), donor.carrier.clone());
            if let Err(error) = compare_around(&carrier, &from, &to, &missing).await {
                self.failed(&damage.object, number, &error)?;
                continue;
            }
            let tries = std::mem::take(&mut missing).into_iter().map(|file| {
                let wal = WalFile { file, from: &from, to: &to };
                let carrier = &carrier;
                async move { (file, carrier.bring_wal_back(wal, placing).await) }
            });
            let mut tries = stream::iter(tries.collect::<Vec<_>>()).buffered(FILES_AT_ONCE);
            while let Some((file, tried)) = tries.next().await {
                let object = crate::archive::wal_object_name(self.to, &self.options.cluster, &to, &file);
                match tried {
                    Ok(CarriedWal::Stored(_) | CarriedWal::AlreadyThere) => {
                        self.repaired(&object, number, RepairKind::SealedAgain);
                    }
                    Ok(CarriedWal::Absent) => missing.push(file),
                    Err(error) => {
                        self.failed(&damage.object, number, &error)?;
                        missing.push(file);
                    }
                }
            }
        }
        if !missing.is_empty() && !self.reasons.contains_key(&damage.object) {
            let reason = match missing.len() {
                1 => "no other repository has it".to_owned(),
                count => format!("no other repository has {count} of them"),
            };
            self.reasons.insert(damage.object.clone(), reason);
        }
        Ok(())
    }

    fn in_a_row(&self, claim: ClaimNumber, file: WalFileName, count: u64) -> Vec<WalFileName> {
        let WalFileName::Segment(first) = file else { return vec![file] };
        let sizes = self.donors.iter().filter_map(|donor| Some(donor.pairs.of_second(claim)?.1.wal_segment_size));
        let Some(size) = sizes.into_iter().next() else { return vec![file] };
        let segments = std::iter::successors(Some(first), |segment| segment.next(size));
        segments
            .take(usize::try_from(count).unwrap_or(MOST_IN_A_ROW).min(MOST_IN_A_ROW))
            .map(WalFileName::Segment)
            .collect()
    }
}

/// Fails if no segment beside a hole shows that both repositories have the WAL of one server: an archive that has split
/// on this timeline would close the hole with WAL of another server, and recovery would take that for the end of the
/// WAL. On each side the nearest segment counts that both have and that can be compared.
async fn compare_around(
    carrier: &Carrier,
    from: &ClaimRecord,
    to: &ClaimRecord,
    files: &[WalFileName],
) -> Result<(), Error> {
    let size = to.wal_segment_size;
    let segments = || files.iter().filter_map(|file| file.segment());
    let (Some(first), Some(last)) = (segments().min(), segments().max()) else { return Ok(()) };
    let before = std::iter::successors(first.previous(size), |segment| segment.previous(size));
    let after = std::iter::successors(last.next(size), |segment| segment.next(size));
    // Both sides are asked: a hole may also be where the archives split.
    let before = nearest(carrier, from, to, before.take(MOST_TRIED)).await?;
    let after = nearest(carrier, from, to, after.take(MOST_TRIED)).await?;
    if before || after {
        return Ok(());
    }
    let (one, two) = (carrier.to.describe(), carrier.from.describe());
    Err(Cause::Refused(format!(
        "no segment near {first} could be compared in {one} and {two}, so it is not known whether both have the WAL of \
         the same server"
    ))
    .into())
}

/// Whether one of these segments is the same in both repositories: the first that can be compared decides.
async fn nearest(
    carrier: &Carrier,
    from: &ClaimRecord,
    to: &ClaimRecord,
    segments: impl Iterator<Item = SegmentName>,
) -> Result<bool, Error> {
    for segment in segments {
        let file = WalFileName::Segment(segment);
        match carrier.compare_wal(WalFile { file, from, to }).await {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            // What is wrong with a neighbour is damage of its own.
            Err(error) if error.is_of_one_object() && !matches!(*error.what, Cause::Divergence { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
