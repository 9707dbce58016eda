//! The steps of a verification, and the state between them. [`deep`] is the step that reads every byte, [`scrub`] says
//! which objects it reads, and [`remember`] writes down what it has read. [`lost`] finds backups that lost their
//! records, and [`conclude`] says what is known of a backup.

mod conclude;
mod deep;
mod lost;
mod remember;
mod scrub;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{self, StreamExt};
use holdfast_contract::report::verify::{
    BackupResult, ClaimWindow, Compared, DamageKind, Level, ObjectClass, VerifiedBackup,
};
use holdfast_pgtypes::WalFileName;
use holdfast_repo::manifest::{Manifest, PackEntry};
use holdfast_repo::name::{self, BackupId};
use holdfast_repo::record::{BackupRecord, StartRecord};
use holdfast_repo::recovery::Beginning;
use holdfast_store::StoreErrorKind;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::scrub::Scrub;
use super::chains::ClaimWal;
use super::findings::{Findings, add_windows};
use super::judge::{Judged, judge};
use super::packs::{KnownChunks, Reader};
use super::{BackupChoice, Verification, VerifyOptions};
use crate::archive::{KnownLogs, ListedWal, WalScope, list_within};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::budget::ByteBudget;
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::damaged::KnownDamage;
use crate::repository::readings::readings;
use crate::repository::{Repository, object_name};
use crate::restore::{Chains, ListedSizes, faults_of_objects, try_held_files, try_manifest};

/// Packs whose checksums are requested at the same time.
const LOOKS_AT_ONCE: usize = 16;

/// Packs that are read at the same time, within the budget.
const PACKS_AT_ONCE: usize = 8;

/// How long to wait until a hole is filled: as long as a restore would.
const HOLES_FILL_WITHIN: Duration = Duration::from_secs(30);

/// How often an object that seems damaged is read: a bit may have flipped on the way.
const READ_ATTEMPTS: usize = 2;

/// A requested backup.
struct Asked {
    /// Its record; without one nothing more can be checked.
    record: Option<BackupRecord>,
    report: VerifiedBackup,
    /// Whether everything that should be checked was checked.
    is_finished: bool,
    object_count: u64,
    read_bytes: u64,
    /// Whether one of its packs is due.
    is_due: bool,
    /// The packs and segments that were not due.
    passed_over_count: u64,
}

