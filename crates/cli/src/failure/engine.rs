//! Errors of the engine: every [`Cause`] gets its exit code and a hint.

use super::{Explain, Failure};
use crate::exit_code::{ExitCode, NextStep};
use holdfast_engine::error::{HostFault, ServerSetting};
use holdfast_engine::{Cause, Error};
use holdfast_pgtypes::control::ControlFileError;
use holdfast_pgtypes::version::UnsupportedVersion;
use holdfast_pgtypes::wal::segment_check::SegmentMismatch;
use holdfast_repo::key::KeyError;
use holdfast_repo::record::RecordError;
use holdfast_repo::recovery::Unreachable;
use holdfast_repo::{Fault, FaultClass, FormatError};
use std::error::Error as _;
use std::io::ErrorKind;
use std::path::Path;

/// The longest `while` line: two lines of a terminal. Phrases that are further out are left off.
const LONGEST_DOING: usize = 160;

/// Operations that read, as the engine names them; all others write.
const READING: [&str; 6] = ["read", "list", "look at", "open", "lock", "stat"];

impl Explain for Error {
    fn explain(&self) -> Failure {
        if let Cause::MayExist { backup, stores, failure } = &*self.what {
            return of_doubt(&format!("backup {backup}"), stores, failure.explain());
        }
        let mut failure = of_what(&self.what);
        // The store's own phrase names the operation, the object and the store, so it replaces the engine's phrase that
        // would repeat them.
        let mut phrases = failure.doing.take().into_iter().chain(self.doing.iter().cloned());
        let mut doing = phrases.next().unwrap_or_default();
        for phrase in phrases {
            if doing.len() + 2 + phrase.len() > LONGEST_DOING {
                break;
            }
            doing.push_str(", ");
            doing.push_str(&phrase);
        }
        if doing.is_empty() { failure } else { failure.doing(doing) }
    }
}

