//! `holdfast wal verify`: which WAL, how much of it, and from where it is healed.

use super::verify::{WhichRepository, percent};
use holdfast_pgtypes::TimelineId;
use std::path::PathBuf;

/// `holdfast wal verify`
#[derive(Clone, Debug, clap::Args)]
pub struct WalVerifyArgs {
    /// The repository, counted from 1 in the order of the configuration, or all
    #[arg(long, value_name = "NUMBER", default_value = "all")]
    pub repo: WhichRepository,
    /// Follow this timeline only [default: every timeline that a backup leads to]
    #[arg(long, value_name = "TIMELINE")]
    pub timeline: Option<TimelineId>,
    /// Read every byte of the segments, instead of names, sizes and some facts
    #[arg(long)]
    pub deep: bool,
    /// Read this percentage of the segments, chosen at random, such as 5%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub sample: Option<u8>,
    /// Choose the same segments as the run that printed this number
    #[arg(long, value_name = "NUMBER", requires = "sample")]
    pub seed: Option<u64>,
    /// Archive missing files that this directory still has: pg_wal of a server, or an archive of plain WAL files; may
    /// be given several times
    #[arg(long, value_name = "DIR")]
    pub heal: Vec<PathBuf>,
    /// Do not record gaps in the repository
    #[arg(long)]
    pub no_record: bool,
    /// Threads that decompress and check [default: restore.jobs, or the number of cores]
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<u32>,
}
