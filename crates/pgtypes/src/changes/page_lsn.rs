//! Which pages changed since an LSN, by the LSNs in the pages: for servers without WAL summaries.
//!
//! Every page is read, so this saves only what comes after reading: hashing, compressing, sending, storing. A caller
//! that has a checksum of the parent's content can do the same by comparing; this module is for patches of single
//! pages.
//!
//! `pd_lsn` is the end of the last record that changed the page. A page whose LSN is at or after the parent's **start**
//! LSN is changed. So is every page whose LSN cannot be trusted: a page of zeros, which may have had content before a
//! truncation; a page without an LSN, which was never logged; a page that is torn, or that fails its checksum or the
//! check of its header. Only other pages are [`PageChange::Unchanged`].
//!
//! [`Segment::of`] finds the files without useful LSNs, for the same reasons as with WAL summaries: not a relation,
//! free space map, visibility map (clearing a bit sets no LSN: `visibilitymap_clear`), temporary relation, not in the
//! parent, odd size.
//!
//! # `PD_ALL_VISIBLE` is not a hint
//! Lost hint bits do no harm ([`crate::changes`]). But `PD_ALL_VISIBLE` of a heap page must be set if the page's bit in
//! the visibility map is: a change of a row clears the bit in the map only if the page has the flag. VACUUM sets both,
//! with one record. In a cluster with neither page checksums nor `wal_log_hints`, the record has no image of the heap
//! page, and therefore the heap page's LSN must stay the old one (`visibilitymap_set`: "we must *not* update the heap
//! page's LSN"). So the page changed, and its LSN does not say so. A backup that takes the parent's page, without the
//! flag, beside the new map, with the bit, makes index-only scans return wrong results when a row of the page is
//! deleted. In such a cluster a page with an old LSN is therefore [`PageChange::Unknown`]: the caller compares its
//! content with the parent's. WAL summaries do not have this fault, because the record names the heap page.
//!
//! `wal_log_hints = on` or page checksums must be true for the **whole time** since the parent's start. A setting that
//! was changed in between is in the parent's control file (`wal_log_hints`), or there is a record of the change in the
//! WAL.
//!
//! # What page LSNs do not see
//!
//! A database that was dropped and created again with the same OID (`CREATE DATABASE ... OID`) by a copy of files has
//! pages of its template, with the template's old LSNs, in files that may have the parent's names and sizes. The caller
//! can recognise this by the new directory, or by the modification time of its `PG_VERSION`, which is written once. It
//! must then pass `parent_size: None`. Other files with the number of an earlier one have only new LSNs.

use crate::changes::decision::{DataFile, Segment, WholeReason};
use crate::checksum::PAGE_SIZE;
use crate::lsn::Lsn;
use crate::page::{Checksums, PageCheck, PageHeader, check_page};
use crate::version::PgVersion;

/// How to read a file by page LSNs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageLsnFile {
    /// Everything: the LSNs of its pages, if there are any, are not useful.
    Whole(WholeReason),
    /// [`page_change`] decides for each page.
    Pages {
        /// The number of the file's first block in its relation, for the page checksums.
        first_block: u32,
        /// The length of the file in blocks.
        length: u32,
        /// Blocks from this one on are not in the parent, whatever their LSN is.
        parent_length: u32,
    },
}

/// How to read a file. `segment_pages` is `relation_segment_pages` of the control file.
pub fn by_page_lsn(file: DataFile<'_>, version: PgVersion, segment_pages: u32) -> PageLsnFile {
    match Segment::of(file, version, segment_pages) {
        Ok(Segment { first_block, length, parent_length, .. }) => {
            PageLsnFile::Pages { first_block, length, parent_length: length.min(parent_length) }
        }
        Err(reason) => PageLsnFile::Whole(reason),
    }
}

/// Whether the cluster logs changes of hint bits, as `XLogHintBitIsNeeded`: it has page checksums, or `wal_log_hints`
/// is on. This must have been so since the parent's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintBits {
    /// The first hint bit after a checkpoint sets the page's LSN.
    Logged,
    /// A page may change and keep its LSN.
    NotLogged,
}

/// Whether a page changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageChange {
    /// Read it from the disk.
    Changed(ChangedPage),
    /// The parent's page can be used, even if hint bits differ.
    Unchanged,
    /// No record says that it changed, but it may have: compare it with the parent's.
    Unknown,
}

/// Why a page counts as changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangedPage {
    /// A record changed it.
    Lsn,
    /// It is all zeros.
    Zero,
    /// It has no LSN.
    NoLsn,
    /// PostgreSQL would not read it: it is torn, being written, or damaged.
    Invalid,
}

