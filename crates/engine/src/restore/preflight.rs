//! Finds and refuses everything that can be known before the first byte is written.
//!
//! Steps: backups, history files and the WAL's names; the planner's path; the facts it asks for; its plan, which
//! contains the check that all WAL from the backup's start to its target is there (promise 5); the manifest, checked
//! against the digest in `backup.json`; the packs that it names, each with the stated size; the files of the backup
//! that are needed in memory; and the target directories. Nothing is written here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use holdfast_contract::report::restore::TargetState;
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};
use holdfast_pgtypes::{BackupLabel, ControlFile, HistoryFile, Lsn, PgVersion, TablespaceMap, TimelineId};
use holdfast_repo::catalog::WalInventory;
use holdfast_repo::manifest::Manifest;
use holdfast_repo::name::{BackupId, ClusterName};
use holdfast_repo::record::{BackupRecord, ClaimRecord};
use holdfast_repo::recovery::{
    Beginning, LikelyStart, Newer, OtherLine, RecoveryPath, RecoveryPlan, RecoveryRequest, RecoveryWorld, Unreachable,
};
use tokio_util::sync::CancellationToken;

use super::RestoreOptions;
use super::histories::read_histories;
use super::late::Patience;
use super::layout::{self, Layout, PathIndex};
use super::lookup::WalLookup;
use super::manifest::read_manifest;
use super::packs::Packs;
use super::prepare::{self, TargetRequest};
use super::resume::{ResumePoint, VERSION};
use super::settings::SIGNAL_FILES;
use super::stored::check_packs;
use crate::archive::{KnownLogs, ListedWal, WalFolders, WalScope, tail};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::listed::{Listed, Unreadable};

/// The file that `ALTER SYSTEM` writes.
pub(super) const AUTO_CONF: &str = "postgresql.auto.conf";

/// A file of the backup that is kept in memory and written in a special way.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub content: Vec<u8>,
    pub mode: u32,
}

/// The result of the preflight.
#[derive(Debug)]
pub(super) struct Preflight {
    pub backup: BackupRecord,
    pub claim: Arc<ClaimRecord>,
    /// The start of the oldest backup of this claim.
    pub oldest_start: Option<Lsn>,
    pub version: PgVersion,
    pub plan: RecoveryPlan,
    pub manifest: Arc<Manifest>,
    pub layout: Arc<Layout>,
    pub index: PathIndex,
    pub control: Held,
    pub backup_label: Held,
    pub tablespace_map: Option<Held>,
    pub auto_conf: Held,
    pub point: ResumePoint,
    pub state: TargetState,
    pub store: String,
    pub notes: Vec<String>,
}

impl Preflight {
    /// Whether a tablespace is a directory in `pg_tblspc` and not the link to one.
    pub(super) fn has_tablespace_in_place(&self) -> bool {
        self.backup.tablespaces.iter().any(|tablespace| !tablespace.path.starts_with('/'))
    }

    /// The facts for the decision about the target directory.
    pub(super) fn wanted<'a>(&'a self, options: &'a RestoreOptions) -> TargetRequest<'a> {
        TargetRequest {
            point: &self.point,
            system_identifier: self.backup.system_identifier,
            control: &self.control.content,
            delta: options.delta,
            reuse_tablespaces: &options.reuse_tablespaces,
            places: &options.places,
            originals: &options.originals,
            store: &self.store,
        }
    }

    /// Positions of the files whose data is fetched.
    pub(super) fn data_files(&self) -> impl Iterator<Item = u32> {
        use holdfast_repo::FileKind;
        (0..self.manifest.len() as u32).filter(|position| {
            self.manifest
                .file(*position as usize)
                .is_some_and(|entry| matches!(entry.kind, FileKind::File { .. }) && !is_held(entry.path))
        })
    }
}

/// Whether a file is written in a special way.
fn is_held(path: &[u8]) -> bool {
    let held = [ControlFile::PATH, BackupLabel::FILE_NAME, TablespaceMap::FILE_NAME, AUTO_CONF];
    held.iter().chain(&SIGNAL_FILES).any(|name| name.as_bytes() == path)
}

