//! `holdfast instance archive` and `holdfast instance restore-wal`: the command line of the engine's verb that
//! PostgreSQL's request needs.
//!
//! They are in `postgresql.conf`, which must not change when an instance is promoted or an archive is configured. So
//! they decide at each call. Then this process executes the verb in its place, with its exit code and signals.

use crate::identity::Paths;
use std::ffi::OsString;
use std::path::Path;

/// What to do with a segment in `pg_wal` that PostgreSQL wants to archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Archive {
    /// No archive is configured: PostgreSQL may recycle it.
    Nothing,
    /// PostgreSQL is stopping and must not wait for the archive: a standby has the segment, and archives it.
    GiveUp,
    /// Run the program with these arguments.
    Run(Vec<OsString>),
}

/// `archive_command`. A standby is recognised by `standby.signal`, which PostgreSQL removes at the end of recovery.
pub fn archive(paths: &Paths, path: &Path) -> Archive {
    let config = paths.archive_config();
    if !config.exists() {
        return Archive::Nothing;
    }
    if paths.archive_gives_up().exists() {
        return Archive::GiveUp;
    }
    let mut words = vec![OsString::from("--config"), config.into(), "wal".into(), "push".into()];
    if paths.pgdata.join("standby.signal").exists() {
        words.push("--standby".into());
    }
    words.push(path.into());
    Archive::Run(words)
}

/// `restore_command`; `None` if no archive is configured, so it has no file.
pub fn restore(paths: &Paths, name: &str, destination: &Path) -> Option<Vec<OsString>> {
    let config = paths.archive_config();
    config.exists().then(|| {
        vec![
            OsString::from("--config"),
            config.into(),
            "wal".into(),
            "get".into(),
            "--standby".into(),
            name.into(),
            destination.into(),
        ]
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;

    #[test]
    fn the_moment_decides() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::below(folder.path(), Path::new("/holdfast"), 1);
        std::fs::create_dir_all(&paths.pgdata).unwrap();
        std::fs::create_dir_all(&paths.controller).unwrap();
        let segment = Path::new("pg_wal/000000010000000000000001");
        assert_eq!(archive(&paths, segment), Archive::Nothing);
        assert_eq!(restore(&paths, "00000002.history", segment), None);
        let config = paths.archive_config();
        std::fs::write(&config, "").unwrap();
        let config = config.display().to_string();
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let push = words(&format!("--config {config} wal push {}", segment.display()));
        assert_eq!(archive(&paths, segment), Archive::Run(push));
        std::fs::write(paths.pgdata.join("standby.signal"), "").unwrap();
        let push = words(&format!("--config {config} wal push --standby {}", segment.display()));
        assert_eq!(archive(&paths, segment), Archive::Run(push));
        std::fs::write(paths.archive_gives_up(), "").unwrap();
        assert_eq!(archive(&paths, segment), Archive::GiveUp);
        let get = words(&format!("--config {config} wal get --standby 00000002.history {}", segment.display()));
        assert_eq!(restore(&paths, "00000002.history", segment), Some(get));
    }
}
