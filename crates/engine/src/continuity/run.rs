//! The order of a verification, and its state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use holdfast_contract::report::verify::Level;
use holdfast_contract::report::wal_verify::WalFindingKind as Kind;
use holdfast_contract::report::wal_verify::{ClaimWalVerified, WalFinding, WalFindingWeight as Weight, WalHealing};
use holdfast_pgtypes::{Lsn, PgVersion, SegmentName, WalFileName, WalSegmentSize};
use holdfast_repo::catalog::{SegmentRange, WalInventory};
use holdfast_repo::name::{ClaimNumber, LedgerKind};
use holdfast_repo::record::{BackupRecord, ClaimRecord, LedgerEntry, SnapshotRecord};
use holdfast_repo::recovery::Beginning;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::compare::{Fault, Reader, Row, Scope};
use super::findings::{Findings, finding};
use super::look::{ClaimWal, advice, of_stunted, with};
use super::losses::Barrier;
use super::record::{RecordedGaps, recorded_gaps};
use super::removed::Removed;
use super::young::young;
use super::{WalVerification, WalVerifyOptions};
use crate::archive::{LIST_AGAIN_AFTER, WalFolders, WalScope, wal_object_name};
use crate::error::{Cause, Error};
use crate::pipeline::budget::ByteBudget;
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::restore::{Chains, Line};
use crate::verify::judge::{Judged, judge};

/// How long to wait until a hole is filled: as long as a restore would.
const HOLES_FILL_WITHIN: Duration = Duration::from_secs(30);

/// For how many findings the last transaction before them is looked up: each lookup costs some requests.
const MOST_TIMES: usize = 64;

