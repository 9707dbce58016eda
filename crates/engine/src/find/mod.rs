//! The verb `wal find`: where in the archived WAL something is, and how to restore to it.
//!
//! Order:
//! 1. The archive of the newest claim, and the timeline path that a restore would follow.
//! 2. For a target (time, transaction, LSN, restore point): what the planner of a restore finds. [`target`] describes
//!    the record there.
//! 3. For changes: [`crate::restore::DdlSearch`] finds those of the path, and [`searched_object`] decides which are
//!    meant.
//! 4. [`restore_flags`]: for each place, the flags for `restore`, and the backup it would begin with, from the planner
//!    itself.
//! 5. [`names`]: the names of databases, schemas and relations, from backups. This may fail, and then the numbers
//!    remain.
//!
//! Nothing is written.

mod names;
mod restore_flags;
pub mod searched_object;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use holdfast_contract::report::wal_find::{
    FoundChange, FoundPlace, FoundWhat, Recognised, RecognisedBy, SearchedWal, StopSide, WalFindReport,
};
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};
use holdfast_pgtypes::wal::ddl::{DdlChange, DdlEvent, DdlKind};
use holdfast_pgtypes::{PgVersion, SegmentName};
use holdfast_repo::name::ClusterName;
use holdfast_repo::record::BackupRecord;
use holdfast_repo::recovery::{Beginning, RecoveryPath, RecoveryRequest};
use tokio_util::sync::CancellationToken;

pub use searched_object::SearchedObject;

use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::restore::{Archive, DdlSearch, Span, WalLookup};
use names::Names;
use restore_flags::FlagsFinder;
use searched_object::{Match, Schemas};

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// The place of a recovery target.
    Target(RecoveryTarget),
    /// Changes by which relations, databases or tablespaces were lost.
    Changes {
        /// What they must be about; `None` for all.
        about: Option<SearchedObject>,
        /// The earliest time.
        since: Option<DateTime<Utc>>,
        /// The latest time.
        until: Option<DateTime<Utc>>,
    },
}

/// The options of [`find`].
#[derive(Debug, Clone)]
pub struct FindOptions {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    /// The timeline to search along.
    pub timeline: TargetTimeline,
    /// What is looked for.
    pub query: Query,
    /// The number of threads that decompress.
    pub jobs: usize,
}

/// Finds places in the WAL. A search for changes that finds none has no places.
///
/// # Errors
/// [`Cause::NoClaim`] if nobody has claimed the archive; [`Cause::Unreachable`] or [`Cause::UnreadableHistory`] if no
/// backup leads to the timeline, or for a target that is not in the archive; [`Cause::Store`] if the store cannot be
/// asked; [`Cause::Format`] if a segment is needed and damaged; [`Cause::Refused`] for an archive of an unknown major;
/// [`Cause::Cancelled`].
pub async fn find(
    repository: &Repository,
    options: &FindOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<WalFindReport, Error> {
    let looking = async {
        let archive = Searched::open(repository, options, cancel).await?;
        match &options.query {
            Query::Target(target) => archive.target(target, progress).await,
            Query::Changes { about, since, until } => {
                archive.changes(about.as_ref(), Span { since: *since, until: *until }, progress).await
            }
        }
    };
    let found: Result<_, Error> = tokio::select! {
        found = looking => found,
        () = cancel.cancelled() => Err(Cause::Cancelled.into()),
    };
    found.doing(|| format!("searching the archived WAL of {} in {}", options.cluster, repository.describe()))
}

/// An archive that is searched.
struct Searched<'a> {
    options: &'a FindOptions,
    archive: Archive,
    backups: Vec<BackupRecord>,
    lookup: WalLookup,
    path: RecoveryPath,
}

