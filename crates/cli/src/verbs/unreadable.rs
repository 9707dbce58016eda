//! Records that a repository names and that cannot be read: a line of text and an object of JSON for each, with the code that
//! who wants just that record ends with.

use crate::failure::{Explain, Failure};
use holdfast_contract::report::UnreadableRecord;
use holdfast_engine::Error;
use holdfast_engine::repository::listed::{Listed, Unreadable};
use std::fmt::Display;

/// What could not be read in one repository, for both outputs.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    lines: Vec<String>,
    records: Vec<UnreadableRecord>,
    fatal: Option<Failure>,
}

impl Remarks {
    /// Notes what could not be read of the records of one kind, called `kind` in singular, and gives those that could. The
    /// command goes on, and fails at its end when not one record is left.
    pub(super) fn sound<T, N: Display>(&mut self, kind: &str, listed: Listed<T, N>) -> Vec<T> {
        self.note(kind, &listed.unreadable);
        if listed.records.is_empty()
            && let Some(last) = listed.unreadable.last()
        {
            self.fatal.get_or_insert_with(|| last.error.explain());
        }
        listed.records
    }

    /// Notes what could not be read.
    pub(super) fn note<N: Display>(&mut self, kind: &str, unreadable: &[Unreadable<N>]) {
        for bad in unreadable {
            self.lines.push(line(kind, &bad.id, &bad.error));
            self.records.push(UnreadableRecord {
                kind: kind.to_owned(),
                id: bad.id.to_string(),
                object: bad.object.clone(),
                error: bad.error.explain().brief(),
            });
        }
    }

    /// Lets the command fail at its end with this, if with nothing before.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.fatal.get_or_insert(failure);
    }

    /// The lines, each indented by this much and ended by a newline.
    pub(super) fn text(&self, indent: &str) -> String {
        self.lines.iter().flat_map(|line| [indent, line, "\n"]).collect()
    }

    /// The same, for reports.
    pub(super) fn records(&self) -> Vec<UnreadableRecord> {
        self.records.clone()
    }

    /// What the command fails with after it has shown the rest.
    pub(super) fn fatal(self) -> Option<Failure> {
        self.fatal
    }
}

/// `unreadable backup 20260822T101500Z: not a backup record: ... (41, truncated-object)`
pub(super) fn line(kind: &str, id: &dyn Display, error: &Error) -> String {
    let failure = error.explain();
    format!("unreadable {kind} {id}: {} ({}, {})", failure.what(), failure.code.number(), failure.code.name())
}
