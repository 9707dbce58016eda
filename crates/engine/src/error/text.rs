//! Parts of messages that are more than one format string.

use holdfast_pgtypes::SystemIdentifier;

pub(super) fn claimed_by(owner: Option<&String>, system_identifier: SystemIdentifier) -> String {
    match owner {
        Some(owner) => format!("by {owner} (system identifier {system_identifier})"),
        None => format!("for system identifier {system_identifier}, without an owner"),
    }
}

/// PostgreSQL's own message, not only "db error".
pub(crate) fn postgres_text(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    if let Some(db) = error.as_db_error() {
        return format!("{}: {} (SQLSTATE {})", db.severity(), db.message(), db.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
