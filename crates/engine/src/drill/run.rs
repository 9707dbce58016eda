//! The steps of a drill in its directory: restore, recover, query, check.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use holdfast_contract::report::drill::{
    AmCheck, CheckOutcome, DrillDurations, DrillFinding, FindingKind, PageChecks, Probe,
};
use holdfast_pgtypes::recovery_target::RecoveryTarget;
use holdfast_pgtypes::{Lsn, PgVersion, SystemIdentifier};
use holdfast_repo::recovery::RecoveryPlan;
use tokio_postgres::Client;

use super::bounds::{Bounds, EarlyEnd};
use super::directory::ThrowAway;
use super::outside::refuse_living;
use super::programs::Programs;
use super::refused::{self, Refused};
use super::replay::Replay;
use super::server::{Access, Down, Ended, Server, Stopped};
use super::settings::{Original, Restored};
use super::{DrillOptions, milliseconds, plain, probes, settings};
use crate::error::{Cause, Error};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::leases::Clock;
use crate::restore::{self, RestoreOptions};
use crate::server::read_control_file;
use crate::verify::judge::{Judged, judge};

/// The results of the steps, for the report.
#[derive(Debug)]
pub(super) struct StepResults {
    pub(super) restored_time: Option<DateTime<Utc>>,
    pub(super) restored_lsn: Option<Lsn>,
    pub(super) server_version: Option<String>,
    pub(super) fetched_bytes: u64,
    pub(super) written_bytes: u64,
    pub(super) pages: PageChecks,
    pub(super) amcheck: AmCheck,
    pub(super) probes: Vec<Probe>,
    pub(super) findings: Vec<DrillFinding>,
    /// The damaged objects that the findings name.
    pub(super) objects: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl Default for StepResults {
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
            objects: Vec::new(),
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
    /// The OIDs of the backup's tablespaces.
    pub(super) tablespaces: &'a [OsString],
    pub(super) system_identifier: SystemIdentifier,
    pub(super) found: StepResults,
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
        let Some((mut server, session)) = self.recover(durations).await? else { return Ok(()) };
        if let Some((access, client)) = session {
            let asked = self.ask(&access, &client, durations).await;
            // When a server crashes, its sessions end a moment before the server itself.
            let is_lost = client.is_closed();
            drop(client);
            let gone = if is_lost { server.gone_soon().await } else { server.gone() };
            // Whatever stops the drill may have ended the server before these answers.
            if gone.is_some() || asked.is_err() || !self.found.findings.is_empty() {
                self.bounds.settle().await?;
            }
            if let Some(ended) = gone {
                self.found.pages.reason = Some("the server did not stay up".to_owned());
                return self.down("it came up and did not stay", ended).await;
            }
            match asked.map_err(refused::damage) {
                Ok(()) => {}
                Err(Ok(what)) => self.find(FindingKind::Server, format!("it cannot read its catalog: {what}")),
                Err(Err(error)) => {
                    server.end().await;
                    return Err(error);
                }
            }
        }
        self.progress.phase("stopping the server", None);
        let stopped = server.stop(self.bounds).await;
        self.note_outside();
        // What was not checked is not proven.
        let reason = "the server was not stopped in an orderly way";
        match stopped {
            Stopped::Orderly => return self.check_pages(durations).await,
            Stopped::Cancelled => return Err(Cause::Cancelled.into()),
            Stopped::Ended(ended) => {
                self.found.pages.reason = Some(reason.to_owned());
                self.down("it was not stopped in an orderly way", ended).await?;
            }
            Stopped::Late(log) => {
                self.found.pages.reason = Some(reason.to_owned());
                self.find(FindingKind::TimeLimit, format!("it had not stopped; its log ends with:\n{log}"));
            }
        }
        Ok(())
    }

    pub(super) fn find(&mut self, kind: FindingKind, what: String) {
        self.found.findings.push(DrillFinding { kind, what });
    }

    /// Handles a server that ended. That is a finding, unless the host was at fault, or whatever stopped the drill
    /// ended it, too.
    async fn down(&mut self, words: &str, ended: Ended) -> Result<(), Error> {
        self.bounds.settle().await?;
        if let Some(fault) = ended.fault {
            return Err(fault);
        }
        self.find(FindingKind::Server, format!("{words}: {}", ended.what));
        Ok(())
    }

    /// Handles the early end of a step: only the time limit is a finding.
    pub(super) fn ended_early(&mut self, over: EarlyEnd, what: &str) -> Result<(), Error> {
        let EarlyEnd::Time = over else { return Err(over.into_error(self.bounds)) };
        self.find(FindingKind::TimeLimit, what.to_owned());
        Ok(())
    }

