//! Our own command line for PostgreSQL: `archive_command` and `restore_command`.
//!
//! PostgreSQL replaces `%p`, `%f` and `%%` in the text and passes it to `/bin/sh`, in the environment of the server.

use super::Context;
use crate::failure::Failure;

/// The command line of this binary with its configuration file and these words, which are not quoted.
pub(super) fn of_self(context: &Context, words: &str) -> Result<String, Failure> {
    let binary = std::env::current_exe()
        .map_err(|error| Failure::internal("the path of this program cannot be found").caused_by(Some(&error)))?;
    let mut line = quoted(&binary.to_string_lossy());
    if let Some(file) = &context.config_file {
        line.push_str(" --config ");
        line.push_str(&quoted(&file.to_string_lossy()));
    }
    line.push(' ');
    line.push_str(words);
    Ok(line)
}

/// A word for the shell, with the percent signs doubled for PostgreSQL.
fn quoted(word: &str) -> String {
    shell_word(&word.replace('%', "%%"))
}

pub(super) fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// A line of `postgresql.conf`.
pub(super) fn setting(name: &str, value: &str) -> String {
    format!("{name} = '{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell_and_postgresql() {
        assert_eq!(quoted("/usr/bin/holdfast"), "/usr/bin/holdfast");
        assert_eq!(quoted("/a b/it's"), "'/a b/it'\\''s'");
        assert_eq!(quoted("/a%p"), "'/a%%p'");
        assert_eq!(setting("archive_command", "'/a b/h' wal push %p"), "archive_command = '''/a b/h'' wal push %p'");
    }
}
