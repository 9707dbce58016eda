//! [`StoreConfig`]: the configuration of a store, already validated.
//!
//! The command line reads TOML, environment and flags, and makes this. Secrets have types that print as `***`, and a
//! URL with a user or password in it is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use holdfast_secret::Secret;

use crate::config_error::ConfigError;
use crate::proxies::Host;
use crate::wrappers::hurry::Hurry;
use crate::wrappers::retry::RetryPolicy;
use crate::{Capabilities, ObjectLock, ObjectName, Proxies, Proxy};

/// Small enough that a few parts in flight fit the byte budget, large enough that 20 ms of latency do not matter.
const DEFAULT_PART_SIZE_BYTES: u64 = 8 << 20;
/// S3's own limits for all parts but the last.
const PART_SIZE_RANGE: std::ops::RangeInclusive<u64> = (5 << 20)..=(5 << 30);

/// Where the objects are. Parses and prints as a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// `s3://bucket/prefix`
    S3 {
        /// The name of the bucket.
        bucket: String,
        /// The folder in the bucket that holds every key; `None` for the whole bucket.
        prefix: Option<ObjectName>,
    },
    /// `file:///absolute/path`, taken literally (no percent-decoding).
    Directory(PathBuf),
    /// `memory:`, a new empty store with every [`crate::open`]; for tests.
    Memory,
}

impl FromStr for Location {
    type Err = ConfigError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        if url == "memory:" {
            return Ok(Self::Memory);
        }
        if let Some(path) = url.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(ConfigError::new(format!("url {url:?}"), "a directory is written file:///absolute/path"));
            }
            return Ok(Self::Directory(PathBuf::from(path)));
        }
        let Some(rest) = url.strip_prefix("s3://") else {
            return Err(ConfigError::new(format!("url {:?}", redacted(url)), "it must begin with s3:// or file://"));
        };
        if rest.contains('@') {
            return Err(ConfigError::new(
                format!("url {:?}", redacted(url)),
                "the URL must not contain credentials; use the credentials settings",
            ));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(ConfigError::new(format!("url {url:?}"), "the bucket is missing"));
        }
        let prefix = match prefix.trim_end_matches('/') {
            "" => None,
            prefix => Some(ObjectName::new(prefix).map_err(|error| {
                ConfigError::new(format!("url {url:?}"), format!("the prefix is bad: {}", error.reason))
            })?),
        };
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix: None } => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix: Some(prefix) } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Directory(path) => write!(f, "file://{}", path.display()),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

/// The URL without what is between `://` and `@`.
fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}"),
        None => url.to_owned(),
    }
}

/// Where the credentials of an S3 store come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// In the order of the AWS chain: environment, profile files, web identity token, container, instance metadata.
    #[default]
    Chain,
    /// Given in the configuration.
    Static {
        /// The access key id; not secret, but not printed either.
        access_key: Secret,
        /// The secret access key.
        secret_key: Secret,
        /// The session token of temporary credentials.
        session_token: Option<Secret>,
    },
    /// A named profile of the AWS configuration files; its `role_arn`, `credential_process` and similar settings are
    /// used.
    Profile(String),
}

/// Encryption by the object store, in addition to the repository's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// No header is sent; the bucket's default applies.
    #[default]
    None,
    /// SSE-S3: the store uses a key of its own.
    S3,
    /// SSE-KMS: the store uses a key of a key service.
    Kms {
        /// The key's id or ARN; `None` for the account's default key.
        key_id: Option<String>,
    },
    /// SSE-C: the store encrypts with our key and forgets it. Needed for every read as well.
    Customer {
        /// The 256-bit key.
        key: Secret<[u8; 32]>,
    },
}

/// The settings of an S3 store beyond its URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Config {
    /// `http://host:port` or `https://host`; `None` for AWS.
    pub endpoint: Option<String>,
    /// The region; `None` takes it from the environment or profile, otherwise `us-east-1`.
    pub region: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// PEM file of certificates to trust in addition to those of the system.
    pub ca_file: Option<PathBuf>,
    /// Where the credentials come from.
    pub credentials: Credentials,
    /// `x-amz-storage-class` of every object, e.g. `STANDARD_IA`.
    pub storage_class: Option<String>,
    /// Encryption by the object store.
    pub encryption: Encryption,
    /// Tags put on every object.
    pub tags: BTreeMap<String, String>,
    /// Locks of new objects.
    pub lock: Option<ObjectLock>,
}

