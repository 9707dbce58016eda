//! Finds PostgreSQL's programs on this host: in a configured folder, the `PATH`, or the folders of the packages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use holdfast_pgtypes::PgVersion;

use crate::error::{Cause, Error};

/// Folders of Debian's and Red Hat's packages.
fn packaged(major: u16) -> [PathBuf; 2] {
    [PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")), PathBuf::from(format!("/usr/pgsql-{major}/bin"))]
}

/// The programs of one major version.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Finds the programs of this version. If a folder is given, no other folder is searched.
    pub(super) fn find(given: Option<&Path>, path: &[PathBuf], version: PgVersion) -> Result<Self, Error> {
        let major = version.major();
        let folders: Vec<PathBuf> = match given {
            Some(folder) => vec![folder.to_owned()],
            None => path.iter().cloned().chain(packaged(major)).collect(),
        };
        let mut found = Vec::new();
        for folder in &folders {
            match major_in(folder) {
                Some(here) if here == major => return Ok(Self { folder: folder.clone() }),
                Some(here) => found.push(format!("{} has PostgreSQL {here}", folder.display())),
                None => {}
            }
        }
        let found = match (found.is_empty(), given) {
            (false, _) => found.join(", "),
            (true, Some(folder)) => format!("{} has no program postgres that can be run", folder.display()),
            (true, None) => "there is none on the PATH or in the folders of the packages".to_owned(),
        };
        Err(Cause::NoPrograms { major, found }.into())
    }

    /// The path of a program, if it is there.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.join(name)).filter(|path| path.is_file())
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command that runs one of the programs. Its messages are in English. No `PG` variable of the caller's
    /// environment affects it.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join(name));
        for (variable, _) in std::env::vars_os() {
            if variable.to_str().is_some_and(|variable| variable.starts_with("PG")) {
                command.env_remove(variable);
            }
        }
        command.env("LC_MESSAGES", "C").env_remove("LC_ALL").stdin(Stdio::null()).current_dir("/");
        command
    }
}

/// The major version of the server in a folder.
fn major_in(folder: &Path) -> Option<u16> {
    let program = folder.join("postgres");
    if !program.is_file() {
        return None;
    }
    let output = Command::new(&program).arg("--version").stdin(Stdio::null()).output().ok()?;
    major(&String::from_utf8_lossy(&output.stdout))
}

/// The major version in `postgres (PostgreSQL) 18.1 (Debian ...)`; for `19beta1` it is 19.
fn major(text: &str) -> Option<u16> {
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version.get(..digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder_of(parent: &Path, name: &str, version: &str) -> PathBuf {
        let folder = parent.join(name);
        std::fs::create_dir(&folder).unwrap();
        let program = folder.join("postgres");
        std::fs::write(&program, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    #[test]
    fn the_version_decides_and_a_given_folder_is_the_only_one_searched() {
        let parent = tempfile::tempdir().unwrap();
        let old = folder_of(parent.path(), "old", "13.23 (Debian)");
        let new = folder_of(parent.path(), "new", "18.1");
        let path = [parent.path().to_owned(), old.clone(), new.clone()];
        assert_eq!(Programs::find(None, &path, PgVersion::V18).unwrap().folder(), new);
        assert_eq!(Programs::find(None, &path, PgVersion::V13).unwrap().folder(), old);
        let error = Programs::find(Some(&old), &path, PgVersion::V18).unwrap_err();
        let found = format!("{} has PostgreSQL 13", old.display());
        assert!(error.to_string().ends_with(&found), "{error}");
        let nothing = Programs::find(Some(parent.path()), &path, PgVersion::V18).unwrap_err();
        assert!(nothing.to_string().contains("has no program postgres that can be run"), "{nothing}");
    }

    #[test]
    fn versions_of_all_packagers() {
        assert_eq!(major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(major("no"), None);
    }
}
