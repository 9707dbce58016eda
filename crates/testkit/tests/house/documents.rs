//! The documents name only files that exist.

use std::path::Path;

use crate::sources::{Source, assert_none, files, root};

/// Folders that a short name in a document may begin in.
const BEGINNINGS: &[&str] = &["", "crates/", "docs/", "tests/", "docs/format/", "scripts/"];

/// Endings of names that mean a file of this project.
const ENDINGS: &[&str] = &[".rs", ".md", ".toml", ".py", ".yaml", ".sh"];

/// The words between single backticks.
pub(crate) fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Whether a name is that of a source file or a document, with its folder.
fn names_a_file(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    let ending = ENDINGS.iter().any(|ending| name.ends_with(ending));
    let placeholder = name.contains("YYYY") || name.contains("NAME");
    plain && ending && !placeholder && name.contains('/') && !name.starts_with('/') && !name.contains("..")
}

/// Whether a page is about a crate: it is in its folder, or names it.
fn is_about(document: &Source, name: &str) -> bool {
    let text = &document.text;
    let named = [format!("`{name}`"), format!("`{name}/"), format!("crates/{name}/"), format!("crates/{name}`")];
    document.path.starts_with(&format!("crates/{name}/")) || named.iter().any(|name| text.contains(name.as_str()))
}

/// Whether a name means one of these files, seen from its document.
fn exists(document: &Source, name: &str, all: &[String]) -> bool {
    // Hidden files are not in the list.
    let is_there = |path: &str| all.iter().any(|file| file == path) || root().join(path).is_file();
    let folder = document.path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    // `engine/backup/scan.rs` leaves out the folders that every crate has.
    let in_crate = name.split_once('/').map(|(name, rest)| format!("crates/{name}/src/{rest}"));
    // `backup/scan.rs` on a page about the crate `engine`.
    let of_page = all.iter().any(|file| {
        let inside = file.strip_prefix("crates/").and_then(|file| file.split_once('/'));
        inside.is_some_and(|(of, inside)| {
            ["src", "tests"].iter().any(|folder| inside == format!("{folder}/{name}")) && is_about(document, of)
        })
    });
    of_page
        || in_crate.is_some_and(|path| is_there(&path))
        || BEGINNINGS.iter().any(|start| is_there(&format!("{start}{name}")))
        || is_there(&format!("{folder}{name}"))
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

/// Folders in the page of the architecture that are PostgreSQL's.
const OF_POSTGRESQL: &[&str] = &["archive_status/"];

/// In the page of the architecture a bare name such as `plan.rs` means a file of the crate that its paragraph is about,
/// and `cluster/decide/` a folder. A paragraph is about the crates that it names, or that the heading or row before it
/// names.
#[test]
fn every_bare_name_of_the_architecture_exists() {
    let all: Vec<String> =
        ["rs", "md", "py"].iter().flat_map(|ending| files(&format!(".{ending}"))).map(|file| file.path).collect();
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).expect("read the page");
    assert_none("docs/architecture.md names what does not exist:", &gone_names(&page, &all));
}

/// The bare names of a page that are neither a file nor a folder of any crate that its section names.
fn gone_names(page: &str, all: &[String]) -> Vec<String> {
    let crates: Vec<&str> = all
        .iter()
        .filter_map(|path| path.strip_prefix("crates/")?.split('/').next())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut gone = Vec::new();
    for section in page.split("\n## ") {
        let named: Vec<&str> = crates
            .iter()
            .copied()
            .filter(|name| {
                section.contains(&format!("`{name}`"))
                    || section.contains(&format!("`{name}/"))
                    || section.contains(&format!("`crates/{name}"))
            })
            .collect();
        for name in quoted(section) {
            let is_file = name.strip_suffix(".rs").is_some() && !name.contains('/');
            let is_folder = name.ends_with('/') && !name.starts_with('/');
            let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
            if !is_plain || !(is_file || is_folder) {
                continue;
            }
            let of_a_crate = |path: &String| {
                let inside = path.strip_prefix("crates/").and_then(|path| path.split_once('/'));
                inside.is_some_and(|(of, inside)| {
                    named.contains(&of)
                        && if is_file {
                            inside.ends_with(&format!("/{name}"))
                        } else {
                            format!("/{inside}").contains(&format!("/{name}"))
                        }
                })
            };
            let from_known = ["", "docs", "crates"].iter().any(|folder| root().join(folder).join(name).exists());
            if !all.iter().any(of_a_crate) && !from_known && !OF_POSTGRESQL.contains(&name) {
                gone.push(name.to_owned());
            }
        }
    }
    gone
}

