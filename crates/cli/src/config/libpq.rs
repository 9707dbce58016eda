//! What libpq would find in this process: variables, home directory, user.
//!
//! It is read only by a command that connects: `wal push` and `list` do not need it.

use holdfast_engine::server::Environment;
use std::path::PathBuf;

/// Reads the environment of this process.
pub fn environment() -> Environment {
    // A value that is not valid UTF-8 is an error. If it were left out, another server or role would be used.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with("PG"))
        .collect();
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    Environment { variables, home, user: user_of(&passwd, rustix::process::geteuid().as_raw()) }
}

/// The name of a user id, if the file has it.
fn user_of(passwd: &str, id: u32) -> Option<String> {
    let id = id.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_id() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres:x:26:26::/var/lib/pgsql:/bin/sh\n";
        assert_eq!(user_of(passwd, 26).as_deref(), Some("postgres"));
        assert_eq!(user_of(passwd, 2), None);
    }
}
