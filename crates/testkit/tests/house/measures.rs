//! The house in numbers: printed here, shown in `docs/architecture.md`.
//!
//! A number with a bound cannot get worse: `HOLDFAST_UPDATE` writes what is measured, and the bound is in this file.

use std::collections::{BTreeMap, BTreeSet};

use crate::circles::{Arrows, LARGEST_CIRCLE, between_folders, circles};
use crate::crate_order::between_crates;
use crate::exit_codes::all_bare_codes;
use crate::modules::{Crate, crates};
use crate::repeated_names::{MOST_REPEATED, all_repeated};
use crate::sources::{LONGEST, Source, assert_none, files, root};

/// Where the table in the document begins and ends.
const MARKS: [&str; 2] = ["<!-- measures -->\n", "<!-- end of measures -->"];

/// Crates that read JSON of our own. They read it by the types of `contract` and `repo`.
const READERS: [&str; 5] = ["agent", "cli", "engine", "instance", "operator"];

/// Files of these crates that read or build JSON by string keys, with the reason.
const OF_KUBERNETES: [(&str, &[&str]); 3] = [
    (
        "the types of these objects are not ours, and a field that a later Kubernetes adds must not be lost",
        &[
            "crates/operator/src/backups/snapshot/objects.rs",
            "crates/operator/src/cluster/decide/access.rs",
            "crates/operator/src/cluster/decide/pod_template.rs",
            "crates/operator/src/cluster/decide/services.rs",
            "crates/operator/src/cluster/decide/volumes.rs",
            "crates/operator/src/lease.rs",
            "crates/operator/src/webhook/identity.rs",
        ],
    ),
    (
        "it changes the conditions of a `Cluster` and gives back the rest as it was: a later release may have added fields",
        &["crates/operator/src/backups/backup/controller.rs"],
    ),
    ("it writes the status of each of our kinds, from its type", &["crates/operator/src/backups/context.rs"]),
];

/// Code that no longer has to be written by hand, because a library of ours has it: a text that gives it away. The
/// numbers are constants of generators of random numbers.
const BY_HAND: [(&str, &str); 5] = [
    ("fn distance(", "strsim"),
    ("fn levenshtein", "strsim"),
    ("0x9E37_79B9_7F4A_7C15", "fastrand"),
    ("6_364_136_223_846_793_005", "fastrand"),
    ("0x2545_F491_4F6C_DD1D", "fastrand"),
];

/// Texts in code that writes a failure in its three parts, and in code that takes such a text apart.
const THREE_PARTS: [&str; 3] = ["\"while:", "\"error: {", "\\nhint:"];
const READ_PARTS: [&str; 4] =
    ["strip_prefix(label.as_str", "strip_prefix(Label", "strip_prefix(\"while:", "strip_prefix(\"hint:"];

/// Two files that need each other are one idea in two files, or share a third. This is what is left.
const PAIRS: usize = 19;

/// A longer function has several steps that could have names.
const LONG_FUNCTION: usize = 100;

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
    // `.get(KEY).and_then(Value::as_str)`.
    by_index + by_call + code.matches(".pointer(\"").count() + code.matches("Value::as_").count()
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

/// Whether the code of a file has one of these texts.
fn has_code(file: &Source, texts: &[&str]) -> bool {
    let mut lines = production(file).lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.any(|line| texts.iter().any(|text| line.contains(text)))
}

/// Files outside of tests whose code has one of these texts.
fn files_with(sources: &[Source], texts: &[&str]) -> usize {
    sources.iter().filter(|file| !file.is_test() && has_code(file, texts)).count()
}

/// Enums for a recovery target and its parts, outside of tests.
fn target_enums(sources: &[Source]) -> usize {
    let names = ["RecoveryTarget", "TargetTimeline", "TargetAction", "TargetKind", "StopTarget"];
    let lines = sources.iter().filter(|file| !file.is_test()).flat_map(|file| production(file).lines());
    let enums = lines.filter_map(|line| line.trim_start().trim_start_matches("pub ").strip_prefix("enum "));
    enums.filter(|rest| names.iter().any(|name| rest.starts_with(name))).count()
}

/// Pairs of files that need each other.
fn pairs(houses: &[Crate]) -> usize {
    houses.iter().flat_map(|house| circles(&house.arrows)).filter(|circle| circle.len() == LARGEST_CIRCLE).count()
}

