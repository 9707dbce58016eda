//! A disk that fills up: a small tmpfs, for tests of a full disk.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::error::{KitError, Result};
use crate::scratch::Scratch;
use crate::settings;

/// A mounted file system of a few mebibytes, owned by PostgreSQL's user; unmounted on drop.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    scratch: Scratch,
}

impl SmallDisk {
    /// Mounts a file system with room for this many bytes, rounded up to pages. It takes memory only as it fills.
    ///
    /// # Errors
    /// [`KitError::Io`] if this process may not mount.
    pub fn mount(size_bytes: u64) -> Result<Self> {
        let scratch = Scratch::new()?;
        let path = scratch.folder("disk")?;
        let failed = || KitError::io(format!("mount a tmpfs of {size_bytes} bytes at {}", path.display()));
        let options = std::ffi::CString::new(format!("size={size_bytes}")).map_err(|error| failed()(error.into()))?;
        mount("tmpfs", &path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())
            .map_err(|error| failed()(error.into()))?;
        let disk = Self { path, scratch };
        // The new file system has a root folder of its own, with root's owner and mode.
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&disk.path, open).map_err(KitError::io("open the small disk to everybody"))?;
        disk.scratch.user().own(&disk.path)?;
        Ok(disk)
    }

    /// The disk. Where mounting is not permitted, it prints why and returns nothing: a visible skip.
    ///
    /// # Panics
    /// In CI, where a missing disk is a failure.
    pub fn or_skip(size_bytes: u64) -> Option<Self> {
        Self::mount(size_bytes).map_err(|error| settings::skip(&error.to_string())).ok()
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that can still be written.
    pub fn free_bytes(&self) -> Result<u64> {
        let numbers = rustix::fs::statvfs(&self.path)
            .map_err(|error| KitError::io(format!("look at {}", self.path.display()))(error.into()))?;
        Ok(numbers.f_bavail * numbers.f_frsize)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A lazy unmount: if a server still holds a file open, the mount must not prevent the removal of the folder.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}
