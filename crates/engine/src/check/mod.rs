//! The verb `check`: tests end to end whether everything that backup and archive need works now.
//!
//! Steps: open the repositories; compare the data directory with the claims; try the stores as `repo init` does; check
//! that the server belongs to the data directory and archives; write a restore point, finish its WAL segment, and wait
//! for the segment in every repository: every committed transaction takes this path; compare the segment with what is
//! stored under its name; follow the WAL from the newest backup to it.
//!
//! Only a restore point and a claim remain (the first archived segment would take that claim as well).

mod continuity;
mod locks;
mod uploads;

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
pub use holdfast_contract::report::check::{CheckReport, Finding, Verdict};
use holdfast_pgtypes::{ControlFile, Lsn, SegmentName, WalSegmentSize};
use holdfast_repo::Compression;
use holdfast_repo::name::{ClusterName, SlotName};
use holdfast_repo::record::ClaimRecord;
use holdfast_secret::Secret;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::archive::{self, OwnWal};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::claim::{Claimant, Identity};
use crate::repository::listed::Unreadable;
use crate::repository::{Repository, RepositoryTarget, capabilities, init};
use crate::server::read_control_file;
use crate::server::{Connection, ConnectionSettings, Environment, ServerFacts, prove_same};

/// The name of the restore point that a check writes.
pub const RESTORE_POINT: &str = "holdfast check";

/// How long to wait between two looks for the segment.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How long a listing may lack a segment that the server counts as archived. `archive_command` ends after the segment
/// is stored, so this is only for stores whose listings are late.
const COUNTED_FOR: Duration = Duration::from_secs(3);

/// The options of a check.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// The archive's name.
    pub cluster: ClusterName,
    /// The owner for whom the archive is claimed; a claim with another owner is refused.
    pub owner: Option<String>,
    /// The data directory.
    pub pgdata: PathBuf,
    /// The connection string; `None` to find the server through `postmaster.pid`.
    pub connection: Option<Secret>,
    /// The values that libpq would take from the environment.
    pub environment: Environment,
    /// The compression of WAL; its codec is used if this check claims the archive.
    pub wal_compression: Compression,
    /// How long to wait for the segment.
    pub archive_timeout: Duration,
    /// The name of this host, for a claim.
    pub host: String,
    /// The time of the check.
    pub now: DateTime<Utc>,
}

