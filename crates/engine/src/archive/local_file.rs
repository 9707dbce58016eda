//! A WAL file on this machine that is being archived: opened once, checked by its first bytes, read in pieces.
//!
//! The file's identity is read when it is opened, and compared after the file has been read. A file that changed in
//! between is not archived, and a mark made from this identity is never valid for another file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use holdfast_contract::agent::FileIdentity;
use holdfast_pgtypes::version::SUPPORTED;
use holdfast_pgtypes::wal::page::WalPageHeader;
use holdfast_pgtypes::wal::segment_check::{ExpectedSegment, NEEDED_BYTES, SegmentMismatch, check_segment_header};
use holdfast_pgtypes::{ControlFile, HistoryFile, PgVersion, SegmentName, WalFileName, WalSegmentSize};
use holdfast_repo::wal_object::PIECE_BYTES;

use super::mark;
use crate::error::{Cause, Error, ResultExt};
use crate::repository::claim::Identity;
use crate::server::{refused_control_file, unsupported_version};

/// History and backup history files have a few hundred bytes. A longer file is something else.
const MAX_TEXT_FILE_BYTES: u64 = 16 << 20;

/// An open WAL file.
#[derive(Debug)]
pub(super) struct LocalFile {
    pub(super) path: PathBuf,
    pub(super) name: WalFileName,
    pub(super) identity: FileIdentity,
    file: File,
    head: Vec<u8>,
}

impl LocalFile {
    /// Opens the file and reads its first bytes. Blocks.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let name = mark::wal_file_name(path).ok_or_else(|| {
            Cause::Refused(format!(
                "{} is not the name of a WAL segment, history or backup history file",
                path.display()
            ))
        })?;
        let file = File::open(path).map_err(|e| Error::file("open", path, e))?;
        let metadata = file.metadata().map_err(|e| Error::file("read", path, e))?;
        if !metadata.is_file() {
            return Err(Cause::Refused(format!("{} is not a file", path.display())).into());
        }
        let identity = FileIdentity::of(&metadata);
        let mut head = vec![0; NEEDED_BYTES.min(usize::try_from(identity.size_bytes).unwrap_or(NEEDED_BYTES))];
        file.read_exact_at(&mut head, 0).map_err(|e| Error::file("read", path, e))?;
        Ok(Self { path: path.to_owned(), name, identity, file, head })
    }

    /// Opens the file, and finds the cluster that it belongs to: the one in its header, else that of the data directory
    /// around it. Blocks.
    pub(super) fn open_with_identity(path: &Path) -> Result<(Self, Option<Identity>), Error> {
        let file = Self::open(path)?;
        let identity = match file.stated_identity()? {
            Some(identity) => Some(identity),
            None => identity_around(path)?,
        };
        Ok((file, identity))
    }

    /// The segment whose content is in the file; `None` for history and backup history files.
    pub(super) fn segment(&self) -> Option<SegmentName> {
        match self.name {
            WalFileName::Segment(segment) | WalFileName::Partial(segment) => Some(segment),
            WalFileName::History(_) | WalFileName::BackupHistory { .. } => None,
        }
    }

    /// The cluster that the segment's header names; `None` for files that do not name one.
    fn stated_identity(&self) -> Result<Option<Identity>, Error> {
        if self.segment().is_none() {
            return Ok(None);
        }
        let malformed = |reason: String| Cause::Malformed { name: self.path.display().to_string(), reason };
        let header = WalPageHeader::parse(&self.head)
            .ok_or_else(|| malformed(format!("it has {} bytes, less than a WAL page header", self.head.len())))?;
        let version =
            PgVersion::from_wal_page_magic(header.magic).ok_or_else(|| match PgVersion::unsupported_wal_page_magic(
                header.magic,
            ) {
                Some(found) => unsupported_version(data_directory(&self.path), found),
                None => malformed(format!(
                    "it begins with {:04X}, but WAL of PostgreSQL {SUPPORTED} never does",
                    header.magic
                )),
            })?;
        let long = header
            .long
            .ok_or_else(|| malformed("it does not begin with the header of a segment's first page".to_owned()))?;
        let wal_segment_size = WalSegmentSize::new(long.segment_size).map_err(|e| malformed(e.to_string()))?;
        Ok(Some(Identity { system_identifier: long.system_identifier, version, wal_segment_size }))
    }

    /// Checks that the file is what its name says, belongs to this cluster, and is whole.
    pub(super) fn check(&self, identity: &Identity) -> Result<(), Error> {
        let found = self.identity.size_bytes;
        let Some(name) = self.segment() else {
            if found == 0 {
                let name = self.path.display().to_string();
                return Err(Cause::Malformed { name, reason: "it is empty".to_owned() }.into());
            }
            if found > MAX_TEXT_FILE_BYTES {
                return Err(Cause::Refused(format!("{} has {found} bytes", self.path.display())).into());
            }
            if let WalFileName::History(timeline) = self.name {
                // A history file that does not parse would block every later restore, and could never be replaced.
                HistoryFile::parse(timeline, &self.read_all()?)
                    .map_err(|e| Cause::Malformed { name: self.path.display().to_string(), reason: e.to_string() })?;
            }
            return Ok(());
        };
        let Identity { system_identifier, version, wal_segment_size: size } = *identity;
        let expected = ExpectedSegment { system_identifier, version, name, size };
        check_segment_header(&self.head, &expected).map_err(|source| match source {
            SegmentMismatch::Unsupported { found, .. } => unsupported_version(data_directory(&self.path), found),
            source => Cause::SegmentMismatch { file: self.path.display().to_string(), source },
        })?;
        if found != size.as_u64() {
            return Err(Cause::SegmentSize { path: self.path.clone(), found, expected: size }.into());
        }
        Ok(())
    }

    /// Reads a piece of the file. Blocks.
    pub(super) fn read_piece(&self, number: u64) -> Result<Vec<u8>, Error> {
        let start = number * PIECE_BYTES as u64;
        let length = self.identity.size_bytes.saturating_sub(start).min(PIECE_BYTES as u64);
        let mut piece = vec![0; length as usize];
        self.file.read_exact_at(&mut piece, start).map_err(|e| Error::file("read", &self.path, e))?;
        Ok(piece)
    }

    /// Reads the whole file. Blocks.
    pub(super) fn read_all(&self) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(self.identity.size_bytes)
            .map_err(|_| Cause::Refused(format!("{} is too large", self.path.display())))?;
        let mut whole = vec![0; length];
        self.file.read_exact_at(&mut whole, 0).map_err(|e| Error::file("read", &self.path, e))?;
        Ok(whole)
    }

    /// Fails if the file has changed since it was opened. Blocks.
    pub(super) fn check_unchanged(&self) -> Result<(), Error> {
        let metadata = self.file.metadata().map_err(|e| Error::file("read", &self.path, e))?;
        if FileIdentity::of(&metadata) == self.identity {
            Ok(())
        } else {
            Err(Cause::Refused(format!("{} was changed while it was read", self.path.display())).into())
        }
    }
}

