//! Memory for bodies and parts of a few MiB, returned to the system as soon as it is freed.
//!
//! The allocator of the C library would keep it. Its threshold for returning a block at once (`M_MMAP_THRESHOLD`)
//! follows the largest block that was ever freed. After the first body of 8 MiB, all blocks of that size and the
//! smaller ones between them stay with the process, separately for each thread. The process then uses more than twice
//! its byte budget.

use std::io;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use memmap2::MmapMut;

/// Below this size the allocator is cheaper: a mapping costs two system calls and a fault for each page.
const MAPPED_FROM_BYTES: usize = 256 * 1024;

/// Zeroed bytes of a fixed length. Large ones take physical memory only for the pages that are written.
#[derive(Debug)]
pub struct Buffer(Memory);

#[derive(Debug)]
enum Memory {
    Small(Vec<u8>),
    Large(MmapMut),
}

impl Buffer {
    /// `length` zero bytes.
    ///
    /// # Errors
    /// The error of the system if it has no memory for a buffer of 256 KiB or more. For a smaller one the allocator
    /// ends the process.
    pub fn zeroed(length: usize) -> io::Result<Self> {
        Ok(Self(if length < MAPPED_FROM_BYTES {
            Memory::Small(vec![0; length])
        } else {
            Memory::Large(MmapMut::map_anon(length)?)
        }))
    }

    /// The first `length` bytes, without a copy.
    ///
    /// # Panics
    /// If the buffer is shorter.
    pub fn freeze(self, length: usize) -> Bytes {
        let bytes = match self.0 {
            Memory::Small(bytes) => Bytes::from(bytes),
            Memory::Large(mapping) => Bytes::from_owner(mapping),
        };
        bytes.slice(..length)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Small(bytes) => bytes,
            Memory::Large(mapping) => mapping,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Small(bytes) => bytes,
            Memory::Large(mapping) => mapping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_ones_hold_what_is_written() {
        for length in [0, 1, MAPPED_FROM_BYTES - 1, MAPPED_FROM_BYTES, MAPPED_FROM_BYTES + 1] {
            let mut buffer = Buffer::zeroed(length).expect("memory");
            assert_eq!(buffer.len(), length);
            assert!(buffer.iter().all(|byte| *byte == 0));
            buffer.fill(7);
            assert_eq!(buffer.freeze(length / 2), vec![7; length / 2]);
        }
    }
}
