//! The connection service file (`parseServiceInfo` of `fe-connect.c`).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::key_words::key_word;
use crate::error::{Cause, Error};

/// The folders in which libpq looks if `PGSYSCONFDIR` is not set, as distributions build it.
const SYSTEM_FOLDERS: [&str; 3] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/etc"];

pub(super) const FILE: &str = "pg_service.conf";

/// Reads the parameters of a service.
pub(super) fn read(
    service: &str,
    named: Option<&Path>,
    environment: &Environment,
) -> Result<Vec<(&'static str, String)>, Error> {
    let mut files: Vec<PathBuf> = match named {
        Some(path) => vec![path.to_owned()],
        None => environment.at_home(".pg_service.conf").into_iter().collect(),
    };
    match environment.variable("PGSYSCONFDIR") {
        Some(folder) => files.push(Path::new(folder).join(FILE)),
        None => files.extend(SYSTEM_FOLDERS.map(|folder| Path::new(folder).join(FILE))),
    }
    for path in &files {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            // A file that the user named must exist.
            Err(e) if e.kind() == ErrorKind::NotFound && named != Some(path) => continue,
            Err(e) => return Err(Error::file("read", path, e)),
        };
        if let Some(found) = find(&text, service).map_err(|reason| malformed(path, &reason))? {
            return Ok(found);
        }
    }
    let looked: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    Err(Cause::ConnectionParameters(format!("there is no [{service}] in {}", looked.join(", "))).into())
}

fn malformed(path: &Path, reason: &str) -> Error {
    Cause::ConnectionParameters(format!("cannot use the service file {}: {reason}", path.display())).into()
}

fn find(text: &str, service: &str) -> Result<Option<Vec<(&'static str, String)>>, String> {
    let mut found: Option<Vec<(&'static str, String)>> = None;
    for (index, line) in text.lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            found = (section.strip_suffix(']') == Some(service)).then(Vec::new);
            continue;
        }
        let Some(found) = &mut found else { continue };
        if line.starts_with("ldap") {
            return Err(format!("line {number} refers to an LDAP server, which is not supported"));
        }
        let (name, value) = line.split_once('=').ok_or_else(|| format!("line {number} has no ="))?;
        if matches!(name, "service" | "servicefile") {
            return Err(format!("line {number} names a service within a service"));
        }
        let word = key_word(name).ok_or_else(|| format!("line {number} is not a parameter of libpq"))?;
        found.push((word, value.to_owned()));
    }
    Ok(found)
}
