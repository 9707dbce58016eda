//! `holdfast check`.

use serde::{Deserialize, Serialize};

/// What a check found, in the order of its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// One finding a step.
    pub findings: Vec<Finding>,
    /// Whether nothing failed.
    pub good: bool,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
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
    /// Adds what was found in the next step.
    pub fn add(&mut self, subject: impl Into<String>, verdict: Verdict, detail: impl Into<String>) {
        self.good &= verdict != Verdict::Failed;
        self.findings.push(Finding { subject: subject.into(), verdict, detail: detail.into() });
    }
}
