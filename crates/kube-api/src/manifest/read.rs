//! Reads YAML into values, as `kubectl` would, and finds mistakes that `kubectl` ignores.
//!
//! Plain words mean what they mean to `kubectl`, whose reader follows YAML 1.1 for switches: `on` is true. Duplicate
//! keys are found, with both lines. Their values are combined as the user meant them: objects are merged, of any other
//! type the last value counts.
//!
//! Aliases are followed within [`MAX_NODES`]. Without this limit a text of few lines could describe more nodes than
//! memory can hold.

use granit_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The maximum number of nodes in one text, with aliases followed. A large manifest has a few thousand.
const MAX_NODES: usize = 200_000;

/// One document of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Line where the document begins, counted from 1.
    pub line: usize,
    /// The content.
    pub value: Value,
    /// Keys that occur more than once in one object.
    pub duplicates: Vec<Duplicate>,
    /// Line of each key, by its path such as `spec.backup.target`; list elements are written as `[0]`.
    pub lines: BTreeMap<String, usize>,
}

impl Document {
    /// The line of a path, or of the nearest object that contains it.
    pub fn line_of(&self, path: &str) -> usize {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.line,
            }
        }
    }
}

/// A key that occurs more than once in one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicate {
    /// Path of the key.
    pub path: String,
    /// Line of its first occurrence.
    pub first_line: usize,
    /// Line of its second occurrence.
    pub second_line: usize,
    /// Whether both values are objects, which are merged. Otherwise the second value counts.
    pub merged: bool,
}

/// Why a text could not be read.
#[expect(missing_docs, reason = "the texts of the errors say what the fields are")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not YAML.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// The line, counted from 1.
        line: usize,
        /// The column, counted from 1.
        column: usize,
        message: String,
    },
    /// It is too large once aliases are followed.
    #[error("line {line}: more than {MAX_NODES} values once aliases are followed")]
    TooLarge {
        /// The line at which it became too large.
        line: usize,
    },
    /// A key that is not a text, a number or a switch.
    #[error("line {line}: a key that is a list or an object")]
    Key { line: usize },
}

/// Reads all documents of a text. Empty ones are left out.
pub fn read(text: &str) -> Result<Vec<Document>, ReadError> {
    let mut reader = Reader { events: Parser::new_from_str(text), nodes: 0, anchors: BTreeMap::new() };
    let mut documents = Vec::new();
    while let Some((event, _)) = reader.next()? {
        if matches!(event, Event::DocumentStart(..)) {
            reader.anchors.clear();
            if let Some(node) = reader.node()? {
                let mut document =
                    Document { line: node.line, value: Value::Null, duplicates: Vec::new(), lines: BTreeMap::new() };
                document.value = node.content.settle(&mut String::new(), &mut document);
                if !document.value.is_null() {
                    documents.push(document);
                }
            }
        }
    }
    Ok(documents)
}

/// A node as it was written, with duplicate keys.
#[derive(Clone)]
struct Node {
    line: usize,
    size: usize,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Object(Vec<Entry>),
}

/// One key of an object.
#[derive(Clone)]
struct Entry {
    key: String,
    line: usize,
    /// Whether it came from a merge key (`<<`). Then a written key replaces it, and it does not count as a duplicate.
    inherited: bool,
    node: Node,
}

struct Reader<'text, I: Iterator<Item = Result<(Event<'text>, Span), granit_parser::ScanError>>> {
    events: I,
    nodes: usize,
    anchors: BTreeMap<usize, Node>,
}

impl<'text, I: Iterator<Item = Result<(Event<'text>, Span), granit_parser::ScanError>>> Reader<'text, I> {
    fn next(&mut self) -> Result<Option<(Event<'text>, Span)>, ReadError> {
        loop {
            match self.events.next() {
                None | Some(Ok((Event::StreamEnd, _))) => return Ok(None),
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(next)) => return Ok(Some(next)),
                Some(Err(error)) => {
                    let at = error.marker();
                    return Err(ReadError::Syntax {
                        line: at.line(),
                        column: at.col() + 1,
                        message: error.kind().to_string(),
                    });
                }
            }
        }
    }

    /// The next node; `None` at the end of the surrounding node. The parser limits the depth.
    fn node(&mut self) -> Result<Option<Node>, ReadError> {
        let Some((event, span)) = self.next()? else { return Ok(None) };
        let line = span.start.line();
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = if plain { plain_value(&text) } else { Value::String(text.into_owned()) };
                (anchor, Node { line, size: 1, content: Content::Scalar(value) })
            }
            Event::SequenceStart(_, anchor, _) => {
                let (mut nodes, mut size) = (Vec::new(), 1);
                while let Some(node) = self.node()? {
                    size += node.size;
                    nodes.push(node);
                }
                (anchor, Node { line, size, content: Content::List(nodes) })
            }
            Event::MappingStart(_, anchor, _) => {
                let (mut entries, mut size) = (Vec::new(), 1);
                while let Some(key) = self.node()? {
                    let name = key.name().ok_or(ReadError::Key { line: key.line })?;
                    let Some(value) = self.node()? else { break };
                    size += value.size;
                    if name == "<<" {
                        entries.extend(merged_in(value));
                    } else {
                        entries.push(Entry { key: name, line: key.line, inherited: false, node: value });
                    }
                }
                (anchor, Node { line, size, content: Content::Object(entries) })
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                (0, node.unwrap_or(Node { line, size: 1, content: Content::Scalar(Value::Null) }))
            }
            _ => return Ok(None),
        };
        // Counted before a node is copied: an alias counts as many nodes as its anchor has.
        self.nodes += if anchor == 0 { node.size } else { 1 };
        if self.nodes > MAX_NODES {
            return Err(ReadError::TooLarge { line });
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(Some(node))
    }
}

