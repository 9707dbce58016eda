//! Holdfast's configuration for an archive, from CloudNativePG's fields. Pure.
//!
//! The content of Secrets is a parameter ([`Material`]); [`wanted`] says which of them to read. Certificates and keys
//! become separate files beside the configuration. The configuration contains the credentials, and only its owner can
//! read it.

use holdfast_kube_api::cluster::BarmanObjectStore;
use holdfast_secret::Secret;
use k8s_openapi::api::core::v1::SecretKeySelector;
use std::path::{Path, PathBuf};

/// The content of an archive's Secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Material {
    pub access_key_id: Option<Secret>,
    pub secret_access_key: Option<Secret>,
    pub session_token: Option<Secret>,
    /// The region of the object store.
    pub region: Option<String>,
    /// Certificates to trust, PEM.
    pub endpoint_ca: Option<Vec<u8>>,
    /// The encryption passphrase.
    pub passphrase: Option<Secret<Vec<u8>>>,
    /// The encryption key, 32 bytes.
    pub key: Option<Secret<Vec<u8>>>,
}

/// One value of [`Material`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// [`Material::access_key_id`]
    AccessKeyId,
    /// [`Material::secret_access_key`]
    SecretAccessKey,
    /// [`Material::session_token`]
    SessionToken,
    /// [`Material::region`]
    Region,
    /// [`Material::endpoint_ca`]
    EndpointCa,
    /// [`Material::passphrase`]
    Passphrase,
    /// [`Material::key`]
    Key,
}

impl Material {
    /// Stores the value of a Secret. Line ends around credentials are removed.
    pub fn put(&mut self, item: Item, value: Secret<Vec<u8>>) {
        let text = || Some(Secret::new(value.to_text().expose().trim()));
        match item {
            Item::AccessKeyId => self.access_key_id = text(),
            Item::SecretAccessKey => self.secret_access_key = text(),
            Item::SessionToken => self.session_token = text(),
            Item::Region => self.region = text().map(|region| region.expose().clone()),
            Item::EndpointCa => self.endpoint_ca = Some(value.expose().clone()),
            Item::Passphrase => self.passphrase = Some(value),
            Item::Key => self.key = Some(value),
        }
    }
}

/// The keys of Secrets that an archive's configuration needs.
pub fn wanted(store: &BarmanObjectStore) -> Vec<(Item, SecretKeySelector)> {
    let mut wanted = Vec::new();
    let mut want = |item: Item, selector: &Option<SecretKeySelector>| {
        if let Some(selector) = selector {
            wanted.push((item, selector.clone()));
        }
    };
    if let Some(credentials) = &store.s3_credentials {
        if credentials.inherit_from_iam_role != Some(true) {
            want(Item::AccessKeyId, &credentials.access_key_id);
            want(Item::SecretAccessKey, &credentials.secret_access_key);
            want(Item::SessionToken, &credentials.session_token);
        }
        want(Item::Region, &credentials.region);
    }
    want(Item::EndpointCa, &store.endpoint_ca);
    if let Some(encryption) = &store.encryption {
        want(Item::Passphrase, &encryption.passphrase);
        want(Item::Key, &encryption.key);
    }
    wanted
}

/// What an archive's configuration is made from.
#[derive(Debug, Clone, Copy)]
pub struct Archive<'a> {
    pub store: &'a BarmanObjectStore,
    /// The content of its Secrets.
    pub material: &'a Material,
    /// Name of the archive, unless the store names another.
    pub name: &'a str,
    /// The owner, who may write; `None` for an archive that is only read.
    pub owner: Option<&'a str>,
    /// The instance, in the place of a machine name: it keeps its volume when it moves to another node.
    pub instance: &'a str,
    /// The path of the configuration file.
    pub config: &'a Path,
    /// The path of the data directory.
    pub pgdata: &'a Path,
    /// The connection string for PostgreSQL.
    pub connection: &'a str,
    /// The folder where WAL waits.
    pub spool: &'a Path,
}

/// A file to write: its path and content.
pub type GeneratedFile = (PathBuf, Secret<Vec<u8>>);

