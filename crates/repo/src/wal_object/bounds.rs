//! The size of a WAL object and of its file that a reader accepts before it has read a byte of either.

use holdfast_pgtypes::WalSegmentSize;

use crate::format_error::Fault;

/// The most raw bytes of a facts frame. Ordinary ones have some hundred bytes, and two pieces of records of 2 KiB each;
/// the rest is for some thousand restore points in one segment.
pub const FACTS_BYTES: u32 = 1 << 20;

/// The most bytes of a file that is not a segment: a timeline history, which has a line for each timeline.
const TEXT_BYTES: u64 = 16 << 20;

/// The largest size that a file can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    file_bytes: u64,
}

impl Bounds {
    /// The largest file: a segment has at most 1 GiB (`WalSegMaxSize` in xlog_internal.h).
    pub const LARGEST: Self = Self { file_bytes: 1 << 30 };

    /// Timeline histories and backup histories.
    pub const TEXT: Self = Self { file_bytes: TEXT_BYTES };

    /// Any file of an archive whose segments have this size.
    pub fn of_archive(segments: WalSegmentSize) -> Self {
        Self { file_bytes: segments.as_u64().max(TEXT_BYTES) }
    }

    /// The largest size of the object: an eighth more than the file, for headers, incompressible content and the facts.
    pub fn object_bytes(self) -> u64 {
        self.file_bytes + self.file_bytes / 8 + 2 * u64::from(FACTS_BYTES)
    }

    /// Refuses a larger file.
    pub(super) fn check_file(self, bytes: u64) -> Result<(), Fault> {
        if bytes <= self.file_bytes {
            return Ok(());
        }
        Err(Fault::TooLong { what: "WAL file", bytes, limit: self.file_bytes })
    }
}