fn of_what(what: &Cause) -> Failure {
    let new = |code| Failure::new(code, what.to_string());
    match what {
        Cause::Store(error) => error.explain(),
        Cause::Format(error) => error.explain(),
        Cause::Record(error) => error.explain(),
        Cause::Key(error) => error.explain(),
        Cause::Unreachable(error) => error.explain(),
        Cause::Postgres(error) => of_postgres(what, error),
        Cause::ServerAnswer { sqlstate, .. } => new(ExitCode::PostgresRefused).hint(of_sqlstate(sqlstate, REPLICATING)),
        Cause::StreamLost { .. }
        | Cause::SlotLost { .. }
        | Cause::WalGap { .. }
        | Cause::OtherWal { .. }
        | Cause::TailTooShort { .. } => of_receiving(what),
        Cause::Connection(_) => new(ExitCode::PostgresConnection)
            .hint("start the server; `cluster.connection` may look like \"host=/var/run/postgresql user=postgres \
                   dbname=postgres\"; if it is not set, Holdfast finds the server by the data directory"),
        Cause::ConnectionParameters(_) => new(ExitCode::Configuration)
            .hint("docs/configuration.md lists the supported parameters of libpq; cluster.connection may look like \
                   \"host=/var/run/postgresql user=postgres dbname=postgres\""),
        Cause::SessionLost { .. } => new(ExitCode::PostgresConnection).hint(
            "the backup failed because its session ended, and nothing of it is left: if the server was restarted, or \
             somebody ended the session, run this again; otherwise look in the server's log for the reason",
        ),
        Cause::PostmasterPid { .. } => new(ExitCode::UnreadableFile).hint(
            "PostgreSQL writes this file when it starts, and cannot start while the file is like this: if no server \
             runs there, remove the file; if a server runs, it will notice and stop, so restart it",
        ),
        Cause::ServerSetting(setting) => of_setting(what, setting),
        Cause::File { operation, path, source } => of_file(what, operation, path, source),
        Cause::UnsupportedVersion(_)
        | Cause::StoredVersion { .. }
        | Cause::SegmentMismatch { source: SegmentMismatch::Unsupported { .. }, .. }
        | Cause::ControlFile { source: ControlFileError::UnknownVersion { .. }, .. } => {
            new(ExitCode::WrongVersion).hint(UnsupportedVersion::ADVICE)
        }
        Cause::ControlFile { path, .. } => new(ExitCode::UnreadableFile).hint(format!(
            "check that {} belongs to the data directory, and that its disk works: PostgreSQL itself cannot start with \
             this file",
            path.display()
        )),
        Cause::Malformed { .. } => new(ExitCode::CorruptObject).hint(
            "if it is in the repository, another repository or an earlier backup may be intact; `holdfast info` lists \
             them",
        ),
        Cause::NotInitialised { .. } => new(ExitCode::NotInitialised)
            .hint("check `url`; if it is right and the repository does not exist yet, run `holdfast repo init`"),
        Cause::AlreadyInitialised { .. } => new(ExitCode::AlreadyInitialised).hint(
            "nothing was changed: old backups may need what is there; bring holdfast.json back (from another copy, or \
             from a deleted version in the bucket), or choose another place",
        ),
        Cause::NewerFeature { feature, .. } => new(ExitCode::UnsupportedFormat).hint(if feature.starts_with("read-") {
            newer_hint()
        } else {
            "nothing was written: use the release of holdfast that made it, or a newer one; this one can still read and restore"
        }),
        Cause::EncryptionMismatch { .. } => new(ExitCode::Configuration)
            .hint("correct `encryption` of this [[repo]], or `url` if it names the wrong repository"),
        Cause::NoKeySlot { .. } => {
            new(ExitCode::WrongKey).hint("another kind of secret opens this repository: correct `encryption` of this \
                                          [[repo]]")
        }
        Cause::KeysRotated { .. } => new(ExitCode::WrongKey).hint(
            "nothing was written: configure a secret that opens the repository since the rotation; if a rotation runs at this \
             moment, wait until it ends, and if it was interrupted, run `holdfast key rotate` again where it ran; if nobody \
             rotated the keys, somebody who may write to the store put that object below keys/, so delete it",
        ),
        Cause::WrongCluster { .. } => new(ExitCode::WrongCluster).hint(
            "nothing was written: give this cluster a `cluster.name` of its own, or, if it replaces the cluster of \
             this archive (after pg_upgrade or initdb), run `holdfast repo init --new-claim`",
        ),
        Cause::WrongOwner { .. } => new(ExitCode::WrongCluster).hint(
            "nothing was written: give this cluster a `cluster.name` of its own, or, if it should take over the \
             archive, run `holdfast repo init --new-claim`",
        ),
        Cause::ArchiveNotEmpty { .. } => new(ExitCode::ArchiveNotEmpty).hint(
            "nothing was written: choose a `cluster.name` under which nothing is stored yet, or another `url`",
        ),
        Cause::WrongVersion { .. } => new(ExitCode::WrongVersion).hint(
            "nothing was written: after pg_upgrade run `holdfast repo init --new-claim`; otherwise correct `cluster.name`",
        ),
        Cause::SegmentMismatch { file, source } => of_segment(what, file, source),
        Cause::SegmentSize { path, .. } if is_local(path) => new(ExitCode::UnreadableFile)
            .hint("PostgreSQL's segments are always complete: look for a full disk, or for a program that copied only \
                   a part of the file"),
        Cause::SegmentSize { .. } => new(ExitCode::TruncatedObject).hint(damaged_object_hint()),
        Cause::NoClaim { .. } => new(ExitCode::NoBackup)
            .hint("check `cluster.name`; `holdfast repo info` lists the clusters of a repository"),
        Cause::Divergence { name, .. } => new(ExitCode::Diverged).hint(of_divergence(name)),
        Cause::Absent { .. } => new(ExitCode::Absent).hint("`holdfast wal list` shows what is archived"),
        Cause::Remnant { .. } => new(ExitCode::MissingObject)
            .hint("nothing is lost, because this backup was never complete: use another one, and run `holdfast expire`"),
        Cause::LostPack { .. } => new(ExitCode::MissingObject).hint(damaged_object_hint()),
        Cause::NotReadable { .. } => new(ExitCode::CorruptObject).hint(damaged_object_hint()),
        Cause::NotArchived { .. } => new(ExitCode::WalNotArchived)
            .hint(
                "check `archive_command` on the primary and the last failure in pg_stat_archiver; an idle primary does \
                 not finish its segment: for backups of a standby set `cluster.primary_connection`",
            ),
        Cause::NotEmpty { .. } => new(ExitCode::DirectoryNotEmpty).hint(
            "name another directory; if this is an old data directory of this cluster that nobody needs any more, add \
             --delta, which removes everything that is not in the backup",
        ),
        Cause::TablespaceNotEmpty { tablespace, .. } => new(ExitCode::DirectoryNotEmpty).hint(format!(
            "give it an empty directory with --tablespace {tablespace}=DIR: a server may be using this one"
        )),
        Cause::NotOurs { .. } => new(ExitCode::DirectoryNotEmpty)
            .hint("nothing was changed: restore into another directory, or move what the message names to another place"),
        Cause::UnarchivedWal { .. } => new(ExitCode::DirectoryNotEmpty).hint(
            "nothing was changed: restore into another directory, or store whole segments with `holdfast wal push` first \
             and copy an unfinished one to another place: docs/operations.md (\"The last WAL of a dead server\") says \
             how; --discard-wal deletes them, which is right for a restored copy: if its WAL were pushed, later restores \
             would follow the timeline of the copy",
        ),
        Cause::Overlap { .. } => new(ExitCode::Configuration)
            .hint("nothing was changed: put each of them outside the other, best on another disk"),
        Cause::InUse { .. } => new(ExitCode::ServerRunning)
            .hint("nothing was changed: restore into another directory, and put tablespaces into other directories \
                   with --tablespace NAME=DIR"),
        Cause::LinkInUse { link, .. } => new(ExitCode::ServerRunning).hint(format!(
            "nothing was changed: the copy has its original's link. Replace {} by a directory, or by a link to one, that only \
             this copy uses; for pg_wal an empty one is enough",
            link.display()
        )),
        Cause::ReplayInUse { .. } => new(ExitCode::ServerRunning).hint(
            "nothing was changed: the tablespace is newer than the backup, and WAL replay makes it again in the same \
             directory. Restore on another host, from a backup that has the tablespace, or to a time before its creation",
        ),
        Cause::UnclearLockFile { path } => new(ExitCode::ServerRunning).hint(format!(
            "restore into another directory; remove {} only if no PostgreSQL process on any host uses this directory",
            path.display()
        )),
        Cause::UnseenServer { directory, .. } => new(ExitCode::ServerRunning).hint(format!(
            "run this on the host itself, or restore into another directory; remove {} only if no PostgreSQL process on \
             any host and in any container uses this directory",
            directory.join("postmaster.pid").display()
        )),
        Cause::ServerRunning { directory, .. } => new(ExitCode::ServerRunning).hint(format!(
            "restore into another directory; to overwrite this one, stop the server first (pg_ctl -D {} stop)",
            directory.display()
        )),
        Cause::LeaseEnded { .. } => new(ExitCode::Locked)
            .hint("run this again: finished work is kept; the rest is checked again"),
        Cause::HeldInDoubt { backup, .. } => new(ExitCode::Locked).hint(format!(
            "wait until no `holdfast expire` runs, then check with `holdfast verify` that {backup} is complete; if it is, \
             run this command again"
        )),
        Cause::AnotherRun { .. } => new(ExitCode::Locked).hint("wait until it has ended, then run this again"),
        Cause::NoSuchSnapshot { .. } => new(ExitCode::NoBackup).hint("`holdfast snapshot list` shows the recorded ones"),
        Cause::NoSuchBackup { .. } => new(ExitCode::NoBackup).hint("`holdfast list` shows the complete backups"),
        Cause::UnreadableHistory { named, newer, .. } => {
            let code = if *newer { ExitCode::UnsupportedFormat } else { ExitCode::CorruptObject };
            new(code).hint(match (newer, named) {
                (true, _) => newer_hint().to_owned(),
                (false, true) => format!("{}; or follow another timeline with --target-timeline", damaged_object_hint()),
                (false, false) => format!(
                    "{}; or name the timeline to follow with --target-timeline; it may need another history file, or \
                     none",
                    damaged_object_hint()
                ),
            })
        }
        Cause::NoPrograms { .. }
        | Cause::NoRoom { .. }
        | Cause::Host { .. }
        | Cause::OutOfTime { .. }
        | Cause::ReplayStopped { .. } => of_drill(what),
        Cause::TooManyPacks { .. } => new(ExitCode::Usage).hint(
            "if its store takes objects only whole, packs are no larger than `backup.memory` allows: give the backup more, \
             or use another store for this repository",
        ),
        Cause::Refused(_) => new(ExitCode::Usage).hint("change what the message names, then run this again"),
        Cause::Cancelled => Failure::cancelled(),
        // A new variant has its own text.
        _ => Failure::internal(what.to_string()),
    }
}

