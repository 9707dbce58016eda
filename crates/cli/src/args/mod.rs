//! The command line: what was typed, parsed by clap, with values parsed into PostgreSQL's own types where that needs no
//! I/O.
//!
//! Flags that also exist as configuration keys override the configuration ([`Args::overlay`]). So both are validated in
//! one place, with the same errors.

mod agent;
mod copy;
mod drill;
mod expire;
mod instance;
mod key;
mod manifest;
mod operator;
mod restore;
mod target;
mod verify;
mod wal_find;
mod wal_receive;
mod wal_verify;

#[cfg(test)]
mod tests;

pub use agent::{AgentAction, AgentArgs};
pub use copy::CopyArgs;
pub use drill::DrillArgs;
pub use expire::{BackupCommand, ExpireArgs, Until};
pub use instance::{InstanceCommand, ProbeKind};
pub use key::{KeyCommand, NewSecret, RotateArgs};
pub use manifest::ManifestCommand;
pub use operator::{OperatorArgs, OperatorCommand};
pub use restore::RestoreArgs;
pub use target::TargetArgs;
pub use verify::{VerifyArgs, WhichRepository};
pub use wal_find::WalFindArgs;
pub use wal_receive::WalReceiveArgs;
pub use wal_verify::WalVerifyArgs;

use crate::config::reader::absolute;
use crate::config::units::duration;
use crate::config::validated::LogLevel;
use crate::config::written::Written;
use clap::{Parser, Subcommand, ValueEnum};
use holdfast_pgtypes::SegmentName;
use holdfast_repo::recovery::NeededTail;
use std::path::PathBuf;
use std::time::Duration;

/// Backup, WAL archive and point-in-time recovery for PostgreSQL 13 to 19.
#[derive(Clone, Debug, Parser)]
#[command(name = "holdfast", version, propagate_version = true, disable_help_subcommand = true, max_term_width = 100)]
pub struct Args {
    /// Flags of all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of all commands.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The configuration file [default: /etc/holdfast/holdfast.toml, or $HOLDFAST_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// How results (stdout) and errors (stderr) are written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Output::Text, global = true)]
    pub output: Output,
    /// The least important log lines to show [default: info]
    #[arg(long, value_name = "LEVEL", value_enum, global = true, conflicts_with_all = ["verbose", "quiet"])]
    pub log_level: Option<LogLevel>,
    /// Show more: -v every step, -vv every request
    #[arg(short, long, action = clap::ArgAction::Count, global = true, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Show errors only, and no progress
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Show no progress
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// How progress is written (stderr)
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ProgressFormat::Text, global = true,
          conflicts_with = "no_progress")]
    pub progress: ProgressFormat,
    /// When to colour messages; `auto` also respects NO_COLOR
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Color::Auto, global = true)]
    pub color: Color,
}

/// `--output`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `--progress`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressFormat {
    /// Bars on a terminal, lines elsewhere; no progress if the results are JSON.
    Text,
    /// For programs: one JSON object on each line, whatever the format of the results is.
    Json,
}

/// `--color`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Also into a file or a pipe.
    Always,
    /// Not on a terminal either.
    Never,
}

/// The verbs of `holdfast`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Create and show repositories
    #[command(subcommand)]
    Repo(RepoCommand),
    /// Back up the cluster
    Backup(BackupArgs),
    /// List the backups
    List,
    /// Decide what the retention policy no longer needs, and remove it after the grace time
    Expire(ExpireArgs),
    /// Show the cluster's archive: backups, WAL, and the moments that can be restored
    Info {
        /// Keep in this file which WAL has no gap, and list only newer WAL for one day; for a monitor that runs often
        #[arg(long, value_name = "FILE")]
        wal_cache: Option<PathBuf>,
        /// Check all WAL that a backup or snapshot needs, however long that takes
        #[arg(long)]
        all_wal: bool,
    },
    /// Check configuration, repositories, PostgreSQL and archiving, and list what is wrong
    Check,
    /// Restore the cluster into a directory
    Restore(RestoreArgs),
    /// Check that backups and WAL in the repositories are what was written
    Verify(VerifyArgs),
    /// List, add, rotate and remove what opens an encrypted repository
    #[command(subcommand)]
    Key(KeyCommand),
    /// Prove that a restore works: restore into a throw-away directory, start PostgreSQL there, check the data
    Drill(DrillArgs),
    /// Archive and fetch WAL
    #[command(subcommand)]
    Wal(WalCommand),
    /// Run the agent, which does the work of `wal push` and `wal get` faster
    Agent(AgentArgs),
    /// Record volume snapshots, so that a recovery can begin with them
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Check manifests without a cluster, and print the definitions of resources
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Run PostgreSQL clusters on Kubernetes
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Run one PostgreSQL instance inside its pod; called by the operator's pods
    #[command(subcommand)]
    Instance(InstanceCommand),
    /// Print the completions of a shell
    #[command(hide = true)]
    Completions {
        /// The shell to print completions for
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory; created if it does not exist
        dir: PathBuf,
    },
}

