//! Pages with a wrong checksum: which of them are listed, and how long the backup waits for them.
//!
//! A failing disk can have a million of them, and its backup is very important. So each file gets only a few waits, and
//! so do all files together.
//! Only the first bad pages are listed with their position; the rest are counted.

use std::collections::HashMap;
use std::time::Duration;

use holdfast_pgtypes::Lsn;
use holdfast_repo::record::{ChecksumFailure, ChecksumFailures, MAX_LISTED_CHECKSUM_FAILURES};
use parking_lot::Mutex;

/// A page with a wrong checksum is read again after these waits before it counts as bad: PostgreSQL writes 8 KiB pages
/// while we read, and a reader may see half of a write.
const READ_AGAIN_AFTER: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(10), Duration::from_millis(100)];

/// After this many bad pages in a file, the cause is the disk and not a write: each further page is read again once,
/// without a wait. A page that is still half written has an LSN from the time of the backup, and does not count
/// (`BadPages::settle`).
const WAITED_FOR: u32 = 8;

/// The same for all files together. A disk that loses a page in each of 100,000 small files would otherwise make the
/// backup wait for hours. A wait of 111 ms for each of these pages is less than two minutes.
const WAITED_FOR_IN_ALL: u32 = 1000;

/// Pages with an LSN after the start of the backup are judged at its end. Few of them are half-written pages. If there
/// are more than this number (about 10 MB), the others are damaged and count at once.
const MAX_UNDECIDED: usize = 100_000;

/// A page with a wrong checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadPage {
    /// Index into the list of files.
    pub file: usize,
    /// The block number within the relation.
    pub block: u32,
    /// The checksum of the page's content.
    pub expected: u16,
    /// The checksum in the page's header.
    pub found: u16,
    /// The page's own LSN. A page that is newer than the start of the backup is bad only if this LSN is later than the
    /// backup's end.
    pub lsn: Lsn,
}

/// Counts the bad pages of each file, and of all files, while they are read.
#[derive(Debug, Default)]
pub(super) struct Patience {
    bad: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    of_file: HashMap<usize, u32>,
    in_all: u32,
}

impl Patience {
    /// The waits before each further read of a page of this file.
    pub(super) fn waits(&self, file: usize) -> &'static [Duration] {
        let bad = self.bad.lock();
        let of_file = bad.of_file.get(&file).copied().unwrap_or(0);
        if of_file < WAITED_FOR && bad.in_all < WAITED_FOR_IN_ALL {
            &READ_AGAIN_AFTER
        } else {
            READ_AGAIN_AFTER.first_chunk::<1>().map_or(&[], |one| one)
        }
    }

    /// Counts another bad page of this file.
    pub(super) fn note_bad(&self, file: usize) {
        let mut bad = self.bad.lock();
        bad.in_all = bad.in_all.saturating_add(1);
        // Beyond that, no file gets a wait any more.
        if bad.in_all < WAITED_FOR_IN_ALL {
            *bad.of_file.entry(file).or_default() += 1;
        }
    }
}

/// The bad pages of a backup.
#[derive(Debug)]
pub(super) struct BadPages {
    start_lsn: Lsn,
    count: u64,
    listed: Vec<(Box<[u8]>, BadPage)>,
    undecided: Vec<(Box<[u8]>, BadPage)>,
}

impl BadPages {
    /// No pages yet, for a backup that starts at this LSN.
    pub(super) fn new(start_lsn: Lsn) -> Self {
        Self { start_lsn, count: 0, listed: Vec::new(), undecided: Vec::new() }
    }

    /// Adds a page of the file at `path`.
    pub(super) fn add(&mut self, path: &[u8], page: BadPage) {
        if page.lsn >= self.start_lsn && self.undecided.len() < MAX_UNDECIDED {
            self.undecided.push((path.into(), page));
            return;
        }
        self.count += 1;
        if self.listed.len() < MAX_LISTED_CHECKSUM_FAILURES {
            self.listed.push((path.into(), page));
        }
    }

    /// Adds the bad pages of another part of the same backup.
    pub(super) fn merge(&mut self, more: Self) {
        self.count += more.count;
        self.listed.extend(more.listed);
        self.listed.truncate(MAX_LISTED_CHECKSUM_FAILURES);
        for (path, page) in more.undecided {
            self.add(&path, page);
        }
    }

    /// The pages that count, now that the end of the backup is known. A page that was changed between start and stop
    /// does not count: WAL replay writes it again from a full-page image.
    pub(super) fn settle(&self, stop_lsn: Lsn) -> ChecksumFailures {
        let late: Vec<&(Box<[u8]>, BadPage)> = self.undecided.iter().filter(|(_, page)| page.lsn > stop_lsn).collect();
        let listed = self.listed.iter().chain(late.iter().copied()).take(MAX_LISTED_CHECKSUM_FAILURES);
        ChecksumFailures {
            count: self.count + late.len() as u64,
            listed: listed
                .map(|(path, page)| ChecksumFailure {
                    path: String::from_utf8_lossy(path).into_owned(),
                    block: page.block,
                    expected: page.expected,
                    found: page.found,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(block: u32, lsn: u64) -> BadPage {
        BadPage { file: 0, block, expected: 1, found: 2, lsn: Lsn::new(lsn) }
    }

    #[test]
    fn a_file_gets_only_a_few_waits() {
        let patience = Patience::default();
        let all = READ_AGAIN_AFTER.len();
        for _ in 0..WAITED_FOR {
            assert_eq!(patience.waits(7).len(), all);
            patience.note_bad(7);
        }
        assert_eq!(patience.waits(7), [Duration::ZERO]);
        assert_eq!(patience.waits(8).len(), all, "another file");
    }

    /// 100,000 small relations with one bad page each.
    #[test]
    fn all_files_together_get_a_limited_number_of_waits() {
        let patience = Patience::default();
        let mut waited = Duration::ZERO;
        for file in 0..100_000 {
            waited += patience.waits(file).iter().sum::<Duration>();
            patience.note_bad(file);
        }
        assert!(waited < Duration::from_mins(2), "{waited:?}");
        assert!(patience.bad.lock().of_file.len() <= WAITED_FOR_IN_ALL as usize);
    }

    #[test]
    fn all_are_counted_and_few_are_kept() {
        let mut bad = BadPages::new(Lsn::new(1000));
        for block in 0..1_000_000 {
            bad.add(b"base/5/1259", page(block, 10));
        }
        // One page written during the backup, and one from the future.
        bad.add(b"base/5/1260", page(1, 1500));
        bad.add(b"base/5/1260", page(2, 9999));
        let failures = bad.settle(Lsn::new(2000));
        assert_eq!((failures.count, failures.listed.len()), (1_000_001, MAX_LISTED_CHECKSUM_FAILURES));
        assert!(bad.listed.capacity() <= 2 * MAX_LISTED_CHECKSUM_FAILURES);
    }

    #[test]
    fn the_number_of_undecided_pages_is_bounded() {
        let mut bad = BadPages::new(Lsn::new(1000));
        for block in 0..(MAX_UNDECIDED as u32 + 50) {
            bad.add(b"base/5/1259", page(block, u64::MAX));
        }
        assert_eq!(bad.undecided.len(), MAX_UNDECIDED);
        assert_eq!(bad.settle(Lsn::new(2000)).count, MAX_UNDECIDED as u64 + 50);
    }
}