/// One verification.
pub(super) struct Run<'a> {
    pub(super) repository: &'a Repository,
    pub(super) options: &'a WalVerifyOptions,
    pub(super) reader: Reader,
    began: Instant,
    pub(super) findings: Findings,
    pub(super) claims: Vec<ClaimWal>,
    pub(super) recorded: RecordedGaps,
    /// Whether nothing was left out that may need WAL: every timeline was followed, and every record could be read.
    pub(super) is_complete: bool,
    pub(super) healing: Option<WalHealing>,
    pub(super) notes: Vec<String>,
    pub(super) segment_count: u64,
    compared_count: u64,
    times_asked: usize,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        options: &'a WalVerifyOptions,
        progress: &Arc<dyn Progress>,
        cancel: &CancellationToken,
    ) -> Self {
        let reader = Reader {
            repository: repository.clone(),
            crew: Crew::new(options.jobs),
            budget: ByteBudget::new(options.memory_bytes / 8 * 7),
            progress: Arc::clone(progress),
            read_bytes: Arc::new(AtomicU64::new(0)),
            cancel: cancel.child_token(),
        };
        Self {
            repository,
            options,
            reader,
            began: Instant::now(),
            findings: Findings::default(),
            claims: Vec::new(),
            recorded: RecordedGaps::default(),
            is_complete: true,
            healing: None,
            notes: Vec::new(),
            segment_count: 0,
            compared_count: 0,
            times_asked: 0,
        }
    }

    /// Runs all steps in order.
    pub(super) async fn all(&mut self) -> Result<(), Error> {
        self.list_wal().boxed().await?;
        if !self.options.heal_from.is_empty() {
            self.heal().boxed().await?;
        }
        let compared = self.compare().boxed().await;
        self.is_complete &= compared.is_ok();
        self.divergences().await?;
        // What is missing is known even if the segments could not be compared.
        self.remember().boxed().await?;
        if compared.is_ok() {
            self.record_look().await;
        }
        compared
    }

    /// Lists the WAL of every claim, and adds what the listings show. Forgets what an earlier listing showed.
    pub(super) async fn list_wal(&mut self) -> Result<(), Error> {
        self.reader.progress.phase("looking at the WAL", None);
        (self.findings, self.claims, self.notes) = (Findings::default(), Vec::new(), Vec::new());
        (self.segment_count, self.times_asked) = (0, 0);
        self.is_complete = self.options.timeline.is_none();
        let (repository, cluster) = (self.repository, &self.options.cluster);
        let (claims, backups, snapshots) =
            tokio::try_join!(repository.claims(cluster), repository.backups(cluster), repository.snapshots(cluster))?;
        if claims.records.is_empty() && claims.unreadable.is_empty() {
            return Err(Cause::NoClaim { store: repository.describe(), cluster: cluster.to_string() }.into());
        }
        self.is_complete &= claims.unreadable.is_empty() && backups.unreadable.is_empty();
        self.is_complete &= snapshots.unreadable.is_empty();
        for bad in &claims.unreadable {
            self.notes.push(format!("the WAL of claim {} is not looked at: {}", bad.id, bad.error));
        }
        for bad in &backups.unreadable {
            self.notes.push(format!("backup {} counts for nothing, because it cannot be read: {}", bad.id, bad.error));
        }
        for bad in &snapshots.unreadable {
            self.notes
                .push(format!("snapshot {} counts for nothing, because it cannot be read: {}", bad.id, bad.error));
        }
        self.recorded = recorded_gaps(repository, cluster, &claims.records).await?;
        self.is_complete &= self.recorded.unreadable.is_empty();
        for bad in &self.recorded.unreadable {
            self.notes.push(format!("{} cannot be read: {}", bad.object, bad.error));
        }
        for claim in claims.records {
            self.look_at_claim(claim, &backups.records, &snapshots.records).boxed().await?;
        }
        Ok(())
    }

    async fn look_at_claim(
        &mut self,
        claim: ClaimRecord,
        backups: &[BackupRecord],
        snapshots: &[SnapshotRecord],
    ) -> Result<(), Error> {
        let (repository, number, size) = (self.repository, claim.number, claim.wal_segment_size);
        let beginnings = backups.iter().map(Beginning::from).chain(snapshots.iter().map(Beginning::from));
        let beginnings: Vec<Beginning> = beginnings.filter(|begins| begins.claim == number).collect();
        let Some(oldest) = beginnings.iter().map(|begins| begins.start_lsn).min() else {
            self.notes
                .push(format!("claim {number} has neither a complete backup nor a snapshot, so nothing needs its WAL"));
            return Ok(());
        };
        let began = Instant::now();
        let (listed, chains, mut lines, late) = loop {
            let listed = WalFolders::read_and_list(repository, &claim, WalScope::From(oldest)).await?;
            let chains = Chains::read(repository, &claim, &listed, beginnings.clone()).await?;
            let mut lines = chains.lines(chains.wal(), chains.beginnings());
            lines.retain(|line| self.options.timeline.is_none_or(|wanted| line.ancestry.timeline() == wanted));
            let late = young(repository, &claim, &lines, chains.wal(), self.now()).await;
            if late.is_empty() || began.elapsed() >= HOLES_FILL_WITHIN {
                break (listed, chains, lines, late);
            }
            tokio::time::sleep(LIST_AGAIN_AFTER).await;
        };
        self.segment_count += listed.inventory().segment_count();
        if let (Some(timeline), true) = (self.options.timeline, lines.is_empty()) {
            self.notes.push(format!("no backup of claim {number} leads to timeline {timeline}"));
        }
        let has_hole = lines.iter().any(|line| !line.holes.is_empty() || !line.rejected.is_empty());
        let removed = if has_hole { Removed::read(repository, &claim).await? } else { Removed::default() };
        self.is_complete &= removed.unreadable.is_empty() && chains.unreadable_histories().is_empty();
        for bad in &removed.unreadable {
            self.notes.push(format!(
                "{} cannot be read, so what it says that `expire` removed counts as missing: {}",
                bad.object, bad.error
            ));
        }
        let damaged = chains.find_times(&mut lines, repository, &self.reader.crew, &self.reader.cancel).await?;
        let stunted: Vec<(WalFileName, u64)> =
            listed.stunted().iter().copied().filter(|(file, _)| is_from(*file, oldest, size)).collect();
        let wal = ClaimWal { claim, chains, lines, stunted, removed, young: late };
        self.notes.extend(wal.add_findings(repository, &mut self.findings));
        for (file, bytes) in wal.stunted.clone() {
            if let Some((found, places)) = of_stunted(&wal, repository, file, bytes) {
                self.add(&wal, found, &places).await?;
            }
        }
        for error in damaged {
            self.damaged(&wal, &error, None).await?;
        }
        self.claims.push(wal);
        Ok(())
    }

    /// Compares the segments of every line with their neighbours.
    async fn compare(&mut self) -> Result<(), Error> {
        let wanted = Scope { level: self.options.level, sample: self.options.sample };
        if wanted.level == Level::Deep {
            let rows = self.claims.iter().flat_map(|wal| wal.lines.iter().map(|line| rows(line, wal)));
            let segments: u64 =
                rows.flatten().map(|row| row.segments.iter().map(|range| range.count).sum::<u64>()).sum();
            let size = self.claims.iter().map(|wal| wal.size().as_u64()).max().unwrap_or_default();
            self.reader
                .progress
                .phase("reading WAL", Some(segments.saturating_mul(size)).filter(|_| wanted.sample.is_none()));
        }
        let claims = std::mem::take(&mut self.claims);
        let outcome = self.compare_all(&claims, wanted).await;
        self.claims = claims;
        outcome
    }

    async fn compare_all(&mut self, claims: &[ClaimWal], wanted: Scope) -> Result<(), Error> {
        for wal in claims {
            if PgVersion::new(wal.claim.pg_major).is_err() {
                let number = wal.claim.number;
                self.notes.push(format!(
                    "the segments of claim {number} are not compared: its PostgreSQL version is not known"
                ));
                continue;
            }
            let mut seen = WalInventory::new(wal.size());
            for (file, _) in &wal.stunted {
                seen.add(*file);
            }
            for line in &wal.lines {
                for row in rows(line, wal) {
                    let mut faults = Vec::new();
                    let compared = self.reader.compare(&wal.claim, &row, wanted, &mut seen, &mut faults).boxed().await;
                    for fault in faults {
                        self.fault(wal, fault).await?;
                    }
                    self.compared_count += compared?;
                }
            }
        }
        Ok(())
    }

    async fn fault(&mut self, wal: &ClaimWal, fault: Fault) -> Result<(), Error> {
        let (kind, barrier, problem) = match fault {
            Fault::Unreadable(segment, error) => {
                return self.damaged(wal, &error, Some(WalFileName::Segment(segment))).await;
            }
            Fault::Unfinished(segment) => {
                let problem = "PostgreSQL cannot read it to its end, although there is WAL after it".to_owned();
                (Kind::Unfinished, Barrier::After(segment), problem)
            }
            Fault::Other { before, segment, reason } => {
                (Kind::OtherHistory, Barrier::Before(segment), format!("it does not continue {before}: {reason}"))
            }
        };
        let (found, places) = wal.barrier(self.repository, kind, barrier, problem);
        self.add(wal, found, &places).await
    }

    /// Adds an error of reading a segment. `file` is the one that was read, if the error does not name another.
    pub(super) async fn damaged(
        &mut self,
        wal: &ClaimWal,
        error: &Error,
        file: Option<WalFileName>,
    ) -> Result<(), Error> {
        let object = file.map(|file| wal.object(self.repository, file)).unwrap_or_default();
        let (kind, object, problem) = match judge(error, &object) {
            Judged::Damaged { kind, object, problem } => (Kind::Damaged, object, with(kind.words(), &problem)),
            Judged::Newer { object, reason } => (Kind::Newer, object, reason),
            Judged::Nothing => {
                self.is_complete = false;
                self.notes.push(format!("{object} cannot be judged: {error}"));
                return Ok(());
            }
        };
        let named = match object.parse() {
            Ok(holdfast_repo::name::ObjectPath::WalFile { file: WalFileName::Segment(segment), .. }) => Some(segment),
            _ => file.and_then(WalFileName::segment),
        };
        let Some(segment) = named else {
            self.is_complete = false;
            self.notes.push(format!("{object}: {problem}"));
            return Ok(());
        };
        let is_known = |found: &WalFinding| {
            found.kind == kind && found.claim == wal.claim.number && found.file == WalFileName::Segment(segment)
        };
        if self.findings.iter().any(is_known) {
            return Ok(());
        }
        if error.is_not_found() && self.was_removed(wal, segment).await? {
            self.notes.push(format!("{segment} of claim {} was removed meanwhile by `expire`", wal.claim.number));
            return Ok(());
        }
        let (found, places) = wal.barrier(self.repository, kind, Barrier::In(segment), problem);
        self.add(wal, found, &places).await
    }

    /// Whether `expire` removed a segment that was listed before.
    async fn was_removed(&self, wal: &ClaimWal, segment: SegmentName) -> Result<bool, Error> {
        let removed = Removed::read(self.repository, &wal.claim).await?;
        Ok(removed.of(segment.timeline()).holding(segment.number(wal.size())).is_some())
    }

    /// Adds a finding, with the last transactions before it.
    async fn add(&mut self, wal: &ClaimWal, mut found: WalFinding, places: &[(usize, usize)]) -> Result<(), Error> {
        for (lost, (line, stretch)) in found.lost.iter_mut().zip(places) {
            let stretch = wal.lines.get(*line).and_then(|line| line.stretches.get(*stretch));
            let Some(stretch) = stretch.filter(|_| self.times_asked < MOST_TIMES) else { continue };
            self.times_asked += 1;
            let (crew, cancel) = (&self.reader.crew, &self.reader.cancel);
            lost.from_time =
                wal.chains.last_before(stretch, lost.from_lsn, self.repository, crew, cancel).boxed().await?;
        }
        self.findings.add(found);
        Ok(())
    }

    /// Adds the files for which the archive was offered other content.
    async fn divergences(&mut self) -> Result<(), Error> {
        let listed = self.repository.ledger(&self.options.cluster, LedgerKind::Divergence).await?;
        let mut offers: BTreeMap<(ClaimNumber, WalFileName), (u64, String)> = BTreeMap::new();
        for (_, record) in listed.records {
            let LedgerEntry::Divergence { claim, file, .. } = record.entry else { continue };
            let offer = offers.entry((claim, file)).or_default();
            offer.0 += 1;
            offer.1 = format!("at {} by host {}", record.time.format("%Y-%m-%d %H:%M:%S UTC"), record.host);
        }
        for ((claim, file), (times, last)) in offers {
            let Some(wal) = self.claims.iter().find(|wal| wal.claim.number == claim) else { continue };
            let object = wal_object_name(self.repository, &self.options.cluster, &wal.claim, &file);
            let offered = if times == 1 { "once".to_owned() } else { format!("{times} times, the last time") };
            let problem =
                format!("the archive was offered other content for it, {offered} {last}; what it has was kept");
            let mut found = finding(Kind::Divergence, Weight::Remark, claim, file, object, problem);
            found.advice = advice(&found);
            self.findings.add(found);
        }
        Ok(())
    }

    /// The time, by the clock of the caller.
    pub(super) fn now(&self) -> DateTime<Utc> {
        self.options.now + TimeDelta::from_std(self.began.elapsed()).unwrap_or_default()
    }

    /// The result, as far as the run got.
    pub(super) fn finish(self) -> WalVerification {
        let claims =
            self.claims.iter().map(|wal| ClaimWalVerified { claim: wal.claim.number, timelines: wal.timelines() });
        let claims = claims.collect();
        let (findings, note) = self.findings.into_parts();
        let notes = self.notes.into_iter().chain(note).collect();
        WalVerification {
            claims,
            findings,
            healing: self.healing,
            notes,
            segment_count: self.segment_count,
            compared_count: self.compared_count,
            read_bytes: self.reader.read_bytes.load(Ordering::Relaxed),
            ..WalVerification::default()
        }
    }
}

/// The rows of a line that a backup needs.
fn rows(line: &Line, wal: &ClaimWal) -> Vec<Row> {
    let size = wal.size();
    let last = line.stretches.len().saturating_sub(1);
    let rows = line.stretches.iter().enumerate().map(|(place, stretch)| {
        let begins = wal.chains.beginnings().iter().filter(|begins| stretch.backups.contains(&begins.backup_id));
        let from = begins.map(|begins| begins.start_segment.number(size)).min().unwrap_or_default();
        let segments = stretch.segments.iter().filter_map(|range| {
            SegmentRange::new(range.timeline, range.first.number(size).max(from), range.last.number(size), size)
        });
        Row { segments: segments.collect(), is_newest: place == last }
    });
    rows.collect()
}

fn is_from(file: WalFileName, oldest: Lsn, size: WalSegmentSize) -> bool {
    file.segment().is_none_or(|segment| segment.end_lsn(size) > oldest)
}