/// `holdfast repo`
#[derive(Clone, Debug, Subcommand)]
pub enum RepoCommand {
    /// Create the configured repositories and claim the cluster's archive in them; does nothing if that was done before
    Init {
        /// Begin a new archive for this cluster after a major upgrade; older backups and WAL can still be restored
        #[arg(long)]
        new_claim: bool,
    },
    /// Claim the archive for a cluster that will soon be created, or was just created; creates missing repositories
    Claim {
        /// The data directory whose system identifier the claim gets [default: cluster.pgdata]
        #[arg(long, value_name = "DIR", value_parser = absolute)]
        pgdata: Option<PathBuf>,
        /// Only check that the archive is empty, or already belongs to the owner; run this before initdb or a recovery
        #[arg(long)]
        check: bool,
        /// Who the archive is for; the archive of another owner is refused [default: cluster.owner]
        #[arg(long, value_name = "TEXT")]
        owner: Option<String>,
    },
    /// Copy backups and WAL from one configured repository into another
    Copy(CopyArgs),
    /// Show the configured repositories
    Info,
}

/// `holdfast wal`
#[derive(Clone, Debug, Subcommand)]
pub enum WalCommand {
    /// Archive a WAL file; for archive_command = 'holdfast wal push %p'
    Push {
        /// The file, absolute or relative to the data directory
        path: PathBuf,
        /// For the archive_command of a standby with archive_mode = always: store nothing, and succeed once the primary
        /// has archived the file
        #[arg(long)]
        standby: bool,
        /// How long to wait for the primary, such as 5s [default: 20s]
        #[arg(long, value_name = "DURATION", requires = "standby", value_parser = duration)]
        wait: Option<Duration>,
    },
    /// Fetch a WAL file; for restore_command = 'holdfast wal get %f %p'
    Get {
        /// The name of the WAL file, as %f
        name: String,
        /// Where to put it, as %p
        dest: PathBuf,
        /// For the restore_command of a standby: it must try again after a fault, so the exit status stays at 125 or
        /// less
        #[arg(long)]
        standby: bool,
        /// Ask only the repository with this number; the first one in the configuration is 1
        #[arg(long, value_name = "N")]
        repo: Option<usize>,
        /// Give no segment after this one, as if it were the last in the archive
        #[arg(long, value_name = "SEGMENT")]
        until: Option<SegmentName>,
        /// Fetch nothing ahead after this segment. `holdfast restore` writes it: recovery ends there
        #[arg(long, value_name = "SEGMENT")]
        ahead_until: Option<SegmentName>,
        /// If a segment of this timeline is not whole, give what `wal receive` has stored of it, and fail if that ends
        /// before END; give nothing from SWITCH on. `holdfast restore` writes it
        #[arg(long, value_name = "TIMELINE:END[:SWITCH]", conflicts_with = "standby")]
        tail: Vec<NeededTail>,
    },
    /// Receive the WAL of a running server through a replication slot, seconds after it was written; until it is
    /// stopped
    Receive(WalReceiveArgs),
    /// List what is archived, with its gaps
    List,
    /// Follow the archived WAL along every timeline, find gaps and what they cost, and heal them
    Verify(WalVerifyArgs),
    /// Find a drop, a transaction, a time or a restore point in the archived WAL, and print the flags to restore to it
    Find(WalFindArgs),
}

/// `holdfast snapshot`
#[derive(Clone, Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Read from stdin, as JSON, which snapshots were taken; wait for their WAL; write the record and print its id
    Record {
        /// How long to wait for the WAL, such as 10min [default: backup.archive_timeout, or 60s]
        #[arg(long, value_name = "DURATION")]
        archive_timeout: Option<String>,
    },
    /// List the recorded snapshots
    List,
}

/// `--type`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackupType {
    /// Incremental where there is a backup to build on, else full.
    Auto,
    /// Read and store everything.
    Full,
    /// Store what changed since the newest backup; fail if there is none to build on.
    Incremental,
}

