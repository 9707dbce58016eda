//! Brings missing files back from folders: `pg_wal` of a server that still has them, or an archive of plain files.
//!
//! What is stored wrong stays for ever. So a gap is judged as a whole before its first segment is stored: the folder
//! has all of its segments, each can be read to its end with every CRC, and they are proven to be of the history that
//! the archive has before and after the gap ([`super::proof`]). In doubt nothing is stored, and the report has the
//! reason.
//!
//! A history file does not name its cluster, and its content cannot be compared with WAL. So it is taken only from a
//! folder that is of this cluster, if it contradicts no other history, and if the first archived segment of its
//! timeline begins at its switch point with the record that begins a timeline.
//!
//! One gap that cannot be healed, for whatever reason, does not keep another one from being healed. After each round
//! the archive is listed again: what was healed may be the neighbour of another gap.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use holdfast_contract::report::wal_verify::{HealedFile, UnhealedFile, WalFindingKind as Kind, WalHealing};
use holdfast_pgtypes::wal::reader::WalSegment;
use holdfast_pgtypes::{HistoryFile, Lsn, PgVersion, SegmentName, TimelineId, WalFileName};
use holdfast_repo::ChunkHash;
use holdfast_repo::catalog::SegmentRange;
use holdfast_repo::name::ClaimNumber;

use super::compare::is_of_the_segment;
use super::ends::{Ends, Proof};
use super::histories::disagreement;
use super::look::{ClaimWal, Gap};
use super::proof::{Agreement, Chain, agreement, begins_at};
use super::run::Run;
use crate::archive::{Destination, FolderOwner, archive_as_judged, owner_of_folder, read_local};
use crate::error::{Cause, Error};

/// A folder to heal from.
struct Folder {
    path: PathBuf,
    owner: FolderOwner,
}

/// A file that may be stored.
struct Proven {
    path: PathBuf,
    file: WalFileName,
    content: ChunkHash,
}

/// Why something was not healed.
#[derive(Default)]
struct Reasons {
    gaps: Vec<(ClaimNumber, Gap, String)>,
    histories: BTreeMap<(ClaimNumber, TimelineId), String>,
}

/// Why files of a folder that several servers may have filled are not believed.
fn of_several(before: &str, after: &str) -> String {
    format!(
        "only a position joins {after} to {before}, so they can be of two servers: give the pg_wal of the data directory \
         of the server that wrote them, or a copy of that data directory"
    )
}

/// No folder has a file of what is missing.
const NOWHERE: &str = "no folder has it";

