//! `WalSummaryReader`: the content of one WAL summary file, as `BlockRefTableReader` of `blkreftable.c`.
//!
//! The file is a magic number, entries, an entry of 24 zero bytes, and the CRC-32C of everything before it. All numbers
//! are little-endian and 32 bits wide unless said otherwise. An entry is
//!
//! - tablespace OID, database OID, relation number and fork number;
//! - the limit block: the smallest length in blocks that the fork had in the range, or `0xFFFFFFFF` if it was never
//!   created, dropped or truncated;
//! - the number of chunks, each of 2^16 blocks; then one 16-bit length for each chunk, then the chunks.
//!
//! A chunk's length counts 16-bit words. Up to 4095 words are the offsets of blocks in the chunk, in the order in which
//! the WAL named them. Exactly 4096 words are a bitmap, lowest bit first. Entries are sorted by tablespace, database,
//! relation and fork.
//!
//! The CRC is at the end, so **nothing is verified until `next_fork` returns `None`**. A caller that merges while it
//! reads must discard its result after an error. Every value in a forged file is checked against a limit before it is
//! used: chunks by the 2^16 that block numbers can reach, lengths by 4096. The reader needs 136 KiB at most, however
//! long the file is, besides the buffer of the source.

use std::io::{self, Read};

use crate::bytes::{u16_at, u32_at};
use crate::relation::Fork;
use crate::wal_summary::block_set::{BLOCKS_PER_CHUNK, Chunk, INVALID_BLOCK};

/// `BLOCKREFTABLE_MAGIC`
const MAGIC: u32 = 0x652B_137B;

/// Size of a `BlockRefTableSerializedEntry` in bytes.
const ENTRY_SIZE: usize = 24;

/// The number of chunks that all block numbers need: 2^32 / 2^16.
const MAX_CHUNKS: u32 = 1 << 16;

/// The number of 16-bit words in a bitmap, and the length that marks one: `MAX_ENTRIES_PER_CHUNK`.
const BITMAP_WORDS: u16 = 4096;

/// A fork of a relation, or of all relations of a database (relation number 0). The order is that of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFork {
    /// The OID of the tablespace; never 0.
    pub tablespace: u32,
    /// The OID of the database; 0 for a relation that all databases share.
    pub database: u32,
    /// The relation's number; 0 for a whole database, which was created or dropped.
    pub number: u32,
    /// The fork of the relation.
    pub fork: Fork,
}

/// What a summary says about a fork, before its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkSummary {
    /// The relation's fork that the blocks belong to.
    pub fork: RelationFork,
    /// The smallest length in blocks that the fork had: 0 if it was created or dropped, `None` if it never got shorter.
    pub limit_block: Option<u32>,
}

/// What is wrong with a WAL summary file.
#[expect(missing_docs, reason = "the texts of the errors say what the fields are")]
#[derive(Debug, thiserror::Error)]
pub enum WalSummaryError {
    /// The file cannot be read.
    #[error("read the WAL summary")]
    Read(#[source] io::Error),
    /// The file ends within its content.
    #[error("WAL summary ends early, after {length} bytes")]
    Truncated {
        /// The length of the file in bytes.
        length: u64,
    },
    /// The file is not a WAL summary, or has another byte order.
    #[error("WAL summary has magic number {found:08X} instead of {MAGIC:08X}")]
    Magic {
        /// The first four bytes, as a number.
        found: u32,
    },
    /// An entry has a fork that PostgreSQL does not have.
    #[error("WAL summary names fork {found} of relation {tablespace}/{database}/{number}, which does not exist")]
    UnknownFork {
        /// The tablespace OID of the entry.
        tablespace: u32,
        /// The database OID of the entry.
        database: u32,
        /// The relation number of the entry.
        number: u32,
        found: u32,
    },
    /// An entry is not greater than the one before it.
    #[error("WAL summary has {entry:?} after {previous:?}, out of order")]
    OutOfOrder {
        /// The entry before it.
        previous: RelationFork,
        /// The entry that follows it in the file.
        entry: RelationFork,
    },
    /// An entry has more chunks than there are block numbers.
    #[error("WAL summary has {found} chunks for {fork:?}: at most {MAX_CHUNKS} are possible")]
    TooManyChunks {
        /// The fork whose entry it is.
        fork: RelationFork,
        /// The number of chunks in the entry.
        found: u32,
    },
    /// A chunk is longer than a bitmap.
    #[error("WAL summary has a chunk of {found} words for {fork:?}: at most {BITMAP_WORDS} are possible")]
    ChunkTooLong {
        /// The fork whose entry it is.
        fork: RelationFork,
        /// The length in the file.
        found: u16,
    },
    /// A chunk contains `InvalidBlockNumber`, which no block has.
    #[error("WAL summary names block {INVALID_BLOCK} of {fork:?}, which cannot exist")]
    InvalidBlock {
        /// The fork whose entry it is.
        fork: RelationFork,
    },
    /// The content does not match the CRC at its end.
    #[error("WAL summary has CRC {found:08X}, and its content has {computed:08X}")]
    Crc {
        /// The CRC in the file.
        found: u32,
        /// The CRC of the content.
        computed: u32,
    },
    /// There are bytes after the CRC.
    #[error("WAL summary has bytes after its CRC, at byte {length}")]
    TrailingBytes {
        /// The length that the file should have.
        length: u64,
    },
}

/// Reads one WAL summary file from its beginning to its end.
#[derive(Debug)]
pub struct WalSummaryReader<R> {
    source: R,
    length: u64,
    crc: u32,
    fork: Option<RelationFork>,
    /// The lengths of the fork's chunks, and how many of the chunks were read.
    chunk_lengths: Vec<u16>,
    chunks_read: usize,
    finished: bool,
}

impl<R: Read> WalSummaryReader<R> {
    /// Reads and checks the beginning of the file. The source should have a buffer: many reads are of a few bytes.
    ///
    /// # Errors
    /// [`WalSummaryError::Read`], [`WalSummaryError::Truncated`] or [`WalSummaryError::Magic`].
    pub fn new(source: R) -> Result<Self, WalSummaryError> {
        let mut reader =
            Self { source, length: 0, crc: 0, fork: None, chunk_lengths: Vec::new(), chunks_read: 0, finished: false };
        let mut magic = [0; 4];
        reader.fill(&mut magic)?;
        match u32::from_le_bytes(magic) {
            MAGIC => Ok(reader),
            found => Err(WalSummaryError::Magic { found }),
        }
    }

