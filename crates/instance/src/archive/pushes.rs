//! The runs of `archive_command` that hang in a slow store, while PostgreSQL stops.
//!
//! A run is one process, started by the archiver. It has no handle here, so it is found by its command line. A run that
//! is ended has archived nothing or everything: the store's puts are whole, and the segment stays marked as waiting.

use crate::identity::Paths;
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;

/// Ends all runs of this instance's `archive_command`; returns how many there were.
pub fn end(paths: &Paths) -> usize {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours = pids.filter(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| is_push(&line, &paths.program, &paths.archive_config(), &paths.pg_wal()))
    });
    ours.filter_map(Pid::from_raw).filter(|pid| kill_process(*pid, Signal::TERM).is_ok()).count()
}

/// Whether a command line, with words that end in a zero byte, is a push with this configuration. Pure.
fn is_push(line: &[u8], program: &Path, config: &Path, pg_wal: &Path) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let has = |wanted: &[u8]| words.contains(&wanted);
    let path = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
    // A script runs as the second word, after its shell.
    let runs = words.iter().take(2).any(|word| **word == *path(program));
    // A push by somebody else names a file in another place; the archiver's is relative to the data directory.
    let segment = words.iter().rev().find(|word| !word.is_empty());
    let place = segment.is_some_and(|word| word.starts_with(b"pg_wal/") || word.starts_with(&path(pg_wal)));
    runs && has(b"wal") && has(b"push") && has(&path(config)) && place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_archiver_s_own_runs_are_ended() {
        let line = |text: &str| text.replace(' ', "\0").into_bytes();
        for (text, expected) in [
            ("/holdfast --config /c/holdfast.toml wal push pg_wal/000000010000000000000001 ", true),
            ("/bin/sh /holdfast --config /c/holdfast.toml wal push pg_wal/000000010000000000000001 ", true),
            ("/holdfast --config /c/holdfast.toml wal push --standby /wal/pg_wal/00000002.history ", true),
            ("/holdfast --config /c/holdfast.toml wal get 000000010000000000000001 pg_wal/RECOVERYXLOG ", false),
            ("/holdfast --config /c/other.toml wal push pg_wal/000000010000000000000001 ", false),
            ("/holdfast --config /c/holdfast.toml wal push /elsewhere/000000010000000000000001 ", false),
            ("grep /holdfast wal push ", false),
            ("", false),
        ] {
            let found =
                is_push(&line(text), Path::new("/holdfast"), Path::new("/c/holdfast.toml"), Path::new("/wal/pg_wal"));
            assert_eq!(found, expected, "{text}");
        }
    }
}
