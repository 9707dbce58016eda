//! `holdfast wal find`: what is looked for, and where.

use super::target::{parse_restore_point, parse_timeline, parse_xid};
use chrono::{DateTime, Utc};
use holdfast_engine::find::{Query, SearchedObject};
use holdfast_pgtypes::Lsn;
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline, moment};

/// `holdfast wal find`
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("wanted").multiple(false))]
#[command(group = clap::ArgGroup::new("one-place").multiple(false))]
pub struct WalFindArgs {
    /// Find drops, truncations and rewrites of this object: a name such as orders, public.orders or "Orders" (in quotes
    /// of its own, as in SQL), the name of a database, an OID, or a file such as base/16384/24576
    #[arg(long, value_name = "WHAT", group = "wanted")]
    pub before_drop: Option<SearchedObject>,
    /// All drops, truncations and rewrites of relations, and drops of databases; the default
    #[arg(long, group = "wanted")]
    pub ddl: bool,
    /// The first transaction after this moment, such as "2026-11-22 10:15:00+00"; the zone must be given
    #[arg(long, value_name = "TIME", value_parser = moment::parse_with_zone, groups = ["wanted", "one-place"])]
    pub time: Option<DateTime<Utc>>,
    /// The end of this transaction
    #[arg(long, value_name = "XID", value_parser = parse_xid, groups = ["wanted", "one-place"])]
    pub xid: Option<u64>,
    /// This place in the WAL, such as 16/B374D848
    #[arg(long, value_name = "LSN", groups = ["wanted", "one-place"])]
    pub lsn: Option<Lsn>,
    /// This restore point, made with pg_create_restore_point()
    #[arg(long, value_name = "NAME", value_parser = parse_restore_point, groups = ["wanted", "one-place"])]
    pub name: Option<String>,
    /// Only changes at this moment or later
    #[arg(long, value_name = "TIME", value_parser = moment::parse_with_zone, conflicts_with = "one-place")]
    pub since: Option<DateTime<Utc>>,
    /// Only changes at this moment or earlier
    #[arg(long, value_name = "TIME", value_parser = moment::parse_with_zone, conflicts_with = "one-place")]
    pub until: Option<DateTime<Utc>>,
    /// Along which timeline. latest: the newest one; current: that of the newest backup; or a number
    #[arg(long = "target-timeline", value_name = "TIMELINE", default_value = "latest", value_parser = parse_timeline)]
    pub timeline: TargetTimeline,
    /// Search the repository with this number; the first one in the configuration is 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub repo: usize,
}

impl WalFindArgs {
    /// What is looked for; clap ensures that it is one thing.
    pub fn query(&self) -> Query {
        let target = match (self.time, self.xid, self.lsn, &self.name) {
            (Some(time), ..) => Some(RecoveryTarget::Time(time)),
            (None, Some(xid), ..) => Some(RecoveryTarget::Xid(xid)),
            (None, None, Some(lsn), _) => Some(RecoveryTarget::Lsn(lsn)),
            (None, None, None, Some(name)) => Some(RecoveryTarget::Name(name.clone())),
            (None, None, None, None) => None,
        };
        target.map_or_else(
            || Query::Changes { about: self.before_drop.clone(), since: self.since, until: self.until },
            Query::Target,
        )
    }
}