/// Why a drill says nothing about the backup.
fn of_drill(what: &Cause) -> Failure {
    let new = |code| Failure::new(code, what.to_string());
    match what {
        Cause::NoPrograms { major, .. } => new(ExitCode::Configuration).hint(format!(
            "install the server of PostgreSQL {major} on this host, or name the folder with its `postgres` by --bin-dir or \
             `bin_dir` under [drill]"
        )),
        Cause::NoRoom { directory, .. } => new(ExitCode::NoSpace)
            .hint(format!("make room on the file system of {}, or name another directory", directory.display())),
        Cause::Host { fault: HostFault::Full, .. } => new(ExitCode::NoSpace)
            .hint("this says nothing about the backup: make room for the directory of drills, or name another one"),
        Cause::Host { fault: HostFault::Other, .. } => new(ExitCode::HostFault).hint(
            "this says nothing about the backup: look in the log of this host (`journalctl -k`) for memory that ran out or \
             a disk that fails; less memory is needed with --set shared_buffers=64MB or fewer --jobs",
        ),
        Cause::OutOfTime { .. } => new(ExitCode::Unreachable)
            .hint("this says nothing about the backup: give it more time (--time-limit), or see why the store is slow"),
        Cause::ReplayStopped { status, .. } => {
            let code = ExitCode::from_number(*status).unwrap_or(ExitCode::Unreachable);
            let hint = match code.next_step() {
                NextStep::NeedsSomebody => "this says nothing about the backup: docs/exit-codes.md says what this code of \
                                           `holdfast wal get` needs; then run it again",
                NextStep::Done | NextStep::PassesByItself => {
                    "this says nothing about the backup: run it again when the store answers"
                }
            };
            new(code).hint(hint)
        }
        _ => Failure::internal(what.to_string()),
    }
}