/// Runs the check. A failed step ends it with an error; the report has all earlier results and the failure.
///
/// # Errors
/// The second part is the error of the failed step: those of [`Repository::open`], [`Repository::take_claim`],
/// [`read_control_file`], [`Connection::open`], [`ServerFacts::ask`] and [`prove_same`], [`Cause::Store`] if the store
/// fails a trial, [`Cause::NotArchived`] if the segment does not arrive in time, [`Cause::Divergence`] if the archive
/// has WAL of another history, [`Cause::Cancelled`] while it waits.
pub async fn check(
    targets: &[RepositoryTarget],
    options: &CheckOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> (CheckReport, Result<(), Error>) {
    let mut report = CheckReport::default();
    progress.phase("checking", None);
    let outcome = run_steps(targets, options, cancel, &mut report).await;
    if let Err(error) = &outcome {
        let subject = error.doing.first().cloned().unwrap_or_else(|| "check".to_owned());
        report.add(subject, Verdict::Failed, error.what.to_string());
    }
    (report, outcome)
}

async fn run_steps(
    targets: &[RepositoryTarget],
    options: &CheckOptions,
    cancel: &CancellationToken,
    report: &mut CheckReport,
) -> Result<(), Error> {
    let mut repositories = Vec::new();
    for target in targets {
        let repository = Repository::open(target).await?;
        repository.check_writable()?;
        describe_repository(&repository, &repository.further_slots_left_out().await?, report);
        repositories.push(repository);
    }
    let control = read_control_file(&options.pgdata)?;
    report.add(
        "data directory",
        Verdict::Ok,
        format!(
            "{}: PostgreSQL {}, system identifier {}, page checksums {}",
            options.pgdata.display(),
            control.version,
            control.system_identifier,
            if control.has_data_checksums() { "on" } else { "off" }
        ),
    );
    let claimant = Claimant {
        identity: Identity::of_control_file(&control),
        here: format!("the data directory {}", options.pgdata.display()),
        owner: options.owner.clone(),
        wal_codec: options.wal_compression.codec(),
        host: options.host.clone(),
        now: options.now.trunc_subsecs(0),
    };
    let mut claims = Vec::new();
    for repository in &repositories {
        let is_new = repository.newest_claim(&options.cluster).await?.is_none();
        let claim = repository.take_claim(&options.cluster, &claimant).await?;
        let new = if is_new {
            ", which has begun this archive now: if it should exist already, look at `cluster.name`"
        } else {
            ""
        };
        report.add(
            format!("archive {}", options.cluster),
            Verdict::Ok,
            format!("claim {} in {} belongs to this cluster{new}", claim.number, repository.describe()),
        );
        claims.push(claim);
    }
    // Only now, so that a check by a cluster that does not own the archive writes nothing.
    for (target, repository) in targets.iter().zip(&repositories) {
        try_store(target, repository, report).await?;
        uploads::count_old(repository, options.now, report).await;
        locks::look(repository, options.now, report).await?;
    }
    let settings = ConnectionSettings {
        connection: options.connection.as_ref().map(|text| text.expose().as_str()),
        subject: "cluster.connection",
        environment: &options.environment,
        pgdata: Some(options.pgdata.clone()),
    };
    let connection = Connection::open(&settings).await?;
    let facts = ServerFacts::ask(&connection).await?;
    check_server(&connection, &facts, options, report).await?;
    let archived = Archived { repositories: &repositories, claims: &claims, options, cancel };
    let timeline = if facts.in_recovery {
        if facts.archives() {
            archived.refuse_stopped_archiver().await?;
        }
        archived.compare_replayed(&read_control_file(&options.pgdata)?).await?;
        report.add(
            "archiving",
            Verdict::Warning,
            "this server is a standby, which cannot write a restore point: run the check on the primary as well",
        );
        let control = read_control_file(&options.pgdata)?;
        control.reached_timeline()
    } else {
        let size = read_control_file(&options.pgdata)?.wal_segment_size;
        let segment = write_restore_point(&connection, size).await?;
        match archived.wait(segment, &connection).await? {
            None => {
                archived.compare((segment, segment), segment.end_lsn(size)).await?;
                report.add("archiving", Verdict::Ok, format!("segment {segment} reached every repository"));
            }
            Some(repository) => report.add(
                "archiving",
                Verdict::Failed,
                format!(
                    "the server counts segment {segment} as archived, but it is not in {repository}: {} reports success \
                     without storing it there",
                    how_archived(&facts)
                ),
            ),
        }
        segment.timeline()
    };
    connection.close().await;
    for (repository, claim) in repositories.iter().zip(&claims) {
        continuity::check(repository, claim, timeline, options.now, cancel, report).await?;
    }
    Ok(())
}

/// Tries the store as `repo init` did: since then it may have been replaced, or a proxy may have been put in front of
/// it.
async fn try_store(target: &RepositoryTarget, repository: &Repository, report: &mut CheckReport) -> Result<(), Error> {
    let found = init::try_store(&*target.store).await?;
    let disproved = capabilities::disproved(repository.record(), found.capabilities);
    let url = repository.describe();
    if !disproved.is_empty() {
        let detail = format!(
            "{url} can do less than when `repo init` tried it: {}; repair the store (or the proxy in front of it), or \
             create a new repository",
            disproved.join(", ")
        );
        report.add("store", Verdict::Failed, detail);
    } else if found.faults.is_empty() {
        report.add("store", Verdict::Ok, format!("{url}: writes, uploads, reads, listings and deletes were tried"));
    } else {
        report.add("store", Verdict::Warning, format!("{url}: {}", found.faults.join("; ")));
    }
    Ok(())
}

fn describe_repository(repository: &Repository, further: &[Unreadable<SlotName>], report: &mut CheckReport) {
    let record = repository.record();
    let detail =
        format!("{}: repository {}, encryption {}", repository.describe(), record.repository_id, record.encryption);
    report.add("repository", Verdict::Ok, detail);
    for slot in repository.slots_left_out().iter().chain(further) {
        let detail = format!("{} in {} is left out: {}", slot.object, repository.describe(), slot.error.what);
        report.add("key slot", Verdict::Warning, detail);
    }
    if let Some((slot, epoch)) = repository.rotated_without_us() {
        let detail = format!(
            "{}: the keys were rotated, and key slot {slot} is of epoch {epoch}: the configured secret gives only earlier keys; \
             configure a secret that opens the repository since the rotation (if nobody rotated the keys, somebody put that slot \
             there)",
            repository.describe()
        );
        report.add("key slot", Verdict::Warning, detail);
    }
    if let Err(error) = repository.check_newest_key() {
        report.add("key slot", Verdict::Failed, format!("nothing is written: {}", error.what));
    }
}

async fn check_server(
    connection: &Connection,
    facts: &ServerFacts,
    options: &CheckOptions,
    report: &mut CheckReport,
) -> Result<(), Error> {
    facts.check_is_of(&options.pgdata, read_control_file(&options.pgdata)?.system_identifier)?;
    prove_same(connection, &options.pgdata).await?;
    report.add("server", Verdict::Ok, format!("PostgreSQL {}, wal_level {}", facts.version_text, facts.wal_level));
    if facts.archives() {
        let how = how_archived(facts);
        report.add("archive settings", Verdict::Ok, format!("archive_mode {}: {how}", facts.archive_mode));
    } else {
        report.add(
            "archive settings",
            if facts.in_recovery { Verdict::Warning } else { Verdict::Failed },
            format!("archive_mode is {}, archive_command is {:?}", facts.archive_mode, facts.archive_command),
        );
    }
    Ok(())
}

/// The command or library that archives.
fn how_archived(facts: &ServerFacts) -> &str {
    if facts.archive_library.is_empty() { &facts.archive_command } else { &facts.archive_library }
}

/// Writes a restore point and finishes its segment. Returns the name of the segment.
async fn write_restore_point(connection: &Connection, size: WalSegmentSize) -> Result<SegmentName, Error> {
    let row = connection
        .client()
        .query_one(
            "WITH point AS (SELECT pg_create_restore_point($1) AS lsn), \
             named AS MATERIALIZED (SELECT pg_walfile_name(lsn) AS name FROM point) \
             SELECT name, lsn::text, pg_switch_wal()::text FROM named, point",
            &[&RESTORE_POINT],
        )
        .await
        .doing(|| "writing a restore point and finishing its WAL segment".to_owned())?;
    let (name, lsn): (String, String) = (row.get(0), row.get(1));
    let unread = |text: &str| Cause::Malformed { name: "the server's answer".to_owned(), reason: text.to_owned() };
    let named: SegmentName = name.parse().map_err(|_| unread(&name))?;
    Ok(segment_before(lsn.parse().map_err(|_| unread(&lsn))?, named, size))
}

/// The segment of the byte before this LSN, on the timeline of `named`, which the server names for the LSN. At a
/// segment boundary PostgreSQL 17 and later name the segment that begins there, but a switch finishes the one before.
fn segment_before(lsn: Lsn, named: SegmentName, size: WalSegmentSize) -> SegmentName {
    SegmentName::ending_at(lsn, named.timeline(), size)
}

struct Archived<'a> {
    repositories: &'a [Repository],
    claims: &'a [ClaimRecord],
    options: &'a CheckOptions,
    cancel: &'a CancellationToken,
}

