//! The mark by which `DROP DATABASE` makes a database invalid, before it removes the files.
//!
//! Since the minor releases of August 2023, `DROP DATABASE` first sets `datconnlimit` of the row in `pg_database` to -2
//! (`DATCONNLIMIT_INVALID_DB`). The row is changed in place, so the mark stays whatever becomes of the transaction, and
//! nobody can connect any more. To get the database back, recovery must stop before this record, and not just before
//! the record that removes the files.
//!
//! The record (`xl_heap_inplace`) has the row as the data of its block, or an image of the whole page. From a
//! compressed image nothing is read.

use crate::bytes::{u8_at, u16_at, u32_at};
use crate::version::PgVersion;
use crate::wal::record::RECORD_HEADER_SIZE;
use crate::wal::relation_file::RelationFile;

/// `GLOBALTABLESPACE_OID`
const GLOBAL_TABLESPACE: u32 = 1664;
/// `BLCKSZ` of all packages.
const BLOCK_SIZE: usize = 8192;
/// `NAMEDATALEN`
const NAME_SIZE: usize = 64;

/// A database that was marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseMark {
    /// Its OID.
    pub database: u32,
    /// Its name; bytes that are not UTF-8 are replaced.
    pub name: String,
}

impl DatabaseMark {
    /// Reads an `XLOG_HEAP_INPLACE` record, header included. `None` if it is not such a mark, or not readable.
    pub(crate) fn read(record: &[u8], version: PgVersion) -> Option<Self> {
        let row = changed_row(record, version)?;
        // Since 15, collation and character type come later in the row.
        let limit_at = if version >= PgVersion::V15 { 80 } else { 208 };
        if u32_at(row, limit_at)?.cast_signed() != -2 {
            return None;
        }
        let name = row.get(4..4 + NAME_SIZE)?.split(|byte| *byte == 0).next()?;
        Some(Self { database: u32_at(row, 0)?, name: String::from_utf8_lossy(name).into_owned() })
    }
}

/// The new content of the row, from the first column on, if the record is about a relation that all databases share.
fn changed_row(record: &[u8], version: PgVersion) -> Option<&[u8]> {
    let mut at = RECORD_HEADER_SIZE;
    let (id, flags, data_length) = (u8_at(record, at)?, u8_at(record, at + 1)?, u16_at(record, at + 2)?);
    // The first block; it never is the same relation as one before.
    if id != 0 || flags & 0x80 != 0 {
        return None;
    }
    at += 4;
    // BKPBLOCK_HAS_IMAGE
    let image = if flags & 0x10 != 0 {
        let image = Image::at(record, at, version)?;
        at += image.header_size;
        Some(image)
    } else {
        None
    };
    let relation = RelationFile::at(record, at)?;
    if (relation.tablespace, relation.database) != (GLOBAL_TABLESPACE, 0) {
        return None;
    }
    at += RelationFile::SIZE + 4;
    // The header of the main data is the last header.
    at += match u8_at(record, at)? {
        255 => 2,
        254 => 5,
        _ => return None,
    };
    match image {
        Some(image) => {
            let page = record.get(at..at + image.length)?;
            let main = at + image.length + usize::from(data_length);
            image.row(page, u16_at(record, main)?)
        }
        None => record.get(at..at + usize::from(data_length)),
    }
}

/// `XLogRecordBlockImageHeader`
struct Image {
    header_size: usize,
    length: usize,
    hole_offset: usize,
}

impl Image {
    fn at(record: &[u8], at: usize, version: PgVersion) -> Option<Self> {
        let (length, hole_offset, info) = (u16_at(record, at)?, u16_at(record, at + 2)?, u8_at(record, at + 4)?);
        // BKPIMAGE_IS_COMPRESSED until 14; since 15 one flag for each method.
        let compressed = if version >= PgVersion::V15 { 0x1C } else { 0x02 };
        let image = Self { header_size: 5, length: length.into(), hole_offset: hole_offset.into() };
        Some(image).filter(|_| info & compressed == 0)
    }

    /// The row at this line pointer, without its header.
    fn row<'a>(&self, page: &'a [u8], offset_number: u16) -> Option<&'a [u8]> {
        let hole = BLOCK_SIZE.checked_sub(self.length)?;
        let in_image = |offset: usize| if offset < self.hole_offset { offset } else { offset.saturating_sub(hole) };
        // PageHeaderData has 24 bytes, and line pointers follow it.
        let pointer = u32_at(page, in_image(24 + 4 * usize::from(offset_number.checked_sub(1)?)))?;
        let (start, length) = ((pointer & 0x7FFF) as usize, (pointer >> 17) as usize);
        let start = in_image(start);
        let tuple = page.get(start..start.checked_add(length)?)?;
        // t_hoff
        tuple.get(usize::from(u8_at(tuple, 22)?)..)
    }
}
