//! What was written: the shape of the configuration file, every key optional, nothing validated.
//!
//! The environment's values and the flags have the same types; [`Written::overlay`] overrides one with another. The
//! names of the keys exist once, as the fields of these structs: [`SECTIONS`] and the structs' `KEYS` come from the
//! same lines.

use holdfast_secret::Secret;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

macro_rules! table {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: Option<$kind>,)*
        }

        impl $name {
            /// The keys of this table, in the order of the manual.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($field)),*];

            /// Takes every value that is set in `over`.
            pub fn overlay(&mut self, over: Self) {
                $(if over.$field.is_some() {
                    self.$field = over.$field;
                })*
            }
        }
    };
}

table! {
    /// `[cluster]`: the PostgreSQL cluster.
    ClusterTable {
        /// The name of the cluster's archive in the repositories.
        name: String,
        /// The owner of the archive.
        owner: String,
        /// The data directory.
        pgdata: String,
        /// The connection string of the server.
        connection: Secret,
        /// The connection string of the primary, for backups from a standby.
        primary_connection: Secret,
    }
}

table! {
    /// `[[repo]]`: a repository.
    RepoTable {
        /// `s3://bucket/prefix` or `file:///directory`.
        url: String,
        /// The address of an S3-compatible server.
        endpoint: String,
        /// The region of the store.
        region: String,
        /// Whether the bucket is in the path instead of the host name.
        path_style: bool,
        /// Certificates to trust, in PEM.
        ca_file: String,
        /// How the repository is encrypted, or `"none"`.
        encryption: WordOr<EncryptionTable>,
        access_key_id: String,
        secret_access_key: Secret,
        session_token: Secret,
        /// A profile of the AWS configuration files.
        profile: String,
        /// The storage class of new objects.
        storage_class: String,
        /// Encryption by the store.
        sse: WordOr<SseTable>,
        /// Tags of new objects.
        tags: BTreeMap<String, String>,
        /// The size of the parts of multipart uploads.
        part_size: String,
        /// The maximum number of simultaneous requests.
        max_requests: u32,
        /// Its own retention, instead of `[retention]`.
        retention: RetentionTable,
        /// Object Lock of new objects.
        lock: LockTable,
    }
}

table! {
    /// How to open an encrypted repository: exactly one of the first three, and the slot to try first.
    EncryptionTable {
        /// A file that holds the passphrase.
        passphrase_file: String,
        /// An environment variable that holds the passphrase.
        passphrase_env: String,
        /// A file that holds 32 bytes of key, raw or as 64 hexadecimal digits.
        key_file: String,
        /// The key slot to try first.
        slot: String,
    }
}

table! {
    /// Server-side encryption with a key of the customer.
    SseTable {
        /// A file that holds the 32 bytes of the key.
        c_key_file: String,
    }
}

table! {
    /// `lock` of `[[repo]]`: Object Lock.
    LockTable {
        /// `governance` or `compliance`.
        mode: String,
        /// How long a new object is locked, in days.
        days: u32,
    }
}

table! {
    BackupTable {
        /// Compression method and level.
        compression: String,
        /// Threads that compress.
        jobs: u32,
        /// The memory budget.
        memory: String,
        /// Whether to request an immediate checkpoint.
        start_fast: bool,
        /// How long to wait until the WAL of the backup is archived.
        archive_timeout: String,
        /// Whether to check page checksums while reading.
        page_checks: bool,
        /// A text kept with the backup.
        label: String,
        /// The name in the place of the machine name.
        machine: String,
    }
}

table! {
    WalTable {
        /// Compression method and level.
        compression: String,
        /// Segments stored in one run of `wal push`.
        push_ahead: u32,
        /// Segments fetched ahead by `wal get`.
        prefetch: u32,
        /// The folder of marks and prefetched segments.
        spool: String,
        /// How long `wal push` and `wal get` repeat a failing request.
        timeout: String,
    }
}

table! {
    RestoreTable {
        /// Threads that decompress.
        jobs: u32,
    }
}

