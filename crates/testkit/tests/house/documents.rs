//! The documents name only files that exist.

use std::path::Path;

use crate::sources::{Source, assert_none, files, root};

/// Folders that a short name in a document may begin in.
const BEGINNINGS: &[&str] = &["", "crates/", "docs/", "tests/", "docs/format/", "scripts/"];

/// Endings of names that mean a file of this project.
const ENDINGS: &[&str] = &[".rs", ".md", ".toml", ".py", ".yaml", ".sh"];

/// The words between single backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Whether a name is that of a source file or a document, with its folder.
fn names_a_file(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    let ending = ENDINGS.iter().any(|ending| name.ends_with(ending));
    let placeholder = name.contains("YYYY") || name.contains("NAME");
    plain && ending && !placeholder && name.contains('/') && !name.starts_with('/') && !name.contains("..")
}

/// The places that a name may mean, seen from its document.
fn exists(document: &Source, name: &str, all: &[String]) -> bool {
    let folder = Path::new(&document.path).parent().unwrap_or_else(|| Path::new(""));
    let here = folder.join(name);
    // `engine/backup/scan.rs` leaves out the folders that every crate has.
    let in_crate = name.split_once('/').map(|(name, rest)| format!("crates/{name}/src/{rest}"));
    let in_crate = in_crate.is_some_and(|path| root().join(path).exists());
    let from_known = BEGINNINGS.iter().any(|start| root().join(start).join(name).exists());
    // `backup/scan.rs` in a section about the crate `engine`.
    in_crate || from_known || root().join(here).exists() || all.iter().any(|path| path.ends_with(&format!("/{name}")))
}

#[test]
fn every_file_that_a_document_names_exists() {
    let all: Vec<String> = ENDINGS.iter().flat_map(|ending| files(ending)).map(|file| file.path).collect();
    let mut gone = Vec::new();
    for document in files(".md") {
        // The change log names files that no longer exist; a finding's page names files that it creates.
        if document.path == "CHANGELOG.md" || document.path.starts_with("findings/") {
            continue;
        }
        for name in quoted(&document.text) {
            if names_a_file(name) && !exists(&document, name, &all) {
                gone.push(format!("{}: {name}", document.path));
            }
        }
    }
    assert_none("these documents name files that do not exist:", &gone);
}

#[test]
fn every_link_of_a_document_leads_to_a_file() {
    let mut broken = Vec::new();
    for document in files(".md") {
        let folder = root().join(Path::new(&document.path).parent().unwrap_or_else(|| Path::new("")));
        for link in document.text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(link, _)| link)) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !file.starts_with("mailto:") && !folder.join(file).exists()
            {
                broken.push(format!("{}: {link}", document.path));
            }
        }
    }
    assert_none("these links lead nowhere:", &broken);
}