/// Makes all checks; see the module.
pub(super) async fn preflight(
    repository: &Repository,
    options: &RestoreOptions,
    crew: &Crew,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Preflight, Error> {
    let looking = async {
        progress.phase("choosing the backup", None);
        let (archive, plan, mut notes) =
            Archive::choose(Planning { repository, options, crew, progress, cancel }).await?;
        let claim = Arc::clone(&archive.claim);
        let of_claim = archive.backups.iter().filter(|backup| backup.claim == claim.number);
        let oldest_start = of_claim.map(|backup| backup.start_lsn).min();
        let backup = archive.backups.into_iter().find(|backup| backup.backup_id == plan.backup);
        let backup =
            backup.ok_or_else(|| Cause::Internal(format!("the planner chose {}, which is not there", plan.backup)))?;
        let version = PgVersion::new(backup.pg_major)
            .map_err(|source| Cause::StoredVersion { name: format!("backup {}", backup.backup_id), source })?;
        if backup.checksum_failures.count > 0 {
            notes.push(format!(
                "{} pages of backup {} had a wrong checksum when it was taken; see `holdfast info`",
                backup.checksum_failures.count, backup.backup_id
            ));
        }
        notes.extend(backup.warnings.iter().map(|said| format!("when backup {} was taken, {said}", backup.backup_id)));
        let mappings = layout::mappings(&backup.tablespaces, &options.tablespaces, options.tablespace_root.as_deref());
        let layout = Arc::new(Layout::new(&options.pgdata, &backup.tablespaces, &mappings)?);

        progress.phase("reading the manifest", None);
        let manifest = Arc::new(
            read_manifest(repository, &backup)
                .await
                .doing(|| format!("reading the manifest of backup {}", backup.backup_id))?,
        );
        let (checking, places) = (Arc::clone(&manifest), Arc::clone(&layout));
        let index = crew.run(move || layout::check(&checking, &places)).await??;
        let packs = Packs::new(repository.clone(), Arc::clone(&manifest));
        let (packs_there, held) =
            tokio::join!(check_packs(repository, &manifest), held_files(&packs, &manifest, &index, &backup));
        packs_there.doing(|| format!("looking for the packs of backup {}", backup.backup_id))?;
        let HeldFiles { control, backup_label, tablespace_map, auto_conf } = held?;

        let point = ResumePoint {
            version: VERSION,
            repository: repository.id(),
            cluster: options.cluster.clone(),
            backup: backup.backup_id,
            tablespaces: layout.tablespaces().to_vec(),
            archiving: options.archiving,
            host: options.host.clone(),
            pid: std::process::id(),
            started: options.now,
        };
        let mut found = Preflight {
            claim,
            oldest_start,
            version,
            plan,
            manifest,
            layout,
            index,
            control,
            backup_label,
            tablespace_map,
            auto_conf,
            point,
            state: TargetState::Fresh,
            store: repository.describe(),
            notes,
            backup,
        };
        let wanted = found.wanted(options);
        let state = prepare::inspect(&found.layout, &wanted)
            .doing(|| format!("looking at the directory {}", options.pgdata.display()))?;
        found.state = state;
        Ok(found)
    };
    tokio::select! {
        found = looking => found,
        () = cancel.cancelled() => Err(Cause::Cancelled.into()),
    }
}

/// With what a plan is made.
#[derive(Clone, Copy)]
pub(super) struct Planning<'a> {
    pub(super) repository: &'a Repository,
    pub(super) options: &'a RestoreOptions,
    pub(super) crew: &'a Crew,
    pub(super) progress: &'a dyn Progress,
    pub(super) cancel: &'a CancellationToken,
}

/// An archive by its object names and summaries.
pub(crate) struct Archive {
    pub(crate) claim: Arc<ClaimRecord>,
    pub(crate) backups: Vec<BackupRecord>,
    /// The states with which a recovery can begin: usually the backups.
    beginnings: Vec<Beginning>,
    pub(crate) histories: BTreeMap<TimelineId, HistoryFile>,
    pub(crate) wal: WalInventory,
    /// Backups whose summary exists and cannot be read, oldest first.
    unreadable_backups: Vec<Unreadable<BackupId>>,
    /// Histories that exist and cannot be read.
    pub(crate) unreadable_histories: Vec<Unreadable<TimelineId>>,
    /// The number of beginnings whose WAL is so old that it was not listed, although they are of this claim.
    not_looked_at: usize,
}

