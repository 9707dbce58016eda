//! Exit codes come from the one table. The programs of the test kit are left out: the kit must not know `contract`, and
//! nobody reads their codes.

use crate::sources::{Source, assert_none, files};

/// The crate that holds the table.
const TABLE: &str = "crates/contract/src/";

/// What comes before a number that a process ends with, or that is read from the end of one.
const CALLS: [&str; 4] =
    ["process::exit(", "ExitCode::from(", "u8::try_from(code).unwrap_or(", "u8::try_from(status).unwrap_or("];

/// The number that shells and PostgreSQL add to a signal or a code.
const SIGNAL_BASE: [&str; 3] = ["128 + signal", "128 + code", "sub(128)"];

/// Whether a line ends a process with a number of its own, or reads one.
fn has_bare_code(line: &str) -> bool {
    let digit_after =
        |call: &str| line.split_once(call).is_some_and(|(_, after)| after.starts_with(|c: char| c.is_ascii_digit()));
    CALLS.iter().any(|call| digit_after(call)) || SIGNAL_BASE.iter().any(|words| line.contains(words))
}

/// Whether a file gives a name to a status: `const FAILED: u8 = 1;` beside the words of exit codes.
fn names_a_status(file: &Source, line: &str) -> bool {
    let constant = line.trim_start().strip_prefix("pub ").unwrap_or(line.trim_start());
    let is_small = constant.starts_with("const ") && constant.contains(": u8 = ");
    is_small
        && (file.text.contains("ExitStatus") || file.text.contains("process::exit") || file.text.contains("ExitCode"))
}

/// The lines of a file with a status that is not in the table.
pub(crate) fn bare_codes(file: &Source) -> Vec<String> {
    let code = file.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let bare = lines.filter(|(_, line)| has_bare_code(line) || names_a_status(file, line));
    bare.map(|(number, line)| format!("{}:{}: {}", file.path, number + 1, line.trim())).collect()
}

/// All of them, outside of the table.
pub(crate) fn all_bare_codes() -> Vec<String> {
    let sources = files(".rs");
    let others = sources.iter().filter(|file| !file.is_test() && !file.path.starts_with(TABLE));
    others.flat_map(bare_codes).collect()
}

#[test]
fn no_program_ends_with_a_bare_number() {
    assert_none("use a row of the table of exit codes:", &all_bare_codes());
}

#[test]
fn a_bare_number_is_found() {
    for line in [
        "    std::process::exit(3);",
        "    return ExitCode::from(70);",
        "    u8::try_from(code).unwrap_or(1)",
        "    let status = 128 + signal;",
        "    status.checked_sub(128)",
    ] {
        assert!(has_bare_code(line), "{line}");
    }
    let file = |text: &str| Source { path: "crates/a/src/b.rs".to_owned(), text: text.to_owned() };
    assert_eq!(bare_codes(&file("use std::process::ExitStatus;\nconst SILENT: u8 = 1;\n")).len(), 1);
    assert_eq!(bare_codes(&file("const WIDTH: u8 = 1;\n// exit(1)\nexit(code.number());\n")), Vec::<String>::new());
}
