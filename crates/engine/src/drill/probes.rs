//! The user's queries. A query passes if it returns exactly one row and its first column is true.
//!
//! A file is split into statements as PostgreSQL's scanner does it (`scan.l`). So each statement has a name and runs
//! alone, and its failure does not affect the others. The sessions are read-only. A statement without rows, such as
//! `SET`, only has to succeed; its setting is valid for the rest of the file.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use holdfast_contract::report::drill::{DrillFinding, FindingKind, Probe};
use holdfast_pgtypes::recovery_target::moment;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::bounds::{Bounds, EarlyEnd};
use super::refused::{self, Refused};
use super::server::Access;
use crate::error::{Cause, Error, HostFault, postgres_text};

/// The maximum length, in characters, of an answer, and of the name of a query without a comment.
const LONGEST_WORDS: usize = 120;

/// The setting from which a query can read the restored moment.
const RESTORED_TO: &str = "holdfast.restored_to";

/// A statement of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) name: String,
    pub(super) file: PathBuf,
    pub(super) line: u64,
    text: String,
}

/// Reads the queries. Each place is a file, or a folder of `*.sql` files.
pub(super) fn read(places: &[PathBuf]) -> Result<Vec<Statement>, Error> {
    let mut statements = Vec::new();
    for place in places {
        let before = statements.len();
        let mut files = vec![place.clone()];
        if place.is_dir() {
            let entries = std::fs::read_dir(place).map_err(|e| Error::file("list", place, e))?;
            let paths = entries.map(|entry| entry.map(|entry| entry.path()));
            files = paths.collect::<Result<_, _>>().map_err(|e| Error::file("list", place, e))?;
            files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
            files.sort();
        }
        for file in files {
            let text = std::fs::read(&file).map_err(|e| Error::file("read", &file, e))?;
            let text = String::from_utf8(text).map_err(|_| Cause::Malformed {
                name: file.display().to_string(),
                reason: "it is not UTF-8".to_owned(),
            })?;
            statements.extend(split(&file, &text));
        }
        // A misspelled folder must not look like a drill with queries.
        if statements.len() == before {
            let reason = "there is no query in it, and no query in its files that end with .sql".to_owned();
            return Err(Cause::Malformed { name: place.display().to_string(), reason }.into());
        }
    }
    Ok(statements)
}

/// Runs all queries. A query that could not run because of the time limit or a lost server has failed.
pub(super) async fn run(
    statements: &[Statement],
    access: &Access,
    database: &str,
    restored: DateTime<Utc>,
    bounds: &Bounds,
) -> Result<(Vec<Probe>, Vec<DrillFinding>), Error> {
    let (mut probes, mut findings) = (Vec::new(), Vec::new());
    let mut session: Option<(&Path, Client)> = None;
    for statement in statements {
        if session.as_ref().is_none_or(|(file, client)| *file != statement.file || client.is_closed()) {
            session = match bounds.within(open(access, database, restored)).await {
                Ok(Ok(client)) => Some((&statement.file, client)),
                Ok(Err(error)) => {
                    if let Refused::Host(error) = refused::judge(&error) {
                        return Err(error);
                    }
                    let what = format!("{}: no session: {}", statement.name, postgres_text(&error));
                    probes.push(statement.answered(Some(format!("no session: {}", postgres_text(&error)))));
                    findings.push(DrillFinding { kind: FindingKind::Probe, what });
                    continue;
                }
                Err(over) => {
                    let late = statement.late(over, bounds)?;
                    probes.push(late.0);
                    findings.push(late.1);
                    break;
                }
            };
        }
        let Some((_, client)) = &session else { continue };
        let answer = match bounds.within(ask(client, &statement.text)).await {
            Ok(answer) => answer?,
            Err(over) => {
                let late = statement.late(over, bounds)?;
                probes.push(late.0);
                findings.push(late.1);
                break;
            }
        };
        match answer {
            Answer::Command => {}
            Answer::True => probes.push(statement.answered(None)),
            Answer::Other(said) => {
                let Statement { name, file, line, .. } = statement;
                let what = format!("{name} ({}, line {line}): {said}", file.display());
                findings.push(DrillFinding { kind: FindingKind::Probe, what });
                probes.push(statement.answered(Some(said)));
            }
        }
    }
    Ok((probes, findings))
}

async fn open(access: &Access, database: &str, restored: DateTime<Utc>) -> Result<Client, tokio_postgres::Error> {
    let client = access.connect(database, true).await?;
    client.batch_execute(&format!("SET {RESTORED_TO} = '{}'", moment::text(restored))).await?;
    Ok(client)
}

/// The answer to a statement.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The statement is not a query.
    Command,
    /// One row whose first column is true.
    True,
    /// Anything else, as text for people.
    Other(String),
}