impl Archive {
    /// Reads the archive, and plans with as little WAL as the answer needs: see [`Archive::plan_with`].
    async fn choose(with: Planning<'_>) -> Result<(Self, RecoveryPlan, Vec<String>), Error> {
        let Planning { repository, options, progress, .. } = with;
        let (cluster, request) = (&options.cluster, &options.request);
        let (claims, backups) = tokio::try_join!(repository.claims(cluster), repository.backups(cluster))?;
        let Listed { records: mut backups, mut unreadable } = backups.some()?;
        if let Some(named) = request.backup
            && let Some(position) = unreadable.iter().position(|bad| bad.id == named)
        {
            return Err(unreadable.swap_remove(position).error);
        }
        // A named backup may be of an earlier claim, before a pg_upgrade; then its WAL is under that claim.
        let named = request.backup.and_then(|named| backups.iter().find(|backup| backup.backup_id == named));
        let claim = claims.chosen(|claim| named.is_none_or(|backup| backup.claim == claim.number))?;
        let claim =
            claim.ok_or_else(|| Cause::NoClaim { store: repository.describe(), cluster: cluster.to_string() })?;
        let beginnings: Vec<Beginning> = backups.iter().map(Beginning::from).collect();
        let mut patience = Patience::new(options.now);
        let mut known = KnownLogs::default();
        loop {
            let folders = WalFolders::read(repository, &claim).await?;
            let without_segments = folders.without_segments();
            let mut archive = Self::of_listed(repository, claim.clone(), without_segments, beginnings.clone()).await?;
            (archive.backups, archive.unreadable_backups) = (backups, unreadable);
            match archive.plan_with(&folders, &mut known, with).await {
                Ok((plan, notes)) => match &plan.ends_at {
                    Some(hole) if patience.waits_for(repository, &archive, hole, progress).await => {
                        (backups, unreadable) = (archive.backups, archive.unreadable_backups);
                    }
                    _ => return Ok((archive, plan, notes)),
                },
                Err(error) if !patience.lists_again(repository, &archive, &error, progress).await => return Err(error),
                Err(_) => (backups, unreadable) = (archive.backups, archive.unreadable_backups),
            }
        }
    }

    /// Plans with the WAL of these folders. `known` are the logs that this run has already listed.
    ///
    /// It lists the WAL from the newest possible backup on. A gap, or the end of the archive, stops a recovery from an
    /// older backup at the same place, so for most targets this listing decides. A transaction, a restore point and a
    /// usable end of a backup are searched for further back, twice as many backups each time. A refusal shows what can
    /// be restored in a bounded part of the archive, as `info` does.
    async fn plan_with(
        &mut self,
        folders: &WalFolders,
        known: &mut KnownLogs,
        with: Planning<'_>,
    ) -> Result<(RecoveryPlan, Vec<String>), Error> {
        // What the records alone refuse needs no WAL.
        if RecoveryPath::find(&with.options.request, &self.world()).is_err() {
            return self.plan(with).await;
        }
        let likely = LikelyStart::find(&with.options.request, &self.world());
        if let Some(likely) = &likely {
            let mut from = likely.start_lsn;
            let mut searched = 0;
            loop {
                let wanted = |timeline| {
                    if likely.is_on_path(timeline) { WalScope::From(from) } else { WalScope::Newest }
                };
                let listed = folders.list(with.repository, wanted, known).await?;
                known.absorb(listed.whole_logs());
                self.wal = listed.inventory().clone();
                self.add_tails(with.repository, with.options, with.crew).await?;
                match self.plan(with).await {
                    Ok(planned) => return Ok(planned),
                    Err(error) if !matches!(&*error.what, Cause::Unreachable(_)) => return Err(error),
                    Err(_) if !needs_search(&with.options.request.target) || searched == likely.older_starts.len() => {
                        break;
                    }
                    Err(_) => {}
                }
                searched = (2 * searched + 1).min(likely.older_starts.len());
                from = likely.older_starts.get(searched - 1).copied().unwrap_or(from);
            }
        }
        let of_claim = || self.beginnings.iter().filter(|beginning| beginning.claim == self.claim.number);
        let starts = of_claim().map(|beginning| beginning.start_lsn);
        if let Some((oldest, newest)) = starts.clone().min().zip(starts.max()) {
            let newest = likely.map_or(newest, |likely| likely.start_lsn);
            let shown = folders.list(with.repository, |_| WalScope::Shown { oldest, newest }, known).await?;
            known.absorb(shown.whole_logs());
            self.not_looked_at = of_claim().filter(|beginning| !shown.covers(beginning.start_lsn)).count();
            self.wal = shown.inventory().clone();
            self.add_tails(with.repository, with.options, with.crew).await?;
        }
        self.plan(with).await
    }