/// The configuration and the files that it names, the configuration last.
pub fn files(archive: &Archive<'_>) -> Vec<GeneratedFile> {
    let Archive { store, material, name, owner, instance, config, pgdata, connection, spool } = *archive;
    let mut files = Vec::new();
    let mut beside = |suffix: &str, content: &[u8]| {
        let path = config.with_extension(suffix);
        files.push((path.clone(), Secret::new(content)));
        path.display().to_string()
    };
    let mut repo = toml::Table::new();
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            repo.insert(key.to_owned(), toml::Value::String(value));
        }
    };
    set("url", Some(store.destination_path.trim_end_matches('/').to_owned()));
    set("endpoint", store.endpoint_url.clone());
    set("region", material.region.clone());
    let exposed = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().clone());
    set("access_key_id", exposed(&material.access_key_id));
    set("secret_access_key", exposed(&material.secret_access_key));
    set("session_token", exposed(&material.session_token));
    set("ca_file", material.endpoint_ca.as_ref().map(|ca| beside("ca.crt", ca)));
    set("sse", server_side_encryption(store));
    let encryption = match (&material.passphrase, &material.key) {
        (Some(passphrase), _) => {
            table([("passphrase_file", toml::Value::String(beside("passphrase", passphrase.expose())))])
        }
        (None, Some(key)) => table([("key_file", toml::Value::String(beside("key", key.expose())))]),
        (None, None) => toml::Value::String("none".to_owned()),
    };
    repo.insert("encryption".to_owned(), encryption);
    if !store.tags.is_empty() {
        let tags = store.tags.iter().map(|(key, value)| (key.clone(), toml::Value::String(value.clone())));
        repo.insert("tags".to_owned(), toml::Value::Table(tags.collect()));
    }

    let text = |value: String| toml::Value::String(value);
    let mut cluster = toml::Table::new();
    cluster.insert("name".to_owned(), text(store.server_name.clone().unwrap_or_else(|| name.to_owned())));
    cluster.insert("pgdata".to_owned(), text(pgdata.display().to_string()));
    cluster.insert("connection".to_owned(), text(connection.to_owned()));
    if let Some(owner) = owner {
        cluster.insert("owner".to_owned(), text(owner.to_owned()));
    }

    let mut backup = toml::Table::new();
    if let Some(owner) = owner {
        backup.insert("machine".to_owned(), text(format!("{owner}/{instance}")));
    }
    // A checkpoint spread over minutes would take most of the time of a small backup.
    let immediate = store.data.as_ref().and_then(|data| data.immediate_checkpoint).unwrap_or(true);
    backup.insert("start_fast".to_owned(), toml::Value::Boolean(immediate));
    // The archiver may have to catch up; the operator gives up on a backup that makes no progress.
    backup.insert("archive_timeout".to_owned(), text("30min".to_owned()));
    let data = store.data.as_ref();
    if let Some(compression) = data.and_then(|data| compression(data.compression.as_deref())) {
        backup.insert("compression".to_owned(), text(compression));
    }
    if let Some(jobs) = data.and_then(|data| data.jobs).filter(|jobs| *jobs > 0) {
        backup.insert("jobs".to_owned(), toml::Value::Integer(jobs.into()));
    }

    let mut wal = toml::Table::new();
    wal.insert("spool".to_owned(), text(spool.display().to_string()));
    let options = store.wal.as_ref();
    if let Some(compression) = options.and_then(|wal| compression(wal.compression.as_deref())) {
        wal.insert("compression".to_owned(), text(compression));
    }
    if let Some(parallel) = options.and_then(|wal| wal.max_parallel).filter(|parallel| *parallel > 0) {
        let parallel = i64::from(parallel.min(256));
        wal.insert("push_ahead".to_owned(), toml::Value::Integer(parallel));
        wal.insert("prefetch".to_owned(), toml::Value::Integer(parallel));
    }

    let mut whole = toml::Table::new();
    whole.insert("cluster".to_owned(), toml::Value::Table(cluster));
    whole.insert("repo".to_owned(), toml::Value::Array(vec![toml::Value::Table(repo)]));
    whole.insert("backup".to_owned(), toml::Value::Table(backup));
    whole.insert("wal".to_owned(), toml::Value::Table(wal));
    let content =
        format!("# Written by Holdfast's instance manager from spec.backup of the Cluster and its Secrets.\n{whole}");
    files.push((config.to_owned(), Secret::new(content)));
    files
}

