//! `[[repo]]`: a store's settings and the encryption of its repository.
//!
//! The settings of the store have the type of its crate. What has to be read from files (passphrase, key file, SSE-C
//! key) is only a path here. [`Repository::store_config`] and [`Encryption::key_source`] read it when a command opens
//! the repository. So `repo info` can show the configuration on a machine without the key.

use super::error::ConfigError;
use super::origin::repository_key;
use super::reader::{Reader, absolute};
use super::units;
use super::validated::Retention;
use super::written::{EncryptionTable, LockTable, RepoTable, SseTable, WordOr};
use holdfast_repo::key::PrivateKey;
use holdfast_repo::name::{SlotName, is_locked};
use holdfast_repo::record::LOCK_DAYS;
use holdfast_secret::Secret;
use holdfast_store::{
    Credentials, Encryption as ServerSide, Location, LockMode, LockTerm, ObjectLock, Proxies, S3Config, StoreConfig,
};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A larger file is not a passphrase file.
const LARGEST_SECRET_FILE: usize = 64 << 10;
/// S3 allows 10 tags on an object.
const MOST_TAGS: usize = 10;
const MOST_REQUESTS: u32 = 1024;

/// The settings of one repository.
#[derive(Clone, Debug)]
pub struct Repository {
    store: StoreConfig,
    sse_key_file: Option<PathBuf>,
    /// How it is encrypted.
    pub encryption: Encryption,
    /// The key slot to try first.
    pub slot: Option<SlotName>,
    /// Its own retention, instead of `[retention]`.
    pub retention: Option<Retention>,
}

/// How a repository is encrypted, and where its secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Not encrypted: `encryption = "none"`.
    None,
    /// A passphrase in a file; a newline at its end does not count.
    PassphraseFile(PathBuf),
    /// A passphrase in an environment variable.
    PassphraseVariable(String),
    /// A file with a key of 32 bytes, or with the private half of an X25519 key pair.
    KeyFile(PathBuf),
}

/// The secret of a repository, after it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// No secret is needed.
    None,
    /// A passphrase of any length.
    Passphrase(Secret<Vec<u8>>),
    /// The content of a key file: 32 bytes.
    Key(Secret<[u8; 32]>),
    /// The private key in a key file.
    PrivateKey(PrivateKey),
}

impl Repository {
    pub fn location(&self) -> &Location {
        &self.store.location
    }

    /// What distinguishes this place from others: URL, endpoint and region.
    pub fn place(&self) -> String {
        let S3Config { endpoint, region, .. } = &self.store.s3;
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("{} {} {}", self.store.location, part(endpoint), part(region))
    }

    /// The configured term of the locks of new objects.
    pub fn lock(&self) -> Option<LockTerm> {
        self.store.s3.lock.map(|lock| lock.term)
    }

    /// Where the store's credentials come from.
    pub fn credentials(&self) -> &Credentials {
        &self.store.s3.credentials
    }

    /// The local files that are needed to open it, and what each is.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        let opens = match &self.encryption {
            Encryption::PassphraseFile(path) => Some(("the passphrase file", path.as_path())),
            Encryption::KeyFile(path) => Some(("the key file", path.as_path())),
            Encryption::None | Encryption::PassphraseVariable(_) => None,
        };
        let ca = self.store.s3.ca_file.as_deref().map(|path| ("the CA file", path));
        let sse = self.sse_key_file.as_deref().map(|path| ("the SSE-C key file", path));
        opens.into_iter().chain(ca).chain(sse).collect()
    }

    /// The size of the parts of multipart uploads, in bytes.
    pub fn part_size_bytes(&self) -> u64 {
        self.store.part_size_bytes
    }

    /// Files with a secret of this repository that every user of this machine can read.
    pub fn secrets_open_to_all(&self) -> Vec<&Path> {
        let key = match &self.encryption {
            Encryption::PassphraseFile(path) | Encryption::KeyFile(path) => Some(path),
            Encryption::None | Encryption::PassphraseVariable(_) => None,
        };
        let files = key.into_iter().chain(&self.sse_key_file).map(PathBuf::as_path);
        files.filter(|path| is_open_to_all(path)).collect()
    }

    /// The settings of the store; reads the SSE-C key file, if one is configured. `environment` looks up a variable,
    /// for the proxies.
    pub fn store_config(&self, environment: impl Fn(&str) -> Option<OsString>) -> Result<StoreConfig, ConfigError> {
        let mut store = self.store.clone();
        store.proxies = Proxies::from_variables(environment);
        store.proxy().map_err(|error| ConfigError::Proxy { variable: error.what, reason: error.reason })?;
        if let Some(path) = &self.sse_key_file {
            store.s3.encryption = ServerSide::Customer { key: read_key("SSE-C key file", path)? };
            store.validate().map_err(|error| ConfigError::Invalid {
                key: "repo.sse".to_owned(),
                value: None,
                origin: None,
                reason: error.reason,
            })?;
        }
        Ok(store)
    }
}