/// Asks one query. An error is a fault of the host: its memory or its disk is full.
async fn ask(client: &Client, text: &str) -> Result<Answer, Error> {
    let failed = |error: tokio_postgres::Error| match refused::judge(&error) {
        Refused::Host(error) => Err(error),
        _ if is_ended_by_others(&error) => {
            let what = format!("somebody ended the session of a query: {}", postgres_text(&error));
            Err(Cause::Host { fault: HostFault::Other, what }.into())
        }
        _ => Ok(Answer::Other(format!("it failed: {}", postgres_text(&error)))),
    };
    let stream = match client.simple_query_raw(text).await {
        Ok(stream) => stream,
        Err(error) => return failed(error),
    };
    let mut stream = std::pin::pin!(stream);
    let (mut is_query, mut first, mut rows) = (false, None, 0_u64);
    while let Some(message) = stream.next().await {
        match message {
            Ok(SimpleQueryMessage::RowDescription(_)) => is_query = true,
            Ok(SimpleQueryMessage::Row(row)) => {
                rows += 1;
                if first.is_none() {
                    let values = (0..row.len()).map(|column| row.get(column).unwrap_or("null").to_owned());
                    first = Some(values.collect::<Vec<String>>());
                }
            }
            Ok(_) => {}
            Err(error) => return failed(error),
        }
    }
    Ok(judge(is_query, first.as_deref(), rows))
}

/// Whether the server ended the session because it was told to: by a signal, at its shutdown or after a crash.
fn is_ended_by_others(error: &tokio_postgres::Error) -> bool {
    let codes = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN];
    error.code().is_some_and(|code| codes.contains(code))
}

fn judge(is_query: bool, first: Option<&[String]>, rows: u64) -> Answer {
    match (first, rows) {
        (None, _) if !is_query => Answer::Command,
        (None, _) => Answer::Other("it answered no row".to_owned()),
        (Some(row), 1) if row.first().is_some_and(|value| value == "t") => Answer::True,
        (Some(row), 1) => Answer::Other(format!("it answered {}", shortened(&row.join(" | ")))),
        (Some(row), rows) => {
            Answer::Other(format!("it answered {rows} rows, the first of them {}", shortened(&row.join(" | "))))
        }
    }
}

