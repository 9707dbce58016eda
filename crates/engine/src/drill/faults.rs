//! Recognizes faults of this host, by the words of PostgreSQL and the kernel. They say nothing about a backup. Pure.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use holdfast_contract::exit_code::{self, ExitCode};

use crate::error::{Cause, HostFault};

/// A disk or a quota that is full.
const FULL: [&str; 3] = ["No space left on device", "Disk quota exceeded", "temporary file size exceeds "];

/// Everything else: memory, processes, files, a disk that fails. PostgreSQL's messages are in English in a drill.
const OTHER: [&str; 9] = [
    "shared memory",
    "Cannot allocate memory",
    "out of memory",
    "could not create semaphores",
    "could not fork",
    "Too many open files",
    "Input/output error",
    "Read-only file system",
    // SIGKILL comes from outside: from the kernel when memory is short, or from somebody.
    "was terminated by signal 9",
];

/// Somebody else than the drill asked PostgreSQL to stop.
const STOPPED: [&str; 3] =
    ["received smart shutdown request", "received fast shutdown request", "received immediate shutdown request"];

/// How PostgreSQL reports the end of `restore_command`, as `wait_result_to_str`.
const COMMAND_FAILED: &str = "could not restore file \"";
const EXITED: &str = "child process exited with exit code ";
const SIGNALLED: &str = "child process was terminated by ";

/// A fault that is not a full disk.
pub(super) fn other(what: String) -> Cause {
    Cause::Host { fault: HostFault::Other, what }
}

/// The fault that a message names.
pub(super) fn of_text(text: &str) -> Option<Cause> {
    // Shared memory first: if it is full, /dev/shm is full, and not a disk.
    let fault = if OTHER.iter().any(|words| text.contains(words)) {
        HostFault::Other
    } else if FULL.iter().any(|words| text.contains(words)) {
        HostFault::Full
    } else {
        return None;
    };
    Some(Cause::Host { fault, what: text.to_owned() })
}

/// Who stopped the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoppedBy {
    /// The drill stopped it.
    Drill,
    /// The drill did not stop it.
    Other,
}

/// The fault of the host that ended a server, from the server's status and the end of its log.
pub(super) fn of_end(status: ExitStatus, log: &str, stopped_by: StoppedBy) -> Option<Cause> {
    if let Some(end) = log.lines().rev().find_map(command_end) {
        return of_command(end, log);
    }
    if status.signal() == Some(9) {
        return Some(other(format!("the server was ended by signal 9; its log ends with:\n{log}")));
    }
    // The server ends like this, and logs nothing more, if somebody ended its `restore_command`.
    let says_why = |line: &str| {
        ["FATAL:  ", "PANIC:  ", "ERROR:  ", " was terminated by "].iter().any(|words| line.contains(words))
            && !line.contains("the database system is ")
    };
    let is_quiet = !log.lines().any(says_why);
    if is_quiet
        && log.lines().any(|line| line.contains("startup process ") && line.contains(" exited with exit code 1"))
    {
        return Some(other(format!("somebody ended `restore_command`; the log of the server ends with:\n{log}")));
    }
    for line in log.lines() {
        if stopped_by == StoppedBy::Other && STOPPED.iter().any(|words| line.contains(words)) {
            return Some(other(format!("somebody stopped the server; its log ends with:\n{log}")));
        }
        let is_of_its_end = ["FATAL:  ", "PANIC:  ", "was terminated by signal 9", "could not fork"];
        if is_of_its_end.iter().any(|words| line.contains(words))
            && let Some(Cause::Host { fault, .. }) = of_text(line)
        {
            return Some(Cause::Host { fault, what: log.to_owned() });
        }
    }
    None
}

/// How the `restore_command` that stopped recovery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommandEnd {
    /// With this status. PostgreSQL's shell may have made it from a signal.
    Status(u8),
    Signal,
}

fn command_end(line: &str) -> Option<CommandEnd> {
    let (_, after) = line.split_once(COMMAND_FAILED)?;
    if after.contains(SIGNALLED) {
        return Some(CommandEnd::Signal);
    }
    let (_, after) = after.rsplit_once(EXITED)?;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().map(CommandEnd::Status)
}