/// Time limits of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the TCP connection and TLS are established.
    pub connect: Duration,
    /// The longest time in which no byte moves, and the time from sending a request to the last byte of its answer. For
    /// every 16 KiB of a body, a second is added to that.
    pub attempt: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        // Some stores need a minute to complete a large upload, and send nothing meanwhile.
        Self { connect: Duration::from_secs(5), attempt: Duration::from_mins(2) }
    }
}

/// Everything [`crate::open`] needs.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Where the objects are.
    pub location: Location,
    /// Settings of S3; ignored for other locations.
    pub s3: S3Config,
    /// What [`crate::probe`] found about the store; from the repository's record.
    pub capabilities: Capabilities,
    /// The size of the parts of an [`crate::Upload`], in bytes. Callers should use it for all parts but the last.
    pub part_size_bytes: u64,
    /// How many requests may be in flight at once.
    pub max_requests: usize,
    /// Time limits of one attempt.
    pub timeouts: Timeouts,
    /// How often and how long failed attempts are repeated.
    pub retry: RetryPolicy,
    /// Tells whether the caller has little time, and since when.
    pub hurry: Hurry,
    /// The proxies for requests to S3; none by default.
    pub proxies: Proxies,
}

impl StoreConfig {
    /// A configuration with defaults: part size 8 MiB, 16 requests in flight, credentials from the AWS chain.
    pub fn new(location: Location) -> Self {
        Self {
            location,
            s3: S3Config::default(),
            capabilities: Capabilities::default(),
            part_size_bytes: DEFAULT_PART_SIZE_BYTES,
            max_requests: 16,
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
            hurry: Hurry::default(),
            proxies: Proxies::default(),
        }
    }

    /// The proxy used for requests to the store. Without an `endpoint` here or in the environment, the host is known
    /// only at the first request; then this is the answer for AWS's usual host.
    ///
    /// # Errors
    /// Names the variable whose proxy cannot be used.
    pub fn proxy(&self) -> Result<Option<Proxy>, ConfigError> {
        let Location::S3 { bucket, .. } = &self.location else { return Ok(None) };
        if !matches!(self.s3.credentials, Credentials::Static { .. }) {
            // The credentials may come from a service that is reached by HTTPS.
            self.proxies.check_https()?;
        }
        let aws = format!("https://{bucket}.s3.{}.amazonaws.com", self.s3.region.as_deref().unwrap_or("us-east-1"));
        // If credentials are given, the SDK does not read the environment.
        let environment = match self.s3.credentials {
            Credentials::Static { .. } => None,
            // The SDK refuses a value that is not a URL.
            Credentials::Chain | Credentials::Profile(_) => {
                self.proxies.endpoint().filter(|url| Host::of_url(url).is_some())
            }
        };
        let url = self.s3.endpoint.as_deref().or(environment).unwrap_or(&aws);
        match Host::of_url(url) {
            Some(host) => self.proxies.of(host),
            None => {
                Err(ConfigError::new("endpoint".to_owned(), "no host can be found in it, so no proxy can be chosen"))
            }
        }
    }