fn comparing() -> String {
    "comparing the archive with the WAL of this server".to_owned()
}

impl Archived<'_> {
    /// Fails if the archiver cannot continue, because the archive has other content under the next name.
    async fn refuse_stopped_archiver(&self) -> Result<(), Error> {
        let pg_wal = self.options.pgdata.join("pg_wal");
        for own in self.beside(&pg_wal) {
            own.refuse_stopped_archiver().await.doing(comparing)?;
        }
        Ok(())
    }

    /// Fails if the archive has other WAL than this server for these segments before `end`.
    async fn compare(&self, segments: (SegmentName, SegmentName), end: Lsn) -> Result<(), Error> {
        let (pg_wal, crew) = (self.options.pgdata.join("pg_wal"), Crew::new(1));
        for own in self.beside(&pg_wal) {
            own.refuse_other_history(&[segments], end, segments.1.timeline(), &crew).await.doing(comparing)?;
        }
        Ok(())
    }

    /// The same for the newest WAL that a standby has replayed.
    async fn compare_replayed(&self, control: &ControlFile) -> Result<(), Error> {
        let reached = control.min_recovery_point.zip(control.min_recovery_timeline);
        let Some((end, timeline)) = reached else { return Ok(()) };
        let last = SegmentName::ending_at(end, timeline, control.wal_segment_size);
        self.compare((last.previous(control.wal_segment_size).unwrap_or(last), last), end).await
    }

    fn beside<'b>(&'b self, pg_wal: &'b Path) -> impl Iterator<Item = OwnWal<'b>> {
        let archives = self.repositories.iter().zip(self.claims);
        archives.map(move |(repository, claim)| OwnWal { repository, cluster: &self.options.cluster, claim, pg_wal })
    }

    /// Waits for the segment. Returns a repository that does not have it although the server counts it as archived.
    async fn wait(&self, segment: SegmentName, connection: &Connection) -> Result<Option<String>, Error> {
        let deadline = Instant::now() + self.options.archive_timeout;
        let phrase = || format!("waiting for WAL segment {segment} to reach every repository");
        let mut counted_since = None;
        // An archiver that has stopped does not send the segment, or it is there from another server.
        self.refuse_stopped_archiver().await?;
        loop {
            if counted_since.is_none() && ServerFacts::counts_as_archived(connection, segment).await? {
                counted_since = Some(Instant::now());
            }
            let mut missing = None;
            for (repository, claim) in self.repositories.iter().zip(self.claims) {
                let cluster = &self.options.cluster;
                let absent =
                    archive::missing_segments(repository, cluster, claim, segment, segment).await.doing(phrase)?;
                if !absent.is_empty() {
                    missing.get_or_insert_with(|| repository.describe());
                }
            }
            let Some(repository) = missing else { return Ok(None) };
            if counted_since.is_some_and(|since: Instant| since.elapsed() >= COUNTED_FOR) {
                return Ok(Some(repository));
            }
            if Instant::now() >= deadline {
                self.refuse_stopped_archiver().await?;
                let waited = self.options.archive_timeout;
                let what = Cause::NotArchived { segment: segment.to_string(), waited };
                return Err(Error::from(what)).doing(phrase);
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN_AFTER) => {}
                () = self.cancel.cancelled() => return Err(Cause::Cancelled.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_record_that_ends_at_a_boundary_is_in_the_segment_before_it() {
        let size = WalSegmentSize::new(16 << 20).unwrap();
        for (lsn, named, expected) in [
            ("0/3000000", "000000020000000000000003", "000000020000000000000002"),
            ("0/3000000", "000000020000000000000002", "000000020000000000000002"),
            ("0/3000128", "000000020000000000000003", "000000020000000000000003"),
        ] {
            assert_eq!(segment_before(lsn.parse().unwrap(), named.parse().unwrap(), size).to_string(), expected);
        }
    }
}
