//! The exit codes of `holdfast`, all in one table.
//!
//! PostgreSQL reads two of our commands' codes, and it reads them differently:
//!
//! - `archive_command` (`wal push`): any code from 1 to 125 means "try again later"; above 125 the archiver process
//!   itself ends (`wait_result_is_any_signal` in `src/common/wait_error.c`). So every number of the table is at most
//!   125.
//! - `restore_command` (`wal get`): 1 to 125 means "not in the archive", and recovery may end there; above 125 stops
//!   recovery (`RestoreArchivedFile` in `xlogarchive.c`). So only [`ExitCode::Absent`] stays at 1, and every other code
//!   is raised by 128 ([`ExitCode::for_restore_command`]). PostgreSQL treats status 143 differently: the command was
//!   ended by SIGTERM, and recovery ends without an error. So no number of the table may become 143 by accident.
//!
//! Each number has its [`NextStep`]: whether the same command can succeed later although nobody does anything. The
//! instance manager reports the others as failed, so that somebody acts, and checks from time to time whether somebody
//! did.
//!
//! The numbers are part of the interface: they never change their meaning. `docs/exit-codes.md` is the same table for
//! people, and a test compares the two.

use std::fmt;

/// To PostgreSQL, a status above this number means that a signal ended the command, or that it could not be run.
const HIGHEST_ORDINARY_STATUS: u8 = 125;

/// Added to a number so that `restore_command` stops recovery; also what a shell adds to a signal's number.
const SIGNAL_BASE: u8 = 128;

/// The status of a container whose manager ended without a status that can be passed on.
pub const CONTAINER_FAILED: u8 = 1;

/// The status of a process that another one ran: its own, or as a shell reports a signal.
pub fn of_process(code: Option<i32>, signal: Option<i32>) -> u8 {
    let status = code.or_else(|| signal.map(|signal| i32::from(SIGNAL_BASE) + signal));
    status.and_then(|status| u8::try_from(status).ok()).unwrap_or(CONTAINER_FAILED)
}

/// The number of the exit code with which `holdfast wal get` stopped a recovery, from the status that PostgreSQL
/// reports.
pub fn of_restore_command(status: u8) -> Option<u8> {
    status.checked_sub(SIGNAL_BASE)
}

/// What the caller of the command has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextStep {
    /// Nothing: the command did what it was asked to do.
    Done,
    /// Run it again later: it may succeed although nobody does anything.
    PassesByItself,
    /// Act: it fails in the same way until somebody changes something.
    NeedsSomebody,
}

impl NextStep {
    /// The word in the manual.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::PassesByItself => "wait",
            Self::NeedsSomebody => "act",
        }
    }
}