    /// Checks the rules that the types cannot express.
    ///
    /// # Errors
    /// Refused are: a part size outside S3's limits; `max_requests` 0; an endpoint that is not a URL or holds
    /// credentials; a CA file without TLS; SSE-C without TLS, because the key would travel in clear (allowed to this
    /// machine itself).
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !PART_SIZE_RANGE.contains(&self.part_size_bytes) {
            return Err(ConfigError::new(
                format!("part_size_bytes {}", self.part_size_bytes),
                "it must be between 5 MiB and 5 GiB",
            ));
        }
        if self.max_requests == 0 {
            return Err(ConfigError::new("max_requests 0", "at least one request must be allowed"));
        }
        if !matches!(self.location, Location::S3 { .. }) {
            return Ok(());
        }
        let plain_host = match self.s3.endpoint.as_deref() {
            None => None,
            Some(endpoint) => {
                if redacted(endpoint) != endpoint {
                    return Err(ConfigError::new(
                        format!("endpoint {:?}", redacted(endpoint)),
                        "the URL must not contain credentials; use the credentials settings",
                    ));
                }
                match (endpoint.strip_prefix("http://"), endpoint.strip_prefix("https://")) {
                    (Some(host), _) if !host.is_empty() => Some(host),
                    (_, Some(host)) if !host.is_empty() => None,
                    _ => {
                        return Err(ConfigError::new(
                            format!("endpoint {endpoint:?}"),
                            "it must be http://host[:port] or https://host[:port]",
                        ));
                    }
                }
            }
        };
        if let Some(host) = plain_host {
            if self.s3.ca_file.is_some() {
                return Err(ConfigError::new("ca_file", "the endpoint does not use https"));
            }
            let local = ["127.", "localhost", "[::1]"].iter().any(|start| host.starts_with(start));
            if matches!(self.s3.encryption, Encryption::Customer { .. }) && !local {
                return Err(ConfigError::new("encryption", "SSE-C sends its key, so the endpoint must use https"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn locations_round_trip() {
        for url in ["s3://bucket", "s3://bucket/a/b", "file:///srv/backups", "memory:"] {
            assert_eq!(url.parse::<Location>().unwrap().to_string(), url);
        }
        assert_eq!("s3://b/p/".parse::<Location>().unwrap().to_string(), "s3://b/p");
    }

    #[test]
    fn bad_locations_are_refused_and_redacted() {
        for (url, text) in [
            ("bucket", "invalid url \"bucket\": it must begin with s3:// or file://"),
            ("file://relative", "invalid url \"file://relative\": a directory is written file:///absolute/path"),
            ("s3://", "invalid url \"s3://\": the bucket is missing"),
            ("s3://b/../c", "invalid url \"s3://b/../c\": the prefix is bad: a part is \".\" or \"..\""),
            (
                "s3://key:secret@b",
                "invalid url \"s3://***@b\": the URL must not contain credentials; use the credentials settings",
            ),
            ("https://key:secret@b", "invalid url \"https://***@b\": it must begin with s3:// or file://"),
        ] {
            assert_eq!(url.parse::<Location>().unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let mut config = StoreConfig::new("s3://b".parse().unwrap());
        config.s3.credentials = Credentials::Static {
            access_key: Secret::new("AKIASECRET"),
            secret_key: Secret::new("hush-secret"),
            session_token: Some(Secret::new("token-secret")),
        };
        config.s3.encryption = Encryption::Customer { key: Secret::new([0x41; 32]) };
        let text = format!("{config:?}");
        assert!(!text.contains("SECRET") && !text.contains("secret\"") && !text.contains("65"), "{text}");
    }

    #[test]
    fn validation_names_the_setting() {
        type Change = fn(&mut StoreConfig);
        let base = || StoreConfig::new("s3://b".parse().unwrap());
        assert_eq!(base().validate(), Ok(()));
        let cases: [(Change, &str); 6] = [
            (|c| c.part_size_bytes = 1, "invalid part_size_bytes 1: it must be between 5 MiB and 5 GiB"),
            (|c| c.max_requests = 0, "invalid max_requests 0: at least one request must be allowed"),
            (
                |c| c.s3.endpoint = Some("minio:9000".into()),
                "invalid endpoint \"minio:9000\": it must be http://host[:port] or https://host[:port]",
            ),
            (
                |c| c.s3.endpoint = Some("http://u:p@minio".into()),
                "invalid endpoint \"http://***@minio\": the URL must not contain credentials; use the credentials \
                 settings",
            ),
            (
                |c| {
                    c.s3.endpoint = Some("http://minio".into());
                    c.s3.ca_file = Some("/ca.pem".into());
                },
                "invalid ca_file: the endpoint does not use https",
            ),
            (
                |c| {
                    c.s3.endpoint = Some("http://minio".into());
                    c.s3.encryption = Encryption::Customer { key: Secret::new([1; 32]) };
                },
                "invalid encryption: SSE-C sends its key, so the endpoint must use https",
            ),
        ];
        for (change, text) in cases {
            let mut config = base();
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().to_string(), text);
        }
    }
}