/// The fault of the host; `None` if the end says something about the archive.
fn of_command(end: CommandEnd, log: &str) -> Option<Cause> {
    let status = match end {
        // `wal get` adds 128 to its code, and a shell to the number of a signal.
        CommandEnd::Status(status) => exit_code::of_restore_command(status),
        CommandEnd::Signal => None,
    };
    let log = log.to_owned();
    match status.and_then(ExitCode::from_number) {
        Some(code) if is_of_the_archive(code) => None,
        Some(code) => Some(Cause::ReplayStopped { status: code.number(), log }),
        None => Some(other(format!("a process ended `restore_command`; the log of the server ends with:\n{log}"))),
    }
}

/// Whether a code of `wal get` says that something is wrong with the archive. Any other code says nothing about it,
/// such as that of a store that does not answer, a full disk or missing rights.
fn is_of_the_archive(code: ExitCode) -> bool {
    matches!(
        code,
        ExitCode::WrongCluster
            | ExitCode::WrongVersion
            | ExitCode::CorruptObject
            | ExitCode::TruncatedObject
            | ExitCode::SwappedObject
            | ExitCode::MissingObject
            | ExitCode::Diverged
            | ExitCode::DamageFound
            | ExitCode::NoBackup
            | ExitCode::TargetUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTUP: &str = "LOG:  startup process (PID 7) exited with exit code 1";

    fn fault(log: &str, stopped_by: StoppedBy) -> Option<String> {
        of_end(ExitStatus::from_raw(1 << 8), log, stopped_by).map(|cause| match cause {
            Cause::Host { fault: HostFault::Full, .. } => "full".to_owned(),
            Cause::Host { fault: HostFault::Other, .. } => "host".to_owned(),
            Cause::ReplayStopped { status, .. } => status.to_string(),
            other => other.to_string(),
        })
    }

    #[test]
    fn the_end_of_the_command_decides() {
        for (end, expected) in [
            // The store did not answer, no room, no rights: this says nothing about the archive.
            ("child process exited with exit code 152", Some("24")),
            ("child process exited with exit code 158", Some("30")),
            ("child process exited with exit code 150", Some("22")),
            // A corrupt, a swapped, a missing object.
            ("child process exited with exit code 168", None),
            ("child process exited with exit code 170", None),
            ("child process exited with exit code 171", None),
            // The kernel ended it, or the shell that ran it says so.
            ("child process was terminated by signal 9: Killed", Some("host")),
            ("child process was terminated by signal 11: Segmentation fault", Some("host")),
            ("child process exited with exit code 137", Some("host")),
        ] {
            let log =
                format!("FATAL:  could not restore file \"000000010000000000000005\" from archive: {end}\n{STARTUP}");
            assert_eq!(fault(&log, StoppedBy::Other).as_deref(), expected, "{end}");
        }
    }

    #[test]
    fn a_host_that_has_too_little_is_distinguished_from_a_bad_backup() {
        for (line, expected) in [
            ("FATAL:  could not map anonymous shared memory: Cannot allocate memory", Some("host")),
            ("FATAL:  could not write to file \"pg_wal/xlogtemp.7\": No space left on device", Some("full")),
            ("PANIC:  could not write to file \"pg_wal/xlogtemp.7\": Disk quota exceeded", Some("full")),
            ("FATAL:  could not resize shared memory segment \"/x\": No space left on device", Some("host")),
            ("LOG:  startup process (PID 7) was terminated by signal 9: Killed", Some("host")),
            ("FATAL:  out of memory", Some("host")),
            ("LOG:  received fast shutdown request", Some("host")),
            // Text from a user's statement is not a message of the server.
            ("PANIC:  x\nSTATEMENT:  SELECT 'No space left on device'", None),
            ("PANIC:  invalid page in block 3 of relation base/5/1249", None),
            ("LOG:  startup process (PID 7) was terminated by signal 6: Aborted", None),
        ] {
            assert_eq!(fault(&format!("{line}\n{STARTUP}"), StoppedBy::Other).as_deref(), expected, "{line}");
        }
        // A `restore_command` got SIGTERM between two checks of the drill.
        let quiet = format!("FATAL:  the database system is not yet accepting connections\n{STARTUP}");
        assert_eq!(fault(&quiet, StoppedBy::Other).as_deref(), Some("host"));
        assert_eq!(
            fault(
                &format!("FATAL:  recovery ended before configured recovery target was reached\n{STARTUP}"),
                StoppedBy::Other
            ),
            None
        );
        assert_eq!(fault("LOG:  received fast shutdown request", StoppedBy::Drill), None);
        let killed = of_end(ExitStatus::from_raw(9), "LOG:  redo starts at 0/2000028", StoppedBy::Other);
        assert!(matches!(killed, Some(Cause::Host { fault: HostFault::Other, .. })), "{killed:?}");
    }
}
