//! Runs `pg_amcheck` over all databases, if the tool and its extension are installed.

use std::fs::OpenOptions;
use std::time::Duration;

use holdfast_contract::report::drill::{AmCheck, CheckOutcome, DrillFinding, FindingKind};
use tokio_postgres::Client;

use super::directory::{PORT, ThrowAway};
use super::programs::Programs;
use super::server::{Access, as_owner, last_lines};
use super::settings;
use super::{Bounds, DrillOptions};
use crate::error::{Cause, Error};

/// The maximum number of findings from its output.
const MOST_LINES: usize = 20;

/// The interval at which the process is checked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The exit status of `pg_amcheck` when it found corruption.
const CORRUPTION: i32 = 2;

/// Runs `pg_amcheck`, if it is installed.
pub(super) async fn run(
    programs: &Programs,
    directory: &ThrowAway,
    access: &Access,
    client: &Client,
    options: &DrillOptions,
    bounds: &Bounds,
) -> Result<(AmCheck, Vec<DrillFinding>), Error> {
    let not_run = |reason: String| Ok((AmCheck { outcome: CheckOutcome::NotRun, reason: Some(reason) }, Vec::new()));
    let Some(program) = programs.path("pg_amcheck") else {
        return not_run(format!("there is no pg_amcheck in {}", programs.folder().display()));
    };
    let available = "SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck'";
    if client.query(available, &[]).await?.is_empty() {
        return not_run("the extension amcheck is not installed on this host".to_owned());
    }
    let log = directory.file("amcheck.log");
    // The file must be new, as all files of a drill, so that root follows no link that somebody put there.
    let output =
        OpenOptions::new().create_new(true).append(true).open(&log).map_err(|e| Error::file("create", &log, e))?;
    let errors = output.try_clone().map_err(|e| Error::file("create", &log, e))?;
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
    command.env("PGOPTIONS", settings::session(false)).stdout(output).stderr(errors);
    as_owner(&mut command, options.owner);
    let mut child = command.spawn().map_err(|e| Error::file("run", &program, e))?;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| Error::file("run", &program, e))? {
            break Some(status);
        }
        let is_cancelled = bounds.is_cancelled();
        if is_cancelled || bounds.is_over() {
            // The program only reads, and its sessions end with it.
            drop(child.kill());
            drop(child.wait());
            if is_cancelled {
                return Err(Cause::Cancelled.into());
            }
            break None;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let failed = |findings| Ok((AmCheck { outcome: CheckOutcome::Failed, reason: None }, findings));
    let finding = |kind, what: String| DrillFinding { kind, what };
    let Some(status) = status else {
        return failed(vec![finding(FindingKind::TimeLimit, "pg_amcheck was still running".to_owned())]);
    };
    if status.success() {
        return Ok((AmCheck { outcome: CheckOutcome::Passed, reason: None }, Vec::new()));
    }
    if status.code() == Some(CORRUPTION) {
        return failed(findings(&std::fs::read(&log).unwrap_or_default()));
    }
    let what = format!("it ended with {status}: {}", last_lines(&log, MOST_LINES));
    failed(vec![finding(FindingKind::Amcheck, what)])
}

/// One finding for each place that `pg_amcheck` names: a line, with the indented lines after it.
fn findings(output: &[u8]) -> Vec<DrillFinding> {
    let text = String::from_utf8_lossy(output);
    let mut places: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match places.last_mut() {
            Some(place) if line.starts_with([' ', '\t']) => {
                place.push(' ');
                place.push_str(line.trim());
            }
            _ => places.push(line.to_owned()),
        }
    }
    let more = places.len().saturating_sub(MOST_LINES);
    places.truncate(MOST_LINES);
    if more > 0 {
        places.push(format!("and {more} more"));
    }
    places.into_iter().map(|what| DrillFinding { kind: FindingKind::Amcheck, what }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_one_finding() {
        let output = b"heap table \"postgres.public.t\", block 0, offset 1:\n    line pointer to offset 9 is bad\n\
                       btree index \"postgres.public.i\":\n    ERROR:  high key\n    DETAIL:  x\n";
        let found: Vec<String> = findings(output).into_iter().map(|finding| finding.what).collect();
        assert_eq!(
            found,
            [
                "heap table \"postgres.public.t\", block 0, offset 1: line pointer to offset 9 is bad",
                "btree index \"postgres.public.i\": ERROR:  high key DETAIL:  x",
            ]
        );
    }
}
