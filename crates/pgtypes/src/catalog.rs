//! Names from the files of system catalogs, as a backup has them: schemas and relations.
//!
//! This is for messages, not for recovery. The files of an online backup are not consistent before WAL was replayed,
//! and nothing here checks which rows a transaction would see. So a row may be an old one, and a new one may be
//! missing. An OID hardly ever gets another name.
//!
//! The columns that are read come first in their rows and are never null, so they have fixed offsets (`pg_class.h`,
//! `pg_namespace.h`).

use std::collections::BTreeMap;

use crate::bytes::{u8_at, u16_at, u32_at};
use crate::version::PgVersion;

/// The OID of `pg_class`.
const CLASS: u32 = 1259;
/// The OID of `pg_namespace`.
const NAMESPACE: u32 = 2615;
/// `BLCKSZ` of all packages.
const PAGE_SIZE: usize = 8192;
/// `NAMEDATALEN`
const NAME_SIZE: usize = 64;
/// `RELMAPPER_FILEMAGIC`
const MAP_MAGIC: u32 = 0x0059_2717;
/// `MAX_MAPPINGS` until 15; it is 64 since 16.
const MOST_MAPPINGS: u32 = 64;

/// The name of the file in a database's directory that says which files the first catalogs have.
pub const FILENODE_MAP: &str = "pg_filenode.map";

/// The content of `pg_filenode.map` (`RelMapFile` in `relmapper.c`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilenodeMap(BTreeMap<u32, u32>);

impl FilenodeMap {
    /// Reads the file; `None` if it is not one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let count = u32_at(bytes, 4).filter(|count| *count <= MOST_MAPPINGS)?;
        if u32_at(bytes, 0)? != MAP_MAGIC {
            return None;
        }
        let pair = |n: u32| {
            let at = 8 + 8 * n as usize;
            u32_at(bytes, at).zip(u32_at(bytes, at + 4))
        };
        (0..count).map(pair).collect::<Option<BTreeMap<_, _>>>().map(Self)
    }

    /// The number in the names of the files of `pg_class`.
    pub fn class_file(&self) -> Option<u32> {
        self.0.get(&CLASS).copied()
    }
}

/// A row of `pg_class`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassRow {
    /// The OID of the relation.
    pub oid: u32,
    /// Its name; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// The OID of its schema.
    pub schema: u32,
    /// The number in the names of its files, `relfilenode`; 0 for a relation without files and for the first catalogs.
    pub file_number: u32,
    /// `relkind`
    pub kind: char,
}

/// The rows of a file of `pg_class`, in the order of the file.
pub fn class_rows(file: &[u8], version: PgVersion) -> impl Iterator<Item = ClassRow> {
    // 18 has one more column before this one.
    let kind_at = if version >= PgVersion::V18 { 119 } else { 115 };
    rows(file).filter_map(move |row| {
        Some(ClassRow {
            oid: u32_at(row, 0)?,
            name: name_at(row, 4)?,
            schema: u32_at(row, 68)?,
            file_number: u32_at(row, 88)?,
            kind: char::from(u8_at(row, kind_at)?),
        })
    })
}

/// The number of the file of `pg_namespace`, from the rows of `pg_class`.
pub fn namespace_file<'a>(rows: impl IntoIterator<Item = &'a ClassRow>) -> Option<u32> {
    rows.into_iter().filter(|row| row.oid == NAMESPACE).last().map(|row| row.file_number)
}

/// OID and name of the rows of a file of `pg_namespace`, in the order of the file.
pub fn namespace_rows(file: &[u8]) -> impl Iterator<Item = (u32, String)> {
    rows(file).filter_map(|row| u32_at(row, 0).zip(name_at(row, 4)))
}

fn name_at(row: &[u8], offset: usize) -> Option<String> {
    let name = row.get(offset..offset + NAME_SIZE)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// The content of each row, without its header. Pages that are not like those of a heap have none.
fn rows(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.chunks_exact(PAGE_SIZE).flat_map(|page| {
        // PageHeaderData: line pointers of four bytes begin at 24 and end at pd_lower.
        let end = u16_at(page, 12).map_or(0, usize::from).min(PAGE_SIZE);
        let count = end.saturating_sub(24) / 4;
        (0..count).filter_map(move |number| {
            let pointer = u32_at(page, 24 + 4 * number)?;
            // LP_NORMAL
            if pointer >> 15 & 3 != 1 {
                return None;
            }
            let start = (pointer & 0x7FFF) as usize;
            let tuple = page.get(start..start.checked_add((pointer >> 17) as usize)?)?;
            // t_hoff
            tuple.get(usize::from(u8_at(tuple, 22)?)..)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nonsense_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..3 * PAGE_SIZE)) {
            let _ = FilenodeMap::parse(&bytes);
            let _ = namespace_rows(&bytes).count();
            let _ = class_rows(&bytes, PgVersion::V18).count();
        }
    }
}
