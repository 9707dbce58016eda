//! What an error of the restored server is about: the backup, this host, the role, or only the end of the server. It is
//! for sessions, and for the drill's own queries, which succeed on every sound server. Pure.

use tokio_postgres::error::DbError;

use super::faults;
use crate::error::{Cause, Error, postgres_text};

/// What an error is about.
#[derive(Debug)]
pub(super) enum Refused {
    /// The role or the database is not as configured. This says nothing about the backup.
    Role,
    /// This host lacks memory or room for the server. This says nothing about the backup.
    Host(Error),
    /// The server is starting or ending, or the session is gone.
    Ending,
    /// Nothing else explains it: the restored cluster is damaged.
    Damaged(String),
}

/// Finds what an error is about.
pub(super) fn judge(error: &tokio_postgres::Error) -> Refused {
    let Some(refusal) = error.as_db_error() else { return Refused::Ending };
    let text = || postgres_text(error);
    match class_of(refusal) {
        RefusalClass::Role => Refused::Role,
        RefusalClass::Host => Refused::Host(faults::of_text(&text()).unwrap_or_else(|| faults::other(text())).into()),
        RefusalClass::Ending => Refused::Ending,
        RefusalClass::Damaged => match faults::of_text(refusal.message()) {
            Some(cause) => Refused::Host(cause.into()),
            None => Refused::Damaged(match refusal.detail() {
                Some(detail) => format!("{}: {detail}", text()),
                None => text(),
            }),
        },
    }
}

/// The damage that an error reports. Any other error is returned.
pub(super) fn damage(error: Error) -> Result<String, Error> {
    let Cause::Postgres(cause) = &*error.what else { return Err(error) };
    match judge(cause) {
        Refused::Damaged(what) => Ok(what),
        Refused::Host(error) => Err(error),
        Refused::Role | Refused::Ending => Err(error),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefusalClass {
    Role,
    Host,
    Ending,
    Damaged,
}

fn class_of(refusal: &DbError) -> RefusalClass {
    classify(refusal.code().code(), refusal.message(), refusal.detail().unwrap_or_default())
}

fn classify(state: &str, message: &str, detail: &str) -> RefusalClass {
    match (state.get(..2).unwrap_or_default(), state) {
        // Also `too_many_connections`, and a database that takes no sessions.
        ("28", _) | (_, "42501" | "53300" | "55000") => RefusalClass::Role,
        // As `InitPostgres`: the catalog has the database, but its files are gone.
        (_, "3D000") if detail.contains("database subdirectory") => RefusalClass::Damaged,
        (_, "3D000") => RefusalClass::Role,
        // A mistake of the drill: this release does not have a setting of its session.
        (_, "42704" | "22023") if message.contains("parameter") => RefusalClass::Role,
        ("53", _) => RefusalClass::Host,
        ("57", _) => RefusalClass::Ending,
        _ => RefusalClass::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nothing_else_explains_is_damage() {
        for (state, message, detail, expected) in [
            ("XX001", "invalid page in block 3 of relation base/5/1249", "", RefusalClass::Damaged),
            ("XX000", "cache lookup failed for relation 1249", "", RefusalClass::Damaged),
            ("58P01", "could not open file \"base/5/1249\": No such file or directory", "", RefusalClass::Damaged),
            ("42P01", "relation \"pg_catalog.pg_database\" does not exist", "", RefusalClass::Damaged),
            (
                "3D000",
                "database \"app\" does not exist",
                "The database subdirectory \"base/9\" is missing.",
                RefusalClass::Damaged,
            ),
            ("3D000", "database \"app\" does not exist", "", RefusalClass::Role),
            ("28000", "role \"x\" does not exist", "", RefusalClass::Role),
            ("42501", "permission denied for database \"app\"", "", RefusalClass::Role),
            ("53300", "sorry, too many clients already", "", RefusalClass::Role),
            ("55000", "database \"app\" is not currently accepting connections", "", RefusalClass::Role),
            ("42704", "unrecognized configuration parameter \"event_triggers\"", "", RefusalClass::Role),
            ("53100", "could not write to file: No space left on device", "", RefusalClass::Host),
            ("53200", "out of memory", "", RefusalClass::Host),
            ("57P03", "the database system is starting up", "", RefusalClass::Ending),
            ("57P01", "terminating connection due to administrator command", "", RefusalClass::Ending),
        ] {
            assert_eq!(classify(state, message, detail), expected, "{state} {message}");
        }
    }
}
