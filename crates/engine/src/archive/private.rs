//! Files with plain WAL in them: for the user of PostgreSQL alone, whatever the umask.
//!
//! Modes are given when a file is made, so that there is no moment at which another user could open it.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// A new file that only its owner may read and write.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Opens a file for reading, and no link in its place.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits();
    OpenOptions::new().read(true).custom_flags(i32::try_from(no_link).unwrap_or_default()).open(path)
}

/// Makes a file one of its folder's before it gets its name there: readable for the group where the folder is open to the
/// group alone, as a data directory with `initdb --allow-group-access` is; and, made by root, the folder's owner's, since
/// PostgreSQL must be able to read and remove it.
pub(super) fn fit_into(file: &File, folder: &Path) -> io::Result<()> {
    let around = std::fs::metadata(folder)?;
    let others = around.mode() & 0o007;
    let group = if others == 0 { around.mode() & 0o040 } else { 0 };
    file.set_permissions(Permissions::from_mode(0o600 | group))?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::fchown(file, Some(around.uid()), Some(around.gid()))?;
    }
    Ok(())
}
