//! [`TailRange`]: the bytes of a segment that one piece of a WAL tail has, in the form of the piece's name.

use std::fmt;
use std::str::FromStr;

use super::NameError;

/// Bytes of a segment, from `start` up to but not including `end`; never empty. Written `00000000-00040000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TailRange {
    start: u32,
    end: u32,
}

impl TailRange {
    /// The range, unless it is empty or ends after the largest segment (1 GiB).
    pub const fn new(start: u32, end: u32) -> Option<Self> {
        if start < end && end <= 1 << 30 { Some(Self { start, end }) } else { None }
    }

    /// The first byte, counted from the segment's beginning.
    pub fn start(self) -> u32 {
        self.start
    }

    /// The first byte after the range.
    pub fn end(self) -> u32 {
        self.end
    }

    /// The number of bytes.
    pub fn length(self) -> u32 {
        self.end - self.start
    }
}

impl fmt::Display for TailRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}-{:08X}", self.start, self.end)
    }
}

impl FromStr for TailRange {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let number = |digits: &str| u32::from_str_radix(digits, 16).ok();
        text.split_once('-')
            .and_then(|(start, end)| Self::new(number(start)?, number(end)?))
            .filter(|range| range.to_string() == text)
            .ok_or_else(|| {
                NameError::new("range of a WAL tail", text, "two numbers of 8 hexadecimal digits, ascending")
            })
    }
}