/// The functions of a source with their lengths in lines. `rustfmt` puts the last brace below the `fn`.
fn functions(code: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let start = line.trim_start();
        let Some((before, after)) = start.split_once("fn ") else { continue };
        let is_item = before.split_whitespace().all(|word| {
            word.starts_with("pub")
                || ["const", "async", "unsafe", "in", "extern"].contains(&word)
                || word.ends_with(')')
        });
        let name = after.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        if !is_item || name.is_empty() || line.trim_end().ends_with([';', '}']) {
            continue;
        }
        let indent = &line[..line.len() - start.len()];
        let of_item = |line: &&str| line.strip_prefix(indent).is_some_and(|rest| rest == "}" || rest.starts_with(')'));
        let mut ends = lines[at..].iter().enumerate().filter(|(_, line)| of_item(line));
        // A function without a body, in a trait, ends with its arguments.
        let body = ends.find(|(_, line)| line.ends_with(';') || line.trim() == "}");
        if let Some((length, _)) = body.filter(|(_, line)| !line.ends_with(';')) {
            found.push((name, length + 1));
        }
    }
    found
}

/// Reads of JSON by string keys in the crates that have types for it.
fn untyped_reads_of_ours(sources: &[Source]) -> usize {
    let is_reader = |file: &&Source| {
        READERS.iter().any(|name| file.path.starts_with(&format!("crates/{name}/src/")))
            && !file.is_test()
            && !OF_KUBERNETES.iter().any(|(_, files)| files.contains(&file.path.as_str()))
    };
    sources.iter().filter(is_reader).map(|file| untyped_reads(production(file))).sum()
}

/// Places that do by hand what a library of this project does. The tests read the same libraries.
fn by_hand(sources: &[Source]) -> Vec<String> {
    let is_the_list = |file: &&Source| !file.path.ends_with("/house/measures.rs");
    let places = sources.iter().filter(is_the_list).flat_map(|file| {
        let of_file = BY_HAND.iter().filter(|(text, _)| has_code(file, &[text]));
        of_file.map(|(text, library)| format!("{}: {text}, better: {library}", file.path))
    });
    places.collect()
}

#[test]
fn nothing_is_done_by_hand_that_a_library_does() {
    assert_none("these places repeat what a library of this project does:", &by_hand(&files(".rs")));
    let code = "fn nearest() {}\nfn distance(a: &str) -> usize {\n";
    let file = Source { path: "a.rs".to_owned(), text: code.to_owned() };
    assert_eq!(by_hand(&[file]), ["a.rs: fn distance(, better: strsim"]);
}

/// One line of the table.
#[derive(Debug)]
struct Measure {
    name: &'static str,
    today: usize,
    /// What it must not exceed; `None` if it moves with every change.
    at_most: Option<usize>,
}

fn measures() -> Vec<Measure> {
    let sources = files(".rs");
    let users: Vec<&Source> = sources.iter().filter(|file| !file.is_test()).collect();
    let mut lengths: Vec<usize> = users.iter().map(|file| file.lines()).collect();
    lengths.sort_unstable();
    let of_functions: Vec<usize> =
        users.iter().flat_map(|file| functions(production(file))).map(|(_, length)| length).collect();
    let houses = crates();
    let largest = |circles: Vec<Vec<String>>| circles.first().map_or(0, Vec::len);
    let of_files = houses.iter().map(|house| largest(circles(&house.arrows))).max().unwrap_or(0);
    let of_folders: BTreeSet<Vec<String>> = houses.iter().flat_map(|house| circles(&between_folders(house))).collect();
    let crates = between_crates();
    let command = houses.iter().find(|house| house.name == "cli").map(between_folders).unwrap_or_default();
    // Besides the one parser in `pgtypes`.
    let reads_users = |file: &&Source| {
        ["cli", "kube-api", "instance"].iter().any(|name| file.path.starts_with(&format!("crates/{name}/src/")))
    };
    let of_users: Vec<Source> = sources.iter().filter(reads_users).cloned().collect();
    let parsers = 1 + files_with(&of_users, &["parse_from_rfc3339", "parse_from_str("]);
    let free = |name, today| Measure { name, today, at_most: None };
    let bound = |name, today, at_most| Measure { name, today, at_most: Some(at_most) };
    vec![
        free("crates", houses.len()),
        free("floors of crates", floors(&crates)),
        bound("circles of crates", circles(&crates).len(), 0),
        free("source files without tests", lengths.len()),
        bound("their longest, in lines", lengths.last().copied().unwrap_or(0), LONGEST),
        free("their median, in lines", lengths.get(lengths.len() / 2).copied().unwrap_or(0)),
        bound(
            "functions of more than 100 lines",
            of_functions.iter().filter(|length| **length > LONG_FUNCTION).count(),
            8,
        ),
        // It is a list: a line for each kind of failure.
        bound("the longest function, in lines", of_functions.iter().max().copied().unwrap_or(0), 190),
        bound("files in the largest circle of files", of_files, LARGEST_CIRCLE),
        bound("pairs of files that need each other", pairs(&houses), PAIRS),
        bound("circles of topmost folders of a crate (arrows that run back up)", of_folders.len(), 0),
        free("floors of topmost folders in `cli`", floors(&command)),
        free("arrows between them", command.values().map(BTreeSet::len).sum()),
        bound("reads of our own JSON by string keys", untyped_reads_of_ours(&sources), 0),
        bound("bare exit codes outside of the table", all_bare_codes().len(), 0),
        bound("enums for a recovery target", target_enums(&sources), 3),
        bound("files that parse a time of a user", parsers, 1),
        bound("files that write the three parts of an error", files_with(&sources, &THREE_PARTS), 1),
        bound("files that read the three parts of an error", files_with(&sources, &READ_PARTS), 1),
        bound("comments that only repeat a name", all_repeated(&sources).len(), MOST_REPEATED),
        bound("places that do by hand what a library here does", by_hand(&sources).len(), 0),
    ]
}