impl<'a> Searched<'a> {
    async fn open(
        repository: &Repository,
        options: &'a FindOptions,
        cancel: &CancellationToken,
    ) -> Result<Self, Error> {
        let cluster = &options.cluster;
        let (claims, backups) = tokio::try_join!(repository.claims(cluster), repository.backups(cluster))?;
        let backups = backups.some()?.records;
        let claim = claims.chosen(|_| true)?;
        let claim =
            claim.ok_or_else(|| Cause::NoClaim { store: repository.describe(), cluster: cluster.to_string() })?;
        let version = PgVersion::new(claim.pg_major)
            .map_err(|source| Cause::StoredVersion { name: format!("the archive {cluster}"), source })?;
        let beginnings = backups.iter().map(Beginning::from).collect();
        let archive = Archive::of_claim(repository, claim, beginnings).await?;
        let request = RecoveryRequest { timeline: options.timeline, ..RecoveryRequest::default() };
        archive.check_histories(&request, None)?;
        let path = RecoveryPath::find(&request, &archive.world()).map_err(Error::from)?;
        archive.check_histories(&request, Some(path.timeline()))?;
        let lookup = WalLookup {
            repository: repository.clone(),
            claim: Arc::clone(&archive.claim),
            version,
            crew: Crew::new(options.jobs),
            cancel: cancel.clone(),
        };
        Ok(Self { options, archive, backups, lookup, path })
    }

    fn report(&self, searched: Option<SearchedWal>, places: Vec<FoundPlace>, mut notes: Vec<String>) -> WalFindReport {
        let others: Vec<String> = self.path.other_lines().iter().map(|line| line.timeline.to_string()).collect();
        if !others.is_empty() {
            notes.push(format!(
                "only timeline {} and those that lead to it were searched; --target-timeline searches another: {}",
                self.path.timeline(),
                others.join(", ")
            ));
        }
        WalFindReport {
            cluster: self.options.cluster.clone(),
            store: self.lookup.repository.describe(),
            claim: self.archive.claim.number,
            timeline: self.path.timeline(),
            searched,
            places,
            notes,
        }
    }

    fn ways(&self) -> FlagsFinder<'_> {
        FlagsFinder { archive: &self.archive, timeline: self.options.timeline }
    }

    async fn target(&self, target: &RecoveryTarget, progress: &dyn Progress) -> Result<WalFindReport, Error> {
        let request =
            RecoveryRequest { target: target.clone(), timeline: self.options.timeline, ..RecoveryRequest::default() };
        let path = RecoveryPath::find(&request, &self.archive.world()).map_err(Error::from)?;
        let facts = self.lookup.target_facts(&path, &request, progress).await?;
        let plan = path.decide(&facts)?;
        let place = target::describe(&self.lookup, &path, target, &plan, &self.ways(), &facts).await?;
        Ok(self.report(None, vec![place], Vec::new()))
    }

    async fn changes(
        &self,
        about: Option<&SearchedObject>,
        span: Span,
        progress: &dyn Progress,
    ) -> Result<WalFindReport, Error> {
        progress.phase("looking for changes in the archived WAL", None);
        let mut all = DdlSearch::default();
        for run in self.path.runs() {
            let found = self.lookup.ddl(run, span).await?;
            all.segments += found.segments;
            all.segments_read += found.segments_read;
            all.events.extend(found.events);
        }
        let schemas = Schemas::seen_in(&all.events);
        let mut names = Names::new(&self.lookup.repository, &self.backups, self.lookup.version);
        let mut places = Vec::new();
        for mut event in all.events.into_iter().rev() {
            let mut recognised = None;
            if let DdlChange::DropDatabase { database, name: name @ None, .. } = &mut event.change {
                *name = names.database(*database);
            }
            if let Some(about) = about {
                let mut found = about.is_in(&event, schemas);
                if found == Match::Unknown {
                    self.lookup.complete(self.segment(&event), &mut event).await?;
                    all.segments_read += 1;
                    found = about.is_in(&event, schemas);
                }
                match found {
                    Match::Yes(how) => recognised = Some(how),
                    Match::No | Match::Unknown => continue,
                }
            } else if event.kind() == DdlKind::MoveDatabase {
                continue;
            }
            places.push(self.change(&event, recognised));
        }
        let mut notes = Vec::new();
        for place in &mut places {
            if let Some(change) = &mut place.change
                && change.database_name.is_none()
            {
                change.database_name = change.database.and_then(|oid| names.database(oid));
            }
            names.add_to(place, &mut notes).await;
        }
        let places = certain_first(places, about, &mut notes);
        let searched = SearchedWal { segments: all.segments, segments_read: all.segments_read };
        Ok(self.report(Some(searched), places, notes))
    }

    fn segment(&self, event: &DdlEvent) -> SegmentName {
        self.path.ancestry().segment_containing(event.lsn, self.archive.claim.wal_segment_size)
    }

    fn change(&self, event: &DdlEvent, recognised: Option<Recognised>) -> FoundPlace {
        let segment = self.segment(event);
        let target = RecoveryTarget::Lsn(event.stop_before());
        FoundPlace {
            timeline: segment.timeline(),
            segment,
            lsn: event.lsn,
            time: event.time,
            xid: event.xid,
            what: event.kind().into(),
            name: None,
            change: Some(found_change(event, recognised)),
            ways: Some(self.ways().to(&target, StopSide::Before, None))
                .filter(|_| !lacks_its_beginning(event))
                .into_iter()
                .collect(),
        }
    }
}

