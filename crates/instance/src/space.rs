//! Free space of the volumes, and the reserve that lets PostgreSQL start on a full one.
//!
//! A server that cannot write WAL ends, and cannot start again: its recovery writes as well. So each volume has a file
//! without content, the reserve. It is removed when PostgreSQL must start and there is no other space, and made again
//! when there is plenty. With the reserve gone PostgreSQL has room for some segments: enough to start, to archive, and
//! to let a person look. Only a larger volume, or less data, mends the cause.

use crate::error::{Error, Result};
use crate::identity::Paths;
use crate::volume::write_durably;
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::VolumeSpace;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Name of the reserve, beside the data directory and beside `pg_wal`.
const RESERVE: &str = "holdfast-reserve";
/// Four segments of the usual size, and no more than a thirty-second part of a small volume.
const RESERVE_BYTES: u64 = 64 << 20;
const RESERVE_PART: u64 = 32;
/// The reserve is made while at least this many times its size is free.
const PLENTY: u64 = 8;
/// A volume with less than this part of its space free is nearly full.
const LOW_PART: u64 = 10;

/// The volumes of an instance: role and mount point.
fn volumes(paths: &Paths) -> Vec<(&'static str, PathBuf)> {
    let wal = paths.wal_directory.as_ref().and_then(|wal| wal.parent()).map(|mount| (names::PG_WAL, mount.to_owned()));
    [(names::PG_DATA, paths.data_mount.clone())].into_iter().chain(wal).collect()
}

/// The space of each volume; one that cannot be examined is left out.
pub fn measure(paths: &Paths) -> Vec<VolumeSpace> {
    let space = |(role, mount): (&str, PathBuf)| {
        let found = statvfs(&mount).ok()?;
        Some(VolumeSpace {
            volume: role.to_owned(),
            total_bytes: found.f_blocks * found.f_frsize,
            free_bytes: found.f_bavail * found.f_frsize,
            reserve_bytes: fs::metadata(mount.join(RESERVE)).map(|file| file.len()).unwrap_or_default(),
        })
    };
    volumes(paths).into_iter().filter_map(space).collect()
}

/// The size of a volume's reserve. Pure.
fn reserve(total_bytes: u64) -> u64 {
    RESERVE_BYTES.min(total_bytes / RESERVE_PART)
}

/// Makes the reserve on each volume that has none and has plenty of space.
///
/// # Errors
/// When it cannot be made.
pub fn hold_back(paths: &Paths) -> Result<()> {
    for ((_, mount), space) in volumes(paths).into_iter().zip(measure(paths)) {
        let size = reserve(space.total_bytes);
        if space.reserve_bytes == 0 && space.free_bytes / PLENTY >= size {
            make(&mount.join(RESERVE), size)?;
        }
    }
    Ok(())
}

fn make(path: &Path, size_bytes: u64) -> Result<()> {
    let failed = |error: std::io::Error| {
        drop(fs::remove_file(path));
        Error::file("reserve space in", path, &error).doing("holding space back for a full volume")
    };
    write_durably(path, b"", 0o600)?;
    let file = File::options().write(true).open(path).map_err(failed)?;
    match fallocate(&file, FallocateFlags::empty(), 0, size_bytes) {
        // A file system that cannot hold space back has no reserve.
        Err(rustix::io::Errno::OPNOTSUPP) => fs::remove_file(path).map_err(failed),
        Err(errno) => Err(failed(errno.into())),
        Ok(()) => file.sync_all().map_err(failed),
    }
}

/// Removes the reserve of each volume that has less space than the reserve; called before PostgreSQL starts.
pub fn release(paths: &Paths) {
    for ((_, mount), space) in volumes(paths).into_iter().zip(measure(paths)) {
        if space.reserve_bytes == 0 || space.free_bytes >= reserve(space.total_bytes) {
            continue;
        }
        match fs::remove_file(mount.join(RESERVE)) {
            Ok(()) => tracing::warn!(
                volume = space.volume,
                bytes = space.reserve_bytes,
                "the volume is full: its reserve was given up so that PostgreSQL can start"
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(volume = space.volume, %error, "the reserve cannot be removed"),
        }
    }
}

/// The volume that is nearly full, as an error for people. Pure.
///
/// # Errors
/// When one is.
pub fn judge(volumes: &[VolumeSpace]) -> Result<()> {
    let low = |space: &&VolumeSpace| space.free_bytes < space.total_bytes / LOW_PART;
    let Some(full) = volumes.iter().find(low) else { return Ok(()) };
    let field = if full.volume == names::PG_WAL { "walStorage" } else { "storage" };
    let mebibytes = |bytes: u64| bytes >> 20;
    Err(Error::retry(format!(
        "volume {} has {} MiB free of {} MiB",
        full.volume,
        mebibytes(full.free_bytes),
        mebibytes(full.total_bytes)
    ))
    .doing("looking at free space")
    .hint(format!(
        "raise `{field}.size`, or find out what fills it: WAL that is not archived, a replication slot, or data; \
         delete nothing in pg_wal"
    )))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;

    fn space(volume: &str, total_mib: u64, free_mib: u64) -> VolumeSpace {
        VolumeSpace {
            volume: volume.to_owned(),
            total_bytes: total_mib << 20,
            free_bytes: free_mib << 20,
            reserve_bytes: 0,
        }
    }

    #[test]
    fn a_volume_that_is_nearly_full_is_named() {
        assert!(judge(&[]).is_ok());
        assert!(judge(&[space("PG_DATA", 1000, 100), space("PG_WAL", 1000, 500)]).is_ok());
        let error = judge(&[space("PG_DATA", 1000, 500), space("PG_WAL", 1000, 99)]).unwrap_err();
        assert_eq!(error.what, "volume PG_WAL has 99 MiB free of 1000 MiB");
        assert!(error.hint.unwrap().contains("`walStorage.size`"));
    }

    #[test]
    fn a_small_volume_gives_up_a_small_part() {
        assert_eq!(reserve(1 << 30), 32 << 20);
        assert_eq!(reserve(1 << 40), 64 << 20);
    }

    #[test]
    fn the_reserve_is_held_back_once_and_given_up_only_on_a_full_volume() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::below(folder.path(), Path::new("/x"), 1);
        fs::create_dir_all(&paths.data_mount).unwrap();
        hold_back(&paths).unwrap();
        let found = measure(&paths);
        assert_eq!(found.len(), 1);
        let held = found.first().unwrap().reserve_bytes;
        if found.first().unwrap().free_bytes / PLENTY < reserve(found.first().unwrap().total_bytes) {
            assert_eq!(held, 0, "this machine's disk is nearly full");
            return;
        }
        assert_eq!(held, reserve(found.first().unwrap().total_bytes));
        hold_back(&paths).unwrap();
        release(&paths);
        assert_eq!(measure(&paths).first().unwrap().reserve_bytes, held, "there is space");
    }
}
