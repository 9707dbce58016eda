//! The files of the project.

use std::path::{Path, PathBuf};

/// A longer file contains a second idea.
pub(crate) const LONGEST: usize = 600;

/// A text file of the project.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Relative to the top of the project, with `/` between folders.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// Whether the file belongs to tests, and not to what users run.
    pub(crate) fn is_test(&self) -> bool {
        let path = &self.path;
        ["/tests/", "/benches/"].iter().any(|folder| path.contains(folder))
            || path.starts_with("tests/")
            || path.ends_with("/tests.rs")
            || path.ends_with("_tests.rs")
            || path.starts_with("crates/testkit/")
    }
}

/// The top folder of the project.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("two folders above the crate").to_owned()
}

/// Every file with this ending, sorted by path. Build folders and hidden files are left out.
pub(crate) fn files(ending: &str) -> Vec<Source> {
    let found = files_where(&|path| path.ends_with(ending));
    assert!(!found.is_empty(), "no files end with {ending}");
    found
}

/// Every text file whose path is wanted, sorted by path. Build folders and hidden files are left out.
pub(crate) fn files_where(wanted: &dyn Fn(&str) -> bool) -> Vec<Source> {
    let root = root();
    let mut waiting = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).expect("list a folder") {
            let path = entry.expect("read a folder").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with('.') || (path.is_dir() && (name == "target" || path.join("CACHEDIR.TAG").exists())) {
                continue;
            }
            let relative = path.strip_prefix(&root).expect("below the top").to_str().expect("a name in UTF-8");
            if path.is_dir() {
                waiting.push(path);
            } else if wanted(relative) {
                let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{relative}: {error}"));
                found.push(Source { path: relative.to_owned(), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Fails with every complaint on its own line.
pub(crate) fn assert_none(rule: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{rule}\n{}", complaints.join("\n"));
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let long: Vec<String> = files(".rs")
        .iter()
        .filter(|file| file.lines() > LONGEST)
        .map(|file| format!("{}: {} lines", file.path, file.lines()))
        .collect();
    assert_none("look for the second idea in these files, and give it a file of its own:", &long);
}

/// The modules of a folder whose own file stands beside it. Its tests alone may be in such a folder.
fn modules_beside_their_folder(paths: &[&str]) -> Vec<String> {
    let folder_of = |path: &str| path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}.rs"));
    let is_in_place = |path: &str| path.ends_with("/tests.rs") || !paths.contains(&folder_of(path).as_str());
    paths.iter().filter(|path| !is_in_place(path)).map(|path| (*path).to_owned()).collect()
}

#[test]
fn a_folder_of_modules_begins_with_mod_rs() {
    let sources = files(".rs");
    let paths: Vec<&str> = sources.iter().map(|file| file.path.as_str()).collect();
    assert_none(
        "these files are in a folder whose own file is beside it; make that its mod.rs:",
        &modules_beside_their_folder(&paths),
    );
    let beside = ["a/scan.rs", "a/scan/tests.rs", "a/scan/step.rs", "a/plan/mod.rs", "a/plan/step.rs"];
    assert_eq!(modules_beside_their_folder(&beside), ["a/scan/step.rs"]);
}

#[test]
fn no_test_file_is_forgotten_by_its_program() {
    let mains = ["tests/main.rs", "tests/kubernetes/main.rs"];
    let mut forgotten = Vec::new();
    for main in mains {
        let folder = main.strip_suffix("main.rs").expect("a main file");
        let text = std::fs::read_to_string(root().join(main)).expect("read the program");
        for file in files(".rs") {
            let Some(name) = file.path.strip_prefix(folder).and_then(|rest| rest.strip_suffix(".rs")) else { continue };
            let name = name.strip_suffix("/mod").unwrap_or(name);
            if name != "main" && !name.contains('/') && !text.lines().any(|line| line == format!("mod {name};")) {
                forgotten.push(format!("{}: not in {main}", file.path));
            }
        }
    }
    assert_none("these files are never compiled:", &forgotten);
}
