//! The memory of one upload part, which returns to the system once the store has the part.

use bytes::Bytes;
use holdfast_store::Buffer;

use crate::error::{Cause, Error};

/// A part that is being filled. Only the filled bytes take memory.
#[derive(Debug, Default)]
pub(crate) struct PartBuffer {
    memory: Option<Buffer>,
    length: usize,
}

impl PartBuffer {
    /// Number of filled bytes.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Adds as many bytes as fit into a part of `part_size`, and returns the rest.
    pub(crate) fn fill<'b>(&mut self, bytes: &'b [u8], part_size: usize) -> Result<&'b [u8], Error> {
        let memory = match &mut self.memory {
            Some(memory) => memory,
            empty => empty.insert(
                Buffer::zeroed(part_size).map_err(|e| Cause::Internal(format!("no memory for an upload part: {e}")))?,
            ),
        };
        let room = memory.get_mut(self.length..).unwrap_or_default();
        let (now, later) = bytes.split_at(bytes.len().min(room.len()));
        if let Some(place) = room.get_mut(..now.len()) {
            place.copy_from_slice(now);
        }
        self.length += now.len();
        Ok(later)
    }

    /// Takes the part out, without a copy.
    pub(crate) fn take(&mut self) -> Bytes {
        let Self { memory, length } = std::mem::take(self);
        memory.map_or_else(Bytes::new, |memory| memory.freeze(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_takes_what_fits_and_begins_again() {
        let mut buffer = PartBuffer::default();
        assert_eq!(buffer.take(), Bytes::new());
        assert_eq!(buffer.fill(b"abc", 5).expect("memory"), b"");
        assert_eq!(buffer.fill(b"defg", 5).expect("memory"), b"fg");
        assert_eq!((buffer.len(), buffer.fill(b"fg", 5).expect("memory")), (5, &b"fg"[..]));
        assert_eq!(buffer.take(), "abcde");
        assert_eq!((buffer.len(), buffer.fill(b"fg", 5).expect("memory")), (0, &b""[..]));
        assert_eq!(buffer.take(), "fg");
    }
}