/// Whether recovery must stop earlier than at any record that was read: a database is marked invalid before its files
/// go, and a compressed page image (`wal_compression`) hides that mark.
fn lacks_its_beginning(event: &DdlEvent) -> bool {
    matches!(event.change, DdlChange::DropDatabase { .. }) && event.begins_at.is_none()
}

/// Removes the changes of other schemas, and puts those that may be of another relation after the others, without
/// flags: their hash fits, and no backup knows the schema that it gives.
fn certain_first(places: Vec<FoundPlace>, about: Option<&SearchedObject>, notes: &mut Vec<String>) -> Vec<FoundPlace> {
    let wanted = match about {
        Some(SearchedObject::Name { schema, .. }) => Some(schema.as_deref()),
        _ => None,
    };
    let (mut certain, mut possible) = (Vec::new(), Vec::new());
    for mut place in places {
        let recognised = place.change.as_ref().and_then(|change| change.recognised.as_ref());
        let by_hash = recognised.filter(|recognised| recognised.by == RecognisedBy::Name);
        match (wanted, by_hash.map(|recognised| recognised.schema_name.as_deref())) {
            (Some(Some(schema)), Some(Some(found))) if found != schema => {}
            (Some(_), Some(None)) => {
                place.ways.clear();
                possible.push(place);
            }
            _ => certain.push(place),
        }
    }
    if !possible.is_empty() {
        let count = possible.len();
        notes.push(format!(
            "{count} results may be about another relation: the hash matches, but no backup has the schema that would \
             confirm it; `wal find --lsn LSN` prints the flags for one of them"
        ));
    }
    if certain.iter().any(|place| place.what == FoundWhat::DropDatabase && place.ways.is_empty()) {
        notes.push(
            "the start of a DROP DATABASE could not be read, because the page image is compressed (wal_compression): \
             restore to a time before the drop was started, since PostgreSQL marks the database invalid before it removes its files"
                .to_owned(),
        );
    }
    certain.extend(possible);
    certain
}

fn found_change(event: &DdlEvent, recognised: Option<Recognised>) -> FoundChange {
    let found = FoundChange { recognised, ..FoundChange::default() };
    match &event.change {
        DdlChange::Relations(changes) => FoundChange {
            database: changes.dropped.first.first().map(|file| file.database).filter(|database| *database != 0),
            relations: changes.relations.clone(),
            truncated: changes.truncated.clone(),
            lost_files: changes.lost(),
            new_files: changes.kept(),
            ..found
        },
        DdlChange::DropDatabase { database, name, .. } => {
            FoundChange { database: Some(*database), database_name: name.clone(), ..found }
        }
        DdlChange::MoveDatabase { database, .. } => FoundChange { database: Some(*database), ..found },
        DdlChange::DropTablespace { tablespace } => FoundChange { tablespace: Some(*tablespace), ..found },
    }
}
