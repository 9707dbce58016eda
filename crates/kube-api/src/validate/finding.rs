//! What validation finds: where, of what kind, and what to do.

use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// What validation made of a resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome<T> {
    /// What it means; absent exactly when there are errors.
    pub value: Option<T>,
    /// What a person should know. It goes on nevertheless.
    pub warnings: Vec<Finding>,
    /// Why it cannot go on. The spec waits for a change.
    pub errors: Vec<Finding>,
}

impl<T> Outcome<T> {
    /// The meaning and the warnings, or the errors.
    pub fn into_result(self) -> Result<(T, Vec<Finding>), Vec<Finding>> {
        match self.value {
            Some(value) if self.errors.is_empty() => Ok((value, self.warnings)),
            _ => Err(self.errors),
        }
    }

    /// Errors first, then warnings.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.errors.iter().chain(&self.warnings)
    }
}

/// One thing that is wrong with a resource, or that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The field, such as `spec.backup.barmanObjectStore.destinationPath`; empty for the resource as a whole.
    pub path: String,
    /// What kind of thing it is.
    pub reason: Reason,
    /// What is the matter. Lower case, no full stop.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(formatter, "{}: ", self.path)?;
        }
        formatter.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(formatter, " ({})", self.hint)?;
        }
        Ok(())
    }
}

/// The kinds of findings: reasons of Events and labels of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Reason {
    /// A field that does not exist.
    UnknownField,
    /// A field of CloudNativePG that Holdfast does not support yet.
    NotSupportedYet,
    /// A value of another type than the field's.
    WrongType,
    /// A field that must be there.
    MissingField,
    /// A value that the field cannot have.
    InvalidValue,
    /// Fields that exclude each other, or that need each other.
    Conflict,
    /// A setting of PostgreSQL that the instance manager makes itself.
    ManagedSetting,
    /// A setting that PostgreSQL does not know, or not with this value.
    InvalidSetting,
    /// Written at another place or in another way than it is meant; read as it is meant.
    ReadAsMeant,
    /// Not written, and worth a word.
    DefaultUsed,
    /// It changes nothing.
    NoEffect,
    /// It cannot be changed any more.
    Immutable,
    /// A key that is written more than once in one object; only `manifest check` can see it.
    DuplicateKey,
    /// An `apiVersion` that is not Holdfast's, or a kind that it does not have; only `manifest check` can see it.
    OtherApiVersion,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::UnknownField,
        Self::NotSupportedYet,
        Self::WrongType,
        Self::MissingField,
        Self::InvalidValue,
        Self::Conflict,
        Self::ManagedSetting,
        Self::InvalidSetting,
        Self::ReadAsMeant,
        Self::DefaultUsed,
        Self::NoEffect,
        Self::Immutable,
        Self::DuplicateKey,
        Self::OtherApiVersion,
    ];

    /// The name in Events, conditions and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownField => "UnknownField",
            Self::NotSupportedYet => "NotSupportedYet",
            Self::WrongType => "WrongType",
            Self::MissingField => "MissingField",
            Self::InvalidValue => "InvalidValue",
            Self::Conflict => "Conflict",
            Self::ManagedSetting => "ManagedSetting",
            Self::InvalidSetting => "InvalidSetting",
            Self::ReadAsMeant => "ReadAsMeant",
            Self::DefaultUsed => "DefaultUsed",
            Self::NoEffect => "NoEffect",
            Self::Immutable => "Immutable",
            Self::DuplicateKey => "DuplicateKey",
            Self::OtherApiVersion => "OtherApiVersion",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Collects findings.
#[derive(Debug, Default)]
pub(super) struct Findings {
    warnings: Vec<Finding>,
    errors: Vec<Finding>,
}

impl Findings {
    /// It goes on nevertheless.
    pub(super) fn warn(
        &mut self,
        path: impl Into<String>,
        reason: Reason,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        once(&mut self.warnings, Finding { path: path.into(), reason, message: message.into(), hint: hint.into() });
    }

    /// It cannot go on.
    pub(super) fn error(
        &mut self,
        path: impl Into<String>,
        reason: Reason,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        once(&mut self.errors, Finding { path: path.into(), reason, message: message.into(), hint: hint.into() });
    }

    /// Whether nothing stands in the way so far.
    pub(super) fn no_errors(&self) -> bool {
        self.errors.is_empty()
    }

    /// The fields that have an error.
    pub(super) fn wrong_fields(&self) -> BTreeSet<&str> {
        self.errors.iter().map(|finding| finding.path.as_str()).collect()
    }

    /// Takes over the findings about the fields that are wanted.
    pub(super) fn append_where(&mut self, found: Self, wanted: impl Fn(&str) -> bool) {
        self.errors.extend(found.errors.into_iter().filter(|finding| wanted(&finding.path)));
        self.warnings.extend(found.warnings.into_iter().filter(|finding| wanted(&finding.path)));
    }

    /// The outcome, with a meaning that is kept only when there are no errors.
    pub(super) fn outcome<T>(self, value: Option<T>) -> Outcome<T> {
        let value = if self.errors.is_empty() { value } else { None };
        Outcome { value, warnings: self.warnings, errors: self.errors }
    }
}

/// Adds what is not there yet.
fn once(findings: &mut Vec<Finding>, finding: Finding) {
    if !findings.contains(&finding) {
        findings.push(finding);
    }
}
