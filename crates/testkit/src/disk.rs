//! Disks that fail: a small one that fills up, and one that loses written data.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

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

    /// The mount point.
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

/// A file system whose device does not keep everything that is written: ext4 in a sparse file on a [`SmallDisk`],
/// through a loop device. Each write succeeds as long as the file system has room. Only when the kernel writes the
/// pages does it show that the device has none: then they are lost, and the next `fsync` or `syncfs` fails. Unmounted
/// on drop.
#[derive(Debug)]
pub struct LosingDisk {
    path: PathBuf,
    /// Dropped after the file system in it is unmounted.
    device: SmallDisk,
}

impl LosingDisk {
    /// Mounts a file system of `size_bytes`, of which the device keeps `kept_bytes`.
    ///
    /// # Errors
    /// [`KitError::Io`] without `mkfs.ext4`, or if this process may not mount.
    pub fn mount(size_bytes: u64, kept_bytes: u64) -> Result<Self> {
        let device = SmallDisk::mount(kept_bytes)?;
        let image = device.path().join("image");
        let made = fs::File::create(&image).and_then(|image| image.set_len(size_bytes));
        made.map_err(KitError::io(format!("make {}", image.display())))?;
        // No journal, which would make the file system read-only at the first loss. Its own tables are written now, so
        // that only data is lost.
        let image = image.to_string_lossy().into_owned();
        let options = ["-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "nodiscard,lazy_itable_init=0"];
        run(Command::new("mkfs.ext4").args(options).arg(&image))?;
        let path = device.scratch.folder("losing")?;
        run(Command::new("mount").args(["-t", "ext4", "-o", "loop,nodev,nosuid"]).arg(&image).arg(&path))?;
        let disk = Self { path, device };
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&disk.path, open).map_err(KitError::io("open the losing disk to everybody"))?;
        disk.device.scratch.user().own(&disk.path)?;
        Ok(disk)
    }

    /// The disk. Where mounting is not permitted, it prints why and returns nothing: a visible skip.
    ///
    /// # Panics
    /// In CI, where a missing disk is a failure.
    pub fn or_skip(size_bytes: u64, kept_bytes: u64) -> Option<Self> {
        Self::mount(size_bytes, kept_bytes).map_err(|error| settings::skip(&error.to_string())).ok()
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on the device keeps this much.
    ///
    /// # Errors
    /// [`KitError::Io`].
    pub fn keep(&self, kept_bytes: u64) -> Result<()> {
        let failed = || KitError::io(format!("give {} more room", self.device.path.display()));
        let options = std::ffi::CString::new(format!("size={kept_bytes}")).map_err(|error| failed()(error.into()))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount_remount(&self.device.path, flags, options.as_c_str()).map_err(|error| failed()(error.into()))
    }
}

impl Drop for LosingDisk {
    fn drop(&mut self) {
        if unmount(&self.path, UnmountFlags::empty()).is_err() {
            // Something still has a file open: the mount ends when it is closed.
            let _ = unmount(&self.path, UnmountFlags::DETACH);
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let what = format!("run {}", command.get_program().to_string_lossy());
    let output = command.output().map_err(KitError::io(what.clone()))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(KitError::io(what)(std::io::Error::other(reason)))
}