    /// The archive of one claim, from the start of the oldest of these beginnings. Beginnings of other claims are
    /// ignored.
    pub(crate) async fn of_claim(
        repository: &Repository,
        claim: ClaimRecord,
        beginnings: Vec<Beginning>,
    ) -> Result<Self, Error> {
        let starts = beginnings.iter().filter(|beginning| beginning.claim == claim.number);
        let listed = match starts.map(|beginning| beginning.start_lsn).min() {
            // There is nothing to begin with, so no WAL is useful.
            None => ListedWal::nothing(&claim),
            Some(from) => WalFolders::read_and_list(repository, &claim, WalScope::From(from)).await?,
        };
        Self::of_listed(repository, claim, &listed, beginnings).await
    }

    /// The same, with WAL that is already listed.
    pub(super) async fn of_listed(
        repository: &Repository,
        claim: ClaimRecord,
        listed: &ListedWal,
        beginnings: Vec<Beginning>,
    ) -> Result<Self, Error> {
        let wal = listed.inventory().clone();
        let (histories, unreadable_histories) = read_histories(repository, &claim, &wal).await?;
        Ok(Self {
            claim: Arc::new(claim),
            backups: Vec::new(),
            beginnings,
            histories,
            wal,
            unreadable_backups: Vec::new(),
            unreadable_histories,
            not_looked_at: 0,
        })
    }

    /// Adds the segments that are not whole, if the recovery may read them.
    pub(super) async fn add_tails(
        &mut self,
        repository: &Repository,
        options: &RestoreOptions,
        crew: &Crew,
    ) -> Result<(), Error> {
        if options.tail_command.is_none() {
            return Ok(());
        }
        tail::add_tails(repository, &self.claim, &mut self.wal, crew).await
    }