/// Whether a page changed at or after `since`, the parent's start LSN. `block_number` is the page's number in its
/// relation.
pub fn page_change(
    page: &[u8; PAGE_SIZE],
    block_number: u32,
    since: Lsn,
    checksums: Checksums,
    hint_bits: HintBits,
) -> PageChange {
    // The LSN is checked first: it decides for most changed pages and costs nothing.
    let Some(PageHeader { lsn, .. }) = PageHeader::parse(page) else {
        return PageChange::Changed(ChangedPage::Invalid);
    };
    if lsn >= since {
        return PageChange::Changed(ChangedPage::Lsn);
    }
    match check_page(page, block_number, checksums) {
        PageCheck::New => PageChange::Changed(ChangedPage::Zero),
        PageCheck::BadChecksum { .. } | PageCheck::BadHeader | PageCheck::NewButNotZero => {
            PageChange::Changed(ChangedPage::Invalid)
        }
        PageCheck::Valid if !lsn.is_valid() => PageChange::Changed(ChangedPage::NoLsn),
        PageCheck::Valid => match hint_bits {
            HintBits::Logged => PageChange::Unchanged,
            HintBits::NotLogged => PageChange::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::checksum::page_checksum;
    use proptest::prelude::*;

    const LSN: Lsn = Lsn::new(0x1_0000_2000);

    /// An empty, valid page with this LSN.
    fn page(lsn: Lsn, block_number: u32) -> [u8; PAGE_SIZE] {
        let mut page = [0; PAGE_SIZE];
        let mut put = |at: usize, bytes: &[u8]| page.get_mut(at..at + bytes.len()).unwrap().copy_from_slice(bytes);
        put(0, &((lsn.as_u64() >> 32) as u32).to_le_bytes());
        put(4, &(lsn.as_u64() as u32).to_le_bytes());
        put(12, &24u16.to_le_bytes());
        put(14, &8192u16.to_le_bytes());
        put(16, &8192u16.to_le_bytes());
        put(18, &0x2004u16.to_le_bytes());
        let checksum = page_checksum(&page, block_number);
        page.get_mut(8..10).unwrap().copy_from_slice(&checksum.to_le_bytes());
        page
    }

    fn with(mut page: [u8; PAGE_SIZE], at: usize, byte: u8) -> [u8; PAGE_SIZE] {
        *page.get_mut(at).unwrap() = byte;
        page
    }

    #[test]
    fn tables_of_pages() {
        use PageChange::{Changed, Unchanged, Unknown};
        let old = page(LSN, 7);
        let logged = |page: &_, since: u64| page_change(page, 7, Lsn::new(since), Checksums::On, HintBits::Logged);
        let start = LSN.as_u64();
        assert_eq!(logged(&old, start + 1), Unchanged);
        assert_eq!(logged(&old, start), Changed(ChangedPage::Lsn), "the start itself counts");
        assert_eq!(logged(&old, start - 1), Changed(ChangedPage::Lsn));
        assert_eq!(logged(&[0; PAGE_SIZE], start), Changed(ChangedPage::Zero));
        assert_eq!(logged(&with([0; PAGE_SIZE], 8000, 1), start), Changed(ChangedPage::Invalid), "new, not zero");
        assert_eq!(logged(&page(Lsn::INVALID, 7), start), Changed(ChangedPage::NoLsn));
        assert_eq!(logged(&with(old, 5000, 1), start + 1), Changed(ChangedPage::Invalid), "torn");
        assert_eq!(
            page_change(&old, 8, Lsn::new(start + 1), Checksums::On, HintBits::Logged),
            Changed(ChangedPage::Invalid),
            "another block's page"
        );
        // Without checksums only the header can be checked, and hints may have been written.
        let unlogged = |page: &_| page_change(page, 7, Lsn::new(start + 1), Checksums::Off, HintBits::NotLogged);
        assert_eq!(unlogged(&old), Unknown);
        assert_eq!(unlogged(&with(old, 5000, 1)), Unknown);
        assert_eq!(unlogged(&with(old, 13, 0x7F)), Changed(ChangedPage::Invalid));
        // wal_log_hints = on
        let hints = page_change(&old, 7, Lsn::new(start + 1), Checksums::Off, HintBits::Logged);
        assert_eq!(hints, Unchanged);
    }

    #[test]
    fn tables_of_files() {
        let method = |path: &str, size, parent_size| {
            by_page_lsn(DataFile { path: path.as_bytes(), size, parent_size }, PgVersion::V13, 131_072)
        };
        assert_eq!(
            method("base/5/100.2", 3 * 8192, Some(2 * 8192)),
            PageLsnFile::Pages { first_block: 262_144, length: 3, parent_length: 2 }
        );
        assert_eq!(
            method("base/5/100_init", 8192, Some(2 * 8192)),
            PageLsnFile::Pages { first_block: 0, length: 1, parent_length: 1 }
        );
        for (path, size, parent_size, reason) in [
            ("base/5/100_fsm", 8192, Some(8192), WholeReason::FreeSpaceMap),
            ("base/5/100_vm", 8192, Some(8192), WholeReason::VisibilityMap),
            ("base/5/t1_100", 8192, Some(8192), WholeReason::TemporaryRelation),
            ("base/5/PG_VERSION", 3, Some(3), WholeReason::NotARelation),
            ("base/5/100", 8192, None, WholeReason::NotInParent),
            ("base/5/100", 8193, Some(8192), WholeReason::OddSize),
        ] {
            assert_eq!(method(path, size, parent_size), PageLsnFile::Whole(reason), "{path}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_lsn_decides_for_valid_pages(lsn in 1u64.., since: u64, block: u32) {
            let change = page_change(&page(Lsn::new(lsn), block), block, Lsn::new(since), Checksums::On, HintBits::Logged);
            prop_assert_eq!(change == PageChange::Unchanged, lsn < since);
        }
    }
}
