//! The errors of `holdfast restore` with fields of a `Cluster` instead of flags: the author of a manifest has no flags
//! to change.

use crate::error::Error;

/// Flags, and the fields of `spec.bootstrap.recovery` that they are made from. A flag comes before flags that are a
/// prefix of it.
const FIELDS: [(&str, &str); 8] = [
    ("--target-timeline", "recoveryTarget.targetTLI"),
    ("--target-time", "recoveryTarget.targetTime"),
    ("--target-lsn", "recoveryTarget.targetLSN"),
    ("--target-xid", "recoveryTarget.targetXID"),
    ("--target-name", "recoveryTarget.targetName"),
    ("--target-immediate", "recoveryTarget.targetImmediate"),
    ("--target-exclusive", "recoveryTarget.exclusive"),
    ("--backup", "recoveryTarget.backupID"),
];

/// The error of a restore with fields instead of flags.
pub(super) fn in_fields(error: Error) -> Error {
    let Error { kind, what, doing, hint } = error;
    Error { kind, what: named(&what), doing: doing.as_deref().map(named), hint: hint.as_deref().map(named) }
}

fn named(text: &str) -> String {
    FIELDS.iter().fold(text.to_owned(), |text, (flag, field)| text.replace(flag, field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_names_fields() {
        let hint = "name the line with --target-timeline: 3, or another one\n--target-timeline 1: timeline 1 parts from it at \
                    0/5000000 and has backup 20261122T101500Z";
        let error = in_fields(Error::stuck("backup x is newer").doing("planning the recovery").hint(hint));
        assert_eq!(
            error.to_string(),
            "error: backup x is newer\n\
             while: planning the recovery\n\
             hint:  name the line with recoveryTarget.targetTLI: 3, or another one\n\
             \x20      recoveryTarget.targetTLI 1: timeline 1 parts from it at 0/5000000 and has backup 20261122T101500Z"
        );
        let words = "leave --backup out, or give --target-time, --target-immediate, --target-exclusive";
        assert_eq!(
            named(words),
            "leave recoveryTarget.backupID out, or give recoveryTarget.targetTime, recoveryTarget.targetImmediate, \
             recoveryTarget.exclusive"
        );
    }
}
