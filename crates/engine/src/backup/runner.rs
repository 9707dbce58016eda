//! The identity of the process that runs a backup, so that the next run knows which remains it may remove.
//!
//! A host name is not enough: containers, clones and unnamed machines can have the same name. Two runs are of one
//! machine if the hashes of `/etc/machine-id` are equal, or, without such a file, if the boot ids are equal. Cloned
//! machines have the same machine id but different boot ids. So if a run began after this kernel was booted and has
//! another boot id, it is a run of a clone. The machine id itself is private (`machine-id(5)`), so only its hash is
//! written.
//!
//! Two containers on one host have the same boot id, and often the same machine id (or none), host name and path, but
//! different data directories. The lock of this process says nothing about the run in the other container. So the same
//! boot counts only in the same PID namespace. A run in another namespace, or in an unknown one, is dead when its lease
//! is over.
//!
//! This fails for a data directory that moves between machines, such as a volume that moves with its pod. For this case
//! the user can give it an id ([`super::BackupOptions::machine`]), which then replaces the machine, its boot id and its
//! host name. If two live machines have the same id, one can remove the running backup of the other, but never a
//! complete one: see [`super::remains`].

use chrono::{DateTime, Utc};
use holdfast_repo::record::{RunIdentity, StartRecord};

use crate::error::{Cause, Error};
use crate::repository::machine::{Machine, hashed};

/// The context for hashing an id that the user gave, so that it never equals the hash of a real machine id.
const GIVEN_CONTEXT: &str = "holdfast 2026-11-29 given machine of a backup run";

/// Who made the run of a start record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunOwner {
    /// Of this data directory on this machine.
    Ours,
    /// Perhaps of this data directory, and perhaps alive in another container of this host. It is dead, and its remains
    /// may be used or removed, when its lease is over.
    OursWithoutItsLease,
    /// Of another machine or data directory, or nobody knows.
    Other,
}

/// The identity of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Runner {
    pub host: String,
    pub pgdata: String,
    /// The run's own random id.
    pub run: String,
    pub machine: Option<String>,
    /// Whether the user gave `machine`, so that it moves with the data directory.
    pub given: bool,
    pub boot: Option<String>,
    pub pid_namespace: Option<String>,
    /// When the running kernel started.
    pub booted: Option<DateTime<Utc>>,
}