impl Run<'_> {
    /// Archives every missing file that one of the folders has and that is proven to be the missing one.
    pub(super) async fn heal(&mut self) -> Result<(), Error> {
        let mut folders = Vec::new();
        for path in &self.options.heal_from {
            let owner = owner_of_folder(path).await?;
            self.refuse_foreign(path, owner)?;
            folders.push(Folder { path: path.clone(), owner });
        }
        self.healing = Some(WalHealing::default());
        loop {
            self.reader.progress.phase("healing WAL", None);
            let before = self.healed().len();
            let claims = std::mem::take(&mut self.claims);
            let mut reasons = Reasons::default();
            let round = self.heal_round(&claims, &folders, &mut reasons).await;
            self.claims = claims;
            let left = self.left(&reasons);
            if let Some(healing) = &mut self.healing {
                healing.healed.sort_by_key(|healed| (healed.claim, healed.file));
                healing.left = left;
            }
            round?;
            if self.healed().len() == before {
                return Ok(());
            }
            Box::pin(self.list_wal()).await?;
        }
    }

    fn healed(&self) -> &[HealedFile] {
        self.healing.as_ref().map_or(&[], |healing| &healing.healed)
    }

    async fn heal_round(
        &mut self,
        claims: &[ClaimWal],
        folders: &[Folder],
        reasons: &mut Reasons,
    ) -> Result<(), Error> {
        for wal in claims {
            let claim = wal.claim.number;
            let of_claim = |folder: &&Folder| match folder.owner {
                FolderOwner::Cluster(owner) => owner == wal.claim.system_identifier,
                FolderOwner::Unknown => true,
            };
            let folders: Vec<&Folder> = folders.iter().filter(of_claim).collect();
            let mut has_history = false;
            for timeline in wal.chains.without_history() {
                let mut reason = "no folder of a server of this cluster has it".to_owned();
                for folder in folders.iter().filter(|folder| folder.owner != FolderOwner::Unknown) {
                    self.cancelled()?;
                    match self.judge_history(wal, timeline, &folder.path).await? {
                        Ok(proven) => match self.store(wal, &[proven]).await? {
                            Ok(()) => has_history = true,
                            Err(why) => reason = why,
                        },
                        Err(why) => reason = why.unwrap_or(reason),
                    }
                    if has_history {
                        break;
                    }
                }
                reasons.histories.insert((claim, timeline), reason);
            }
            // A history leads to other gaps.
            if has_history {
                continue;
            }
            for gap in wal.gaps_of_lines() {
                let mut reason = NOWHERE.to_owned();
                for folder in &folders {
                    self.cancelled()?;
                    let stored = match self.judge_gap(wal, &gap, folder).await? {
                        Ok(proven) => self.store(wal, &proven).await?,
                        Err(why) => Err(why),
                    };
                    match stored {
                        Ok(()) => break,
                        Err(why) if why == NOWHERE => {}
                        Err(why) => reason = why,
                    }
                }
                reasons.gaps.push((claim, gap, reason));
            }
        }
        Ok(())
    }

    fn cancelled(&self) -> Result<(), Error> {
        if self.reader.cancel.is_cancelled() { Err(Cause::Cancelled.into()) } else { Ok(()) }
    }

    /// Refuses a folder whose data directory is of a cluster that has no claim here.
    fn refuse_foreign(&self, folder: &Path, owner: FolderOwner) -> Result<(), Error> {
        let FolderOwner::Cluster(found) = owner else { return Ok(()) };
        let Some(newest) = self.claims.last().map(|wal| wal.claim.system_identifier) else { return Ok(()) };
        if self.claims.iter().any(|wal| wal.claim.system_identifier == found) {
            return Ok(());
        }
        Err(Cause::WrongCluster {
            store: self.repository.describe(),
            cluster: self.options.cluster.to_string(),
            claimed: newest,
            here: format!("the folder {}", folder.display()),
            found,
        }
        .into())
    }

    /// The files of a gap, if a folder has all of them and they are proven; otherwise the reason.
    async fn judge_gap(
        &self,
        wal: &ClaimWal,
        gap: &Gap,
        Folder { path: folder, owner }: &Folder,
    ) -> Result<Result<Vec<Proven>, String>, Error> {
        let size = wal.size();
        let names = || gap.ranges.iter().flat_map(|range| range.names(size));
        let is_there = |name: &SegmentName| folder.join(name.to_string()).is_file();
        let count = names().filter(is_there).count();
        if count == 0 {
            return Ok(Err(NOWHERE.to_owned()));
        }
        let shown = folder.display();
        if let Some(lacks) = names().find(|name| !is_there(name)) {
            let all = names().count();
            return Ok(Err(format!("{shown} has {count} of the {all} missing segments, and not {lacks}")));
        }
        let (Some(before), Some(after)) = (gap.before, gap.after.first().copied()) else {
            let reason = "the archive does not have the segments before and after it, so nothing shows that it is of \
                          the same history";
            return Ok(Err(format!("{shown}: {reason}")));
        };
        let mut proven = Vec::new();
        // `pg_wal` has the files of one server. Any other folder may have been filled by several.
        let may_be_of_several = *owner == FolderOwner::Unknown;
        match self.prove(wal, gap, (folder.as_path(), may_be_of_several), (before, after), &mut proven).await {
            Ok(Ok(())) => Ok(Ok(proven)),
            Ok(Err(reason)) => Ok(Err(format!("{shown}: {reason}"))),
            // Damage in the archive or in the folder concerns this gap only.
            Err(error) if is_of_the_file(&error) || is_of_the_segment(&error) => Ok(Err(format!("{shown}: {error}"))),
            Err(error) => Err(error),
        }
    }

    async fn prove(
        &self,
        wal: &ClaimWal,
        gap: &Gap,
        (folder, may_be_of_several): (&Path, bool),
        (before, after): (SegmentName, SegmentName),
        proven: &mut Vec<Proven>,
    ) -> Result<Result<(), String>, Error> {
        let size = wal.size();
        let version = PgVersion::new(wal.claim.pg_major)
            .map_err(|source| Cause::StoredVersion { name: format!("the archive {}", wal.claim.cluster), source })?;
        let archived = self.reader.whole(&wal.claim, before).await?;
        if let Agreement::Differs(at) = self.own_copy(wal, folder, &archived, (before, before), Lsn::MAX).await? {
            return Ok(Err(format!("its {before} differs from the archived one from {at} on")));
        }
        let mut chain = Chain::after(self.scan(archived, before, version, wal).await?.0, size);
        for name in gap.ranges.iter().flat_map(|range| range.names(size)) {
            self.cancelled()?;
            let path = folder.join(name.to_string());
            let (ends, bytes) = self.scan(read_local(&wal.claim, &path).await?, name, version, wal).await?;
            if ends.is_unfinished() {
                let reason = "PostgreSQL cannot read it to its end, with every CRC: it was received or written in part \
                              only, or is damaged";
                return Ok(Err(format!("{name} is not whole: {reason}")));
            }
            match (chain.add(ends), proven.last()) {
                (Err(reason), _) => return Ok(Err(reason)),
                // The first one may continue the archive in this way: the others show whose it is.
                (Ok(Proof::Link), Some(Proven { file, .. })) if may_be_of_several => {
                    return Ok(Err(of_several(&file.to_string(), &name.to_string())));
                }
                (Ok(_), _) => {}
            }
            proven.push(Proven { path, file: WalFileName::Segment(name), content: ChunkHash::of(&bytes) });
        }
        let archived = self.reader.whole(&wal.claim, after).await?;
        // The server may have the segment after the gap under the name of the timeline that ended in it.
        let last = gap.ranges.last().map_or(after.timeline(), |range| range.timeline);
        let mut found = self.own_copy(wal, folder, &archived, (after, after), Lsn::MAX).await?;
        if let (Agreement::Unknown, Some(until)) = (found, gap.left_at.filter(|_| last != after.timeline())) {
            found = self.own_copy(wal, folder, &archived, (after, after.on_timeline(last)), until).await?;
        }
        let proof = match chain.add(self.scan(archived, after, version, wal).await?.0) {
            Ok(proof) if chain.is_proven() => proof,
            Ok(_) => return Ok(Err(format!("nothing shows that {after} continues it: a record continues after it"))),
            Err(reason) => return Ok(Err(reason)),
        };
        let mut differs = after;
        for &later in gap.after.iter().skip(1) {
            if found != Agreement::Unknown || proof == Proof::Checksum || !folder.join(later.to_string()).is_file() {
                break;
            }
            let archived = self.reader.whole(&wal.claim, later).await?;
            found = self.own_copy(wal, folder, &archived, (later, later), Lsn::MAX).await?;
            differs = later;
        }
        Ok(match (proof, found) {
            (_, Agreement::Differs(at)) => Err(format!("its {differs} differs from the archived one from {at} on")),
            (Proof::Link, _) if may_be_of_several => {
                let last = proven.last().map_or_else(String::new, |proven| proven.file.to_string());
                Err(of_several(&last, &after.to_string()))
            }
            (Proof::Checksum, _) | (Proof::Link, Agreement::Same) => Ok(()),
            (Proof::Link | Proof::Nothing, _) => Err(format!(
                "it ends between two records, and only a position joins it to the archived {after}. To prove that they \
                 are of one history, the folder must have {after} too, or some segments from it on, with at least one \
                 transaction"
            )),
        })
    }

    /// Compares an archived segment with the file of a folder; `Unknown` if it is not there, or not that segment.
    async fn own_copy(
        &self,
        wal: &ClaimWal,
        folder: &Path,
        archived: &[u8],
        (name, own): (SegmentName, SegmentName),
        until: Lsn,
    ) -> Result<Agreement, Error> {
        let path = folder.join(own.to_string());
        let Ok(version) = PgVersion::new(wal.claim.pg_major) else { return Ok(Agreement::Unknown) };
        if !path.is_file() {
            return Ok(Agreement::Unknown);
        }
        let bytes = match read_local(&wal.claim, &path).await {
            Ok(bytes) => bytes,
            // A recycled file, or one that is being written: it says nothing.
            Err(error) if is_of_the_file(&error) => return Ok(Agreement::Unknown),
            Err(error) => return Err(error),
        };
        let (size, archived) = (wal.size(), archived.to_vec());
        let compared = self.reader.crew.run(move || {
            let archived = WalSegment { bytes: &archived, name, size, version };
            agreement(archived, WalSegment { bytes: &bytes, name: own, size, version }, until)
        });
        compared.await
    }

    async fn scan(
        &self,
        bytes: Vec<u8>,
        name: SegmentName,
        version: PgVersion,
        wal: &ClaimWal,
    ) -> Result<(Ends, Vec<u8>), Error> {
        let size = wal.size();
        let scanned = self.reader.crew.run(move || {
            let ends = Ends::scan(WalSegment { bytes: &bytes, name, size, version });
            (ends, bytes)
        });
        scanned.await
    }

    /// The history file of a timeline, if a folder has it and it is proven; otherwise the reason, or `None` if the
    /// folder does not have it.
    async fn judge_history(
        &self,
        wal: &ClaimWal,
        timeline: TimelineId,
        folder: &Path,
    ) -> Result<Result<Proven, Option<String>>, Error> {
        let file = WalFileName::History(timeline);
        let path = folder.join(file.to_string());
        if !path.is_file() {
            return Ok(Err(None));
        }
        let shown = path.display().to_string();
        match self.prove_history(wal, timeline, &path).await {
            Ok(Ok(content)) => Ok(Ok(Proven { path, file, content })),
            Ok(Err(reason)) => Ok(Err(Some(format!("{shown}: {reason}")))),
            Err(error) if is_of_the_file(&error) || is_of_the_segment(&error) => {
                Ok(Err(Some(format!("{shown}: {error}"))))
            }
            Err(error) => Err(error),
        }
    }

    async fn prove_history(
        &self,
        wal: &ClaimWal,
        timeline: TimelineId,
        path: &Path,
    ) -> Result<Result<ChunkHash, String>, Error> {
        let size = wal.size();
        let bytes = read_local(&wal.claim, path).await?;
        let history = HistoryFile::parse(timeline, &bytes)
            .map_err(|e| Cause::Malformed { name: path.display().to_string(), reason: e.to_string() })?;
        let Some(parent) = history.parent() else {
            return Ok(Err(format!("it does not say from which timeline {timeline} comes")));
        };
        let (from, switch) = (parent.timeline, parent.switch_lsn);
        let against = |other: &HistoryFile| disagreement(&history, other).or_else(|| disagreement(other, &history));
        if let Some(reason) = wal.chains.histories().values().find_map(against) {
            return Ok(Err(format!("it is of another history: {reason}")));
        }
        if history.entries().len() > 1 && !wal.chains.histories().contains_key(&from) {
            let reason = "is not in the archive, so its statements about earlier timelines are unproven";
            return Ok(Err(format!("the history of timeline {from}, which it continues, {reason}")));
        }
        let Some(SegmentRange { first, .. }) = wal.chains.wal().ranges(timeline).first().copied() else {
            return Ok(Err(format!("the archive has no segment of timeline {timeline} that shows where it begins")));
        };
        if first.number(size) != switch.as_u64() / size.as_u64() {
            return Ok(Err(format!(
                "it says that timeline {timeline} begins at {switch}, and its first archived segment is {first}"
            )));
        }
        let version = PgVersion::new(wal.claim.pg_major)
            .map_err(|source| Cause::StoredVersion { name: format!("the archive {}", wal.claim.cluster), source })?;
        let archived = self.reader.whole(&wal.claim, first).await?;
        let begins = self.reader.crew.run(move || {
            begins_at(WalSegment { bytes: &archived, name: first, size, version }, switch, timeline, from)
        });
        Ok(begins.await?.map(|()| ChunkHash::of(&bytes)))
    }

    /// Stores proven files, oldest first. A reason ends it if one of them cannot be stored.
    async fn store(&mut self, wal: &ClaimWal, proven: &[Proven]) -> Result<Result<(), String>, Error> {
        let destination = Destination { repository: self.repository.clone(), claim: wal.claim.clone() };
        let claim = wal.claim.number;
        for Proven { path, file, content } in proven {
            self.cancelled()?;
            let (crew, cancel) = (&self.reader.crew, &self.reader.cancel);
            let compression = self.options.compression;
            match archive_as_judged(&destination, path, *content, compression, crew, cancel).await {
                Ok(archived) => {
                    self.reader.progress.note(&format!("{} is in the archive again", archived.file));
                    let healed = HealedFile { claim, file: *file, from: path.display().to_string() };
                    let known = self.healed().iter().any(|known| known.claim == claim && known.file == *file);
                    if let (Some(healing), false) = (&mut self.healing, known) {
                        healing.healed.push(healed);
                    }
                }
                Err(error) if is_of_the_file(&error) => return Ok(Err(format!("{}: {error}", path.display()))),
                Err(error) => return Err(error),
            }
        }
        Ok(Ok(()))
    }

    /// What is still missing, with the reasons.
    fn left(&self, reasons: &Reasons) -> Vec<UnhealedFile> {
        let mut left = Vec::new();
        for found in self.findings.iter() {
            let (claim, file, count) = (found.claim, found.file, found.count);
            let reason = match (found.kind, file) {
                (Kind::HistoryMissing, WalFileName::History(timeline)) => {
                    reasons.histories.get(&(claim, timeline)).cloned()
                }
                (Kind::Gap, WalFileName::Segment(first)) => {
                    let has = |gap: &Gap| {
                        gap.ranges.iter().any(|range| {
                            range.timeline == first.timeline() && range.first <= first && first <= range.last
                        })
                    };
                    let of_gap = reasons.gaps.iter().filter(|(of, gap, _)| *of == claim && has(gap));
                    // Of several lines, the one that says more.
                    of_gap.map(|(_, _, reason)| reason.clone()).max_by_key(|reason| reason != NOWHERE)
                }
                _ => continue,
            };
            let healed = |healed: &HealedFile| healed.claim == claim && healed.file == file;
            if !self.healed().iter().any(healed) {
                left.push(UnhealedFile { claim, file, count, reason: reason.unwrap_or_else(|| NOWHERE.to_owned()) });
            }
        }
        left.sort_by_key(|left| (left.claim, left.file));
        left
    }
}

/// Whether an error is about the file in the folder, and not about the store or this run.
fn is_of_the_file(error: &Error) -> bool {
    matches!(
        &*error.what,
        Cause::Refused(_)
            | Cause::Malformed { .. }
            | Cause::SegmentMismatch { .. }
            | Cause::SegmentSize { .. }
            | Cause::File { .. }
            | Cause::Divergence { .. }
    )
}
