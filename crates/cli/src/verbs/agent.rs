//! `holdfast agent`: the resident process that does the work of `wal push` and `wal get`.
//!
//! SIGTERM and SIGINT end it. SIGHUP replaces it with the program that now has its path, with the configuration as it
//! is now; the socket stays open, so clients wait for a moment instead of finding nobody.

use super::{Context, asking, targets, time, wal};
use crate::args::{AgentAction, AgentArgs};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use holdfast_agent::client::{self, Reply};
use holdfast_agent::{Agent, Options, SocketError};
use holdfast_contract::agent::{AgentStatus, Answer, GetStatus, PushStatus, Request};
use holdfast_contract::problem::ErrorReport;
use holdfast_engine::archive::{Archiver, Fetcher, FetcherOptions, PushOptions, Reopen, Spool};
use holdfast_engine::pipeline::budget::ByteBudget;
use holdfast_engine::pipeline::crew::Crew;
use holdfast_store::Hurry;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tokio::net::TcpListener;

/// More uploads at the same time would only wait for each other: eight segments of 16 MiB fill any line.
const AT_ONCE: usize = 8;

pub(super) async fn run(context: &Context, args: &AgentArgs) -> Result<ExitCode, Failure> {
    match args.action {
        None => serve(context, args).await,
        Some(AgentAction::Status) => status(context),
    }
}

async fn serve(context: &Context, args: &AgentArgs) -> Result<ExitCode, Failure> {
    // Before anything is replaced: afterwards the link of this process leads to a deleted file.
    let program = std::env::current_exe()
        .map_err(|error| Failure::internal("the path of this program is not known").caused_by(Some(&error)))?;
    let config = &context.config;
    if let Some((user, group)) = super::root::acting_for(config.cluster.pgdata.as_deref()) {
        tracing::info!(user, "the agent continues as the owner of the data directory");
        return Err(replace(&program, |command| command.uid(user).gid(group)));
    }
    if rustix::process::geteuid().is_root() {
        return Err(Failure::new(ExitCode::Configuration, "the agent does not run as root").hint(
            "run it as the user that PostgreSQL runs as (`User=postgres`, sudo -u postgres), or set `cluster.pgdata`: \
             then it continues as the owner of that directory",
        ));
    }
    let spool = Spool::open(&config.wal.spool, &config.cluster.name).map_err(|error| {
        Failure::new(ExitCode::UnwritableFile, format!("the spool {} cannot be used", config.wal.spool.display()))
            .caused_by(Some(&error))
            .hint(
                "the agent's socket is there: set `wal.spool` to a directory in which the user of PostgreSQL may write",
            )
    })?;
    let listening = holdfast_agent::listen(&spool).map_err(|error| of_socket(&error))?;
    let metrics = match args.metrics {
        None => None,
        Some(address) => Some(TcpListener::bind(address).await.map_err(|error| {
            Failure::new(ExitCode::Configuration, format!("cannot listen on {address}"))
                .caused_by(Some(&error))
                .hint("give --metrics an address of this machine and a port that is free")
        })?),
    };
    let hurry = Hurry::default();
    let crew = Crew::new(config.backup.jobs.get().min(wal::MOST_THREADS));
    let budget = ByteBudget::new(config.backup.memory_bytes);
    let repository_set = wal::repository_set(config);
    let archiver = Archiver::new(
        targets::for_archiver(context, config.wal.timeout, &hurry).await?,
        reopen(context, Some(hurry.clone())),
        PushOptions {
            cluster: config.cluster.name.clone(),
            owner: config.cluster.owner.clone(),
            path: PathBuf::new(),
            compression: config.wal.compression,
            push_ahead: 0,
            spool: Some(spool.clone()),
            repository_set,
            crew: crew.clone(),
            budget: budget.clone(),
            host: time::host(),
            now: time::now(),
        },
    );
    let fetcher = Fetcher::new(
        targets::all(context, Some(config.wal.timeout)).await?,
        reopen(context, None),
        FetcherOptions { cluster: config.cluster.name.clone(), spool: spool.clone(), repository_set, crew, budget },
    );
    let ahead = config.wal.push_ahead.get() - 1;
    let agent = Agent {
        archiver,
        ahead: Options { ahead, at_once: ahead.min(AT_ONCE), explain: of_push },
        pgdata: config.cluster.pgdata.clone(),
        fetcher,
        prefetch: config.wal.prefetch,
        explain_get: of_get,
        settings: asking::settings(config, context.config_file.as_deref()),
        spool,
        metrics,
        stopping: Box::new(move |stopping| if stopping { hurry.begin() } else { hurry.end() }),
    };
    let (signals, next) = (context.signals.clone(), program.clone());
    signals.ask_before_hangup(move || can_replace(&next));
    let stop = context.signals.cancellation();
    if args.while_stdin_is_open {
        let stop = stop.clone();
        std::thread::spawn(move || {
            // The end of the file and an error are the same: nobody holds the other end.
            drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
            stop.cancel();
        });
    }
    let socket = holdfast_agent::run(agent, listening, stop)
        .await
        .map_err(|error| Failure::internal("the agent's socket cannot be used").caused_by(Some(&error)))?;
    if context.signals.hung_up() && !args.while_stdin_is_open {
        tracing::info!(program = %program.display(), "the agent starts again");
        return Err(replace(&program, |command| command.stdin(socket)));
    }
    holdfast_agent::ends();
    Ok(ExitCode::Ok)
}

