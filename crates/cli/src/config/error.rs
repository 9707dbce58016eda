//! The errors of a configuration. Every variant has the key and where it was written, and never a secret value.

use super::origin::Origin;
use crate::exit_code::ExitCode;
use crate::failure::{Explain, Failure};
use std::path::PathBuf;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file is not text in UTF-8.
    #[error("not UTF-8 {origin}: the byte 0x{byte:02X}")]
    NotUtf8 {
        /// Where it was written.
        origin: Origin,
        /// The first byte that is not UTF-8.
        byte: u8,
    },
    /// The file is not TOML.
    #[error("syntax error {origin}: {reason}")]
    Syntax {
        /// Where it was written.
        origin: Origin,
        /// The parser's message.
        reason: String,
    },
    /// A key that does not exist.
    #[error("unknown key `{key}` {origin}")]
    UnknownKey {
        /// The key with its section.
        key: String,
        /// Where it was written.
        origin: Origin,
        /// What was probably meant, and what is possible.
        hint: String,
    },
    /// A variable of one of our sections with an unknown key.
    #[error("unknown environment variable {name}")]
    UnknownVariable {
        name: String,
        /// The section that its name begins with.
        section: String,
        /// The key that was probably meant.
        suggestion: Option<String>,
    },
    #[error("the environment variable {name} is not valid UTF-8")]
    VariableNotText {
        /// The variable.
        name: String,
    },
    /// A variable with a repository number that is not 2 to 16.
    #[error("the environment variable {name} has a repository number that is not valid")]
    RepositoryNumber {
        /// The variable.
        name: String,
        /// The variable for the first repository.
        first: String,
    },
    /// A value with the wrong type for its key.
    #[error("wrong value for `{key}` {origin}: {reason}")]
    WrongType {
        /// The key with its section, such as `backup.jobs`.
        key: String,
        /// Where it was written.
        origin: Origin,
        /// The expected type.
        reason: String,
    },
    /// A value that is not allowed.
    #[error("invalid {key}{}: {reason}{}", shown(value.as_deref()), place(origin.as_ref()))]
    Invalid {
        /// The key with its section, such as `backup.jobs`.
        key: String,
        /// The value, unless it is secret.
        value: Option<String>,
        /// Where it was written.
        origin: Option<Origin>,
        /// Why it is not allowed.
        reason: String,
    },
    /// A variable about proxies that cannot be used. Its value may contain a password, and is not shown.
    #[error("the environment variable {variable} {}: {reason}",
        if variable.eq_ignore_ascii_case("no_proxy") {
            "does not hold a usable list of hosts"
        } else {
            "does not name a usable proxy"
        })]
    Proxy {
        /// The name of the variable, such as `https_proxy`.
        variable: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A required value is missing.
    #[error("`{key}` is not set")]
    Missing {
        /// The key with its section, such as `backup.jobs`.
        key: String,
        /// What to write.
        hint: String,
    },
    /// A repository without an encryption setting.
    #[error("repository {url} does not say how it is encrypted")]
    EncryptionMissing {
        /// The URL, redacted.
        url: String,
    },
    /// A file with a secret cannot be used.
    #[error("cannot use the {what} {}: {reason}", path.display())]
    SecretFile {
        /// "passphrase file", "key file".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
}

fn shown(value: Option<&str>) -> String {
    value.map(|value| format!(" {value:?}")).unwrap_or_default()
}

fn place(origin: Option<&Origin>) -> String {
    origin.map(|origin| format!(" ({origin})")).unwrap_or_default()
}

impl Explain for ConfigError {
    fn explain(&self) -> Failure {
        let source = std::error::Error::source(self);
        let failure = Failure::new(ExitCode::Configuration, self.to_string())
            .caused_by(source)
            .doing("reading the configuration");
        match self {
            Self::Unreadable { .. } => {
                failure.hint("name another file with --config or HOLDFAST_CONFIG, or make this one readable")
            }
            Self::NotUtf8 { .. } => failure.hint(
                "TOML is written in UTF-8: save the file in that encoding, for one from Latin-1 with iconv -f latin1 -t utf-8",
            ),
            Self::Syntax { .. } => {
                failure.hint("the file is TOML: [section] lines, then key = value with texts in double quotes")
            }
            Self::UnknownVariable { section, suggestion, .. } => failure.hint(match suggestion {
                Some(name) => format!("did you mean {name}?"),
                None => format!(
                    "variables are named HOLDFAST_<SECTION>_<KEY>; the keys of {section} are in docs/configuration.md"
                ),
            }),
            Self::VariableNotText { .. } => failure.hint("set it to plain text, or unset it"),
            Self::RepositoryNumber { first, .. } => failure.hint(format!(
                "the first repository is {first}, without a number; further ones have the numbers 2 to 16"
            )),
            Self::Proxy { .. } => failure.hint(
                "correct it or unset it: if a proxy is set, Holdfast sends no request without it",
            ),
            Self::WrongType { .. } | Self::Invalid { .. } => {
                failure.hint("docs/configuration.md lists the values of this key")
            }
            Self::UnknownKey { hint, .. } | Self::Missing { hint, .. } => failure.hint(hint),
            Self::EncryptionMissing { .. } => failure.hint(
                "write encryption = { passphrase_file = \"/etc/holdfast/passphrase\" } or { key_file = \"...\" }, \
                 or encryption = \"none\" if everyone who can read the store may read the database",
            ),
            Self::SecretFile { .. } => {
                failure.hint("name the right file in the configuration; the user that runs holdfast must be able to read it, and nobody else")
            }
        }
    }
}

/// The known word that `written` probably stands for, if one is close enough: up to a third of its letters may differ.
pub(super) fn nearest(written: &str, known: &[&str]) -> Option<String> {
    known
        .iter()
        // Insertions, deletions, replacements and swaps of neighbours.
        .map(|word| (strsim::osa_distance(written, word), *word))
        .min()
        .filter(|(distance, word)| *distance <= word.chars().count().div_ceil(3))
        .map(|(_, word)| word.to_owned())
}
