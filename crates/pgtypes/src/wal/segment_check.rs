//! Whether a file is the WAL segment that its name says, of this cluster.
//!
//! Checked before a segment is archived and after one is fetched. The header of the first page names the major (by its
//! magic), the cluster, the segment size and the LSN, and each is compared with what is expected. The error is the
//! first difference, with both values. The order puts first those differences that explain others: a file that is not
//! WAL at all, another major, another cluster.

use crate::lsn::Lsn;
use crate::segment::{SegmentName, WalSegmentSize};
use crate::system_identifier::SystemIdentifier;
use crate::timeline::TimelineId;
use crate::version::{PgVersion, UnsupportedVersion};
use crate::wal::page::{LONG_HEADER_SIZE, WalPageHeader};

/// Number of bytes from the beginning of a segment that the check needs.
pub const NEEDED_BYTES: usize = LONG_HEADER_SIZE;

/// The segment a file should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedSegment {
    /// The expected cluster.
    pub system_identifier: SystemIdentifier,
    /// The cluster's major.
    pub version: PgVersion,
    /// The segment's name.
    pub name: SegmentName,
    /// The cluster's segment size.
    pub size: WalSegmentSize,
}

/// How a file differs from the segment it should be.
#[expect(missing_docs, reason = "the texts of the errors say what the fields are")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentMismatch {
    /// The file is shorter than a header.
    #[error("WAL segment {name} has {found} bytes, its header alone has {NEEDED_BYTES}")]
    TooShort {
        name: SegmentName,
        /// Number of bytes found.
        found: usize,
    },
    /// The file does not begin like a WAL page of any supported major.
    #[error("WAL segment {name} begins with {found:04X}, PostgreSQL {expected} writes {:04X}", expected.wal_page_magic())]
    NotWal {
        name: SegmentName,
        expected: PgVersion,
        /// The magic in the file.
        found: u16,
    },
    /// The file is from a PostgreSQL that is not supported.
    #[error("WAL segment {name}: {found}")]
    Unsupported {
        name: SegmentName,
        /// What its magic says.
        found: UnsupportedVersion,
    },
    /// The file is from another major.
    #[error("WAL segment {name} is of PostgreSQL {found}, but the cluster is of PostgreSQL {expected}")]
    Version { name: SegmentName, expected: PgVersion, found: PgVersion },
    /// The first page has the header of another page, or unknown flags.
    #[error("WAL segment {name} does not begin with the header of a segment's first page (flags {info:04X})")]
    NotFirstPage { name: SegmentName, info: u16 },
    /// The file is from another cluster.
    #[error("WAL segment {name} is of the cluster with system identifier {found}, not {expected}")]
    Cluster { name: SegmentName, expected: SystemIdentifier, found: SystemIdentifier },
    /// The file is from a cluster with another segment size.
    #[error("WAL segment {name} says segments have {found} bytes, the cluster's have {}", expected.bytes())]
    Size {
        name: SegmentName,
        /// The cluster's segment size.
        expected: WalSegmentSize,
        /// The size in the file.
        found: u32,
    },
    /// A cluster with this segment size cannot have this name.
    #[error("no cluster with WAL segments of {} bytes has a segment {name}", size.bytes())]
    Name {
        name: SegmentName,
        /// The cluster's segment size.
        size: WalSegmentSize,
    },
    /// The file contains another part of the WAL: it was renamed, or recycled and not yet written.
    #[error("WAL segment {name} begins at {found}, but should begin at {expected}")]
    Position {
        name: SegmentName,
        /// The LSN at which the segment of this name begins.
        expected: Lsn,
        /// The LSN in the file.
        found: Lsn,
    },
    /// The file is from a later timeline than the name's. An earlier one is normal: the first segment of a timeline
    /// begins with a copy of its parent's.
    #[error("WAL segment {name} is of timeline {found}, which is later than the timeline in its name, {expected}")]
    Timeline {
        name: SegmentName,
        expected: TimelineId,
        /// The timeline in the file.
        found: u32,
    },
}

