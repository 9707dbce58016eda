//! `holdfast repo copy`: the source, the target, and which backups.

/// `holdfast repo copy`
#[derive(Clone, Debug, clap::Args)]
pub struct CopyArgs {
    /// The repository that has the backups, counted from 1 in the order of the configuration
    #[arg(long, value_name = "NUMBER")]
    pub from: std::num::NonZeroUsize,
    /// The repository to copy to, counted in the same way
    #[arg(long, value_name = "NUMBER")]
    pub to: std::num::NonZeroUsize,
    /// Which backups: all, latest, or the id of one; ids may be given several times
    #[arg(long, value_name = "BACKUP", default_value = "all")]
    pub backup: Vec<String>,
    /// Copy all WAL since the oldest of these backups, and not only the WAL they need. Implied by `all`
    #[arg(long)]
    pub all_wal: bool,
    /// Threads that open, check and encrypt [default: restore.jobs, or the number of cores]
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<u32>,
}