/// `holdfast backup`
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BackupArgs {
    /// What to do with an existing backup
    #[command(subcommand)]
    pub action: Option<BackupCommand>,
    /// Which kind of backup to take
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value_t = BackupType::Auto)]
    pub kind: BackupType,
    /// Start with an immediate checkpoint instead of waiting for the next one
    #[arg(long)]
    pub start_fast: bool,
    /// Threads that compress [default: backup.jobs, or the number of cores]
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<u32>,
    /// A text kept with the backup
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// zstd:N, lz4, gzip:N or none [default: backup.compression, or zstd:3]
    #[arg(long, value_name = "CODEC")]
    pub compression: Option<String>,
    /// How long to wait for the WAL of the backup, such as 10min [default: backup.archive_timeout, or 60s]
    #[arg(long, value_name = "DURATION")]
    pub archive_timeout: Option<String>,
    /// Do not check page checksums while reading
    #[arg(long)]
    pub no_page_checks: bool,
}

/// A value for the configuration, its key and the flag that set it.
pub type FlagValue = (Written, &'static str, &'static str);

impl Args {
    /// The values of flags that override the configuration.
    pub fn overlay(&self) -> Vec<FlagValue> {
        let mut values = Vec::new();
        let mut set = |key, flag, put: &dyn Fn(&mut Written)| {
            let mut written = Written::default();
            put(&mut written);
            values.push((written, key, flag));
        };
        let Global { config: _, output: _, log_level: _, verbose, quiet, no_progress: _, progress: _, color: _ } =
            self.global;
        if let Some((flag, level)) = match (self.global.log_level, verbose, quiet) {
            (Some(level), _, _) => Some(("--log-level", level)),
            (None, _, true) => Some(("--quiet", LogLevel::Error)),
            (None, 0, false) => None,
            (None, 1, false) => Some(("-v", LogLevel::Debug)),
            (None, _, false) => Some(("-vv", LogLevel::Trace)),
        } {
            let name = level.to_possible_value().map(|value| value.get_name().to_owned());
            set("log.level", flag, &|written| written.log.level.clone_from(&name));
        }
        match &self.command {
            Command::Backup(backup) => {
                let BackupArgs {
                    action: _,
                    kind: _,
                    start_fast,
                    jobs,
                    label,
                    compression,
                    archive_timeout,
                    no_page_checks,
                } = backup;
                if *start_fast {
                    set("backup.start_fast", "--start-fast", &|written| written.backup.start_fast = Some(true));
                }
                if jobs.is_some() {
                    set("backup.jobs", "--jobs", &|written| written.backup.jobs = *jobs);
                }
                if label.is_some() {
                    set("backup.label", "--label", &|written| written.backup.label.clone_from(label));
                }
                if compression.is_some() {
                    set("backup.compression", "--compression", &|written| {
                        written.backup.compression.clone_from(compression);
                    });
                }
                if archive_timeout.is_some() {
                    set("backup.archive_timeout", "--archive-timeout", &|written| {
                        written.backup.archive_timeout.clone_from(archive_timeout);
                    });
                }
                if *no_page_checks {
                    set("backup.page_checks", "--no-page-checks", &|written| written.backup.page_checks = Some(false));
                }
            }
            Command::Snapshot(SnapshotCommand::Record { archive_timeout }) if archive_timeout.is_some() => {
                set("backup.archive_timeout", "--archive-timeout", &|written| {
                    written.backup.archive_timeout.clone_from(archive_timeout);
                });
            }
            Command::Repo(RepoCommand::Claim { pgdata, check: _, owner }) => {
                if let Some(pgdata) = pgdata {
                    set("cluster.pgdata", "--pgdata", &|written| {
                        written.cluster.pgdata = Some(pgdata.to_string_lossy().into_owned());
                    });
                }
                if owner.is_some() {
                    set("cluster.owner", "--owner", &|written| written.cluster.owner.clone_from(owner));
                }
            }
            Command::Restore(restore) if restore.jobs.is_some() => {
                set("restore.jobs", "--jobs", &|written| written.restore.jobs = restore.jobs);
            }
            Command::Repo(RepoCommand::Copy(copy)) if copy.jobs.is_some() => {
                set("restore.jobs", "--jobs", &|written| written.restore.jobs = copy.jobs);
            }
            Command::Verify(verify) if verify.jobs.is_some() => {
                set("restore.jobs", "--jobs", &|written| written.restore.jobs = verify.jobs);
            }
            Command::Wal(WalCommand::Verify(verify)) if verify.jobs.is_some() => {
                set("restore.jobs", "--jobs", &|written| written.restore.jobs = verify.jobs);
            }
            Command::Drill(drill) => {
                let text = |path: Option<&PathBuf>| path.map(|path| path.to_string_lossy().into_owned());
                if drill.jobs.is_some() {
                    set("restore.jobs", "--jobs", &|written| written.restore.jobs = drill.jobs);
                }
                if drill.directory.is_some() {
                    set("drill.directory", "--directory", &|written| {
                        written.drill.directory = text(drill.directory.as_ref());
                    });
                }
                if drill.bin_dir.is_some() {
                    set("drill.bin_dir", "--bin-dir", &|written| written.drill.bin_dir = text(drill.bin_dir.as_ref()));
                }
                if drill.role.is_some() {
                    set("drill.role", "--role", &|written| written.drill.role.clone_from(&drill.role));
                }
                if drill.database.is_some() {
                    set("drill.database", "--database", &|written| {
                        written.drill.database.clone_from(&drill.database);
                    });
                }
                if drill.time_limit.is_some() {
                    set("drill.time_limit", "--time-limit", &|written| {
                        written.drill.time_limit.clone_from(&drill.time_limit);
                    });
                }
            }
            Command::Restore(_)
            | Command::Verify(_)
            | Command::Repo(_)
            | Command::List
            | Command::Expire(_)
            | Command::Info { .. }
            | Command::Check
            | Command::Key(_)
            | Command::Wal(_)
            | Command::Snapshot(_)
            | Command::Manifest(_)
            | Command::Agent(_)
            | Command::Operator(_)
            | Command::Instance(_)
            | Command::Completions { .. }
            | Command::Man { .. } => {}
        }
        values
    }