/// One verification.
pub(super) struct Run<'a> {
    repository: &'a Repository,
    options: &'a VerifyOptions,
    progress: &'a Arc<dyn Progress>,
    began: Instant,
    reader: Reader,
    findings: Findings,
    sizes: ListedSizes,
    /// Packs whose checksum in the store is right.
    compared: BTreeSet<String>,
    /// For each pack, the number of manifests that name it and are not read deep yet.
    uses: HashMap<String, u32>,
    /// Packs that were read and will be needed again, with their checked chunks.
    known: HashMap<String, KnownChunks>,
    asked: BTreeMap<BackupId, Asked>,
    claims: Vec<ClaimWal>,
    scrub: Scrub,
    object_count: u64,
    /// Set after the note that the ledger cannot be written, so that it appears once.
    cannot_remember: bool,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        options: &'a VerifyOptions,
        progress: &'a Arc<dyn Progress>,
        cancel: &CancellationToken,
    ) -> Self {
        let half = options.memory_bytes / 16 * 7;
        let reader = Reader {
            repository: repository.clone(),
            crew: Crew::new(options.jobs),
            stored: ByteBudget::new(half),
            opened: ByteBudget::new(half),
            progress: Arc::clone(progress),
            read_bytes: Arc::new(AtomicU64::new(0)),
            cancel: cancel.child_token(),
        };
        Self {
            repository,
            options,
            progress,
            began: Instant::now(),
            reader,
            findings: Findings::default(),
            sizes: ListedSizes::default(),
            compared: BTreeSet::new(),
            uses: HashMap::new(),
            known: HashMap::new(),
            asked: BTreeMap::new(),
            claims: Vec::new(),
            scrub: Scrub::new(options.now, options.max_age),
            object_count: 0,
            cannot_remember: false,
        }
    }

    /// Runs all steps in order.
    pub(super) async fn all(&mut self) -> Result<(), Error> {
        self.progress.phase("looking at the backups", None);
        let records = self.list().boxed().await?;
        for backup in self.ids() {
            self.look_at(backup).boxed().await.doing(|| format!("looking at backup {backup}"))?;
        }
        self.progress.phase("looking at the WAL", None);
        self.look_at_wal(&records).boxed().await?;
        for backup in self.ids() {
            if self.options.level == Level::Deep {
                self.read_deep(backup).boxed().await.doing(|| format!("reading backup {backup}"))?;
            }
            self.conclude(backup).boxed().await?;
        }
        self.conclude_again().boxed().await
    }

    fn ids(&self) -> Vec<BackupId> {
        self.asked.keys().copied().collect()
    }

    /// Lists claims and backups, and chooses the requested ones. Returns all backups that can be read.
    async fn list(&mut self) -> Result<Vec<BackupRecord>, Error> {
        let (repository, cluster) = (self.repository, &self.options.cluster);
        let (claims, backups) = tokio::try_join!(repository.claims(cluster), repository.backups(cluster))?;
        self.object_count += (claims.records.len() + claims.unreadable.len()) as u64;
        for bad in &claims.unreadable {
            self.keep(&bad.error, &bad.object, &[]);
        }
        if claims.records.is_empty() && claims.unreadable.is_empty() && backups.records.is_empty() {
            return Err(Cause::NoClaim { store: repository.describe(), cluster: cluster.to_string() }.into());
        }
        for claim in claims.records {
            let chains = Chains::read(repository, &claim, &ListedWal::nothing(&claim), Vec::new()).await?;
            self.claims.push(ClaimWal::new(claim, chains, Vec::new()));
        }
        let readable = backups.records.iter().map(|record| record.backup_id);
        let known: BTreeSet<BackupId> = readable.chain(backups.unreadable.iter().map(|bad| bad.id)).collect();
        let chosen: BTreeSet<BackupId> = match self.options.which {
            BackupChoice::All => known.clone(),
            BackupChoice::Latest => known.last().copied().into_iter().collect(),
            BackupChoice::One(backup) if known.contains(&backup) => [backup].into(),
            BackupChoice::One(backup) => {
                let (backup, cluster) = (backup.to_string(), cluster.to_string());
                return Err(Cause::NoSuchBackup { backup, cluster }.into());
            }
        };
        if chosen.is_empty() {
            if self.options.which == BackupChoice::Latest {
                let (backup, cluster) = ("latest".to_owned(), cluster.to_string());
                return Err(Cause::NoSuchBackup { backup, cluster }.into());
            }
            self.findings.notes.push("there is no complete backup: nothing can be restored".to_owned());
        }
        self.read_ledger(&backups.records).boxed().await?;
        if self.options.which == BackupChoice::All {
            self.find_lost(&known).boxed().await?;
        }
        if chosen.len() < known.len() || !backups.unreadable.is_empty() {
            self.scrub.cannot_name_all();
        }
        for bad in &backups.unreadable {
            if chosen.contains(&bad.id) {
                if is_gone(&bad.error, &bad.object) {
                    self.findings.notes.push(format!("backup {} was removed during the verification", bad.id));
                    continue;
                }
                self.object_count += 1;
                self.keep(&bad.error, &bad.object, &[bad.id]);
                self.asked.insert(bad.id, Asked::new(bad.id, None));
            }
        }
        for record in &backups.records {
            if chosen.contains(&record.backup_id) {
                self.asked.insert(record.backup_id, Asked::new(record.backup_id, Some(record.clone())));
            }
        }
        Ok(backups.records)
    }

    /// Reads what earlier runs found and read.
    async fn read_ledger(&mut self, backups: &[BackupRecord]) -> Result<(), Error> {
        let (repository, cluster, now) = (self.repository, &self.options.cluster, self.options.now);
        self.scrub.sizes = self.claims.iter().map(|wal| (wal.claim.number, wal.claim.wal_segment_size)).collect();
        self.scrub.damage = KnownDamage::read(repository, cluster, backups, now).await?;
        if self.options.level == Level::Deep {
            self.scrub.known = readings(repository, cluster, &self.scrub.sizes, now).await?;
        }
        Ok(())
    }

    /// Records an error that concerns one object.
    fn keep(&mut self, error: &Error, object: &str, backups: &[BackupId]) {
        if self.findings.look(error, object, backups).is_none() {
            self.findings.notes.push(format!("{object} cannot be judged: {error}"));
        }
    }

    /// Step 1 for one backup.
    async fn look_at(&mut self, backup: BackupId) -> Result<(), Error> {
        let Some(record) = self.asked.get(&backup).and_then(|asked| asked.record.clone()) else { return Ok(()) };
        self.look_at_start(&record).await?;
        let before = self.object_count;
        self.object_count += 2;
        let crew = self.reader.crew.clone();
        let repository = self.repository;
        let trial = match read_with_retry(|| try_manifest(repository, &record, &crew)).await {
            Ok(trial) => trial,
            Err(error) => {
                self.scrub.cannot_name_all();
                self.findings.take(error, &record.manifest.name, &[backup])?;
                return Ok(());
            }
        };
        let found = faults_of_objects(repository, &trial.manifest, &mut self.sizes).await?;
        let mut faulty = BTreeSet::new();
        for (object, fault) in found {
            faulty.insert(self.findings.take(fault, &object, &[backup])?);
        }
        let compared = self.compare_checksums(backup, &trial.manifest, &mut faulty).await?;
        self.object_count += (trial.manifest.packs().len() + trial.manifest.origins().len()) as u64;
        if faulty.is_empty()
            && let Err(error) = read_with_retry(|| try_held_files(repository, &trial, &record)).await
        {
            self.findings.take(error, &record.manifest.name, &[backup])?;
        }
        let (mut is_due, mut passed_over_count) = (false, 0);
        for pack in trial.manifest.packs() {
            self.scrub.names(&pack.name);
            if self.options.level == Level::Deep && self.scrub.is_due(&pack.name) {
                *self.uses.entry(pack.name.clone()).or_default() += 1;
                is_due = true;
            } else {
                passed_over_count += 1;
            }
        }
        if let Some(asked) = self.asked.get_mut(&backup) {
            asked.is_due = is_due;
            asked.passed_over_count = passed_over_count;
            asked.object_count = self.object_count - before;
            asked.report.pack_count = trial.manifest.packs().len() as u64;
            asked.report.pack_bytes = trial.manifest.packs().iter().map(|pack| pack.size_bytes).sum();
            asked.report.compared = compared;
        }
        Ok(())
    }

    /// Checks the start record. No restore needs it.
    async fn look_at_start(&mut self, record: &BackupRecord) -> Result<(), Error> {
        let (repository, backup) = (self.repository, record.backup_id);
        let name = name::backup_start(&record.cluster, &backup);
        let read = || async {
            let start: StartRecord = repository.read_record(&name).await?;
            if (start.backup_id, &start.cluster) == (backup, &record.cluster) {
                return Ok(());
            }
            let reason = format!("it is of backup {} of cluster {}", start.backup_id, start.cluster);
            Err(Cause::Malformed { name: name.clone(), reason }.into())
        };
        match read_with_retry(read).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() => self.findings.notes.push(format!(
                "backup {backup} has no start.json: its removal has begun, or somebody removed the object; a restore does not need it"
            )),
            Err(error) => {
                self.findings.take(error, &name, &[])?;
            }
        }
        self.object_count += 1;
        Ok(())
    }

    /// Compares the checksums that the store keeps with the list of packs.
    async fn compare_checksums(
        &mut self,
        backup: BackupId,
        manifest: &Manifest,
        faulty: &mut BTreeSet<String>,
    ) -> Result<Compared, Error> {
        if manifest.packs().is_empty() {
            return Ok(Compared::Nothing);
        }
        let mut is_whole = true;
        let mut asking: Vec<(&PackEntry, u32)> = Vec::new();
        for pack in manifest.packs() {
            match pack.identity {
                _ if faulty.contains(&pack.name) => {}
                Some(_) if self.compared.contains(&pack.name) => {}
                Some(identity) => asking.push((pack, identity.crc32c)),
                None => is_whole = false,
            }
        }
        let repository = self.repository;
        // The first answer shows whether the store has checksums at all.
        let first = asking.len().min(1);
        for part in [asking.get(..first), asking.get(first..)] {
            let looks = part.unwrap_or_default().iter().map(|(pack, expected)| async move {
                let object = object_name(&pack.name)?;
                Ok::<_, Error>((*pack, *expected, repository.store().head(&object).await))
            });
            let mut looks = stream::iter(looks.collect::<Vec<_>>()).buffered(LOOKS_AT_ONCE);
            while let Some(look) = looks.next().await {
                let (pack, expected, look) = look?;
                match look {
                    Ok(info) => match info.crc32c {
                        Some(found) if found == expected => {
                            self.compared.insert(pack.name.clone());
                        }
                        Some(found) => {
                            let problem = format!(
                                "the store says that its CRC-32C is {found:08x}, the manifest says {expected:08x}"
                            );
                            self.findings.damage(DamageKind::WrongChecksum, &pack.name, 1, problem, &[backup]);
                            faulty.insert(pack.name.clone());
                        }
                        None => is_whole = false,
                    },
                    Err(error) => {
                        faulty.insert(self.findings.take(error.into(), &pack.name, &[backup])?);
                    }
                }
            }
            if !is_whole {
                return Ok(Compared::Size);
            }
        }
        Ok(Compared::Checksum)
    }

    /// Step 2: checks the WAL.
    async fn look_at_wal(&mut self, records: &[BackupRecord]) -> Result<(), Error> {
        let beginnings: Vec<Beginning> = records.iter().map(Beginning::from).collect();
        let asked = self.ids();
        let mut claims = Vec::new();
        for looked in std::mem::take(&mut self.claims) {
            let claim = looked.claim;
            let (now, known) = (self.options.now, KnownLogs::default());
            let listed = list_within(self.repository, &claim, WalScope::All, &known, now, HOLES_FILL_WITHIN).await?;
            let chains = Chains::read(self.repository, &claim, &listed, beginnings.clone()).await?;
            let mut lines = chains.lines(chains.wal(), chains.beginnings());
            let (crew, cancel) = (&self.reader.crew, &self.reader.cancel);
            let damaged = chains.find_times(&mut lines, self.repository, crew, cancel).await?;
            let mut found = ClaimWal::new(claim, chains, lines);
            self.object_count += found.segment_count();
            found.find_missing(self.repository, &mut self.findings);
            for (file, bytes) in listed.stunted() {
                let object = found.object(self.repository, *file);
                let (backups, windows) = match file {
                    WalFileName::Segment(segment) => found.damaged(*segment),
                    _ => (Vec::new(), Vec::new()),
                };
                let problem = format!("it has {bytes} bytes, less than the head of an object");
                let damage = self.findings.damage(DamageKind::TooShort, &object, 1, problem, &backups);
                add_windows(damage, windows);
            }
            for error in damaged {
                self.segment_fault(&mut found, &error, None);
            }
            claims.push(found);
        }
        self.claims = claims;
        // The claim of these backups cannot be read, so nothing is known about their WAL.
        for record in records.iter().filter(|record| asked.contains(&record.backup_id)) {
            if !self.claims.iter().any(|claim| claim.has(record.backup_id)) {
                let object = name::claim(&record.cluster, record.claim);
                if !self.findings.harms(&object, record.backup_id) {
                    let problem = "backup.json names it".to_owned();
                    self.findings.damage(DamageKind::Missing, &object, 1, problem, &[record.backup_id]);
                }
            }
        }
        Ok(())
    }

    /// Records the fault of a segment, with the affected backups and windows.
    fn segment_fault(&mut self, claim: &mut ClaimWal, error: &Error, object: Option<&str>) {
        let Judged::Damaged { kind, object, problem } = judge(error, object.unwrap_or_default()) else {
            let backups: Vec<BackupId> = Vec::new();
            self.keep(error, object.unwrap_or_default(), &backups);
            return;
        };
        let (backups, windows) = match object.parse() {
            Ok(name::ObjectPath::WalFile { file: WalFileName::Segment(segment), .. }) => claim.damaged(segment),
            _ => (Vec::new(), Vec::new()),
        };
        add_windows(self.findings.damage(kind, &object, 1, problem, &backups), windows);
    }

    /// The result, as far as the run got.
    pub(super) fn finish(mut self) -> Verification {
        if self.options.which != BackupChoice::All {
            let asked: BTreeSet<BackupId> = self.asked.keys().copied().collect();
            self.findings.retain(|damage| {
                damage.class == ObjectClass::StartRecord
                    || damage.class == ObjectClass::Claim
                    || damage.backups.iter().any(|backup| asked.contains(backup))
            });
        }
        let findings = &self.findings;
        let moved: Vec<BTreeMap<BackupId, Vec<ClaimWindow>>> =
            self.claims.iter().map(|claim| claim.windows_without(|backup| findings.is_damaged(backup))).collect();
        let claims = self.claims.iter().map(|claim| claim.verified(|backup| findings.is_damaged(backup))).collect();
        for damage in self.findings.damages() {
            let of_backups: Vec<ClaimWindow> = damage
                .backups
                .iter()
                .flat_map(|backup| moved.iter().filter_map(|windows| windows.get(backup)))
                .flatten()
                .cloned()
                .collect();
            add_windows(damage, of_backups);
        }
        let backups = std::mem::take(&mut self.asked);
        let backups = backups.into_iter().map(|(backup, mut asked)| {
            if !asked.is_finished {
                // Known damage counts, however the run ended.
                let damaged = self.findings.is_damaged(backup);
                asked.report.result = if damaged { BackupResult::Damaged } else { BackupResult::NotVerified };
            }
            asked.report
        });
        let backups = backups.collect();
        let (damage, newer, notes) = self.findings.into_parts();
        Verification {
            backups,
            claims,
            damage,
            newer,
            notes,
            object_count: self.object_count,
            read_bytes: self.reader.read_bytes.load(Ordering::Relaxed),
            ..Verification::default()
        }
    }
}

