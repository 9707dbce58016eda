//! The folders where `scripts/provision` installed the servers, and whether this is CI.
//!
//! A setting is an environment variable, or else a line `NAME=value` of the file `env` in the cache: the variable wins,
//! so that one run can point to another server. The cache is `HOLDFAST_CACHE`, by default `/var/cache/holdfast` for
//! root (whose home other users cannot enter, while PostgreSQL has to run as another user) and `~/.cache/holdfast` for
//! anybody else. `scripts/provision` knows the same rule.

use std::env;
use std::fs;
use std::path::PathBuf;

use crate::user;

/// The folder with the servers and tools that `scripts/provision` installs.
pub fn cache() -> PathBuf {
    if let Some(path) = env::var_os("HOLDFAST_CACHE").filter(|path| !path.is_empty()) {
        return path.into();
    }
    if user::is_root() {
        return PathBuf::from("/var/cache/holdfast");
    }
    env::var_os("HOME").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from).join(".cache/holdfast")
}

/// The value of a setting from the environment or the file of the cache. An empty value counts as absent.
pub fn get(name: &str) -> Option<String> {
    if let Some(value) = env::var(name).ok().filter(|value| !value.is_empty()) {
        return Some(value);
    }
    let text = fs::read_to_string(cache().join("env")).ok()?;
    text.lines()
        .filter_map(|line| line.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}

/// Whether a missing server is a failure: `CI` is set to something other than `0` or `false`.
pub fn in_ci() -> bool {
    env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

/// Prints on standard error that a test is skipped and why, so that nobody takes it for a pass.
///
/// # Panics
/// In CI, where every tier has to run.
pub fn skip(reason: &str) {
    assert!(!in_ci(), "a test cannot be skipped in CI: {reason}");
    skip_in_ci_too(reason);
}

/// The same, but not a failure in CI either: for what nobody but its publisher can bring back.
#[expect(clippy::print_stderr, reason = "standard error is what a test runner shows of a test")]
pub fn skip_in_ci_too(reason: &str) {
    eprintln!("SKIPPED: {reason}");
}