impl Encryption {
    /// Reads the secret of the repository. `environment` looks up a variable.
    pub fn key_source(&self, environment: impl FnOnce(&str) -> Option<String>) -> Result<KeySource, ConfigError> {
        match self {
            Self::None => Ok(KeySource::None),
            Self::PassphraseFile(path) => {
                let passphrase = read_secret("passphrase file", path)?.without_newline();
                let unusable = |reason: &str| ConfigError::SecretFile {
                    what: "passphrase file",
                    path: path.clone(),
                    reason: reason.to_owned(),
                };
                if std::str::from_utf8(passphrase.expose()).is_err() {
                    return Err(unusable("it is not valid UTF-8"));
                }
                if passphrase.expose().is_empty() {
                    return Err(unusable("it is empty"));
                }
                Ok(KeySource::Passphrase(passphrase))
            }
            Self::PassphraseVariable(name) => match environment(name).filter(|text| !text.is_empty()) {
                Some(text) => Ok(KeySource::Passphrase(Secret::new(text))),
                None => Err(ConfigError::Missing {
                    key: format!("${name}"),
                    hint: format!(
                        "the configuration takes the passphrase from the environment variable {name}: set it"
                    ),
                }),
            },
            Self::KeyFile(path) => read_key_file(path),
        }
    }
}

/// Whether others can read a file and access the folders above it. Files of a Kubernetes volume, in a folder like
/// `..2026_11_29_10_00_00.123`, are not open to others: a pod has no other users.
pub fn is_open_to_all(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let others_may = |path: &Path, bit: u32| std::fs::metadata(path).is_ok_and(|found| found.mode() & bit != 0);
    let of_a_pod = path.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b".."));
    !of_a_pod && others_may(&path, 0o004) && path.ancestors().skip(1).all(|folder| others_may(folder, 0o001))
}