fn table<const N: usize>(entries: [(&str, toml::Value); N]) -> toml::Value {
    toml::Value::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Barman has compression methods that Holdfast does not have; Holdfast's default is used instead, and the validation
/// says so.
fn compression(written: Option<&str>) -> Option<String> {
    written.filter(|codec| matches!(*codec, "zstd" | "lz4" | "gzip" | "none")).map(str::to_owned)
}

/// One setting for all objects: that of `data`, otherwise that of `wal`.
fn server_side_encryption(store: &BarmanObjectStore) -> Option<String> {
    let data = store.data.as_ref().and_then(|data| data.encryption.as_deref());
    let wal = store.wal.as_ref().and_then(|wal| wal.encryption.as_deref());
    match data.or(wal) {
        Some("AES256") => Some("s3".to_owned()),
        Some("aws:kms") => Some("kms".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;
    use serde_json::json;

    fn example() -> BarmanObjectStore {
        serde_json::from_value(json!({
            "destinationPath": "s3://backups/prod/",
            "endpointURL": "http://s3.example:9000",
            "endpointCA": {"name": "ca", "key": "ca.crt"},
            "s3Credentials": {
                "accessKeyId": {"name": "s3", "key": "id"},
                "secretAccessKey": {"name": "s3", "key": "secret"},
                "region": {"name": "s3", "key": "region"}
            },
            "wal": {"compression": "gzip", "maxParallel": 4, "encryption": "AES256"},
            "data": {"compression": "bzip2", "jobs": 2},
            "tags": {"team": "db"},
            "encryption": {"passphrase": {"name": "secret", "key": "p"}}
        }))
        .unwrap()
    }

    #[test]
    fn the_whole_configuration() {
        let store = example();
        let mut material = Material::default();
        for (item, selector) in wanted(&store) {
            material.put(item, Secret::new(format!("{}/{}\n", selector.name, selector.key)));
        }
        let files = files(&Archive {
            store: &store,
            material: &material,
            name: "main",
            owner: Some("ns/main/uid"),
            instance: "main-1",
            config: Path::new("/controller/holdfast.toml"),
            pgdata: Path::new("/data/pgdata"),
            connection: "host=/run user=postgres",
            spool: Path::new("/data/spool"),
        });
        let names: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
        assert_eq!(
            names,
            ["/controller/holdfast.ca.crt", "/controller/holdfast.passphrase", "/controller/holdfast.toml"]
        );
        let text = files.last().unwrap().1.to_text().expose().clone();
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(
            serde_json::to_value(&table).unwrap(),
            json!({
                "cluster": {"name": "main", "pgdata": "/data/pgdata", "connection": "host=/run user=postgres",
                            "owner": "ns/main/uid"},
                "repo": [{"url": "s3://backups/prod", "endpoint": "http://s3.example:9000", "region": "s3/region",
                          "access_key_id": "s3/id", "secret_access_key": "s3/secret",
                          "ca_file": "/controller/holdfast.ca.crt", "sse": "s3",
                          "encryption": {"passphrase_file": "/controller/holdfast.passphrase"},
                          "tags": {"team": "db"}}],
                "backup": {"machine": "ns/main/uid/main-1", "start_fast": true, "archive_timeout": "30min", "jobs": 2},
                "wal": {"spool": "/data/spool", "compression": "gzip", "push_ahead": 4, "prefetch": 4},
            })
        );
    }

    #[test]
    fn an_inherited_role_reads_no_credentials() {
        let mut store = example();
        store.s3_credentials.as_mut().unwrap().inherit_from_iam_role = Some(true);
        store.encryption = None;
        let items: Vec<Item> = wanted(&store).into_iter().map(|(item, _)| item).collect();
        assert_eq!(items, [Item::Region, Item::EndpointCa]);
    }
}
