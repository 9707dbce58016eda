//! The binary as PostgreSQL and shells see it: exit statuses, and what goes to which stream.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

/// Runs the command in a clean environment.
fn holdfast(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .env_clear()
        .env("HOLDFAST_CONFIG", "/nonexistent/holdfast.toml")
        .args(words)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

const NO_FILE: &str = "error: cannot read the configuration file /nonexistent/holdfast.toml: No such file or directory (os error 2)\n\
                       while: reading the configuration\n\
                       hint:  name another file with --config or HOLDFAST_CONFIG, or make this one readable\n";

#[test]
fn one_failure_has_the_status_that_its_caller_needs() {
    for (words, status) in [
        (&["list"][..], 10),
        // The archiver tries again later.
        (&["wal", "push", "pg_wal/000000010000000000000001"], 10),
        // Recovery stops; it does not end.
        (&["wal", "get", "000000010000000000000001", "/tmp/x"], 128 + 10),
    ] {
        let output = holdfast(words);
        assert_eq!(
            (output.status.code(), text(&output.stderr), text(&output.stdout)),
            (Some(status), NO_FILE, ""),
            "{words:?}"
        );
    }
}

#[test]
fn a_wrong_command_line_is_not_an_absent_segment() {
    assert_eq!(holdfast(&["wal", "get"]).status.code(), Some(130));
    assert_eq!(holdfast(&["wal", "get", "--unknown", "a", "b"]).status.code(), Some(130));
    assert_eq!(holdfast(&["wal", "push"]).status.code(), Some(2));
    assert_eq!(holdfast(&["backup", "--unknown"]).status.code(), Some(2));
    assert_eq!(holdfast(&[]).status.code(), Some(2));
}

#[test]
fn errors_are_json_when_results_are() {
    let output = holdfast(&["--output", "json", "list"]);
    assert_eq!(
        text(&output.stderr),
        "{\"error\":{\"code\":10,\"hint\":\"name another file with --config or HOLDFAST_CONFIG, or make this one readable\",\
         \"message\":\"cannot read the configuration file /nonexistent/holdfast.toml: No such file or directory (os error 2)\",\
         \"name\":\"configuration\",\"while\":\"reading the configuration\"}}\n"
    );
    let output = holdfast(&["list", "--unknown", "--output=json"]);
    assert!(text(&output.stderr).starts_with("{\"error\":{\"code\":2,"), "{output:?}");
}

#[test]
fn colour_is_for_terminals_or_on_demand() {
    assert!(!text(&holdfast(&["list"]).stderr).contains('\u{1b}'));
    assert!(text(&holdfast(&["--color", "always", "list"]).stderr).contains('\u{1b}'));
}

#[test]
fn help_and_completions_are_results() {
    for (words, begins) in [
        (&["--help"][..], "Backup, WAL archive"),
        (&["--version"], "holdfast "),
        (&["completions", "bash"], "_holdfast()"),
    ] {
        let output = holdfast(words);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{words:?}");
        assert!(text(&output.stdout).starts_with(begins), "{words:?}");
    }
}

#[test]
fn manual_pages_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("man");
    assert_eq!(holdfast(&["man", target.to_str().unwrap()]).status.code(), Some(0));
    assert!(target.join("holdfast-restore.1").exists());
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = holdfast(&["man", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(32));
}
