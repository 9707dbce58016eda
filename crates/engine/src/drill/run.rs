//! The steps of a drill in its directory: restore, recover, query, check.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use holdfast_contract::exit_code::{ExitCode, Outlook};
use holdfast_contract::report::drill::{
    AmCheck, CheckOutcome, DrillDurations, DrillFinding, FindingKind, PageChecks, Probe,
};
use holdfast_pgtypes::recovery_target::RecoveryTarget;
use holdfast_pgtypes::{Lsn, PgVersion, SystemIdentifier, WalSegmentSize};
use holdfast_repo::recovery::RecoveryPlan;
use tokio_postgres::Client;

use super::directory::ThrowAway;
use super::outside::refuse_living;
use super::programs::Programs;
use super::server::{Access, Down, Server};
use super::{Bounds, DrillOptions, amcheck, blocking, milliseconds, pages, probes, settings};
use crate::error::{Cause, Error, ResultExt};
use crate::places::tablespaces;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::leases::Clock;
use crate::restore::{self, RestoreOptions};
use crate::server::read_control_file;

/// The results of the steps, for the report.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) restored_time: Option<DateTime<Utc>>,
    pub(super) restored_lsn: Option<Lsn>,
    pub(super) server_version: Option<String>,
    pub(super) fetched_bytes: u64,
    pub(super) written_bytes: u64,
    pub(super) pages: PageChecks,
    pub(super) amcheck: AmCheck,
    pub(super) probes: Vec<Probe>,
    pub(super) findings: Vec<DrillFinding>,
    pub(super) notes: Vec<String>,
}

