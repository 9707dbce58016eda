//! From a parsed command to the engine's verb.

use crate::args::{Args, Command, Output};
use crate::config::Config;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::output::progress::Show;
use crate::output::{Style, stdout};
use clap::CommandFactory;
use std::future::{Ready, ready};
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// What every verb is given.
#[derive(Clone, Debug)]
pub struct Context {
    /// The configuration, flags included.
    pub config: Config,
    /// How results are written.
    pub output: Output,
    /// How progress is shown.
    pub show: Show,
    /// Whether text on stderr may be coloured.
    pub style: Style,
    /// Tripped by the first signal.
    pub cancellation: CancellationToken,
}

/// Runs the commands that need neither configuration nor runtime; others answer `None`.
pub(crate) fn run_bare(command: &Command) -> Option<Result<ExitCode, Failure>> {
    match command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "holdfast", &mut script);
            Some(stdout::text(&String::from_utf8_lossy(&script)).map(|()| ExitCode::Ok))
        }
        Command::Man { dir } => Some(man(dir).map(|()| ExitCode::Ok)),
        _ => None,
    }
}

fn man(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Args::command(), dir)).map_err(|error| {
        let code =
            if error.kind() == std::io::ErrorKind::StorageFull { ExitCode::NoSpace } else { ExitCode::UnwritableFile };
        Failure::new(code, format!("cannot write the manual pages into {}", dir.display()))
            .caused_by(Some(&error))
            .hint("name a directory that you may write")
    })
}

/// Runs the verb of a command.
pub(crate) fn run(command: &Command, context: &Context) -> Ready<Result<ExitCode, Failure>> {
    let cluster = &context.config.cluster.name;
    ready(Err(Failure::internal(format!("this build of holdfast has no engine for {command:?} of {cluster}"))))
}
