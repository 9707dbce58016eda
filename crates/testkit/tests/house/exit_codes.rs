//! Exit codes come from the one table.

use crate::sources::{Source, assert_none, files};

/// The number in a call such as `exit(3)`.
fn bare_codes(file: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for call in ["process::exit(", "ExitCode::from("] {
            let Some((_, after)) = line.split_once(call) else { continue };
            if after.starts_with(|c: char| c.is_ascii_digit()) {
                found.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn no_program_ends_with_a_bare_number() {
    let bare: Vec<String> = files(".rs").iter().filter(|file| !file.is_test()).flat_map(bare_codes).collect();
    assert_none("use a row of the table of exit codes:", &bare);
}