    /// Goes to the next fork, past all chunks of the previous one. `None` at the end, if the CRC is right.
    ///
    /// # Errors
    /// The variant for the damage, also for a wrong CRC; [`WalSummaryError::Read`].
    pub fn next_fork(&mut self) -> Result<Option<ForkSummary>, WalSummaryError> {
        while self.next_chunk()?.is_some() {}
        if self.finished {
            return Ok(None);
        }
        let mut bytes = [0; ENTRY_SIZE];
        self.fill(&mut bytes)?;
        if bytes == [0; ENTRY_SIZE] {
            self.finish()?;
            return Ok(None);
        }
        let field = |at: usize| u32_at(&bytes, at).unwrap_or_default();
        let (tablespace, database, number) = (field(0), field(4), field(8));
        let fork = match field(12) {
            0 => Fork::Main,
            1 => Fork::FreeSpaceMap,
            2 => Fork::VisibilityMap,
            3 => Fork::Init,
            found => return Err(WalSummaryError::UnknownFork { tablespace, database, number, found }),
        };
        let entry = RelationFork { tablespace, database, number, fork };
        if let Some(previous) = self.fork.filter(|previous| *previous >= entry) {
            return Err(WalSummaryError::OutOfOrder { previous, entry });
        }
        self.fork = Some(entry);
        self.read_chunk_lengths(entry, field(20))?;
        Ok(Some(ForkSummary { fork: entry, limit_block: Some(field(16)).filter(|limit| *limit != INVALID_BLOCK) }))
    }

    /// The next chunk of the fork that has blocks, with its number: block `n` of chunk `c` is block `c * 65536 + n` of
    /// the fork. `None` after the last one.
    ///
    /// # Errors
    /// The variant for the damage of the chunk; [`WalSummaryError::Read`].
    pub fn next_chunk(&mut self) -> Result<Option<(u16, Chunk)>, WalSummaryError> {
        let Some(fork) = self.fork else {
            return Ok(None);
        };
        while let Some(words) = self.chunk_lengths.get(self.chunks_read).copied() {
            // There are at most 2^16 chunks.
            let number = self.chunks_read as u16;
            self.chunks_read += 1;
            if words == 0 {
                continue;
            }
            let mut bytes = [0; BITMAP_WORDS as usize * 2];
            let bytes = bytes.get_mut(..usize::from(words) * 2).unwrap_or_default();
            self.fill(bytes)?;
            let chunk = if words == BITMAP_WORDS { Chunk::from_bitmap(bytes) } else { Chunk::from_offsets(bytes) };
            if u32::from(number) == MAX_CHUNKS - 1 && chunk.contains((BLOCKS_PER_CHUNK - 1) as u16) {
                return Err(WalSummaryError::InvalidBlock { fork });
            }
            // A truncation clears the bits of a bitmap and leaves the bitmap, so that it may be empty.
            if !chunk.is_empty() {
                return Ok(Some((number, chunk)));
            }
        }
        Ok(None)
    }

    fn read_chunk_lengths(&mut self, fork: RelationFork, count: u32) -> Result<(), WalSummaryError> {
        if count > MAX_CHUNKS {
            return Err(WalSummaryError::TooManyChunks { fork, found: count });
        }
        self.chunk_lengths.clear();
        self.chunks_read = 0;
        let mut piece = [0; 1024];
        let mut rest = count as usize * 2;
        while rest > 0 {
            let bytes = piece.get_mut(..rest.min(1024)).unwrap_or_default();
            self.fill(bytes)?;
            rest -= bytes.len();
            for at in (0..bytes.len()).step_by(2) {
                let words = u16_at(bytes, at).unwrap_or_default();
                if words > BITMAP_WORDS {
                    return Err(WalSummaryError::ChunkTooLong { fork, found: words });
                }
                self.chunk_lengths.push(words);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), WalSummaryError> {
        let computed = self.crc;
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        let found = u32::from_le_bytes(bytes);
        if found != computed {
            return Err(WalSummaryError::Crc { found, computed });
        }
        match read_some(&mut self.source, &mut [0; 1]).map_err(WalSummaryError::Read)? {
            0 => self.finished = true,
            _ => return Err(WalSummaryError::TrailingBytes { length: self.length }),
        }
        self.chunk_lengths.clear();
        Ok(())
    }

    /// Reads exactly these bytes, and adds them to the CRC.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), WalSummaryError> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let count = read_some(&mut self.source, rest).map_err(WalSummaryError::Read)?;
            self.length += count as u64;
            filled += count;
            if count == 0 {
                return Err(WalSummaryError::Truncated { length: self.length });
            }
        }
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        Ok(())
    }
}

/// One read; repeated if a signal interrupts it.
fn read_some(source: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
