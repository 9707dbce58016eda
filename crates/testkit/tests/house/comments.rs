//! Comments are plain English: no words that make people read a sentence twice.

use crate::sources::{assert_none, files};

/// What not to write in a comment, and what to write instead.
const FORBIDDEN: &[(&str, &str)] = &[
    ("behind", "after, beyond"),
    ("shall", "must, should"),
    ("is none", "is absent, there is no"),
    ("goes on with", "continues with"),
    ("gone on with", "resumed"),
    ("in vain", "without success"),
    ("affair", "matter, task"),
    ("told of", "informed about"),
    ("said of", "reported about"),
    ("told by", "known from"),
];

/// Where a forbidden word is right: a server lags behind another, a proxy is in front of a store.
const RIGHT_USES: &[&str] = &[
    "lag behind",
    "lags behind",
    "lagging behind",
    "falls behind",
    "fall behind",
    "far behind",
    "left behind",
    "leaves behind",
    "leave behind",
    "leaves nothing behind",
    "uploads behind",
    "stays behind",
    "error behind",
    "there is none",
    "behind a proxy",
    "behind the proxy",
];

/// The comment of a line, without its slashes; `None` if there is none.
pub(crate) fn comment_of(line: &str) -> Option<&str> {
    let start = line.trim_start();
    if let Some(text) = start.strip_prefix("//") {
        return Some(text.trim_start_matches(['/', '!']).trim());
    }
    // A comment after code. An address in a string has a colon before its slashes.
    line.find(" // ").map(|at| line[at + 4..].trim())
}

/// Whether these words are in the text, not as a part of longer words.
fn has_words(text: &str, words: &str) -> bool {
    text.match_indices(words).any(|(at, _)| {
        let letter = |c: char| c.is_alphanumeric() || c == '_';
        !text[..at].ends_with(letter) && !text[at + words.len()..].starts_with(letter)
    })
}

/// The complaints about one comment.
fn complaints(comment: &str) -> Vec<String> {
    let mut text = comment.to_lowercase();
    for right in RIGHT_USES {
        text = text.replace(right, "");
    }
    FORBIDDEN
        .iter()
        .filter(|(words, _)| has_words(&text, words))
        .map(|(words, better)| format!("\"{words}\", better: {better}"))
        .collect()
}

#[test]
fn comments_use_plain_english() {
    let mut found = Vec::new();
    for file in files(".rs") {
        // The list above must name the words.
        if file.path.ends_with("/house/comments.rs") {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            let Some(comment) = comment_of(line) else { continue };
            found.extend(complaints(comment).iter().map(|why| format!("{}:{}: {why}", file.path, number + 1)));
        }
    }
    assert_none("these comments have to be read twice:", &found);
}

#[test]
fn a_forbidden_word_is_found_and_its_right_use_is_not() {
    assert_eq!(complaints("the bytes behind its end").len(), 1);
    assert_eq!(complaints("a standby that lags behind its primary"), Vec::<String>::new());
    assert_eq!(complaints("what shallow means"), Vec::<String>::new());
    assert_eq!(comment_of("    let x = 1; // a reason"), Some("a reason"));
    assert_eq!(comment_of("    let url = \"http://host\";"), None);
}