/// Why `wal receive` ended, and why recovery cannot use what it stored.
fn of_receiving(what: &Cause) -> Failure {
    let new = |code| Failure::new(code, what.to_string());
    match what {
        Cause::SlotLost { slot, .. } => new(ExitCode::MissingObject).hint(format!(
            "WAL may be missing in the repository: compare `holdfast wal list` with the server. If archive_command still \
             stores it, drop the slot (`holdfast wal receive --slot {slot} --drop-slot`) and start again; otherwise start \
             once with --accept-gap and take a new backup. A larger max_slot_wal_keep_size on the server prevents this"
        )),
        Cause::WalGap { .. } => new(ExitCode::MissingObject).hint(
            "nothing was stored after the gap: if another server or archive_command still has this WAL, `holdfast wal \
             push` it, and start again; otherwise start once with --accept-gap and take a new backup: no restore can \
             pass the gap",
        ),
        Cause::OtherWal { .. } => new(ExitCode::Diverged).hint(
            "nothing was overwritten: this server was rewound or restored without a new timeline, or two servers write \
             into one archive. Find out which one should continue; give the other one a `cluster.name` of its own, or, \
             if this one should, restore it with a recovery target so that it begins a new timeline",
        ),
        Cause::TailTooShort { end, .. } => new(ExitCode::MissingObject).hint(format!(
            "recovery stops here, because it would end before the end that was found when it was planned. Look for the \
             missing or damaged pieces in the log of this command; to do without them, write {end} as the LSN after \
             --tail in restore_command, and start the server again"
        )),
        _ => new(ExitCode::PostgresConnection)
            .hint("check that the server runs and that `cluster.connection` leads to it"),
    }
}

