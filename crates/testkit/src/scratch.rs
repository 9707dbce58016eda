//! Folders that the test and PostgreSQL's user share, and programs that this user can run.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::{KitError, Result};
use crate::user::DatabaseUser;

/// A temporary folder of PostgreSQL's user with mode 0755. On drop it is removed with its content.
///
/// It is directly below `/tmp` and has a short name, because the path of a Unix socket has at most 107 bytes.
#[derive(Debug)]
pub struct Scratch {
    folder: tempfile::TempDir,
    user: DatabaseUser,
}

impl Scratch {
    /// Makes an empty folder.
    pub fn new() -> Result<Self> {
        let user = DatabaseUser::current()?;
        let folder = tempfile::Builder::new()
            .prefix("hf-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in("/tmp")
            .map_err(KitError::io("make a folder below /tmp"))?;
        // The umask changes the mode at creation, so the mode is set again.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .map_err(KitError::io(format!("open {} to everybody", folder.path().display())))?;
        user.own(folder.path())?;
        Ok(Self { folder, user })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The user who owns the folder.
    pub fn user(&self) -> &DatabaseUser {
        &self.user
    }

    /// Makes a folder below this one, owned by PostgreSQL's user, with mode 0755, and returns its path.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        let action = format!("make {}", path.display());
        fs::create_dir_all(&path).map_err(KitError::io(action.clone()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(KitError::io(action))?;
        self.user.own(&path)?;
        Ok(path)
    }

    /// Writes a file that PostgreSQL's user owns and everybody may read, and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        self.write_with_mode(name, content.as_ref(), 0o644)
    }

    /// Writes a passphrase or a key in the same way, but readable for its owner only.
    pub fn write_secret(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        self.write_with_mode(name, content.as_ref(), 0o600)
    }

    fn write_with_mode(&self, name: &str, content: &[u8], mode: u32) -> Result<PathBuf> {
        let path = self.path().join(name);
        let action = format!("write {}", path.display());
        fs::write(&path, content).map_err(KitError::io(action.clone()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(KitError::io(action))?;
        self.user.own(&path)?;
        Ok(path)
    }

    /// Keeps the folder when the value is dropped, and returns its path.
    pub fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.path().to_path_buf()
    }
}

/// Copies a program of the build folder to a place where PostgreSQL's user can run it, and returns the path of the
/// copy.
///
/// A build folder is often below a home that nobody else may enter. The copy is made once for each build (its folder is
/// named by size and time of the original) and appears whole, so tests that run at the same time share it. Copies of
/// builds older than a day are removed. Without root there is nothing to do, and the function returns the path itself.
pub fn publish_binary(program: &Path) -> Result<PathBuf> {
    if !crate::user::is_root() {
        return Ok(program.to_path_buf());
    }
    let failed = |what: &str| KitError::io(format!("{what} {} for PostgreSQL's user", program.display()));
    let metadata = fs::metadata(program).map_err(failed("find"))?;
    let base = PathBuf::from(format!("/tmp/holdfast-testkit.{}", rustix::process::geteuid().as_raw()));
    fs::create_dir_all(&base).map_err(failed("make a folder of"))?;
    // Root runs the programs in this folder. If somebody else made the folder first, it must not be used.
    let owner = fs::symlink_metadata(&base).map_err(failed("look at the folder of"))?;
    if !owner.is_dir() || owner.uid() != rustix::process::geteuid().as_raw() {
        return Err(KitError::Unsupported(format!("{} belongs to somebody else", base.display())));
    }
    fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).map_err(failed("open the folder of"))?;
    remove_old(&base);

    let name =
        program.file_name().ok_or_else(|| KitError::Unsupported(format!("{} is not a program", program.display())))?;
    let build = format!("{}-{}-{}", metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    let folder = base.join(build);
    let target = folder.join(name);
    if target.exists() {
        return Ok(target);
    }
    fs::create_dir_all(&folder).map_err(failed("make a folder of"))?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).map_err(failed("open the folder of"))?;
    let aside = tempfile::NamedTempFile::new_in(&folder).map_err(failed("copy"))?;
    fs::copy(program, aside.path()).map_err(failed("copy"))?;
    fs::set_permissions(aside.path(), fs::Permissions::from_mode(0o755)).map_err(failed("copy"))?;
    // Closed before it gets its name: a program that is open for writing cannot be run ("text file busy").
    let aside = aside.into_temp_path();
    aside
        .persist(&target)
        .map_err(|error| KitError::Io { action: format!("name {}", target.display()), source: error.error })?;
    Ok(target)
}

/// Removes the copies of builds that are older than a day. What cannot be removed stays for the next run.
fn remove_old(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|data| data.modified()).map(|time| SystemTime::now().duration_since(time));
        if matches!(age, Ok(Ok(age)) if age > Duration::from_hours(24)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A program of the same build as this one, such as `holdfast` beside a test. It is in this program's folder or, for a
/// test in `deps`, in the folder above.
///
/// # Errors
/// [`KitError::Missing`] if it was not built; `cargo build --workspace --bins` builds them all.
pub fn built_program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(KitError::io("find this program"))?;
    let candidates: Vec<PathBuf> = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).collect();
    candidates
        .iter()
        .find(|path| path.is_file())
        .cloned()
        .ok_or_else(|| KitError::Missing { what: format!("`{name}` of this build"), looked_at: candidates })
}
