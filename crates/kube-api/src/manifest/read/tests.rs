#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use serde_json::json;

fn one(text: &str) -> Document {
    let mut documents = read(text).unwrap();
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0)
}

#[test]
fn plain_words_mean_what_they_mean_to_kubectl() {
    for (word, value) in [
        ("on", json!(true)),
        ("No", json!(false)),
        ("y", json!("y")),
        ("~", json!(null)),
        ("12", json!(12)),
        ("+12", json!(12)),
        ("-3", json!(-3)),
        ("1.5", json!(1.5)),
        ("1e3", json!(1000.0)),
        ("0x1f", json!(31)),
        ("0644", json!(420)),
        ("0o17", json!(15)),
        ("089", json!(89)),
        ("100Gi", json!("100Gi")),
        ("30d", json!("30d")),
        ("1.2.3", json!("1.2.3")),
        ("2025-01-01", json!("2025-01-01")),
        ("\"on\"", json!("on")),
        ("'12'", json!("12")),
        ("!!str 12", json!("12")),
        ("10.0.0.1/8", json!("10.0.0.1/8")),
    ] {
        assert_eq!(one(&format!("a: {word}\n")).value, json!({ "a": value }), "{word}");
    }
}

#[test]
fn keys_that_are_written_twice_are_found_and_merged() {
    let document = one(
        "spec:\n  backup:\n    retentionPolicy: 30d\n    target: primary\n  size: 1\n  backup:\n    target: prefer-standby\n  size: 2\n",
    );
    assert_eq!(
        document.value,
        json!({"spec": {"backup": {"retentionPolicy": "30d", "target": "prefer-standby"}, "size": 2}})
    );
    assert_eq!(
        document.duplicates,
        [
            Duplicate { path: "spec.backup".into(), first_line: 2, second_line: 6, merged: true },
            Duplicate { path: "spec.size".into(), first_line: 5, second_line: 8, merged: false },
        ]
    );
}

#[test]
fn documents_are_separated_and_empty_ones_left_out() {
    let documents = read("# nothing\n---\na: 1\n---\n# only a comment\n---\nb: 2\n...\n").unwrap();
    let values: Vec<(usize, &Value)> = documents.iter().map(|document| (document.line, &document.value)).collect();
    assert_eq!(values, [(3, &json!({"a": 1})), (7, &json!({"b": 2}))]);
    assert!(read("").unwrap().is_empty());
    assert!(read("---\n---\n").unwrap().is_empty());
}

#[test]
fn lines_are_known_by_path() {
    let document = one("spec:\n  list:\n  - name: a\n  - name: b\n    key: c\n");
    assert_eq!(document.line_of("spec.list[1].key"), 5);
    assert_eq!(document.line_of("spec.list[1].other.deep"), 4);
    assert_eq!(document.line_of("status"), 1);
}

#[test]
fn aliases_and_merge_keys_are_followed() {
    let document = one("base: &base\n  a: 1\nother:\n  <<: *base\n  b: 2\ncopy: *base\n");
    assert_eq!(document.value, json!({"base": {"a": 1}, "other": {"a": 1, "b": 2}, "copy": {"a": 1}}));
    assert!(document.duplicates.is_empty());
    // A key beside a merge key replaces the merged one, and is not a duplicate.
    let document = one("base: &base\n  a: 1\nother:\n  <<: *base\n  a: 2\n");
    assert_eq!(document.value["other"], json!({"a": 2}));
    assert!(document.duplicates.is_empty());
    let document = one("base: &base\n  a: 1\nother:\n  a: 2\n  <<: *base\n");
    assert_eq!(document.value["other"], json!({"a": 2}));
}

#[test]
fn a_text_that_expands_without_end_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let list = vec![format!("*a{}", level - 1); 10].join(", ");
        text = format!("{text}a{level}: &a{level} [{list}]\n");
    }
    assert!(
        matches!(read(&text), Err(ReadError::TooLarge { .. })),
        "{:?}",
        read(&text).map(|documents| documents.len())
    );
}

#[test]
fn errors_name_their_place() {
    let error = read("a: 1\n b: 2\n").unwrap_err();
    assert!(matches!(error, ReadError::Syntax { line: 2, .. }), "{error}");
    assert!(error.to_string().starts_with("line 2, column "), "{error}");
    assert_eq!(read("? [a, b]\n: c\n").unwrap_err(), ReadError::Key { line: 1 });
}

#[test]
fn reading_never_panics() {
    // Fragments of YAML in every order of three.
    let pieces = [
        "a: ", "- ", "[", "]", "{", "}", "\n", "  ", "&x ", "*x", "<<: ", "? ", ": ", "|\n", ">-\n", "'", "\"", "#",
        "---\n", "!!str ", "\t", "0", "é", "\u{0}",
    ];
    for first in pieces {
        for second in pieces {
            for third in pieces {
                let _ = read(&format!("{first}{second}{third}"));
                let _ = read(&format!("k:\n  {first}{second}{third}\n  l: 1\n"));
            }
        }
    }
}
