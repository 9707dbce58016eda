//! Where the programs of a PostgreSQL major are.
//!
//! Looked for in this order: the setting `HOLDFAST_PG<major>_BIN` (environment, then the file of the cache) and
//! Debian's `/usr/lib/postgresql/<major>/bin`. The servers of 13, 14, 16 and 17 have no client tools. The kit takes
//! these from a newer major, which PostgreSQL supports for `psql`, `pg_basebackup` and `pg_dump`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{KitError, Result};
use crate::settings;

/// The majors Holdfast supports, oldest first.
pub const MAJORS: [u16; 7] = [13, 14, 15, 16, 17, 18, 19];

/// The programs of one PostgreSQL major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    major: u16,
    bin: PathBuf,
}

impl Installation {
    /// The installation of a major.
    ///
    /// # Errors
    /// [`KitError::Missing`] with the places where it looked.
    pub fn find(major: u16) -> Result<Self> {
        let candidates: Vec<PathBuf> = settings::get(&format!("HOLDFAST_PG{major}_BIN"))
            .map(PathBuf::from)
            .into_iter()
            .chain([PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))])
            .collect();
        candidates
            .iter()
            .find(|bin| bin.join("postgres").is_file() && bin.join("initdb").is_file())
            .map(|bin| Self { major, bin: bin.clone() })
            .ok_or(KitError::Missing { what: format!("PostgreSQL {major}"), looked_at: candidates })
    }

    /// The installation of a major. If it is missing, it prints why and returns nothing: a visible skip.
    ///
    /// # Panics
    /// In CI, where a missing server is a failure, unless `scripts/provision` has left `HOLDFAST_PG<major>_ABSENT`: the
    /// reason why a server cannot be had that is not released yet. `scripts/test` prints that reason at its end.
    pub fn or_skip(major: u16) -> Option<Self> {
        let skipped = |error: KitError| match settings::get(&format!("HOLDFAST_PG{major}_ABSENT")) {
            Some(reason) => settings::skip_in_ci_too(&format!("PostgreSQL {major} cannot be had: {reason}")),
            None => settings::skip(&error.to_string()),
        };
        Self::find(major).map_err(skipped).ok()
    }

    /// Every installation of this machine, oldest first; each missing one is a visible skip, see [`Self::or_skip`].
    pub fn all() -> Vec<Self> {
        MAJORS.into_iter().filter_map(Self::or_skip).collect()
    }

    /// The major version, 13 to 19.
    pub fn major(&self) -> u16 {
        self.major
    }

    /// The folder with `initdb`, `postgres` and `pg_ctl`.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A command for a program of this installation, whether it exists or not.
    pub fn command(&self, program: &str) -> Command {
        Command::new(self.bin.join(program))
    }

    /// The path of a program of this very installation, as `pg_waldump` needs it; nothing if the installation does not
    /// have it.
    pub fn program(&self, program: &str) -> Option<PathBuf> {
        Some(self.bin.join(program)).filter(|path| path.is_file())
    }

    /// The path of a client program from this installation, or else from the next newer installation that has it.
    ///
    /// # Errors
    /// [`KitError::Missing`] if neither this major nor a newer installed one has it.
    pub fn client(&self, program: &str) -> Result<PathBuf> {
        let newer = MAJORS.into_iter().filter(|major| *major >= self.major);
        let found = newer.filter_map(|major| {
            if major == self.major { self.program(program) } else { Self::find(major).ok()?.program(program) }
        });
        found.into_iter().next().ok_or_else(|| KitError::Missing {
            what: format!("`{program}` for PostgreSQL {}", self.major),
            looked_at: vec![self.bin.clone()],
        })
    }
}
