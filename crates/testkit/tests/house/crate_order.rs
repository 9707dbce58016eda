//! What the documents say about crates is what `Cargo.toml` and `lib.rs` say: the order of the crates, their
//! dependencies and their modules.

use std::collections::BTreeSet;

use crate::circles::Arrows;
use crate::documents::quoted;
use crate::sources::{assert_none, files, root};

/// The crates of the project that each crate names among its dependencies, without those of its tests.
pub(crate) fn between_crates() -> Arrows {
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

/// What is wrong with a list of crates that promises "depends only on crates above it".
fn faults_of_order(listed: &[&str], arrows: &Arrows) -> Vec<String> {
    let mut faults = Vec::new();
    let place = |name: &str| listed.iter().position(|other| *other == name);
    for (name, needed) in arrows {
        let Some(at) = place(name) else {
            faults.push(format!("`{name}` is not in the list"));
            continue;
        };
        let below = needed.iter().filter(|needed| place(needed).is_some_and(|other| other > at));
        faults.extend(below.map(|needed| format!("`{name}` needs `{needed}`, which is below it")));
    }
    faults.extend(listed.iter().filter(|name| !arrows.contains_key(**name)).map(|name| format!("no crate `{name}`")));
    faults
}

/// The first name in backticks of each line that begins with this text, or with a number if it is empty.
fn listed<'a>(page: &'a str, beginning: &str) -> Vec<&'a str> {
    let is_row = |line: &&str| match beginning {
        "" => line.split_once(". `").is_some_and(|(number, _)| number.parse::<u32>().is_ok()),
        _ => line.starts_with(beginning),
    };
    let names = page.lines().filter(is_row).filter_map(|line| quoted(line).next());
    names.map(|name| name.trim_start_matches("crates/")).collect()
}

#[test]
fn the_crates_are_listed_in_the_order_of_their_dependencies() {
    let arrows = between_crates();
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect("read a page");
    let architecture = read("docs/architecture.md");
    let style = read("docs/style.md");
    // The test kit is used by tests only, so the page has it in a sentence of its own.
    let mut in_style = listed(&style, "");
    in_style.push("testkit");
    let mut faults = Vec::new();
    for (page, list) in [("docs/architecture.md", listed(&architecture, "| `crates/")), ("docs/style.md", in_style)] {
        faults.extend(faults_of_order(&list, &arrows).into_iter().map(|fault| format!("{page}: {fault}")));
    }
    assert_none("a crate depends only on crates above it in these lists:", &faults);
}

/// The crates of the sentence "It depends on" of a README; `None` if it has no such sentence.
fn said_dependencies(readme: &str, crates: &Arrows) -> Option<BTreeSet<String>> {
    let text = readme.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, rest) = text.split_once("It depends on ")?;
    let sentence = rest.split(". ").next().unwrap_or(rest);
    Some(quoted(sentence).filter(|name| crates.contains_key(*name)).map(str::to_owned).collect())
}

#[test]
fn every_readme_names_what_its_crate_depends_on() {
    let arrows = between_crates();
    let mut wrong = Vec::new();
    for (name, needed) in &arrows {
        let path = format!("crates/{name}/README.md");
        let readme = std::fs::read_to_string(root().join(&path)).unwrap_or_default();
        match said_dependencies(&readme, &arrows) {
            None => wrong.push(format!("{path}: no sentence begins with \"It depends on\"")),
            Some(said) if said != *needed => wrong.push(format!("{path}: says {said:?}, Cargo.toml has {needed:?}")),
            Some(_) => {}
        }
    }
    assert_none("these READMEs name other dependencies than their Cargo.toml:", &wrong);
}

/// The modules of a `lib.rs`.
fn modules(library: &str) -> BTreeSet<&str> {
    let code = library.lines().filter_map(|line| line.strip_suffix(';'));
    code.filter_map(|line| line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod "))).collect()
}

/// The names in the first column of a README's table of modules.
fn said_modules(readme: &str) -> BTreeSet<&str> {
    let rows = readme.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|line| line.split('|').nth(1)).flat_map(quoted).collect()
}

#[test]
fn every_readme_names_the_modules_of_its_crate() {
    let mut wrong = Vec::new();
    for name in between_crates().keys() {
        let read =
            |path: &str| std::fs::read_to_string(root().join("crates").join(name).join(path)).unwrap_or_default();
        let (library, readme) = (read("src/lib.rs"), read("README.md"));
        let (there, said) = (modules(&library), said_modules(&readme));
        wrong.extend(there.difference(&said).map(|module| format!("crates/{name}/README.md: `{module}` is missing")));
        wrong.extend(said.difference(&there).map(|module| format!("crates/{name}/README.md: no module `{module}`")));
    }
    assert_none("the tables of these READMEs are not the modules of lib.rs:", &wrong);
}

#[test]
fn a_wrong_document_is_found() {
    let set = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let arrows = Arrows::from([("high".to_owned(), set(&["low"])), ("low".to_owned(), set(&[]))]);
    assert_eq!(faults_of_order(&["low", "high"], &arrows), Vec::<String>::new());
    assert_eq!(faults_of_order(&["high", "low"], &arrows), ["`high` needs `low`, which is below it"]);
    assert_eq!(faults_of_order(&["low", "top"], &arrows), ["`high` is not in the list", "no crate `top`"]);
    assert_eq!(listed("| `crates/low` | a |\n1. `high`: b\n", ""), ["high"]);
    assert_eq!(listed("| `crates/low` | a |\n1. `high`: b\n", "| `crates/"), ["low"]);
    assert_eq!(
        said_dependencies("It depends\non `low` (the `first`) only. `high` uses it.", &arrows),
        Some(set(&["low"]))
    );
    assert_eq!(said_dependencies("Alone.", &arrows), None);
    assert_eq!(modules("pub mod a;\nmod b;\n#[cfg(test)]\nmod tests {\n"), BTreeSet::from(["a", "b"]));
    assert_eq!(said_modules("| `a`, `b` | of `c` |\n"), BTreeSet::from(["a", "b"]));
}
