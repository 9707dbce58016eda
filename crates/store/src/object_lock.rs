//! Object Lock: the date until which a store lets nobody delete an object.
//!
//! The store crate does not know which objects are needed for years and which for minutes, so the caller says so by a
//! function of names.

use std::fmt;
use std::time::{Duration, SystemTime};

/// How strict a lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockMode {
    /// Credentials with a special right (`s3:BypassGovernanceRetention`) can still delete the object.
    Governance,
    /// Nobody can delete the object, not even the owner of the account.
    Compliance,
}

impl LockMode {
    /// The word in S3's headers.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }
}

/// Strictness and length of the locks of new objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockTerm {
    /// How strict the locks are.
    pub mode: LockMode,
    /// How long an object is locked after it was written, in days.
    pub days: u32,
}

impl LockTerm {
    /// The length of a lock.
    pub fn length(self) -> Duration {
        Duration::from_hours(24) * self.days
    }

    /// The end of a lock that begins now.
    pub fn end(self, now: SystemTime) -> SystemTime {
        now + self.length()
    }
}

/// The locks of new objects: their term, and which objects get one.
#[derive(Clone, Copy)]
pub struct ObjectLock {
    /// Strictness and length.
    pub term: LockTerm,
    /// Whether the object with this name, relative to the store, is locked.
    pub covers: fn(&str) -> bool,
}

impl fmt::Debug for ObjectLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.term.fmt(f)
    }
}

/// Functions cannot be compared; a program has one such function.
impl PartialEq for ObjectLock {
    fn eq(&self, other: &Self) -> bool {
        self.term == other.term
    }
}

impl Eq for ObjectLock {}
