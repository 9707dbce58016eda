//! Identifies this machine and its running kernel, for leases and start records.
//!
//! The machine's id itself is private (`machine-id(5)`), so a hash of it is written.

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_repo::record::LeaseRecord;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// The context of the hash of the machine's id, so that the same hash is not used elsewhere.
const MACHINE_CONTEXT: &str = "holdfast 2026-11-29 machine of a backup run";

/// The facts that distinguish processes of this machine from others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The hash of the machine's id, if it has one.
    pub(crate) id: Option<String>,
    /// The id that the kernel generated when it started.
    pub(crate) boot: Option<String>,
    /// The PID namespace: a container has process ids of its own, often beside others of the same host name.
    pub(crate) pid_namespace: Option<String>,
    /// How long the kernel has been running, with sleep.
    pub(crate) up: Option<TimeDelta>,
}

impl Machine {
    /// The machine on which this process runs.
    pub(crate) fn here() -> Self {
        let uptime = std::fs::read_to_string("/proc/uptime").ok();
        let seconds = uptime.and_then(|text| text.split(['.', ' ']).next()?.parse().ok());
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok();
        Self {
            id: read_id("/etc/machine-id").map(|id| hashed(MACHINE_CONTEXT, &id)),
            boot: read_id("/proc/sys/kernel/random/boot_id"),
            pid_namespace: namespace.and_then(|link| link.into_os_string().into_string().ok()),
            up: seconds.and_then(TimeDelta::try_seconds),
        }
    }

    /// When the running kernel started.
    pub(crate) fn booted(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        now.checked_sub_signed(self.up?)
    }

    /// Whether the run of a lease is known to be dead: it was a process of this host, and the process or its kernel is
    /// gone. `prolonged` is the time of the last renewal, by the clock of the run's host. It protects the run of a
    /// cloned machine, which has the same id and continues to renew.
    pub(crate) fn knows_dead(
        &self,
        host: &str,
        lease: &LeaseRecord,
        prolonged: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> bool {
        if lease.host != host || lease.boot.is_none() || self.boot.is_none() {
            return false;
        }
        if lease.boot == self.boot {
            return lease.pid_namespace.is_some()
                && lease.pid_namespace == self.pid_namespace
                && life_of(lease.pid) == Life::Gone;
        }
        // A live run, on a clone with both names, would have renewed its lease by now.
        let is_silent = prolonged.is_some_and(|prolonged| prolonged + SILENT < now);
        let before_the_start = prolonged.zip(self.booted(now)).is_some_and(|(prolonged, booted)| prolonged < booted);
        lease.machine.is_some() && lease.machine == self.id && before_the_start && is_silent
    }
}

/// A run renews its lease every 15 minutes.
const SILENT: TimeDelta = TimeDelta::minutes(16);

/// Whether the kernel says that a process with this id exists. `/proc` may hide those of other users (`hidepid`,
/// systemd's `ProtectProc`), so a process that is not there may still exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Here,
    OfAnotherUser,
    Gone,
    /// It cannot be the id of a process, or the kernel does not say.
    Unknown,
}

pub(crate) fn life_of(process: u32) -> Life {
    let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) else { return Life::Unknown };
    state_of_process(test_kill_process(pid))
}

fn state_of_process(answer: Result<(), Errno>) -> Life {
    match answer {
        Ok(()) => Life::Here,
        Err(Errno::PERM) => Life::OfAnotherUser,
        Err(Errno::SRCH) => Life::Gone,
        Err(_) => Life::Unknown,
    }
}

/// An id of the system; `None` if it has none yet. systemd writes "uninitialized" at the first start of an image.
fn read_id(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| text.len() >= 32)
}

/// A hash of an id for one purpose, given by `context`.
pub(crate) fn hashed(context: &str, id: &str) -> String {
    let hash = blake3::derive_key(context, id.as_bytes());
    hex::encode(hash.get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use holdfast_repo::record::LeasePurpose;

    use super::*;

    #[test]
    fn only_what_is_known_to_be_dead_is() {
        let text = |text: &str| Some(text.to_owned());
        let now: DateTime<Utc> = "2026-11-30T12:00:00Z".parse().unwrap();
        let here = Machine {
            id: text("m1"),
            boot: text("b2"),
            pid_namespace: Machine::here().pid_namespace,
            up: Some(TimeDelta::minutes(10)),
        };
        let lease = LeaseRecord {
            run: "r1".parse().unwrap(),
            cluster: "main".parse().unwrap(),
            purpose: LeasePurpose::Expire,
            backups: Vec::new(),
            since: now - TimeDelta::minutes(40),
            expires: now + TimeDelta::minutes(35),
            host: "db1".to_owned(),
            machine: text("m1"),
            boot: text("b1"),
            pid_namespace: here.pid_namespace.clone(),
            pid: std::process::id(),
            software_version: "0.1.0".to_owned(),
        };
        let gone = LeaseRecord { boot: text("b2"), pid: i32::MAX.unsigned_abs(), ..lease.clone() };
        for (what, lease, minutes, dead) in [
            ("before the machine started again", lease.clone(), 25, true),
            ("a clone that is alive", lease.clone(), 5, false),
            ("another machine", LeaseRecord { machine: text("m2"), ..lease.clone() }, 25, false),
            ("a machine without an id", LeaseRecord { machine: None, ..lease.clone() }, 25, false),
            ("another host", LeaseRecord { host: "db2".to_owned(), ..lease.clone() }, 25, false),
            ("this process", LeaseRecord { boot: text("b2"), ..lease.clone() }, 25, false),
            ("a process that is gone", gone.clone(), 5, true),
            ("one of another container", LeaseRecord { pid_namespace: text("pid:[1]"), ..gone.clone() }, 5, false),
            ("one that does not say where", LeaseRecord { pid_namespace: None, ..gone }, 5, false),
        ] {
            let prolonged = Some(now - TimeDelta::minutes(minutes));
            assert_eq!(here.knows_dead("db1", &lease, prolonged, now), dead, "{what}");
        }
        // The clone of a machine that has just started: its run renewed its lease five minutes ago, before that start.
        let started = Machine { up: Some(TimeDelta::minutes(1)), ..here };
        let prolonged = Some(now - TimeDelta::minutes(5));
        assert!(!started.knows_dead("db1", &lease, prolonged, now));
        assert!(started.knows_dead("db1", &lease, Some(now - TimeDelta::minutes(17)), now));
    }

    /// Only the kernel's "no such process" is proof.
    #[test]
    fn a_process_that_cannot_be_seen_is_not_dead() {
        assert_eq!(state_of_process(Ok(())), Life::Here);
        assert_eq!(state_of_process(Err(Errno::PERM)), Life::OfAnotherUser);
        assert_eq!(state_of_process(Err(Errno::SRCH)), Life::Gone);
        assert_eq!(state_of_process(Err(Errno::INVAL)), Life::Unknown);
        assert_eq!(life_of(std::process::id()), Life::Here);
        assert_eq!((life_of(0), life_of(u32::MAX)), (Life::Unknown, Life::Unknown));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(life_of(pid), Life::Gone);
    }
}
