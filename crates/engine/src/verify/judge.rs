//! Decides what an error says about an object: that it is damaged, and how; that a newer release wrote it; or nothing.

use std::error::Error as _;

use holdfast_contract::report::verify::{DamageKind, ObjectClass};
use holdfast_pgtypes::WalFileName;
use holdfast_repo::name::ObjectPath;
use holdfast_repo::record::RecordError;
use holdfast_repo::{Fault, FaultClass, FormatError};
use holdfast_store::StoreErrorKind;

use crate::error::{Cause, Error};

/// What an error says about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Judged {
    /// The object is not what was written.
    Damaged { kind: DamageKind, object: String, problem: String },
    /// A newer release wrote the object.
    Newer { object: String, reason: String },
    /// Nothing about an object: the store could not be asked, or this machine failed.
    Nothing,
}

/// Judges an error of reading an object; `object` is the one that was read, if the error does not name another.
pub(crate) fn judge(error: &Error, object: &str) -> Judged {
    let of = |named: &str| {
        let known = named.parse::<ObjectPath>().is_ok();
        if known { named.to_owned() } else { object.to_owned() }
    };
    let damaged =
        |kind, object: String, problem: String| Judged::Damaged { kind, object, problem: problem + &file_of(error) };
    match &*error.what {
        Cause::Store(fault) => {
            let kind = match fault.kind() {
                StoreErrorKind::NotFound => DamageKind::Missing,
                StoreErrorKind::Truncated => DamageKind::TooShort,
                StoreErrorKind::TooLarge => DamageKind::TooLong,
                StoreErrorKind::Corrupt => DamageKind::WrongChecksum,
                _ if error.is_of_one_object() => DamageKind::Unreadable,
                _ => return Judged::Nothing,
            };
            damaged(kind, of(&fault.failure().name), fault.failure().detail.clone())
        }
        Cause::Format(fault) => of_format(fault, &of(fault.object()), &damaged),
        Cause::Record(RecordError::Sealed { source, .. }) => of_format(source, object, &damaged),
        Cause::Record(fault) if fault.is_newer() => {
            Judged::Newer { object: object.to_owned(), reason: fault.to_string() }
        }
        Cause::Record(fault) => {
            let kind = match fault {
                RecordError::DigestMismatch { .. } => DamageKind::WrongChecksum,
                RecordError::Unauthenticated { .. } => DamageKind::NotAuthentic,
                RecordError::WrongKind { .. } => DamageKind::Foreign,
                _ => DamageKind::Malformed,
            };
            let mut problem = fault.to_string();
            if let Some(source) = fault.source() {
                problem = format!("{problem}: {source}");
            }
            damaged(kind, object.to_owned(), problem)
        }
        Cause::NotReadable { name, reason, .. } => {
            // Besides the size only a checksum is compared.
            let kind = if reason.starts_with("it has ") { DamageKind::TooLong } else { DamageKind::WrongChecksum };
            damaged(kind, of(name), reason.clone())
        }
        Cause::Remnant { missing, .. } => {
            let problem = "the record of a run that was taken for dead came after its removal: it is not a backup, and \
                           `holdfast expire` removes what is left";
            damaged(DamageKind::Missing, missing.clone(), problem.to_owned())
        }
        Cause::LostPack { missing, .. } => {
            damaged(DamageKind::Missing, missing.clone(), "its manifest names it".to_owned())
        }
        // A reason that begins with "it is" means a valid object in the place of another. Otherwise the content is
        // malformed.
        Cause::Malformed { name, reason } if name.parse::<ObjectPath>().is_ok() => {
            let is_other = reason.starts_with("it is ");
            let kind = if is_other { DamageKind::Foreign } else { DamageKind::Malformed };
            damaged(kind, name.clone(), reason.clone())
        }
        Cause::Malformed { reason, .. } => damaged(DamageKind::Malformed, object.to_owned(), reason.clone()),
        Cause::SegmentMismatch { source, .. } => damaged(DamageKind::Foreign, object.to_owned(), source.to_string()),
        Cause::SegmentSize { found, expected, .. } => {
            let shorter = *found < expected.as_u64();
            let kind = if shorter { DamageKind::TooShort } else { DamageKind::TooLong };
            damaged(kind, object.to_owned(), format!("its file has {found} bytes, a segment has {}", expected.bytes()))
        }
        _ => Judged::Nothing,
    }
}

fn of_format(fault: &FormatError, object: &str, damaged: &dyn Fn(DamageKind, String, String) -> Judged) -> Judged {
    let kind = match (fault.class(), fault.fault()) {
        (FaultClass::Unsupported, fault) => {
            return Judged::Newer { object: object.to_owned(), reason: fault.to_string() };
        }
        (FaultClass::Internal, _) => return Judged::Nothing,
        (FaultClass::Key, _) | (_, Fault::Authentication { .. }) => DamageKind::NotAuthentic,
        (FaultClass::Foreign, _) | (_, Fault::WrongFileName { .. }) => DamageKind::Foreign,
        (_, Fault::HeaderChecksum { .. } | Fault::BodyChecksum { .. } | Fault::ContentHash { .. }) => {
            DamageKind::WrongChecksum
        }
        (_, Fault::Truncated { .. } | Fault::MissingLastFrame) => DamageKind::TooShort,
        (_, Fault::TrailingBytes { .. }) => DamageKind::TooLong,
        (FaultClass::Damaged | FaultClass::Limit, _) => DamageKind::Malformed,
    };
    damaged(kind, object.to_owned(), fault.fault().to_string())
}

/// The file of the backup that needed the object, for the message.
fn file_of(error: &Error) -> String {
    let phrase = error.doing.iter().find(|phrase| phrase.starts_with("restoring "));
    phrase.map(|phrase| format!(", while {phrase}")).unwrap_or_default()
}

/// The class of an object, by its name.
pub(super) fn class_of(object: &str) -> ObjectClass {
    match object.parse() {
        Ok(ObjectPath::Claim { .. }) => ObjectClass::Claim,
        Ok(ObjectPath::BackupStart { .. }) => ObjectClass::StartRecord,
        Ok(ObjectPath::BackupSummary { .. }) => ObjectClass::BackupRecord,
        Ok(ObjectPath::Manifest { .. }) => ObjectClass::Manifest,
        Ok(ObjectPath::Pack { .. }) => ObjectClass::Pack,
        Ok(ObjectPath::WalFile { file: WalFileName::History(_), .. }) => ObjectClass::TimelineHistory,
        Ok(ObjectPath::WalFile { .. }) => ObjectClass::WalSegment,
        _ => ObjectClass::Other,
    }
}
