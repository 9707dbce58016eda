//! The configuration file: TOML, parsed into [`Written`] with the place of every key.
//!
//! Keys are checked before serde sees the tree, because the place and the section are both known there. After that
//! serde checks the types. So an error names the full key, its line and column, and what was probably meant, if that
//! can be guessed.

use super::error::{ConfigError, nearest};
use super::origin::{Origin, Origins, repository_key};
use super::written::{INNER_TABLES, SECTIONS, Written};
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Parses the text of the file at `path`, and records the place of each key.
pub fn parse(path: &Path, text: &str, origins: &mut Origins) -> Result<Written, ConfigError> {
    let at = |span: Option<Range<usize>>| place(path, text, span.map_or(0, |span| span.start));
    let tree = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        origin: at(error.span()),
        reason: error.message().trim().replace('\n', "; "),
    })?;
    let mut walk = Walk { path, text, origins, spans: Vec::new() };
    walk.sections(tree.get_ref())?;
    let spans = walk.spans;
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        // The innermost key whose value contains the error.
        let key = spans
            .iter()
            .filter(|(_, value)| value.start <= span.start && span.end <= value.end)
            .min_by_key(|(_, value)| value.len())
            .map(|(key, _)| key.clone());
        ConfigError::WrongType {
            key: key.unwrap_or_default(),
            origin: at(error.span()),
            reason: in_plain_words(error.message()),
        }
    })
}

/// serde's message without the names of Rust types.
fn in_plain_words(message: &str) -> String {
    let mut text = message.trim().replace('\n', "; ");
    for number in ["u16", "u32", "u64", "usize", "i32", "i64"] {
        text = text.replace(&format!("expected {number}"), "expected a whole number");
    }
    text
}

/// Line and column of a byte offset, both from 1.
pub(super) fn place(path: &Path, text: &str, offset: usize) -> Origin {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Origin::File { path: path.to_owned(), line, column }
}

type Table<'i> = DeTable<'i>;
type Key<'i> = Spanned<DeString<'i>>;

struct Walk<'a> {
    path: &'a Path,
    text: &'a str,
    origins: &'a mut Origins,
    /// The full key and the span of its value.
    spans: Vec<(String, Range<usize>)>,
}

impl Walk<'_> {
    fn sections(&mut self, document: &Table<'_>) -> Result<(), ConfigError> {
        let names: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        for (name, value) in document {
            let Some((section, keys)) = SECTIONS.iter().find(|(section, _)| section == name.get_ref()) else {
                return Err(self.unknown(None, name, &names));
            };
            self.spans.push(((*section).to_owned(), value.span()));
            match (*section, value.get_ref()) {
                ("repo", DeValue::Array(repositories)) => {
                    for (index, repository) in repositories.iter().enumerate() {
                        if let DeValue::Table(table) = repository.get_ref() {
                            self.section(section, keys, table, &|key| repository_key(index, key))?;
                        }
                    }
                }
                ("repo", DeValue::Table(_)) => {
                    return Err(ConfigError::WrongType {
                        key: "repo".to_owned(),
                        origin: place(self.path, self.text, name.span().start),
                        reason: "repositories are a list: write [[repo]] with two brackets".to_owned(),
                    });
                }
                (_, DeValue::Table(table)) => self.section(section, keys, table, &|key| format!("{section}.{key}"))?,
                // A wrong type: serde reports it.
                _ => {}
            }
        }
        Ok(())
    }

    fn section(
        &mut self,
        section: &str,
        keys: &[&str],
        table: &Table<'_>,
        full: &dyn Fn(&str) -> String,
    ) -> Result<(), ConfigError> {
        for (key, value) in table {
            let name: &str = key.get_ref();
            if !keys.contains(&name) {
                return Err(self.unknown(Some(section), key, keys));
            }
            let full_key = full(name);
            self.origins.set(full_key.as_str(), place(self.path, self.text, key.span().start));
            self.spans.push((full_key.clone(), value.span()));
            let inner = INNER_TABLES.iter().find(|(of, inner, _)| *of == section && *inner == name);
            if let (Some((_, _, inner_keys)), DeValue::Table(inner)) = (inner, value.get_ref()) {
                self.section(&format!("{section}.{name}"), inner_keys, inner, &|inner_key| {
                    format!("{full_key}.{inner_key}")
                })?;
            }
        }
        Ok(())
    }

    fn unknown(&self, section: Option<&str>, key: &Key<'_>, known: &[&str]) -> ConfigError {
        let name: &str = key.get_ref();
        let suggestion = nearest(name, known).map(|key| format!("did you mean `{key}`? ")).unwrap_or_default();
        let whole =
            section.map_or_else(|| "the sections are".to_owned(), |section| format!("the keys of {section} are"));
        ConfigError::UnknownKey {
            key: section.map_or_else(|| name.to_owned(), |section| format!("{section}.{name}")),
            origin: place(self.path, self.text, key.span().start),
            hint: format!("{suggestion}{whole} {}", known.join(", ")),
        }
    }
}
