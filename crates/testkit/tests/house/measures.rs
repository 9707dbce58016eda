//! The measures of the sources: printed here, shown in `docs/architecture.md`.

use crate::circles::{between_folders, circles};
use crate::modules::crates;
use crate::sources::{files, root};

/// Where the table in the document begins and ends.
const MARKS: [&str; 2] = ["<!-- measures -->\n", "<!-- end of measures -->"];

/// Places in a folder that read our own JSON by string keys.
fn untyped_reads(folder: &str) -> usize {
    let sources = files(".rs");
    let production = sources.iter().filter(|file| file.path.starts_with(folder) && !file.is_test());
    production
        .map(|file| {
            let code = file.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            // `value["key"]`; lists of texts such as `&["a"]` have no value before the bracket.
            let is_read =
                |(at, _): (usize, &str)| code[..at].ends_with(|c: char| c.is_alphanumeric() || ")]".contains(c));
            code.match_indices("[\"").filter(|found| is_read(*found)).count()
        })
        .sum()
}

fn table() -> String {
    let sources = files(".rs");
    let mut lengths: Vec<usize> =
        sources.iter().filter(|file| !file.is_test()).map(crate::sources::Source::lines).collect();
    lengths.sort_unstable();
    let houses = crates();
    let largest = |circles: Vec<Vec<String>>| circles.first().map_or(0, Vec::len);
    let of_files = houses.iter().map(|house| largest(circles(&house.arrows))).max().unwrap_or(0);
    let of_folders = houses.iter().map(|house| largest(circles(&between_folders(house)))).max().unwrap_or(0);
    let rows = [
        ("crates", houses.len()),
        ("source files without tests", lengths.len()),
        ("their longest, in lines", lengths.last().copied().unwrap_or(0)),
        ("their median, in lines", lengths.get(lengths.len() / 2).copied().unwrap_or(0)),
        ("files in the largest circle of files", of_files),
        ("folders in the largest circle of topmost folders of a crate", of_folders),
        ("reads of JSON by string keys in `instance`", untyped_reads("crates/instance/src/")),
    ];
    let rows = rows.iter().map(|(name, value)| format!("| {name} | {value} |"));
    let lines: Vec<String> =
        ["| Measure | Today |", "| --- | --- |"].map(str::to_owned).into_iter().chain(rows).collect();
    lines.join("\n") + "\n"
}

/// `HOLDFAST_UPDATE=1` writes the table into the document.
#[test]
fn the_document_shows_the_current_measures() {
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
    // Numbers of files and lines change with every commit; the others are promises.
    let promises = |table: &str| -> Vec<String> {
        table.lines().filter(|line| line.contains("circle") || line.contains("JSON")).map(str::to_owned).collect()
    };
    assert_eq!(promises(shown), promises(&table), "HOLDFAST_UPDATE=1 cargo test -p holdfast-testkit --test house");
}
