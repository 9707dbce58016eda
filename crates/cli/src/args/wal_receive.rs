//! `holdfast wal receive`.

use crate::config::units::duration;
use clap::Args;
use std::time::Duration;

/// `holdfast wal receive`
#[derive(Clone, Debug, Args)]
pub struct WalReceiveArgs {
    /// The physical replication slot; made if it does not exist, and then it stays until it is dropped
    #[arg(long, value_name = "NAME", default_value = "holdfast", value_parser = slot_name)]
    pub slot: String,
    /// If the slot is made, let it end with its connection: while the receiver is away, the server keeps no WAL for it
    #[arg(long, conflicts_with = "drop_slot")]
    pub temporary: bool,
    /// Drop the slot and end: the server then keeps no WAL for it any more
    #[arg(long)]
    pub drop_slot: bool,
    /// The name in synchronous_standby_names and pg_stat_replication
    #[arg(long, value_name = "NAME", default_value = "holdfast", value_parser = application_name)]
    pub application_name: String,
    /// Store what was received at least this often, such as 500ms; 0s for synchronous replication: at once
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration, conflicts_with = "drop_slot")]
    pub interval: Duration,
    /// If the server no longer has WAL that comes next, record the gap and continue after it; then take a new backup
    #[arg(long, conflicts_with = "drop_slot")]
    pub accept_gap: bool,
}

/// As `ReplicationSlotValidateName`: 1 to 63 of `a-z 0-9 _`.
fn slot_name(text: &str) -> Result<String, String> {
    let is_valid = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if is_valid { Ok(text.to_owned()) } else { Err("a slot's name has 1 to 63 of a-z, 0-9 and _".to_owned()) }
}

/// PostgreSQL cuts longer names, and replaces other characters.
fn application_name(text: &str) -> Result<String, String> {
    let is_valid = (1..=63).contains(&text.len()) && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if is_valid { Ok(text.to_owned()) } else { Err("it has 1 to 63 printable ASCII characters".to_owned()) }
}
