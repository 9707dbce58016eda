//! Files that contain plain WAL: readable for PostgreSQL's user only, whatever the umask.
//!
//! The mode is set when a file is made, so that there is no moment at which another user could open it.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// A new file that only its owner may read and write.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Opens a file for reading; fails if there is a link in its place.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits();
    OpenOptions::new().read(true).custom_flags(i32::try_from(no_link).unwrap_or_default()).open(path)
}

/// Gives a file the group and owner that fit its folder, before it gets its name there. The group may read it if the
/// folder is open to the group alone, like a data directory with `initdb --allow-group-access`. If root made it, the
/// folder's owner becomes its owner, because PostgreSQL must be able to read and remove it.
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