macro_rules! exit_codes {
    ($($variant:ident = $number:literal, $name:literal, $next_step:ident, $meaning:literal;)*) => {
        /// How a command ended. The number is the exit status in a shell, the name is in JSON errors.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ExitCode {
            $(#[doc = $meaning] $variant = $number,)*
        }

        impl ExitCode {
            /// Every code, ascending by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in JSON errors and in the manual, such as `wrong-cluster`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether somebody has to act.
            pub fn next_step(self) -> NextStep {
                match self { $(Self::$variant => NextStep::$next_step,)* }
            }

            /// Its meaning, in the manual's words.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

exit_codes! {
    Ok = 0, "ok", Done, "the command did what it was asked to do";
    // Recovery asks again, and the segment may be archived by then.
    Absent = 1, "absent", PassesByItself, "the repository answered that it does not hold this WAL file (`wal get` only)";
    Usage = 2, "usage", NeedsSomebody, "the command line is wrong";
    ProblemsFound = 3, "problems-found", NeedsSomebody, "the command ran to its end and found problems, which it listed";
    Configuration = 10, "configuration", NeedsSomebody, "the configuration is wrong or incomplete";
    WrongKey = 11, "wrong-key", NeedsSomebody, "the passphrase or key file does not open this repository, or opens it only with keys from before a rotation (nothing is written with those)";
    WrongCluster = 12, "wrong-cluster", NeedsSomebody, "the archive belongs to another cluster, or the connection and the data directory belong to different servers";
    WrongVersion = 13, "wrong-version", NeedsSomebody, "the PostgreSQL version is not that of the archive, or is not supported";
    // As for a missing bucket: the configuration names another place, or nobody ran `repo init`.
    NotInitialised = 14, "not-initialised", NeedsSomebody, "there is no Holdfast repository at this place";
    AlreadyInitialised = 16, "already-initialised", NeedsSomebody, "there is already a Holdfast repository at this place";
    UnsupportedFormat = 17, "unsupported-format", NeedsSomebody, "the repository was written in a format this release does not read";
    ArchiveNotEmpty = 18, "archive-not-empty", NeedsSomebody, "the archive is not empty, although nobody has claimed it";
    NoSuchBucket = 20, "no-such-bucket", NeedsSomebody, "the bucket or the directory of the repository does not exist";
    NoCredentials = 21, "no-credentials", NeedsSomebody, "no credentials for the store were found";
    PermissionDenied = 22, "permission-denied", NeedsSomebody, "the store does not allow this operation with these credentials";
    // Stores accept a difference of 15 minutes. A clock with a larger one is not synchronised.
    ClockSkew = 23, "clock-skew", NeedsSomebody, "the clocks of this machine and of the store differ too much";
    Unreachable = 24, "unreachable", PassesByItself, "the store did not answer, or it asked Holdfast to slow down until no retry was left";
    // Mostly a temporary error of the store. What is permanent and known has a code of its own.
    StoreRefused = 25, "store-refused", PassesByItself, "the store answered with an error that has no code of its own";
    // Nothing that Holdfast waits for makes space: a person frees it, grows the volume or raises the quota.
    NoSpace = 30, "no-space", NeedsSomebody, "a disk or a quota is full";
    // Permissions, or a failing disk.
    UnreadableFile = 31, "unreadable-file", NeedsSomebody, "a local file could not be read";
    // Permissions, a file system that is mounted read-only, or a failing disk.
    UnwritableFile = 32, "unwritable-file", NeedsSomebody, "a local file could not be written";
    // The kernel's log says which of them it was.
    HostFault = 33, "host-fault", NeedsSomebody, "this host had too little memory for a restored server, or it ended that server, or its disk fails";
    // Damaged data stays damaged: this and the next four need another backup, repository or copy.
    CorruptObject = 40, "corrupt-object", NeedsSomebody, "an object of the repository fails its checksum or does not parse";
    TruncatedObject = 41, "truncated-object", NeedsSomebody, "an object of the repository is shorter than it must be";
    SwappedObject = 42, "swapped-object", NeedsSomebody, "an object fails its authentication: it was changed, or it was put in the place of another object";
    MissingObject = 43, "missing-object", NeedsSomebody, "an object that the repository names is missing";
    Diverged = 44, "diverged", NeedsSomebody, "the repository holds other content under this name";
    // As for the five before it: damaged data stays damaged.
    DamageFound = 45, "damage-found", NeedsSomebody, "the verification found objects that are missing, or that are not what was written";
    // The restored data stays as it is: use another backup or another copy, or correct a wrong probe.
    DrillFailed = 46, "drill-failed", NeedsSomebody, "the drill found damage, a restored server that does not come up, or a probe that fails";
    // Servers start, fail over and come back.
    PostgresConnection = 50, "postgres-connection", PassesByItself, "PostgreSQL could not be reached, or the session of a backup was lost";
    // Mostly temporary: starting up, too many connections, a conflict with recovery.
    PostgresRefused = 51, "postgres-refused", PassesByItself, "PostgreSQL answered with an error";
    // The archiver tries again by itself; the next backup finds its WAL.
    WalNotArchived = 52, "wal-not-archived", PassesByItself, "WAL that the backup needs was not archived in time";
    NoBackup = 60, "no-backup", NeedsSomebody, "there is no matching backup";
    TargetUnreachable = 61, "target-unreachable", NeedsSomebody, "the recovery target cannot be reached from this repository";
    DirectoryNotEmpty = 62, "directory-not-empty", NeedsSomebody, "the directory to restore into is not empty";
    // A server does not stop by itself, and Holdfast does not stop a server that it did not start.
    ServerRunning = 63, "server-running", NeedsSomebody, "a PostgreSQL server is running in the directory";
    // The other run will end.
    Locked = 70, "locked", PassesByItself, "another run is in progress";
    // The user who cancelled it may run it again.
    Cancelled = 80, "cancelled", PassesByItself, "a signal ended the command (a shell sees 128 plus the number of the signal)";
    // The same input meets the same fault again, so a person has to report it.
    Internal = 99, "internal", NeedsSomebody, "a fault in Holdfast itself";
}

/// The reader of the exit status of this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A person, a script, a scheduler.
    Shell,
    /// PostgreSQL's archiver, by `archive_command = 'holdfast wal push %p'`.
    ArchiveCommand,
    /// PostgreSQL's recovery, by `restore_command = 'holdfast wal get %f %p'`.
    RestoreCommand,
    /// A standby's recovery, by `restore_command = 'holdfast wal get --standby %f %p'`: it asks again by itself, so an
    /// unknown answer must not stop it.
    StandbyRestoreCommand,
}

impl Caller {
    /// The caller, found in the raw arguments before they are parsed. A command line that cannot be parsed must not
    /// mean "not in the archive" either, so everything that looks like `wal get` counts as it.
    pub fn of_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut after_wal = false;
        let mut caller = Self::Shell;
        for word in words {
            match (word, caller) {
                ("wal", _) => after_wal = true,
                // What is looked for may have any name.
                ("find", Self::Shell) if after_wal => return Self::Shell,
                ("get", Self::Shell | Self::ArchiveCommand) if after_wal => caller = Self::RestoreCommand,
                ("push", Self::Shell) if after_wal => caller = Self::ArchiveCommand,
                ("--standby", Self::RestoreCommand) => return Self::StandbyRestoreCommand,
                _ => {}
            }
        }
        caller
    }
}

impl ExitCode {
    /// The number in the table; at most 125.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The code of this number, if it is in the table.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.number() == number)
    }

    /// Whether it fails in the same way until somebody acts.
    pub fn is_stuck(self) -> bool {
        self.next_step() == NextStep::NeedsSomebody
    }

    /// The status for `restore_command`: 0 and 1 for "here it is" and "not in the archive", above 125 for all others.
    pub fn for_restore_command(self) -> u8 {
        match self {
            Self::Ok | Self::Absent => self.number(),
            other => SIGNAL_BASE + other.number(),
        }
    }

    /// The status this process ends with. `signal` is the signal that cancelled the run, if one did.
    pub fn status(self, caller: Caller, signal: Option<u8>) -> u8 {
        match (caller, self, signal) {
            // As a shell reports a command that a signal ended. To recovery, 143 means that a fast shutdown was
            // requested.
            (Caller::Shell | Caller::RestoreCommand | Caller::StandbyRestoreCommand, Self::Cancelled, Some(signal)) => {
                SIGNAL_BASE + signal
            }
            (Caller::RestoreCommand, code, _) => code.for_restore_command(),
            (Caller::Shell | Caller::ArchiveCommand | Caller::StandbyRestoreCommand, code, _) => {
                code.number().min(HIGHEST_ORDINARY_STATUS)
            }
        }
    }
}

