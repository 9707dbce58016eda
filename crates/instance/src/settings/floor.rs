//! Settings that must be at least as high on a server in recovery as on its primary. Pure.
//!
//! A standby needs at least its primary's values: `CheckRequiredParameterValues` (`xlogrecovery.c`) stops one that has
//! less than its control file says. So a standby starts with the values in its control file where these are higher than
//! in the files. Such a setting waits for a restart exactly when a restart would change it: a raised one at once, a
//! lowered one after the primary's lower value has been replayed. The operator restarts standbys first and then the
//! primary. So raised settings reach the standbys before the primary, and lowered ones after it.

use holdfast_kube_api::cluster::ClusterSpec;
use holdfast_kube_api::status_port::Role;
use holdfast_pgtypes::ControlFile;

/// The settings, with PostgreSQL's defaults or ours.
const BOUND: [(&str, u32); 5] = [
    ("max_connections", 100),
    ("max_worker_processes", 32),
    ("max_wal_senders", 32),
    ("max_prepared_transactions", 0),
    ("max_locks_per_transaction", 64),
];

/// The minimum that a standby needs of each setting, in that order: its primary's values at the replayed position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed([u32; BOUND.len()]);

impl From<&ControlFile> for Needed {
    fn from(control: &ControlFile) -> Self {
        Self([
            control.max_connections,
            control.max_worker_processes,
            control.max_wal_senders,
            control.max_prepared_transactions,
            control.max_locks_per_transaction,
        ])
    }
}

/// One of the settings in a running server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The name of the setting.
    pub name: String,
    /// The value in the running server.
    pub running: u32,
    /// The value in the server's files now, `postgresql.auto.conf` included; `None` if it is not a number.
    pub written: Option<u32>,
}

/// The names of the settings, for a query.
pub fn names() -> Vec<&'static str> {
    BOUND.map(|(name, _)| name).to_vec()
}

/// Settings of which a standby needs more than the Cluster says, for its command line.
pub fn settings(spec: &ClusterSpec, needed: impl Into<Needed>) -> Vec<(&'static str, String)> {
    BOUND
        .into_iter()
        .zip(needed.into().0)
        .filter(|((name, default), needed)| {
            let written = spec.postgresql.parameters.get(*name).and_then(|value| value.trim().parse().ok());
            written.unwrap_or(*default) < *needed
        })
        .map(|((name, _), needed)| (name, needed.to_string()))
        .collect()
}

/// Whether a restart would change one of the settings. A standby whose minimum is unknown is not restarted.
pub fn waits(role: Role, spec: &ClusterSpec, needed: Option<Needed>, bounds: &[Bound]) -> bool {
    let given = match (role, needed) {
        (Role::Primary, _) => Vec::new(),
        (Role::Replica, Some(needed)) => settings(spec, needed),
        (Role::Replica, None) => return false,
    };
    bounds.iter().any(|bound| {
        let given = given.iter().find(|(name, _)| *name == bound.name).and_then(|(_, value)| value.parse().ok());
        given.or(bound.written).is_some_and(|next| next != bound.running)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(connections: u32) -> ClusterSpec {
        let mut spec = ClusterSpec::default();
        spec.postgresql.parameters.insert("max_connections".to_owned(), connections.to_string());
        spec
    }

    fn needed(connections: u32) -> Needed {
        Needed([connections, 32, 32, 0, 64])
    }

    #[test]
    fn raised_settings_wait_at_once_and_lowered_ones_for_the_primary() {
        use Role::{Primary, Replica};
        for (name, role, written, in_control, running, expected) in [
            ("nothing has changed", Replica, 100, 100, 100, false),
            ("a standby is raised before its primary", Replica, 157, 100, 100, true),
            ("it has been restarted", Replica, 157, 100, 157, false),
            ("the primary is raised", Primary, 157, 100, 100, true),
            ("a standby keeps what its primary still has", Replica, 120, 157, 157, false),
            ("the primary is lowered", Primary, 120, 157, 157, true),
            ("the primary's lower value is replayed", Replica, 120, 120, 157, true),
            ("the standby has it too", Replica, 120, 120, 120, false),
            ("lowered twice before the primary was restarted", Replica, 110, 157, 157, false),
            ("raised over what it was started with", Replica, 200, 157, 157, true),
            ("promoted with the values it had as a standby", Primary, 120, 157, 157, true),
            ("a standby with less than it needs", Replica, 120, 157, 120, true),
        ] {
            let bounds = [
                Bound { name: "max_connections".to_owned(), running, written: Some(written) },
                Bound { name: "max_wal_senders".to_owned(), running: 32, written: Some(32) },
            ];
            assert_eq!(waits(role, &spec(written), Some(needed(in_control)), &bounds), expected, "{name}");
        }
    }

    #[test]
    fn one_is_raised_and_another_lowered_at_once() {
        let mut spec = spec(200);
        spec.postgresql.parameters.insert("max_worker_processes".to_owned(), "8".to_owned());
        let bounds = |connections, workers| {
            [
                Bound { name: "max_connections".to_owned(), running: connections, written: Some(200) },
                Bound { name: "max_worker_processes".to_owned(), running: workers, written: Some(8) },
            ]
        };
        let before = needed(100);
        assert!(waits(Role::Replica, &spec, Some(before), &bounds(100, 32)), "the raise");
        assert_eq!(settings(&spec, before), [("max_worker_processes", "32".to_owned())]);
        assert!(!waits(Role::Replica, &spec, Some(before), &bounds(200, 32)), "the primary's turn");
        let after = Needed([200, 8, 32, 0, 64]);
        assert!(waits(Role::Replica, &spec, Some(after), &bounds(200, 32)), "what was lowered");
        assert!(!waits(Role::Replica, &spec, Some(after), &bounds(200, 8)));
    }

    #[test]
    fn what_users_wrote_with_alter_system_counts_and_never_restarts_for_ever() {
        let bound = |running, written| Bound { name: "max_connections".to_owned(), running, written };
        let waits = |role, needed, bound| waits(role, &spec(100), needed, &[bound]);
        assert!(waits(Role::Primary, None, bound(100, Some(300))));
        assert!(!waits(Role::Primary, None, bound(300, Some(300))), "the server would not get the Cluster's 100");
        assert!(!waits(Role::Primary, None, bound(300, None)), "no number");
        assert!(!waits(Role::Replica, None, bound(300, Some(100))), "its minimum is not known");
        assert!(waits(Role::Replica, Some(needed(100)), bound(100, Some(300))));
        // It needs more than the Cluster says and less than the user wrote: it starts with what it needs.
        assert!(!waits(Role::Replica, Some(needed(200)), bound(200, Some(300))));
    }

    #[test]
    fn a_standby_gets_at_least_what_it_needs() {
        let all = settings(&ClusterSpec::default(), Needed([101, 33, 34, 1, 65]));
        let expected = [
            ("max_connections", "101"),
            ("max_worker_processes", "33"),
            ("max_wal_senders", "34"),
            ("max_prepared_transactions", "1"),
            ("max_locks_per_transaction", "65"),
        ];
        assert_eq!(all, expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(settings(&ClusterSpec::default(), needed(100)), []);
        assert_eq!(settings(&spec(150), needed(150)), []);
    }
}
