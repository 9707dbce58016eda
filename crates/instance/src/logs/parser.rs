//! Turns lines of PostgreSQL's stderr into records. Pure.

use serde::Serialize;

const START: char = '\u{1e}';
const SEPARATOR: char = '\u{1f}';
/// Fields of the prefix: time, process, SQLSTATE, kind of process, user, database, application.
const FIELDS: usize = 7;

/// One message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Record {
    /// The time, as the server writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// The level, as in the manager's own log.
    pub level: &'static str,
    /// `postgres`, or `postgres-child` for programs that it calls.
    pub target: &'static str,
    /// The text of the message, without its prefix.
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    /// PostgreSQL's own severity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// The process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// SQLSTATE, unless it means success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// `backend_type` of the process, such as `checkpointer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_type: Option<String>,
    /// The user of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The database of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The application name of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
}

/// Which part of a message a further line belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Message,
    Detail,
    Hint,
    Context,
    Statement,
}

/// Joins lines to records.
#[derive(Debug, Default)]
pub struct Parser {
    open: Option<(Record, Part)>,
}

impl Parser {
    /// Takes a line without its line end; returns the record before it, if the line begins another one.
    pub fn push(&mut self, line: &str) -> Option<Record> {
        match line.strip_prefix(START) {
            Some(rest) => self.push_prefixed(rest),
            None => self.push_plain(line),
        }
    }

    /// Returns the current record: no line came for a while.
    pub fn flush(&mut self) -> Option<Record> {
        self.open.take().map(|(record, _)| record)
    }

    fn push_prefixed(&mut self, line: &str) -> Option<Record> {
        let fields: Vec<&str> = line.splitn(FIELDS + 1, SEPARATOR).collect();
        let [time, pid, sqlstate, backend, user, database, application, message] = fields.as_slice() else {
            return self.push_plain(line);
        };
        let (severity, message) = message.split_once(":  ").unwrap_or(("LOG", message));
        let pid: Option<u32> = pid.parse().ok();
        let part = match severity {
            "DETAIL" => Some(Part::Detail),
            "HINT" => Some(Part::Hint),
            "CONTEXT" | "QUERY" => Some(Part::Context),
            "STATEMENT" => Some(Part::Statement),
            _ => None,
        };
        if let Some(part) = part
            && let Some((open, at)) = &mut self.open
            && open.pid == pid
            && pid.is_some()
        {
            *at = part;
            append(open, part, message);
            return None;
        }
        let present = |text: &str| (!text.is_empty() && text != "[unknown]").then(|| text.to_owned());
        let record = Record {
            timestamp: present(time),
            // "The database system is starting up" is not an error.
            level: if *sqlstate == "57P03" { "INFO" } else { level(severity) },
            target: "postgres",
            message: message.to_owned(),
            severity: Some(severity.to_owned()),
            pid,
            sqlstate: present(sqlstate).filter(|code| code != "00000"),
            backend_type: present(backend),
            user: present(user),
            database: present(database),
            application: present(application),
            ..Record::default()
        };
        self.open.replace((record, Part::Message)).map(|(record, _)| record)
    }

    fn push_plain(&mut self, line: &str) -> Option<Record> {
        if let Some(further) = line.strip_prefix('\t')
            && let Some((open, part)) = &mut self.open
        {
            let part = *part;
            append(open, part, further);
            return None;
        }
        let (severity, text, first) = child_line(line);
        if !first
            && let Some((open, part)) = &mut self.open
            && open.target == "postgres-child"
            && open.level == "ERROR"
        {
            match severity {
                Some("while") => append(open, Part::Context, text),
                Some("hint") => append(open, Part::Hint, text),
                _ => {
                    let part = *part;
                    append(open, part, line.trim());
                }
            }
            return None;
        }
        let record = Record {
            // The usual end of every recovery, and the answer to a standby that has caught up.
            level: if severity == Some("error") && !text.ends_with(" is not in the archive") {
                "ERROR"
            } else {
                "INFO"
            },
            target: "postgres-child",
            message: text.to_owned(),
            ..Record::default()
        };
        self.open.replace((record, Part::Message)).map(|(record, _)| record)
    }
}