impl fmt::Display for ExitCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The manual's table: `| number | name | next_step | meaning |`.
    fn manual() -> Vec<(String, String, String, String)> {
        include_str!("../../../docs/exit-codes.md")
            .lines()
            .filter_map(|line| {
                let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
                let [number, name, next_step, meaning] = cells.as_slice() else { return None };
                number.parse::<u8>().ok()?;
                let name = name.trim_matches('`');
                Some(((*number).to_owned(), name.to_owned(), (*next_step).to_owned(), (*meaning).to_owned()))
            })
            .collect()
    }

    #[test]
    fn the_end_of_another_process_has_a_status() {
        assert_eq!(of_process(Some(44), None), 44);
        assert_eq!(of_process(None, Some(9)), 137);
        assert_eq!(of_process(None, None), CONTAINER_FAILED);
        assert_eq!(of_process(Some(300), None), CONTAINER_FAILED);
        assert_eq!(
            of_restore_command(ExitCode::Unreachable.for_restore_command()),
            Some(ExitCode::Unreachable.number())
        );
        assert_eq!(of_restore_command(1), None);
    }

    #[test]
    fn the_manual_holds_the_same_table() {
        let table: Vec<_> = ExitCode::ALL
            .iter()
            .map(|code| {
                let (name, next_step, meaning) = (code.name(), code.next_step().as_str(), code.meaning());
                (code.number().to_string(), name.to_owned(), next_step.to_owned(), meaning.to_owned())
            })
            .collect();
        assert_eq!(table, manual());
    }

    #[test]
    fn numbers_ascend_and_stay_below_what_ends_the_archiver() {
        let numbers: Vec<u8> = ExitCode::ALL.iter().map(|code| code.number()).collect();
        assert!(numbers.is_sorted_by(|left, right| left < right), "{numbers:?}");
        assert!(numbers.iter().all(|number| *number <= HIGHEST_ORDINARY_STATUS), "{numbers:?}");
    }

    #[test]
    fn every_code_is_found_by_its_number() {
        for code in ExitCode::ALL {
            assert_eq!(ExitCode::from_number(code.number()), Some(*code));
            assert_eq!(code.next_step() == NextStep::Done, *code == ExitCode::Ok);
        }
        assert_eq!(ExitCode::from_number(15), None);
    }

    #[test]
    fn recovery_reads_only_absent_as_absent() {
        for code in ExitCode::ALL {
            let status = code.for_restore_command();
            match code {
                ExitCode::Ok => assert_eq!(status, 0),
                ExitCode::Absent => assert_eq!(status, 1),
                other => {
                    assert!(status > HIGHEST_ORDINARY_STATUS, "{other} is {status}");
                    assert_ne!(status, 143, "{other} looks like SIGTERM");
                }
            }
        }
    }

    #[test]
    fn the_archiver_never_sees_a_status_that_ends_it() {
        for code in ExitCode::ALL {
            assert!(code.status(Caller::ArchiveCommand, Some(15)) <= HIGHEST_ORDINARY_STATUS);
            assert_eq!(code.status(Caller::ArchiveCommand, None) == 0, *code == ExitCode::Ok);
        }
    }

    #[test]
    fn a_signal_is_reported_as_a_shell_does() {
        assert_eq!(ExitCode::Cancelled.status(Caller::Shell, Some(2)), 130);
        assert_eq!(ExitCode::Cancelled.status(Caller::RestoreCommand, Some(15)), 143);
        assert_eq!(ExitCode::Cancelled.status(Caller::Shell, None), 80);
        assert_eq!(ExitCode::NoSpace.status(Caller::Shell, Some(2)), 30);
    }

    #[test]
    fn the_caller_is_known_before_the_arguments_are_parsed() {
        let caller = |line: &str| Caller::of_words(line.split(' '));
        assert_eq!(caller("wal get 000000010000000000000001 /tmp/x"), Caller::RestoreCommand);
        assert_eq!(caller("--config /x wal --unknown get"), Caller::RestoreCommand);
        assert_eq!(caller("wal get --standby 00000002.history /tmp/x"), Caller::StandbyRestoreCommand);
        assert_eq!(caller("restore --standby"), Caller::Shell);
        assert_eq!(caller("wal find --name get"), Caller::Shell);
        assert_eq!(caller("wal push pg_wal/000000010000000000000001"), Caller::ArchiveCommand);
        assert_eq!(caller("wal list"), Caller::Shell);
        assert_eq!(caller("get wal"), Caller::Shell);
    }
}