    /// What the command does as a whole: the `while` line, unless a nearer step has set it.
    pub fn doing(&self) -> &'static str {
        match &self.command {
            Command::Repo(RepoCommand::Init { .. }) => "creating the repositories",
            Command::Repo(RepoCommand::Claim { check: true, .. }) => "checking that the archive is free",
            Command::Repo(RepoCommand::Claim { .. }) => "claiming the archive",
            Command::Repo(RepoCommand::Info) => "looking at the repositories",
            Command::Repo(RepoCommand::Copy(_)) => "copying between repositories",
            Command::Backup(BackupArgs { action: Some(BackupCommand::Hold { .. }), .. }) => "holding a backup",
            Command::Backup(BackupArgs { action: Some(BackupCommand::Release { .. }), .. }) => "releasing a backup",
            Command::Backup(_) => "backing up the cluster",
            Command::Expire(expire) if expire.plan => "planning what expires",
            Command::Expire(_) => "removing what expired",
            Command::List => "listing the backups",
            Command::Info { .. } => "looking at the archive",
            Command::Check => "checking the set-up",
            Command::Restore(restore) if restore.plan => "planning the restore",
            Command::Restore(_) => "restoring the cluster",
            Command::Verify(verify) if verify.repair => "repairing the archive",
            Command::Verify(_) => "verifying the archive",
            Command::Key(KeyCommand::List) => "listing the key slots",
            Command::Key(KeyCommand::Add { .. }) => "adding a key slot",
            Command::Key(KeyCommand::Generate { .. }) => "making a key pair",
            Command::Key(KeyCommand::Rotate(_)) => "rotating the keys",
            Command::Key(KeyCommand::Remove { .. }) => "removing a key slot",
            Command::Drill(_) => "drilling a restore",
            Command::Wal(WalCommand::Push { .. }) => "archiving WAL",
            Command::Wal(WalCommand::Get { .. }) => "fetching WAL",
            Command::Wal(WalCommand::Receive(receive)) if receive.drop_slot => "dropping a replication slot",
            Command::Wal(WalCommand::Receive(_)) => "receiving WAL",
            Command::Wal(WalCommand::List) => "listing the archived WAL",
            Command::Wal(WalCommand::Verify(verify)) if !verify.heal.is_empty() => "healing the archived WAL",
            Command::Wal(WalCommand::Verify(_)) => "verifying the archived WAL",
            Command::Wal(WalCommand::Find(_)) => "searching the archived WAL",
            Command::Snapshot(SnapshotCommand::Record { .. }) => "recording snapshots",
            Command::Snapshot(SnapshotCommand::List) => "listing the snapshots",
            Command::Manifest(ManifestCommand::Check { .. }) => "checking manifests",
            Command::Manifest(ManifestCommand::Crds) => "printing the definitions of resources",
            Command::Agent(AgentArgs { action: Some(AgentAction::Status), .. }) => "asking the agent",
            Command::Agent(_) => "running the agent",
            Command::Operator(_) => "running the operator",
            Command::Instance(_) => "running the instance",
            Command::Completions { .. } => "printing completions",
            Command::Man { .. } => "writing the manual pages",
        }
    }
}
