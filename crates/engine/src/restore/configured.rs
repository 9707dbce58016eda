//! The data directory that the restored configuration names. `data_directory` in `postgresql.conf` is stronger than
//! `pg_ctl -D`: a server that is started in the restored directory would run in the other one, which may be the
//! original.
//!
//! Only `postgresql.conf` and its includes can set it: PostgreSQL does not take it from `postgresql.auto.conf`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// PostgreSQL's limit is 10 (`CONF_FILE_MAX_DEPTH`, `guc-file.l`).
const MAX_DEPTH: u32 = 10;

/// The directory in which a server would run that is started in `pgdata`, if it is another one. Files that cannot be
/// read are left out: the server could not start with them. Blocks.
pub(super) fn other_data_directory(pgdata: &Path) -> Option<PathBuf> {
    let mut found = None;
    read(&pgdata.join("postgresql.conf"), 0, &mut found);
    let found = pgdata.join(found?);
    let is_same = fs::canonicalize(&found).is_ok_and(|there| fs::canonicalize(pgdata).is_ok_and(|here| here == there));
    (!is_same).then_some(found)
}

fn read(path: &Path, depth: u32, found: &mut Option<PathBuf>) {
    let Ok(content) = fs::read(path) else { return };
    if depth > MAX_DEPTH {
        return;
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    for (name, value) in content.split(|byte| *byte == b'\n').filter_map(setting) {
        let value = PathBuf::from(OsStr::from_bytes(&value));
        match name.as_str() {
            "data_directory" => *found = Some(value),
            "include" | "include_if_exists" => read(&folder.join(value), depth + 1, found),
            "include_dir" => {
                for file in files_of(&folder.join(value)) {
                    read(&file, depth + 1, found);
                }
            }
            _ => {}
        }
    }
}

/// The files that `include_dir` reads, in their order.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let is_read = |path: &PathBuf| {
        let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
        name.ends_with(b".conf") && !name.starts_with(b".")
    };
    files.retain(is_read);
    files.sort_unstable();
    files
}

/// The name, in lower case, and the value of a line, as the grammar in `guc-file.l` has it.
fn setting(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let line = line.trim_ascii();
    let end = line.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"_.$".contains(byte)))?;
    let name = String::from_utf8_lossy(&line[..end]).to_ascii_lowercase();
    let rest = line[end..].trim_ascii_start();
    let rest = rest.strip_prefix(b"=").unwrap_or(rest).trim_ascii_start();
    let Some(quoted) = rest.strip_prefix(b"'") else {
        let end = rest.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'#').unwrap_or(rest.len());
        return (!name.is_empty() && end > 0).then(|| (name, rest[..end].to_vec()));
    };
    let (mut value, mut bytes) = (Vec::new(), quoted.iter().copied().peekable());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\'' if bytes.peek() == Some(&b'\'') => value.extend(bytes.next()),
            b'\'' => return Some((name, value)),
            b'\\' => value.extend(bytes.next()),
            _ => value.push(byte),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use super::*;

    #[test]
    fn lines_are_read_as_the_server_reads_them() {
        for (line, expected) in [
            ("data_directory = '/srv/it''s'", Some(("data_directory", "/srv/it's"))),
            ("  Data_Directory='/srv/pg' # here", Some(("data_directory", "/srv/pg"))),
            ("data_directory '/srv/pg'", Some(("data_directory", "/srv/pg"))),
            ("data_directory = pg#x", Some(("data_directory", "pg"))),
            ("include_dir 'conf.d'", Some(("include_dir", "conf.d"))),
            ("#data_directory = '/srv/pg'", None),
            ("data_directory = '/srv", None),
            ("", None),
        ] {
            let found = setting(line.as_bytes());
            let found = found.as_ref().map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap()));
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn the_last_setting_in_all_files_counts() {
        let folder = tempfile::tempdir().unwrap();
        let pgdata = folder.path().join("data");
        fs::create_dir_all(pgdata.join("conf.d")).unwrap();
        let write = |name: &str, text: &str| fs::write(pgdata.join(name), text).unwrap();
        assert_eq!(other_data_directory(&pgdata), None);
        write("postgresql.conf", "data_directory = '/elsewhere'\ninclude_dir 'conf.d'\ninclude 'postgresql.conf'\n");
        assert_eq!(other_data_directory(&pgdata), Some("/elsewhere".into()));
        write("postgresql.conf", "data_directory = '/elsewhere'\ninclude_dir 'conf.d'\n");
        write("conf.d/10.conf", "data_directory = '/a'\ninclude_if_exists '../more.conf'\n");
        assert_eq!(other_data_directory(&pgdata), Some("/a".into()));
        write("more.conf", "data_directory = '/b'\n");
        write("conf.d/20.conf.off", "data_directory = '/c'\n");
        assert_eq!(other_data_directory(&pgdata), Some("/b".into()));
        write("more.conf", &format!("data_directory = '{}/.'\n", pgdata.display()));
        assert_eq!(other_data_directory(&pgdata), None);
    }
}
