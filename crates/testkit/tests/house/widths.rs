//! Lines fit into 120 columns: comments, which rustfmt leaves alone, and documents. The lines of a paragraph in a
//! document are full.

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

/// The first word of a line. Code and the text of a link count as one word, although they contain spaces.
fn first_word(text: &str) -> &str {
    let (mut in_code, mut brackets) = (false, 0_i32);
    let end = text.char_indices().find(|(_, c)| {
        match c {
            '`' => in_code = !in_code,
            '[' if !in_code => brackets += 1,
            ']' if !in_code => brackets -= 1,
            _ => {}
        }
        *c == ' ' && !in_code && brackets <= 0
    });
    end.map_or(text, |(at, _)| &text[..at])
}

/// Whether a line continues the paragraph of the line before it.
fn continues(line: &str) -> bool {
    let text = line.trim_start();
    let is_item = |text: &str| {
        let number = text.trim_start_matches(|c: char| c.is_ascii_digit());
        text.starts_with(['-', '*', '+']) && text[1..].starts_with(' ')
            || number.len() < text.len() && number.starts_with([')', '.'])
    };
    // Pages about promises begin a line for the tests that attack a promise.
    let is_other = ["|", "#", "<", "```", ">", "---", "*Attacked by*"].iter().any(|start| text.starts_with(start));
    let defines_link = text.starts_with('[') && text.contains("]: ");
    !text.is_empty() && !is_other && !is_item(text) && !defines_link
}

/// The lines of a document, with their numbers, onto which the first word of the next line would still have fitted.
fn short_lines(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let (mut in_code, mut found) = (false, Vec::new());
    for (number, pair) in lines.windows(2).enumerate() {
        let [line, next] = pair else { continue };
        let text = line.trim_start();
        if text.starts_with("```") {
            in_code = !in_code;
            continue;
        }
        let is_prose = !text.is_empty() && !["|", "#", "<", ">", "---"].iter().any(|start| text.starts_with(start));
        let breaks = line.ends_with("  ") || line.ends_with('\\');
        if in_code || !is_prose || breaks || !continues(next) {
            continue;
        }
        // A span of code or a link that ends on a later line is not one word.
        let word = first_word(next.trim_start());
        let is_whole =
            word.matches('`').count().is_multiple_of(2) && word.matches('[').count() == word.matches(']').count();
        if is_whole && line.chars().count() + 1 + word.chars().count() <= WIDTH {
            found.push(number + 1);
        }
    }
    found
}

#[test]
fn paragraphs_of_documents_are_full() {
    let mut short = Vec::new();
    for file in files(".md") {
        short.extend(short_lines(&file.text).into_iter().map(|number| format!("{}:{number}", file.path)));
    }
    assert_none("the first word of the next line would still fit onto these lines:", &short);
}

#[test]
fn a_short_line_is_found() {
    let full = "word ".repeat(23);
    let full = full.trim_end();
    for (text, expected) in [
        (format!("{full}\nlonger_than_the_rest\n"), vec![]),
        (format!("{full}\nfits in\n"), vec![1]),
        (format!("{full}\n`is one word`\n"), vec![]),
        (format!("{full}\n\nfits\n- fits\n2. fits\n| fits\n"), vec![]),
        ("```\nshort\nfits\n```\n".to_owned(), vec![]),
    ] {
        assert_eq!(short_lines(&text), expected, "{text}");
    }
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
