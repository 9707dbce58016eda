//! The user PostgreSQL runs as.
//!
//! `initdb` and `postgres` refuse root. As root the kit takes the user `postgres` if it exists, and `nobody` otherwise.
//! The user must have a line in `/etc/passwd`, because `initdb` looks its own name up. Any other user keeps their own
//! identity.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::error::{KitError, Result};

/// The user and group that own a cluster and run its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseUser {
    name: String,
    ids: Option<(u32, u32)>,
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl DatabaseUser {
    /// The user for this machine and this process.
    ///
    /// # Errors
    /// [`KitError::Missing`] as root on a machine with neither `postgres` nor `nobody`.
    pub fn current() -> Result<Self> {
        let passwd = fs::read_to_string("/etc/passwd").map_err(KitError::io("read /etc/passwd"))?;
        if !is_root() {
            let uid = rustix::process::geteuid().as_raw();
            let name = entries(&passwd).find(|(_, id, _)| *id == uid).map_or("", |(name, ..)| name);
            return Ok(Self { name: name.to_owned(), ids: None });
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|wanted| entries(&passwd).find(|(name, ..)| *name == wanted))
            .map(|(name, uid, gid)| Self { name: name.to_owned(), ids: Some((uid, gid)) })
            .ok_or_else(|| KitError::Missing {
                what: "a user for PostgreSQL (`postgres` or `nobody`)".to_owned(),
                looked_at: vec!["/etc/passwd".into()],
            })
    }

    /// The user's name in `/etc/passwd`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the command run as this user. It changes nothing if this process already runs as that user.
    ///
    /// Supplementary groups are dropped, and the working directory becomes `/`. The working directory of root's test
    /// run may be unreadable for the user, and PostgreSQL's tools complain about that.
    ///
    /// Variables that name a proxy are removed: the servers of the tests are on this machine.
    pub fn drop_to<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid).current_dir("/").env("HOME", "/").env("USER", &self.name);
        }
        command
    }

    /// Gives one file or folder to this user.
    pub fn own(&self, path: &Path) -> Result<()> {
        let Some((uid, gid)) = self.ids else { return Ok(()) };
        chown(path, Some(uid), Some(gid)).map_err(KitError::io(format!("give {} to {}", path.display(), self.name)))
    }

    /// Gives a folder and everything below it to this user. Symbolic links are neither followed nor changed.
    pub fn own_tree(&self, root: &Path) -> Result<()> {
        if self.ids.is_none() {
            return Ok(());
        }
        let mut waiting = vec![root.to_path_buf()];
        while let Some(path) = waiting.pop() {
            let action = format!("give {} to {}", path.display(), self.name);
            let kind = fs::symlink_metadata(&path).map_err(KitError::io(action.clone()))?.file_type();
            if kind.is_symlink() {
                continue;
            }
            self.own(&path)?;
            if kind.is_dir() {
                for entry in fs::read_dir(&path).map_err(KitError::io(action.clone()))? {
                    waiting.push(entry.map_err(KitError::io(action.clone()))?.path());
                }
            }
        }
        Ok(())
    }
}

/// Makes the command run as the user of the clusters of this process, see [`DatabaseUser::drop_to`].
pub fn run_as_postgres(command: &mut Command) -> Result<&mut Command> {
    Ok(DatabaseUser::current()?.drop_to(command))
}

/// The name, user id and group id of each line that has all three.
fn entries(passwd: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some((name, uid, gid))
    })
}
