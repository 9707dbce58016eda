//! The demo: a PostgreSQL is backed up, broken and restored to the moment before, with nothing to configure.
//!
//! `holdfast-demo [--keep] [--pg N] [--rows N] [--size-mb N]`
//!
//! Everything in it is real: a PostgreSQL of its own, an S3 server over HTTP, and the `holdfast` program of the same
//! build, run as a person would run it ([`story`]). It succeeds only if the restored rows have the same checksum as
//! before the accident. All servers and folders end with the process, also on Ctrl-C. With `--keep` the process waits
//! for Ctrl-C ([`keep`]).

mod arguments;
mod keep;
mod screen;
mod shop;
mod stage;
mod story;

use std::error::Error;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::{Options, USAGE, parse};
use crate::screen::Screen;

/// Any error: it is printed and ends the demo.
pub(crate) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let screen = Screen::new();
    let options = match parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            screen.line(USAGE);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            screen.error(&error);
            screen.error_line(USAGE);
            return ExitCode::from(2);
        }
    };
    let outcome = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| {
        // Dropped inside the runtime, because its connections need the runtime.
        runtime.block_on(run(&options, &screen))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen.error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options, screen: &Screen) -> Result<()> {
    let mut signals = Signals::listen()?;
    let stage = tokio::select! {
        told = story::tell(options, screen) => told?,
        () = signals.any() => return Err("interrupted: the servers are stopped and their folders removed".into()),
    };
    if options.keep {
        keep::explain(&stage, screen)?;
        signals.any().await;
        screen.line("\nstopping the servers and removing their folders");
    }
    Ok(())
}

/// The signals that end the demo.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