/// Compares the first bytes of a file with the segment it should be.
///
/// # Errors
/// The first difference, in this order: [`SegmentMismatch::Name`], [`SegmentMismatch::TooShort`],
/// [`SegmentMismatch::Version`], [`SegmentMismatch::Unsupported`] or [`SegmentMismatch::NotWal`],
/// [`SegmentMismatch::NotFirstPage`], [`SegmentMismatch::Cluster`], [`SegmentMismatch::Size`],
/// [`SegmentMismatch::Position`], [`SegmentMismatch::Timeline`].
pub fn check_segment_header(bytes: &[u8], expected: &ExpectedSegment) -> Result<(), SegmentMismatch> {
    let ExpectedSegment { system_identifier, version, name, size } = *expected;
    if !name.is_valid_for(size) {
        return Err(SegmentMismatch::Name { name, size });
    }
    let too_short = SegmentMismatch::TooShort { name, found: bytes.len() };
    let header = WalPageHeader::parse(bytes).ok_or_else(|| too_short.clone())?;
    if bytes.len() < NEEDED_BYTES {
        return Err(too_short);
    }
    if header.magic != version.wal_page_magic() {
        return Err(match PgVersion::from_wal_page_magic(header.magic) {
            Some(found) => SegmentMismatch::Version { name, expected: version, found },
            None => match PgVersion::unsupported_wal_page_magic(header.magic) {
                Some(found) => SegmentMismatch::Unsupported { name, found },
                None => SegmentMismatch::NotWal { name, expected: version, found: header.magic },
            },
        });
    }
    let Some(long) = header.long.filter(|_| header.has_known_flags()) else {
        return Err(SegmentMismatch::NotFirstPage { name, info: header.info });
    };
    if long.system_identifier != system_identifier {
        let found = long.system_identifier;
        return Err(SegmentMismatch::Cluster { name, expected: system_identifier, found });
    }
    if long.segment_size != size.bytes() {
        return Err(SegmentMismatch::Size { name, expected: size, found: long.segment_size });
    }
    if header.page_lsn != name.start_lsn(size) {
        let expected = name.start_lsn(size);
        return Err(SegmentMismatch::Position { name, expected, found: header.page_lsn });
    }
    if header.timeline == 0 || header.timeline > name.timeline().get() {
        let expected = name.timeline();
        return Err(SegmentMismatch::Timeline { name, expected, found: header.timeline });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use proptest::prelude::*;

    fn expected() -> ExpectedSegment {
        ExpectedSegment {
            system_identifier: SystemIdentifier::new(7_710_912_426_042_727_162),
            version: PgVersion::V15,
            name: "000000020000000A000000FF".parse().unwrap(),
            size: WalSegmentSize::DEFAULT,
        }
    }

    fn header() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(0xD110_u16.to_le_bytes());
        bytes.extend(2_u16.to_le_bytes());
        bytes.extend(2_u32.to_le_bytes());
        bytes.extend(0xA_FF00_0000_u64.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(7_710_912_426_042_727_162_u64.to_le_bytes());
        bytes.extend((16_u32 << 20).to_le_bytes());
        bytes.extend(8192_u32.to_le_bytes());
        bytes
    }

    /// The valid header with some bytes replaced.
    fn with(offset: usize, replacement: &[u8]) -> Vec<u8> {
        let mut bytes = header();
        bytes.splice(offset..offset + replacement.len(), replacement.iter().copied());
        bytes
    }

    #[test]
    fn accepts_its_own_segment_and_a_copied_beginning() {
        assert_eq!(check_segment_header(&header(), &expected()), Ok(()));
        assert_eq!(check_segment_header(&with(4, &1_u32.to_le_bytes()), &expected()), Ok(()));
    }

    #[test]
    fn names_both_sides_of_each_difference() {
        let check = |bytes: &[u8]| check_segment_header(bytes, &expected()).unwrap_err().to_string();
        for (bytes, message) in [
            (Vec::new(), "WAL segment 000000020000000A000000FF has 0 bytes, its header alone has 40"),
            (vec![0; 40], "WAL segment 000000020000000A000000FF begins with 0000, PostgreSQL 15 writes D110"),
            (
                with(0, &0xD10D_u16.to_le_bytes()),
                "WAL segment 000000020000000A000000FF is of PostgreSQL 14, but the cluster is of PostgreSQL 15",
            ),
            (
                with(0, &0xD130_u16.to_le_bytes()),
                "WAL segment 000000020000000A000000FF: PostgreSQL with D130 at the beginning of its WAL pages is not \
                 supported: 13 to 19 are",
            ),
            (
                with(2, &[0]),
                "WAL segment 000000020000000A000000FF does not begin with the header of a segment's first page \
                 (flags 0000)",
            ),
            (
                with(24, &5_u64.to_le_bytes()),
                "WAL segment 000000020000000A000000FF is of the cluster with system identifier 5, \
                 not 7710912426042727162",
            ),
            (
                with(32, &(1_u32 << 20).to_le_bytes()),
                "WAL segment 000000020000000A000000FF says segments have 1048576 bytes, the cluster's have 16777216",
            ),
            (
                with(8, &0xA_FE00_0000_u64.to_le_bytes()),
                "WAL segment 000000020000000A000000FF begins at A/FE000000, but should begin at A/FF000000",
            ),
            (
                with(4, &3_u32.to_le_bytes()),
                "WAL segment 000000020000000A000000FF is of timeline 3, which is later than the timeline in its name, 2",
            ),
        ] {
            assert_eq!(check(&bytes), message);
        }
        let name = "000000020000000A00000100".parse().unwrap();
        assert_eq!(
            check_segment_header(&header(), &ExpectedSegment { name, ..expected() }).unwrap_err().to_string(),
            "no cluster with WAL segments of 16777216 bytes has a segment 000000020000000A00000100"
        );
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = check_segment_header(&bytes, &expected());
        }
    }
}
