//! `holdfast wal receive`: runs until it is told to end.

use super::{Context, agent, targets, time, wal};
use crate::args::WalReceiveArgs;
use crate::config::libpq;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use holdfast_engine::archive::{PushOptions, Spool};
use holdfast_engine::pipeline::budget::ByteBudget;
use holdfast_engine::pipeline::crew::Crew;
use holdfast_engine::receive::{self, ReceiveOptions, ReceiveReport, Repositories, SlotReport};
use holdfast_engine::server::ConnectionSettings;
use std::fmt::Write as _;
use std::path::PathBuf;

pub(super) async fn run(context: &Context, args: &WalReceiveArgs) -> Result<ExitCode, Failure> {
    let config = &context.config;
    let environment = libpq::environment();
    let spool = Spool::open(&config.wal.spool, &config.cluster.name).map_err(|error| {
        let message = format!("the spool {} cannot be used", config.wal.spool.display());
        Failure::new(ExitCode::UnwritableFile, message).caused_by(Some(&error)).hint(
            "segments are there before they are sent: set `wal.spool` to a directory in which this user may write; two \
             segments of room are enough",
        )
    })?;
    let options = ReceiveOptions {
        connection: ConnectionSettings {
            connection: config.cluster.connection.as_ref().map(|text| text.expose().as_str()),
            subject: "cluster.connection",
            environment: &environment,
            pgdata: config.cluster.pgdata.clone(),
        },
        application_name: args.application_name.clone(),
        slot: args.slot.clone(),
        temporary: args.temporary,
        accept_gap: args.accept_gap,
        interval: args.interval,
        folder: spool.folder().join("receive"),
        push: PushOptions {
            cluster: config.cluster.name.clone(),
            owner: config.cluster.owner.clone(),
            path: PathBuf::new(),
            compression: config.wal.compression,
            push_ahead: 0,
            spool: None,
            repository_set: wal::repository_set(config),
            crew: Crew::new(config.backup.jobs.get().min(wal::MOST_THREADS)),
            budget: ByteBudget::new(config.backup.memory_bytes),
            host: time::host(),
            now: time::now(),
        },
    };
    if args.drop_slot {
        let report = receive::drop_slot(&options).await?;
        context.print(|| slot_text(&report), &report)?;
        return Ok(ExitCode::Ok);
    }
    let repositories = Repositories {
        targets: targets::all(context, Some(config.wal.timeout)).await?,
        reopen: agent::reopen(context, None),
        reopen_archiver: agent::reopen(context, None),
    };
    let report = receive::receive(repositories, &options, &context.cancellation).await?;
    context.print(|| report_text(&report), &report)?;
    Ok(ExitCode::Ok)
}

fn slot_text(report: &SlotReport) -> String {
    let SlotReport { slot, dropped } = report;
    if *dropped { format!("dropped the replication slot {slot}\n") } else { format!("there is no slot {slot}\n") }
}

fn report_text(report: &ReceiveReport) -> String {
    let ReceiveReport { slot, timeline, received_lsn, durable_lsn, segments, pieces, reconnects } = report;
    let mut text = String::new();
    match (timeline, durable_lsn) {
        (Some(timeline), Some(durable)) => {
            let _ = write!(text, "everything up to {durable} of timeline {timeline} is in every repository");
            if let Some(received) = received_lsn.filter(|received| received > durable) {
                let _ = write!(text, "; WAL up to {received} was received, and the slot {slot} keeps the rest");
            }
            text.push('\n');
        }
        _ => text.push_str("nothing was received\n"),
    }
    let _ = writeln!(text, "{segments} segments and {pieces} pieces stored, {reconnects} further connections");
    text
}
