//! Data pages: the header, and whether PostgreSQL would accept a page.
//!
//! `verify_page` decides as `PageIsVerified` of `bufpage.c`. A page whose `pd_upper` is 0 is new and must be all zeros.
//! Any other page must have its checksum and a valid header. A page of a running server may be read while the server
//! writes it. Such a page has an LSN at or after the start of the backup, and replay replaces it. The caller must judge
//! that, because it knows the start LSN; the page's LSN is in its header.

use crate::bytes::{u16_at, u32_at};
use crate::checksum::{PAGE_SIZE, page_checksum};
use crate::lsn::Lsn;

/// Flags a page may have, `PD_VALID_FLAG_BITS`.
const VALID_FLAGS: u16 = 0x0007;

/// The header of a data page, as `PageHeaderData`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// The end of the last WAL record that changed the page, `pd_lsn`.
    pub lsn: Lsn,
    /// `pd_checksum`
    pub checksum: u16,
    /// `pd_flags`
    pub flags: u16,
    /// Where free space begins, `pd_lower`.
    pub lower: u16,
    /// Where free space ends, `pd_upper`; 0 in a page that was never used.
    pub upper: u16,
    /// Where the access method's own space begins, `pd_special`.
    pub special: u16,
    /// Size of the page in bytes, the upper part of `pd_pagesize_version`.
    pub size: u16,
    /// Version of the page's layout, the lower part of `pd_pagesize_version`; 4 since PostgreSQL 8.3.
    pub layout_version: u8,
}

impl PageHeader {
    /// Reads the header of a page; `None` if there are fewer than 20 bytes.
    pub fn parse(page: &[u8]) -> Option<Self> {
        let size_and_version = u16_at(page, 18)?;
        Some(Self {
            // An LSN in a page is two 32-bit numbers, the upper one first.
            lsn: Lsn::new(u64::from(u32_at(page, 0)?) << 32 | u64::from(u32_at(page, 4)?)),
            checksum: u16_at(page, 8)?,
            flags: u16_at(page, 10)?,
            lower: u16_at(page, 12)?,
            upper: u16_at(page, 14)?,
            special: u16_at(page, 16)?,
            size: size_and_version & 0xFF00,
            layout_version: (size_and_version & 0x00FF) as u8,
        })
    }

    /// Whether the page was never used, as `PageIsNew`.
    pub const fn is_new(&self) -> bool {
        self.upper == 0
    }

    /// Whether the offsets and flags are valid, as `PageIsVerified` requires.
    pub fn is_sane(&self) -> bool {
        self.flags & !VALID_FLAGS == 0
            && self.lower <= self.upper
            && self.upper <= self.special
            && usize::from(self.special) <= PAGE_SIZE
            && self.special.is_multiple_of(8)
    }
}

/// The result of a page's check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageCheck {
    /// All zeros: allocated and never written.
    New,
    /// It is as PostgreSQL wrote it.
    Valid,
    /// The contents do not match the checksum in the page.
    BadChecksum {
        /// Checksum computed from the contents.
        expected: u16,
        /// `pd_checksum`, as it was read.
        found: u16,
    },
    /// The checksum is right, or is not checked, but the header is invalid.
    BadHeader,
    /// The header marks the page as never used, but the page is not all zeros.
    NewButNotZero,
}

impl PageCheck {
    /// Whether PostgreSQL would read the page.
    pub const fn is_good(self) -> bool {
        matches!(self, Self::New | Self::Valid)
    }
}

/// Whether a cluster's pages have checksums, from its control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// `data_checksum_version` is not 0.
    On,
    /// `data_checksum_version` is 0: the checksum field has no meaning.
    Off,
}

/// Checks a page of a cluster with checksums. `block_number` is the page's number in its relation.
pub fn verify_page(page: &[u8; PAGE_SIZE], block_number: u32) -> PageCheck {
    check_page(page, block_number, Checksums::On)
}

/// Checks a page, with or without its checksum.
pub fn check_page(page: &[u8; PAGE_SIZE], block_number: u32, checksums: Checksums) -> PageCheck {
    let Some(header) = PageHeader::parse(page) else {
        return PageCheck::BadHeader;
    };
    if header.is_new() {
        return if is_all_zero(page) { PageCheck::New } else { PageCheck::NewButNotZero };
    }
    if checksums == Checksums::On {
        let expected = page_checksum(page, block_number);
        if expected != header.checksum {
            return PageCheck::BadChecksum { expected, found: header.checksum };
        }
    }
    if header.is_sane() { PageCheck::Valid } else { PageCheck::BadHeader }
}

/// Whether all bytes are zero. It compares in blocks, so that the compiler can use vector instructions.
pub fn is_all_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    blocks.iter().all(|block| block.iter().fold(0, |or, byte| or | byte) == 0) && rest.iter().all(|byte| *byte == 0)
}
