//! The meaning of the parameters: hosts to try, the user, the encryption, and the wanted kind of server.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_secret::Secret;
use tokio_postgres::config::{ChannelBinding, SslNegotiation};

use super::passfile::{self, Login};
use super::{Environment, Parameters, absolute, gather, refused};
use crate::error::Error;
use crate::server::tls::{TlsSettings, Trust};

/// Time limit for a server that does not answer at all; libpq would wait as long as the kernel does.
const CONNECT_WITHIN: Duration = Duration::from_mins(1);

/// How long sent data may stay without an acknowledgement: while it waits, the kernel sends no keepalives, and its own
/// limit is about 15 minutes. The limit is the same as for a connection on which nothing is sent.
const UNACKNOWLEDGED_WITHIN: Duration = Duration::from_mins(2);

/// The kernel checks after this time whether the other end of an idle connection still exists, so that a lost network
/// is noticed within minutes. The kernel's own default is two hours.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 6;

const DEFAULT_PORT: u16 = 5432;

/// `sslmode`, as far as it decides whether to encrypt; what is verified is in [`TlsSettings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum TlsMode {
    Disable,
    Allow,
    Prefer,
    Require,
}

/// `target_session_attrs`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum SessionAttributes {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl SessionAttributes {
    /// libpq's word for it.
    pub(in crate::server) fn word(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
        }
    }
}

/// A server to try, with all parameters.
#[derive(Clone)]
pub(in crate::server) struct Attempt {
    /// Complete except for `sslmode`.
    pub config: tokio_postgres::Config,
    /// Over a Unix socket there is no encryption.
    pub tls: TlsMode,
}

/// A parsed connection string.
#[derive(Clone)]
pub(in crate::server) struct ConnectionRequest {
    pub attempts: Vec<Attempt>,
    pub attributes: SessionAttributes,
    pub tls: TlsSettings,
}

/// The address of a server that was found by its data directory.
pub(in crate::server) struct LocalServer {
    pub host: String,
    pub port: u16,
}

impl ConnectionRequest {
    /// Parses `text` in this environment. `found` is called if no host is named. `password_of` is the database of the
    /// line in the password file, if it is not that of the parameters.
    pub(in crate::server) fn new(
        text: Option<&str>,
        subject: &str,
        environment: &Environment,
        password_of: Option<&str>,
        found: impl FnOnce() -> Result<LocalServer, Error>,
    ) -> Result<Self, Error> {
        let mut parameters = gather(text, subject, environment)?;
        if !parameters.contains_key("host") && !parameters.contains_key("hostaddr") {
            let LocalServer { host, port } = found()?;
            parameters.insert("host", host);
            parameters.entry("port").or_insert_with(|| port.to_string());
            if text.is_none() {
                parameters.entry("user").or_insert_with(|| "postgres".to_owned());
                parameters.entry("dbname").or_insert_with(|| "postgres".to_owned());
            }
        }
        Reader { parameters: &parameters, subject, environment, password_of }.wanted()
    }
}

struct Reader<'a> {
    parameters: &'a Parameters,
    subject: &'a str,
    environment: &'a Environment,
    password_of: Option<&'a str>,
}

