//! Connection parameters with libpq's rules: first the string of the configuration, then the service file, then the
//! environment, then the defaults (manual chapter "libpq", sections "Connection Strings", "Parameter Key Words",
//! "Environment Variables", "The Password File", "The Connection Service File").
//!
//! No message ever repeats the user's text: it may be a piece of a password.
//!
//! Two defaults differ from libpq's. Without a host, the server's own `postmaster.pid` gives the address, and then the
//! user is `postgres`. And a connection attempt without any answer ends after a minute.

mod conninfo;
mod environment;
mod key_words;
mod passfile;
mod service;
mod wanted;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Cause, Error};

pub use environment::Environment;
pub(super) use key_words::Parameters;
use key_words::{KEY_WORDS, Support};
pub(super) use wanted::{Attempt, ConnectionRequest, LocalServer, SessionAttributes, TlsMode};

pub(super) fn refused(subject: &str, reason: impl fmt::Display) -> Error {
    Cause::ConnectionParameters(format!("cannot use {subject}: {reason}")).into()
}

impl Environment {
    /// The files that exist here and that a connection with this string would read, each with what it is. A string that
    /// is wrong, or a service that is not there, counts as far as it can be read.
    pub fn files(&self, connection: Option<&str>) -> Vec<(&'static str, PathBuf)> {
        let written = || connection.and_then(|text| conninfo::parse(text).ok()).unwrap_or_default();
        let parameters = combine(connection, "", self).unwrap_or_else(|_| self.completed(written()));
        let mut files = Vec::new();
        for (what, word, at_home) in FILES {
            let path = parameters.get(word).map(PathBuf::from).or_else(|| self.at_home(at_home));
            files.extend(path.map(|path| (what, path)));
        }
        let system = self.variable("PGSYSCONFDIR").map(|folder| Path::new(folder).join(service::FILE));
        files.extend(system.map(|path| ("the service file", path)));
        files.retain(|(_, path)| path.is_absolute() && path.exists());
        files
    }

    /// Parameters with those that only variables give. An empty value means the default.
    fn completed(&self, mut parameters: Parameters) -> Parameters {
        for (word, variable, _) in KEY_WORDS {
            if let Some(value) = self.variable(variable) {
                parameters.entry(word).or_insert_with(|| value.to_owned());
            }
        }
        parameters.retain(|_, value| !value.is_empty());
        parameters
    }
}

/// The files of a connection: what each is, its keyword, and where it is below the home directory by default.
const FILES: [(&str, &str, &str); 5] = [
    ("the password file", "passfile", ".pgpass"),
    ("the service file", "servicefile", ".pg_service.conf"),
    ("the client's certificate", "sslcert", ".postgresql/postgresql.crt"),
    ("the client's key", "sslkey", ".postgresql/postgresql.key"),
    ("the CA's certificate", "sslrootcert", ".postgresql/root.crt"),
];

/// Combines string, service file and environment. `subject` is the configuration key of the string.
pub(super) fn gather(text: Option<&str>, subject: &str, environment: &Environment) -> Result<Parameters, Error> {
    let gathered = combine(text, subject, environment)?;
    for (word, _, support) in KEY_WORDS {
        let harmless = matches!(
            (word, gathered.get(word).map(String::as_str)),
            ("replication", Some("false" | "off" | "no" | "0"))
        );
        if support == Support::Refused && gathered.contains_key(word) && !harmless {
            return Err(refused(subject, format!("the parameter {word} of libpq is not supported")));
        }
    }
    Ok(gathered)
}

fn combine(text: Option<&str>, subject: &str, environment: &Environment) -> Result<Parameters, Error> {
    let mut gathered = match text {
        Some(text) => conninfo::parse(text).map_err(|reason| refused(subject, reason))?,
        None => Parameters::new(),
    };
    for word in ["service", "servicefile"] {
        if let Some((_, variable, _)) = KEY_WORDS.iter().find(|(known, _, _)| *known == word)
            && let Some(value) = environment.variable(variable)
        {
            gathered.entry(word).or_insert_with(|| value.to_owned());
        }
    }
    if let Some(service) = gathered.get("service").filter(|service| !service.is_empty()).cloned() {
        let file = gathered.get("servicefile").map(PathBuf::from);
        for (word, value) in service::read(&service, file.as_deref(), environment)? {
            gathered.entry(word).or_insert(value);
        }
    }
    Ok(environment.completed(gathered))
}

