//! Records that a repository names but that cannot be read: a line of text and a JSON object for each, with the exit
//! code of a command that needs just that record.

use crate::failure::{Explain, Failure};
use holdfast_contract::report::UnreadableRecord;
use holdfast_engine::Error;
use holdfast_engine::repository::listed::{Listed, Unreadable};
use std::fmt::Display;

/// The unreadable records of one repository, for both outputs.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    lines: Vec<String>,
    records: Vec<UnreadableRecord>,
    fatal: Option<Failure>,
}

impl Remarks {
    /// Notes the unreadable records of one kind, called `kind` in the singular, and returns the readable ones. The
    /// command continues, and fails at its end if no record is left.
    pub(super) fn sound<T, N: Display>(&mut self, kind: &str, listed: Listed<T, N>) -> Vec<T> {
        self.note(kind, &listed.unreadable);
        if listed.records.is_empty()
            && let Some(last) = listed.unreadable.last()
        {
            self.fatal.get_or_insert_with(|| last.error.explain());
        }
        listed.records
    }

    /// Notes unreadable records.
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

    /// Makes the command fail at its end with this, unless an earlier failure is set.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.fatal.get_or_insert(failure);
    }

    /// The lines, indented by this text, each with a newline.
    pub(super) fn text(&self, indent: &str) -> String {
        self.lines.iter().flat_map(|line| [indent, line, "\n"]).collect()
    }

    /// The same, for reports.
    pub(super) fn records(&self) -> Vec<UnreadableRecord> {
        self.records.clone()
    }

    /// The failure after the rest was shown.
    pub(super) fn fatal(self) -> Option<Failure> {
        self.fatal
    }
}

/// `unreadable backup 20260822T101500Z: not a backup record: ... (41, truncated-object)`
pub(super) fn line(kind: &str, id: &dyn Display, error: &Error) -> String {
    let failure = error.explain();
    format!("unreadable {kind} {id}: {} ({}, {})", failure.what(), failure.code.number(), failure.code.name())
}
