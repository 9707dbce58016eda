//! What the configuration means: validated types, made by destructuring the written ones completely.

use super::error::ConfigError;
use super::origin::Origins;
use super::reader::Reader;
use super::repository::{self, Repository};
use super::units;
use super::written::{
    BackupTable, ClusterTable, DrillTable, KeepTable, LogTable, RestoreTable, RetentionTable, WalTable, Written,
};
use holdfast_repo::Compression;
use holdfast_repo::name::ClusterName;
use holdfast_secret::Secret;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Default of `retention.grace`: longer than a night without anybody watching, and longer than a restore needs to take
/// its lease.
const DEFAULT_GRACE: Duration = Duration::from_hours(24);
/// Default of `backup.memory`: 256 MiB, enough for 2 cores and 16 parts in flight.
const DEFAULT_MEMORY_BYTES: u64 = 256 << 20;
/// Its default for a restore. From a local repository, more made it no faster; a store that is far away was not tried.
const DEFAULT_RESTORE_MEMORY_BYTES: u64 = 64 << 20;

/// With less memory, a frame of 4 MiB, its compressed copy and one part of an upload do not fit for two jobs.
const LEAST_MEMORY_BYTES: u64 = 32 << 20;
/// Default of `backup.archive_timeout` and `wal.timeout`: PostgreSQL too waits 60 s before it warns that the WAL of a
/// backup is not archived.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(1);
/// Default of `drill.time_limit`: a daily drill has ended before the next one begins.
const DEFAULT_DRILL: Duration = Duration::from_hours(23);
const DEFAULT_PUSH_AHEAD: u32 = 16;
const DEFAULT_PREFETCH: u32 = 8;
/// More segments only fill the spool: 256 are 4 GiB.
const MOST_SEGMENTS_AHEAD: u32 = 256;
/// A higher number of threads is a typing error.
const MOST_JOBS: u32 = 1024;
/// Three names of Kubernetes and a uid fit; a longer text is not a name.
const MOST_ID_BYTES: usize = 1024;
const SPOOL: &str = "/var/spool/holdfast";

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[cluster]`: the PostgreSQL cluster.
    pub cluster: Cluster,
    /// `[[repo]]`: at least one, and no two in the same place.
    pub repositories: Vec<Repository>,
    /// `[backup]`: how backups are taken.
    pub backup: Backup,
    /// `[wal]`: how WAL is archived and fetched.
    pub wal: Wal,
    /// `[restore]`: how backups are restored.
    pub restore: Restore,
    /// `[drill]`: how restores are tested.
    pub drill: Drill,
    /// `[retention]`: what `holdfast expire` keeps.
    pub retention: Retention,
    /// `[log]`: what is logged.
    pub log: Log,
}

#[derive(Clone, Debug)]
pub struct Cluster {
    /// The name of the cluster's archive.
    pub name: ClusterName,
    /// The owner of the archive. The claim of another owner is refused, even if the system identifier is the same.
    pub owner: Option<String>,
    /// The data directory, absolute.
    pub pgdata: Option<PathBuf>,
    /// The connection string of the server; if it is absent, `postmaster.pid` says where it listens. It is not parsed
    /// here: a wrong one fails only commands that connect.
    pub connection: Option<Secret>,
    /// The connection string of the primary, for backups from a standby.
    pub primary_connection: Option<Secret>,
}

impl Cluster {
    /// The owner of the archive, for commands that need it.
    pub fn require_owner(&self) -> Result<&str, ConfigError> {
        self.owner.as_deref().ok_or_else(|| ConfigError::Missing {
            key: "cluster.owner".to_owned(),
            hint: "pass --owner, write owner = \"...\" under [cluster], or set HOLDFAST_CLUSTER_OWNER".to_owned(),
        })
    }

    /// The data directory, for commands that need it.
    pub fn require_pgdata(&self) -> Result<&Path, ConfigError> {
        self.pgdata.as_deref().ok_or_else(|| ConfigError::Missing {
            key: "cluster.pgdata".to_owned(),
            hint: "write pgdata = \"/var/lib/postgresql/18/main\" under [cluster], or set HOLDFAST_CLUSTER_PGDATA"
                .to_owned(),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Compression method and level of the packs.
    pub compression: Compression,
    /// Threads that compress, hash and encrypt.
    pub jobs: NonZeroUsize,
    /// The memory budget of the pipeline, in bytes.
    pub memory_bytes: u64,
    /// The memory budget of a restore, in bytes.
    pub restore_memory_bytes: u64,
    /// Whether to request an immediate checkpoint.
    pub start_fast: bool,
    /// How long to wait until the WAL of the backup is archived.
    pub archive_timeout: Duration,
    /// Whether to check page checksums while reading.
    pub page_checks: bool,
    /// A text kept with the backup.
    pub label: Option<String>,
    /// The name in the place of the machine name, if the data directory moves between machines.
    pub machine: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wal {
    /// Compression method and level. The method is fixed when an archive is claimed; the level may change at any time.
    pub compression: Compression,
    /// Segments stored in one run of `wal push`, the requested one included.
    pub push_ahead: NonZeroUsize,
    /// Segments fetched ahead by `wal get`; 0 for none.
    pub prefetch: usize,
    /// The folder of marks and prefetched segments, absolute; each cluster has a folder in it.
    pub spool: PathBuf,
    /// How long `wal push` and `wal get` repeat a failing request.
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    /// Threads that decrypt and decompress.
    pub jobs: NonZeroUsize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drill {
    /// The folder for throw-away directories, absolute.
    pub directory: Option<PathBuf>,
    /// The folder of PostgreSQL's programs, absolute; if it is absent, they are looked for.
    pub bin_dir: Option<PathBuf>,
    /// A superuser of the cluster.
    pub role: String,
    /// The database of the probes.
    pub database: String,
    /// A file of queries, or a folder of such files.
    pub probes: Option<PathBuf>,
    /// More settings of the restored server.
    pub settings: Vec<(String, String)>,
    pub time_limit: Duration,
}

impl Drill {
    /// The folder for throw-away directories, for commands that need it.
    pub fn require_directory(&self) -> Result<&Path, ConfigError> {
        self.directory.as_deref().ok_or_else(|| ConfigError::Missing {
            key: "drill.directory".to_owned(),
            hint: "pass --directory, or write directory = \"/srv/drill\" under [drill]: a directory with room for the whole \
                   cluster, in which the drill makes a directory of its own"
                .to_owned(),
        })
    }
}

/// `[retention]`; without it nothing is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The length of time before now in which any moment can be restored.
    pub window: Option<Duration>,
    /// Backups to keep beyond the window.
    pub keep: Keep,
    /// How long after its decision a removal is carried out.
    pub grace: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { window: None, keep: Keep::default(), grace: DEFAULT_GRACE }
    }
}

/// `keep` of `[retention]`: the number of each, 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Keep {
    /// The newest N backups.
    pub last: u32,
    /// One backup for each of the last N hours with a backup.
    pub hourly: u32,
    /// One backup for each of the last N days with a backup.
    pub daily: u32,
    /// One backup for each of the last N weeks with a backup.
    pub weekly: u32,
    /// One backup for each of the last N months with a backup.
    pub monthly: u32,
    /// One backup for each of the last N years with a backup.
    pub yearly: u32,
    /// The newest N backups whose verification succeeded.
    pub verified: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important level that is shown.
    pub level: LogLevel,
    /// The format of a line.
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// Also what needs attention.
    Warn,
    /// Also what happens.
    Info,
    /// Also every step.
    Debug,
    /// Also every request.
    Trace,
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        <Self as clap::ValueEnum>::from_str(text, false)
            .map_err(|_| "expected error, warn, info, debug or trace".to_owned())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line of text for people.
    Text,
    /// A JSON object in each line.
    Json,
}

/// Validates the written values. `origins` has the place of each, for the errors.
pub fn validate(written: Written, origins: &Origins) -> Result<Config, ConfigError> {
    let Written { cluster, repo, backup, wal, restore, drill, retention, log } = written;
    let reader = Reader::new(origins);
    let cluster = reader.cluster(cluster)?;
    let repositories = repository::validate(&reader, repo)?;
    Ok(Config {
        wal: reader.wal(wal)?,
        cluster,
        repositories,
        backup: reader.backup(backup)?,
        restore: reader.restore(&restore)?,
        retention: reader.retention("retention", retention)?,
        drill: reader.drill(drill)?,
        log: reader.log(log)?,
    })
}

impl Reader<'_> {
    fn jobs(&self, key: &str, value: Option<u32>) -> Result<NonZeroUsize, ConfigError> {
        match value {
            None => Ok(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)),
            Some(jobs) => self.between(key, jobs, 1, MOST_JOBS),
        }
    }

    fn between(&self, key: &str, value: u32, least: u32, most: u32) -> Result<NonZeroUsize, ConfigError> {
        usize::try_from(value)
            .ok()
            .filter(|_| (least..=most).contains(&value))
            .and_then(NonZeroUsize::new)
            .ok_or_else(|| self.invalid(key, Some(&value.to_string()), format!("expected {least} to {most}")))
    }

    fn timeout(&self, key: &str, value: Option<String>) -> Result<Duration, ConfigError> {
        let timeout = self.parsed(key, value, |text| match units::duration(text)? {
            Duration::ZERO => Err("must be more than zero".to_owned()),
            timeout => Ok(timeout),
        })?;
        Ok(timeout.unwrap_or(DEFAULT_TIMEOUT))
    }

    fn compression(&self, key: &str, value: Option<String>) -> Result<Compression, ConfigError> {
        let compression = self.parsed(key, value, |text| {
            text.parse().map_err(|_| {
                "expected zstd:N (N from -7 to 22 without 0), lz4, gzip:N (N from 1 to 9) or none".to_owned()
            })
        })?;
        Ok(compression.unwrap_or_default())
    }

    fn cluster(&self, table: ClusterTable) -> Result<Cluster, ConfigError> {
        let ClusterTable { name, owner, pgdata, connection, primary_connection } = table;
        let name =
            self.parsed("cluster.name", name, |text| text.parse::<ClusterName>().map_err(|error| error.to_string()))?;
        let Some(name) = name else {
            return Err(ConfigError::Missing {
                key: "cluster.name".to_owned(),
                hint: format!(
                    "write name = \"main\" under [cluster] in {}, or set HOLDFAST_CLUSTER_NAME",
                    self.origins.file().display()
                ),
            });
        };
        let owner = self.parsed("cluster.owner", owner, id)?;
        Ok(Cluster { name, owner, pgdata: self.path("cluster.pgdata", pgdata)?, connection, primary_connection })
    }

    fn backup(&self, table: BackupTable) -> Result<Backup, ConfigError> {
        let BackupTable { compression, jobs, memory, start_fast, archive_timeout, page_checks, label, machine } = table;
        let memory = self.parsed("backup.memory", memory, |text| match units::size_bytes(text)? {
            bytes if bytes < LEAST_MEMORY_BYTES => Err("must be at least 32MiB".to_owned()),
            bytes => Ok(bytes),
        })?;
        let label = self.parsed("backup.label", label, |text| match text {
            // PostgreSQL writes the label into one line of backup_label, and accepts at most MAXPGPATH bytes.
            text if text.len() > 1024 => Err("must be at most 1024 bytes".to_owned()),
            text if text.chars().any(char::is_control) => Err("must be one line of plain text".to_owned()),
            text => Ok(text.to_owned()),
        })?;
        Ok(Backup {
            compression: self.compression("backup.compression", compression)?,
            jobs: self.jobs("backup.jobs", jobs)?,
            memory_bytes: memory.unwrap_or(DEFAULT_MEMORY_BYTES),
            restore_memory_bytes: memory.unwrap_or(DEFAULT_RESTORE_MEMORY_BYTES),
            start_fast: start_fast.unwrap_or(false),
            archive_timeout: self.timeout("backup.archive_timeout", archive_timeout)?,
            page_checks: page_checks.unwrap_or(true),
            label: label.filter(|label| !label.is_empty()),
            machine: self.parsed("backup.machine", machine, id)?,
        })
    }

    fn wal(&self, table: WalTable) -> Result<Wal, ConfigError> {
        let WalTable { compression, push_ahead, prefetch, spool, timeout } = table;
        let prefetch = prefetch.unwrap_or(DEFAULT_PREFETCH);
        Ok(Wal {
            compression: self.compression("wal.compression", compression)?,
            push_ahead: self.between(
                "wal.push_ahead",
                push_ahead.unwrap_or(DEFAULT_PUSH_AHEAD),
                1,
                MOST_SEGMENTS_AHEAD,
            )?,
            prefetch: match prefetch {
                0 => 0,
                some => self.between("wal.prefetch", some, 0, MOST_SEGMENTS_AHEAD)?.get(),
            },
            spool: self.path("wal.spool", spool)?.unwrap_or_else(|| PathBuf::from(SPOOL)),
            timeout: self.timeout("wal.timeout", timeout)?,
        })
    }

    fn restore(&self, table: &RestoreTable) -> Result<Restore, ConfigError> {
        let RestoreTable { jobs } = table;
        Ok(Restore { jobs: self.jobs("restore.jobs", *jobs)? })
    }

    fn drill(&self, table: DrillTable) -> Result<Drill, ConfigError> {
        let DrillTable { directory, bin_dir, role, database, probes, settings, time_limit } = table;
        let name = |key: &str, value: Option<String>| {
            Ok::<_, ConfigError>(self.parsed(key, value, id)?.unwrap_or_else(|| "postgres".to_owned()))
        };
        let limit = self.parsed("drill.time_limit", time_limit, |text| match units::duration(text)? {
            Duration::ZERO => Err("must be more than zero".to_owned()),
            limit => Ok(limit),
        })?;
        Ok(Drill {
            directory: self.path("drill.directory", directory)?,
            bin_dir: self.path("drill.bin_dir", bin_dir)?,
            role: name("drill.role", role)?,
            database: name("drill.database", database)?,
            probes: self.path("drill.probes", probes)?,
            settings: settings.unwrap_or_default().into_iter().collect(),
            time_limit: limit.unwrap_or(DEFAULT_DRILL),
        })
    }

    /// `[retention]`, or that of one repository; `key` is the name of the table.
    pub(super) fn retention(&self, key: &str, table: RetentionTable) -> Result<Retention, ConfigError> {
        let RetentionTable { window, keep, grace } = table;
        let KeepTable { last, hourly, daily, weekly, monthly, yearly, verified } = keep.unwrap_or_default();
        let number = |count: Option<u32>| count.unwrap_or(0);
        Ok(Retention {
            window: self.parsed(&format!("{key}.window"), window, |text| match units::long_duration(text)? {
                Duration::ZERO => Err("must be more than zero; without a window leave it out".to_owned()),
                window => Ok(window),
            })?,
            keep: Keep {
                last: number(last),
                hourly: number(hourly),
                daily: number(daily),
                weekly: number(weekly),
                monthly: number(monthly),
                yearly: number(yearly),
                verified: number(verified),
            },
            // A zero needs no unit.
            grace: self
                .parsed(&format!("{key}.grace"), grace, |text| match text.trim() {
                    "0" => Ok(Duration::ZERO),
                    text => units::long_duration(text),
                })?
                .unwrap_or(DEFAULT_GRACE),
        })
    }

    fn log(&self, table: LogTable) -> Result<Log, ConfigError> {
        let LogTable { level, format } = table;
        let format = self.parsed("log.format", format, |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("expected text or json".to_owned()),
        })?;
        Ok(Log {
            level: self.parsed("log.level", level, str::parse)?.unwrap_or(LogLevel::Info),
            format: format.unwrap_or(LogFormat::Text),
        })
    }
}

/// A name that the user chose.
fn id(text: &str) -> Result<String, String> {
    match text {
        "" => Err("must not be empty".to_owned()),
        text if text.len() > MOST_ID_BYTES => Err(format!("must be at most {MOST_ID_BYTES} bytes")),
        text if text.chars().any(char::is_control) => Err("must be one line of plain text".to_owned()),
        text => Ok(text.to_owned()),
    }
}