/// The data directory in whose `pg_wal` a file is, if it is in one.
fn data_directory(path: &Path) -> &Path {
    path.parent().and_then(Path::parent).unwrap_or(Path::new(""))
}

/// The identity in `global/pg_control` of the data directory that contains a WAL file; `None` if there is none. Blocks.
pub(super) fn identity_around(path: &Path) -> Result<Option<Identity>, Error> {
    Ok(control_around(path)?.map(|control| Identity::of_control_file(&control)))
}

/// The control file of the data directory that contains a WAL file; `None` if there is none. Blocks.
///
/// The parent is derived from the text of the path: `pg_wal` may be a symbolic link, whose `..` is not the data
/// directory.
pub(super) fn control_around(path: &Path) -> Result<Option<ControlFile>, Error> {
    let Some(pgdata) = path.parent().and_then(Path::parent) else { return Ok(None) };
    let control = pgdata.join("global").join("pg_control");
    let bytes = match std::fs::read(&control) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", &control, error)),
    };
    let parsed = ControlFile::parse(&bytes).or_else(|first| {
        // The server may have been writing it: read once more, as PostgreSQL's own tools do.
        std::fs::read(&control).map_err(|_| first).and_then(|bytes| ControlFile::parse(&bytes))
    });
    let parsed = parsed.map_err(|source| refused_control_file(control, source));
    parsed.doing(|| "finding the cluster that a WAL file belongs to".to_owned()).map(Some)
}