/// The failure of a backup that may exist nevertheless, with the stores: nobody should treat it as lost or as complete.
pub fn of_doubt(what: &str, stores: &[String], failure: Failure) -> Failure {
    let hint = "the last record of the backup was sent, and no answer came: `holdfast list` tells whether it exists; if it is \
                listed as complete, `holdfast restore --plan` shows whether it can be restored";
    let message = format!("{what} may exist in {}: {}", stores.join(" and in "), failure.message);
    Failure { message, hint: Some(hint.to_owned()), ..failure }
}

/// A divergence stops an archive until a person decides. So the hint must say what to do, whichever of the two servers
/// was right.
fn of_divergence(object: &str) -> String {
    let why = match object.rsplit('/').next().and_then(|file| file.split_once(".history")) {
        Some((timeline, _)) => format!(
            "nothing was overwritten: two servers were promoted to timeline {} at different LSNs, and both archive",
            timeline.trim_start_matches('0')
        ),
        None => "nothing was overwritten: two servers write into one archive, a server was restored or promoted twice \
                 and both copies continued, or a data volume was rolled back"
            .to_owned(),
    };
    format!(
        "{why}; find out which server should continue. If it is the other one, stop this one and create it again from \
         the other. If it is this one, or both, give this one a `cluster.name` of its own (in the configuration of its \
         archive_command), then run `holdfast backup`: it begins a new archive, and PostgreSQL has kept all WAL for \
         it. If no other server ever wrote there, the object is damaged, or somebody put it there: docs/operations.md \
         (\"Two servers in one archive\") says how to compare it, keep it, and move it away"
    )
}

fn damaged_object_hint() -> &'static str {
    "no part of it was used: look for another copy (a second repository, a version of the object in the bucket), and \
     check the store"
}

fn rotated_hint() -> &'static str {
    "the keys were rotated: configure a secret whose slot is of this epoch (`holdfast key list` shows the slots)"
}

fn newer_hint() -> &'static str {
    "use the release of holdfast that wrote it, or a newer one"
}

fn swapped_object_hint() -> &'static str {
    "somebody changed the repository, or two repositories were mixed by copying: look for another copy, and check who \
     may write there"
}

fn is_local(path: &Path) -> bool {
    path.parent().is_some_and(|parent| !parent.as_os_str().is_empty())
}

fn of_file(what: &Cause, operation: &str, path: &Path, source: &std::io::Error) -> Failure {
    let reading = READING.contains(&operation);
    let code = match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ExitCode::NoSpace,
        _ if reading => ExitCode::UnreadableFile,
        _ => ExitCode::UnwritableFile,
    };
    let failure = Failure::new(code, what.to_string());
    match (source.kind(), reading) {
        (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, _) => {
            failure.hint(format!("make room on the file system of {}, then run this again", path.display()))
        }
        (ErrorKind::PermissionDenied, true) => failure.hint(
            "run holdfast as the user that PostgreSQL runs as (sudo -u postgres), and check the owner and mode of the \
             file",
        ),
        (ErrorKind::PermissionDenied, false) => {
            failure.hint("check the owner and mode of the directory; holdfast runs as the user that PostgreSQL runs as")
        }
        (ErrorKind::NotFound, true) => failure.hint("check the path; for the data directory it is `cluster.pgdata`"),
        (ErrorKind::NotFound, false) => failure.hint("check the path: the directory above it must exist"),
        (ErrorKind::NotADirectory, _) => failure.hint("check the path: it must be a directory, but it is a file"),
        (ErrorKind::ReadOnlyFilesystem, _) => {
            failure.hint("the file system is mounted read-only: choose another place")
        }
        _ if operation.starts_with("sync") => failure.hint(
            "the disk did not keep all that was written: look into the kernel's log (dmesg), then run this again, which \
             reads everything from the disk, or choose another disk",
        ),
        _ => failure.hint("check the disk and the kernel's log (dmesg)"),
    }
}

