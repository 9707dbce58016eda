//! What a user names to find its drop, and whether a change is about it. Pure.
//!
//! A name is recognised by the hash of `pg_class`'s row in the commit, a number by the lists of OIDs and files. If a
//! list is not complete, the answer may be "unknown", and the caller reads the segment.

use std::str::FromStr;

use holdfast_contract::report::wal_find::{Recognised, RecognisedBy};
use holdfast_pgtypes::relation::RelationFileName;
use holdfast_pgtypes::wal::catalog_name::{PUBLIC_SCHEMA, RelationNameHash};
use holdfast_pgtypes::wal::ddl::{DdlChange, DdlEvent, RelationChanges};

/// The first OID of objects that users make, `FirstNormalObjectId`.
const FIRST_USER_OID: u32 = 16_384;

/// How much larger the OID of a schema may be than every OID in the searched WAL. A schema that was made after the last
/// of them has a slightly larger one. The narrower this is, the fewer wrong names look right.
const OID_SLACK: u32 = 100_000;

/// What a user names: a relation, a file, or a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SearchedObject {
    /// A relation, or a database without a schema.
    Name {
        /// The schema, if it was given.
        schema: Option<String>,
        /// The name, as PostgreSQL stores it.
        name: String,
    },
    /// An OID of a relation, database or tablespace, or the number of a file.
    Number(u32),
    /// A file of a database.
    File {
        /// The OID of the database.
        database: u32,
        /// The number in the name of the file.
        number: u32,
    },
}

impl FromStr for SearchedObject {
    type Err = String;

    /// Reads a number, a path such as `base/5/16384` or `5/16384`, or a name with or without schema, quoted where
    /// PostgreSQL needs quotes.
    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Number).map_err(|_| "an OID has at most 32 bits".to_owned());
        }
        if text.contains('/') && !text.starts_with('"') {
            let mut parts = text.rsplit('/');
            let file = parts.next().and_then(|file| RelationFileName::parse(file.as_bytes()));
            let database = parts.next().and_then(|database| database.parse().ok());
            return match (database, file) {
                (Some(database), Some(file)) => Ok(Self::File { database, number: file.number }),
                _ => Err("expected the path of a relation's file, such as base/5/16384".to_owned()),
            };
        }
        let mut parts = identifiers(text)?.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), None, None) => Ok(Self::Name { schema: None, name }),
            (Some(schema), Some(name), None) => Ok(Self::Name { schema: Some(schema), name }),
            _ => Err("expected a name, or a schema and a name with a point between them".to_owned()),
        }
    }
}

/// The parts of a qualified name, as PostgreSQL reads them: in lower case unless quoted.
fn identifiers(text: &str) -> Result<Vec<String>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_identifier(quoted).ok_or("a quote is not closed")?
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            // As `downcase_identifier`, for the letters whose case needs no locale.
            (rest[..end].to_ascii_lowercase(), &rest[end..])
        };
        if part.is_empty() {
            return Err("a part of the name is empty".to_owned());
        }
        parts.push(part);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(parts),
            None => return Err("after a closing quote comes a point or the end".to_owned()),
        }
    }
}

/// The text up to the closing quote, with doubled quotes made single, and what comes after it.
fn quoted_identifier(text: &str) -> Option<(String, &str)> {
    let mut found = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        found.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                found.push('"');
                rest = more;
            }
            None => return Some((found, after)),
        }
    }
}

/// Which OIDs are those of schemas, for one search.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schemas {
    largest: u32,
}

impl Schemas {
    /// From the changes of the whole search.
    pub(super) fn seen_in(events: &[DdlEvent]) -> Self {
        let numbers = events.iter().filter_map(|event| match &event.change {
            DdlChange::Relations(changes) => {
                let oids = changes.relations.first.iter().copied();
                oids.chain(changes.dropped.first.iter().map(|file| file.number)).max()
            }
            DdlChange::DropDatabase { database, .. } | DdlChange::MoveDatabase { database, .. } => Some(*database),
            DdlChange::DropTablespace { tablespace } => Some(*tablespace),
        });
        Self { largest: numbers.max().unwrap_or(FIRST_USER_OID).saturating_add(OID_SLACK) }
    }

    pub(super) fn may_be(self, oid: u32, wanted: Option<&str>) -> bool {
        match wanted {
            Some("public") => oid == PUBLIC_SCHEMA,
            Some(_) => (FIRST_USER_OID..=self.largest).contains(&oid),
            None => oid == PUBLIC_SCHEMA || (FIRST_USER_OID..=self.largest).contains(&oid),
        }
    }
}

/// Whether a change is about what the user named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Match {
    /// It is, recognised in this way.
    Yes(Recognised),
    /// It is not.
    No,
    /// The lists that are known do not say.
    Unknown,
}

impl SearchedObject {
    /// Whether a change is about this.
    pub(super) fn is_in(&self, event: &DdlEvent, schemas: Schemas) -> Match {
        let found = match &event.change {
            DdlChange::Relations(changes) => self.among(changes, schemas),
            DdlChange::DropDatabase { database, name: found, .. } => match self {
                Self::Number(number) if number == database => Some(RecognisedBy::DatabaseOrTablespace.into()),
                Self::Name { schema: None, name } if found.as_deref() == Some(name) => {
                    Some(RecognisedBy::DatabaseName.into())
                }
                // The files of a dropped database are not in any list.
                Self::File { database: of, .. } if of == database => Some(RecognisedBy::DatabaseOrTablespace.into()),
                _ => None,
            },
            DdlChange::DropTablespace { tablespace } => {
                Some(RecognisedBy::DatabaseOrTablespace.into()).filter(|_| *self == Self::Number(*tablespace))
            }
            DdlChange::MoveDatabase { .. } => None,
        };
        match (found, &event.change) {
            (Some(recognised), _) => Match::Yes(recognised),
            (None, DdlChange::Relations(changes)) if changes.is_partial() => Match::Unknown,
            (None, _) => Match::No,
        }
    }

    fn among(&self, changes: &RelationChanges, schemas: Schemas) -> Option<Recognised> {
        match self {
            Self::Name { schema, name } => {
                let is_public = |oid| oid == PUBLIC_SCHEMA && schemas.may_be(oid, schema.as_deref());
                let is_schema = |oid| schemas.may_be(oid, schema.as_deref());
                let hash = RelationNameHash::of(name);
                // The only schema whose OID is known for certain comes first.
                let found = changes.of_name(hash, is_public).or_else(|| changes.of_name(hash, is_schema))?;
                let schema_name = (found.schema == PUBLIC_SCHEMA).then(|| "public".to_owned());
                Some(Recognised {
                    by: RecognisedBy::Name,
                    schema: Some(found.schema),
                    schema_name,
                    row_type: Some(found.has_row_type),
                })
            }
            Self::Number(number) => {
                let mut lost = changes.lost().first.into_iter();
                if changes.relations.lists(*number) {
                    Some(RecognisedBy::RelationOid.into())
                } else {
                    lost.any(|file| file.number == *number).then_some(RecognisedBy::File.into())
                }
            }
            Self::File { database, number } => {
                let mut lost = changes.lost().first.into_iter();
                lost.any(|file| (file.database, file.number) == (*database, *number))
                    .then_some(RecognisedBy::File.into())
            }
        }
    }
}
