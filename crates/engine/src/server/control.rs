//! Reading `global/pg_control` of a data directory that a server may be writing to.
//!
//! PostgreSQL writes the file in one small write, but a reader may still see half of it (the kernel promises nothing).
//! Then the CRC is wrong, and the file is read again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_pgtypes::ControlFile;
use holdfast_pgtypes::control::ControlFileError;
use holdfast_pgtypes::version::UnsupportedVersion;

use crate::error::{Cause, Error};

/// The number of reads before a bad CRC counts as damage, and not as a write in progress.
const ATTEMPTS: u32 = 10;

/// The wait between two reads.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Reads and parses the control file.
///
/// # Errors
/// [`Cause::File`] if it cannot be read, [`Cause::UnsupportedVersion`] if it is not from PostgreSQL 13 to 19,
/// [`Cause::ControlFile`] if it is still damaged after ten reads.
pub fn read_control_file(pgdata: &Path) -> Result<ControlFile, Error> {
    read(pgdata).map(|(_, control)| control)
}

/// The bytes of the control file. Their CRC is correct.
pub(crate) fn read_control_bytes(pgdata: &Path) -> Result<Vec<u8>, Error> {
    read(pgdata).map(|(bytes, _)| bytes)
}

fn read(pgdata: &Path) -> Result<(Vec<u8>, ControlFile), Error> {
    let path = pgdata.join("global/pg_control");
    let mut attempt = 0;
    loop {
        attempt += 1;
        let bytes = std::fs::read(&path).map_err(|e| Error::file("read", &path, e))?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok((bytes, control)),
            Err(ControlFileError::BadCrc { .. } | ControlFileError::TooShort { .. }) if attempt < ATTEMPTS => {
                std::thread::sleep(READ_AGAIN_AFTER);
            }
            Err(source @ ControlFileError::UnknownVersion { .. }) => {
                let phrase = format!("reading {}", path.display());
                return Err(Error::from(refused_control_file(path, source)).doing(phrase));
            }
            Err(source) => return Err(Cause::ControlFile { path, source }.into()),
        }
    }
}

/// The error for a control file that does not parse. `path` is its path in a data directory.
pub(crate) fn refused_control_file(path: PathBuf, source: ControlFileError) -> Cause {
    if let ControlFileError::UnknownVersion { control_version, catalog_version } = source {
        let pgdata = path.parent().and_then(Path::parent).unwrap_or(Path::new(""));
        return unsupported_version(pgdata, UnsupportedVersion::Control { control_version, catalog_version });
    }
    Cause::ControlFile { path, source }
}

/// The error for a data directory with files of an unknown version. The number of its major is in `PG_VERSION`, and is
/// what a person knows.
pub(crate) fn unsupported_version(pgdata: &Path, found: UnsupportedVersion) -> Cause {
    let text = std::fs::read_to_string(pgdata.join("PG_VERSION")).unwrap_or_default();
    found.in_directory_of(&text).into()
}
