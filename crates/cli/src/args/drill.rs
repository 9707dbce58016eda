//! `holdfast drill`: the target, the directory, and the checks.

use super::target::TargetArgs;
use crate::config::reader::absolute;
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline, moment};
use std::path::PathBuf;

/// `holdfast drill`
#[derive(Clone, Debug, clap::Args)]
pub struct DrillArgs {
    /// Where the throw-away directory is created, absolute [default: drill.directory]
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub directory: Option<PathBuf>,
    /// Where PostgreSQL's programs are [default: drill.bin_dir, or the PATH and the folders of the packages]
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub bin_dir: Option<PathBuf>,
    /// Choose a moment at random, anywhere in what can be restored [default: the newest moment]
    #[arg(long, group = "target", conflicts_with = "timeline")]
    pub random: bool,
    /// The seed that an earlier drill printed: choose the same moment again
    #[arg(long, value_name = "NUMBER", requires = "random")]
    pub seed: Option<u64>,
    /// Where recovery stops, and which timeline it follows.
    #[command(flatten)]
    pub to: TargetArgs,
    /// The backup to begin with [default: the newest one before the target]
    #[arg(long, value_name = "ID", conflicts_with = "random")]
    pub backup: Option<String>,
    /// The repository with this number; the first one in the configuration is 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub repo: usize,
    /// Queries that each must answer with one row that begins with true: a file, or a folder with *.sql; may be given
    /// several times [default: drill.probes]
    #[arg(long = "probe", value_name = "FILE", value_parser = absolute)]
    pub probes: Vec<PathBuf>,
    /// A superuser of the cluster [default: drill.role, or postgres]
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,
    /// The database of the queries [default: drill.database, or postgres]
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
    /// A setting of the restored server, such as shared_buffers=1GB; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    pub settings: Vec<(String, String)>,
    /// Do not run pg_amcheck
    #[arg(long)]
    pub no_amcheck: bool,
    /// How long the drill may take, such as 4h [default: drill.time_limit, or 23h]
    #[arg(long, value_name = "DURATION")]
    pub time_limit: Option<String>,
    /// Keep the directory after the drill; the server is still stopped
    #[arg(long)]
    pub keep: bool,
    /// Do not write the result into the repository
    #[arg(long)]
    pub no_record: bool,
    /// Threads that decompress and check [default: restore.jobs, or the number of cores]
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<u32>,
}

impl DrillArgs {
    /// The flags of the target, as they can be typed again.
    pub fn target_flags(&self) -> String {
        let mut flags = match self.to.target() {
            RecoveryTarget::Latest => Vec::new(),
            RecoveryTarget::Immediate => vec!["--target-immediate".to_owned()],
            RecoveryTarget::Time(time) => vec![format!("--target-time \"{}\"", moment::text(time))],
            RecoveryTarget::Lsn(lsn) => vec![format!("--target-lsn {lsn}")],
            RecoveryTarget::Xid(xid) => vec![format!("--target-xid {xid}")],
            RecoveryTarget::Name(name) => vec![format!("--target-name \"{name}\"")],
        };
        if self.to.timeline != TargetTimeline::Latest {
            flags.push(format!("--target-timeline {}", self.to.timeline));
        }
        if self.to.exclusive {
            flags.push("--target-exclusive".to_owned());
        }
        flags.extend(self.backup.as_ref().map(|backup| format!("--backup {backup}")));
        flags.join(" ")
    }
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}
