//! A public number of a size or a time says its unit, in its name or in its comment. So does a function that returns
//! one.

use crate::sources::{assert_none, files, root};

/// The crates whose items other programs build on.
const CRATES: &[&str] = &[
    "crates/pgtypes/src/",
    "crates/repo/src/",
    "crates/retention/src/",
    "crates/contract/src/",
    "crates/store/src/",
    "crates/engine/src/",
];

/// Parts of names that mean an amount of something.
const AMOUNTS: &[&str] = &["size", "length", "len", "offset", "timeout", "interval", "age", "limit", "delay", "budget"];

/// Words that are units.
const UNITS: &[&str] = &[
    "byte",
    "page",
    "block",
    "segment",
    "second",
    "minute",
    "millis",
    "micro",
    "hour",
    "day",
    "extent",
    "frame",
    "mib",
    "kib",
    "gib",
    "bits",
    "number of",
    "count",
];

/// The name of a public constant, field or function of an integer type.
fn public_number(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let rest = rest.strip_prefix("const ").unwrap_or(rest);
    let (name, kind) = match rest.strip_prefix("fn ").or_else(|| rest.strip_prefix("async fn ")) {
        Some(function) => (function.split(['(', '<']).next()?, function.rsplit_once(") -> ")?.1),
        None => rest.split_once(": ")?,
    };
    let kind = kind.trim_start_matches("Option<");
    let number = ["u8", "u16", "u32", "u64", "usize", "i32", "i64"]
        .iter()
        .any(|number| kind.strip_prefix(number).is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric())));
    (number && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')).then_some(name)
}

/// The public amounts of a source without a unit, with their lines.
fn without_unit(source: &str) -> Vec<(usize, String)> {
    let mut without = Vec::new();
    let mut comment = String::new();
    for (number, line) in source.lines().enumerate() {
        if let Some(text) = line.trim_start().strip_prefix("///") {
            comment.push_str(&text.to_lowercase());
            comment.push(' ');
            continue;
        }
        if let Some(name) = public_number(line) {
            let lower = name.to_lowercase();
            let amount = lower.split('_').any(|word| AMOUNTS.contains(&word));
            let said = UNITS.iter().any(|unit| lower.contains(unit) || comment.contains(unit));
            if amount && !said {
                without.push((number + 1, name.to_owned()));
            }
        }
        if !line.trim_start().starts_with("#[") {
            comment.clear();
        }
    }
    without
}

#[test]
fn public_amounts_say_their_unit() {
    let mut without = Vec::new();
    for file in files(".rs").iter().filter(|file| CRATES.iter().any(|name| file.path.starts_with(name))) {
        let found = without_unit(&file.text);
        without.extend(found.into_iter().map(|(number, name)| format!("{}:{number}: {name}", file.path)));
    }
    assert_none("these public numbers do not say in which unit they are:", &without);
}

#[test]
fn an_amount_without_a_unit_is_found() {
    assert_eq!(without_unit("/// How long it waits.\npub timeout: u64,\n"), [(2, "timeout".to_owned())]);
    assert_eq!(without_unit("/// Of the file.\npub const SIZE: usize = 3;\n"), [(2, "SIZE".to_owned())]);
    let function = "/// Of the file.\npub fn raw_len(&self) -> u32 {\n";
    assert_eq!(without_unit(function), [(2, "raw_len".to_owned())]);
    for said in [
        "/// In bytes.\npub const fn raw_len(&self) -> Option<u32> {\n",
        "pub fn length(&self) -> TimelineId {\n",
        "/// In seconds.\npub timeout: u64,\n",
        "pub size_bytes: u64,\n",
        "/// The number of waiting files.\npub limit: u32,\n",
    ] {
        assert_eq!(without_unit(said), Vec::new(), "{said}");
    }
}

/// Clippy knows which public functions return a `Result`; it only has to be asked in each of these crates.
#[test]
fn clippy_asks_for_the_errors_of_public_functions() {
    let asked = |name: &&str| {
        let library = std::fs::read_to_string(root().join(name).join("lib.rs"));
        library.is_ok_and(|text| text.contains("#![warn(clippy::missing_errors_doc)]"))
    };
    let without: Vec<String> = CRATES.iter().filter(|name| !asked(name)).map(|name| (*name).to_owned()).collect();
    assert_none("these crates do not ask clippy for the errors of their public functions:", &without);
}
