//! Decides whether an error concerns one repository or the whole run.
//!
//! A verb that works with several repositories continues without one that fails. It must not do so after a fault
//! elsewhere: it would blame the wrong place, and meet the same fault with each of the other repositories.

use std::path::Path;

use super::{Cause, Error};

impl Error {
    /// Whether the error concerns one repository: its store, key, claim or objects. Then another repository may be
    /// good. Other errors, such as those of a local file, the server or the data directory, are the same for every
    /// repository.
    pub fn is_of_repository(&self) -> bool {
        match &*self.what {
            Cause::Store(_)
            | Cause::Format(_)
            | Cause::Record(_)
            | Cause::Key(_)
            | Cause::Unreachable(_)
            | Cause::NotInitialised { .. }
            | Cause::NewerFeature { .. }
            | Cause::AlreadyInitialised { .. }
            | Cause::EncryptionMismatch { .. }
            | Cause::NoKeySlot { .. }
            | Cause::KeysRotated { .. }
            | Cause::WrongCluster { .. }
            | Cause::WrongOwner { .. }
            | Cause::WrongVersion { .. }
            | Cause::StoredVersion { .. }
            | Cause::ArchiveNotEmpty { .. }
            | Cause::NoClaim { .. }
            | Cause::Divergence { .. }
            | Cause::Absent { .. }
            | Cause::TailTooShort { .. }
            | Cause::NotReadable { .. }
            | Cause::NotArchived { .. }
            | Cause::ReplayStopped { .. }
            | Cause::NoSuchBackup { .. }
            | Cause::NoSuchSnapshot { .. }
            | Cause::UnreadableHistory { .. }
            | Cause::Remnant { .. }
            | Cause::LostPack { .. }
            | Cause::HeldInDoubt { .. }
            | Cause::LeaseEnded { .. }
            // The size of packs is a property of the repository.
            | Cause::TooManyPacks { .. } => true,
            // Names of objects are relative; local files are named by their absolute paths.
            Cause::Malformed { name, .. } => !Path::new(name).is_absolute(),
            Cause::SegmentMismatch { file, .. } => !Path::new(file).is_absolute(),
            Cause::SegmentSize { path, .. } => !path.is_absolute(),
            Cause::MayExist { failure, .. } => failure.is_of_repository(),
            Cause::Postgres(_)
            | Cause::ServerAnswer { .. }
            | Cause::StreamLost { .. }
            | Cause::SlotLost { .. }
            | Cause::WalGap { .. }
            | Cause::OtherWal { .. }
            | Cause::Connection(_)
            | Cause::ConnectionParameters(_)
            | Cause::SessionLost { .. }
            | Cause::PostmasterPid { .. }
            | Cause::ServerSetting(_)
            | Cause::File { .. }
            | Cause::UnsupportedVersion(_)
            | Cause::ControlFile { .. }
            | Cause::NotEmpty { .. }
            | Cause::TablespaceNotEmpty { .. }
            | Cause::NotOurs { .. }
            | Cause::UnarchivedWal { .. }
            | Cause::Overlap { .. }
            | Cause::InUse { .. }
            | Cause::LinkInUse { .. }
            | Cause::ReplayInUse { .. }
            | Cause::UnclearLockFile { .. }
            | Cause::UnseenServer { .. }
            | Cause::ServerRunning { .. }
            | Cause::AnotherRun { .. }
            | Cause::NoPrograms { .. }
            | Cause::NoRoom { .. }
            | Cause::Host { .. }
            | Cause::OutOfTime { .. }
            | Cause::Refused(_)
            | Cause::Cancelled
            | Cause::Internal(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_pgtypes::WalSegmentSize;

    use super::*;

    #[test]
    fn faults_of_this_machine_are_not_of_a_repository() {
        let name = |name: &str| Cause::Malformed { name: name.to_owned(), reason: "it is empty".to_owned() };
        let segment =
            |path: &str| Cause::SegmentSize { path: path.into(), found: 1, expected: WalSegmentSize::DEFAULT };
        let waited = std::time::Duration::from_secs(1);
        for (cause, of_repository) in [
            (name("main/claims/1"), true),
            (name("/srv/pg/pg_wal/00000002.history"), false),
            (segment("main/wal/1/00000001/000000010000000000000001"), true),
            (segment("/srv/pg/pg_wal/000000010000000000000001"), false),
            (Cause::NotArchived { segment: "x".to_owned(), waited }, true),
            (Cause::NoClaim { store: "s3://b".to_owned(), cluster: "main".to_owned() }, true),
            (Cause::TooManyPacks { store: "s3://b".to_owned(), most: 999_999 }, true),
            (Cause::Refused("tablespace x has no directory".to_owned()), false),
            (Cause::Internal("a thread panicked".to_owned()), false),
            (Cause::SessionLost { reason: "gone".to_owned() }, false),
        ] {
            let error = Error::from(cause);
            assert_eq!(error.is_of_repository(), of_repository, "{error}");
        }
        let file = Error::file("read", Path::new("/srv/pg/base"), std::io::ErrorKind::PermissionDenied.into());
        assert!(!file.is_of_repository());
    }
}