impl Asked {
    fn new(backup_id: BackupId, record: Option<BackupRecord>) -> Self {
        let report = VerifiedBackup {
            backup_id,
            claim: record.as_ref().map(|record| record.claim),
            result: BackupResult::NotVerified,
            level: Level::Shallow,
            pack_count: 0,
            pack_bytes: 0,
            compared: Compared::Nothing,
            recorded: false,
        };
        Self { record, report, is_finished: false, object_count: 0, read_bytes: 0, is_due: false, passed_over_count: 0 }
    }
}

/// Whether the listed record itself no longer exists.
fn is_gone(error: &Error, record: &str) -> bool {
    matches!(&*error.what, Cause::Store(fault) if fault.kind() == StoreErrorKind::NotFound && fault.failure().name == record)
}

/// Reads again if the object seems damaged.
async fn read_with_retry<T, R: Future<Output = Result<T, Error>>>(read: impl Fn() -> R) -> Result<T, Error> {
    let mut attempt = 1;
    loop {
        match read().await {
            Err(error) if attempt < READ_ATTEMPTS && is_worth_another(&error) => attempt += 1,
            outcome => return outcome,
        }
    }
}

fn is_worth_another(error: &Error) -> bool {
    matches!(judge(error, ""), Judged::Damaged { .. }) && !error.is_not_found()
}