fn table(measures: &[Measure]) -> String {
    let row = |Measure { name, today, at_most }: &Measure| {
        format!("| {name} | {today} | {} |", at_most.map(|most| most.to_string()).unwrap_or_default())
    };
    let head = ["| Measure | Today | At most |", "| --- | --- | --- |"].map(str::to_owned);
    head.into_iter().chain(measures.iter().map(row)).collect::<Vec<_>>().join("\n") + "\n"
}

/// `HOLDFAST_UPDATE=1` writes the table into the document. It cannot move a bound.
#[test]
fn the_document_shows_the_measures_of_today() {
    let measures = measures();
    let table = table(&measures);
    println!("{table}");
    assert_none("these measures got worse; mend the code, the bounds stay:", &too_large(&measures));
    let path = root().join("docs/architecture.md");
    let text = std::fs::read_to_string(&path).expect("read the document");
    let (before, rest) = text.split_once(MARKS[0]).expect("the mark before the measures");
    let (shown, after) = rest.split_once(MARKS[1]).expect("the mark after the measures");
    if std::env::var_os("HOLDFAST_UPDATE").is_some() {
        std::fs::write(&path, format!("{before}{}{table}{}{after}", MARKS[0], MARKS[1])).expect("write the document");
        return;
    }
    // Numbers of files and lines move with every change; the others are promises.
    let moves = ["source files", "their longest", "their median", "longest function", "arrows between them"];
    let promises = |table: &str| -> Vec<String> {
        table.lines().filter(|line| !moves.iter().any(|row| line.contains(row))).map(str::to_owned).collect()
    };
    assert_eq!(promises(shown), promises(&table), "HOLDFAST_UPDATE=1 cargo test -p holdfast-testkit --test house");
}

/// The measures that exceed their bound.
fn too_large(measures: &[Measure]) -> Vec<String> {
    let large = measures.iter().filter(|measure| measure.at_most.is_some_and(|most| measure.today > most));
    large.map(|measure| format!("{}: {}, at most {:?}", measure.name, measure.today, measure.at_most)).collect()
}

#[test]
fn a_worse_measure_is_found() {
    let measure = |today, at_most| Measure { name: "circles", today, at_most };
    let all = [measure(2, Some(1)), measure(1, Some(1)), measure(7, None)];
    assert_eq!(too_large(&all), ["circles: 2, at most Some(1)"]);
}

#[test]
fn a_second_writer_and_an_untyped_read_are_found() {
    let file = |text: &str| Source { path: "crates/a/src/b.rs".to_owned(), text: text.to_owned() };
    for text in [r#"format!("error: {x}\nhint:  y")"#, r#"format!("{x}\nhint:  y")"#, r#"text + "while: y""#] {
        assert!(has_code(&file(text), &THREE_PARTS), "{text}");
    }
    assert!(has_code(&file(r#"line.strip_prefix("hint:")"#), &READ_PARTS));
    assert_eq!(untyped_reads("facts.get(SEGMENT).and_then(Value::as_str)"), 1);
    assert_eq!(target_enums(&[file("pub enum RecoveryTarget {\n    enum TargetAction {\nstruct TargetKind;\n")]), 2);
}

#[test]
fn functions_are_measured() {
    let code = "pub(crate) async fn a(\n    b: u8,\n) {\n    if b {\n    }\n}\nfn c();\nfn d() {}\n// a fn e\n    \
                fn f() {\n        g();\n    }\n";
    assert_eq!(functions(code), [("a", 6), ("f", 3)]);
}

/// A file that no longer reads objects of Kubernetes leaves the list.
#[test]
fn files_that_read_kubernetes_are_those_of_the_list() {
    let sources = files(".rs");
    let reads = |path: &&&str| sources.iter().any(|file| file.path == **path && untyped_reads(production(file)) > 0);
    let listed = OF_KUBERNETES.iter().flat_map(|(_, files)| files.iter());
    let others: Vec<String> = listed.filter(|path| !reads(path)).map(|path| (*path).to_owned()).collect();
    assert_none("these files read no JSON by string keys; remove them from the list:", &others);
}
