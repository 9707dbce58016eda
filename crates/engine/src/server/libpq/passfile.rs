//! The password file (`passwordFromFile` of `fe-connect.c`).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use holdfast_secret::Secret;

/// The connection that needs a password.
pub(super) struct Login<'a> {
    /// The host as the user wrote it; for a Unix socket, its folder.
    pub host: &'a str,
    pub port: u16,
    pub dbname: &'a str,
    pub user: &'a str,
}

/// The password of the first line that fits. A file that others may read is not used, as in libpq: a warning reports
/// it, and the server then reports that it needs a password.
pub(super) fn find(path: &Path, wanted: &Login<'_>) -> Option<Secret> {
    let metadata = fs::metadata(path).ok()?;
    if !metadata.is_file() {
        tracing::warn!("the password file {} is not a plain file, so it is not used", path.display());
        return None;
    }
    if metadata.mode() & 0o077 != 0 {
        tracing::warn!(
            "the password file {} can be read by other users, so it is not used: run chmod 0600 on it",
            path.display()
        );
        return None;
    }
    match fs::read_to_string(path) {
        Ok(text) => {
            let text: Secret = Secret::new(text);
            text.expose().lines().find_map(|line| password(line, wanted))
        }
        Err(error) => {
            tracing::warn!("the password file {} cannot be read: {error}", path.display());
            None
        }
    }
}

/// `host:port:database:user:password`. `*` matches anything; `\` escapes a colon or another `\`.
fn password(line: &str, wanted: &Login<'_>) -> Option<Secret> {
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    let port = wanted.port.to_string();
    for value in [wanted.host, &port, wanted.dbname, wanted.user] {
        let (field, after) = field(rest)?;
        // libpq's default host for a local socket.
        let local = value.starts_with('/') && field == "localhost";
        if field != "*" && field != value && !local {
            return None;
        }
        rest = after;
    }
    Some(Secret::new(unescaped(rest)))
}

/// The field up to the next colon that is not escaped, and the text after it.
fn field(text: &str) -> Option<(String, &str)> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            ':' if !escaped => return Some((unescaped(text.get(..at)?), text.get(at + 1..)?)),
            _ => escaped = c == '\\' && !escaped,
        }
    }
    None
}

fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        plain.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    plain
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const WANTED: Login<'_> = Login { host: "db:1", port: 5432, dbname: "postgres", user: "backup" };

    #[test]
    fn the_first_line_that_fits_counts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "# db\\:1:5432:postgres:backup:no\ndb\\:1:5433:*:*:no\n\nshort\ndb\\:1:5432:*:backup:a\\:b\\\\c d\n*:*:*:*:no\n";
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(find(file.path(), &WANTED), Some(Secret::new("a:b\\c d")));
        let socket = Login { host: "/run/pg", ..WANTED };
        fs::write(file.path(), "localhost:*:*:*:local\n").unwrap();
        assert_eq!(find(file.path(), &socket), Some(Secret::new("local")));
        assert_eq!(find(file.path(), &WANTED), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "*:*:*:*:open\n").unwrap();
        for (mode, used) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(find(file.path(), &WANTED).is_some(), used, "{mode:o}");
        }
        assert_eq!(find(Path::new("/nowhere/passwords"), &WANTED), None);
    }
}
