//! Commands that run until they are stopped and are not about one repository: they read no configuration.
//!
//! Their log is text on a terminal, and JSON elsewhere, where programs collect it.

use crate::args::{Args, Command};
use crate::config::validated::{Log, LogFormat, LogLevel};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::logging;
use crate::signals::Signals;
use crate::style::Style;
use crate::verbs;
use std::io::IsTerminal;

/// Runs such a command; `None` for any other. `signal` is set to the first signal, if it ended the command.
pub(crate) fn run(args: &Args, style: Style, signal: &mut Option<u8>) -> Option<Result<ExitCode, Failure>> {
    match &args.command {
        Command::Operator(command) => {
            logging::start(log(args), style);
            let command = command.clone();
            Some(blocking(signal, |signals| verbs::operator::run(command, signals.cancellation())))
        }
        _ => None,
    }
}

fn log(args: &Args) -> Log {
    let global = &args.global;
    let level = match (global.log_level, global.verbose, global.quiet) {
        (Some(level), _, _) => level,
        (None, _, true) => LogLevel::Error,
        (None, 0, false) => LogLevel::Info,
        (None, 1, false) => LogLevel::Debug,
        (None, _, false) => LogLevel::Trace,
    };
    let format = if std::io::stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json };
    Log { level, format }
}

/// Runs until the command ends; after a second signal it does not wait for the command.
fn blocking<F>(signal: &mut Option<u8>, command: impl FnOnce(Signals) -> F) -> Result<ExitCode, Failure>
where
    F: Future<Output = Result<ExitCode, Failure>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::internal("the runtime cannot be started").caused_by(Some(&error)))?;
    let result = runtime.block_on(async {
        let signals = Signals::listen()
            .map_err(|error| Failure::internal("cannot listen for signals").caused_by(Some(&error)))?;
        let running = tokio::spawn(command(signals.clone()));
        let result = tokio::select! {
            joined = running => joined.unwrap_or_else(|_| Err(Failure::internal("holdfast stopped because of a fault \
                                                                                 in its own code"))),
            () = signals.second() => Err(Failure::cancelled().hint("unfinished work continues at the next start")),
        };
        // Being stopped is the normal end of these commands.
        *signal = if result.is_ok() { None } else { signals.first() };
        result
    });
    runtime.shutdown_background();
    result
}