impl Runner {
    /// This process, on this machine or on the one that `given` names.
    pub(super) fn here(host: &str, pgdata: &str, given: Option<&str>, now: DateTime<Utc>) -> Result<Self, Error> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| Cause::Internal("no random bytes".to_owned()))?;
        let here = Machine::here();
        let machine = match given {
            Some(given) => Some(hashed(GIVEN_CONTEXT, given)),
            None => here.id.clone(),
        };
        Ok(Self {
            host: host.to_owned(),
            pgdata: pgdata.to_owned(),
            run: hex::encode(id),
            machine,
            given: given.is_some(),
            booted: here.booted(now),
            boot: here.boot,
            pid_namespace: here.pid_namespace,
        })
    }

    /// The identity for the start record. The lease is filled in later.
    pub(super) fn identity(&self, removes: Vec<holdfast_repo::name::BackupId>) -> RunIdentity {
        RunIdentity {
            id: self.run.clone(),
            machine: self.machine.clone(),
            boot: self.boot.clone(),
            pid_namespace: self.pid_namespace.clone(),
            removes,
            leased: false,
        }
    }

    /// Whether a run was of this data directory on this machine. Then it is dead, because this process holds the lock.
    pub(super) fn owner_of(&self, start: &StartRecord) -> RunOwner {
        let Some(run) = &start.run else { return RunOwner::Other };
        if self.given {
            let is_ours = start.pgdata == self.pgdata && run.machine == self.machine;
            return if is_ours { RunOwner::Ours } else { RunOwner::Other };
        }
        if start.host != self.host || start.pgdata != self.pgdata || run.machine != self.machine {
            return RunOwner::Other;
        }
        if self.boot.is_some() && run.boot == self.boot {
            let is_here = self.pid_namespace.is_some() && run.pid_namespace == self.pid_namespace;
            return match (is_here, run.leased) {
                (true, _) => RunOwner::Ours,
                (false, true) => RunOwner::OursWithoutItsLease,
                (false, false) => RunOwner::Other,
            };
        }
        let is_from_before = self.booted.is_none_or(|booted| start.started < booted);
        if run.machine.is_some() && is_from_before { RunOwner::Ours } else { RunOwner::Other }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn runner() -> Runner {
        Runner {
            host: "db1".to_owned(),
            pgdata: "/data".to_owned(),
            run: "r2".to_owned(),
            machine: Some("m1".to_owned()),
            given: false,
            boot: Some("b1".to_owned()),
            pid_namespace: Some("pid:[1]".to_owned()),
            booted: Some("2026-11-20T00:00:00Z".parse().unwrap()),
        }
    }

    fn start(run: Option<RunIdentity>) -> StartRecord {
        StartRecord {
            backup_id: "20261122T101500Z".parse().unwrap(),
            cluster: "main".parse().unwrap(),
            claim: "1".parse().unwrap(),
            system_identifier: "7412345678901234567".parse().unwrap(),
            host: "db1".to_owned(),
            pid: 4711,
            pgdata: "/data".to_owned(),
            started: "2026-11-22T10:15:00Z".parse().unwrap(),
            software_version: "0.1.0".to_owned(),
            parent: None,
            run,
        }
    }

    fn run(machine: Option<&str>, boot: Option<&str>) -> RunIdentity {
        let text = |text: Option<&str>| text.map(str::to_owned);
        RunIdentity {
            id: "r1".to_owned(),
            machine: text(machine),
            boot: text(boot),
            pid_namespace: Some("pid:[1]".to_owned()),
            removes: Vec::new(),
            leased: false,
        }
    }

    #[test]
    fn only_runs_of_this_machine_are_its_own() {
        let bare = Runner { machine: None, ..runner() };
        for (what, record, ours, bare_ours) in [
            ("an early release", start(None), false, false),
            ("the same", start(Some(run(Some("m1"), Some("b1")))), true, false),
            ("another machine", start(Some(run(Some("m2"), Some("b1")))), false, false),
            ("a clone that runs beside it", start(Some(run(Some("m1"), Some("b2")))), false, false),
            (
                "before the machine started again",
                StartRecord {
                    started: "2026-11-19T10:15:00Z".parse().unwrap(),
                    ..start(Some(run(Some("m1"), Some("b0"))))
                },
                true,
                false,
            ),
            ("no machine id", start(Some(run(None, Some("b1")))), false, true),
            ("no machine id, another kernel", start(Some(run(None, Some("b2")))), false, false),
            ("nothing known", start(Some(run(None, None))), false, false),
            (
                "another directory",
                StartRecord { pgdata: "/other".to_owned(), ..start(Some(run(Some("m1"), Some("b1")))) },
                false,
                false,
            ),
            (
                "another name",
                StartRecord { host: "db2".to_owned(), ..start(Some(run(Some("m1"), Some("b1")))) },
                false,
                false,
            ),
        ] {
            assert_eq!(runner().owner_of(&record) == RunOwner::Ours, ours, "{what}");
            assert_eq!(bare.owner_of(&record) == RunOwner::Ours, bare_ours, "{what}, without a machine id here");
        }
    }

    /// Two containers on one host, with the same host name and path, and the same machine id or none.
    #[test]
    fn a_run_in_another_container_is_alive_while_it_has_its_lease() {
        let text = |text: &str| Some(text.to_owned());
        let unknown = Runner { pid_namespace: None, ..runner() };
        for (what, theirs, leased, ours, of_unknown) in [
            ("the same container", text("pid:[1]"), false, RunOwner::Ours, RunOwner::Other),
            ("the same container, with a lease", text("pid:[1]"), true, RunOwner::Ours, RunOwner::OursWithoutItsLease),
            ("another container", text("pid:[2]"), true, RunOwner::OursWithoutItsLease, RunOwner::OursWithoutItsLease),
            ("another container, without a lease", text("pid:[2]"), false, RunOwner::Other, RunOwner::Other),
            ("an early release", None, true, RunOwner::OursWithoutItsLease, RunOwner::OursWithoutItsLease),
            ("an early release, without a lease", None, false, RunOwner::Other, RunOwner::Other),
        ] {
            for machine in [Some("m1"), None] {
                let identity = RunIdentity { pid_namespace: theirs.clone(), leased, ..run(machine, Some("b1")) };
                let record = start(Some(identity));
                let here = |runner: &Runner| Runner { machine: machine.map(str::to_owned), ..runner.clone() };
                assert_eq!(here(&runner()).owner_of(&record), ours, "{what}");
                assert_eq!(here(&unknown).owner_of(&record), of_unknown, "{what}, in an unknown namespace");
            }
        }
        // After the host has started again, nothing of the other container is alive.
        let before = StartRecord {
            started: "2026-11-19T10:15:00Z".parse().unwrap(),
            ..start(Some(RunIdentity { pid_namespace: text("pid:[2]"), ..run(Some("m1"), Some("b0")) }))
        };
        assert_eq!(runner().owner_of(&before), RunOwner::Ours);
    }

    /// A pod can come back on another node with its volume.
    #[test]
    fn an_id_that_was_given_moves_with_the_data_directory() {
        let here = |host: &str, given| Runner::here(host, "/data", given, Utc::now()).unwrap();
        let pod = Runner { boot: Some("b2".to_owned()), ..here("db1", Some("ns/main/uid/main-1")) };
        let before = |machine: Option<String>, host: &str| StartRecord {
            host: host.to_owned(),
            ..start(Some(run(machine.as_deref(), Some("b1"))))
        };
        assert_eq!(pod.owner_of(&before(pod.machine.clone(), "db1")), RunOwner::Ours);
        assert_eq!(pod.owner_of(&before(pod.machine.clone(), "a name that a container had")), RunOwner::Ours);
        let elsewhere = StartRecord { pgdata: "/other".to_owned(), ..before(pod.machine.clone(), "db1") };
        assert_eq!(pod.owner_of(&elsewhere), RunOwner::Other);
        // Another instance, another cluster with the same name, a real machine, an early release.
        for other in [Some("ns/main/uid/main-2"), Some("ns/main/uid2/main-1"), None] {
            assert_eq!(pod.owner_of(&before(here("db1", other).machine, "db1")), RunOwner::Other, "{other:?}");
            assert_eq!(here("db1", other).owner_of(&before(pod.machine.clone(), "db1")), RunOwner::Other, "{other:?}");
        }
        assert_eq!(
            (pod.owner_of(&start(None)), pod.owner_of(&before(None, "db1"))),
            (RunOwner::Other, RunOwner::Other)
        );
    }

    #[test]
    fn every_run_has_an_id_of_its_own() {
        let here = || Runner::here("db1", "/data", None, Utc::now()).unwrap();
        assert_ne!(here().run, here().run);
        assert_eq!((here().machine, here().boot), (here().machine, here().boot));
    }
}
