//! The checks of a drill: `pg_amcheck` and the user's queries while the server runs, then all pages of the stopped
//! server.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_contract::report::drill::{CheckOutcome, DrillDurations, FindingKind, PageChecks};
use holdfast_pgtypes::ControlFile;
use holdfast_pgtypes::control::CONTROL_FILE_SIZE;
use tokio_postgres::Client;

use super::bounds::EarlyEnd;
use super::run::Run;
use super::server::Access;
use super::{amcheck, blocking, milliseconds, pages, plain, probes};
use crate::error::{Error, ResultExt};
use crate::path_overlap::tablespaces;
use crate::server::refused_control_file;

impl Run<'_> {
    /// Runs `pg_amcheck` and the user's queries.
    pub(super) async fn ask(
        &mut self,
        access: &Access,
        client: &Client,
        durations: &mut DrillDurations,
    ) -> Result<(), Error> {
        let before = self.clock.passed();
        if self.options.amcheck {
            self.progress.phase("running pg_amcheck", None);
            let checked = amcheck::run(self.programs, self.directory, access, client, self.options, self.bounds).await;
            let amcheck::Checked { amcheck, findings, notes } = checked.doing(|| "running pg_amcheck".to_owned())?;
            if amcheck.outcome != CheckOutcome::NotRun {
                durations.amcheck_milliseconds = Some(milliseconds(self.clock.passed().saturating_sub(before)));
            }
            self.found.amcheck = amcheck;
            self.found.findings.extend(findings);
            self.found.notes.extend(notes);
        } else {
            self.found.amcheck.reason = Some("it was switched off".to_owned());
        }
        if !self.statements.is_empty() {
            self.progress.phase("asking the probes", None);
            let before = self.clock.passed();
            let restored = self.found.restored_time.unwrap_or(self.backup_stop);
            let asked = probes::run(self.statements, access, &self.options.database, restored, self.bounds).await;
            let (probes, findings) = asked.doing(|| "asking the probes".to_owned())?;
            durations.probes_milliseconds = Some(milliseconds(self.clock.passed().saturating_sub(before)));
            self.found.probes = probes;
            self.found.findings.extend(findings);
        }
        Ok(())
    }

    /// Adds a note for each tablespace outside of the directory: WAL replay makes a tablespace that is newer than the
    /// backup in the place that it has on the original.
    pub(super) fn note_outside(&mut self) {
        for (oid, place) in tablespaces(&self.directory.pgdata()) {
            if !place.starts_with(self.directory.path()) {
                self.found.notes.push(format!(
                    "tablespace {} is newer than the backup: replay made it in {}, and its files were left there",
                    oid.to_string_lossy(),
                    place.display()
                ));
            }
        }
    }

    /// Checks all pages of the stopped server.
    pub(super) async fn check_pages(&mut self, durations: &mut DrillDurations) -> Result<(), Error> {
        self.progress.phase("checking the pages", None);
        let before = self.clock.passed();
        let (pgdata, threads) = (self.directory.pgdata(), self.options.restore.jobs);
        let control = control_file(&pgdata)?;
        let checksums = control.has_data_checksums();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let mut checking = std::pin::pin!(blocking(move || pages::check(&pgdata, &control, threads, &stopping)));
        let (checked, over) = tokio::select! {
            checked = &mut checking => (checked, None),
            over = self.bounds.early_end() => { stop.store(true, Ordering::Relaxed); (checking.await, Some(over)) }
        };
        let pages::CheckedPages { page_count, bad_count, named } = checked?;
        let is_late = match over {
            None => false,
            Some(EarlyEnd::Time) => true,
            Some(over) => return Err(over.into_error(self.bounds)),
        };
        durations.pages_milliseconds = Some(milliseconds(self.clock.passed().saturating_sub(before)));
        let mut outcome = if bad_count == 0 { CheckOutcome::Passed } else { CheckOutcome::Failed };
        if is_late {
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

/// Reads the control file of a stopped server. The directory belongs to the server's owner.
fn control_file(pgdata: &Path) -> Result<ControlFile, Error> {
    let path = pgdata.join(ControlFile::PATH);
    let mut bytes = Vec::new();
    let read = plain::open(&path).and_then(|file| file.take(CONTROL_FILE_SIZE as u64).read_to_end(&mut bytes));
    read.map_err(|e| Error::file("read", &path, e))?;
    Ok(ControlFile::parse(&bytes).map_err(|source| refused_control_file(path, source))?)
}
