//! Runs `pg_amcheck` over all databases, if the tool and its extension are installed.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use holdfast_contract::report::drill::{AmCheck, CheckOutcome, DrillFinding, FindingKind};
use tokio_postgres::Client;

use super::bounds::{Bounds, EarlyEnd};
use super::directory::{PORT, ThrowAway};
use super::log::Log;
use super::programs::Programs;
use super::server::{Access, as_owner};
use super::{DrillOptions, databases, faults, settings};
use crate::error::Error;

/// The maximum number of findings from its output.
const MOST_LINES: usize = 20;

/// The interval at which the process is checked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The exit status of `pg_amcheck` when it found corruption.
const CORRUPTION: i32 = 2;

/// The result of `pg_amcheck`.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) amcheck: AmCheck,
    pub(super) findings: Vec<DrillFinding>,
    pub(super) notes: Vec<String>,
}

impl Checked {
    fn not_run(reason: String) -> Self {
        let amcheck = AmCheck { outcome: CheckOutcome::NotRun, reason: Some(reason) };
        Self { amcheck, findings: Vec::new(), notes: Vec::new() }
    }

    fn ended(findings: Vec<DrillFinding>, notes: Vec<String>) -> Self {
        let outcome = if findings.is_empty() { CheckOutcome::Passed } else { CheckOutcome::Failed };
        Self { amcheck: AmCheck { outcome, reason: None }, findings, notes }
    }
}

/// Runs `pg_amcheck`, if it is installed.
pub(super) async fn run(
    programs: &Programs,
    directory: &ThrowAway,
    access: &Access,
    client: &Client,
    options: &DrillOptions,
    bounds: &Bounds,
) -> Result<Checked, Error> {
    let Some(program) = programs.path("pg_amcheck") else {
        return Ok(Checked::not_run(format!("there is no pg_amcheck in {}", programs.folder().display())));
    };
    let finding = |kind, what: String| DrillFinding { kind, what };
    let late =
        |notes| Checked::ended(vec![finding(FindingKind::TimeLimit, "pg_amcheck had not ended".to_owned())], notes);
    let available = "SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck'";
    let preparing = async {
        if client.query(available, &[]).await?.is_empty() {
            return Ok(None);
        }
        databases::prepare(access, client).await.map(Some)
    };
    let prepared = match bounds.within(preparing).await {
        Ok(prepared) => prepared?,
        Err(EarlyEnd::Time) => return Ok(late(Vec::new())),
        Err(over) => return Err(over.into_error(bounds)),
    };
    let Some(databases::Prepared { damaged, notes }) = prepared else {
        return Ok(Checked::not_run("the extension amcheck is not installed on this host".to_owned()));
    };
    if !damaged.is_empty() {
        // The event triggers of a damaged database may still be enabled, and `pg_amcheck` would fail there anyway.
        let findings = damaged.into_iter().map(|what| finding(FindingKind::Server, what)).collect();
        return Ok(Checked { findings, notes, ..Checked::not_run("a catalog is damaged".to_owned()) });
    }
    let path = directory.file("amcheck.log");
    let log = Log::create(&path)?;
    let (output, errors) = (log.output(&path)?, log.output(&path)?);
    let mut command = programs.command("pg_amcheck");
    command.args([
        "--all",
        "--install-missing",
        "--no-password",
        "--jobs",
        &options.restore.jobs.max(1).to_string(),
        "--port",
    ]);
    command.arg(PORT.to_string()).arg("--host").arg(&access.socket).arg("--username").arg(&access.role);
    command.env("PGOPTIONS", settings::session(access.version, false)).stdout(output).stderr(errors);
    as_owner(&mut command, options.owner);
    let mut child = command.spawn().map_err(|e| Error::file("run", &program, e))?;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| Error::file("run", &program, e))? {
            break status;
        }
        if let Some(over) = bounds.check() {
            // The program only reads, and its sessions end with it.
            drop(child.kill());
            drop(child.wait());
            return match over {
                EarlyEnd::Time => Ok(late(notes)),
                over => Err(over.into_error(bounds)),
            };
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    if status.success() {
        return Ok(Checked::ended(Vec::new(), notes));
    }
    // A signal that stops the drill may have ended this process, or the server, first.
    bounds.settle().await?;
    let end = log.last_lines(MOST_LINES);
    if let Some(signal) = status.signal() {
        return Err(faults::other(format!("pg_amcheck was ended by signal {signal}: {end}")).into());
    }
    if let Some(fault) = faults::of_text(&end) {
        return Err(fault.into());
    }
    let mut findings = if status.code() == Some(CORRUPTION) { findings(&log) } else { Vec::new() };
    if findings.is_empty() {
        findings.push(finding(FindingKind::Amcheck, format!("it ended with {status}: {end}")));
    }
    Ok(Checked::ended(findings, notes))
}

/// One finding for each place that the log names: a line, with the indented lines after it. Notices and warnings are
/// not damage: functions of the cluster can print any of them, with details.
fn findings(log: &Log) -> Vec<DrillFinding> {
    let mut places: Vec<String> = Vec::new();
    let (mut more, mut is_notice) = (0_usize, false);
    log.each_line(|line| {
        if line.trim().is_empty() {
            return;
        }
        let is_set_in = line.starts_with([' ', '\t']);
        let is_detail = ["DETAIL:  ", "HINT:  ", "CONTEXT:  "].iter().any(|words| line.starts_with(words));
        if !is_set_in && !is_detail {
            is_notice = line.starts_with("NOTICE:  ") || line.starts_with("WARNING:  ");
        }
        if is_notice {
            return;
        }
        let begins = !(is_set_in || is_detail) || places.is_empty();
        if begins && places.len() >= MOST_LINES {
            more += 1;
        } else if begins {
            places.push(line.trim().to_owned());
        } else if let Some(place) = places.last_mut().filter(|_| more == 0) {
            place.push(' ');
            place.push_str(line.trim());
        }
    });
    if more > 0 {
        places.push(format!("and {more} more"));
    }
    places.into_iter().map(|what| DrillFinding { kind: FindingKind::Amcheck, what }).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::io::Write as _;

    use super::*;

    fn found(output: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("amcheck.log");
        let log = Log::create(&path).unwrap();
        log.output(&path).unwrap().write_all(output.as_bytes()).unwrap();
        findings(&log).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn each_place_is_one_finding() {
        let output = "heap table \"postgres.public.t\", block 0, offset 1:\n    line pointer to offset 9 is bad\n\
                      btree index \"postgres.public.i\":\n    ERROR:  high key\n    DETAIL:  x\n";
        assert_eq!(
            found(output),
            [
                "heap table \"postgres.public.t\", block 0, offset 1: line pointer to offset 9 is bad",
                "btree index \"postgres.public.i\": ERROR:  high key DETAIL:  x",
            ]
        );
        let many = "heap table:\n    x\n".repeat(MOST_LINES + 3);
        let many = found(&many);
        assert_eq!((many.len(), many.last().unwrap().as_str()), (MOST_LINES + 1, "and 3 more"));
    }

    #[test]
    fn notices_are_no_findings() {
        let output = "NOTICE:  a function says this\nDETAIL:  and this\nWARNING:  database \"d\" has a collation \
                      version mismatch\nHINT:  REFRESH\nbtree index \"postgres.public.i\":\n    ERROR:  high key\n";
        assert_eq!(found(output), ["btree index \"postgres.public.i\": ERROR:  high key"]);
        assert!(found("NOTICE:  x\n").is_empty());
    }
}