fn shortened(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(LONGEST_WORDS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

impl Statement {
    /// The result of a query that was running when the time was over. The server is stopped next, and the query with
    /// it.
    fn late(&self, over: EarlyEnd, bounds: &Bounds) -> Result<(Probe, DrillFinding), Error> {
        let EarlyEnd::Time = over else { return Err(over.into_error(bounds)) };
        let what = format!("{} had no answer, and what comes after it was not asked", self.name);
        let finding = DrillFinding { kind: FindingKind::TimeLimit, what };
        Ok((self.answered(Some("the time of the drill was over".to_owned())), finding))
    }

    fn answered(&self, answer: Option<String>) -> Probe {
        Probe { name: self.name.clone(), file: self.file.clone(), line: self.line, passed: answer.is_none(), answer }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ScannerState {
    Plain,
    /// `'...'`, with backslashes if it began with `E`.
    Quoted {
        escapes: bool,
    },
    /// `"..."`
    Identifier,
    /// `-- ...`
    Line,
    /// `/* ... */`, nested.
    Block {
        depth: u32,
    },
}

/// Splits a text into statements. The last comment before a statement is its name.
fn split(file: &Path, text: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut at = 0;
    let mut state = ScannerState::Plain;
    // The current statement: its beginning, and the comment before it.
    let (mut begin, mut comment, mut comment_begin): (Option<usize>, Option<String>, usize) = (None, None, 0);
    let line_of = |place: usize| 1 + text.bytes().take(place).filter(|byte| *byte == b'\n').count() as u64;
    let push = |statements: &mut Vec<Statement>, begin: usize, end: usize, comment: Option<String>| {
        let statement = text.get(begin..end).unwrap_or_default().trim();
        if !statement.is_empty() {
            let name = comment.filter(|comment| !comment.is_empty()).unwrap_or_else(|| shortened(statement));
            let (file, line) = (file.to_owned(), line_of(begin));
            statements.push(Statement { name, file, line, text: statement.to_owned() });
        }
    };
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let first = rest.chars().next().unwrap_or_default();
        let mut step = first.len_utf8();
        match state {
            ScannerState::Plain => {
                if rest.starts_with("--") {
                    (state, comment_begin) = (ScannerState::Line, at + 2);
                } else if rest.starts_with("/*") {
                    (state, step) = (ScannerState::Block { depth: 1 }, 2);
                } else if first == ';' {
                    if let Some(begin) = begin.take() {
                        push(&mut statements, begin, at, comment.take());
                    }
                } else if !first.is_whitespace() {
                    begin.get_or_insert(at);
                    match first {
                        '\'' => {
                            let before = text.get(..at).unwrap_or_default();
                            let mut words = before.chars().rev();
                            let escapes = words.next().is_some_and(|c| matches!(c, 'e' | 'E'))
                                && words.next().is_none_or(|c| !is_word(c));
                            state = ScannerState::Quoted { escapes };
                        }
                        '"' => state = ScannerState::Identifier,
                        '$' if !text.get(..at).unwrap_or_default().ends_with(is_word) => {
                            if let Some(length) = dollar_quoted(rest) {
                                step = length;
                            }
                        }
                        _ => {}
                    }
                }
            }
            ScannerState::Quoted { escapes } => match first {
                '\\' if escapes => step += rest.chars().nth(1).map_or(0, char::len_utf8),
                // Two quotes mean one quote in the text. For the scanner, the second one begins a new string.
                '\'' => state = ScannerState::Plain,
                _ => {}
            },
            ScannerState::Identifier => {
                if first == '"' {
                    state = ScannerState::Plain;
                }
            }
            ScannerState::Line => {
                if first == '\n' {
                    state = ScannerState::Plain;
                    if begin.is_none() {
                        comment = text.get(comment_begin..at).map(|words| words.trim().to_owned());
                    }
                }
            }
            ScannerState::Block { depth } => {
                if rest.starts_with("/*") {
                    (state, step) = (ScannerState::Block { depth: depth + 1 }, 2);
                } else if rest.starts_with("*/") {
                    step = 2;
                    state = if depth == 1 { ScannerState::Plain } else { ScannerState::Block { depth: depth - 1 } };
                }
            }
        }
        at += step;
    }
    if let Some(begin) = begin {
        push(&mut statements, begin, text.len(), comment);
    }
    statements
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// The length of the text from `$tag$` to the second `$tag$`, both included; to the end if there is no second one.
fn dollar_quoted(rest: &str) -> Option<usize> {
    let tag_end = rest.get(1..)?.find('$')? + 2;
    let tag = rest.get(..tag_end)?;
    let name = tag.trim_matches('$');
    if name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let after = rest.get(tag_end..)?;
    Some(after.find(tag).map_or(rest.len(), |found| tag_end + found + tag.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        split(Path::new("p.sql"), text).into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn statements_are_split_as_postgresql_does_it() {
        for (text, expected) in [
            ("SELECT 1; SELECT 2", vec!["SELECT 1", "SELECT 2"]),
            ("SELECT ';' ; SELECT 'it''s;'", vec!["SELECT ';'", "SELECT 'it''s;'"]),
            (r"SELECT E'\';' ; SELECT 1", vec![r"SELECT E'\';'", "SELECT 1"]),
            (r"SELECT 'a\'; SELECT 1", vec![r"SELECT 'a\'", "SELECT 1"]),
            ("SELECT \";\";", vec!["SELECT \";\""]),
            ("SELECT $$;$$; SELECT $a$;$$;$a$", vec!["SELECT $$;$$", "SELECT $a$;$$;$a$"]),
            ("SELECT a$b; SELECT $1; ", vec!["SELECT a$b", "SELECT $1"]),
            ("SELECT 1 -- ; no\n; SELECT 2", vec!["SELECT 1 -- ; no", "SELECT 2"]),
            ("SELECT /* ; /* ; */ ; */ 1;;;", vec!["SELECT /* ; /* ; */ ; */ 1"]),
            ("-- nothing\n/* ; */ ;", vec![]),
            ("SELECT 'open;", vec!["SELECT 'open;"]),
            ("SELECT 'é;' ; SELECT 2", vec!["SELECT 'é;'", "SELECT 2"]),
        ] {
            assert_eq!(texts(text), expected, "{text}");
        }
    }

    #[test]
    fn a_place_without_queries_is_refused() {
        let folder = tempfile::tempdir().expect("make a folder");
        std::fs::write(folder.path().join("probe.txt"), "SELECT true").expect("write");
        let places = [folder.path().to_owned()];
        let error = read(&places).expect_err("no query");
        assert!(error.to_string().contains("there is no query in it"), "{error}");
        std::fs::write(folder.path().join("probe.sql"), "-- only words").expect("write");
        read(&places).expect_err("no query");
        std::fs::write(folder.path().join("probe.sql"), "SELECT true").expect("write");
        assert_eq!(read(&places).expect("a query").len(), 1);
    }

    #[test]
    fn the_comment_before_a_statement_is_its_name() {
        let text =
            "-- about this file\n\n-- orders are young\nSELECT true;\nSELECT   1\n  AS x;\n-- last\nSELECT 2 -- no\n;";
        let found = split(Path::new("p.sql"), text);
        let named: Vec<(&str, u64)> = found.iter().map(|found| (found.name.as_str(), found.line)).collect();
        assert_eq!(named, [("orders are young", 4), ("SELECT 1 AS x", 5), ("last", 8)]);
    }

    #[test]
    fn only_one_row_that_begins_with_true_passes() {
        let row = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let other = |text: &str| Answer::Other(text.to_owned());
        for (is_query, first, rows, expected) in [
            (true, Some(row(&["t", "12"])), 1, Answer::True),
            (true, Some(row(&["f", "12"])), 1, other("it answered f | 12")),
            (true, Some(row(&["null"])), 1, other("it answered null")),
            (true, Some(row(&["1"])), 1, other("it answered 1")),
            (true, Some(row(&["t"])), 2, other("it answered 2 rows, the first of them t")),
            (true, None, 0, other("it answered no row")),
            (false, None, 0, Answer::Command),
        ] {
            assert_eq!(judge(is_query, first.as_deref(), rows), expected);
        }
    }
}