#[test]
fn a_file_that_is_gone_is_found() {
    let all = ["crates/engine/src/expire/backup/run.rs".to_owned(), "crates/engine/src/backup/scan.rs".to_owned()];
    let exists =
        |text: &str, name: &str| exists(&Source { path: "docs/page.md".to_owned(), text: text.to_owned() }, name, &all);
    assert!(exists("", "engine/backup/scan.rs") && exists("of `engine`", "backup/scan.rs"));
    // A file of a deeper folder, and one of a crate that the page does not name.
    assert!(!exists("of `engine`", "backup/run.rs") && !exists("of `store`", "backup/scan.rs"));
}

#[test]
fn a_name_that_is_gone_is_found() {
    let all = ["crates/engine/src/backup/plan.rs".to_owned(), "crates/store/src/s3/upload.rs".to_owned()];
    let gone = |page: &str| gone_names(page, &all);
    assert_eq!(gone("In `engine`, `plan.rs` of `backup/` sorts."), Vec::<String>::new());
    assert_eq!(gone("In `engine`, `plans.rs` of `backups/` sorts."), ["plans.rs", "backups/"]);
    // A file of another crate than those that the section names.
    assert_eq!(gone("In `engine`, `upload.rs` sends."), ["upload.rs"]);
}

/// Documents that name tests by their functions.
const NAME_TESTS: &[&str] = &["CONTRIBUTING.md", "SECURITY.md"];

/// Whether a name is that of a test: a sentence of at least four words. Settings and roles of PostgreSQL are shorter,
/// or begin with its own prefix.
fn names_a_test(name: &str) -> bool {
    let is_plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    is_plain && name.matches('_').count() >= 3 && !name.starts_with("pg_")
}

#[test]
fn every_test_that_a_document_names_exists() {
    let sources = files(".rs");
    let mut gone = Vec::new();
    for document in files(".md").iter().filter(|file| NAME_TESTS.contains(&file.path.as_str())) {
        for name in quoted(&document.text).map(|name| name.rsplit("::").next().unwrap_or_default()) {
            let function = format!("fn {name}(");
            if names_a_test(name) && !sources.iter().any(|file| file.text.contains(&function)) {
                gone.push(format!("{}: {name}", document.path));
            }
        }
    }
    assert_none("these documents name tests that do not exist:", &gone);
    assert!(names_a_test("a_bare_number_is_found") && !names_a_test("pg_read_server_files"));
}

/// The anchor that a heading has on the usual sites: lower case, without marks, with hyphens for spaces.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_');
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_to_a_heading_leads_to_one() {
    let mut broken = Vec::new();
    for document in files(".md") {
        let folder = Path::new(&document.path).parent().unwrap_or_else(|| Path::new(""));
        for link in document.text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(link, _)| link)) {
            let Some((file, wanted)) = link.split_once('#') else { continue };
            if link.contains("://") {
                continue;
            }
            let path = if file.is_empty() { root().join(&document.path) } else { root().join(folder).join(file) };
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let mut headings = text.lines().filter(|line| line.starts_with('#'));
            if !headings.any(|heading| anchor(heading) == wanted) && !text.contains(&format!("id=\"{wanted}\"")) {
                broken.push(format!("{}: {link}", document.path));
            }
        }
    }
    assert_none("these links lead to no heading:", &broken);
    assert_eq!(anchor("## What it is, `now`"), "what-it-is-now");
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
