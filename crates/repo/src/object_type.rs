//! The types of objects that consist of frames: [`ObjectType`].

use std::fmt;

/// The type of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectType {
    /// Chunks of files and their index.
    Pack,
    /// One file of the WAL archive.
    Wal,
    /// The manifest of a backup.
    Manifest,
    /// An encrypted JSON record.
    Record,
}

impl ObjectType {
    /// Every type.
    pub(crate) const ALL: [Self; 4] = [Self::Pack, Self::Wal, Self::Manifest, Self::Record];

    /// The number for the head.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Pack => 1,
            Self::Wal => 2,
            Self::Manifest => 3,
            Self::Record => 4,
        }
    }
}

impl fmt::Display for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pack => "pack",
            Self::Wal => "WAL object",
            Self::Manifest => "manifest",
            Self::Record => "record",
        })
    }
}