table! {
    DrillTable {
        /// The folder for throw-away directories.
        directory: String,
        /// The folder of PostgreSQL's programs.
        bin_dir: String,
        /// A superuser of the cluster.
        role: String,
        /// The database of the probes.
        database: String,
        /// A file of queries, or a folder of such files.
        probes: String,
        /// More settings of the restored server.
        settings: BTreeMap<String, String>,
        /// The time limit of a drill.
        time_limit: String,
    }
}

table! {
    RetentionTable {
        /// The length of time before now in which any moment can be restored.
        window: String,
        /// Backups kept beyond the window.
        keep: KeepTable,
        /// How long after its decision a removal is carried out.
        grace: String,
    }
}

table! {
    /// `keep` of `[retention]`.
    KeepTable {
        /// The newest N backups.
        last: u32,
        /// One backup for each of the last N hours with a backup.
        hourly: u32,
        /// One backup for each of the last N days with a backup.
        daily: u32,
        /// One backup for each of the last N weeks with a backup.
        weekly: u32,
        /// One backup for each of the last N months with a backup.
        monthly: u32,
        /// One backup for each of the last N years with a backup.
        yearly: u32,
        /// The newest N backups whose verification succeeded.
        verified: u32,
    }
}

table! {
    LogTable {
        /// `error`, `warn`, `info`, `debug` or `trace`.
        level: String,
        /// `text` or `json`.
        format: String,
    }
}

/// Everything that was written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Written {
    pub cluster: ClusterTable,
    pub repo: Vec<RepoTable>,
    pub backup: BackupTable,
    pub wal: WalTable,
    pub restore: RestoreTable,
    pub drill: DrillTable,
    pub retention: RetentionTable,
    pub log: LogTable,
}

impl Written {
    /// Whether a value is a secret itself: a secret key, a session token, or a connection string with a password.
    pub fn holds_secret(&self) -> bool {
        let connections = [&self.cluster.connection, &self.cluster.primary_connection];
        let has_password = |text: &str| {
            let user = text.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(user, _)| user);
            text.contains("password") || user.is_some_and(|user| user.contains(':'))
        };
        connections.into_iter().flatten().any(|text| has_password(text.expose()))
            || self.repo.iter().any(|repo| repo.secret_access_key.is_some() || repo.session_token.is_some())
    }
}

/// The sections and their keys. A test compares this list with the fields of [`Written`].
pub const SECTIONS: &[(&str, &[&str])] = &[
    ("cluster", ClusterTable::KEYS),
    ("repo", RepoTable::KEYS),
    ("backup", BackupTable::KEYS),
    ("wal", WalTable::KEYS),
    ("restore", RestoreTable::KEYS),
    ("drill", DrillTable::KEYS),
    ("retention", RetentionTable::KEYS),
    ("log", LogTable::KEYS),
];

/// The keys whose value is a table with fixed keys. (`repo.tags` takes any key.)
pub const INNER_TABLES: &[(&str, &str, &[&str])] = &[
    ("repo", "encryption", EncryptionTable::KEYS),
    ("repo", "sse", SseTable::KEYS),
    ("repo", "retention", RetentionTable::KEYS),
    ("repo", "lock", LockTable::KEYS),
    ("repo.retention", "keep", KeepTable::KEYS),
    ("retention", "keep", KeepTable::KEYS),
];

impl Written {
    /// Takes every value that is set in `over`; repositories are matched by their position in the list.
    pub fn overlay(&mut self, over: Self) {
        let Self { cluster, repo, backup, wal, restore, drill, retention, log } = over;
        self.cluster.overlay(cluster);
        for (index, table) in repo.into_iter().enumerate() {
            match self.repo.get_mut(index) {
                Some(known) => known.overlay(table),
                None => self.repo.push(table),
            }
        }
        self.backup.overlay(backup);
        self.wal.overlay(wal);
        self.restore.overlay(restore);
        self.drill.overlay(drill);
        self.retention.overlay(retention);
        self.log.overlay(log);
    }
}

/// A value that is either a word (`"none"`) or a table.
#[derive(Clone, Debug, PartialEq)]
pub enum WordOr<T> {
    /// A word, such as `none`.
    Word(String),
    /// A table with keys of its own.
    Table(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WordOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = WordOr<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a word in quotes or a table in braces")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Self::Value, E> {
                Ok(WordOr::Word(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(WordOr::Table)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}