/// Checks that a path is absolute, so that it does not depend on the caller's current directory.
fn absolute<'p>(word: &str, path: &'p str, subject: &str) -> Result<&'p Path, Error> {
    let path = Path::new(path);
    if path.is_absolute() { Ok(path) } else { Err(refused(subject, format!("{word} must be an absolute path"))) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment {
            variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            home: None,
            user: Some("me".to_owned()),
        }
    }

    #[test]
    fn the_string_counts_before_the_service_and_that_before_the_environment() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# ours\n[other]\nhost=no\n\n[main]\nhost=service\nuser=service\nport=1\n")
            .unwrap();
        let path = file.path().display().to_string();
        let environment = environment(&[
            ("PGSERVICEFILE", &path),
            ("PGSERVICE", "main"),
            ("PGUSER", "variable"),
            ("PGDATABASE", "variable"),
            ("PGPORT", "2"),
        ]);
        let gathered = gather(Some("host=written"), "cluster.connection", &environment).unwrap();
        let found = |word: &str| gathered.get(word).map(String::as_str);
        assert_eq!(
            [found("host"), found("user"), found("port"), found("dbname")],
            [Some("written"), Some("service"), Some("1"), Some("variable")]
        );
        let refused = gather(Some("service=nothing"), "cluster.connection", &environment).unwrap_err().to_string();
        assert!(refused.contains("there is no [nothing] in"), "{refused}");
    }

    #[test]
    fn the_files_of_a_connection_are_those_that_libpq_would_read() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        std::fs::create_dir(path(".postgresql")).unwrap();
        for name in ["pass", ".pgpass", "services", "cert", "key", ".postgresql/root.crt"] {
            std::fs::write(path(name), "").unwrap();
        }
        std::fs::write(path("services"), format!("[main]\nsslkey={}\n", path("key").display())).unwrap();
        let mut environment = environment(&[("PGSSLCERT", &path("cert").display().to_string())]);
        environment.home = Some(home.path().to_owned());
        let found = |text: Option<&str>| {
            let files = environment.files(text).into_iter();
            files.map(|(what, path)| (what, path.file_name().unwrap().to_owned())).collect::<Vec<_>>()
        };
        let file = |what, name: &str| (what, std::ffi::OsString::from(name));
        let (certificate, root) = (file("the client's certificate", "cert"), file("the CA's certificate", "root.crt"));
        let default = file("the password file", ".pgpass");
        assert_eq!(found(None), [default.clone(), certificate.clone(), root.clone()]);
        let services = file("the service file", "services");
        let text = format!(
            "service=main servicefile={} passfile={} sslrootcert=system",
            path("services").display(),
            path("pass").display()
        );
        let (named, key) = (file("the password file", "pass"), file("the client's key", "key"));
        assert_eq!(found(Some(&text)), [named, services.clone(), certificate.clone(), key]);
        // With a wrong string, the parts that can be read count.
        let text = format!("service=none servicefile={} requirepeer=x", path("services").display());
        assert_eq!(found(Some(&text)), [default.clone(), services, certificate.clone(), root.clone()]);
        assert_eq!(found(Some("host=")), [default.clone(), certificate.clone(), root.clone()]);
        assert_eq!(found(Some("no string")), [default, certificate, root]);
    }

    #[test]
    fn parameters_that_cannot_be_honoured_are_refused() {
        let refused = gather(Some("host=db requirepeer=postgres"), "cluster.connection", &environment(&[]));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "cannot use cluster.connection: the parameter requirepeer of libpq is not supported"
        );
    }
}
