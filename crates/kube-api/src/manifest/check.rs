//! The findings in the documents of a manifest, by line, and the corrected documents.

use super::{Document, ReadError, fix, read};
use crate::validate::{self, Finding, Outcome, Reason};
use crate::{GROUP, VERSION};
use serde_json::Value;

/// CloudNativePG's group: its `Cluster`, `Backup` and `ScheduledBackup` are read as Holdfast's.
const CNPG_GROUP: &str = "postgresql.cnpg.io";
/// Holdfast's kinds.
const KINDS: &[&str] = &["Cluster", "Backup", "ScheduledBackup"];

/// The result for one document.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// Line where the document begins, counted from 1.
    pub line: usize,
    /// The document's `apiVersion`.
    pub api_version: Option<String>,
    /// The document's kind.
    pub kind: Option<String>,
    /// The document's name.
    pub name: Option<String>,
    /// Whether the document was checked.
    pub verdict: Verdict,
    /// The findings, in the order of the document.
    pub findings: Vec<Located>,
    /// The document after all clear corrections: `apiVersion`, duplicate keys, fields in their right place. If the
    /// document is not Holdfast's, only duplicate keys are merged.
    pub fixed: Value,
}

/// Whether a document is one of Holdfast's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// One of Holdfast's kinds, or CloudNativePG's kind with the same name.
    Checked,
    /// A document of another API, which is not checked.
    NotOurs,
    /// A document without `apiVersion` or `kind`: a part of a manifest.
    Fragment,
}

/// A finding with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The line, counted from 1.
    pub line: usize,
    /// Whether it is a warning or an error.
    pub level: Level,
    /// The finding itself.
    pub finding: Finding,
}

/// The level of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The manifest works, but a person should know this.
    Warning,
    /// The manifest does not work.
    Error,
}

/// Checks all documents of a text.
pub fn check(text: &str) -> Result<Vec<Checked>, ReadError> {
    Ok(read(text)?.iter().map(check_document).collect())
}

fn check_document(document: &Document) -> Checked {
    let text = |field: &str| document.value[field].as_str().map(str::to_owned);
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let name = document.value["metadata"]["name"].as_str().map(str::to_owned);
    let mut findings = duplicates(document);
    let mut fixed = document.value.clone();
    let (group, version) = match api_version.as_deref().unwrap_or_default().split_once('/') {
        Some((group, version)) => (group, version),
        None => ("", api_version.as_deref().unwrap_or_default()),
    };
    let of_ours = kind.as_deref().is_some_and(|kind| KINDS.contains(&kind));
    // If one of Holdfast's kinds has no apiVersion, that is a mistake and not a part of a manifest.
    let forgotten = of_ours && api_version.is_none();
    let verdict = if kind.is_none() || (api_version.is_none() && !of_ours) {
        Verdict::Fragment
    } else if forgotten || group == GROUP || group == CNPG_GROUP {
        Verdict::Checked
    } else {
        Verdict::NotOurs
    };
    if verdict == Verdict::Checked {
        let kind = kind.as_deref().unwrap_or_default();
        let at = |field: &str, level, reason, message: String, hint: String| Located {
            line: document.line_of(field),
            level,
            finding: Finding { path: field.to_owned(), reason, message, hint },
        };
        if KINDS.contains(&kind) {
            if forgotten {
                let hint = format!("write `{GROUP}/{VERSION}`");
                findings.push(at(
                    "apiVersion",
                    Level::Error,
                    Reason::MissingField,
                    "`apiVersion` is missing".to_owned(),
                    hint,
                ));
            } else if group == CNPG_GROUP {
                let message = format!("`{group}/{version}` is CloudNativePG's; the {kind} is read as Holdfast's");
                let hint = format!("write `{GROUP}/{VERSION}`");
                findings.push(at("apiVersion", Level::Warning, Reason::OtherApiVersion, message, hint));
            } else if version != VERSION {
                let message = format!("there is no version `{version}` of `{GROUP}`");
                let hint = format!("write `{GROUP}/{VERSION}`");
                findings.push(at("apiVersion", Level::Error, Reason::OtherApiVersion, message, hint));
            }
            // The API server drops the status of a new object: an exported manifest is checked as that of a new object.
            let mut created = document.value.clone();
            if let Some(fields) = created.as_object_mut() {
                fields.remove("status");
            }
            let (errors, warnings) = validated(kind, &created);
            for (level, list) in [(Level::Error, errors), (Level::Warning, warnings)] {
                findings.extend(list.into_iter().map(|finding| Located {
                    line: document.line_of(&finding.path),
                    level,
                    finding,
                }));
            }
            fix::fix(kind, &mut fixed);
        } else {
            let message = format!("Holdfast has no kind `{kind}`");
            let hint = if group == CNPG_GROUP {
                "it is CloudNativePG's and not supported yet; leave it out".to_owned()
            } else {
                format!("its kinds are `{}`", KINDS.join("`, `"))
            };
            findings.push(at("kind", Level::Error, Reason::OtherApiVersion, message, hint));
        }
    }
    findings.sort_by_key(|located| located.line);
    Checked { line: document.line, api_version, kind, name, verdict, findings, fixed }
}

fn validated(kind: &str, value: &Value) -> (Vec<Finding>, Vec<Finding>) {
    fn both<T>(outcome: Outcome<T>) -> (Vec<Finding>, Vec<Finding>) {
        (outcome.errors, outcome.warnings)
    }
    match kind {
        "Cluster" => both(validate::cluster(value)),
        "Backup" => both(validate::backup(value)),
        _ => both(validate::scheduled_backup(value)),
    }
}

fn duplicates(document: &Document) -> Vec<Located> {
    let of_one = |duplicate: &super::Duplicate| {
        let (first, second) = (duplicate.first_line, duplicate.second_line);
        let (what, hint) = if duplicate.merged {
            (
                "both are used here, merged",
                "merge them into one: kubectl refuses it, or keeps the second and drops the first",
            )
        } else {
            ("the second is used", "keep one of them: kubectl refuses it, or keeps the second")
        };
        Located {
            line: second,
            level: Level::Warning,
            finding: Finding {
                path: duplicate.path.clone(),
                reason: Reason::DuplicateKey,
                message: format!("it is written twice, in lines {first} and {second}; {what}"),
                hint: hint.to_owned(),
            },
        }
    };
    document.duplicates.iter().map(of_one).collect()
}

#[cfg(test)]
mod tests;
