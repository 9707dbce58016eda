//! A control file beside the output of `pg_controldata`. Shared with `tests/versions.rs`, which asks the programs of
//! each major.

use holdfast_pgtypes::{ControlFile, Lsn};

/// What a comparison found.
pub(crate) struct Compared {
    /// The number of lines about fields that are read.
    pub(crate) fields: usize,
    /// Each field with another value, with both values.
    pub(crate) differences: Vec<String>,
}

/// Compares every line of `pg_controldata` (`name: value`) that is about a field of [`ControlFile`].
pub(crate) fn compare(control: &ControlFile, oracle: &str) -> Compared {
    let mut compared = Compared { fields: 0, differences: Vec::new() };
    for (name, value) in oracle.lines().filter_map(|line| line.split_once(':')) {
        let Some(ours) = printed(control, name) else { continue };
        compared.fields += 1;
        let value = value.trim_start();
        // 19 prints LSNs with eight digits after the slash.
        let theirs = value.parse::<Lsn>().map_or_else(|_| value.to_owned(), |lsn| lsn.to_string());
        if ours != theirs {
            compared.differences.push(format!("{name}: {ours} is read, {theirs} is printed"));
        }
    }
    compared
}

/// The value that `pg_controldata` prints after this name; `None` if the field is not read.
fn printed(control: &ControlFile, name: &str) -> Option<String> {
    let on_off = |flag| if flag { "on" } else { "off" }.to_owned();
    let time = |time: chrono::DateTime<chrono::Utc>| time.format("%a %b %e %H:%M:%S %Y").to_string();
    let lsn = |lsn: Option<Lsn>| lsn.unwrap_or(Lsn::INVALID).to_string();
    Some(match name {
        "pg_control version number" => control.control_version.to_string(),
        "Catalog version number" => control.catalog_version.to_string(),
        "Database system identifier" => control.system_identifier.to_string(),
        "Database cluster state" => control.state.to_string(),
        "pg_control last modified" => time(control.modified),
        "Latest checkpoint location" => lsn(Some(control.checkpoint)),
        "Latest checkpoint's REDO location" => lsn(Some(control.redo)),
        "Latest checkpoint's TimeLineID" => control.timeline.to_string(),
        "Latest checkpoint's PrevTimeLineID" => control.previous_timeline.to_string(),
        "Latest checkpoint's full_page_writes" => on_off(control.full_page_writes),
        "Latest checkpoint's NextXID" => format!("{}:{}", control.next_xid >> 32, control.next_xid & 0xFFFF_FFFF),
        "Latest checkpoint's NextOID" => control.next_oid.to_string(),
        "Latest checkpoint's NextMultiXactId" => control.next_multixact.to_string(),
        "Latest checkpoint's oldestXID" => control.oldest_xid.to_string(),
        "Time of latest checkpoint" => time(control.checkpoint_time),
        "Minimum recovery ending location" => lsn(control.min_recovery_point),
        "Min recovery ending loc's timeline" => {
            control.min_recovery_timeline.map_or_else(|| "0".to_owned(), |timeline| timeline.to_string())
        }
        "Backup start location" => lsn(control.backup_start),
        "Backup end location" => lsn(control.backup_end),
        "End-of-backup record required" => if control.end_of_backup_required { "yes" } else { "no" }.to_owned(),
        "wal_level setting" => control.wal_level.to_string(),
        "wal_log_hints setting" => on_off(control.wal_log_hints),
        "max_connections setting" => control.max_connections.to_string(),
        "max_worker_processes setting" => control.max_worker_processes.to_string(),
        "max_wal_senders setting" => control.max_wal_senders.to_string(),
        "max_prepared_xacts setting" => control.max_prepared_transactions.to_string(),
        "max_locks_per_xact setting" => control.max_locks_per_transaction.to_string(),
        "track_commit_timestamp setting" => on_off(control.track_commit_timestamp),
        "Database block size" => control.block_size.to_string(),
        "Blocks per segment of large relation" => control.relation_segment_pages.to_string(),
        "WAL block size" => control.wal_block_size.to_string(),
        "Bytes per WAL segment" => control.wal_segment_size.bytes().to_string(),
        "Data page checksum version" => control.data_checksum_version.to_string(),
        _ => return None,
    })
}
