//! Lines fit into 120 columns: comments, which rustfmt leaves alone, and documents.

use crate::comments::comment_of;
use crate::sources::{assert_none, files};

/// The width of lines, in characters. `rustfmt.toml` has the same for code.
const WIDTH: usize = 120;

/// Whether a line of a document may be longer: a table, or one word such as an address.
fn may_be_long(line: &str) -> bool {
    let text = line.trim_start();
    text.starts_with('|') || !text.trim_start_matches(['-', '*', '>', ' ']).contains(' ')
}

/// The lines of a document that are too long, with their numbers. Code stays as it is.
fn long_lines(text: &str) -> Vec<usize> {
    let mut in_code = false;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code && line.chars().count() > WIDTH && !may_be_long(line) {
            found.push(number + 1);
        }
    }
    found
}

#[test]
fn comments_fit_into_their_width() {
    let mut long = Vec::new();
    for file in files(".rs") {
        let mut in_code = false;
        let lines = file.text.lines().enumerate().filter(|(_, line)| {
            let text = comment_of(line).unwrap_or_default();
            in_code ^= text.starts_with("```");
            !in_code && !text.starts_with('|')
        });
        let too_long = lines.filter(|(_, line)| {
            let comment = comment_of(line);
            line.chars().count() > WIDTH
                && line.trim_start().starts_with("//")
                && comment.is_some_and(|text| text.contains(' '))
        });
        long.extend(too_long.map(|(number, _)| format!("{}:{}", file.path, number + 1)));
    }
    assert_none("these comments are wider than 120 columns:", &long);
}

#[test]
fn documents_fit_into_their_width() {
    let mut long = Vec::new();
    for file in files(".md") {
        long.extend(long_lines(&file.text).into_iter().map(|number| format!("{}:{number}", file.path)));
    }
    assert_none("these lines of documents are wider than 120 columns:", &long);
}

#[test]
fn a_long_line_is_found() {
    let long = "word ".repeat(30);
    assert_eq!(long_lines(&format!("short\n{long}\n")), [2]);
    assert_eq!(long_lines(&format!("```\n{long}\n```\n| {long} |\n")), Vec::<usize>::new());
}