    /// Restores the files. Returns `false` if they are not restored, with a finding.
    async fn restore(
        &mut self,
        repository: &Repository,
        restoring: &RestoreOptions,
        durations: &mut DrillDurations,
    ) -> Result<bool, Error> {
        let before = self.clock.passed();
        let progress = self.progress;
        let restored = self
            .bounds
            .until_over(|stop| async move { Box::pin(restore::restore(repository, restoring, progress, &stop)).await });
        let restored = restored.await;
        durations.restore_milliseconds = milliseconds(self.clock.passed().saturating_sub(before));
        let restored = match restored {
            Ok(restored) => restored,
            Err(over) => {
                self.ended_early(over, "the files were not restored")?;
                return Ok(false);
            }
        };
        match restored {
            Ok(report) => {
                self.found.fetched_bytes = report.fetched_bytes;
                self.found.written_bytes = report.written_bytes;
                Ok(true)
            }
            Err(error) if error.is_of_one_object() => {
                if let Judged::Damaged { object, .. } = judge(&error, "")
                    && !object.is_empty()
                {
                    self.found.objects.push(object);
                }
                self.find(FindingKind::Object, error.to_string());
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Starts the server and waits for the end of recovery. If the server accepts no session, it is returned without
    /// one.
    async fn recover(&mut self, durations: &mut DrillDurations) -> Result<Option<Recovered>, Error> {
        let server_settings = self.prepare()?;
        let spool = (self.options.spool_variable.clone(), self.directory.spool().to_string_lossy().into_owned());
        let (socket, role) = (self.directory.path().to_owned(), self.options.role.clone());
        let access = Access { socket, role, version: self.version };

        // Checked again, long after the plan: another server may have made a tablespace meanwhile.
        refuse_living(self.options.living.as_deref(), self.tablespaces, self.system_identifier)?;
        self.progress.phase("recovering", None);
        let before = self.clock.passed();
        let mut server = Server::start(self.programs, self.directory, &server_settings, &[spool], self.options.owner)?;
        let shut = match server.ready(&access, &self.options.database, self.bounds).await {
            Ok(client) => match self.bounds.within(self.read_replay_end(&client)).await {
                Ok(Ok(())) => {
                    let now = self.clock.passed();
                    durations.replay_milliseconds = Some(milliseconds(now.saturating_sub(before)));
                    durations.recovery_milliseconds = Some(milliseconds(now));
                    self.found.findings.extend(self.short_of(&server));
                    return Ok(Some((server, Some((access, client)))));
                }
                Ok(Err(error)) => match refused::judge(&error) {
                    Refused::Damaged(what) => what,
                    Refused::Host(error) => {
                        server.end().await;
                        return Err(error);
                    }
                    Refused::Role | Refused::Ending => match server.gone_soon().await {
                        Some(ended) => {
                            self.down("it did not answer", ended).await?;
                            return Ok(None);
                        }
                        None => error.to_string(),
                    },
                },
                Err(over) => {
                    server.end().await;
                    self.ended_early(over, "the server had not answered")?;
                    return Ok(None);
                }
            },
            Err(Down::Shut(what)) => what,
            Err(Down::Ended(ended)) => {
                self.down("it did not come up", ended).await?;
                return Ok(None);
            }
            Err(Down::EarlyEnd(over)) => {
                server.end().await;
                self.ended_early(over, "recovery had not ended")?;
                return Ok(None);
            }
            Err(Down::Failed(error)) => {
                server.end().await;
                return Err(error);
            }
        };
        self.bounds.settle().await?;
        self.find(FindingKind::Server, format!("it came up and lets nobody in: {shut}"));
        self.found.amcheck.reason = Some("the server lets nobody in".to_owned());
        Ok(Some((server, None)))
    }

    /// Writes the files that the server needs to start, and gives everything to its owner. Returns the server's
    /// settings.
    fn prepare(&mut self) -> Result<Vec<(String, String)>, Error> {
        let pgdata = self.directory.pgdata();
        let has_configuration = pgdata.join(settings::CONFIGURATION).exists();
        if !has_configuration {
            self.found.notes.push(
                "the backup has no postgresql.conf, because the original keeps it elsewhere: the server ran with defaults, and \
                 with the original's settings that are in the control file"
                    .to_owned(),
            );
            write(&self.directory.file(settings::CONFIGURATION), "")?;
        }
        write(&self.directory.file(settings::HBA), settings::HBA_TEXT)?;
        write(&self.directory.file(settings::IDENT), "")?;
        let mut written = String::new();
        for name in [settings::CONFIGURATION, "postgresql.auto.conf"] {
            let path = pgdata.join(name);
            if let Ok(mut file) = plain::open(&path) {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map_err(|e| Error::file("read", &path, e))?;
                written.push_str(&String::from_utf8_lossy(&bytes));
                written.push('\n');
            }
        }
        let temporary_kilobytes = self.bounds.room.temporary_kilobytes();
        let restored = Restored { control: read_control_file(&pgdata)?, written, temporary_kilobytes };
        let original = Original {
            version: self.version,
            directory: self.directory.path(),
            pgdata: &pgdata,
            has_configuration,
            restored: Some(restored),
        };
        let server_settings = settings::server(&original, &self.options.settings)?;
        if let Some(owner) = self.options.owner {
            self.directory.give_to(owner)?;
        }
        Ok(server_settings)
    }

    /// Asks the server where replay ended.
    async fn read_replay_end(&mut self, client: &Client) -> Result<(), tokio_postgres::Error> {
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
        Ok(())
    }

    /// A finding if replay ended before the place that the plan promises. PostgreSQL itself refuses to end before a
    /// target. But without a target, it treats everything that it does not get or cannot read as the end of the
    /// archive.
    fn short_of(&self, server: &Server) -> Option<DrillFinding> {
        let promised = self.plan.consistent_lsn;
        let what = match self.found.restored_lsn {
            None => Some("it does not say where replay ended".to_owned()),
            Some(reached) if reached < promised => {
                Some(format!("replay ended at {reached}, and the backup is consistent at {promised}"))
            }
            Some(reached) => match (self.target, self.plan.segments.last()) {
                (RecoveryTarget::Latest, Some(range)) => {
                    let mut replay = Replay::through(range.last.to_string());
                    server.log().each_line(|line| replay.see(line));
                    replay.missing().map(|what| format!("{what} (replay ended at {reached})"))
                }
                _ => None,
            },
        };
        what.map(|what| DrillFinding { kind: FindingKind::Server, what })
    }
}

/// A server after recovery, with a session unless it accepts none.
type Recovered = (Server, Option<(Access, Client)>);

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|e| Error::file("write", path, e))
}