    /// This archive in the form for the planner.
    pub(crate) fn world(&self) -> RecoveryWorld<'_> {
        RecoveryWorld {
            claim: self.claim.number,
            backups: &self.beginnings,
            histories: &self.histories,
            wal: &self.wal,
        }
    }

    pub(super) async fn plan(&self, with: Planning<'_>) -> Result<(RecoveryPlan, Vec<String>), Error> {
        let Planning { repository, options, crew, progress, cancel } = with;
        let world = self.world();
        let choosing = || self.choosing(&options.request, &options.cluster);
        self.check_histories(&options.request, None)?;
        let path = RecoveryPath::find(&options.request, &world).map_err(|why| match why {
            // In the words of the other verbs that name a backup, which ask no planner.
            Unreachable::BackupUnknown { backup } => {
                Cause::NoSuchBackup { backup: backup.to_string(), cluster: options.cluster.to_string() }.into()
            }
            why => Error::from(why),
        });
        let path = path.doing(choosing)?;
        self.check_histories(&options.request, Some(path.timeline()))?;
        let version = PgVersion::new(self.claim.pg_major)
            .map_err(|source| Cause::StoredVersion { name: format!("the archive {}", options.cluster), source })?;
        let lookup = WalLookup {
            repository: repository.clone(),
            claim: Arc::clone(&self.claim),
            version,
            crew: crew.clone(),
            cancel: cancel.clone(),
        };
        let facts = lookup.target_facts(&path, &options.request, progress).await?;
        let plan = path.decide(&facts).doing(choosing)?;
        let mut notes = self.notes_of_unreadable(path.timeline());
        let higher: Vec<String> = path.higher_timelines().iter().map(ToString::to_string).collect();
        if !higher.is_empty() {
            notes.push(format!(
                "recovery follows timeline {}; the archive also has higher timelines: {}",
                plan.timeline,
                higher.join(", ")
            ));
        }
        notes.extend(path.other_lines().iter().filter_map(|line| newer_note(plan.timeline, line)));
        let partial = self.wal.partials().filter(|segment| segment.timeline() == plan.timeline).max();
        if let Some(end) = plan.tail_lsn {
            notes.push(format!(
                "the end of the archive, up to {end}, is not in whole segments yet but in pieces from `wal receive`; \
                 restore_command puts them together"
            ));
        }
        if let (Some(hole), Some(end)) = (&plan.ends_at, plan.tail_lsn) {
            notes.push(format!(
                "recovery ends at {end}, and WAL after that is in the archive and is NOT replayed: {hole}, except for \
                 what `wal receive` has stored in pieces. If a pg_wal still has it, bring it back first with \
                 `holdfast wal verify --heal DIR`"
            ));
        }
        if plan.tail_lsn.is_none()
            && let Some(tail) = plan.tails.last()
        {
            notes.push(format!(
                "of timeline {}, WAL before {} is in pieces from `wal receive`, not in whole segments; restore_command \
                 puts them together",
                tail.timeline, tail.end_lsn
            ));
        }
        let begin = path.ancestry().span(plan.timeline).map(|span| span.start);
        let end = plan.window.to_lsn;
        if let (Some(begin), RecoveryTarget::Latest) = (begin.filter(|begin| end <= *begin), &options.request.target) {
            let lost = if end < begin { format!(", and WAL from {end} to {begin}") } else { String::new() };
            notes.push(format!(
                "timeline {} begins at {begin}, but recovery ends at {end}: missing in the archive is all WAL of this \
                 timeline{lost}",
                plan.timeline
            ));
        }
        if let (Some(partial), RecoveryTarget::Latest) = (partial, &options.request.target) {
            notes.push(format!("{partial}.partial is in the archive; PostgreSQL does not replay partial segments"));
        }
        Ok((plan, notes))
    }
}

/// Whether only the WAL shows with which backup a recovery to this target can begin.
fn needs_search(target: &RecoveryTarget) -> bool {
    matches!(target, RecoveryTarget::Immediate | RecoveryTarget::Xid(_) | RecoveryTarget::Name(_))
}

/// Unreadable parts of the archive, and their effect on a recovery.
impl Archive {
    fn choosing(&self, request: &RecoveryRequest, cluster: &ClusterName) -> String {
        let mut phrase = format!("choosing a backup of {cluster} for {}", request.target);
        if !self.unreadable_backups.is_empty() {
            let left_out: Vec<String> = self.unreadable_backups.iter().map(|bad| bad.id.to_string()).collect();
            phrase.push_str(" without the backups that cannot be read: ");
            phrase.push_str(&left_out.join(", "));
        }
        if self.not_looked_at > 0 {
            let number = self.not_looked_at;
            // Writing to a string cannot fail.
            let _ = write!(phrase, " (the WAL of the {number} oldest was not looked at; `--backup` names one of them)");
        }
        phrase
    }

    /// Refuses if a needed history cannot be read: the history of the timeline to follow, once it is known or if it is
    /// named. If the latest timeline is followed, also any history above it, which could continue from there.
    pub(crate) fn check_histories(&self, request: &RecoveryRequest, timeline: Option<TimelineId>) -> Result<(), Error> {
        let needed = |bad: TimelineId| match (request.timeline, timeline) {
            (TargetTimeline::Latest, Some(chosen)) => bad >= chosen,
            (TargetTimeline::Number(named), _) => bad == named,
            (_, Some(chosen)) => bad == chosen,
            (_, None) => false,
        };
        match self.unreadable_histories.iter().find(|bad| needed(bad.id)) {
            None => Ok(()),
            Some(bad) => Err(Cause::UnreadableHistory {
                timeline: bad.id,
                named: matches!(request.timeline, TargetTimeline::Number(_)),
                reason: bad.error.what.to_string(),
                newer: bad.error.is_newer(),
            }
            .into()),
        }
    }