/// Our own three-part errors: the part, its text, and whether the line begins a message.
fn child_line(line: &str) -> (Option<&str>, &str, bool) {
    for label in ["error", "warning"] {
        if let Some(text) = line.strip_prefix(label).and_then(|rest| rest.strip_prefix(": ")) {
            return (Some(label), text.trim_start(), true);
        }
    }
    for label in ["while", "hint"] {
        if let Some(text) = line.strip_prefix(label).and_then(|rest| rest.strip_prefix(": ")) {
            return (Some(label), text.trim_start(), false);
        }
    }
    (None, line, !line.starts_with("       "))
}

fn append(record: &mut Record, part: Part, text: &str) {
    let add = |slot: &mut String| {
        if !slot.is_empty() {
            slot.push('\n');
        }
        slot.push_str(text);
    };
    match part {
        Part::Message => add(&mut record.message),
        Part::Detail => add(record.detail.get_or_insert_default()),
        Part::Hint => add(record.hint.get_or_insert_default()),
        Part::Context => add(record.context.get_or_insert_default()),
        Part::Statement => add(record.statement.get_or_insert_default()),
    }
}

fn level(severity: &str) -> &'static str {
    match severity {
        "DEBUG1" | "DEBUG2" | "DEBUG3" | "DEBUG4" | "DEBUG5" => "DEBUG",
        "WARNING" => "WARN",
        "ERROR" | "FATAL" | "PANIC" => "ERROR",
        _ => "INFO",
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;

    fn line(pid: u32, rest: &str) -> String {
        format!(
            "\u{1e}2026-11-22 10:00:00.000 UTC\u{1f}{pid}\u{1f}42P01\u{1f}client backend\u{1f}app\u{1f}app\u{1f}psql\u{1f}{rest}"
        )
    }

    #[test]
    fn the_lines_of_a_message_are_joined() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(&line(7, "ERROR:  relation \"x\" does not exist at character 15")), None);
        assert_eq!(parser.push("\tsecond line"), None);
        assert_eq!(parser.push(&line(7, "HINT:  make it")), None);
        assert_eq!(parser.push(&line(7, "STATEMENT:  select *")), None);
        assert_eq!(parser.push("\tfrom x"), None);
        let record = parser.push(&line(8, "LOG:  checkpoint starting: time")).unwrap();
        assert_eq!(record.message, "relation \"x\" does not exist at character 15\nsecond line");
        assert_eq!(record.hint.as_deref(), Some("make it"));
        assert_eq!(record.statement.as_deref(), Some("select *\nfrom x"));
        assert_eq!((record.level, record.pid, record.sqlstate.as_deref()), ("ERROR", Some(7), Some("42P01")));
        assert_eq!(parser.flush().unwrap().level, "INFO");
        assert_eq!(parser.flush(), None);
    }

    #[test]
    fn a_detail_of_another_process_is_a_record_of_its_own() {
        let mut parser = Parser::default();
        parser.push(&line(7, "LOG:  a"));
        let first = parser.push(&line(8, "DETAIL:  b")).unwrap();
        assert_eq!(first.message, "a");
        assert_eq!(parser.flush().unwrap().message, "b");
    }

    #[test]
    fn our_own_errors_are_joined() {
        let mut parser = Parser::default();
        parser.push("error: the store did not answer");
        parser.push("       or did it");
        parser.push("while: archiving WAL");
        parser.push("hint:  check the network");
        let record = parser.push("something else").unwrap();
        assert_eq!((record.level, record.target), ("ERROR", "postgres-child"));
        assert_eq!(record.message, "the store did not answer\nor did it");
        assert_eq!(record.context.as_deref(), Some("archiving WAL"));
        assert_eq!(record.hint.as_deref(), Some("check the network"));
    }
}
