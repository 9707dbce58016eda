//! The file system of volumes, snapshots and images: btrfs in a file, mounted through a loop device.
//!
//! A btrfs subvolume can be snapshotted as a whole in one atomic step, as a volume of a storage system can, and at once
//! whatever its size. There are three kinds of subvolumes: `volumes/<name>`, `snapshots/<name>`, and the stores of
//! images (`images-<key>`, imported once, and `node-<n>`, a copy of it for each start of a node).
//!
//! The file stays after a stop of the bed, because of `images-<key>`. Everything else in it is removed at the next
//! start. Writes are not forced to the machine's disk (`nobarrier`): nothing here must survive a loss of power.

use std::fs;
use std::path::{Path, PathBuf};

use super::tools::sh;
use crate::error::{KitError, Result};

/// The size of the file system; the file is sparse and takes only what is written.
const SIZE_BYTES: u64 = 40 << 30;

/// The mounted file system.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    root: PathBuf,
}

impl Disk {
    /// The file system of a running bed.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Mounts the file system, makes it first if it does not exist, and removes what an earlier bed left in it.
    pub(crate) fn mount(root: PathBuf) -> Result<Self> {
        let file = root.with_extension("img");
        if !file.exists() {
            let aside = root.with_extension("new");
            let made = fs::File::create(&aside).and_then(|made| made.set_len(SIZE_BYTES));
            made.map_err(KitError::io(format!("make {}", aside.display())))?;
            sh(&["mkfs.btrfs", "-q", "-f", &aside.to_string_lossy()])?;
            fs::rename(&aside, &file).map_err(KitError::io(format!("name {}", file.display())))?;
        }
        fs::create_dir_all(&root).map_err(KitError::io(format!("make {}", root.display())))?;
        let options = "loop,noatime,nobarrier,discard=async";
        sh(&["mount", "-t", "btrfs", "-o", options, &file.to_string_lossy(), &root.to_string_lossy()])?;
        let disk = Self { root };
        for kind in ["volumes", "snapshots", "nodes"] {
            let folder = disk.root.join(kind);
            if folder.exists() {
                for name in disk.names(kind)? {
                    Self::remove(&folder.join(name))?;
                }
            }
            fs::create_dir_all(&folder).map_err(KitError::io(format!("make {}", folder.display())))?;
        }
        Ok(disk)
    }

    /// The folder with a volume's files.
    pub(crate) fn volume(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }

    /// The folder with a snapshot's files.
    pub(crate) fn snapshot(&self, name: &str) -> PathBuf {
        self.root.join("snapshots").join(name)
    }

    /// The folder where containerd of a node keeps its images and containers.
    pub(crate) fn node(&self, name: &str) -> PathBuf {
        self.root.join("nodes").join(name)
    }

    /// The store with the images of this key.
    pub(crate) fn images(&self, key: &str) -> PathBuf {
        self.root.join(format!("images-{key}"))
    }

    /// Removes the stores of images of other keys.
    pub(crate) fn remove_other_images(&self, key: &str) -> Result<()> {
        for name in self.names(".")? {
            if name.strip_prefix("images-").is_some_and(|other| other != key) {
                Self::remove(&self.root.join(name))?;
            }
        }
        Ok(())
    }

    /// Makes an empty subvolume.
    pub(crate) fn create(path: &Path) -> Result<()> {
        sh(&["btrfs", "-q", "subvolume", "create", &path.to_string_lossy()]).map(drop)
    }

    /// Makes a subvolume with the present content of another.
    pub(crate) fn copy(source: &Path, target: &Path) -> Result<()> {
        sh(&["btrfs", "-q", "subvolume", "snapshot", &source.to_string_lossy(), &target.to_string_lossy()]).map(drop)
    }

    /// Removes a subvolume; it is not an error if it is gone already.
    pub(crate) fn remove(path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        sh(&["btrfs", "-q", "subvolume", "delete", &path.to_string_lossy()]).map(drop)
    }

    fn names(&self, kind: &str) -> Result<Vec<String>> {
        let folder = self.root.join(kind);
        let entries = fs::read_dir(&folder).map_err(KitError::io(format!("list {}", folder.display())))?;
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }
}

/// Unmounts everything below the state folder, the innermost first. The loop devices end with their mounts.
pub(crate) fn unmount_all(state: &Path) {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut places: Vec<&str> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|place| Path::new(place).starts_with(state))
        .collect();
    places.sort_by_key(|place| std::cmp::Reverse(place.len()));
    for place in places {
        if sh(&["umount", place]).is_err() {
            // Some process, perhaps a shell, is still in there. The mount leaves the tree now, and ends when that
            // process leaves.
            let _ = sh(&["umount", "-l", place]);
        }
    }
}