/// The entries that a merge key (`<<`) brings in.
fn merged_in(node: Node) -> Vec<Entry> {
    match node.content {
        Content::Object(entries) => entries.into_iter().map(|entry| Entry { inherited: true, ..entry }).collect(),
        Content::List(nodes) => nodes.into_iter().flat_map(merged_in).collect(),
        Content::Scalar(_) => Vec::new(),
    }
}

impl Node {
    /// The node as the name of a key; `None` if it cannot be one.
    fn name(&self) -> Option<String> {
        match &self.content {
            Content::Scalar(Value::String(text)) => Some(text.clone()),
            Content::Scalar(value) => Some(value.to_string()),
            _ => None,
        }
    }
}

impl Content {
    /// The value that the user meant. Lines and duplicates are recorded at the same time.
    fn settle(self, path: &mut String, document: &mut Document) -> Value {
        let length = path.len();
        match self {
            Self::Scalar(value) => value,
            Self::List(nodes) => {
                let mut values = Vec::with_capacity(nodes.len());
                for (index, node) in nodes.into_iter().enumerate() {
                    // Writing to a String cannot fail.
                    let _ = write!(path, "[{index}]");
                    document.lines.insert(path.clone(), node.line);
                    values.push(node.content.settle(path, document));
                    path.truncate(length);
                }
                Value::Array(values)
            }
            Self::Object(mut entries) => {
                let mut object = Map::new();
                let written: BTreeSet<String> =
                    entries.iter().filter(|entry| !entry.inherited).map(|entry| entry.key.clone()).collect();
                entries.retain(|entry| !entry.inherited || !written.contains(&entry.key));
                for Entry { key, line, inherited, node } in entries {
                    // If several merge keys bring the same key, the first one counts.
                    if inherited && object.contains_key(&key) {
                        continue;
                    }
                    if length > 0 {
                        path.push('.');
                    }
                    path.push_str(&key);
                    let first = document.lines.insert(path.clone(), line);
                    let value = node.content.settle(path, document);
                    let merged = match object.get_mut(&key) {
                        None => {
                            object.insert(key, value);
                            None
                        }
                        Some(earlier) => {
                            let merged = earlier.is_object() && value.is_object();
                            merge(earlier, value);
                            Some(merged)
                        }
                    };
                    if let (Some(merged), Some(first_line)) = (merged, first) {
                        document.duplicates.push(Duplicate {
                            path: path.clone(),
                            first_line,
                            second_line: line,
                            merged,
                        });
                    }
                    path.truncate(length);
                }
                Value::Object(object)
            }
        }
    }
}

/// Merges `later` into `earlier`; where both have a value, `later` counts.
fn merge(earlier: &mut Value, later: Value) {
    match (earlier, later) {
        (Value::Object(earlier), Value::Object(later)) => {
            for (key, value) in later {
                match earlier.get_mut(&key) {
                    Some(earlier) => merge(earlier, value),
                    None => {
                        earlier.insert(key, value);
                    }
                }
            }
        }
        (earlier, later) => *earlier = later,
    }
}

/// The value of a plain word.
fn plain_value(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return Value::String(text.to_owned());
    }
    if let Some(hexadecimal) = digits.strip_prefix("0x")
        && digits == text
        && let Ok(number) = u64::from_str_radix(hexadecimal, 16)
    {
        return Value::from(number);
    }
    if let Some(octal) = digits.strip_prefix("0o").or_else(|| digits.strip_prefix('0'))
        && digits == text
        && let Ok(number) = u64::from_str_radix(octal, 8)
    {
        return Value::from(number);
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = unsigned.parse::<i64>() {
        return Value::from(number);
    }
    if let Ok(number) = unsigned.parse::<u64>() {
        return Value::from(number);
    }
    let numeric = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    if numeric
        && let Ok(number) = unsigned.parse::<f64>()
        && let Some(number) = Number::from_f64(number)
    {
        return Value::Number(number);
    }
    Value::String(text.to_owned())
}

#[cfg(test)]
mod tests;
