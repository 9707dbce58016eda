//! What of the environment the configuration depends on, and so the server's environment needs as well: PostgreSQL
//! starts `archive_command` and `restore_command` in its own.

use crate::config::repository::Encryption;
use crate::config::written::SECTIONS;
use crate::config::{Config, environment};
use holdfast_store::{Credentials, Location};

/// Of these the AWS chain takes the first credentials; files and instance roles are there for every process.
const AWS: [&str; 6] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
];

/// The names of the variables, those of ours first. `variables` are all that begin as ours do.
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
