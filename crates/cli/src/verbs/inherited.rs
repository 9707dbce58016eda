//! The environment variables that the configuration needs. The server's environment must have them too: PostgreSQL
//! starts `archive_command` and `restore_command` in its own.

use crate::config::repository::Encryption;
use crate::config::written::SECTIONS;
use crate::config::{Config, environment};
use holdfast_store::{Credentials, Location};

/// The AWS credential chain reads these variables first; files and instance roles exist for every process.
const AWS: [&str; 6] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
];

/// The names of the variables, ours first. `variables` are all that begin with our prefix.
pub(crate) fn variables(config: &Config, variables: &[(String, String)]) -> Vec<String> {
    let ours = |name: &&String| {
        SECTIONS.iter().any(|(section, _)| name.starts_with(&environment::variable_name(section, 0, "")))
    };
    let mut names: Vec<String> = variables.iter().map(|(name, _)| name).filter(ours).cloned().collect();
    let chain = config.repositories.iter().any(|repository| {
        matches!(repository.location(), Location::S3 { .. }) && *repository.credentials() == Credentials::Chain
    });
    if chain {
        names.extend(AWS.iter().filter(|name| std::env::var_os(name).is_some()).map(|name| (*name).to_owned()));
    }
    for repository in &config.repositories {
        if let Encryption::PassphraseVariable(name) = &repository.encryption {
            names.push(name.clone());
        }
    }
    names.dedup();
    names
}