impl Default for Found {
    fn default() -> Self {
        let reason = Some("the server did not come up".to_owned());
        Self {
            restored_time: None,
            restored_lsn: None,
            server_version: None,
            fetched_bytes: 0,
            written_bytes: 0,
            pages: PageChecks {
                outcome: CheckOutcome::NotRun,
                page_count: 0,
                bad_count: 0,
                checksums: false,
                reason: reason.clone(),
            },
            amcheck: AmCheck { outcome: CheckOutcome::NotRun, reason },
            probes: Vec::new(),
            findings: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// The steps in the directory.
pub(super) struct Run<'a> {
    pub(super) options: &'a DrillOptions,
    pub(super) directory: &'a ThrowAway,
    pub(super) programs: &'a Programs,
    pub(super) version: PgVersion,
    pub(super) bounds: &'a Bounds,
    pub(super) progress: &'a Arc<dyn Progress>,
    pub(super) clock: Clock,
    pub(super) statements: &'a [probes::Statement],
    pub(super) backup_stop: DateTime<Utc>,
    pub(super) plan: &'a RecoveryPlan,
    pub(super) target: &'a RecoveryTarget,
    pub(super) wal_segment_size: WalSegmentSize,
    /// The OIDs of the backup's tablespaces.
    pub(super) tablespaces: &'a [OsString],
    pub(super) system_identifier: SystemIdentifier,
    pub(super) found: Found,
}

impl Run<'_> {
    /// Runs all steps in order.
    pub(super) async fn all(
        &mut self,
        repository: &Repository,
        restoring: &RestoreOptions,
        durations: &mut DrillDurations,
    ) -> Result<(), Error> {
        if !self.restore(repository, restoring, durations).await? {
            return Ok(());
        }
        let Some(server) = self.recover(durations).await? else { return Ok(()) };
        let (mut server, access, client) = server;
        let asked = self.ask(&access, &client, durations).await;
        drop(client);
        // When a server crashes, its session ends a moment before the process does.
        let is_lost =
            matches!(&asked, Err(error) if matches!(&*error.what, Cause::Postgres(cause) if cause.is_closed()));
        let gone = if is_lost { server.gone_soon().await } else { server.gone() };
        if let Some(what) = gone {
            self.find(FindingKind::Server, format!("it started and then stopped: {what}"));
            self.found.pages.reason = Some("the server started and then stopped".to_owned());
            return Ok(());
        }
        if let Err(error) = asked {
            server.end().await;
            return Err(error);
        }
        self.progress.phase("stopping the server", None);
        let stopped = server.stop().await;
        self.note_outside();
        if let Err(what) = stopped {
            // Pages that were not checked are not proven.
            self.find(FindingKind::Server, format!("it was not shut down cleanly: {what}"));
            self.found.pages.reason = Some("the server was not shut down cleanly".to_owned());
            return Ok(());
        }
        self.check_pages(durations).await
    }

    fn find(&mut self, kind: FindingKind, what: String) {
        self.found.findings.push(DrillFinding { kind, what });
    }

    /// Restores the files. Returns `false` if they are not restored, with a finding.
    async fn restore(
        &mut self,
        repository: &Repository,
        restoring: &RestoreOptions,
        durations: &mut DrillDurations,
    ) -> Result<bool, Error> {
        let before = self.clock.passed();
        let stop = self.bounds.cancel.child_token();
        let restored = {
            let mut restoring = Box::pin(restore::restore(repository, restoring, self.progress, &stop));
            tokio::select! {
                restored = &mut restoring => restored,
                // Wait for its end: until then it writes into the directory.
                () = tokio::time::sleep_until(self.bounds.deadline) => { stop.cancel(); restoring.await }
            }
        };
        durations.restore_milliseconds = milliseconds(self.clock.passed().saturating_sub(before));
        match restored {
            Ok(report) => {
                self.found.fetched_bytes = report.fetched_bytes;
                self.found.written_bytes = report.written_bytes;
                Ok(true)
            }
            Err(error) if matches!(*error.what, Cause::Cancelled) && !self.bounds.is_cancelled() => {
                self.find(FindingKind::TimeLimit, "the files were not restored".to_owned());
                Ok(false)
            }
            Err(error) if error.is_of_one_object() => {
                self.find(FindingKind::Object, error.to_string());
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Starts the server and waits for the end of recovery.
    async fn recover(&mut self, durations: &mut DrillDurations) -> Result<Option<(Server, Access, Client)>, Error> {
        let pgdata = self.directory.pgdata();
        let has_configuration = pgdata.join(settings::CONFIGURATION).exists();
        if !has_configuration {
            self.found.notes.push(
                "the backup has no postgresql.conf, because the original server has it in another directory: the \
                 restored server ran with defaults"
                    .to_owned(),
            );
            write(&self.directory.file(settings::CONFIGURATION), "")?;
        }
        write(&self.directory.file(settings::HBA), settings::HBA_TEXT)?;
        write(&self.directory.file(settings::IDENT), "")?;
        let server_settings =
            settings::server(self.version, self.directory.path(), &pgdata, has_configuration, &self.options.settings)?;
        if let Some(owner) = self.options.owner {
            self.directory.give_to(owner)?;
        }
        let spool = (self.options.spool_variable.clone(), self.directory.spool().to_string_lossy().into_owned());
        let access = Access { socket: self.directory.path().to_owned(), role: self.options.role.clone() };

        // Checked again, long after the plan: another server may have made a tablespace meanwhile.
        refuse_living(self.options.living.as_deref(), self.tablespaces, self.system_identifier)?;
        self.progress.phase("recovering", None);
        let before = self.clock.passed();
        let mut server = Server::start(self.programs, self.directory, &server_settings, &[spool], self.options.owner)?;
        match server.ready(&access, &self.options.database, self.bounds).await {
            Ok(client) => match self.look(&client).await {
                Ok(()) => {
                    let now = self.clock.passed();
                    durations.replay_milliseconds = Some(milliseconds(now.saturating_sub(before)));
                    durations.recovery_milliseconds = Some(milliseconds(now));
                    Ok(Some((server, access, client)))
                }
                Err(error) => {
                    let what = server.gone().unwrap_or_else(|| error.to_string());
                    server.end().await;
                    self.find(FindingKind::Server, format!("it did not answer: {what}"));
                    Ok(None)
                }
            },
            Err(Down::Ended { command: Some(status), what }) if of_the_moment(status) => {
                Err(Cause::ReplayStopped { status, log: what }.into())
            }
            Err(Down::Ended { what, .. }) => {
                self.find(FindingKind::Server, format!("it did not come up: {what}"));
                Ok(None)
            }
            Err(Down::TooLong) => {
                server.end().await;
                self.find(FindingKind::TimeLimit, "recovery was still running".to_owned());
                Ok(None)
            }
            Err(Down::Failed(error)) => {
                server.end().await;
                Err(error)
            }
        }
    }

    /// Asks the server where replay ended.
    async fn look(&mut self, client: &Client) -> Result<(), Error> {
        let row = client
            .query_one(
                "SELECT to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', \
                 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), pg_last_wal_replay_lsn()::text, \
                 current_setting('server_version')",
                &[],
            )
            .await?;
        self.found.restored_time = row.get::<_, Option<String>>(0).and_then(|text| text.parse().ok());
        self.found.restored_lsn = row.get::<_, Option<String>>(1).and_then(|text| text.parse().ok());
        self.found.server_version = row.get(2);
        if let Some(what) = self.short_of() {
            self.find(FindingKind::Server, what);
        }
        Ok(())
    }

    /// A finding if replay ended before the LSN that the plan promises. PostgreSQL itself refuses to end before a
    /// target. But without a target, it treats any segment that it does not get as the end of the archive.
    fn short_of(&self) -> Option<String> {
        let Some(reached) = self.found.restored_lsn else {
            return Some("it does not report where replay ended".to_owned());
        };
        let last = self.plan.segments.last().map(|range| range.last.start_lsn(self.wal_segment_size));
        let promised = match self.target {
            RecoveryTarget::Latest => last.unwrap_or(self.plan.consistent_lsn).max(self.plan.consistent_lsn),
            _ => self.plan.consistent_lsn,
        };
        (reached < promised)
            .then(|| format!("replay ended at {reached}, and the archive has the WAL to continue to {promised}"))
    }

    /// Runs `pg_amcheck` and the user's queries.
    async fn ask(&mut self, access: &Access, client: &Client, durations: &mut DrillDurations) -> Result<(), Error> {
        let before = self.clock.passed();
        if self.options.amcheck {
            self.progress.phase("running pg_amcheck", None);
            let checked = amcheck::run(self.programs, self.directory, access, client, self.options, self.bounds).await;
            let (result, findings) = checked.doing(|| "running pg_amcheck".to_owned())?;
            if result.outcome != CheckOutcome::NotRun {
                durations.amcheck_milliseconds = Some(milliseconds(self.clock.passed().saturating_sub(before)));
            }
            self.found.amcheck = result;
            self.found.findings.extend(findings);
        } else {
            self.found.amcheck.reason = Some("it was switched off".to_owned());
        }
        if !self.statements.is_empty() {
            self.progress.phase("asking the probes", None);
            let before = self.clock.passed();
            let restored = self.found.restored_time.unwrap_or(self.backup_stop);
            let (probes, findings) =
                probes::run(self.statements, access, &self.options.database, restored, self.bounds).await?;
            durations.probes_milliseconds = Some(milliseconds(self.clock.passed().saturating_sub(before)));
            self.found.probes = probes;
            self.found.findings.extend(findings);
        }
        Ok(())
    }

    /// Adds a note for each tablespace outside the directory. WAL replay makes a tablespace that is newer than the
    /// backup in the same place as on the original server.
    fn note_outside(&mut self) {
        for (oid, place) in tablespaces(&self.directory.pgdata()) {
            if !place.starts_with(self.directory.path()) {
                self.found.notes.push(format!(
                    "tablespace {} is newer than the backup: WAL replay made it in {}, and its files were left there",
                    oid.to_string_lossy(),
                    place.display()
                ));
            }
        }
    }

    /// Checks all pages of the stopped server.
    async fn check_pages(&mut self, durations: &mut DrillDurations) -> Result<(), Error> {
        self.progress.phase("checking the pages", None);
        let before = self.clock.passed();
        let (pgdata, threads) = (self.directory.pgdata(), self.options.restore.jobs);
        let control = read_control_file(&pgdata)?;
        let checksums = control.has_data_checksums();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let mut checking = std::pin::pin!(blocking(move || pages::check(&pgdata, &control, threads, &stopping)));
        let checked = tokio::select! {
            checked = &mut checking => checked,
            () = self.bounds.over() => { stop.store(true, Ordering::Relaxed); checking.await }
        };
        let pages::Found { page_count, bad_count, named } = checked?;
        if self.bounds.is_cancelled() {
            return Err(Cause::Cancelled.into());
        }
        durations.pages_milliseconds = Some(milliseconds(self.clock.passed().saturating_sub(before)));
        let mut outcome = if bad_count == 0 { CheckOutcome::Passed } else { CheckOutcome::Failed };
        if stop.load(Ordering::Relaxed) {
            outcome = CheckOutcome::Failed;
            self.find(FindingKind::TimeLimit, format!("only {page_count} pages were checked"));
        }
        let unnamed = bad_count - named.len() as u64;
        for what in named {
            self.find(FindingKind::Page, what);
        }
        if unnamed > 0 {
            self.find(FindingKind::Page, format!("and {unnamed} more"));
        }
        self.found.pages = PageChecks { outcome, page_count, bad_count, checksums, reason: None };
        Ok(())
    }
}

/// Whether `restore_command` ended with an error that passes by itself, and so says nothing about the archive.
fn of_the_moment(status: u8) -> bool {
    ExitCode::from_number(status).is_some_and(|code| code.outlook() == Outlook::PassesByItself)
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|e| Error::file("write", path, e))
}
