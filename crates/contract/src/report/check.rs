//! `holdfast check`.

use serde::{Deserialize, Serialize};

/// The findings of a check, in the order of its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// One finding for each step.
    pub findings: Vec<Finding>,
    /// Whether nothing failed.
    pub good: bool,
}

/// The finding of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was checked.
    pub subject: String,
    /// The result.
    pub verdict: Verdict,
    /// Details, as text for people.
    pub detail: String,
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It works.
    Ok,
    /// It works, with a weakness that the user should know.
    Warning,
    /// It does not work.
    Failed,
}

impl Default for CheckReport {
    fn default() -> Self {
        Self { findings: Vec::new(), good: true }
    }
}

impl CheckReport {
    /// Adds the finding of the next step.
    pub fn add(&mut self, subject: impl Into<String>, verdict: Verdict, detail: impl Into<String>) {
        self.good &= verdict != Verdict::Failed;
        self.findings.push(Finding { subject: subject.into(), verdict, detail: detail.into() });
    }
}
