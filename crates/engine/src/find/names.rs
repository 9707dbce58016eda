//! Names for the numbers in the WAL, from the system catalogs in backups.
//!
//! The backup that a restore would begin with is the newest one before a change, so its catalogs know what the change
//! took away, unless that was made in between. The manifest and a few small files are read, for a few backups and
//! databases only. Without names the numbers remain, so a failure is a note and no error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_contract::report::wal_find::{FoundChange, FoundPlace, KnownRelation};
use holdfast_pgtypes::PgVersion;
use holdfast_pgtypes::catalog::{ClassRow, FILENODE_MAP, FilenodeMap, class_rows, namespace_file, namespace_rows};
use holdfast_repo::manifest::Manifest;
use holdfast_repo::name::BackupId;
use holdfast_repo::record::BackupRecord;

use crate::error::{Cause, Error, ResultExt};
use crate::repository::Repository;
use crate::restore::{Packs, read_manifest};

/// Backups whose catalogs are read. A manifest can have hundreds of megabytes, and most searches need one backup.
const MOST_BACKUPS: usize = 3;

/// Databases of a backup whose catalogs are read.
const MOST_DATABASES: usize = 16;

/// Reads catalogs when they are needed, each once.
pub(super) struct Names<'a> {
    repository: &'a Repository,
    backups: &'a [BackupRecord],
    version: PgVersion,
    opened: BTreeMap<BackupId, Option<OpenedBackup>>,
}

struct OpenedBackup {
    manifest: Arc<Manifest>,
    packs: Packs,
    catalogs: BTreeMap<u32, Option<Catalog>>,
}

/// The catalogs of one database.
struct Catalog {
    relations: Vec<ClassRow>,
    schemas: BTreeMap<u32, String>,
}

impl<'a> Names<'a> {
    pub(super) fn new(repository: &'a Repository, backups: &'a [BackupRecord], version: PgVersion) -> Self {
        Self { repository, backups, version, opened: BTreeMap::new() }
    }

    /// The name of a database, as the newest backup that has it knows it.
    pub(super) fn database(&self, oid: u32) -> Option<String> {
        let all = self.backups.iter().rev().flat_map(|backup| &backup.databases);
        all.filter(|database| database.oid == oid).map(|database| database.name.clone()).next()
    }

    /// Adds the names that the catalogs of the backup before a place know.
    pub(super) async fn add_to(&mut self, place: &mut FoundPlace, notes: &mut Vec<String>) {
        let backup = place.ways.iter().find_map(|way| way.backup);
        let (Some(change), Some(backup)) = (&mut place.change, backup) else { return };
        let Some(database) = change.database.filter(|_| !change.relations.is_empty()) else { return };
        if !self.opened.contains_key(&backup) {
            if self.opened.len() >= MOST_BACKUPS {
                return;
            }
            let opened = self.open(backup).await;
            self.opened.insert(backup, noted(opened, backup, notes));
        }
        let Some(Some(opened)) = self.opened.get_mut(&backup) else { return };
        if !opened.catalogs.contains_key(&database) {
            if opened.catalogs.len() >= MOST_DATABASES {
                return;
            }
            let catalog = opened.catalog(database, self.version).await;
            opened.catalogs.insert(database, noted(catalog, backup, notes).flatten());
        }
        if let Some(Some(catalog)) = opened.catalogs.get(&database) {
            catalog.add_to(change);
        }
    }

    async fn open(&self, id: BackupId) -> Result<OpenedBackup, Error> {
        let backup = self.backups.iter().find(|backup| backup.backup_id == id);
        let backup = backup.ok_or_else(|| Cause::Internal(format!("the planner chose {id}, which is not there")))?;
        let manifest = Arc::new(read_manifest(self.repository, backup).await?);
        let packs = Packs::new(self.repository.clone(), Arc::clone(&manifest));
        Ok(OpenedBackup { manifest, packs, catalogs: BTreeMap::new() })
    }
}

/// The value, or a note in place of the error.
fn noted<T>(found: Result<T, Error>, backup: BackupId, notes: &mut Vec<String>) -> Option<T> {
    found.map_err(|error| notes.push(format!("no names from backup {backup}: {}", error.what))).ok()
}

impl OpenedBackup {
    /// The catalogs of a database; `None` if the backup does not have it.
    async fn catalog(&self, database: u32, version: PgVersion) -> Result<Option<Catalog>, Error> {
        let Some(directory) = self.directory_of(database) else { return Ok(None) };
        let Some(map) = self.map_in(&directory).await? else { return Ok(None) };
        let Some(number) = map.class_file() else { return Ok(None) };
        let Some(file) = self.file(&format!("{directory}/{number}")).await? else { return Ok(None) };
        let relations: Vec<ClassRow> = class_rows(&file, version).collect();
        let mut schemas = BTreeMap::new();
        if let Some(number) = namespace_file(&relations)
            && let Some(file) = self.file(&format!("{directory}/{number}")).await?
        {
            schemas = namespace_rows(&file).collect();
        }
        Ok(Some(Catalog { relations, schemas }))
    }

    /// The directory of a database in its default tablespace, which has the catalogs.
    fn directory_of(&self, database: u32) -> Option<String> {
        let end = format!("/{database}/{FILENODE_MAP}");
        let maps = self.manifest.files().filter(|entry| entry.path.ends_with(end.as_bytes()));
        let path = maps.map(|entry| String::from_utf8_lossy(entry.path).into_owned()).next()?;
        Some(path.strip_suffix(&format!("/{FILENODE_MAP}"))?.to_owned())
    }

    async fn map_in(&self, directory: &str) -> Result<Option<FilenodeMap>, Error> {
        Ok(self.file(&format!("{directory}/{FILENODE_MAP}")).await?.and_then(|file| FilenodeMap::parse(&file)))
    }

    async fn file(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(entry) = self.manifest.files().find(|entry| entry.path == path.as_bytes()) else { return Ok(None) };
        self.packs.file(&entry).await.doing(|| format!("reading the names in {path}")).map(Some)
    }
}

impl Catalog {
    fn add_to(&self, change: &mut FoundChange) {
        let gone: BTreeSet<u32> = change.lost_files.first.iter().map(|file| file.number).collect();
        let mut known: BTreeMap<u32, KnownRelation> = BTreeMap::new();
        for row in self.relations.iter().filter(|row| change.relations.first.contains(&row.oid)) {
            let relation = KnownRelation {
                oid: row.oid,
                schema: self.schemas.get(&row.schema).cloned().unwrap_or_else(|| row.schema.to_string()),
                name: row.name.clone(),
                kind: row.kind,
                file_is_gone: gone.contains(&row.file_number),
            };
            // A catalog keeps old rows for a while; the one whose file went is the right one.
            if known.get(&row.oid).is_none_or(|other| !other.file_is_gone) {
                known.insert(row.oid, relation);
            }
        }
        change.known_relations = known.into_values().collect();
        if let Some(recognised) = &mut change.recognised
            && let Some(name) = recognised.schema.and_then(|schema| self.schemas.get(&schema))
        {
            recognised.schema_name = Some(name.clone());
        }
    }
}
