//! The findings of validation: the field, the kind, and what to do.

use std::collections::BTreeSet;
use std::fmt;

/// The result of validating a resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome<T> {
    /// The resource as it is meant; absent exactly if there are errors.
    pub value: Option<T>,
    /// What a person should know. The resource is used nevertheless.
    pub warnings: Vec<Finding>,
    /// Why the resource cannot be used. It waits for a change of the spec.
    pub errors: Vec<Finding>,
}

impl<T> Outcome<T> {
    /// The value and the warnings, or the errors.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The field, such as `spec.backup.barmanObjectStore.destinationPath`; empty for the resource as a whole.
    pub path: String,
    /// The kind of the finding.
    pub reason: Reason,
    /// What is wrong. Lower case, no full stop.
    pub message: String,
    /// What a person can do.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The field does not exist.
    UnknownField,
    /// The field is CloudNativePG's, and Holdfast does not support it yet.
    NotSupportedYet,
    /// The value has another type than the field.
    WrongType,
    /// A required field is missing.
    MissingField,
    /// The field cannot have this value.
    InvalidValue,
    /// Some fields exclude each other, or need each other.
    Conflict,
    /// The instance manager makes this setting of PostgreSQL itself.
    ManagedSetting,
    /// PostgreSQL does not know the setting, or does not accept this value.
    InvalidSetting,
    /// The field is in another place or form than it should be; it is read as it was meant.
    ReadAsMeant,
    /// The field is absent, and the default is worth a warning.
    DefaultUsed,
    /// The field changes nothing.
    NoEffect,
    /// The field cannot be changed any more.
    Immutable,
    /// A key occurs more than once in one object; only `manifest check` can see it.
    DuplicateKey,
    /// The `apiVersion` is not Holdfast's, or Holdfast does not have the kind; only `manifest check` can see it.
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
    /// Adds a warning: the resource is used nevertheless.
    pub(super) fn warn(
        &mut self,
        path: impl Into<String>,
        reason: Reason,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        once(&mut self.warnings, Finding { path: path.into(), reason, message: message.into(), hint: hint.into() });
    }

    /// Adds an error: the resource cannot be used.
    pub(super) fn error(
        &mut self,
        path: impl Into<String>,
        reason: Reason,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        once(&mut self.errors, Finding { path: path.into(), reason, message: message.into(), hint: hint.into() });
    }

    /// Whether there is no error so far.
    pub(super) fn no_errors(&self) -> bool {
        self.errors.is_empty()
    }

    /// The fields that have an error.
    pub(super) fn wrong_fields(&self) -> BTreeSet<&str> {
        self.errors.iter().map(|finding| finding.path.as_str()).collect()
    }

    /// Turns the errors about these fields into warnings: the fields are no longer used, so they must not stop a
    /// resource.
    pub(super) fn without_effect(&mut self, is_unused: impl Fn(&str) -> bool) {
        let (unused, errors) =
            std::mem::take(&mut self.errors).into_iter().partition(|finding| is_unused(&finding.path));
        self.errors = errors;
        for Finding { path, message, .. } in unused {
            let hint = "the cluster has its data, so this has no effect any more: correct it or leave it as it is";
            self.warn(path, Reason::NoEffect, message, hint);
        }
    }

    /// Turns the errors about fields that are not supported yet into warnings, if the manifest accepts that. Adds to
    /// the hints of the others how to accept it.
    pub(super) fn accept(&mut self, key: impl Fn(&str) -> Option<&'static str>, accepted: &BTreeSet<&str>) {
        for mut finding in std::mem::take(&mut self.errors) {
            match key(&finding.path).filter(|_| finding.reason == Reason::NotSupportedYet) {
                Some(key) if accepted.contains(key) => {
                    self.warn(finding.path, finding.reason, finding.message, finding.hint);
                }
                Some(key) => {
                    let way =
                        format!("to run without it, annotate the Cluster with `{}: {key}`", crate::names::WITHOUT);
                    finding.hint = format!("{}; {way}", finding.hint);
                    self.errors.push(finding);
                }
                None => self.errors.push(finding),
            }
        }
    }

    /// Takes over the findings about the wanted fields.
    pub(super) fn append_where(&mut self, found: Self, wanted: impl Fn(&str) -> bool) {
        self.errors.extend(found.errors.into_iter().filter(|finding| wanted(&finding.path)));
        self.warnings.extend(found.warnings.into_iter().filter(|finding| wanted(&finding.path)));
    }

    /// The outcome. Its value is kept only if there are no errors.
    pub(super) fn outcome<T>(self, value: Option<T>) -> Outcome<T> {
        let value = if self.errors.is_empty() { value } else { None };
        Outcome { value, warnings: self.warnings, errors: self.errors }
    }
}

/// Adds a finding unless it is there already.
fn once(findings: &mut Vec<Finding>, finding: Finding) {
    if !findings.contains(&finding) {
        findings.push(finding);
    }
}
