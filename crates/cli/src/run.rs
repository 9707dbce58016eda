//! One run of the command, from its arguments to its exit status.
//!
//! Only the return value may end the process: a panic, a signal and a command line that cannot be parsed must all give
//! the status that PostgreSQL needs.

use crate::args::{Args, Color, Command, Output, ProgressFormat, WalCommand};
use crate::config::{self, Loaded};
use crate::exit_code::{Caller, ExitCode};
use crate::failure::{self, Failure, present};
use crate::logging;
use crate::output::bars::above_bar;
use crate::output::progress::Show;
use crate::output::stdout;
use crate::resident;
use crate::signals::Signals;
use crate::style::Style;
use crate::verbs::{self, Context};
use clap::Parser;
use clap::error::ErrorKind;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// PostgreSQL starts many of these: threads for all cores would cost more time than they save.
const WAL_WORKERS: usize = 2;

/// How to show a failure; guessed from the arguments until they are parsed.
#[derive(Clone, Copy, Debug)]
struct FailureStyle {
    output: Output,
    style: Style,
}

/// Runs the command with these arguments (the first is the program) and returns the exit status of the process.
pub fn run(words: impl IntoIterator<Item = OsString>) -> u8 {
    let words: Vec<OsString> = words.into_iter().collect();
    let texts: Vec<&str> = words.iter().skip(1).filter_map(|word| word.to_str()).collect();
    let caller = Caller::of_words(texts.iter().copied());
    let json = texts.contains(&"--output=json") || texts.windows(2).any(|pair| pair == ["--output", "json"]);
    let mut failure_style =
        FailureStyle { output: if json { Output::Json } else { Output::Text }, style: style(Color::Auto) };
    let mut signal = None;
    let ended = catch_unwind(AssertUnwindSafe(|| perform(words, &mut failure_style, &mut signal)));
    let result =
        ended.unwrap_or_else(|_| Err(Failure::internal("holdfast stopped because of a fault in its own code")));
    let code = match result {
        Ok(code) => code,
        Err(failure) => {
            let text = match failure_style.output {
                Output::Text => present::text(&failure, failure_style.style),
                Output::Json => present::json(&failure),
            };
            // If stderr cannot be written, only the exit status is left.
            let _ = above_bar(text.as_bytes());
            failure.code
        }
    };
    code.status(caller, signal)
}

