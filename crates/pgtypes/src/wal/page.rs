//! Headers of WAL pages, as `XLogPageHeaderData` and `XLogLongPageHeaderData` of `xlog_internal.h`.
//!
//! Every page begins with a short header; the first page of a segment has the long one, which adds the cluster and the
//! sizes. The layout is the same in 13 to 19, and one flag has moved (`PgVersion::wal_overwrite_flag`).

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::lsn::Lsn;
use crate::system_identifier::SystemIdentifier;
use crate::version::PgVersion;

/// Size of the short header in bytes, `SizeOfXLogShortPHD`.
pub const SHORT_HEADER_SIZE: usize = 24;
/// Size of the long header in bytes, `SizeOfXLogLongPHD`.
pub const LONG_HEADER_SIZE: usize = 40;

/// `XLP_FIRST_IS_CONTRECORD`
const FIRST_IS_CONTINUATION: u16 = 0x0001;
/// `XLP_LONG_HEADER`
const LONG_HEADER: u16 = 0x0002;

/// The header of a WAL page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalPageHeader {
    /// `xlp_magic`, which identifies the major.
    pub magic: u16,
    /// `xlp_info`
    pub info: u16,
    /// The timeline of the first record on the page, `xlp_tli`; 0 in no valid page.
    pub timeline: u32,
    /// The LSN of the page's first byte, `xlp_pageaddr`.
    pub page_lsn: Lsn,
    /// Bytes still to come of the record that began on a page before, `xlp_rem_len`.
    pub remaining: u32,
    /// The fields that only the long header has.
    pub long: Option<LongHeader>,
}

/// The part of the header only the first page of a segment has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongHeader {
    /// The identifier of the cluster.
    pub system_identifier: SystemIdentifier,
    /// The segment size in bytes as in the header, not checked.
    pub segment_size: u32,
    /// The size of a WAL page in bytes as in the header, not checked.
    pub block_size: u32,
}

impl WalPageHeader {
    /// Reads a header, the long one if the page's flags announce it; `None` if there are too few bytes.
    pub fn parse(page: &[u8]) -> Option<Self> {
        // The short header is a whole number of 8-byte words, its last 4 bytes are padding.
        page.get(..SHORT_HEADER_SIZE)?;
        let info = u16_at(page, 2)?;
        let long = if info & LONG_HEADER != 0 {
            Some(LongHeader {
                system_identifier: SystemIdentifier::new(u64_at(page, 24)?),
                segment_size: u32_at(page, 32)?,
                block_size: u32_at(page, 36)?,
            })
        } else {
            None
        };
        Some(Self {
            magic: u16_at(page, 0)?,
            info,
            timeline: u32_at(page, 4)?,
            page_lsn: Lsn::new(u64_at(page, 8)?),
            remaining: u32_at(page, 16)?,
            long,
        })
    }

    /// Size of this header in bytes: the page's contents begin after it.
    pub const fn size(&self) -> usize {
        if self.long.is_some() { LONG_HEADER_SIZE } else { SHORT_HEADER_SIZE }
    }

    /// Whether the page begins with the rest of a record.
    pub const fn is_continuation(&self) -> bool {
        self.info & FIRST_IS_CONTINUATION != 0
    }

    /// Whether the page replaces the rest of a record that was lost in a crash.
    pub fn is_overwrite(&self) -> bool {
        self.version().is_some_and(|version| self.info & version.wal_overwrite_flag() != 0)
    }

    /// Whether the page is of a supported major and has no flag that this major does not know.
    pub fn has_known_flags(&self) -> bool {
        self.version().is_some_and(|version| self.info & !version.wal_page_flags() == 0)
    }

    /// The major whose magic the page has.
    fn version(&self) -> Option<PgVersion> {
        PgVersion::from_wal_page_magic(self.magic)
    }
}
