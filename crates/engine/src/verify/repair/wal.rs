//! Step 1: missing or damaged WAL segments and history files, several at once.
//!
//! A hole is closed only if the segments around it are the same in both repositories.

use futures::stream::{self, StreamExt};
use holdfast_contract::report::verify::{Damage, RepairKind};
use holdfast_pgtypes::WalFileName;
use holdfast_repo::name::{ClaimNumber, ObjectPath};
use holdfast_repo::record::ClaimRecord;

use super::{Repairer, placing};
use crate::carry::{CarriedWal, Carrier, WalFile};
use crate::error::{Cause, Error};

/// The maximum number of WAL files that are brought back at once, within the memory.
const FILES_AT_ONCE: usize = 8;

/// Segments of one hole that are asked for: a name in a listing can be anything, and this is 16 TiB of WAL.
const MOST_IN_A_ROW: usize = 1 << 20;

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

/// Compares the segments before and after a hole that both repositories have: an archive that has split on this
/// timeline would close the hole with WAL of another server, and recovery would take that for the end of the WAL.
async fn compare_around(
    carrier: &Carrier,
    from: &ClaimRecord,
    to: &ClaimRecord,
    files: &[WalFileName],
) -> Result<(), Error> {
    let size = to.wal_segment_size;
    let segments = || files.iter().filter_map(|file| file.segment());
    let around =
        [segments().min().and_then(|first| first.previous(size)), segments().max().and_then(|last| last.next(size))];
    for segment in around.into_iter().flatten() {
        let file = WalFileName::Segment(segment);
        match carrier.compare_wal(WalFile { file, from, to }).await {
            // What is wrong with a neighbour is damage of its own.
            Err(error) if error.is_of_one_object() && !matches!(*error.what, Cause::Divergence { .. }) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}
