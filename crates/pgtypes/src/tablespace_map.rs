//! `TablespaceMap`: the file that lists the links which recovery makes in `pg_tblspc`.
//!
//! A line is the tablespace's oid, one space, and the path of its directory. In the path, a backslash comes before
//! every line end, carriage return and backslash. Reading follows `read_tablespace_map` of `xlogrecovery.c`: a path may
//! begin with spaces, empty lines are skipped, and a last line without its end is an error, because it may be cut.
//! Paths are bytes, as in the operating system.

use crate::parse_error::decimal;

/// A tablespace and the place of its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceEntry {
    /// The OID of the tablespace.
    pub oid: u32,
    /// The target of its link in `pg_tblspc`.
    pub path: Vec<u8>,
}

/// The contents of `tablespace_map`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TablespaceMap {
    /// One entry for each tablespace.
    pub entries: Vec<TablespaceEntry>,
}

/// Why the bytes are not a tablespace map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TablespaceMapError {
    /// A line does not consist of an oid, a space and a path.
    #[error("tablespace_map has a line that is not an entry: {line:?}")]
    InvalidLine {
        /// The line, in which bytes that are not UTF-8 are replaced.
        line: String,
    },
    /// The last line has no line end.
    #[error("tablespace_map ends within a line")]
    Unterminated,
}

impl TablespaceMap {
    /// The file's name in the data directory.
    pub const FILE_NAME: &'static str = "tablespace_map";

    /// Parses a tablespace map. An empty file is a map without entries.
    ///
    /// # Errors
    /// [`TablespaceMapError::InvalidLine`] if a line is not an OID above 0, a space and a path,
    /// [`TablespaceMapError::Unterminated`] if the last line has no end.
    pub fn parse(bytes: &[u8]) -> Result<Self, TablespaceMapError> {
        let mut entries = Vec::new();
        let mut line = Vec::new();
        let mut escaped = false;
        for &byte in bytes {
            if escaped {
                line.push(byte);
                escaped = false;
            } else if byte == b'\\' {
                escaped = true;
            } else if byte == b'\n' || byte == b'\r' {
                if !line.is_empty() {
                    entries.push(parse_line(&line)?);
                    line.clear();
                }
            } else {
                line.push(byte);
            }
        }
        if escaped || !line.is_empty() {
            return Err(TablespaceMapError::Unterminated);
        }
        Ok(Self { entries })
    }

    /// The file's contents.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in &self.entries {
            bytes.extend_from_slice(entry.oid.to_string().as_bytes());
            bytes.push(b' ');
            for &byte in &entry.path {
                if matches!(byte, b'\n' | b'\r' | b'\\') {
                    bytes.push(b'\\');
                }
                bytes.push(byte);
            }
            bytes.push(b'\n');
        }
        bytes
    }
}

fn parse_line(line: &[u8]) -> Result<TablespaceEntry, TablespaceMapError> {
    let parse = || {
        let space = line.iter().position(|byte| *byte == b' ')?;
        let (oid, path) = line.split_at_checked(space)?;
        let path = path.get(1..).filter(|path| !path.is_empty())?;
        let oid = decimal(std::str::from_utf8(oid).ok()?).filter(|oid| *oid != 0)?;
        Some(TablespaceEntry { oid, path: path.to_vec() })
    };
    parse().ok_or_else(|| TablespaceMapError::InvalidLine {
        line: String::from_utf8_lossy(line).chars().take(200).collect(),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_escapes_and_spaces() {
        let map = TablespaceMap::parse(b"16400 /srv/a b\n\n16401  /x\\\ny\\\\z\\\r\r\n").unwrap();
        assert_eq!(
            map.entries,
            [
                TablespaceEntry { oid: 16400, path: b"/srv/a b".to_vec() },
                TablespaceEntry { oid: 16401, path: b" /x\ny\\z\r".to_vec() },
            ]
        );
        assert_eq!(TablespaceMap::parse(b"").unwrap(), TablespaceMap::default());
    }

    #[test]
    fn refuses_damage() {
        assert_eq!(TablespaceMap::parse(b"16400 /srv"), Err(TablespaceMapError::Unterminated));
        assert_eq!(TablespaceMap::parse(b"16400 /srv\\"), Err(TablespaceMapError::Unterminated));
        for line in ["16400\n", "16400 \n", " /srv\n", "x /srv\n", "-1 /srv\n", "0 /srv\n"] {
            assert!(
                matches!(TablespaceMap::parse(line.as_bytes()), Err(TablespaceMapError::InvalidLine { .. })),
                "{line:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn round_trips(entries in proptest::collection::vec((1u32.., proptest::collection::vec(any::<u8>(), 1..40)), 0..5)) {
            let entries = entries.into_iter().map(|(oid, path)| TablespaceEntry { oid, path }).collect();
            let map = TablespaceMap { entries };
            prop_assert_eq!(TablespaceMap::parse(&map.to_bytes()).unwrap(), map);
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = TablespaceMap::parse(&bytes);
        }
    }
}
