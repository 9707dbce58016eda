//! The form of a failure: three labelled lines for people, one JSON object for programs, both on stderr.
//!
//! ```text
//! error: WAL segment 000000010000000A000000FF was not archived within 60s
//! while: waiting for the stop LSN A/FF0001C8 of backup 20260822T101500Z
//! hint:  check `archive_command` on the primary and the last failure in pg_stat_archiver
//! ```

use super::Failure;
use crate::style::Style;
use holdfast_contract::problem::{ErrorLine, Label};

const RED: &str = "\u{1b}[1;31m";
const CYAN: &str = "\u{1b}[1;36m";
const YELLOW: &str = "\u{1b}[1;33m";
const GREEN: &str = "\u{1b}[1;32m";
const RESET: &str = "\u{1b}[0m";

/// The failure as lines of text, each with a newline.
pub fn text(failure: &Failure, style: Style) -> String {
    failure.problem().text(|label| {
        let colour = match label {
            Label::Error => RED,
            Label::While => CYAN,
            Label::Hint => GREEN,
        };
        match style {
            Style::Plain => label.as_str().to_owned(),
            Style::Coloured => format!("{colour}{}{RESET}", label.as_str()),
        }
    })
}

/// A warning as a line of text.
pub fn warning(text: &str, style: Style) -> String {
    let label = "warning:";
    match style {
        Style::Plain => format!("{label} {text}\n"),
        Style::Coloured => format!("{YELLOW}{label}{RESET} {text}\n"),
    }
}

/// The failure as one line of JSON, an [`ErrorLine`].
pub fn json(failure: &Failure) -> String {
    format!("{}\n", ErrorLine::new(failure.code, failure.problem()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit_code::ExitCode;

    fn example() -> Failure {
        Failure::new(ExitCode::WalNotArchived, "WAL segment 000000010000000A000000FF was not archived within 60s")
            .doing("waiting for the stop LSN A/FF0001C8 of backup 20260822T101500Z")
            .hint("check `archive_command` on the primary and the last failure in pg_stat_archiver")
    }

    #[test]
    fn text_has_three_parts() {
        assert_eq!(
            text(&example(), Style::Plain),
            "error: WAL segment 000000010000000A000000FF was not archived within 60s\n\
             while: waiting for the stop LSN A/FF0001C8 of backup 20260822T101500Z\n\
             hint:  check `archive_command` on the primary and the last failure in pg_stat_archiver\n"
        );
    }

    #[test]
    fn further_lines_are_indented_under_the_first() {
        let failure = Failure::new(ExitCode::Internal, "one\ntwo").hint("three\nfour");
        assert_eq!(text(&failure, Style::Plain), "error: one\n       two\nhint:  three\n       four\n");
    }

    #[test]
    fn colour_touches_the_labels_only() {
        let failure = Failure::new(ExitCode::Internal, "one");
        assert_eq!(text(&failure, Style::Coloured), "\u{1b}[1;31merror:\u{1b}[0m one\n");
    }

    #[test]
    fn json_has_the_same_parts() {
        assert_eq!(
            json(&example()),
            "{\"error\":{\"code\":52,\"hint\":\"check `archive_command` on the primary and the last failure in pg_stat_archiver\",\
             \"message\":\"WAL segment 000000010000000A000000FF was not archived within 60s\",\"name\":\"wal-not-archived\",\
             \"while\":\"waiting for the stop LSN A/FF0001C8 of backup 20260822T101500Z\"}}\n"
        );
    }

    #[test]
    fn causes_follow_the_message_and_are_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Layer(&'static str, #[source] Option<Box<Layer>>);
        let chain = Layer(
            "cannot reach store: connect failed",
            Some(Box::new(Layer("connect failed", Some(Box::new(Layer("refused", None)))))),
        );
        let failure = Failure::new(ExitCode::Unreachable, "no answer").caused_by(Some(&chain));
        assert_eq!(failure.what(), "no answer: cannot reach store: connect failed: refused");
    }
}