/// Makes the targets again after a failure: certificates and secrets in files may have been replaced.
pub(super) fn reopen(context: &Context, hurry: Option<Hurry>) -> Reopen {
    let context = context.clone();
    Box::new(move || {
        let (context, hurry) = (context.clone(), hurry.clone());
        Box::pin(async move {
            let timeout = context.config.wal.timeout;
            let made = match &hurry {
                Some(hurry) => targets::for_archiver(&context, timeout, hurry).await,
                None => targets::all(&context, Some(timeout)).await,
            };
            made.inspect_err(|failure| tracing::warn!(%failure, "the repositories cannot be opened again")).ok()
        })
    })
}

/// Whether the program that has its path now starts with the configuration as it is now. If not, the agent stays: every
/// command would do without one. It asks this agent for its status, so it changes nothing.
fn can_replace(program: &Path) -> bool {
    let words = std::env::args_os().skip(1);
    let tried = Command::new(program).args(words).arg("status").stdin(Stdio::null()).output();
    // With another spool in the configuration, it finds no agent.
    let starts = [ExitCode::Ok, ExitCode::ProblemsFound].map(|code| i32::from(code.number()));
    let reason = match tried {
        Ok(output) if output.status.code().is_some_and(|code| starts.contains(&code)) => return true,
        Ok(output) => format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => error.to_string(),
    };
    let program = program.display();
    tracing::error!(%program, reason, "the agent is not reloaded, and continues with the configuration that it has: \
                                       correct this, and reload it again");
    false
}

/// Executes the program with the same arguments in the place of this process; returns only if that fails.
fn replace(program: &Path, prepare: impl FnOnce(&mut Command) -> &mut Command) -> Failure {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let error = prepare(Command::new(program).args(words)).exec();
    Failure::new(ExitCode::UnreadableFile, format!("{} cannot be executed", program.display()))
        .caused_by(Some(&error))
        .hint("the agent has ended: start it again")
}

fn of_socket(error: &SocketError) -> Failure {
    match error {
        SocketError::Taken(_) => Failure::new(ExitCode::Configuration, error.to_string())
            .hint("`holdfast agent status` shows it; to replace it, send it SIGHUP (`systemctl reload`)"),
        SocketError::Io { .. } => Failure::new(ExitCode::UnwritableFile, error.to_string()).hint(
            "the socket is in `wal.spool`; its whole path may have at most 107 bytes, and the file system must allow \
             sockets",
        ),
    }
}

fn of_push(error: &holdfast_engine::Error) -> ErrorReport {
    report(&wal::of_local_file(error))
}

fn of_get(error: &holdfast_engine::Error) -> ErrorReport {
    report(&wal::as_recovery_reads_it(error))
}

fn report(failure: &Failure) -> ErrorReport {
    ErrorReport::new(failure.code, failure.problem())
}

fn status(context: &Context) -> Result<ExitCode, Failure> {
    let config = &context.config;
    let none = |reason: Option<String>| {
        let message = format!("no agent of cluster {} answers on this machine", config.cluster.name);
        let failure = Failure::new(
            ExitCode::ProblemsFound,
            match reason {
                Some(reason) => format!("{message}: {reason}"),
                None => message,
            },
        );
        failure.hint(
            "`wal push` and `wal get` work without it, more slowly; start it with `holdfast agent` or systemd \
             (docs/wal.md)",
        )
    };
    let Some(spool) = Spool::existing(&config.wal.spool, &config.cluster.name) else { return Err(none(None)) };
    match client::ask(&spool, String::new(), Request::Status, None) {
        Reply::Answered(conversation) => match &conversation.answer {
            Answer::Status(status) => {
                context.print(|| status_text(status), status)?;
                Ok(ExitCode::Ok)
            }
            _ => Err(none(Some("its answer is not a status".to_owned()))),
        },
        Reply::Alone(reason) => Err(none(reason)),
    }
}

fn status_text(status: &AgentStatus) -> String {
    let AgentStatus { pid, version, since, push, get, gaps, declined, last_declined } = status;
    let mut text = format!("agent {version}, process {pid}");
    if let Some(since) = since {
        let _ = write!(text, ", since {}", time::shown(*since));
    }
    let PushStatus { answered, answered_at_once, failed, in_flight, ahead, window, waiting, .. } = push;
    let _ = write!(
        text,
        "\narchiving: {answered} stored for PostgreSQL, {answered_at_once} of them before it asked; {failed} failed\n\
         now:       {in_flight} on their way, {ahead} stored ahead, {waiting} waiting in pg_wal, up to {window} at once\n"
    );
    if let (Some(file), Some(at)) = (&push.last_archived, push.last_archived_at) {
        let _ = writeln!(text, "last:      {file} at {}", time::shown(at));
    }
    if let Some(failure) = &push.last_failure {
        let _ = writeln!(text, "failing:   {}", failure.problem.message);
    }
    let GetStatus { answered, answered_at_once, absent, failed, in_flight, ahead } = get;
    let _ = writeln!(
        text,
        "fetching:  {answered} fetched for recovery, {answered_at_once} of them before it asked; {absent} not in the \
         archive, {failed} failed\nnow:       {in_flight} on their way, {ahead} fetched ahead"
    );
    if let Some(reason) = last_declined {
        let _ =
            writeln!(text, "declined:  {declined} calls did the work without the agent; the last one because {reason}");
    }
    for gap in gaps.iter().filter(|gap| gap.verified_at.is_none()) {
        let _ = writeln!(text, "UNKNOWN:   whether WAL is missing in {}: run `wal verify` every day", gap.repository);
    }
    for gap in gaps.iter().filter(|gap| gap.segment_count > 0) {
        let _ = writeln!(
            text,
            "MISSING:   {} WAL segments in {}, recorded by `wal verify`",
            gap.segment_count, gap.repository
        );
    }
    text
}