impl Reader<'_> {
    fn get(&self, word: &str) -> Option<&str> {
        self.parameters.get(word).map(String::as_str)
    }

    fn refused(&self, reason: impl std::fmt::Display) -> Error {
        refused(self.subject, reason)
    }

    /// One of these words; the first one is the default.
    fn one_of<T: Copy>(&self, word: &str, known: &[(&str, T)], default: T) -> Result<T, Error> {
        let Some(value) = self.get(word) else { return Ok(default) };
        known.iter().find(|(name, _)| *name == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            self.refused(format!("{word} must be one of {}", names.join(", ")))
        })
    }

    fn number(&self, word: &str) -> Result<Option<i64>, Error> {
        let parsed = self.get(word).map(|value| value.trim().parse::<i64>());
        parsed.transpose().map_err(|_| self.refused(format!("{word} must be a whole number")))
    }

    /// A number of seconds; zero or less means no limit.
    fn seconds(&self, word: &str) -> Result<Option<Duration>, Error> {
        let positive = |seconds: i64| u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
        Ok(self.number(word)?.and_then(positive).map(Duration::from_secs))
    }

    fn list(&self, word: &str) -> Vec<&str> {
        self.get(word).map(|value| value.split(',').map(str::trim).collect()).unwrap_or_default()
    }

    fn wanted(&self) -> Result<ConnectionRequest, Error> {
        let (mode, tls) = self.tls()?;
        let attributes = self.one_of(
            "target_session_attrs",
            &[
                ("any", SessionAttributes::Any),
                ("read-write", SessionAttributes::ReadWrite),
                ("read-only", SessionAttributes::ReadOnly),
                ("primary", SessionAttributes::Primary),
                ("standby", SessionAttributes::Standby),
                ("prefer-standby", SessionAttributes::PreferStandby),
            ],
            SessionAttributes::Any,
        )?;
        self.one_of("gssencmode", &[("disable", ()), ("prefer", ())], ())?;
        let (hosts, addresses, ports) = (self.list("host"), self.list("hostaddr"), self.list("port"));
        let count = hosts.len().max(addresses.len());
        if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
            return Err(self.refused("host and hostaddr must name as many servers"));
        }
        if ports.len() > 1 && ports.len() != count {
            return Err(self.refused("port must name one port, or as many as there are hosts"));
        }
        let mut attempts = Vec::new();
        for index in 0..count {
            let host = hosts.get(index).copied().filter(|host| !host.is_empty());
            let address = addresses.get(index).copied().filter(|address| !address.is_empty());
            let port = match ports.get(index).or(ports.first()).copied().filter(|port| !port.is_empty()) {
                None => DEFAULT_PORT,
                Some(port) => port
                    .parse()
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(|| self.refused("port must be a number from 1 to 65535"))?,
            };
            attempts.push(self.attempt(host, address, port, mode)?);
        }
        Ok(ConnectionRequest { attempts, attributes, tls })
    }

    fn attempt(&self, host: Option<&str>, address: Option<&str>, port: u16, mode: TlsMode) -> Result<Attempt, Error> {
        let mut config = tokio_postgres::Config::new();
        let name = host.or(address).unwrap_or("localhost");
        let is_socket = address.is_none() && name.starts_with(['/', '@']);
        if name.starts_with('@') {
            return Err(self.refused("sockets in the abstract namespace are not supported"));
        }
        config.host(name).port(port);
        if let Some(address) = address {
            let parsed: IpAddr = address.parse().map_err(|_| self.refused("hostaddr must be an IP address"))?;
            config.hostaddr(parsed);
        }
        let user = self.get("user").or(self.environment.user.as_deref());
        if let Some(user) = user {
            config.user(user);
        }
        let dbname = self.get("dbname").or(user);
        if let Some(dbname) = dbname {
            config.dbname(dbname);
        }
        let passfile = match self.get("passfile") {
            Some(path) => Some(absolute("passfile", path, self.subject)?.to_owned()),
            None => self.environment.at_home(".pgpass"),
        };
        let found = || {
            let wanted = Login { host: name, port, dbname: self.password_of.or(dbname)?, user: user? };
            passfile::find(&passfile?, &wanted)
        };
        if let Some(password) = self.get("password").map(Secret::from).or_else(found) {
            config.password(password.expose());
        }
        if let Some(options) = self.get("options") {
            config.options(options);
        }
        config.application_name(self.get("application_name").unwrap_or("holdfast"));
        match self.number("connect_timeout")? {
            None => drop(config.connect_timeout(CONNECT_WITHIN)),
            Some(_) => {
                if let Some(timeout) = self.seconds("connect_timeout")? {
                    config.connect_timeout(timeout);
                }
            }
        }
        config.keepalives(self.number("keepalives")? != Some(0));
        config.keepalives_idle(self.seconds("keepalives_idle")?.unwrap_or(KEEPALIVE_IDLE));
        config.keepalives_interval(self.seconds("keepalives_interval")?.unwrap_or(KEEPALIVE_INTERVAL));
        let count =
            self.number("keepalives_count")?.and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0);
        config.keepalives_retries(count.unwrap_or(KEEPALIVE_COUNT));
        // Milliseconds, unlike the other times; 0 leaves it to the kernel.
        match self.number("tcp_user_timeout")? {
            None => drop(config.tcp_user_timeout(UNACKNOWLEDGED_WITHIN)),
            Some(milliseconds) => {
                if let Ok(milliseconds @ 1..) = u64::try_from(milliseconds) {
                    config.tcp_user_timeout(Duration::from_millis(milliseconds));
                }
            }
        }
        config.channel_binding(
            self.one_of("channel_binding", &[("disable", ()), ("prefer", ()), ("require", ())], ()).map(
                |()| match self.get("channel_binding") {
                    Some("disable") => ChannelBinding::Disable,
                    Some("require") => ChannelBinding::Require,
                    _ => ChannelBinding::Prefer,
                },
            )?,
        );
        let direct = self.one_of("sslnegotiation", &[("postgres", false), ("direct", true)], false)?;
        if direct && !is_socket {
            if mode != TlsMode::Require {
                return Err(self.refused("sslnegotiation=direct needs sslmode=require, verify-ca or verify-full"));
            }
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        Ok(Attempt { config, tls: if is_socket { TlsMode::Disable } else { mode } })
    }

    fn tls(&self) -> Result<(TlsMode, TlsSettings), Error> {
        let system = self.get("sslrootcert") == Some("system");
        let default = if system { "verify-full" } else { "prefer" };
        let word = self.get("sslmode").unwrap_or(default);
        let mode = match word {
            "disable" => TlsMode::Disable,
            "allow" => TlsMode::Allow,
            "prefer" => TlsMode::Prefer,
            "require" | "verify-ca" | "verify-full" => TlsMode::Require,
            _ => {
                return Err(
                    self.refused("sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full")
                );
            }
        };
        if system && word != "verify-full" {
            return Err(self.refused("sslrootcert=system needs sslmode=verify-full"));
        }
        let roots = match self.get("sslrootcert") {
            Some("system") => None,
            Some(path) => Some(absolute("sslrootcert", path, self.subject)?.to_owned()),
            None => self.environment.at_home(".postgresql/root.crt"),
        };
        let (there, named) = (roots.as_deref().is_some_and(Path::exists), self.get("sslrootcert").is_some());
        let trust = match (mode, system, roots) {
            (TlsMode::Disable, ..) => Trust::Anyone,
            (_, true, _) => Trust::System,
            // As libpq: an existing root certificate is used, also by `require` and weaker modes.
            (_, _, Some(roots)) if there || (word.starts_with("verify") && named) => {
                Trust::Roots { file: roots, names: word == "verify-full" }
            }
            _ if word.starts_with("verify") => {
                return Err(self.refused(format!("sslmode={word} needs sslrootcert, the file of the CA's certificate")));
            }
            _ => Trust::Anyone,
        };
        let client = self.client_certificate(mode)?;
        let versions = [("TLSv1", 0), ("TLSv1.1", 0), ("TLSv1.2", 2), ("TLSv1.3", 3)];
        let least = self.one_of("ssl_min_protocol_version", &versions, 2)?;
        let most = self.one_of("ssl_max_protocol_version", &versions, 3)?;
        if most < 2 || least > most {
            return Err(self.refused("there is no version of TLS between ssl_min_protocol_version and ssl_max_protocol_version: 1.2 and 1.3 are supported"));
        }
        let sni = self.one_of("sslsni", &[("1", true), ("0", false)], true)?;
        Ok((mode, TlsSettings { trust, client, tls12: least <= 2, tls13: most >= 3, sni }))
    }

    /// The client's certificate and key.
    fn client_certificate(&self, mode: TlsMode) -> Result<Option<(PathBuf, PathBuf)>, Error> {
        let send = self.one_of("sslcertmode", &[("allow", true), ("disable", false)], true)?;
        if !send || mode == TlsMode::Disable {
            return Ok(None);
        }
        let file = |word: &str, name: &str| match self.get(word) {
            Some(path) => absolute(word, path, self.subject).map(|path| Some(path.to_owned())),
            None => Ok(self.environment.at_home(name)),
        };
        let certificate = file("sslcert", ".postgresql/postgresql.crt")?;
        let key = file("sslkey", ".postgresql/postgresql.key")?;
        let wanted = self.get("sslcert").is_some() || certificate.as_deref().is_some_and(Path::exists);
        match (certificate, key) {
            (Some(certificate), Some(key)) if wanted => Ok(Some((certificate, key))),
            (Some(_), None) if wanted => Err(self.refused("sslcert needs sslkey")),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use std::collections::BTreeMap;

    use tokio_postgres::config::Host;

    use super::*;

    fn wanted(text: Option<&str>, variables: &[(&str, &str)]) -> Result<ConnectionRequest, Error> {
        let environment = Environment {
            variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            home: None,
            user: Some("me".to_owned()),
        };
        ConnectionRequest::new(text, "cluster.connection", &environment, None, || {
            Ok(LocalServer { host: "/found".to_owned(), port: 5999 })
        })
    }

    fn shown(text: Option<&str>, variables: &[(&str, &str)]) -> Vec<String> {
        let describe = |attempt: &Attempt| {
            let config = &attempt.config;
            let host = match config.get_hosts().first().unwrap() {
                Host::Tcp(name) => name.clone(),
                Host::Unix(path) => path.display().to_string(),
            };
            let part = |value: Option<&str>| value.unwrap_or("-").to_owned();
            format!(
                "{host}:{} {}@{} {:?}",
                config.get_ports().first().unwrap(),
                part(config.get_user()),
                part(config.get_dbname()),
                attempt.tls
            )
        };
        wanted(text, variables).unwrap().attempts.iter().map(describe).collect()
    }

    #[test]
    fn without_a_host_the_data_directory_says_where_the_server_listens() {
        assert_eq!(shown(None, &[]), ["/found:5999 postgres@postgres Disable"]);
        assert_eq!(shown(None, &[("PGUSER", "u")]), ["/found:5999 u@postgres Disable"]);
        assert_eq!(shown(Some("user=u dbname=d"), &[]), ["/found:5999 u@d Disable"]);
        assert_eq!(shown(None, &[("PGHOST", "db"), ("PGPORT", "5433")]), ["db:5433 me@me Prefer"]);
    }

    #[test]
    fn hosts_are_tried_in_their_order_each_with_its_port() {
        assert_eq!(
            shown(Some("host=a,/run/b,c port=1,2,3 user=u dbname=d sslmode=require"), &[]),
            ["a:1 u@d Require", "/run/b:2 u@d Disable", "c:3 u@d Require"]
        );
        assert_eq!(shown(Some("host=a,b user=u"), &[]), ["a:5432 u@u Prefer", "b:5432 u@u Prefer"]);
    }

    #[test]
    fn a_lost_network_is_noticed_while_data_waits_for_its_acknowledgement() {
        let limit = |text: &str| {
            let wanted = wanted(Some(text), &[]).unwrap();
            wanted.attempts[0].config.get_tcp_user_timeout().copied()
        };
        assert_eq!(limit("host=a"), Some(UNACKNOWLEDGED_WITHIN));
        assert_eq!(limit("host=a tcp_user_timeout=5000"), Some(Duration::from_secs(5)));
        assert_eq!(limit("host=a tcp_user_timeout=0"), None);
    }

    #[test]
    fn a_replication_connection_has_a_line_of_its_own_in_the_password_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pass");
        std::fs::write(&file, "db:5432:postgres:u:ordinary\ndb:5432:replication:u:streams\n").unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let text = format!("host=db user=u dbname=postgres passfile={}", file.display());
        let environment = Environment { variables: BTreeMap::default(), home: None, user: None };
        for (password_of, expected) in [(None, "ordinary"), (Some("replication"), "streams")] {
            let found = || unreachable!("the host is named");
            let wanted =
                ConnectionRequest::new(Some(&text), "cluster.connection", &environment, password_of, found).unwrap();
            assert_eq!(wanted.attempts[0].config.get_password(), Some(expected.as_bytes()), "{password_of:?}");
        }
    }

    #[test]
    fn impossible_values_are_refused_with_their_keyword() {
        for (text, expected) in [
            ("host=a port=many", "port must be a number from 1 to 65535"),
            ("host=a,b port=1,2,3", "port must name one port, or as many as there are hosts"),
            ("host=a sslmode=maybe", "sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full"),
            ("host=a sslmode=verify-full", "sslmode=verify-full needs sslrootcert, the file of the CA's certificate"),
            ("host=a sslrootcert=system sslmode=require", "sslrootcert=system needs sslmode=verify-full"),
            ("host=a sslrootcert=root.crt", "sslrootcert must be an absolute path"),
            ("host=a gssencmode=require", "gssencmode must be one of disable, prefer"),
            ("hostaddr=db", "hostaddr must be an IP address"),
            ("host=a connect_timeout=soon", "connect_timeout must be a whole number"),
            (
                "host=a target_session_attrs=best",
                "target_session_attrs must be one of any, read-write, read-only, primary, standby, prefer-standby",
            ),
        ] {
            let error = wanted(Some(text), &[]).err().unwrap().to_string();
            assert_eq!(error, format!("cannot use cluster.connection: {expected}"), "{text}");
        }
    }
}
