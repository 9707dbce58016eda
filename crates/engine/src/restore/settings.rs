//! Makes the files that control PostgreSQL's recovery: `postgresql.auto.conf`, the signal file, the tablespace map.
//! Pure.
//!
//! PostgreSQL 13 and later read the recovery settings as ordinary ones, `postgresql.auto.conf` last. Only one
//! `recovery_target*` may be set in all files together, but an empty value cancels the value of another file. The order
//! matters: `assign_recovery_target_*` (`xlogrecovery.c`, `guc.c` before 15) refuses any other target, even an empty
//! one, once one is set. So the empty ones come first and ours comes last.

use chrono::{DateTime, Utc};
use holdfast_pgtypes::TablespaceMap;
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetAction, moment};
use holdfast_pgtypes::tablespace_map::TablespaceEntry;
use holdfast_repo::recovery::{RecoveryPlan, RecoveryRequest};
use serde::{Deserialize, Serialize};

use super::layout::Layout;

/// Whether the restored server archives its WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Archiving {
    /// Archives as the original did: into the same archive, on a new timeline.
    #[default]
    AsBackedUp,
    /// Does not archive: for a copy that is only examined.
    Off,
}

/// The settings that say where recovery stops; only one of them may be set.
const TARGETS: [&str; 5] =
    ["recovery_target", "recovery_target_time", "recovery_target_lsn", "recovery_target_xid", "recovery_target_name"];

/// Other settings that a restore always replaces.
const RECOVERY: [&str; 6] = [
    "restore_command",
    "recovery_target_inclusive",
    "recovery_target_timeline",
    "recovery_target_action",
    ARCHIVE_CLEANUP,
    RECOVERY_END,
];

/// Commands that the original ran in its own recovery, for its own archive: here they would remove files of another
/// server.
const ARCHIVE_CLEANUP: &str = "archive_cleanup_command";
const RECOVERY_END: &str = "recovery_end_command";

/// The delay of a standby that lags on purpose. In an emergency the recovery would wait for the most recent
/// transactions.
const APPLY_DELAY: &str = "recovery_min_apply_delay";

const ARCHIVE_MODE: &str = "archive_mode";

/// Without it recovery ends with a PANIC where it finds a tablespace that is a directory (`CheckTablespaceDirectory`,
/// `xlogrecovery.c`). The original may have had it in one session only. Every release that makes such tablespaces has
/// it.
const IN_PLACE: &str = "allow_in_place_tablespaces";

/// Settings of a standby. With them the server would connect to its former primary.
const STANDBY: [&str; 2] = ["primary_conninfo", "primary_slot_name"];

/// The note for a copy that does not archive.
pub(crate) const ARCHIVES_NOTHING: &str = "archive_mode is off in this copy: it archives nothing. Before you put it into \
     service, run ALTER SYSTEM RESET archive_mode and restart it";

/// The comment before our lines; such comments of earlier restores are dropped.
const COMMENT_START: &[u8] = b"# Holdfast: recovery settings of the restore of backup ";

/// The facts for the recovery settings.
#[derive(Debug, Clone)]
pub(super) struct Recovery<'a> {
    /// What the user asked for.
    pub request: &'a RecoveryRequest,
    /// The planner's answer.
    pub plan: &'a RecoveryPlan,
    /// What to do at the target.
    pub action: Option<TargetAction>,
    /// Whether a standby is made.
    pub standby: bool,
    /// Whether the copy archives.
    pub archiving: Archiving,
    /// `restore_command`
    pub restore_command: String,
    /// Whether a tablespace is a directory in `pg_tblspc`.
    pub in_place: bool,
}

/// The name of the file that starts recovery.
pub(super) fn signal_file(standby: bool) -> &'static str {
    if standby { "standby.signal" } else { "recovery.signal" }
}

/// Both signal files: one from the backup must not decide in place of ours.
pub(super) const SIGNAL_FILES: [&str; 2] = ["recovery.signal", "standby.signal"];

/// The lines that a restore adds to `postgresql.auto.conf`, without line ends.
pub(super) fn lines(recovery: &Recovery<'_>, now: DateTime<Utc>) -> Vec<String> {
    let Recovery { request, plan, action, standby, archiving, ref restore_command, in_place } = *recovery;
    let (target, value) = match &request.target {
        RecoveryTarget::Latest => ("", String::new()),
        RecoveryTarget::Immediate => ("recovery_target", "immediate".to_owned()),
        RecoveryTarget::Time(time) => ("recovery_target_time", moment::text(*time)),
        RecoveryTarget::Lsn(lsn) => ("recovery_target_lsn", lsn.to_string()),
        RecoveryTarget::Xid(xid) => ("recovery_target_xid", xid.to_string()),
        RecoveryTarget::Name(name) => ("recovery_target_name", name.clone()),
    };
    let mut lines = vec![
        format!("{}{} at {}", String::from_utf8_lossy(COMMENT_START), plan.backup, now.format("%Y-%m-%d %H:%M:%S UTC")),
        setting("restore_command", restore_command),
        setting("recovery_target_timeline", &timeline(plan, standby)),
        setting("recovery_target_inclusive", if request.inclusive { "on" } else { "off" }),
        setting("recovery_target_action", action.unwrap_or(TargetAction::Pause).as_str()),
    ];
    lines.push(setting(ARCHIVE_CLEANUP, ""));
    lines.push(setting(RECOVERY_END, ""));
    if !standby {
        lines.push(setting(APPLY_DELAY, "0"));
    }
    if archiving == Archiving::Off {
        lines.push(setting(ARCHIVE_MODE, "off"));
    }
    if in_place {
        lines.push(setting(IN_PLACE, "on"));
    }
    lines.extend(TARGETS.iter().filter(|name| **name != target).map(|name| setting(name, "")));
    if !target.is_empty() {
        lines.push(setting(target, &value));
    }
    lines
}

