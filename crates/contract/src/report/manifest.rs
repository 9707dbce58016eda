//! `holdfast manifest check`.

use serde::{Deserialize, Serialize};

/// The report of `manifest check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestReport {
    /// Each file, in the order of the command line.
    pub files: Vec<CheckedFile>,
    /// The number of errors; a file that is not YAML counts as one.
    pub errors: usize,
    /// The number of warnings.
    pub warnings: usize,
    /// With `--fix`: the corrected documents of all files, as YAML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<String>,
}

/// One file and its findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedFile {
    /// Its name on the command line; `standard input` for `-`.
    pub file: String,
    /// Its YAML documents, in their order.
    pub documents: Vec<CheckedDocument>,
    /// Why it is not valid YAML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One document of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckedDocument {
    /// Line where the document begins, counted from 1.
    pub line: usize,
    /// The document's `apiVersion`.
    pub api_version: Option<String>,
    /// The document's kind.
    pub kind: Option<String>,
    /// The document's name.
    pub name: Option<String>,
    /// Whether the document was checked.
    pub verdict: DocumentVerdict,
    /// The findings, in the order of the document.
    pub findings: Vec<DocumentFinding>,
}

/// Whether a document is one of Holdfast's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DocumentVerdict {
    /// One of Holdfast's kinds, or CloudNativePG's kind with the same name.
    Checked,
    /// A document of another API, which is not checked.
    NotOurs,
    /// A document without `apiVersion` or `kind`: a part of a manifest.
    Fragment,
}

/// One error or warning about a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentFinding {
    /// The line, counted from 1.
    pub line: usize,
    /// Whether the manifest works nevertheless.
    pub level: FindingLevel,
    /// The field, such as `spec.backup.barmanObjectStore.destinationPath`; empty for the resource as a whole.
    pub path: String,
    /// The kind of the finding, in one word, such as `DuplicateKey`.
    pub reason: String,
    /// What is wrong.
    pub message: String,
    /// What a person can do.
    pub hint: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingLevel {
    /// The manifest works, but a person should know this.
    Warning,
    /// The manifest does not work.
    Error,
}