fn of_postgres(what: &Cause, error: &tokio_postgres::Error) -> Failure {
    let Some(answer) = error.as_db_error() else {
        let failure = Failure::new(ExitCode::PostgresConnection, what.to_string());
        // The client library tells these apart only by their text.
        return match what.to_string() {
            text if text.starts_with("error performing TLS handshake") => failure.hint(
                "check sslmode, sslrootcert and the host's name in `cluster.connection` against the server's certificate \
                 (ssl_cert_file), which must be X.509 version 3; sslmode=require without sslrootcert encrypts without verifying",
            ),
            text if text.contains("password missing") => failure.hint(
                "give the password as password= in `cluster.connection`, PGPASSWORD, or in a matching line of \
                 ~/.pgpass (mode 0600)",
            ),
            _ => failure.hint("check that the server runs and that `cluster.connection` leads to it"),
        };
    };
    let state = answer.code().code();
    Failure::new(ExitCode::PostgresRefused, what.to_string()).hint(of_sqlstate(state, BACKING_UP))
}

/// What a role needs for a backup.
const BACKING_UP: &str = "connect as a superuser, or grant the role pg_read_all_settings, pg_checkpoint and EXECUTE on pg_backup_start, \
             pg_backup_stop, pg_create_restore_point and pg_switch_wal";

/// What a role needs to receive WAL.
const REPLICATING: &str = "connect as a superuser or as a role with the attribute REPLICATION";