fn read_secret(what: &'static str, path: &Path) -> Result<Secret<Vec<u8>>, ConfigError> {
    let unusable = |reason: String| ConfigError::SecretFile { what, path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    if bytes.len() > LARGEST_SECRET_FILE {
        return Err(unusable("it is larger than 64 KiB".to_owned()));
    }
    Ok(Secret::new(bytes))
}

/// A key file: 32 bytes of key, or the private half of a key pair.
fn read_key_file(path: &Path) -> Result<KeySource, ConfigError> {
    let what = "key file";
    let content = read_secret(what, path)?;
    if !PrivateKey::is_meant(content.expose()) {
        return key_of(what, path, &content).map(KeySource::Key);
    }
    let text = std::str::from_utf8(content.expose()).map_err(|_| "it is not valid UTF-8".to_owned());
    let key = text.and_then(|text| PrivateKey::from_file(text).map_err(|error| error.to_string()));
    key.map(KeySource::PrivateKey).map_err(|reason| ConfigError::SecretFile { what, path: path.to_owned(), reason })
}

/// 32 bytes, raw or as 64 hexadecimal digits with or without a newline.
fn read_key(what: &'static str, path: &Path) -> Result<Secret<[u8; 32]>, ConfigError> {
    key_of(what, path, &read_secret(what, path)?)
}

fn key_of(what: &'static str, path: &Path, bytes: &Secret<Vec<u8>>) -> Result<Secret<[u8; 32]>, ConfigError> {
    if let Ok(key) = <[u8; 32]>::try_from(bytes.expose().as_slice()) {
        return Ok(Secret::new(key));
    }
    let mut key = [0; 32];
    let digits = bytes.expose().trim_ascii();
    let decoded = digits.len() == 64
        && key.iter_mut().zip(digits.chunks_exact(2)).all(|(byte, pair)| {
            let parsed = std::str::from_utf8(pair)
                .ok()
                .filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .and_then(|pair| u8::from_str_radix(pair, 16).ok());
            parsed.is_some_and(|parsed| {
                *byte = parsed;
                true
            })
        });
    if decoded {
        Ok(Secret::new(key))
    } else {
        Err(ConfigError::SecretFile {
            what,
            path: path.to_owned(),
            reason: "expected exactly 32 bytes, or 64 hexadecimal digits".to_owned(),
        })
    }
}

pub(super) fn validate(reader: &Reader<'_>, tables: Vec<RepoTable>) -> Result<Vec<Repository>, ConfigError> {
    if tables.is_empty() {
        return Err(ConfigError::Missing {
            key: "repo.url".to_owned(),
            hint: "write a [[repo]] section with url = \"s3://bucket/prefix\" or \"file:///srv/backups\", or set HOLDFAST_REPO_URL"
                .to_owned(),
        });
    }
    let mut repositories: Vec<Repository> = Vec::new();
    for (index, table) in tables.into_iter().enumerate() {
        let repository = one(reader, index, table)?;
        let same = |known: &&Repository| {
            known.location() == repository.location() && known.store.s3.endpoint == repository.store.s3.endpoint
        };
        if repositories.iter().any(|known| same(&known)) {
            let key = repository_key(index, "url");
            let reason = "another [[repo]] is in the same place";
            return Err(reader.invalid(&key, Some(&repository.location().to_string()), reason));
        }
        repositories.push(repository);
    }
    Ok(repositories)
}

fn one(reader: &Reader<'_>, index: usize, table: RepoTable) -> Result<Repository, ConfigError> {
    let RepoTable {
        url,
        endpoint,
        region,
        path_style,
        ca_file,
        encryption,
        access_key_id,
        secret_access_key,
        session_token,
        profile,
        storage_class,
        sse,
        tags,
        part_size,
        max_requests,
        retention,
        lock,
    } = table;
    let key = |name: &str| repository_key(index, name);
    let Some(url) = url else {
        return Err(ConfigError::Missing {
            key: key("url"),
            hint: format!(
                "repository {} has settings but no url: write url = \"s3://bucket/prefix\" or \"file:///srv/backups\"",
                index + 1
            ),
        });
    };
    let location: Location = url.parse().map_err(|error: holdfast_store::ConfigError| {
        // The error's own `what` has the URL without its credentials.
        let shown = error.what.strip_prefix("url ").map(|quoted| quoted.trim_matches('"').to_owned());
        reader.invalid(&key("url"), shown.as_deref(), error.reason)
    })?;
    let Some(encryption) = encryption else {
        return Err(ConfigError::EncryptionMissing { url: location.to_string() });
    };

    if let Location::Directory(_) = location {
        let only_s3 = [
            ("endpoint", endpoint.is_some()),
            ("region", region.is_some()),
            ("path_style", path_style.is_some()),
            ("ca_file", ca_file.is_some()),
            ("access_key_id", access_key_id.is_some()),
            ("secret_access_key", secret_access_key.is_some()),
            ("session_token", session_token.is_some()),
            ("profile", profile.is_some()),
            ("storage_class", storage_class.is_some()),
            ("sse", sse.is_some()),
            ("tags", tags.is_some()),
        ];
        if let Some((name, _)) = only_s3.into_iter().find(|(_, written)| *written) {
            return Err(reader.invalid(&key(name), None, "has no meaning for a repository in a directory"));
        }
    }

    let credentials =
        credentials(reader, &key, access_key_id, secret_access_key.as_ref(), session_token.as_ref(), profile)?;
    let (server_side, sse_key_file) = server_side(reader, &key("sse"), sse)?;
    let mut store = StoreConfig::new(location);
    store.s3 = S3Config {
        // The address of nearly every S3-compatible server does not contain the bucket.
        path_style: path_style.unwrap_or(endpoint.is_some()),
        endpoint,
        region,
        ca_file: reader.path(&key("ca_file"), ca_file)?,
        credentials,
        storage_class,
        encryption: server_side,
        tags: checked_tags(reader, &key("tags"), tags)?,
        lock: lock.map(|table| object_lock(reader, &key("lock"), &store.location, table)).transpose()?,
    };
    if let Some(bytes) = reader.parsed(&key("part_size"), part_size, |text| match units::size_bytes(text)? {
        bytes if !(5 << 20..=5 << 30).contains(&bytes) => Err("must be between 5MiB and 5GiB".to_owned()),
        bytes => Ok(bytes),
    })? {
        store.part_size_bytes = bytes;
    }
    if let Some(requests) = max_requests {
        store.max_requests =
            usize::try_from(requests).ok().filter(|_| (1..=MOST_REQUESTS).contains(&requests)).ok_or_else(|| {
                reader.invalid(
                    &key("max_requests"),
                    Some(&requests.to_string()),
                    format!("expected 1 to {MOST_REQUESTS}"),
                )
            })?;
    }
    store.validate().map_err(|error| {
        // The errors that only the store finds are about the endpoint and its connection.
        let name = error.what.split(' ').next().filter(|name| *name == "ca_file").unwrap_or("endpoint");
        reader.invalid(&key(name), None, error.reason)
    })?;
    let (encryption, slot) = encrypted(reader, &key("encryption"), encryption)?;
    let retention = retention.map(|table| reader.retention(&key("retention"), table)).transpose()?;
    Ok(Repository { store, sse_key_file, encryption, slot, retention })
}

fn encrypted(
    reader: &Reader<'_>,
    key: &str,
    written: WordOr<EncryptionTable>,
) -> Result<(Encryption, Option<SlotName>), ConfigError> {
    let table = match written {
        WordOr::Word(word) if word == "none" => return Ok((Encryption::None, None)),
        WordOr::Word(word) => {
            return Err(reader.invalid(
                key,
                Some(&word),
                "the only text allowed is \"none\"; otherwise write a table such as { passphrase_file = \
                 \"/etc/holdfast/passphrase\" }",
            ));
        }
        WordOr::Table(table) => table,
    };
    let EncryptionTable { passphrase_file, passphrase_env, key_file, slot } = table;
    let slot = reader.parsed(&format!("{key}.slot"), slot, |text| {
        text.parse::<SlotName>().map_err(|error| format!("expected {}", error.rule))
    })?;
    let encryption = match (passphrase_file, passphrase_env, key_file) {
        (Some(file), None, None) => absolute(&file)
            .map(Encryption::PassphraseFile)
            .map_err(|reason| reader.invalid(&format!("{key}.passphrase_file"), Some(&file), reason)),
        (None, Some(name), None) if name.is_empty() || name.contains(['=', '\0']) => Err(reader.invalid(
            &format!("{key}.passphrase_env"),
            Some(&name),
            "expected the name of an environment variable",
        )),
        (None, Some(name), None) => Ok(Encryption::PassphraseVariable(name)),
        (None, None, Some(file)) => absolute(&file)
            .map(Encryption::KeyFile)
            .map_err(|reason| reader.invalid(&format!("{key}.key_file"), Some(&file), reason)),
        (None, None, None) => {
            Err(reader.invalid(key, None, "expected one of passphrase_file, passphrase_env and key_file"))
        }
        _ => Err(reader.invalid(key, None, "expected only one of passphrase_file, passphrase_env and key_file")),
    };
    Ok((encryption?, slot))
}

fn credentials(
    reader: &Reader<'_>,
    key: &impl Fn(&str) -> String,
    access_key_id: Option<String>,
    secret_access_key: Option<&Secret>,
    session_token: Option<&Secret>,
    profile: Option<String>,
) -> Result<Credentials, ConfigError> {
    match (access_key_id, secret_access_key, profile) {
        (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
            Err(reader.invalid(&key("profile"), None, "cannot be combined with access_key_id and secret_access_key"))
        }
        (Some(id), Some(secret), None) => Ok(Credentials::Static {
            access_key: Secret::new(id),
            secret_key: secret.clone(),
            session_token: session_token.cloned(),
        }),
        (Some(_), None, None) => Err(reader.invalid(&key("access_key_id"), None, "needs secret_access_key too")),
        (None, Some(_), None) => Err(reader.invalid(&key("secret_access_key"), None, "needs access_key_id too")),
        (None, None, _) if session_token.is_some() => {
            Err(reader.invalid(&key("session_token"), None, "needs access_key_id and secret_access_key too"))
        }
        (None, None, Some(profile)) => Ok(Credentials::Profile(profile)),
        (None, None, None) => Ok(Credentials::Chain),
    }
}

fn server_side(
    reader: &Reader<'_>,
    key: &str,
    written: Option<WordOr<SseTable>>,
) -> Result<(ServerSide, Option<PathBuf>), ConfigError> {
    match written {
        None => Ok((ServerSide::None, None)),
        Some(WordOr::Word(word)) => match word.as_str() {
            "none" => Ok((ServerSide::None, None)),
            "s3" => Ok((ServerSide::S3, None)),
            "kms" => Ok((ServerSide::Kms { key_id: None }, None)),
            other => match other.strip_prefix("kms:").filter(|id| !id.is_empty()) {
                Some(id) => Ok((ServerSide::Kms { key_id: Some(id.to_owned()) }, None)),
                None => Err(reader.invalid(
                    key,
                    Some(other),
                    "expected none, s3, kms, kms:<key id> or { c_key_file = \"...\" }",
                )),
            },
        },
        Some(WordOr::Table(SseTable { c_key_file })) => match reader.path(&format!("{key}.c_key_file"), c_key_file)? {
            Some(path) => Ok((ServerSide::None, Some(path))),
            None => Err(reader.invalid(key, None, "the table needs c_key_file")),
        },
    }
}

fn object_lock(
    reader: &Reader<'_>,
    key: &str,
    location: &Location,
    written: LockTable,
) -> Result<ObjectLock, ConfigError> {
    if let Location::Directory(_) = location {
        let reason = "a directory cannot keep its owner from deleting files; only a bucket with Object Lock can";
        return Err(reader.invalid(key, None, reason));
    }
    let LockTable { mode, days } = written;
    let (Some(mode), Some(days)) = (mode, days) else {
        return Err(reader.invalid(key, None, "needs mode and days, such as { mode = \"governance\", days = 30 }"));
    };
    let mode = match mode.as_str() {
        "governance" => LockMode::Governance,
        "compliance" => LockMode::Compliance,
        other => {
            let reason = "expected governance or compliance";
            return Err(reader.invalid(&format!("{key}.mode"), Some(other), reason));
        }
    };
    if !LOCK_DAYS.contains(&days) {
        let reason = format!("expected {} to {}", LOCK_DAYS.start(), LOCK_DAYS.end());
        return Err(reader.invalid(&format!("{key}.days"), Some(&days.to_string()), reason));
    }
    Ok(ObjectLock { term: LockTerm { mode, days }, covers: is_locked })
}

fn checked_tags(
    reader: &Reader<'_>,
    key: &str,
    tags: Option<BTreeMap<String, String>>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let tags = tags.unwrap_or_default();
    if tags.len() > MOST_TAGS {
        return Err(reader.invalid(key, None, format!("S3 takes at most {MOST_TAGS} tags")));
    }
    if let Some(name) =
        tags.iter().find(|(name, value)| name.is_empty() || name.chars().count() > 128 || value.chars().count() > 256)
    {
        return Err(reader.invalid(
            key,
            Some(name.0),
            "S3 takes tags with names of 1 to 128 characters and values of up to 256",
        ));
    }
    Ok(tags)
}

#[cfg(test)]
mod tests;
