//! Code that decides is pure: time, randomness and facts are arguments. And no file is written in place.

use crate::measures::production;
use crate::sources::{Source, assert_none, files};

/// The folders and files of pure code.
const PURE: &[&str] = &[
    "crates/secret/src/",
    "crates/pgtypes/src/",
    "crates/retention/src/",
    "crates/repo/src/",
    "crates/contract/src/",
    "crates/kube-api/src/",
    "crates/engine/src/backup/plan.rs",
    "crates/engine/src/restore/coalesce.rs",
    "crates/instance/src/plan/",
    "crates/operator/src/cluster/decide/",
    "crates/operator/src/cluster/decision.rs",
    "crates/operator/src/cluster/desired.rs",
    "crates/operator/src/cluster/observed.rs",
    "crates/operator/src/backups/backup/decide.rs",
    "crates/operator/src/backups/backup/pending.rs",
    "crates/operator/src/backups/backup/follow.rs",
    "crates/operator/src/backups/backup/attempt.rs",
    "crates/operator/src/backups/schedule/decide.rs",
    "crates/operator/src/backups/snapshot/follow.rs",
];

/// What pure code does not use, and what it has instead.
const IMPURE: &[(&str, &str)] = &[
    ("Utc::now", "the time is an argument"),
    ("Local::now", "the time is an argument"),
    ("Instant::now", "the time is an argument"),
    ("SystemTime::now", "the time is an argument"),
    (".elapsed()", "the time is an argument"),
    ("rand::fill", "random bytes are an argument"),
    ("RandomState", "random bytes are an argument"),
    ("fastrand", "random numbers are an argument"),
    ("std::fs", "the content is an argument"),
    ("std::net", "the answer is an argument"),
    ("std::env", "the value is an argument"),
    ("std::process", "the result is an argument"),
    ("std::thread", "the caller spreads the work"),
    ("tokio::", "the caller waits"),
    ("async fn", "the caller waits"),
];

/// Ids, keys and salts come from here: nobody may choose them.
const DRAWN: &[(&str, &str)] =
    &[("crates/repo/src/identity.rs", "rand::fill"), ("crates/repo/src/key/wrap.rs", "rand::fill")];

/// The engine takes the time from its caller, who reads it once.
const NO_WALL_CLOCK: &str = "crates/engine/src/";

/// Writes of whole files in place, each with its reason. All others are written aside, synced and renamed.
const IN_PLACE: &[(&str, &str)] = &[
    ("crates/engine/src/archive/known_logs.rs", "is renamed afterwards, and may be lost"),
    ("crates/engine/src/drill/run.rs", "in a directory that is thrown away"),
    ("crates/engine/src/drill/server.rs", "a file of the kernel"),
    ("crates/instance/src/postgres/programs.rs", "in a folder that is thrown away"),
];

/// The lines of a source with one of these words, outside of its tests and comments.
fn lines_with<'a>(file: &Source, words: &'a [(&'a str, &'a str)]) -> Vec<(usize, &'a str, &'a str)> {
    let code = production(file).lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let found = |(number, line): (usize, &str)| {
        let hits = words.iter().filter(|(word, _)| line.contains(word));
        hits.map(|(word, instead)| (number + 1, *word, *instead)).collect::<Vec<_>>()
    };
    code.flat_map(found).collect()
}

#[test]
fn pure_code_has_no_clock_no_chance_and_no_files() {
    let sources = files(".rs");
    let mut found = Vec::new();
    for place in PURE {
        let mut inside = sources.iter().filter(|file| file.path.starts_with(place) && !file.is_test()).peekable();
        assert!(inside.peek().is_some(), "{place} is gone");
        for file in inside {
            for (line, word, instead) in lines_with(file, IMPURE) {
                if !DRAWN.contains(&(file.path.as_str(), word)) {
                    found.push(format!("{}:{line}: {word}; {instead}", file.path));
                }
            }
        }
    }
    assert_none("these places are not pure:", &found);
}

#[test]
fn the_engine_takes_the_time_from_its_caller() {
    let mut found = Vec::new();
    for file in files(".rs").iter().filter(|file| file.path.starts_with(NO_WALL_CLOCK) && !file.is_test()) {
        let lines = lines_with(file, &[("Utc::now", "")]).into_iter();
        found.extend(lines.map(|(line, ..)| format!("{}:{line}", file.path)));
    }
    assert_none("these places read the time themselves; take it as an argument:", &found);
}

#[test]
fn files_are_written_aside() {
    let mut found = Vec::new();
    for file in files(".rs").iter().filter(|file| file.path.contains("/src/") && !file.is_test()) {
        let lines = lines_with(file, &[("fs::write(", ""), ("File::create(", "")]);
        if !IN_PLACE.iter().any(|(path, _)| *path == file.path) {
            found.extend(lines.iter().map(|(line, ..)| format!("{}:{line}", file.path)));
        } else if lines.is_empty() {
            found.push(format!("{} no longer writes: remove it from the list", file.path));
        }
    }
    assert_none("these files are written in place; write aside, sync, rename:", &found);
}

#[test]
fn an_impure_line_is_found() {
    let text = "// Utc::now\nlet now = Utc::now();\n#[cfg(test)]\nmod tests {\n    Utc::now();\n}\n";
    let file = Source { path: "crates/a/src/b.rs".to_owned(), text: text.to_owned() };
    assert_eq!(lines_with(&file, IMPURE), [(2, "Utc::now", "the time is an argument")]);
}
