//! `holdfast verify`: the backups, how much of them, and the repository.

use crate::config::units::duration;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

/// `holdfast verify`
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// Which backups: all, latest, or the id of one
    #[arg(long, value_name = "BACKUP", default_value = "all")]
    pub backup: String,
    /// Read every byte of packs and WAL, instead of looking up sizes and checksums
    #[arg(long)]
    pub deep: bool,
    /// Read this percentage of packs and WAL, chosen at random, such as 5%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub sample: Option<u8>,
    /// The seed that an earlier run printed: choose the same objects again
    #[arg(long, value_name = "NUMBER", requires = "sample")]
    pub seed: Option<u64>,
    /// With --deep: do not read again what was found sound within this time, such as 30d
    #[arg(long, value_name = "DURATION", requires = "deep", value_parser = duration)]
    pub max_age: Option<Duration>,
    /// The repository, counted from 1 in the order of the configuration, or all
    #[arg(long, value_name = "NUMBER", default_value = "all")]
    pub repo: WhichRepository,
    /// Bring back from another repository what is missing or damaged, and verify again
    #[arg(long, conflicts_with = "sample")]
    pub repair: bool,
    /// With --repair: the repository to take objects from, counted from 1 [default: all others, in their order]
    #[arg(long, value_name = "NUMBER", requires = "repair")]
    pub from: Option<NonZeroUsize>,
    /// Do not write the results into the repository
    #[arg(long)]
    pub no_record: bool,
    /// Threads that decompress and check [default: restore.jobs, or the number of cores]
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<u32>,
}

/// `--repo`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichRepository {
    /// Every repository.
    All,
    /// The repository with this number, from 1.
    Number(usize),
}

impl FromStr for WhichRepository {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("all", _) => Ok(Self::All),
            (_, Ok(number)) if number > 0 => Ok(Self::Number(number)),
            _ => Err("expected all, or a number from 1".to_owned()),
        }
    }
}

/// A percentage from 1 to 100, with or without its sign.
pub(super) fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse();
    number.ok().filter(|percent| (1..=100).contains(percent)).ok_or_else(|| "expected 1% to 100%".to_owned())
}
