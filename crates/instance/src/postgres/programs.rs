//! The paths of PostgreSQL's programs in the image.

use crate::error::{Error, Result};
use holdfast_pgtypes::PgVersion;
use holdfast_pgtypes::version::{SUPPORTED, UnsupportedVersion};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// Folders of Debian's and Red Hat's packages, for images without them on the `PATH`.
const VERSIONED: [(&str, &str); 2] = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];

/// PostgreSQL's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    folder: PathBuf,
    major: u16,
    tls: bool,
}

impl Programs {
    /// Finds them: on the `PATH`, or in the folders of the packages, the highest major version first.
    ///
    /// # Errors
    /// When there are none, or the server prints no version.
    pub async fn find(path: Option<&str>) -> Result<Self> {
        let on_path = path.unwrap_or_default().split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let folder = on_path.chain(packaged()).find(|folder| folder.join("postgres").is_file()).ok_or_else(|| {
            Error::stuck("the image has no PostgreSQL: `postgres` is neither on the PATH nor in a package's folder")
                .doing("looking for PostgreSQL's programs")
                .hint(format!("spec.imageName must name an image of PostgreSQL {SUPPORTED}"))
        })?;
        Self::in_folder(&folder).await
    }

    /// The programs in a folder.
    ///
    /// # Errors
    /// When the server there prints no version, or one that is not supported.
    pub async fn in_folder(folder: &Path) -> Result<Self> {
        let program = folder.join("postgres");
        let output = Command::new(&program).arg("--version").output().await;
        let output = output.map_err(|error| Error::file("run", &program, &error))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let major = major(&text).ok_or_else(|| {
            Error::stuck(format!("{} prints {:?} as its version", program.display(), text.trim()))
                .doing("looking for PostgreSQL's programs")
                .hint(format!("spec.imageName must name an image of PostgreSQL {SUPPORTED}"))
        })?;
        PgVersion::new(major).map_err(|unsupported| {
            Error::stuck(unsupported.to_string())
                .doing("looking for PostgreSQL's programs")
                .hint(UnsupportedVersion::ADVICE)
        })?;
        Ok(Self { folder: folder.to_owned(), major, tls: has_tls(&program).await? })
    }

    /// A command for one of the programs. Its messages are in English, whatever the image's locale.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join(name));
        command.env("LC_MESSAGES", "C").kill_on_drop(true);
        command
    }

    /// Whether the server was built with TLS.
    pub fn has_tls(&self) -> bool {
        self.tls
    }

    /// PostgreSQL's major version.
    pub fn major(&self) -> u16 {
        self.major
    }
}

/// Asks the server for a setting that is fixed at build time; for this it needs a directory with a configuration.
async fn has_tls(program: &Path) -> Result<bool> {
    let folder = std::env::temp_dir().join(format!("holdfast-{}", std::process::id()));
    let failed = |error: std::io::Error| Error::file("create", &folder, &error);
    tokio::fs::create_dir_all(&folder).await.map_err(failed)?;
    tokio::fs::write(folder.join("postgresql.conf"), "").await.map_err(failed)?;
    let output = Command::new(program).args(["-C", "ssl_library", "-D"]).arg(&folder).output().await;
    drop(tokio::fs::remove_dir_all(&folder).await);
    let output = output.map_err(|error| Error::file("run", program, &error))?;
    Ok(!String::from_utf8_lossy(&output.stdout).trim().is_empty())
}

fn packaged() -> Vec<PathBuf> {
    let mut found: Vec<(u16, PathBuf)> = VERSIONED
        .iter()
        .filter_map(|(parent, prefix)| std::fs::read_dir(parent).ok().map(|entries| (entries, prefix)))
        .flat_map(|(entries, prefix)| {
            entries.flatten().filter_map(move |entry| {
                let major = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
                Some((major, entry.path().join("bin")))
            })
        })
        .collect();
    found.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// The major version in `postgres (PostgreSQL) 18.1 (Debian ...)`; `19beta1` has 19.
fn major(text: &str) -> Option<u16> {
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_packagers() {
        assert_eq!(major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18.1"), Some(18));
        assert_eq!(major("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(major("no"), None);
    }
}