fn of_sqlstate(state: &str, rights: &'static str) -> &'static str {
    match state {
        "28P01" => {
            "the server refused the password: check the user, and password= in `cluster.connection`, \
             PGPASSWORD or the matching line of ~/.pgpass"
        }
        _ if state.starts_with("28") && rights == REPLICATING => {
            "check the user in `cluster.connection` against pg_hba.conf, which needs a line for the database `replication`"
        }
        _ if state.starts_with("28") => "check the user in `cluster.connection` against pg_hba.conf",
        "3D000" => "name an existing database in `cluster.connection`, such as dbname=postgres",
        "42501" => rights,
        "55006" => "another receiver uses the slot: stop it, or give this one a --slot of its own",
        "53300" => "the server has no free connection: try again, or raise max_connections",
        "57P03" => "the server is starting up or shutting down: try again when it accepts connections",
        _ if state.starts_with("57P") => {
            "the server was stopped during this command: run it again when the server is \
                                          up"
        }
        _ => "look in the server's log for the reason",
    }
}

fn of_setting(what: &Cause, setting: &ServerSetting) -> Failure {
    match setting {
        ServerSetting::WalLevelMinimal => Failure::new(ExitCode::Configuration, what.to_string())
            .hint("set wal_level = replica in postgresql.conf and restart the server"),
        ServerSetting::OtherServer { .. } | ServerSetting::OtherFiles { .. } => {
            Failure::new(ExitCode::WrongCluster, what.to_string())
                .hint("set `cluster.connection` and `cluster.pgdata` to the same server")
        }
    }
}

fn of_segment(what: &Cause, file: &str, source: &SegmentMismatch) -> Failure {
    let message = what.to_string();
    match source {
        SegmentMismatch::Cluster { .. } => Failure::new(ExitCode::WrongCluster, message)
            .hint("nothing was stored or handed over: check `cluster.name` and where the file comes from"),
        SegmentMismatch::Version { .. } => Failure::new(ExitCode::WrongVersion, message)
            .hint("nothing was stored or handed over: after pg_upgrade run `holdfast repo init --new-claim`"),
        _ if is_local(Path::new(file)) => Failure::new(ExitCode::UnreadableFile, message).hint(
            "nothing was stored: the content of the file does not match its name; check the disk and the program that \
             wrote it",
        ),
        _ => Failure::new(ExitCode::CorruptObject, message).hint(damaged_object_hint()),
    }
}

impl Explain for FormatError {
    fn explain(&self) -> Failure {
        let code = match (self.fault(), self.class()) {
            (Fault::Truncated { .. } | Fault::MissingLastFrame, _) => ExitCode::TruncatedObject,
            (Fault::Authentication { .. } | Fault::WrongFileName { .. }, _) | (_, FaultClass::Foreign) => {
                ExitCode::SwappedObject
            }
            (Fault::NotEncrypted, _) => ExitCode::SwappedObject,
            (Fault::UnknownKeyEpoch(_), _) | (_, FaultClass::Key) => ExitCode::WrongKey,
            (_, FaultClass::Unsupported) => ExitCode::UnsupportedFormat,
            (_, FaultClass::Internal) => ExitCode::Internal,
            (_, FaultClass::Damaged | FaultClass::Limit) => ExitCode::CorruptObject,
        };
        let failure = Failure::new(code, self.to_string());
        match code {
            ExitCode::WrongKey if matches!(self.fault(), Fault::UnknownKeyEpoch(_)) => failure.hint(rotated_hint()),
            ExitCode::UnsupportedFormat => failure.hint(newer_hint()),
            ExitCode::WrongKey => failure.hint("check `encryption` of this [[repo]]"),
            ExitCode::SwappedObject => failure.hint(swapped_object_hint()),
            ExitCode::Internal => failure.hint("run this again; if it fails again, please report it"),
            _ => failure.hint(damaged_object_hint()),
        }
    }
}

impl Explain for RecordError {
    fn explain(&self) -> Failure {
        let code = match self {
            Self::Sealed { source, .. } => {
                let inner = source.explain();
                let failure = Failure::new(inner.code, self.to_string()).caused_by(self.source());
                return match inner.hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                };
            }
            Self::UnsupportedVersion { .. } | Self::UnknownValue { .. } => ExitCode::UnsupportedFormat,
            Self::WrongKind { .. } | Self::Unauthenticated { .. } => ExitCode::SwappedObject,
            Self::Malformed { source, .. } if source.is_eof() => ExitCode::TruncatedObject,
            Self::Malformed { .. }
            | Self::DigestMismatch { .. }
            | Self::InvalidBody { .. }
            | Self::OutOfBounds { .. } => ExitCode::CorruptObject,
            Self::Seal { .. } | Self::Encode { .. } => ExitCode::Internal,
        };
        let failure = Failure::new(code, self.to_string()).caused_by(self.source());
        match code {
            ExitCode::UnsupportedFormat => failure.hint(newer_hint()),
            ExitCode::SwappedObject => failure.hint(swapped_object_hint()),
            _ => failure.hint(damaged_object_hint()),
        }
    }
}

impl Explain for KeyError {
    fn explain(&self) -> Failure {
        let new = |code| Failure::new(code, self.to_string());
        match self {
            Self::WrongPassphrase { .. } => new(ExitCode::WrongKey)
                .hint("check the passphrase in `encryption` of this [[repo]], and that `url` names the right \
                       repository; if the keys were rotated, this passphrase may no longer open it"),
            Self::WrongKeyFile { .. } | Self::WrongPrivateKey { .. } => new(ExitCode::WrongKey)
                .hint("check the key file in `encryption` of this [[repo]], and that `url` names the right repository; if the keys \
                       were rotated, this file may no longer open it"),
            Self::WrongKind { .. } => new(ExitCode::WrongKey).hint("correct `encryption` of this [[repo]]"),
            Self::Malformed { .. } => new(ExitCode::CorruptObject).hint(
                "without its key slot a repository cannot be opened: restore the object below keys/ from a copy of the repository",
            ),
            Self::UnsupportedKdf { .. } => {
                new(ExitCode::UnsupportedFormat).hint(newer_hint())
            }
            Self::WeakSecret { .. } => new(ExitCode::Configuration).hint("choose a longer one, for example with \
                                                                          openssl rand -hex 32"),
            Self::Crypto => Failure::internal(self.to_string()),
        }
    }
}

