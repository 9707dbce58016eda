//! The house in numbers: printed here, shown in `docs/architecture.md`.

use std::collections::{BTreeMap, BTreeSet};

use crate::circles::{Arrows, between_folders, circles};
use crate::exit_codes::all_bare_codes;
use crate::modules::crates;
use crate::sources::{Source, files, root};

/// Where the table in the document begins and ends.
const MARKS: [&str; 2] = ["<!-- measures -->\n", "<!-- end of measures -->"];

/// What a file has before its tests.
pub(crate) fn production(file: &Source) -> &str {
    file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

/// Places in a text that read JSON by string keys.
fn untyped_reads(code: &str) -> usize {
    // `value["key"]`; lists of texts such as `&["a"]` have no value before the bracket.
    let is_read = |(at, _): (usize, &str)| code[..at].ends_with(|c: char| c.is_alphanumeric() || ")]".contains(c));
    let by_index = code.match_indices("[\"").filter(|found| is_read(*found)).count();
    // `.get("key")` of a value that was parsed here; maps of our own have typed keys.
    let by_call = if code.contains("serde_json") { code.matches(".get(\"").count() } else { 0 };
    by_index + by_call + code.matches(".pointer(\"").count()
}

/// The crates of the project that each crate names among its dependencies.
fn between_crates() -> Arrows {
    let mut arrows = Arrows::new();
    for file in files("Cargo.toml") {
        let Some(name) = file.path.strip_prefix("crates/").and_then(|path| path.strip_suffix("/Cargo.toml")) else {
            continue;
        };
        let needed = file.text.split("[dev-dependencies]").next().unwrap_or_default().lines();
        let needed = needed.filter_map(|line| line.strip_prefix("holdfast-")?.split(['.', ' ']).next());
        arrows.insert(name.to_owned(), needed.map(str::to_owned).collect());
    }
    arrows
}

/// How many floors names have when each stands above all that it needs.
fn floors(arrows: &Arrows) -> usize {
    fn floor(name: &str, arrows: &Arrows, known: &mut BTreeMap<String, usize>) -> usize {
        if let Some(floor) = known.get(name) {
            return *floor;
        }
        // A circle ends here.
        known.insert(name.to_owned(), 1);
        let needed = arrows.get(name).into_iter().flatten();
        let floor = 1 + needed.map(|below| floor(below, arrows, known)).max().unwrap_or(0);
        known.insert(name.to_owned(), floor);
        floor
    }
    let mut known = BTreeMap::new();
    arrows.keys().map(|name| floor(name, arrows, &mut known)).max().unwrap_or(0)
}

/// Files outside of tests whose code has one of these texts.
fn files_with(sources: &[Source], texts: &[&str]) -> usize {
    let has = |file: &&Source| {
        let mut lines = production(file).lines().filter(|line| !line.trim_start().starts_with("//"));
        !file.is_test() && lines.any(|line| texts.iter().any(|text| line.contains(text)))
    };
    sources.iter().filter(has).count()
}

fn table() -> String {
    let sources = files(".rs");
    let mut lengths: Vec<usize> =
        sources.iter().filter(|file| !file.is_test()).map(crate::sources::Source::lines).collect();
    lengths.sort_unstable();
    let houses = crates();
    let largest = |circles: Vec<Vec<String>>| circles.first().map_or(0, Vec::len);
    let of_files = houses.iter().map(|house| largest(circles(&house.arrows))).max().unwrap_or(0);
    let of_folders: BTreeSet<Vec<String>> = houses.iter().flat_map(|house| circles(&between_folders(house))).collect();
    let crates = between_crates();
    let command = houses.iter().find(|house| house.name == "cli").map(between_folders).unwrap_or_default();
    let in_instance = sources.iter().filter(|file| file.path.starts_with("crates/instance/src/") && !file.is_test());
    // Besides the one parser in `pgtypes`.
    let reads_users = |file: &&Source| {
        ["cli", "kube-api", "instance"].iter().any(|name| file.path.starts_with(&format!("crates/{name}/src/")))
    };
    let of_users: Vec<Source> = sources.iter().filter(reads_users).cloned().collect();
    let rows = [
        ("crates", houses.len()),
        ("floors of crates", floors(&crates)),
        ("circles of crates", circles(&crates).len()),
        ("source files without tests", lengths.len()),
        ("their longest, in lines", lengths.last().copied().unwrap_or(0)),
        ("their median, in lines", lengths.get(lengths.len() / 2).copied().unwrap_or(0)),
        ("files in the largest circle of files", of_files),
        ("circles of topmost folders of a crate (arrows that run back up)", of_folders.len()),
        ("floors of topmost folders in `cli`", floors(&command)),
        ("arrows between them", command.values().map(BTreeSet::len).sum()),
        ("reads of JSON by string keys in `instance`", in_instance.map(|file| untyped_reads(production(file))).sum()),
        ("bare exit codes outside of the table", all_bare_codes().len()),
        (
            "files with an enum for a recovery target",
            files_with(&sources, &["enum RecoveryTarget", "enum TargetTimeline", "enum TargetAction"]),
        ),
        ("files that parse a time of a user", 1 + files_with(&of_users, &["parse_from_rfc3339", "parse_from_str("])),
        ("files that write the three parts of an error", files_with(&sources, &["\"while:"])),
    ];
    let rows = rows.iter().map(|(name, value)| format!("| {name} | {value} |"));
    let lines: Vec<String> =
        ["| Measure | Today |", "| --- | --- |"].map(str::to_owned).into_iter().chain(rows).collect();
    lines.join("\n") + "\n"
}

/// `HOLDFAST_UPDATE=1` writes the table into the document.
#[test]
fn the_document_shows_the_measures_of_today() {
    let table = table();
    println!("{table}");
    let path = root().join("docs/architecture.md");
    let text = std::fs::read_to_string(&path).expect("read the document");
    let (before, rest) = text.split_once(MARKS[0]).expect("the mark before the measures");
    let (shown, after) = rest.split_once(MARKS[1]).expect("the mark after the measures");
    if std::env::var_os("HOLDFAST_UPDATE").is_some() {
        std::fs::write(&path, format!("{before}{}{table}{}{after}", MARKS[0], MARKS[1])).expect("write the document");
        return;
    }
    // Numbers of files and lines move with every change; the others are promises.
    let moves = ["source files", "their longest", "their median", "arrows between them"];
    let promises = |table: &str| -> Vec<String> {
        table.lines().filter(|line| !moves.iter().any(|row| line.contains(row))).map(str::to_owned).collect()
    };
    assert_eq!(promises(shown), promises(&table), "HOLDFAST_UPDATE=1 cargo test -p holdfast-testkit --test house");
}
