//! `check`: the engine's findings as a table.

use super::{Context, targets, time};
use crate::config::libpq;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::table::{Align, Table};
use holdfast_engine::check::{CheckOptions, Finding, Verdict, check};

pub(super) async fn run(context: &Context) -> Result<ExitCode, Failure> {
    let config = &context.config;
    let options = CheckOptions {
        cluster: config.cluster.name.clone(),
        owner: config.cluster.owner.clone(),
        pgdata: config.cluster.require_pgdata()?.to_owned(),
        connection: config.cluster.connection.clone(),
        environment: libpq::environment(),
        wal_compression: config.wal.compression,
        archive_timeout: config.backup.archive_timeout,
        host: time::host(),
        now: time::now(),
    };
    let targets = targets::all(context, None).await?;
    let progress = Progress::new(context.show);
    let (mut report, outcome) = check(&targets, &options, &progress, &context.cancellation).await;
    progress.finish();
    let proxies = proxies(context)?;
    report.findings.splice(0..0, proxies);
    let text = || {
        let mut table = Table::new([("", Align::Left), ("CHECKED", Align::Left), ("FOUND", Align::Left)]);
        for finding in &report.findings {
            let verdict = match finding.verdict {
                Verdict::Ok => "ok",
                Verdict::Warning => "warning",
                Verdict::Failed => "failed",
            };
            table.row([verdict.to_owned(), finding.subject.clone(), finding.detail.clone()]);
        }
        table.render()
    };
    context.print(text, &report)?;
    // The table shows how far it came; the error and its hint are about the failed step.
    outcome?;
    context.warn_of_open_secrets();
    Ok(if report.good { ExitCode::Ok } else { ExitCode::ProblemsFound })
}

/// The proxies of the repositories. A person who types this command may have other variables than the server or cron.
fn proxies(context: &Context) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for configured in &context.config.repositories {
        if let Some(proxy) = configured.store_config(targets::raw_variable)?.proxy().ok().flatten() {
            let detail = format!("{} is reached through {} ({})", configured.location(), proxy.shown, proxy.variable);
            findings.push(Finding { subject: "proxy".to_owned(), verdict: Verdict::Ok, detail });
        }
    }
    Ok(findings)
}
