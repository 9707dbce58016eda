//! The keywords of libpq's connection strings, with their variables, and what becomes of each.

use std::collections::BTreeMap;

/// Parameters by their keywords.
pub(in super::super) type Parameters = BTreeMap<&'static str, String>;

/// How a keyword is handled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Support {
    /// As in libpq.
    Full,
    /// Accepted without effect: it makes no difference here.
    Ignored,
    /// Refused: ignoring it would give the user less than they asked for.
    Refused,
}

/// Every keyword of libpq 18, its variable, and how it is handled.
pub(super) const KEY_WORDS: [(&str, &str, Support); 52] = [
    ("application_name", "PGAPPNAME", Support::Full),
    ("channel_binding", "PGCHANNELBINDING", Support::Full),
    ("client_encoding", "", Support::Ignored),
    ("connect_timeout", "PGCONNECT_TIMEOUT", Support::Full),
    ("dbname", "PGDATABASE", Support::Full),
    ("fallback_application_name", "", Support::Ignored),
    ("gssdelegation", "PGGSSDELEGATION", Support::Ignored),
    ("gssencmode", "PGGSSENCMODE", Support::Full),
    ("gsslib", "PGGSSLIB", Support::Ignored),
    ("host", "PGHOST", Support::Full),
    ("hostaddr", "PGHOSTADDR", Support::Full),
    ("keepalives", "", Support::Full),
    ("keepalives_count", "", Support::Full),
    ("keepalives_idle", "", Support::Full),
    ("keepalives_interval", "", Support::Full),
    ("krbsrvname", "PGKRBSRVNAME", Support::Ignored),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", Support::Ignored),
    ("max_protocol_version", "PGMAXPROTOCOLVERSION", Support::Ignored),
    ("min_protocol_version", "PGMINPROTOCOLVERSION", Support::Refused),
    ("oauth_client_id", "", Support::Refused),
    ("oauth_client_secret", "", Support::Refused),
    ("oauth_issuer", "", Support::Refused),
    ("oauth_scope", "", Support::Refused),
    ("options", "PGOPTIONS", Support::Full),
    ("passfile", "PGPASSFILE", Support::Full),
    ("password", "PGPASSWORD", Support::Full),
    ("port", "PGPORT", Support::Full),
    ("replication", "", Support::Refused),
    ("require_auth", "PGREQUIREAUTH", Support::Refused),
    ("requirepeer", "PGREQUIREPEER", Support::Refused),
    ("requiressl", "PGREQUIRESSL", Support::Refused),
    ("scram_client_key", "", Support::Refused),
    ("scram_server_key", "", Support::Refused),
    ("service", "PGSERVICE", Support::Full),
    ("servicefile", "PGSERVICEFILE", Support::Full),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Support::Full),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Support::Full),
    ("sslcert", "PGSSLCERT", Support::Full),
    ("sslcertmode", "PGSSLCERTMODE", Support::Full),
    ("sslcompression", "PGSSLCOMPRESSION", Support::Ignored),
    ("sslcrl", "PGSSLCRL", Support::Refused),
    ("sslcrldir", "PGSSLCRLDIR", Support::Refused),
    ("sslkey", "PGSSLKEY", Support::Full),
    ("sslkeylogfile", "", Support::Refused),
    ("sslmode", "PGSSLMODE", Support::Full),
    ("sslnegotiation", "PGSSLNEGOTIATION", Support::Full),
    ("sslpassword", "", Support::Refused),
    ("sslrootcert", "PGSSLROOTCERT", Support::Full),
    ("sslsni", "PGSSLSNI", Support::Full),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", Support::Full),
    ("tcp_user_timeout", "", Support::Full),
    ("user", "PGUSER", Support::Full),
];

pub(super) fn key_word(name: &str) -> Option<&'static str> {
    KEY_WORDS.iter().map(|(word, _, _)| *word).find(|word| *word == name)
}
