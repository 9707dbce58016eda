//! Root runs a command for somebody else: PostgreSQL never runs as root, and must be able to use what was created.
//!
//! In an existing directory, new files belong to the directory's owner (the directory store does this), and so does a
//! file for PostgreSQL. Here the rest is handled: the directory of a new repository, and the spool.

use super::Context;
use crate::config::repository::Repository as Configured;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use holdfast_store::Location;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};

/// User and group for whom root acts: the owner of the first of these paths that exists and does not belong to root.
/// `None` if the user is not root.
pub(super) fn acting_for<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let owners = paths.into_iter().filter_map(|path| std::fs::metadata(path).ok());
    owners.map(|found| (found.uid(), found.gid())).find(|(user, _)| *user != 0)
}

/// User and group of this name.
pub(super) fn user_named(wanted: &str) -> Option<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_wanted = fields.next()? == wanted;
        let user = fields.nth(1)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        is_wanted.then_some((user, group))
    })
}

/// The directories of a repository that will be created, and their owner.
#[derive(Debug)]
pub(super) struct ToBeMade {
    directories: Vec<PathBuf>,
    owner: Option<(u32, u32)>,
}

/// Checks where a repository will be created. Root may not create one where PostgreSQL's user could not use it.
pub(super) fn before_making(context: &Context, configured: &Configured) -> Result<ToBeMade, Failure> {
    let owner = acting_for(context.config.cluster.pgdata.as_deref());
    let mut made = ToBeMade { directories: Vec::new(), owner };
    let (Some((user, _)), Location::Directory(path)) = (owner, configured.location()) else { return Ok(made) };
    match std::fs::metadata(path) {
        Ok(found) if found.uid() != user => {
            let shown = path.display();
            return Err(Failure::new(
                ExitCode::Configuration,
                format!(
                    "{shown} belongs to the user with id {}, but the data directory belongs to the user with id \
                     {user}: PostgreSQL's `wal push` could not use what root creates there",
                    found.uid()
                ),
            )
            .hint(format!(
                "give {shown} to the user that PostgreSQL runs as (chown), or name another directory in `url`"
            )));
        }
        Ok(_) => {}
        Err(_) => {
            let missing = path.ancestors().take_while(|path| !path.exists());
            made.directories.extend(missing.map(Path::to_path_buf));
        }
    }
    Ok(made)
}

impl ToBeMade {
    /// Gives the created directories to their owner.
    pub(super) fn hand_over(self) -> Result<(), Failure> {
        let Some((user, group)) = self.owner else { return Ok(()) };
        for directory in self.directories {
            lchown(&directory, Some(user), Some(group)).map_err(|error| {
                Failure::new(
                    ExitCode::UnwritableFile,
                    format!("cannot give {} to the user with id {user}: {error}", directory.display()),
                )
                .hint("run this as the user that PostgreSQL runs as (sudo -u postgres)")
            })?;
        }
        Ok(())
    }
}
