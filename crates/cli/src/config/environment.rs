//! Environment variables that override the file: `HOLDFAST_<SECTION>_<KEY>`.
//!
//! Keys of the first repository are `HOLDFAST_REPO_URL` and so on, of the second `HOLDFAST_REPO_2_URL`. Values are
//! written as in the file but without quotes; a table is in braces (`{ passphrase_file = "/etc/holdfast/passphrase"
//! }`). A variable of one of our sections with an unknown key is an error: backups get lost if a mistyped setting is
//! silently ignored. Variables with other names are ignored.

use super::error::{ConfigError, nearest};
use super::origin::{Origin, Origins, repository_key};
use super::written::{RepoTable, SECTIONS, Written};
use serde::Deserialize;
use serde::de::value::{Error as ValueError, MapDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

const PREFIX: &str = "HOLDFAST_";

/// A higher repository number is a typing error.
const MOST_REPOSITORIES: usize = 16;

/// The variables of this process that begin with `HOLDFAST_`.
pub fn of_process() -> Result<Vec<(String, String)>, ConfigError> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let value = value.into_string().map_err(|_| ConfigError::VariableNotText { name: name.to_owned() })?;
        variables.push((name.to_owned(), value));
    }
    variables.sort();
    Ok(variables)
}

/// Overrides the values of the file with those of the variables.
pub fn overlay(
    written: &mut Written,
    variables: &[(String, String)],
    origins: &mut Origins,
) -> Result<(), ConfigError> {
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let rest = rest.to_ascii_lowercase();
        let section = SECTIONS.iter().find_map(|(section, keys)| {
            let key = rest.strip_prefix(section)?.strip_prefix('_')?;
            Some((*section, *keys, key))
        });
        let Some((section, keys, key)) = section else { continue };
        if of_kubernetes_service(key) {
            continue;
        }
        let (index, key) = if section == "repo" { split_index(name, key)? } else { (0, key) };
        if !keys.contains(&key) {
            let suggestion = nearest(key, keys).map(|key| variable_name(section, index, &key));
            return Err(ConfigError::UnknownVariable { name: name.clone(), section: section.to_owned(), suggestion });
        }
        let full_key = if section == "repo" { repository_key(index, key) } else { format!("{section}.{key}") };
        set(written, section, index, key, value).map_err(|error| ConfigError::WrongType {
            key: full_key.clone(),
            origin: Origin::Variable(name.clone()),
            reason: error.to_string(),
        })?;
        origins.set(full_key, Origin::Variable(name.clone()));
    }
    Ok(())
}

/// Kubernetes sets `<SERVICE>_SERVICE_HOST`, `<SERVICE>_PORT_9000_TCP_ADDR` and the like in every pod of a namespace. A
/// Service called `holdfast-repo` must not stop our own pods. None of our keys begins with these words.
fn of_kubernetes_service(key: &str) -> bool {
    ["service_host", "service_port", "port"]
        .iter()
        .any(|word| key.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
}

/// `2_url` is the URL of the second repository, `url` of the first.
fn split_index<'k>(name: &str, key: &'k str) -> Result<(usize, &'k str), ConfigError> {
    let Some((number, rest)) = key.split_once('_') else { return Ok((0, key)) };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok((0, key));
    }
    match number.parse() {
        Ok(number @ 2..=MOST_REPOSITORIES) => Ok((number - 1, rest)),
        _ => Err(ConfigError::RepositoryNumber { name: name.to_owned(), first: variable_name("repo", 0, rest) }),
    }
}

pub fn variable_name(section: &str, index: usize, key: &str) -> String {
    let number = if index == 0 { String::new() } else { format!("{}_", index + 1) };
    format!("{PREFIX}{section}_{number}{key}").to_ascii_uppercase()
}

fn set(written: &mut Written, section: &str, index: usize, key: &str, value: &str) -> Result<(), ValueError> {
    match section {
        "cluster" => written.cluster.overlay(one(key, value)?),
        "repo" => {
            if written.repo.len() <= index {
                written.repo.resize_with(index + 1, RepoTable::default);
            }
            if let Some(repository) = written.repo.get_mut(index) {
                repository.overlay(one(key, value)?);
            }
        }
        "backup" => written.backup.overlay(one(key, value)?),
        "wal" => written.wal.overlay(one(key, value)?),
        "restore" => written.restore.overlay(one(key, value)?),
        "drill" => written.drill.overlay(one(key, value)?),
        "retention" => written.retention.overlay(one(key, value)?),
        "log" => written.log.overlay(one(key, value)?),
        other => return Err(ValueError::custom(format!("no section {other}"))),
    }
    Ok(())
}

/// Parses a table with only this key.
fn one<'de, T: Deserialize<'de>>(key: &'de str, value: &'de str) -> Result<T, ValueError> {
    T::deserialize(MapDeserializer::new(std::iter::once((key, Text(value)))))
}

/// The text of a variable, parsed as the type of its key.
struct Text<'de>(&'de str);

impl<'de> IntoDeserializer<'de, ValueError> for Text<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Text<'_> {
    /// The table in braces, if the text is one.
    fn table(&self) -> Option<Result<toml::Value, ValueError>> {
        if !self.0.trim_start().starts_with('{') {
            return None;
        }
        let parsed = toml::from_str::<toml::Table>(&format!("value = {}", self.0));
        Some(match parsed {
            Ok(mut document) => document.remove("value").ok_or_else(|| ValueError::custom("empty")),
            Err(error) => Err(ValueError::custom(error.message().trim().replace('\n', "; "))),
        })
    }
}

impl<'de> Deserializer<'de> for Text<'de> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.table() {
            Some(table) => table?.deserialize_any(visitor).map_err(|error| ValueError::custom(error.message())),
            None => visitor.visit_borrowed_str(self.0),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0 {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            other => Err(ValueError::custom(format!("invalid value {other:?}, expected true or false"))),
        }
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self.0.parse() {
            Ok(number) => visitor.visit_u32(number),
            Err(_) => Err(ValueError::custom(format!("invalid value {:?}, expected a whole number", self.0))),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_borrowed_str(self.0)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u64 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}