    fn notes_of_unreadable(&self, timeline: TimelineId) -> Vec<String> {
        let mut notes: Vec<String> = self
            .unreadable_backups
            .iter()
            .map(|bad| format!("backup {} was left out, because it cannot be read: {}", bad.id, bad.error.what))
            .collect();
        for bad in &self.unreadable_histories {
            notes.push(format!(
                "the history of timeline {} cannot be read: {}{}",
                bad.id,
                bad.error.what,
                if bad.id > timeline {
                    "; PostgreSQL asks for it when recovery ends, and stops there: repair the object first, or let \
                     recovery pause and read the data"
                } else {
                    "; this recovery does not need it"
                }
            ));
        }
        notes
    }
}

/// A note about newer data on a line that is not followed.
fn newer_note(timeline: TimelineId, line: &OtherLine) -> Option<String> {
    let what = match line.newer {
        Newer::Nothing => return None,
        Newer::Wal => "newer WAL",
        Newer::Backup => "a newer backup",
    };
    Some(format!(
        "recovery follows timeline {timeline}, but another timeline has {what}: {line}; to follow it: \
         --target-timeline {}",
        line.timeline
    ))
}

/// The files of a backup that are kept in memory.
pub(super) struct HeldFiles {
    pub control: Held,
    pub backup_label: Held,
    pub tablespace_map: Option<Held>,
    pub auto_conf: Held,
}

/// Reads the files that are kept in memory, and refuses a backup that lacks one that every backup has.
pub(super) async fn held_files(
    packs: &Packs,
    manifest: &Manifest,
    index: &PathIndex,
    backup: &BackupRecord,
) -> Result<HeldFiles, Error> {
    let needed = |name: &str| -> Error {
        Cause::Malformed {
            name: format!("the manifest of backup {}", backup.backup_id),
            reason: format!("it has no {name}"),
        }
        .into()
    };
    let (control, backup_label, tablespace_map, auto_conf) = tokio::join!(
        hold(packs, manifest, index, ControlFile::PATH),
        hold(packs, manifest, index, BackupLabel::FILE_NAME),
        hold(packs, manifest, index, TablespaceMap::FILE_NAME),
        hold(packs, manifest, index, AUTO_CONF),
    );
    let control = control?.ok_or_else(|| needed(ControlFile::PATH))?;
    check_control_file(&control.content, backup)?;
    let backup_label = backup_label?.ok_or_else(|| needed(BackupLabel::FILE_NAME))?;
    check_label(&backup_label.content, backup)?;
    let auto_conf = auto_conf?.unwrap_or(Held { content: Vec::new(), mode: 0o600 });
    Ok(HeldFiles { control, backup_label, tablespace_map: tablespace_map?, auto_conf })
}

async fn hold(packs: &Packs, manifest: &Manifest, index: &PathIndex, path: &str) -> Result<Option<Held>, Error> {
    let Some(entry) = index.find(manifest, path.as_bytes()).and_then(|position| manifest.file(position)) else {
        return Ok(None);
    };
    Ok(Some(Held { content: packs.file(&entry).await?, mode: entry.mode }))
}

/// The control file is the last thing that is written: it must be whole, and of the cluster that the summary names.
fn check_control_file(content: &[u8], backup: &BackupRecord) -> Result<(), Error> {
    let malformed = |reason: String| Cause::Malformed {
        name: format!("{} of backup {}", ControlFile::PATH, backup.backup_id),
        reason,
    };
    let control = ControlFile::parse(content).map_err(|e| malformed(e.to_string()))?;
    if control.system_identifier != backup.system_identifier {
        return Err(malformed(format!(
            "it is of system identifier {}, backup.json says {}",
            control.system_identifier, backup.system_identifier
        ))
        .into());
    }
    Ok(())
}

fn check_label(content: &[u8], backup: &BackupRecord) -> Result<(), Error> {
    let malformed =
        |reason: String| Cause::Malformed { name: format!("backup_label of backup {}", backup.backup_id), reason };
    let label = BackupLabel::parse(content).map_err(|e| malformed(e.to_string()))?;
    if label.start_lsn != backup.start_lsn {
        return Err(
            malformed(format!("it starts at {}, backup.json says {}", label.start_lsn, backup.start_lsn)).into()
        );
    }
    Ok(())
}
