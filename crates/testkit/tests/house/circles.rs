//! Files and folders that need each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::modules::{Crate, crates};
use crate::sources::assert_none;

/// Arrows from a name to the names that it needs.
pub(crate) type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The largest circle of files that the house allows.
pub(crate) const LARGEST_CIRCLE: usize = 2;

/// Everything that can be reached from a name.
fn reachable(arrows: &Arrows, from: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut waiting: Vec<&str> = vec![from];
    while let Some(name) = waiting.pop() {
        for next in arrows.get(name).into_iter().flatten() {
            if found.insert(next.clone()) {
                waiting.push(next);
            }
        }
    }
    found
}

/// The groups of names that can all reach each other, the largest first.
pub(crate) fn circles(arrows: &Arrows) -> Vec<Vec<String>> {
    let reach: BTreeMap<&String, BTreeSet<String>> =
        arrows.keys().map(|name| (name, reachable(arrows, name))).collect();
    let mut circles: BTreeSet<Vec<String>> = BTreeSet::new();
    for (name, reached) in &reach {
        let circle: Vec<String> =
            reached.iter().filter(|other| reach.get(other).is_some_and(|back| back.contains(*name))).cloned().collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    let mut circles: Vec<Vec<String>> = circles.into_iter().collect();
    circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    circles
}

/// The same arrows between the topmost folders of the crate. A file beside them counts as a folder; `lib.rs`, which
/// only lists the others, is left out.
pub(crate) fn between_folders(house: &Crate) -> Arrows {
    let mut arrows = Arrows::new();
    for (file, needed) in &house.arrows {
        let Some(from) = folder_of(file) else { continue };
        let targets = arrows.entry(from.clone()).or_default();
        targets.extend(needed.iter().filter_map(|file| folder_of(file)).filter(|to| *to != from));
    }
    arrows
}

/// The topmost folder of a file, or its own name.
fn folder_of(file: &str) -> Option<String> {
    let (_, inside) = file.split_once("/src/")?;
    let name = inside.split('/').next()?.trim_end_matches(".rs");
    (name != "lib").then(|| name.to_owned())
}

#[test]
fn no_circle_of_files_is_larger_than_two() {
    let mut large = Vec::new();
    for house in crates() {
        for circle in circles(&house.arrows).iter().filter(|circle| circle.len() > LARGEST_CIRCLE) {
            large.push(format!("{} files:", circle.len()));
            for file in circle {
                let within: Vec<&str> =
                    house.arrows[file].iter().filter(|to| circle.contains(to)).map(String::as_str).collect();
                large.push(format!("    {file} -> {}", within.join(", ")));
            }
        }
    }
    assert_none("these files need each other; look for the third idea that they share:", &large);
}

/// The topmost folders of a crate are its layers.
#[test]
fn no_topmost_folders_need_each_other() {
    let mut found = Vec::new();
    for house in crates() {
        let arrows = between_folders(&house);
        for circle in circles(&arrows) {
            found.push(format!("{}: {}", house.name, circle.join(", ")));
            let of_circle = |file: &String| folder_of(file).filter(|folder| circle.contains(folder));
            for (file, needed) in &house.arrows {
                let Some(from) = of_circle(file) else { continue };
                let across = needed.iter().filter(|to| of_circle(to).is_some_and(|to| to != from));
                found.extend(across.map(|to| format!("    {file} -> {to}")));
            }
        }
    }
    assert_none("these topmost folders need each other; move what they share below both:", &found);
}

#[test]
fn a_circle_is_found() {
    let arrows: Arrows = [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]
        .iter()
        .map(|(from, to)| ((*from).to_owned(), BTreeSet::from([(*to).to_owned()])))
        .collect();
    assert_eq!(circles(&arrows), [["a", "b", "c"]]);
}

/// The reader of paths must see the arrows that are known to be there, or the rule above can never fail.
#[test]
fn known_arrows_are_seen() {
    let all = crates();
    let arrows = |name: &str| &all.iter().find(|house| house.name == name).expect("the crate").arrows;
    let sees = |name: &str, from: &str, to: &str| {
        let (from, to) = (format!("crates/{name}/src/{from}"), format!("crates/{name}/src/{to}"));
        assert!(arrows(name).get(&from).is_some_and(|needed| needed.contains(&to)), "{from} -> {to} is not seen");
    };
    // By `use crate::`, by `use super::`, and through a re-export of the module above.
    sees("engine", "backup/copy.rs", "pipeline/budget.rs");
    sees("engine", "backup/copy.rs", "backup/read.rs");
    sees("engine", "restore/preflight.rs", "archive/listed_wal.rs");
}