fn perform(
    words: Vec<OsString>,
    failure_style: &mut FailureStyle,
    signal: &mut Option<u8>,
) -> Result<ExitCode, Failure> {
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            let coloured = std::io::stdout().is_terminal() && failure_style.style == Style::Coloured;
            let rendered = error.render();
            return stdout::text(&if coloured { rendered.ansi().to_string() } else { rendered.to_string() })
                .map(|()| ExitCode::Ok);
        }
        Err(error) => return Err(failure::of_command_line(&error)),
    };
    *failure_style = FailureStyle { output: args.global.output, style: style(args.global.color) };
    let doing = args.doing();
    if let Some(result) = verbs::run_bare(&args.command, failure_style.output) {
        return result.map_err(|failure| failure.doing(doing));
    }
    if let Some(result) = resident::run(&args, failure_style.style, signal) {
        return result.map_err(|failure| failure.doing(doing));
    }

    let environment = config::environment::of_process()?;
    let Loaded { mut config, file: config_file } =
        config::load(args.global.config.as_deref(), &environment, args.overlay())?;
    logging::start(config.log, failure_style.style);
    if let Command::Wal(WalCommand::Push { path, standby: false, .. }) = &args.command
        && let Some(answer) = verbs::asking::push(&config, config_file.as_deref(), path)
    {
        return answered(answer, failure_style.output, doing);
    }
    if let Command::Wal(WalCommand::Push { path, .. }) = &args.command
        && failure_style.output == Output::Text
        && verbs::already_durable(&config, path)
    {
        return Ok(ExitCode::Ok);
    }
    if let Command::Wal(WalCommand::Get { repo: Some(number), .. }) = &args.command {
        verbs::only(&mut config, *number)?;
    }
    if let Command::Wal(WalCommand::Get { name, until: Some(until), .. }) = &args.command {
        verbs::refuse_after(name, *until)?;
    }
    let is_cut = matches!(&args.command, Command::Wal(WalCommand::Get { name, tail, .. })
        if verbs::ends_at_switch(name, tail));
    // A promotion waits for the answer to a standby, which asks again by itself.
    if let Command::Wal(WalCommand::Get { name, dest, until, ahead_until, repo: None, standby, tail }) = &args.command
        && !is_cut
        && let patience = standby.then_some(config.wal.timeout)
        && let last = verbs::last_ahead(name, *until, *ahead_until)
        && let Some(answer) = verbs::asking::get(&config, config_file.as_deref(), name, dest, last, patience)
        // The agent gives whole segments only.
        && (tail.is_empty() || !answer.as_ref().is_err_and(|failure| failure.code == ExitCode::Absent))
    {
        return answered(answer, failure_style.output, doing);
    }
    if let Command::Wal(WalCommand::Get { name, dest, .. }) = &args.command
        && !is_cut
        && let Some(report) = verbs::already_fetched(&config, name, dest)
    {
        if failure_style.output == Output::Json {
            stdout::json(&report)?;
        }
        return Ok(ExitCode::Ok);
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if matches!(args.command, Command::Wal(_)) {
        builder.worker_threads(WAL_WORKERS);
    }
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::internal("the runtime cannot be started").caused_by(Some(&error)))?;
    let failure_style = *failure_style;
    let result = runtime.block_on(async {
        let signals = Signals::listen()
            .map_err(|error| Failure::internal("cannot listen for signals").caused_by(Some(&error)))?;
        let show = match args.global.progress {
            ProgressFormat::Json => Show::Json,
            ProgressFormat::Text => {
                Show::choose(!args.global.no_progress && !args.global.quiet && failure_style.output == Output::Text)
            }
        };
        let context = Context {
            variables: verbs::inherited::variables(&config, &environment),
            config,
            config_file,
            output: failure_style.output,
            show,
            style: failure_style.style,
            cancellation: signals.cancellation(),
            signals: signals.clone(),
        };
        let is_resident = matches!(args.command, Command::Agent(_) | Command::Wal(WalCommand::Receive(_)));
        let verb = tokio::spawn(verbs::run(args.command, context));
        let result = tokio::select! {
            joined = verb => joined.unwrap_or_else(|_| Err(Failure::internal("holdfast stopped because of a fault in \
                                                                              its own code"))),
            () = signals.second() => Err(Failure::cancelled().hint("unfinished work is left as after a crash; the \
                                                                    next run cleans up")),
        };
        // Being stopped is the normal end of an agent and of a receiver.
        *signal = if is_resident && result.is_ok() { None } else { signals.first() };
        result
    });
    // Blocking threads may be in the middle of a system call; their result no longer matters.
    runtime.shutdown_background();
    // "Not in the archive" is the usual end of every recovery: one line instead of three in the server's log.
    result.map_err(|failure| if failure.code == ExitCode::Absent { failure } else { failure.doing(doing) })
}

/// The end of a command that the agent did.
fn answered(
    answer: Result<impl serde::Serialize, Failure>,
    output: Output,
    doing: &'static str,
) -> Result<ExitCode, Failure> {
    let report =
        answer.map_err(|failure| if failure.code == ExitCode::Absent { failure } else { failure.doing(doing) })?;
    if output == Output::Json {
        stdout::json(&report)?;
    }
    Ok(ExitCode::Ok)
}

fn style(color: Color) -> Style {
    let coloured = match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
        }
    };
    if coloured { Style::Coloured } else { Style::Plain }
}
