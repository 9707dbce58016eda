//! `pg_hba.conf` and `pg_ident.conf`. Pure.

use super::wire::Wire;
use holdfast_kube_api::cluster::ClusterSpec;
use holdfast_kube_api::names::REPLICATION_USER;
use std::fmt::Write as _;

/// Name of the user map that lets the manager connect as `postgres`.
const MAP: &str = "holdfast";

/// The text of `pg_hba.conf`. `operating_user` is the name of the operating system user of the server. If the image
/// knows none, access is limited by the directory of the socket, which belongs to that user alone.
pub fn hba(spec: &ClusterSpec, operating_user: Option<&str>, wire: &Wire) -> String {
    let (kind, method) = match wire {
        Wire::Tls => ("hostssl", "cert"),
        Wire::Password(_) => ("host", "scram-sha-256"),
    };
    let mut text =
        String::from("# Written by Holdfast's instance manager: edit spec.postgresql.pg_hba of the Cluster.\n");
    text.push_str(&isolated_hba(operating_user));
    for line in [
        format!("{kind} postgres {REPLICATION_USER} all {method}"),
        format!("{kind} replication {REPLICATION_USER} all {method}"),
        // No other way to connect under this name.
        format!("host all {REPLICATION_USER} all reject"),
    ] {
        text.push_str(&line);
        text.push('\n');
    }
    if !spec.enable_superuser_access {
        text.push_str("host all postgres all reject\n");
    }
    if !spec.postgresql.pg_hba.is_empty() {
        text.push_str("\n# spec.postgresql.pg_hba\n");
        for line in &spec.postgresql.pg_hba {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.push_str("\nhost all all all scram-sha-256\n");
    text
}

/// While the first data directory is prepared: only the manager.
pub fn isolated_hba(operating_user: Option<&str>) -> String {
    match operating_user {
        Some(_) => format!("local all all peer map={MAP}\n"),
        None => "local all all trust\n".to_owned(),
    }
}

/// The text of `pg_ident.conf`.
pub fn ident(spec: &ClusterSpec, operating_user: Option<&str>) -> String {
    let mut text =
        String::from("# Written by Holdfast's instance manager: edit spec.postgresql.pg_ident of the Cluster.\n");
    if let Some(user) = operating_user {
        let _ = writeln!(text, "{MAP} \"{user}\" postgres");
    }
    for line in &spec.postgresql.pg_ident {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The name of a user id, from the text of `/etc/passwd`.
pub fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;

    #[test]
    fn whole_hba() {
        let mut spec = ClusterSpec::default();
        spec.postgresql.pg_hba = vec!["hostssl app app 10.0.0.0/8 scram-sha-256".to_owned()];
        assert_eq!(
            hba(&spec, Some("postgres"), &Wire::Tls),
            "# Written by Holdfast's instance manager: edit spec.postgresql.pg_hba of the Cluster.\n\
             local all all peer map=holdfast\n\
             hostssl postgres streaming_replica all cert\n\
             hostssl replication streaming_replica all cert\n\
             host all streaming_replica all reject\n\
             host all postgres all reject\n\
             \n\
             # spec.postgresql.pg_hba\n\
             hostssl app app 10.0.0.0/8 scram-sha-256\n\
             \n\
             host all all all scram-sha-256\n"
        );
        spec.enable_superuser_access = true;
        assert!(!hba(&spec, None, &Wire::Tls).contains("host all postgres"));
        assert!(hba(&spec, None, &Wire::Tls).contains("local all all trust\n"));
    }

    #[test]
    fn whole_ident() {
        let mut spec = ClusterSpec::default();
        spec.postgresql.pg_ident = vec!["m x y".to_owned()];
        assert_eq!(
            ident(&spec, Some("postgres")),
            "# Written by Holdfast's instance manager: edit spec.postgresql.pg_ident of the Cluster.\n\
             holdfast \"postgres\" postgres\nm x y\n"
        );
    }

    #[test]
    fn users_are_found_by_id() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres:x:26:26::/:/bin/sh\n";
        assert_eq!(user_name(passwd, 26).unwrap(), "postgres");
        assert_eq!(user_name(passwd, 27), None);
    }
}