/// The number that the planner chose, so that PostgreSQL follows the path that was checked. A standby follows every new
/// timeline instead. A timeline whose history file was never archived cannot be named (`existsTimeLineHistory`); then
/// it is the backup's own.
fn timeline(plan: &RecoveryPlan, standby: bool) -> String {
    if standby {
        "latest".to_owned()
    } else if plan.timeline.get() == 1 || plan.history_files.contains(&plan.timeline) {
        plan.timeline.to_string()
    } else {
        "current".to_owned()
    }
}

/// A line as `write_auto_conf_file` quotes it; characters that the lexer (`guc-file.l`) does not accept in a value are
/// escaped.
fn setting(name: &str, value: &str) -> String {
    let mut line = format!("{name} = '");
    for c in value.chars() {
        match c {
            '\'' => line.push_str("''"),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            c => line.push(c),
        }
    }
    line.push('\'');
    line
}

/// The backed-up `postgresql.auto.conf` without the settings that we set, followed by our lines.
pub(super) fn auto_conf(backed_up: &[u8], ours: &[String], recovery: &Recovery<'_>) -> Vec<u8> {
    let mut text = Vec::with_capacity(backed_up.len() + 1024);
    for line in backed_up.split_inclusive(|byte| *byte == b'\n') {
        if !is_ours(line, recovery) {
            text.extend_from_slice(line);
        }
    }
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    for line in ours {
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    text
}

fn is_ours(line: &[u8], recovery: &Recovery<'_>) -> bool {
    let line = line.trim_ascii();
    if line.starts_with(COMMENT_START) {
        return true;
    }
    let name = name_of(line);
    let is = |names: &[&str]| names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
    is(&TARGETS)
        || is(&RECOVERY)
        || (!recovery.standby && (is(&STANDBY) || is(&[APPLY_DELAY])))
        || (recovery.archiving == Archiving::Off && is(&[ARCHIVE_MODE]))
        || (recovery.in_place && is(&[IN_PLACE]))
}

/// The setting's name at the beginning of a line.
fn name_of(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'=').unwrap_or(line.len());
    &line[..end]
}

/// Notes about settings that are removed or kept.
pub(super) fn notes(backed_up: &[u8], recovery: &Recovery<'_>) -> Vec<String> {
    let is_set = |known: &str| {
        backed_up.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).any(|line| {
            name_of(line).eq_ignore_ascii_case(known.as_bytes()) && !line.ends_with(b"''") && !line.ends_with(b"'0'")
        })
    };
    let mut notes = Vec::new();
    for command in [ARCHIVE_CLEANUP, RECOVERY_END] {
        if is_set(command) {
            notes.push(format!("{command} of the original server is not copied: set it again if this server needs it"));
        }
    }
    if recovery.standby {
        notes.push(format!(
            "{APPLY_DELAY} stays as it was backed up: a delayed standby is delayed again, and if it is promoted early, \
             it lacks what it has not replayed"
        ));
    } else if is_set(APPLY_DELAY) {
        notes.push(format!("{APPLY_DELAY} of the original server is not copied: recovery does not wait"));
    }
    if recovery.archiving == Archiving::Off {
        notes.push(ARCHIVES_NOTHING.to_owned());
    }
    if recovery.in_place && !is_set(IN_PLACE) {
        notes.push(format!("{IN_PLACE} is on in the copy, since its recovery needs it: reset it after the promotion"));
    }
    notes
}

/// `tablespace_map` with the directories of the restore; recovery makes the links again from it.
pub(super) fn tablespace_map(backed_up: &TablespaceMap, layout: &Layout) -> TablespaceMap {
    use std::os::unix::ffi::OsStrExt;
    let place = |entry: &TablespaceEntry| {
        let place = layout.tablespaces().iter().find(|tablespace| tablespace.oid == entry.oid);
        place.map_or_else(|| entry.path.clone(), |place| place.location.as_os_str().as_bytes().to_vec())
    };
    TablespaceMap {
        entries: backed_up.entries.iter().map(|entry| TablespaceEntry { oid: entry.oid, path: place(entry) }).collect(),
    }
}

#[cfg(test)]
mod tests;