impl Explain for Unreachable {
    fn explain(&self) -> Failure {
        let code = match self {
            Self::NoBackups | Self::BackupUnknown { .. } | Self::NoBackupOnTimeline { .. } => ExitCode::NoBackup,
            _ => ExitCode::TargetUnreachable,
        };
        let failure = Failure::new(code, self.to_string());
        match self {
            Self::NoBackups => {
                failure.hint("take one with `holdfast backup`; `holdfast list` also shows unfinished ones")
            }
            Self::TimelineUnknown { known, .. } => failure.hint(format!("timelines in the archive: {}", listed(known))),
            Self::BackupNotOnTimeline { .. } => {
                failure.hint("leave --backup out, or follow the backup's own timeline with --target-timeline current")
            }
            Self::NoBackupOnTimeline { backup_timelines, .. } => {
                failure.hint(format!("backups were taken on timelines {}", listed(backup_timelines)))
            }
            Self::NewerBackupElsewhere { timeline, other_lines, .. } => {
                let mut lines =
                    vec![format!("name the timeline to follow with --target-timeline: {timeline}, or another one")];
                lines.extend(other_lines.iter().map(|line| format!("--target-timeline {}: {line}", line.timeline)));
                failure.hint(lines.join("\n"))
            }
            _ if self.windows().is_empty() && self.other_lines().is_empty() => {
                let begun = of_missing_wal(self).map(|line| format!("{line}\n")).unwrap_or_default();
                failure.hint(format!("{begun}`holdfast info` shows what can be restored"))
            }
            _ => {
                let mut lines: Vec<String> = self.windows().iter().map(ToString::to_string).collect();
                if lines.is_empty() {
                    lines.push("nothing on this timeline".to_owned());
                }
                let others = self.other_lines().iter();
                lines.extend(others.map(|line| format!("not followed; --target-timeline {}: {line}", line.timeline)));
                lines.extend(of_missing_wal(self));
                failure.hint(format!("what can be restored: {}", lines.join("\n")))
            }
        }
    }
}

/// What to do about missing WAL.
fn of_missing_wal(why: &Unreachable) -> Option<String> {
    let heal = "if a server, a standby or an old archive still has the missing WAL, `holdfast wal verify --heal DIR` brings \
                it back";
    why.only_begun().or_else(|| matches!(why, Unreachable::Hole { .. }).then(|| heal.to_owned()))
}

fn listed<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_may_exist_is_not_reported_as_lost() {
        let failure = Error::from(Cause::Cancelled).doing("taking backup 20260822T101500Z");
        let error = Error::from(Cause::MayExist {
            backup: "20260822T101500Z".to_owned(),
            stores: vec!["s3://one/pg".to_owned(), "s3://two/pg".to_owned()],
            failure: Box::new(failure),
        });
        let failure = error.explain();
        assert_eq!(failure.code, ExitCode::Cancelled);
        assert_eq!(
            super::super::present::text(&failure, crate::style::Style::Plain),
            "error: backup 20260822T101500Z may exist in s3://one/pg and in s3://two/pg: cancelled by a signal\n\
             while: taking backup 20260822T101500Z\n\
             hint:  the last record of the backup was sent, and no answer came: `holdfast list` tells whether it exists; if it is \
             listed as complete, `holdfast restore --plan` shows whether it can be restored\n"
        );
    }
}
